// SPDX-License-Identifier: Apache-2.0
#include "models/layers/shard.h"

#include <algorithm>
#include <string>

#include "runtime/core/error.h"

namespace assay {
namespace {

[[noreturn]] void Refuse(const ModelConfig& c, int size, const std::string& why) {
  throw Error("--tp " + std::to_string(size) + ": " + c.name + " has " + why + "; use another --tp");
}

// KV heads [begin, end) of a rank; with fewer heads than ranks, ranks in a row share one.
Range KvHeads(int64_t kv_heads, int64_t rank, int64_t size) {
  if (kv_heads < size) return {rank * kv_heads / size, 1};
  const int64_t begin = (rank * kv_heads + size - 1) / size, end = ((rank + 1) * kv_heads + size - 1) / size;
  return {begin, end - begin};
}

}  // namespace

Shard ShardOf(const ModelConfig& c, int rank, int size) {
  const int64_t group = c.heads / c.kv_heads, copies = c.kv_heads < size ? size / c.kv_heads : 1;
  if (c.kv_heads < size && (size % c.kv_heads != 0 || group % copies != 0)) {
    Refuse(c, size,
           std::to_string(c.heads) + " heads in " + std::to_string(c.kv_heads) +
               " groups, which so many ranks cannot share evenly");
  }
  if (c.ffn % size != 0) {
    Refuse(c, size, std::to_string(c.ffn) + " columns in its MLP, which so many ranks do not divide");
  }
  Shard s;
  s.rank = rank;
  s.size = size;
  s.kv_heads = KvHeads(c.kv_heads, rank, size);
  s.heads = s.kv_heads * group;
  if (copies > 1) s.heads = Range{rank * group / copies, group / copies};
  s.all_kv_heads = std::max<int64_t>(c.kv_heads, size);
  s.ffn = {rank * c.ffn / size, c.ffn / size};
  const int64_t rows = (c.vocab + size - 1) / size;
  s.vocab = {rank * rows, std::min(rows, c.vocab - rank * rows)};
  if ((size - 1) * rows >= c.vocab) Refuse(c, size, "a vocabulary of " + std::to_string(c.vocab) + " only");
  return s;
}

ModelConfig ConfigOf(const ModelConfig& config, const Shard& shard) {
  ModelConfig c = config;
  c.heads = shard.heads.count;
  c.kv_heads = shard.kv_heads.count;
  c.ffn = shard.ffn.count;
  return c;
}

}  // namespace assay
