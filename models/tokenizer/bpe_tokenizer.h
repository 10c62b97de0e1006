// SPDX-License-Identifier: Apache-2.0
// The one tokenizer behind the interface, put together from parts by the loaders of the file formats.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/tokenizer/added_tokens.h"
#include "models/tokenizer/bpe.h"
#include "models/tokenizer/text_steps.h"
#include "models/tokenizer/tokenizer.h"

namespace assay {

// How tokens become text again.
struct TokenDecoder {
  bool byte_level = false;                                        // GPT-2's alphabet back to bytes
  std::vector<std::pair<std::string, std::string>> replacements;  // "▁" to " "
  bool byte_tokens = false;                                       // <0x0A> is the byte 10
  std::string strip;                                              // this character is taken off the text's start ...
  int64_t strip_count = 0;                                        // ... so many times at most
  std::string drop_in_first;                                      // taken out of the first token: Metaspace's rule

  std::string Bytes(std::string_view token, bool added) const;
};

struct TokenizerParts {
  explicit TokenizerParts(Bpe model) : bpe(std::move(model)) {}

  Bpe bpe;
  std::vector<std::unique_ptr<Normalizer>> normalizers;
  std::vector<std::unique_ptr<Splitter>> splitters;
  std::vector<AddedToken> added;
  TokenDecoder decoder;
  std::vector<int32_t> before;  // the special tokens around a text
  std::vector<int32_t> after;
};

class BpeTokenizer : public Tokenizer {
 public:
  // Throws Error if the parts do not fit together.
  explicit BpeTokenizer(TokenizerParts parts);

  std::vector<int32_t> Encode(std::string_view text, bool add_special, bool parse_special) const override;
  std::string TokenBytes(int32_t id) const override;
  std::string Decode(std::span<const int32_t> ids, bool skip_special) const override;
  int32_t vocab_size() const override { return static_cast<int32_t>(bytes_.size()); }
  bool IsSpecial(int32_t id) const override;

 private:
  bool Known(int32_t id) const { return id >= 0 && id < vocab_size(); }
  void EncodePlain(std::string_view text, Place place, bool parse_special, std::vector<int32_t>* ids) const;
  void EncodePiece(size_t step, std::string_view text, Place place, std::vector<int32_t>* ids) const;

  TokenizerParts parts_;
  AddedTokenFinder in_text_;        // added tokens looked for in the text as given,
  AddedTokenFinder in_normalized_;  // and in the normalized text
  std::vector<std::string> bytes_;  // by id
  std::vector<bool> special_;       // by id
};

// The file is sound, but made for a kind of tokenizer that is not among ours. what() completes "... is not supported".
class UnknownTokenizerKind : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Loaders, one per file format. They throw Error or UnknownTokenizerKind without the file's name.
TokenizerParts LoadTokenizerJson(const std::string& path);
TokenizerParts LoadSentencePieceModel(const std::string& path);
TokenizerParts LoadGgufTokenizer(const std::string& path);

// A whole file; Error if it cannot be read or has more than 256 MiB.
std::string ReadTokenizerFile(const std::string& path);

// What tokenizer_config.json, beside the tokenizer, says about special tokens around a text. Not all folders have one.
struct TokenizerConfig {
  bool present = false;  // says something about adding tokens
  bool add_bos = false;
  bool add_eos = false;
  std::string bos;
  std::string eos;
};
TokenizerConfig ReadTokenizerConfig(const std::string& folder);

}  // namespace assay
