// SPDX-License-Identifier: Apache-2.0
// Text to token ids and back, exactly as the model's own tokenizer does it. Immutable after construction: any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace assay {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // add_special: put the tokens (BOS...) around the text that the model's tokenizer puts there.
  // parse_special: recognise special tokens written out in the text ("<|im_start|>"); otherwise they are plain text.
  // Any byte sequence is accepted: what is not UTF-8 reads as U+FFFD, as in Python's errors="replace".
  // Throws Error for a text of more than 512 MiB.
  virtual std::vector<int32_t> Encode(std::string_view text, bool add_special, bool parse_special) const = 0;
  // The bytes of one token; may be part of a UTF-8 sequence. Special tokens give their text. Empty for unknown ids.
  virtual std::string TokenBytes(int32_t id) const = 0;
  // Joined text of ids. skip_special leaves special tokens out. Invalid UTF-8 becomes U+FFFD.
  virtual std::string Decode(std::span<const int32_t> ids, bool skip_special) const = 0;
  virtual int32_t vocab_size() const = 0;
  virtual bool IsSpecial(int32_t id) const = 0;
};

// `source` is Checkpoint::tokenizer_source(): a .gguf file or a folder with tokenizer.json (or tokenizer.model).
// nullptr with a reason in `why` if there is no tokenizer or one of an unknown kind.
// Throws Error if there is one, but it is damaged.
std::unique_ptr<Tokenizer> OpenTokenizer(const std::string& source, std::string* why);

}  // namespace assay
