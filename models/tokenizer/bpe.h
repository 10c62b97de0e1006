// SPDX-License-Identifier: Apache-2.0
// Byte-pair encoding of one piece of text: symbols are characters at first, and the best adjacent pair is merged until
// none is left. Two ways to say which pair is best: a ranked list of merges (Hugging Face, GGUF "gpt2") or scored
// pieces (SentencePiece, GGUF "llama"). Time O(n log n). Immutable after loading: any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "models/tokenizer/vocabulary.h"

namespace assay {

class Bpe {
 public:
  struct Options {
    std::optional<int32_t> unknown;  // for characters that have no token; without it they are left out
    bool fuse_unknown = false;       // adjacent unknown characters make one token
    bool byte_fallback = false;      // an unknown character becomes its bytes' tokens <0x00>..<0xFF>
    bool whole_pieces = false;       // a piece that is a token is that token, whatever the merges say ("ignore_merges")
  };

  Bpe(Vocabulary vocabulary, Options options);

  // The next merge, in order of rank; a repeated pair takes the later rank. Throws Error if a part or their join is no
  // token.
  void AddMerge(std::string_view left, std::string_view right);
  // Scored pieces in place of merges: score[id], higher is better; `mergeable[id]` says which tokens merging may make.
  void SetScores(const std::vector<float>& scores, const std::vector<bool>& mergeable);

  // Appends the ids of `piece`, valid UTF-8 of less than 2^31 bytes.
  void Encode(std::string_view piece, std::vector<int32_t>* ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }
  const Options& options() const { return options_; }

 private:
  static constexpr int32_t kNone = -1;
  static constexpr uint32_t kUnmergeable = UINT32_MAX;
  struct Merge {
    uint32_t rank;
    int32_t id;
  };
  struct Symbol {
    int32_t id;  // kNone if the text is no token
    int32_t previous;
    int32_t next;
    uint32_t begin;
    uint32_t bytes;  // 0 once merged into the symbol on the left
  };
  struct Candidate {
    uint32_t rank;
    int32_t left;
    int32_t id;
    bool operator<(const Candidate& other) const {  // the top of a std heap is the lowest rank, then the leftmost
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };

  int32_t FindCharacter(std::string_view character) const;
  std::vector<Symbol> Characters(std::string_view piece) const;
  std::optional<Merge> FindMerge(std::string_view piece, const Symbol& left, const Symbol& right) const;
  void MergeAll(std::string_view piece, std::vector<Symbol>* symbols) const;
  // The tokens of the text's bytes; false if one of them has no token.
  bool AppendBytes(std::string_view text, std::vector<int32_t>* ids) const;

  Vocabulary vocabulary_;
  Options options_;
  std::unordered_map<uint64_t, Merge> merges_;  // by left id << 32 | right id
  uint32_t merge_count_ = 0;
  std::vector<uint32_t> score_rank_;  // by id, or kUnmergeable; empty if there are merges
  size_t longest_scored_ = 0;         // bytes
  int32_t low_characters_[512];       // ids of U+0000..U+01FF: all that byte-level pieces consist of
  int32_t byte_tokens_[256];
};

}  // namespace assay
