// SPDX-License-Identifier: Apache-2.0
#include "models/tokenizer/bpe_tokenizer.h"

#include <algorithm>

#include "models/format/printable.h"
#include "models/tokenizer/utf8.h"
#include "runtime/core/error.h"

namespace assay {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 29;  // positions are 32-bit, and byte-level text may double

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// The byte of a token like <0x0A>, or -1.
int ByteOfToken(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const int high = HexDigit(token[3]), low = HexDigit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace

std::string TokenDecoder::Bytes(std::string_view token, bool added) const {
  if (byte_tokens) {
    if (const int byte = ByteOfToken(token); byte >= 0) return std::string(1, static_cast<char>(byte));
  }
  // An added token is text already, even where its characters belong to the byte alphabet.
  std::string out = byte_level && !added ? FromByteLevel(token) : std::string(token);
  for (const auto& [from, to] : replacements) out = ReplaceAll(out, from, to);
  return out;
}

BpeTokenizer::BpeTokenizer(TokenizerParts parts) : parts_(std::move(parts)) {
  const Vocabulary& vocabulary = parts_.bpe.vocabulary();
  int32_t size = vocabulary.size();
  for (const AddedToken& token : parts_.added) {
    if (token.id < 0 || token.id >= Vocabulary::kMaxTokens) {
      throw Error("added token '" + Printable(token.text) + "' has id " + std::to_string(token.id) +
                  ", not one of 0.." + std::to_string(Vocabulary::kMaxTokens - 1));
    }
    size = std::max(size, token.id + 1);
  }
  bytes_.resize(static_cast<size_t>(size));
  special_.resize(static_cast<size_t>(size));
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    bytes_[static_cast<size_t>(id)] = parts_.decoder.Bytes(vocabulary.Text(id), false);
  }
  for (const AddedToken& token : parts_.added) {
    bytes_[static_cast<size_t>(token.id)] = parts_.decoder.Bytes(token.text, true);
    special_[static_cast<size_t>(token.id)] = token.special;
    AddedToken sought = token;
    if (token.normalized) {  // as the text is in which it is looked for
      for (const auto& normalizer : parts_.normalizers) sought.text = normalizer->Apply(std::move(sought.text), {});
    }
    (token.normalized ? in_normalized_ : in_text_).Add(std::move(sought));
  }
  for (const auto* around : {&parts_.before, &parts_.after}) {
    for (const int32_t id : *around) {
      if (!Known(id)) throw Error("the special token to add has id " + std::to_string(id) + ", which no token has");
    }
  }
}

std::vector<int32_t> BpeTokenizer::Encode(std::string_view text, bool add_special, bool parse_special) const {
  if (text.size() > kMaxTextBytes) {
    throw Error("a text of " + std::to_string(text.size()) + " bytes is too long to tokenize; split it into parts of " +
                std::to_string(kMaxTextBytes) + " bytes at most");
  }
  std::string mended;
  if (!IsUtf8(text)) {
    mended = Utf8Lossy(text);
    text = mended;
  }
  std::vector<int32_t> ids;
  if (add_special) ids = parts_.before;
  Place place{true, true};
  for (const AddedTokenFinder::Part& part : in_text_.Cut(text, parse_special)) {
    if (part.token != nullptr) {
      ids.push_back(part.token->id);
    } else {
      EncodePlain(part.text, place, parse_special, &ids);
    }
    place = {false, part.token != nullptr && part.token->special};
  }
  if (add_special) ids.insert(ids.end(), parts_.after.begin(), parts_.after.end());
  return ids;
}

void BpeTokenizer::EncodePlain(std::string_view text, Place place, bool parse_special,
                               std::vector<int32_t>* ids) const {
  std::string normal(text);
  for (const auto& normalizer : parts_.normalizers) normal = normalizer->Apply(std::move(normal), place);
  for (const AddedTokenFinder::Part& part : in_normalized_.Cut(normal, parse_special)) {
    if (part.token != nullptr) {
      ids->push_back(part.token->id);
    } else {
      EncodePiece(0, part.text, place, ids);
    }
    place = {};
  }
}

void BpeTokenizer::EncodePiece(size_t step, std::string_view text, Place place, std::vector<int32_t>* ids) const {
  if (step == parts_.splitters.size()) return parts_.bpe.Encode(text, ids);
  parts_.splitters[step]->Apply(text, place,
                                [&](std::string_view piece, Place where) { EncodePiece(step + 1, piece, where, ids); });
}

std::string BpeTokenizer::TokenBytes(int32_t id) const {
  return Known(id) ? bytes_[static_cast<size_t>(id)] : "";
}

bool BpeTokenizer::IsSpecial(int32_t id) const {
  return Known(id) && special_[static_cast<size_t>(id)];
}

std::string BpeTokenizer::Decode(std::span<const int32_t> ids, bool skip_special) const {
  const TokenDecoder& decoder = parts_.decoder;
  std::string text;
  bool first = true;
  for (const int32_t id : ids) {
    if (!Known(id) || (skip_special && special_[static_cast<size_t>(id)])) continue;
    const std::string_view token = parts_.bpe.vocabulary().Text(id);  // empty if it is only an added one
    if (first && !decoder.drop_in_first.empty() && !token.empty()) {
      text += decoder.Bytes(ReplaceAll(token, decoder.drop_in_first, ""), false);
    } else {
      text += bytes_[static_cast<size_t>(id)];
    }
    first = false;
  }
  for (int64_t i = 0; i < decoder.strip_count && !decoder.strip.empty() && text.starts_with(decoder.strip); ++i) {
    text.erase(0, decoder.strip.size());
  }
  return Utf8Lossy(text);
}

}  // namespace assay
