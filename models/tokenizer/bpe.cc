// SPDX-License-Identifier: Apache-2.0
#include "models/tokenizer/bpe.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>

#include "models/format/printable.h"
#include "models/tokenizer/utf8.h"
#include "runtime/core/error.h"

namespace assay {
namespace {

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

Bpe::Bpe(Vocabulary vocabulary, Options options) : vocabulary_(std::move(vocabulary)), options_(options) {
  for (char32_t code = 0; code < std::size(low_characters_); ++code) {
    std::string text;
    AppendUtf8(code, &text);
    low_characters_[code] = vocabulary_.Find(text).value_or(kNone);
  }
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    byte_tokens_[byte] = vocabulary_.Find(name).value_or(kNone);
  }
}

void Bpe::AddMerge(std::string_view left, std::string_view right) {
  const std::string joined = std::string(left) + std::string(right);
  const auto left_id = vocabulary_.Find(left), right_id = vocabulary_.Find(right), id = vocabulary_.Find(joined);
  if (!left_id || !right_id || !id) {
    const std::string_view missing = !left_id ? left : !right_id ? right : joined;
    throw Error("merge " + std::to_string(merge_count_) + " needs the token '" + Printable(missing) +
                "', which the vocabulary lacks");
  }
  merges_.insert_or_assign(PairKey(*left_id, *right_id), Merge{merge_count_++, *id});
}

void Bpe::SetScores(const std::vector<float>& scores, const std::vector<bool>& mergeable) {
  std::vector<float> order = scores;
  std::sort(order.begin(), order.end(), std::greater<>());
  order.erase(std::unique(order.begin(), order.end()), order.end());
  score_rank_.assign(scores.size(), kUnmergeable);
  for (size_t id = 0; id < scores.size(); ++id) {
    if (!mergeable[id]) continue;
    const auto place = std::lower_bound(order.begin(), order.end(), scores[id], std::greater<>());
    score_rank_[id] = static_cast<uint32_t>(place - order.begin());
    longest_scored_ = std::max(longest_scored_, vocabulary_.Text(static_cast<int32_t>(id)).size());
  }
}

int32_t Bpe::FindCharacter(std::string_view character) const {
  const Utf8Step step = NextUtf8(character);
  if (step.code < std::size(low_characters_)) return low_characters_[step.code];
  return vocabulary_.Find(character).value_or(kNone);
}

std::vector<Bpe::Symbol> Bpe::Characters(std::string_view piece) const {
  std::vector<Symbol> symbols;
  for (size_t begin = 0; begin < piece.size();) {
    const size_t bytes = NextUtf8(piece.substr(begin)).bytes;
    const auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({FindCharacter(piece.substr(begin, bytes)), index - 1, index + 1, static_cast<uint32_t>(begin),
                       static_cast<uint32_t>(bytes)});
    begin += bytes;
  }
  if (!symbols.empty()) symbols.back().next = kNone;
  return symbols;
}

std::optional<Bpe::Merge> Bpe::FindMerge(std::string_view piece, const Symbol& left, const Symbol& right) const {
  if (score_rank_.empty()) {
    if (left.id == kNone || right.id == kNone) return std::nullopt;
    const auto found = merges_.find(PairKey(left.id, right.id));
    return found == merges_.end() ? std::nullopt : std::optional(found->second);
  }
  const size_t bytes = size_t{left.bytes} + right.bytes;
  if (bytes > longest_scored_) return std::nullopt;
  const auto id = vocabulary_.Find(piece.substr(left.begin, bytes));
  if (!id || score_rank_[static_cast<size_t>(*id)] == kUnmergeable) return std::nullopt;
  return Merge{score_rank_[static_cast<size_t>(*id)], *id};
}

void Bpe::MergeAll(std::string_view piece, std::vector<Symbol>* symbols) const {
  std::vector<Candidate> heap;
  const auto at = [&](int32_t i) -> Symbol& { return (*symbols)[static_cast<size_t>(i)]; };
  const auto find = [&](int32_t left) -> std::optional<Merge> {
    if (left == kNone || at(left).next == kNone) return std::nullopt;
    return FindMerge(piece, at(left), at(at(left).next));
  };
  for (int32_t i = 0; i < static_cast<int32_t>(symbols->size()); ++i) {
    if (const auto merge = find(i)) heap.push_back({merge->rank, i, merge->id});
  }
  std::make_heap(heap.begin(), heap.end());
  const auto offer = [&](int32_t left) {
    if (const auto merge = find(left)) {
      heap.push_back({merge->rank, left, merge->id});
      std::push_heap(heap.begin(), heap.end());
    }
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Candidate best = heap.back();
    heap.pop_back();
    if (at(best.left).bytes == 0) continue;
    const auto merge = find(best.left);  // the pair may have changed since it was offered
    if (!merge || merge->id != best.id) continue;
    Symbol& left = at(best.left);
    Symbol& right = at(left.next);
    left.id = best.id;
    left.bytes += right.bytes;
    right.bytes = 0;
    left.next = right.next;
    if (left.next != kNone) at(left.next).previous = best.left;
    offer(left.previous);
    offer(best.left);
  }
}

bool Bpe::AppendBytes(std::string_view text, std::vector<int32_t>* ids) const {
  const auto token = [&](char c) { return byte_tokens_[static_cast<unsigned char>(c)]; };
  if (std::any_of(text.begin(), text.end(), [&](char c) { return token(c) == kNone; })) return false;
  for (const char c : text) ids->push_back(token(c));
  return true;
}

void Bpe::Encode(std::string_view piece, std::vector<int32_t>* ids) const {
  if (piece.empty()) return;
  if (options_.whole_pieces) {
    if (const auto id = vocabulary_.Find(piece)) return ids->push_back(*id);
  }
  std::vector<Symbol> symbols = Characters(piece);
  MergeAll(piece, &symbols);
  bool after_unknown = false;
  for (int32_t i = 0; i != kNone; i = symbols[static_cast<size_t>(i)].next) {
    const Symbol& symbol = symbols[static_cast<size_t>(i)];
    if (symbol.id != kNone) {
      ids->push_back(symbol.id);
      after_unknown = false;
    } else if (options_.byte_fallback && AppendBytes(piece.substr(symbol.begin, symbol.bytes), ids)) {
      after_unknown = false;
    } else if (options_.unknown) {
      if (!after_unknown || !options_.fuse_unknown) ids->push_back(*options_.unknown);
      after_unknown = true;
    }
  }
}

}  // namespace assay
