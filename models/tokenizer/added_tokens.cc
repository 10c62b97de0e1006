// SPDX-License-Identifier: Apache-2.0
#include "models/tokenizer/added_tokens.h"

#include <algorithm>

#include "models/tokenizer/utf8.h"
#include "runtime/core/error.h"

namespace assay {
namespace {

// Bounds the time to look at one position of a text; the longest in use have some 60 bytes.
constexpr size_t kMaxTokenBytes = 1024;

Utf8Step LastCharacter(std::string_view text) {
  size_t begin = text.size();
  while (begin > 0 && (static_cast<unsigned char>(text[--begin]) & 0xC0) == 0x80) {
  }
  return NextUtf8(text.substr(begin));
}

bool TouchesWord(std::string_view before, std::string_view after) {
  return (!before.empty() && IsWordChar(LastCharacter(before).code)) ||
         (!after.empty() && IsWordChar(NextUtf8(after).code));
}

}  // namespace

void AddedTokenFinder::Add(AddedToken token) {
  if (token.text.empty() || token.text.size() > kMaxTokenBytes) {
    throw Error("the added token with id " + std::to_string(token.id) + " has " + std::to_string(token.text.size()) +
                " bytes, not 1.." + std::to_string(kMaxTokenBytes));
  }
  tokens_.push_back(std::make_unique<AddedToken>(std::move(token)));
  const AddedToken* added = tokens_.back().get();
  by_text_.erase(added->text);
  by_text_.emplace(added->text, added);
  auto& lengths = lengths_[static_cast<unsigned char>(added->text[0])];
  const auto place = std::lower_bound(lengths.begin(), lengths.end(), added->text.size(), std::greater<>());
  if (place == lengths.end() || *place != added->text.size()) lengths.insert(place, added->text.size());
}

const AddedToken* AddedTokenFinder::Longest(std::string_view text) const {
  for (const size_t length : lengths_[static_cast<unsigned char>(text[0])]) {
    if (length > text.size()) continue;
    const auto found = by_text_.find(text.substr(0, length));
    if (found != by_text_.end()) return found->second;
  }
  return nullptr;
}

std::vector<AddedTokenFinder::Part> AddedTokenFinder::Cut(std::string_view text, bool parse_special) const {
  std::vector<Part> parts;
  size_t done = 0;  // parts cover text[0, done)
  for (size_t i = 0; i < text.size();) {
    const AddedToken* token = Longest(text.substr(i));
    if (token == nullptr) {
      ++i;
      continue;
    }
    size_t begin = i, end = i + token->text.size();
    i = end;  // a match that does not count still hides others that begin inside it
    if (token->special && !parse_special) continue;
    if (token->single_word && TouchesWord(text.substr(0, begin), text.substr(end))) continue;
    while (token->strip_left && begin > done) {
      const Utf8Step last = LastCharacter(text.substr(0, begin));
      if (!IsWhiteSpace(last.code)) break;
      begin -= last.bytes;
    }
    while (token->strip_right && end < text.size()) {
      const Utf8Step next = NextUtf8(text.substr(end));
      if (!IsWhiteSpace(next.code)) break;
      end += next.bytes;
    }
    begin = std::max(begin, done);  // an earlier token's strip_right may have taken this one's text along
    end = std::max(end, begin);
    if (done < begin) parts.push_back({text.substr(done, begin - done), nullptr});
    parts.push_back({text.substr(begin, end - begin), token});
    done = end;
  }
  if (done < text.size()) parts.push_back({text.substr(done), nullptr});
  return parts;
}

}  // namespace assay
