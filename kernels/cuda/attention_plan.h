// SPDX-License-Identifier: Apache-2.0
// How a call of attn_paged is cut into blocks of threads, from upper bounds that the host knows. Pure functions, host
// and device; lengths count tokens.
//
// Sequences with one query (decode) go to a kernel that splits their keys among blocks, each block over all query heads
// of one KV head; the others (prefill) go to a kernel that takes tiles of query rows. Both see the queries of one
// sequence and one KV head as one matrix of queries * group rows, row r being query r / group, head r % group of the
// KV head: whatever the ratio of heads, keys and values are read once for all rows of a tile.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__) || defined(__HIPCC__)
#define ATTN_HOST_DEVICE __host__ __device__
#else
#define ATTN_HOST_DEVICE
#endif

namespace assay::gpu {

constexpr int kSplitStep = 64;   // a split is a multiple of this many keys: 16 for each of four warps
constexpr int kMaxSplits = 128;  // what the combining kernel takes, one thread each

struct AttnSizes {
  int64_t tokens = 0, sequences = 0;
  int64_t max_keys = 0;  // of one sequence: blocks * block size
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  int64_t window = 0;  // 0: none
  int processors = 1;
};

struct AttnPlan {
  bool decode = false, prefill = false;
  int decode_queries = 0;  // the decode kernel takes sequences of at most this many queries, prefill the others
  int splits = 1;          // of a sequence's keys, at most
};

AttnPlan PlanAttention(const AttnSizes& sizes);
// Bytes of partial results that PlanAttention's splits need, for all calls whose sizes are at most these.
size_t AttnPartialBytes(const AttnSizes& sizes);
// Tiles of `rows` rows that cover the queries of all sequences, at most.
int64_t MaxQueryTiles(int64_t tokens, int64_t sequences, int64_t group, int rows);

struct KeyRange {
  int begin, end;
};

// The keys that any of the queries [first, last] of a sequence sees; empty if all of them are padding.
ATTN_HOST_DEVICE inline KeyRange VisibleKeys(int first, int last, int queries, int keys, int window) {
  const int end = keys - queries + last + 1;
  const int begin = window > 0 ? keys - queries + first - window + 1 : 0;
  return {begin > 0 ? begin : 0, end > 0 ? end : 0};
}

// Keys of a split when `keys` of them are dealt out to at most `splits`.
ATTN_HOST_DEVICE inline int SplitLength(int keys, int splits) {
  const int each = (keys + splits - 1) / splits;
  return each <= kSplitStep ? kSplitStep : (each + kSplitStep - 1) / kSplitStep * kSplitStep;
}
// Splits that have keys: the others leave at once and have no partial results.
ATTN_HOST_DEVICE inline int ActiveSplits(KeyRange range, int splits) {
  const int keys = range.end - range.begin, length = SplitLength(keys, splits);
  return keys > 0 ? (keys + length - 1) / length : 1;  // one writes the zeros of padding
}
ATTN_HOST_DEVICE inline KeyRange SplitKeys(KeyRange range, int split, int splits) {
  const int length = SplitLength(range.end - range.begin, splits);
  const int begin = range.begin + split * length, end = begin + length;
  return {begin, end < range.end ? end : range.end};
}

// Where 16-byte chunk `chunk` of a key of kBytes bytes lies in a tile in shared memory, so that eight keys' chunks,
// which lanes read or write at once, fall into different banks. In bytes.
template <int kBytes>
ATTN_HOST_DEVICE constexpr int TileAt(int key, int chunk) {
  static_assert(kBytes % 32 == 0, "rows begin in one place of the banks, in two or in four");
  // Rows of an odd number of 64 bytes alternate between two places, and have chunks in fours; of 32, four and in twos.
  const int swap = kBytes % 128 == 0 ? key & 7 : kBytes % 64 == 0 ? key >> 1 & 3 : key >> 2 & 1;
  return key * kBytes + (chunk ^ swap) * 16;
}

}  // namespace assay::gpu
