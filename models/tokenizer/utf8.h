// SPDX-License-Identifier: Apache-2.0
// The few UTF-8 operations that tokenizers need. Pure functions: any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace assay {

// What stands at the start of a text.
struct Utf8Step {
  char32_t code = 0xFFFD;
  size_t bytes = 0;  // consumed: one character, or the longest prefix of one (then it is invalid); 0 at the end
  bool valid = false;
  bool incomplete = false;  // invalid only because the text ends inside the character
};
Utf8Step NextUtf8(std::string_view text);

bool IsUtf8(std::string_view text);
// Each invalid sequence (maximal subpart, as Unicode recommends and Python and Rust do) becomes one U+FFFD.
std::string Utf8Lossy(std::string_view text);
// `code` must be a Unicode scalar value.
void AppendUtf8(char32_t code, std::string* out);
// Unicode normalization form C. `text` must be valid UTF-8. Time O(n log n) even for runs of combining marks.
std::string ToNfc(std::string_view text);

bool IsWhiteSpace(char32_t code);  // the property White_Space
bool IsWordChar(char32_t code);    // \w: letters, marks, decimal digits, letter numbers, connectors

}  // namespace assay
