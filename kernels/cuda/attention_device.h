// SPDX-License-Identifier: Apache-2.0
// What the attention kernels share: the call as the device sees it, sequences and tiles, rows of queries and results.
// Everything here is for kernels; a scalar's unit is a token or an element unless it says otherwise.
#pragma once

#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/numeric.h"
#include "kernels/cuda/queue.h"

namespace assay::gpu {

constexpr float kLog2E = 1.4426950408889634f;

struct CacheView {
  const void* data;
  int64_t block, head, position;  // strides
};

struct AttnCall {
  const void* q;  // [tokens, heads, dim]
  void* y;
  DType q_dtype;                         // of y, too
  int64_t q_row, q_head, y_row, y_head;  // strides
  CacheView k, v;
  const int32_t* block_table;  // [sequences, blocks]
  const int32_t* q_offsets;    // [sequences + 1]
  const int32_t* kv_lens;      // [sequences]
  int64_t table_row, q_offsets_stride, kv_lens_stride;
  int tokens, sequences, kv_heads, group, dim, block_size;
  int window;            // 0: none
  float scale, softcap;  // softcap 0: none
  int decode_queries;    // see AttnPlan
  int splits;
  bool zero_unowned;  // this kernel writes the rows that no sequence owns
  // [rows, heads, splits, dim] unnormalised sums, then [rows, heads, splits] of {max in powers of 2, sum}; a row is a
  // token's, or where only sequences of one query are decoded, a sequence's.
  float* partial;
  int partial_rows;
};

struct Sequence {
  int index;
  int first_row;  // of q
  int queries, keys;

  __device__ __forceinline__ int Position(int query) const { return keys - queries + query; }
};

__device__ __forceinline__ Sequence ReadSequence(const AttnCall& c, int s) {
  const int begin = c.q_offsets[s * c.q_offsets_stride], end = c.q_offsets[(s + 1) * c.q_offsets_stride];
  return {s, begin, end - begin, c.kv_lens[s * c.kv_lens_stride]};
}

// The tile of `rows` query rows that is number `index` of those of all sequences with more than decode_queries queries;
// the tiles with the most keys of a sequence come first. Called by whole warps. No tile: first >= the sequence's rows.
struct QueryTile {
  Sequence sequence;
  int first;  // row within the sequence's matrix of queries * group rows
};
__device__ inline QueryTile FindQueryTile(const AttnCall& c, int index, int rows) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int base = 0; base < c.sequences; base += kWarp) {
    const int s = base + lane;
    int tiles = 0;
    if (s < c.sequences) {
      const int queries = c.q_offsets[(s + 1) * c.q_offsets_stride] - c.q_offsets[s * c.q_offsets_stride];
      if (queries > c.decode_queries) tiles = (queries * c.group + rows - 1) / rows;
    }
    int end = tiles;  // of the tiles of sequences up to this one
    for (int delta = 1; delta < kWarp; delta *= 2) {
      const int before = ShuffleUp(end, delta);
      if (lane >= delta) end += before;
    }
    const int total = Shuffle(end, kWarp - 1);
    if (index >= total) {
      index -= total;
      continue;
    }
    // Exactly one lane holds the tile; the sum hands its finding to all.
    const bool mine = index < end && index >= end - tiles;
    int packed_s = mine ? s : 0, tile = mine ? end - 1 - index : 0;
    for (int mask = kWarp / 2; mask > 0; mask /= 2) {
      packed_s += ShuffleXor(packed_s, mask);
      tile += ShuffleXor(tile, mask);
    }
    return {ReadSequence(c, packed_s), tile * rows};
  }
  return {{0, 0, 0, 0}, 0};
}

// A result, whose dtype is known at run time only.
__device__ __forceinline__ void StoreElement(void* base, DType dtype, int64_t i, float x) {
  if (dtype == DType::kF32) {
    static_cast<float*>(base)[i] = x;
  } else if (dtype == DType::kBF16) {
    static_cast<Bf16*>(base)[i] = FromFloat<Bf16>(x);
  } else {
    static_cast<F16*>(base)[i] = FromFloat<F16>(x);
  }
}

// Where a row of a sequence's matrix of one KV head lies in q or y.
__device__ __forceinline__ int64_t RowAt(const AttnCall& c, const Sequence& s, int kv_head, int row, int64_t row_stride,
                                         int64_t head_stride) {
  return (s.first_row + row / c.group) * row_stride + (kv_head * c.group + row % c.group) * head_stride;
}

// Writes zeros to the rows before the first and behind the last sequence, for the heads of one KV head; the rows are
// dealt out to `shares` blocks.
__device__ inline void ZeroUnowned(const AttnCall& c, int kv_head, int share, int shares) {
  const int first = c.sequences > 0 ? c.q_offsets[0] : c.tokens;
  const int last = c.sequences > 0 ? c.q_offsets[c.sequences * c.q_offsets_stride] : c.tokens;
  for (int t = share; t < c.tokens; t += shares) {
    if (t >= first && t < last) continue;
    for (int i = static_cast<int>(threadIdx.x); i < c.group * c.dim; i += static_cast<int>(blockDim.x)) {
      StoreElement(c.y, c.q_dtype, t * c.y_row + (kv_head * c.group + i / c.dim) * c.y_head + i % c.dim, 0.0f);
    }
  }
}

// ---- Scores, in powers of 2: softmax(x) = 2^(Score - max) / sum

__device__ __forceinline__ float Score(const AttnCall& c, float product) {
  if (c.softcap > 0) return c.softcap * kLog2E * tanhf(product * c.scale / c.softcap);
  return product * c.scale * kLog2E;
}
// A maximum to subtract: a row that has seen no key yet must not subtract infinity from infinity.
__device__ __forceinline__ float Subtrahend(float max) {
  return max == -INFINITY ? 0.0f : max;
}

// ---- Partial results of splits

__device__ __forceinline__ int64_t PartialAt(const AttnCall& c, const Sequence& s, int kv_head, int row, int split) {
  const int query_row = c.decode_queries == 1 ? s.index : s.first_row + row / c.group;
  const int64_t heads = static_cast<int64_t>(c.kv_heads) * c.group;
  return (query_row * heads + kv_head * c.group + row % c.group) * c.splits + split;
}
__device__ __forceinline__ float2* PartialStats(const AttnCall& c) {
  const int64_t partials = static_cast<int64_t>(c.partial_rows) * c.kv_heads * c.group * c.splits;
  return reinterpret_cast<float2*>(c.partial + partials * c.dim);
}

// ---- Leaf kernels; each says whether it launched, false leaves the call to a portable kernel. Host functions.

// attention_sm80.cu
bool DecodeSm80(const AttnCall& call, DType cache, const Queue& queue);
bool PrefillSm80(const AttnCall& call, DType cache, const Queue& queue);
// attention_sm90.cu
bool PrefillSm90(const AttnCall& call, DType cache, int64_t blocks, const Queue& queue);

}  // namespace assay::gpu
