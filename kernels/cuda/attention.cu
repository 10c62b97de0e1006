// SPDX-License-Identifier: Apache-2.0
// Paged attention: the entry, and the kernels that run everywhere (any GPU, f32/bf16/f16 in any combination, caches in
// e4m3 as well, head sizes that are a multiple of 8 up to 256, blocks of the cache that are a multiple of 16).
//
// Decode reads K and V once from memory straight into registers, 16 bytes a lane (8 of e4m3), four keys of each under
// way per group of lanes; limited by memory bandwidth. Splits of the keys are combined by a second kernel, which reads
// splits * (dim + 2) floats for each row.
// Prefill keeps a tile of 32 query rows and 32 keys or values in shared memory, in f32; limited by f32 arithmetic.
// Nothing is rounded below f32. Not yet measured on a card.
#include <cmath>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_device.h"
#include "kernels/cuda/reduce.h"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;

// Eight elements of a cache: what one lane takes of a key or value.
template <class T>
struct Octet {
  PackedElements<T, 8> raw;

  __device__ __forceinline__ void Load(const T* address) { LoadPacked(address, raw); }
  __device__ __forceinline__ void Clear() { raw = {}; }
  __device__ __forceinline__ void Floats(float (&x)[8]) const { UnpackElements(raw, x); }
};

// ---- Decode

constexpr int kDecodeThreads = 128;
constexpr int kKeys = 4;  // that a group of lanes has under way; they lie in one block of the cache

template <int kRows>
struct DecodeState {
  float q[kRows][8], sum[kRows][8];  // this lane's part of each row
  float max[kRows], total[kRows];
};

// This lane's part of the queries at `at`. Loads without branches lie in flight together.
template <class Q, int kRows>
__device__ __forceinline__ void LoadQueries(const Q* q, const int64_t (&at)[kRows], bool lane_active,
                                            DecodeState<kRows>& state) {
  GPU_UNROLL
  for (int r = 0; r < kRows; ++r) {
    GPU_UNROLL
    for (int d = 0; d < 8; ++d) {
      const float x = ToFloat(q[at[r] + d]);
      state.q[r][d] = lane_active ? x : 0.0f;
    }
  }
}

// This lane's part of the kKeys keys or values from `position` on; zeros for those outside `valid`, which are not read.
template <class T>
__device__ __forceinline__ void LoadKeys(const AttnCall& c, const CacheView& view, int64_t at, int position,
                                         KeyRange valid, bool lane_active, Octet<T> (&x)[kKeys]) {
  GPU_UNROLL
  for (int j = 0; j < kKeys; ++j) {
    if (lane_active && position + j >= valid.begin && position + j < valid.end) {
      x[j].Load(static_cast<const T*>(view.data) + at + (position % c.block_size + j) * view.position);
    } else {
      x[j].Clear();
    }
  }
}

template <class T, int kRows>
__device__ __forceinline__ void DecodeKeys(const AttnCall& c, const Octet<T> (&k)[kKeys], const Octet<T> (&v)[kKeys],
                                           int width, KeyRange keys, const int (&seat)[kRows], int position,
                                           DecodeState<kRows>& state) {
  float score[kRows][kKeys];
  GPU_UNROLL
  for (int j = 0; j < kKeys; ++j) {
    float key[8];
    k[j].Floats(key);
    GPU_UNROLL
    for (int r = 0; r < kRows; ++r) {
      float product = 0;
      GPU_UNROLL
      for (int d = 0; d < 8; ++d) product = fmaf(state.q[r][d], key[d], product);
      score[r][j] = product;
    }
  }
  const int reach = c.window > 0 ? c.window : INT32_MAX / 2;
  GPU_UNROLL
  for (int r = 0; r < kRows; ++r) {
    GPU_UNROLL
    for (int j = 0; j < kKeys; ++j) {
      for (int mask = width / 2; mask > 0; mask /= 2) score[r][j] += ShuffleXor(score[r][j], mask, width);
      const int key = position + j;
      const bool visible = key >= keys.begin && key < keys.end && key <= seat[r] && key > seat[r] - reach;
      score[r][j] = visible ? Score(c, score[r][j]) : -INFINITY;
    }
    float max = state.max[r];
    GPU_UNROLL
    for (int j = 0; j < kKeys; ++j) max = fmaxf(max, score[r][j]);
    const float rescale = exp2f(state.max[r] - Subtrahend(max));
    state.max[r] = max;
    state.total[r] *= rescale;
    GPU_UNROLL
    for (int d = 0; d < 8; ++d) state.sum[r][d] *= rescale;
    GPU_UNROLL
    for (int j = 0; j < kKeys; ++j) state.total[r] += score[r][j] = exp2f(score[r][j] - Subtrahend(max));
  }
  GPU_UNROLL
  for (int j = 0; j < kKeys; ++j) {
    float value[8];
    v[j].Floats(value);
    GPU_UNROLL
    for (int r = 0; r < kRows; ++r) {
      GPU_UNROLL
      for (int d = 0; d < 8; ++d) state.sum[r][d] = fmaf(score[r][j], value[d], state.sum[r][d]);
    }
  }
}

// Merges a row over the block's groups of lanes and writes it, or its part of it. Every thread calls.
__device__ __forceinline__ void WriteDecodedRow(const AttnCall& c, const Sequence& s, int kv_head, int row, bool whole,
                                                int split, int width, float max, float total, const float (&sum)[8]) {
  __shared__ __align__(16) float sums[kDecodeThreads * 8];
  __shared__ float maxima[kDecodeThreads], totals[kDecodeThreads];
  const int thread = static_cast<int>(threadIdx.x), groups = kDecodeThreads / width, dims = width * 8;
  __syncthreads();  // who still reads the last row
  GPU_UNROLL
  for (int d = 0; d < 8; ++d) sums[thread * 8 + d] = sum[d];
  if (thread % width == 0) {
    maxima[thread / width] = max;
    totals[thread / width] = total;
  }
  __syncthreads();
  float largest = maxima[0];
  for (int g = 1; g < groups; ++g) largest = fmaxf(largest, maxima[g]);
  for (int d = thread; d < c.dim; d += kDecodeThreads) {
    float all = 0, x = 0;
    for (int g = 0; g < groups; ++g) {
      const float weight = exp2f(maxima[g] - Subtrahend(largest));
      all += weight * totals[g];
      x = fmaf(weight, sums[g * dims + d], x);
    }
    if (whole) {
      const float y = all > 0 ? x / all : 0;  // nothing is visible to padding
      StoreElement(c.y, c.q_dtype, RowAt(c, s, kv_head, row, c.y_row, c.y_head) + d, y);
    } else {
      const int64_t at = PartialAt(c, s, kv_head, row, split);
      c.partial[at * c.dim + d] = x;
      if (d == 0) PartialStats(c)[at] = make_float2(largest, all);
    }
  }
}

// Block (split, KV head, sequence). A group of `width` lanes, eight elements each, takes kKeys consecutive keys at a
// time, the groups of the block one after the other; `kRows` query rows at once.
template <class T, int kRows>
__global__ void __launch_bounds__(kDecodeThreads, sizeof(T) == 4 ? 2 : 3) DecodeKernel(AttnCall c, int width) {
  WaitForPrevious();
  StartNext();
  const int split = static_cast<int>(blockIdx.x), kv_head = static_cast<int>(blockIdx.y);
  if (c.zero_unowned && split == 0) ZeroUnowned(c, kv_head, static_cast<int>(blockIdx.z), static_cast<int>(gridDim.z));
  const Sequence s = ReadSequence(c, static_cast<int>(blockIdx.z));
  if (s.queries <= 0 || s.queries > c.decode_queries) return;
  const KeyRange range = VisibleKeys(0, s.queries - 1, s.queries, s.keys, c.window);
  const int active = ActiveSplits(range, c.splits);
  if (split >= active) return;
  const KeyRange keys = SplitKeys(range, split, c.splits);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % width, step = kDecodeThreads / width * kKeys;
  const bool lane_active = lane * 8 < c.dim;

  for (int row0 = 0; row0 < s.queries * c.group; row0 += kRows) {
    DecodeState<kRows> state;
    int seat[kRows];  // the position of a row's query
    int64_t at[kRows];
    GPU_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int row = row0 + r < s.queries * c.group ? row0 + r : row0;
      seat[r] = s.Position(row / c.group);
      at[r] = RowAt(c, s, kv_head, row, c.q_row, c.q_head) + (lane_active ? lane * 8 : 0);
      state.max[r] = -INFINITY;
      state.total[r] = 0;
      GPU_UNROLL
      for (int d = 0; d < 8; ++d) state.sum[r][d] = 0;
    }
    if (c.q_dtype == DType::kF32) {
      LoadQueries(static_cast<const float*>(c.q), at, lane_active, state);
    } else if (c.q_dtype == DType::kBF16) {
      LoadQueries(static_cast<const Bf16*>(c.q), at, lane_active, state);
    } else {
      LoadQueries(static_cast<const F16*>(c.q), at, lane_active, state);
    }
    // Begins on a multiple of kKeys, so that a group's keys lie in one block.
    for (int base = keys.begin / kKeys * kKeys; base < keys.end; base += step) {
      const int position = base + thread / width * kKeys;
      Octet<T> k[kKeys], v[kKeys];
      const bool any = position < keys.end;
      const int64_t block = any ? c.block_table[s.index * c.table_row + position / c.block_size] : 0;
      LoadKeys<T>(c, c.k, block * c.k.block + kv_head * c.k.head + lane * 8, position, keys, lane_active, k);
      LoadKeys<T>(c, c.v, block * c.v.block + kv_head * c.v.head + lane * 8, position, keys, lane_active, v);
      DecodeKeys<T, kRows>(c, k, v, width, keys, seat, position, state);
    }
    GPU_UNROLL
    for (int r = 0; r < kRows; ++r) {
      if (row0 + r < s.queries * c.group) {
        WriteDecodedRow(c, s, kv_head, row0 + r, active == 1, split, width, state.max[r], state.total[r], state.sum[r]);
      }
    }
  }
}

// Block (query head, sequence): merges what the splits of DecodeKernel, or of a leaf's, have left. dim / 4 neighbouring
// threads take a split's sums, the block's other threads the next splits'.
constexpr int kCombineThreads = kMaxSplits;
__global__ void __launch_bounds__(kCombineThreads) CombineKernel(AttnCall c) {
  __shared__ __align__(16) float sums[kCombineThreads * 4];
  __shared__ float weights[kMaxSplits], scratch[kCombineThreads / kWarp];
  WaitForPrevious();
  StartNext();
  const int head = static_cast<int>(blockIdx.x), kv_head = head / c.group, thread = static_cast<int>(threadIdx.x);
  const Sequence s = ReadSequence(c, static_cast<int>(blockIdx.y));
  if (s.queries <= 0 || s.queries > c.decode_queries) return;
  const int splits = ActiveSplits(VisibleKeys(0, s.queries - 1, s.queries, s.keys, c.window), c.splits);
  if (splits == 1) return;  // written by the one block
  const int columns = c.dim / 4, parts = kCombineThreads / columns, part = thread / columns, column = thread % columns;
  for (int query = 0; query < s.queries; ++query) {
    const int64_t at = PartialAt(c, s, kv_head, query * c.group + head % c.group, 0);
    const float2 stats = thread < splits ? PartialStats(c)[at + thread] : make_float2(-INFINITY, 0.0f);
    const float max = BlockMax<kCombineThreads>(stats.x, scratch);
    const float weight = exp2f(stats.x - Subtrahend(max));
    weights[thread] = weight;
    const float total = BlockSum<kCombineThreads>(weight * stats.y, scratch);
    float x[4] = {0, 0, 0, 0};
    if (part < parts) {
      for (int split = part; split < splits; split += parts) {
        float add[4];
        Unpack<float>(LoadVector(c.partial + (at + split) * c.dim + column * 4), add);
        GPU_UNROLL
        for (int i = 0; i < 4; ++i) x[i] = fmaf(weights[split], add[i], x[i]);
      }
    }
    StoreVector(sums + thread * 4, Pack<float>(x));
    __syncthreads();
    for (int d = thread; d < c.dim; d += kCombineThreads) {
      float y = 0;
      for (int p = 0; p < parts; ++p) y += sums[p * c.dim + d];
      const int64_t to = (s.first_row + query) * c.y_row + head * c.y_head + d;
      StoreElement(c.y, c.q_dtype, to, total > 0 ? y / total : 0.0f);
    }
  }
}

// ---- Prefill

constexpr int kTile = 32;  // query rows, and keys, of a tile
constexpr int kScoreStride = kTile + 1;

constexpr size_t PrefillSharedBytes(int dim) {
  return sizeof(float) * static_cast<size_t>(2 * kTile * (dim + 4) + kTile * kScoreStride);
}

// Keys or values [first, first + kTile) of a head to f32 in shared memory; zeros outside `valid`, which is not read.
template <class T>
__device__ __forceinline__ void LoadTile(const AttnCall& c, const CacheView& view, const Sequence& s, int kv_head,
                                         int first, KeyRange valid, float* tile) {
  const int octets = c.dim / 8;
  for (int i = static_cast<int>(threadIdx.x); i < kTile * octets; i += kThreads) {
    const int key = i / octets, d = i % octets * 8, position = first + key;
    Octet<T> raw;
    if (position >= valid.begin && position < valid.end) {
      const int64_t block = c.block_table[s.index * c.table_row + position / c.block_size];
      raw.Load(static_cast<const T*>(view.data) + block * view.block + kv_head * view.head +
               position % c.block_size * view.position + d);
    } else {
      raw.Clear();
    }
    float x[8];
    raw.Floats(x);
    GPU_UNROLL
    for (int j = 0; j < 8; ++j) tile[key * (c.dim + 4) + d + j] = x[j];
  }
}

// Rows of queries from `first` on to f32 in shared memory; one that does not exist is the last one once more.
template <class Q>
__device__ __forceinline__ void LoadQueryTile(const Q* __restrict__ q, const AttnCall& c, const Sequence& s,
                                              int kv_head, int first, int rows, float* __restrict__ tile) {
  for (int i = static_cast<int>(threadIdx.x); i < kTile * c.dim; i += kThreads) {
    const int row = i / c.dim, d = i % c.dim, exists = row < rows ? row : rows - 1;
    tile[row * (c.dim + 4) + d] = ToFloat(q[RowAt(c, s, kv_head, first + exists, c.q_row, c.q_head) + d]);
  }
}

// scores[row][key] = q[row] . k[key]; a thread has two rows and two keys.
__device__ __forceinline__ void MultiplyTiles(const AttnCall& c, const float* q, const float* k, float* scores) {
  const int row = static_cast<int>(threadIdx.x) / 16, key = static_cast<int>(threadIdx.x) % 16, stride = c.dim + 4;
  float sum[2][2] = {};
  for (int d = 0; d < c.dim; d += 4) {
    float a[2][4], b[2][4];
    GPU_UNROLL
    for (int i = 0; i < 2; ++i) {
      Unpack<float>(LoadVector(q + (row + 16 * i) * stride + d), a[i]);
      Unpack<float>(LoadVector(k + (key + 16 * i) * stride + d), b[i]);
    }
    GPU_UNROLL
    for (int e = 0; e < 16; ++e)
      sum[e / 8][e / 4 % 2] = fmaf(a[e / 8][e % 4], b[e / 4 % 2][e % 4], sum[e / 8][e / 4 % 2]);
  }
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) scores[(row + i / 2 * 16) * kScoreStride + key + i % 2 * 16] = sum[i / 2][i % 2];
}

// Block (tile of query rows, KV head). Eight neighbouring threads own a row of results: four elements of every 32.
template <class T, int kMaxDim>
__global__ void __launch_bounds__(kThreads, 2) PrefillKernel(AttnCall c) {
  static_assert(kThreads == 8 * kTile && kThreads == 16 * 16, "how the threads are dealt out");
  WaitForPrevious();
  StartNext();
  const int thread = static_cast<int>(threadIdx.x), kv_head = static_cast<int>(blockIdx.y), stride = c.dim + 4;
  if (c.zero_unowned) ZeroUnowned(c, kv_head, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x));
  const QueryTile tile = FindQueryTile(c, static_cast<int>(blockIdx.x), kTile);
  const Sequence& s = tile.sequence;
  const int rows = s.queries * c.group - tile.first < kTile ? s.queries * c.group - tile.first : kTile;
  if (rows <= 0) return;
  float* q = DynamicShared<float>();
  float* kv = q + kTile * stride;
  float* scores = kv + kTile * stride;
  if (c.q_dtype == DType::kF32) {
    LoadQueryTile(static_cast<const float*>(c.q), c, s, kv_head, tile.first, rows, q);
  } else if (c.q_dtype == DType::kBF16) {
    LoadQueryTile(static_cast<const Bf16*>(c.q), c, s, kv_head, tile.first, rows, q);
  } else {
    LoadQueryTile(static_cast<const F16*>(c.q), c, s, kv_head, tile.first, rows, q);
  }

  const KeyRange keys =
      VisibleKeys(tile.first / c.group, (tile.first + rows - 1) / c.group, s.queries, s.keys, c.window);
  const int row = thread / 8, lane = thread % 8;
  const int query = (tile.first + (row < rows ? row : 0)) / c.group;
  const KeyRange seen = VisibleKeys(query, query, s.queries, s.keys, c.window);
  float max = -INFINITY, total = 0, sum[kMaxDim / 8] = {};
  for (int first = keys.begin / kTile * kTile; first < keys.end; first += kTile) {
    LoadTile<T>(c, c.k, s, kv_head, first, keys, kv);
    __syncthreads();
    MultiplyTiles(c, q, kv, scores);
    __syncthreads();
    LoadTile<T>(c, c.v, s, kv_head, first, keys, kv);
    float p[4], largest = max;
    GPU_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int position = first + lane + 8 * j;
      const bool visible = position >= seen.begin && position < seen.end;
      p[j] = visible ? Score(c, scores[row * kScoreStride + lane + 8 * j]) : -INFINITY;
      largest = fmaxf(largest, p[j]);
    }
    largest = GroupMax<8>(largest);
    const float rescale = exp2f(max - Subtrahend(largest));
    max = largest;
    total *= rescale;
    GPU_UNROLL
    for (int j = 0; j < 4; ++j) {
      total += p[j] = exp2f(p[j] - Subtrahend(max));
      scores[row * kScoreStride + lane + 8 * j] = p[j];
    }
    GPU_UNROLL
    for (int i = 0; i < kMaxDim / 8; ++i) sum[i] *= rescale;
    __syncthreads();
    for (int key = 0; key < kTile; ++key) {
      const float weight = scores[row * kScoreStride + key];
      GPU_UNROLL
      for (int i = 0; i < kMaxDim / 32; ++i) {
        const int d = i * 32 + lane * 4;
        if (d >= c.dim) continue;
        float v[4];
        Unpack<float>(LoadVector(kv + key * stride + d), v);
        GPU_UNROLL
        for (int j = 0; j < 4; ++j) sum[i * 4 + j] = fmaf(weight, v[j], sum[i * 4 + j]);
      }
    }
    __syncthreads();
  }
  total = GroupSum<8>(total);
  if (row >= rows) return;
  const int64_t to = RowAt(c, s, kv_head, tile.first + row, c.y_row, c.y_head);
  GPU_UNROLL
  for (int i = 0; i < kMaxDim / 8; ++i) {
    const int d = i / 4 * 32 + lane * 4 + i % 4;
    if (d < c.dim) StoreElement(c.y, c.q_dtype, to + d, total > 0 ? sum[i] / total : 0.0f);
  }
}

// A batch without sequences.
__global__ void __launch_bounds__(kThreads) ZeroKernel(AttnCall c) {
  WaitForPrevious();
  StartNext();
  ZeroUnowned(c, static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x));
}

// ---- Launching

dim3 Grid(int64_t x, int64_t y, int64_t z = 1) {
  return dim3(static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z));
}

template <class T>
void DecodePortable(const AttnCall& c, const Queue& queue) {
  int width = 1;
  while (width * 8 < c.dim) width *= 2;
  const dim3 grid = Grid(c.splits, c.kv_heads, c.sequences);
  if (c.group == 1) {
    Launch(DecodeKernel<T, 1>, grid, dim3(kDecodeThreads), 0, queue.stream, c, width);
  } else {
    Launch(DecodeKernel<T, 4>, grid, dim3(kDecodeThreads), 0, queue.stream, c, width);
  }
}

template <class T>
void PrefillPortable(const AttnCall& c, const Queue& queue) {
  const dim3 grid = Grid(MaxQueryTiles(c.tokens, c.sequences, c.group, kTile), c.kv_heads);
  if (c.dim <= 128) {
    Launch(PrefillKernel<T, 128>, grid, dim3(kThreads), PrefillSharedBytes(c.dim), queue.stream, c);
  } else {
    Launch(PrefillKernel<T, 256>, grid, dim3(kThreads), PrefillSharedBytes(c.dim), queue.stream, c);
  }
}

#if GPU_HAS_SM80
bool DecodeLeaf(const AttnCall& c, DType cache, const Queue& queue) {
  return queue.capability >= 80 && DecodeSm80(c, cache, queue);
}
bool PrefillLeaf(const AttnCall& c, DType cache, int64_t blocks, const Queue& queue) {
  if (queue.capability / 10 == 9 && PrefillSm90(c, cache, blocks, queue)) return true;
  return queue.capability >= 80 && PrefillSm80(c, cache, queue);
}
#else
bool DecodeLeaf(const AttnCall&, DType, const Queue&) {
  return false;
}
bool PrefillLeaf(const AttnCall&, DType, int64_t, const Queue&) {
  return false;
}
#endif

CacheView ViewOf(const View& cache, KvLayout layout) {
  const bool head_first = layout == KvLayout::kHND;
  return {cache.data, cache.stride[0], cache.stride[head_first ? 1 : 2], cache.stride[head_first ? 2 : 1]};
}

AttnSizes SizesOf(int64_t tokens, int64_t sequences, int64_t blocks, int64_t heads, int64_t kv_heads, int64_t head_dim,
                  const AttnAttr& attr, const Queue& queue) {
  AttnSizes sizes;
  sizes.tokens = tokens;
  sizes.sequences = sequences;
  sizes.max_keys = blocks * attr.kv.block_size;
  sizes.heads = heads;
  sizes.kv_heads = kv_heads;
  sizes.head_dim = head_dim;
  sizes.window = attr.window;
  sizes.processors = queue.processors;
  return sizes;
}

}  // namespace

size_t AttnPagedWorkspace(int64_t tokens, int64_t sequences, int64_t blocks, int64_t heads, int64_t kv_heads,
                          int64_t head_dim, const AttnAttr& attr, const Queue& queue) {
  return AttnPartialBytes(SizesOf(tokens, sequences, blocks, heads, kv_heads, head_dim, attr, queue));
}

void AttnPaged(const View& q, const View& k_cache, const View& v_cache, const View& block_table, const View& q_offsets,
               const View& kv_lens, const View& y, const AttnAttr& attr, void* workspace, const Queue& queue) {
  const int64_t kv_heads = k_cache.shape[attr.kv.layout == KvLayout::kHND ? 1 : 2];
  if (q.shape[0] == 0 || q.shape[1] == 0) return;
  const AttnPlan plan = PlanAttention(
      SizesOf(q.shape[0], kv_lens.shape[0], block_table.shape[1], q.shape[1], kv_heads, q.shape[2], attr, queue));
  AttnCall c{};
  c.q = q.data;
  c.y = y.data;
  c.q_dtype = q.dtype;
  c.q_row = q.stride[0];
  c.q_head = q.stride[1];
  c.y_row = y.stride[0];
  c.y_head = y.stride[1];
  c.k = ViewOf(k_cache, attr.kv.layout);
  c.v = ViewOf(v_cache, attr.kv.layout);
  c.block_table = block_table.as<const int32_t>();
  c.q_offsets = q_offsets.as<const int32_t>();
  c.kv_lens = kv_lens.as<const int32_t>();
  c.table_row = block_table.stride[0];
  c.q_offsets_stride = q_offsets.stride[0];
  c.kv_lens_stride = kv_lens.stride[0];
  c.tokens = static_cast<int>(q.shape[0]);
  c.sequences = static_cast<int>(kv_lens.shape[0]);
  c.kv_heads = static_cast<int>(kv_heads);
  c.group = static_cast<int>(q.shape[1] / kv_heads);
  c.dim = static_cast<int>(q.shape[2]);
  c.block_size = attr.kv.block_size;
  c.window = attr.window;
  c.scale = attr.scale;
  c.softcap = attr.softcap;
  c.decode_queries = plan.decode_queries;
  c.splits = plan.splits;
  c.partial = static_cast<float*>(workspace);
  c.partial_rows = plan.prefill ? c.sequences : c.tokens;
  c.zero_unowned = true;
  if (c.sequences == 0) {
    Launch(ZeroKernel, Grid(c.tokens, c.kv_heads), dim3(kThreads), 0, queue.stream, c);
    return;
  }
  if (plan.prefill) {
    if (!PrefillLeaf(c, k_cache.dtype, k_cache.shape[0], queue)) {
      WithCacheElement(k_cache.dtype, [&](auto element) { PrefillPortable<decltype(element)>(c, queue); });
    }
    c.zero_unowned = false;
  }
  if (!plan.decode) return;
  if (!DecodeLeaf(c, k_cache.dtype, queue)) {
    WithCacheElement(k_cache.dtype, [&](auto element) { DecodePortable<decltype(element)>(c, queue); });
  }
  if (c.splits > 1) Launch(CombineKernel, Grid(q.shape[1], c.sequences), dim3(kCombineThreads), 0, queue.stream, c);
}

}  // namespace assay::gpu
