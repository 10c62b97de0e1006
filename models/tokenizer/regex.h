// SPDX-License-Identifier: Apache-2.0
// Regular expressions over UTF-8 with the meaning that tokenizer files give them (Oniguruma's, through PCRE2).
// Immutable once compiled: any thread. The pattern comes from a file, so compiling and matching are bounded: both throw
// Error (what PCRE2 says and where) rather than crash or backtrack for ever. What stays possible is a pattern made to
// take quadratic time; none in use does.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace assay {

class Regex {
 public:
  struct Span {
    size_t begin;  // bytes
    size_t end;
    bool is_match;
  };

  // literal: the pattern is a plain string.
  explicit Regex(std::string_view pattern, bool literal = false);

  // Cuts `text` (valid UTF-8) into matches and what lies between them; no span is empty.
  std::vector<Span> Cut(std::string_view text) const;

 private:
  std::string pattern_;
  std::shared_ptr<const void> code_;  // pcre2_code
};

}  // namespace assay
