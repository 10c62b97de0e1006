// SPDX-License-Identifier: Apache-2.0
// SentencePiece BPE, whether its pieces come from a tokenizer.model or from a GGUF file.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "models/tokenizer/bpe_tokenizer.h"

namespace assay {

// SentencePiece's numbers, which GGUF uses too.
enum class PieceType : int64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

struct ScoredPieces {
  std::vector<std::string_view> texts;  // by id; all three have the same length
  std::vector<float> scores;
  std::vector<PieceType> types;
  bool add_dummy_prefix = true;         // a space before the text
  bool prefix_after_any_token = false;  // and after each added token (llama.cpp), not only after control tokens
  bool remove_extra_whitespaces = false;
};

// Throws Error for pieces that cannot be.
TokenizerParts MakeSentencePiece(const ScoredPieces& pieces);

// The type with that number; Error naming the token's id if there is none.
PieceType ToPieceType(int64_t number, size_t id);

}  // namespace assay
