// SPDX-License-Identifier: Apache-2.0
// Turns token ids into text one by one, without ever cutting a UTF-8 character in two. What Push and Finish return,
// put together, is what Tokenizer::Decode gives for all the ids. One thread; the tokenizer must outlive it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/tokenizer/tokenizer.h"

namespace assay {

class StreamDecoder {
 public:
  StreamDecoder(const Tokenizer& tokenizer, bool skip_special) : tokenizer_(tokenizer), skip_special_(skip_special) {}

  // The text that is certain now that `id` has come; may be empty. Invalid UTF-8 becomes U+FFFD.
  std::string Push(int32_t id);
  // What is left of an unfinished character at the end: U+FFFD or nothing.
  std::string Finish();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  bool at_start_ = true;        // no text has come yet,
  std::vector<int32_t> start_;  // only these ids
  std::string pending_;         // the beginning of a character
};

}  // namespace assay
