// SPDX-License-Identifier: Apache-2.0
#include "models/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <new>

#include "models/format/printable.h"
#include "models/tokenizer/utf8.h"
#include "runtime/core/error.h"

namespace assay {
namespace {

constexpr size_t kMaxPatternBytes = 1 << 16;  // the longest in use has about 2 KB
// Backtracking steps of one match beyond what a scan over the rest of the text may take.
constexpr uint32_t kMatchLimit = 1'000'000;
constexpr uint32_t kHeapLimitKib = 256 * 1024;

std::string Message(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

// PCRE2's \s also takes U+180E and its \w differs too: spell out the classes that Oniguruma uses.
std::string Translate(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char escaped = pattern[++i];
      if (escaped == 's') {
        out += "\\p{White_Space}";
      } else if (escaped == 'S') {
        out += "\\P{White_Space}";
      } else if (escaped == 'w') {
        out += in_class ? "\\p{L}\\p{M}\\p{Nd}\\p{Pc}" : "[\\p{L}\\p{M}\\p{Nd}\\p{Pc}]";
      } else if (escaped == 'W' && !in_class) {
        out += "[^\\p{L}\\p{M}\\p{Nd}\\p{Pc}]";
      } else {
        out += c;
        out += escaped;
      }
      continue;
    }
    if (c == '[') in_class = true;
    if (c == ']') in_class = false;
    out += c;
  }
  return out;
}

}  // namespace

Regex::Regex(std::string_view pattern, bool literal) : pattern_(pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    throw Error("a regular expression of " + std::to_string(pattern.size()) + " bytes is longer than any tokenizer's");
  }
  const std::string translated = literal ? pattern_ : Translate(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  const uint32_t options =
      PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C);
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(), options, &error,
                                   &offset, nullptr);
  if (code == nullptr) {
    throw Error("the regular expression '" + Printable(pattern_) + "' does not compile: " + Message(error) +
                " (at byte " + std::to_string(offset) + ")");
  }
  code_ = std::shared_ptr<const void>(code, [code](const void*) { pcre2_code_free(code); });
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // where there is no JIT, pcre2_match interprets
}

std::vector<Regex::Span> Regex::Cut(std::string_view text) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create_from_pattern(code, nullptr), pcre2_match_data_free);
  std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context(pcre2_match_context_create(nullptr),
                                                                                    pcre2_match_context_free);
  if (match == nullptr || context == nullptr) throw std::bad_alloc();
  pcre2_set_heap_limit(context.get(), kHeapLimitKib);
  const size_t scan = text.size() < (1u << 27) ? 16 * text.size() : size_t{1} << 31;
  pcre2_set_match_limit(context.get(), kMatchLimit + static_cast<uint32_t>(scan));

  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* found = pcre2_get_ovector_pointer(match.get());
  std::vector<Span> spans;
  size_t done = 0;      // spans cover text[0, done)
  size_t position = 0;  // where the next search starts
  while (position <= text.size()) {
    int rc = pcre2_match(code, subject, text.size(), position, PCRE2_NO_UTF_CHECK, match.get(), context.get());
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter keeps its backtracking points on the heap
      rc = pcre2_match(code, subject, text.size(), position, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match.get(),
                       context.get());
    }
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) {
      throw Error("the tokenizer's regular expression '" + Printable(pattern_) + "' fails at byte " +
                  std::to_string(position) + " of the text: " + Message(rc) +
                  "; use the model's original tokenizer file");
    }
    const size_t begin = found[0], end = found[1];
    if (end <= begin) {  // an empty match (or \K in a lookaround): go on behind the next character
      if (begin >= text.size()) break;
      position = begin + NextUtf8(text.substr(begin)).bytes;
      continue;
    }
    if (done < begin) spans.push_back({done, begin, false});
    spans.push_back({begin, end, true});
    done = position = end;
  }
  if (done < text.size()) spans.push_back({done, text.size(), false});
  return spans;
}

}  // namespace assay
