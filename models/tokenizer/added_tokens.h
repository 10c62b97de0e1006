// SPDX-License-Identifier: Apache-2.0
// Finds tokens that stand outside the vocabulary's merges ("<|im_start|>") in a text. Immutable once filled: any
// thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace assay {

struct AddedToken {
  int32_t id = 0;
  std::string text;
  bool special = false;
  bool single_word = false;  // only where no word character touches it
  bool strip_left = false;   // takes the white space before it along
  bool strip_right = false;
  bool normalized = false;  // looked for in the normalized text rather than in the text as given
};

class AddedTokenFinder {
 public:
  // Throws Error for an empty or absurdly long text. A text that is already there is replaced.
  void Add(AddedToken token);

  struct Part {
    std::string_view text;              // plain text if token is null
    const AddedToken* token = nullptr;  // lives as long as the finder
  };
  // Leftmost, longest first, as Hugging Face does it. parse_special false: special tokens are plain text.
  std::vector<Part> Cut(std::string_view text, bool parse_special) const;

 private:
  const AddedToken* Longest(std::string_view text) const;  // that `text` starts with

  std::unordered_map<std::string_view, const AddedToken*> by_text_;
  std::vector<std::unique_ptr<AddedToken>> tokens_;
  std::vector<size_t> lengths_[256];  // by first byte, longest first, each once
};

}  // namespace assay
