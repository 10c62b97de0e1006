// SPDX-License-Identifier: Apache-2.0
#include "models/tokenizer/stream_decoder.h"

#include <utility>

#include "models/tokenizer/utf8.h"

namespace assay {

std::string StreamDecoder::Push(int32_t id) {
  if (skip_special_ && tokenizer_.IsSpecial(id)) return "";
  std::string bytes = tokenizer_.TokenBytes(id);
  // Decode knows which spaces to leave out at the start; part of a character is not among them.
  if (at_start_ && IsUtf8(bytes)) {
    start_.push_back(id);
    bytes = tokenizer_.Decode(start_, skip_special_);
  }
  if (!bytes.empty()) at_start_ = false;
  pending_ += bytes;
  size_t certain = 0;
  while (certain < pending_.size()) {
    const Utf8Step step = NextUtf8(std::string_view(pending_).substr(certain));
    if (step.incomplete) break;
    certain += step.bytes;
  }
  const std::string text = Utf8Lossy(std::string_view(pending_).substr(0, certain));
  pending_.erase(0, certain);
  return text;
}

std::string StreamDecoder::Finish() {
  return Utf8Lossy(std::exchange(pending_, {}));
}

}  // namespace assay
