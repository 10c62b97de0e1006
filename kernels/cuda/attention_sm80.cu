// SPDX-License-Identifier: Apache-2.0
// Paged attention on tensor cores by mma.sync m16n8k16 (compute capability 8.0 and later), for caches in bf16, f16 or
// e4m3, queries in the same 16 bits (bf16 with e4m3) or, but for f16 caches, in f32 (rounded to bf16), head sizes 64,
// 96 and 128, both layouts, windows and soft caps. Rows are those of attention_plan.h: all query heads of one KV head
// in one tile.
//
// Decode (also on later cards): bytes moved are K and V once; limited by memory bandwidth. Each of a block's four warps
// has a ring of its own, 24 KiB in shared memory, into which it copies 16 keys and their values at a time, past the
// registers; no barrier but the warp's own in the loop. Two blocks lie on a processor of 8.0, 9.0 and 10.0: up to 128
// KiB are under way, while some 25 suffice to cover the latency at an H100's rate. 16 rows of a tile for 4 heads waste
// tensor work that costs nothing here: a tenth of the time that the bytes take. Keys and values in e4m3 become bf16 in
// registers, where their bytes lie as ldmatrix leaves them: queries and sums have their columns in that order.
// Prefill: limited by the tensor cores; a block has 64 rows, 16 a warp with queries and sums in registers, and takes 64
// keys at a time. K and V have one buffer each: values arrive during the scores, the next keys during the sums, and the
// other blocks of the processor (two or three, as their registers allow) fill the rest. e4m3 arrives in a third buffer;
// each thread makes bf16 of what it copied. Not yet measured on a card.
#include "kernels/cuda/gpu.h"

#if GPU_HAS_SM80

#include <type_traits>

#include "kernels/cuda/attention_softmax.h"
#include "kernels/cuda/pair_sm80.h"

namespace assay::gpu {
namespace {

constexpr int kGroupKeys = 16;  // keys of one mma; they lie in one block of the cache

// The places in the cache of 32 groups of keys, one a lane.
struct Pages {
  int block = 0, slot = 0;

  // Lane i: the group that begins at `position`, if it lies before `end`.
  __device__ __forceinline__ void Find(const AttnCall& c, const Sequence& s, int position, int end) {
    const bool exists = position < end;
    block = exists ? c.block_table[s.index * c.table_row + position / c.block_size] : 0;
    slot = position % c.block_size;
  }
};

// A chunk of 16 bytes in a tile of keys or values.
template <class Kv>
constexpr int kChunk = 16 / static_cast<int>(sizeof(Kv));  // elements
template <int kDim, class Kv>
__device__ __forceinline__ Kv* ChunkOf(Kv* tile, int key, int chunk) {
  return tile + TileAt<kDim* static_cast<int>(sizeof(Kv))>(key, chunk) / static_cast<int>(sizeof(Kv));
}

// Begins to copy kKeys keys or values from position `first` on into a tile, group `page` of `pages` and those that
// follow; zeros for positions outside `valid`.
template <class Kv, int kDim, int kKeys, int kThreads>
__device__ __forceinline__ void CopyTile(const CacheView& view, int kv_head, Pages pages, int page, int first,
                                         KeyRange valid, Kv* tile, int thread) {
  constexpr int kChunks = kDim / kChunk<Kv>;
  static_assert(kKeys * kChunks % kThreads == 0, "all threads copy alike");
  const Kv* base = static_cast<const Kv*>(view.data) + kv_head * view.head;
#if !defined(ASSAY_GPU_EMULATED)
#pragma unroll 2  // wholly, the addresses would take registers that the sums need
#endif
  for (int i = 0; i < kKeys * kChunks / kThreads; ++i) {
    const int key = (i * kThreads + thread) / kChunks, chunk = (i * kThreads + thread) % kChunks;
    const int64_t block = Shuffle(pages.block, page + key / kGroupKeys);
    const int slot = Shuffle(pages.slot, page + key / kGroupKeys) + key % kGroupKeys;
    CopyAsync16(ChunkOf<kDim>(tile, key, chunk), base + block * view.block + slot * view.position + chunk * kChunk<Kv>,
                first + key >= valid.begin && first + key < valid.end);
  }
}

// What this thread copied with CopyTile, as bf16.
template <int kDim, int kKeys, int kThreads>
__device__ __forceinline__ void WidenTile(const E4m3* raw, Bf16* tile, int thread) {
  constexpr int kChunks = kDim / kChunk<E4m3>;
  GPU_UNROLL
  for (int i = 0; i < kKeys * kChunks / kThreads; ++i) {
    const int key = (i * kThreads + thread) / kChunks, chunk = (i * kThreads + thread) % kChunks;
    const uint4 v = LoadVector(ChunkOf<kDim>(raw, key, chunk));
    StoreVector(ChunkOf<kDim>(tile, key, 2 * chunk), make_uint4(E4m3Pair(v.x, kBytes01), E4m3Pair(v.x, kBytes23),
                                                                E4m3Pair(v.y, kBytes01), E4m3Pair(v.y, kBytes23)));
    StoreVector(ChunkOf<kDim>(tile, key, 2 * chunk + 1), make_uint4(E4m3Pair(v.z, kBytes01), E4m3Pair(v.z, kBytes23),
                                                                    E4m3Pair(v.w, kBytes01), E4m3Pair(v.w, kBytes23)));
  }
}

__device__ __forceinline__ void Multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Bf16) {
  MmaBf16(c, a, b);
}
__device__ __forceinline__ void Multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], F16) {
  MmaF16(c, a, b);
}

// A warp's 16 rows: lane 4 * g + t has rows g and g + 8; of queries as mma's A, of sums as its C. Of every 16 columns,
// those of mma are others where keys and values lie in e4m3: a matrix of ldmatrix has 16 of them, two an element, so
// that a lane has four neighbours.
template <class T, class Kv, int kDim>
struct Rows {
  static constexpr bool kBytes = sizeof(Kv) == 1;
  uint32_t q[kDim / 16][4];
  float sum[kDim / 8][4];
  SoftmaxRows softmax;

  __device__ __forceinline__ void Begin(const AttnCall& c, const Sequence& s, int kv_head, int first, int lane) {
    // A row that does not exist is the last one once more: loads without branches lie in flight together.
    const int last = s.queries * c.group - 1;
    int64_t at[2];
    GPU_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int row = first + lane / 4 + 8 * i;
      at[i] = RowAt(c, s, kv_head, row < last ? row : last, c.q_row, c.q_head) + lane % 4 * (kBytes ? 4 : 2);
    }
    constexpr int kNext = kBytes ? 2 : 8;  // from a lane's first two columns to its others
    if (c.q_dtype == DType::kF32) {
      GPU_UNROLL
      for (int j = 0; j < kDim / 4; ++j) {
        const float* from = static_cast<const float*>(c.q) + at[j % 2] + j / 4 * 16 + j % 4 / 2 * kNext;
        const float2 pair = *reinterpret_cast<const float2*>(from);
        q[j / 4][j % 4] = PackPair(pair.x, pair.y, T{});
      }
    } else {
      GPU_UNROLL
      for (int j = 0; j < kDim / 4; ++j) {
        const T* from = static_cast<const T*>(c.q) + at[j % 2] + j / 4 * 16 + j % 4 / 2 * kNext;
        q[j / 4][j % 4] = *reinterpret_cast<const uint32_t*>(from);
      }
    }
    softmax.Begin(c, s, first, lane);
    GPU_UNROLL
    for (int i = 0; i < kDim / 2; ++i) sum[i / 4][i % 4] = 0;
  }

  // The column of sum[n][2 * i + j], of row i.
  __device__ __forceinline__ static int Column(int lane, int n, int j) {
    return kBytes ? n / 2 * 16 + lane % 4 * 4 + 2 * j + n % 2 : n * 8 + lane % 4 * 2 + j;
  }

  // score = q . k for a tile of kKeys keys.
  template <int kKeys>
  __device__ __forceinline__ void Scores(const Kv* keys, int lane, float (&score)[kKeys / 8][4]) const {
    GPU_UNROLL
    for (int i = 0; i < kKeys / 2; ++i) score[i / 4][i % 4] = 0;
    const int matrix = lane / 8;
    GPU_UNROLL
    for (int k = 0; k < kDim / (2 * kChunk<Kv>); ++k) {
      GPU_UNROLL
      for (int n = 0; n < kKeys / 16; ++n) {
        uint32_t r[4];
        LoadMatrices<false>(r, ChunkOf<kDim>(keys, n * 16 + matrix / 2 * 8 + lane % 8, k * 2 + matrix % 2));
        if constexpr (kBytes) {
          GPU_UNROLL
          for (int i = 0; i < 4; ++i) {
            const uint32_t pairs[2] = {E4m3Pair(r[i], kBytes01), E4m3Pair(r[i], kBytes23)};
            Multiply(score[2 * n + i / 2], q[2 * k + i % 2], pairs, T{});
          }
        } else {
          Multiply(score[2 * n], q[k], {r[0], r[1]}, T{});
          Multiply(score[2 * n + 1], q[k], {r[2], r[3]}, T{});
        }
      }
    }
  }

  // See SoftmaxRows.
  template <int kKeys>
  __device__ __forceinline__ void Weigh(const AttnCall& c, int lane, int first, KeyRange keys, bool all_visible,
                                        float (&score)[kKeys / 8][4], uint32_t (&weight)[kKeys / 16][4]) {
    float rescale[2];
    softmax.Weigh<kKeys>(c, lane, first, keys, all_visible, score, rescale);
    PackWeights<T>(score, weight);
    Rescale(sum, rescale);
  }

  template <int kKeys>
  __device__ __forceinline__ void Add(const Kv* values, int lane, const uint32_t (&weight)[kKeys / 16][4]) {
    const int matrix = lane / 8;
    GPU_UNROLL
    for (int k = 0; k < kKeys / 16; ++k) {
      GPU_UNROLL
      for (int n = 0; n < kDim / (2 * kChunk<Kv>); ++n) {
        uint32_t r[4];
        LoadMatrices<true>(r, ChunkOf<kDim>(values, k * 16 + matrix % 2 * 8 + lane % 8, n * 2 + matrix / 2));
        if constexpr (kBytes) {  // in a register: two neighbouring columns of a key, then of the next
          GPU_UNROLL
          for (int i = 0; i < 4; ++i) {
            const uint32_t which = i % 2 == 0 ? kBytes02 : kBytes13;
            const uint32_t pairs[2] = {E4m3Pair(r[i / 2 * 2], which), E4m3Pair(r[i / 2 * 2 + 1], which)};
            Multiply(sum[4 * n + i], weight[k], pairs, T{});
          }
        } else {
          Multiply(sum[2 * n], weight[k], {r[0], r[1]}, T{});
          Multiply(sum[2 * n + 1], weight[k], {r[2], r[3]}, T{});
        }
      }
    }
  }
};

// ---- Decode

constexpr int kDecodeWarps = 4;
constexpr int kRingBytes = 24 << 10;  // a warp's

template <class Kv, int kDim>
constexpr int kStages = kRingBytes / (2 * kGroupKeys * kDim * static_cast<int>(sizeof(Kv)));

// What the warps leave for each other at the end, in the memory of their rings.
template <int kDim>
struct WarpSums {
  float sum[16][kDim];
  float max[16], total[16];
};

template <class Rows, int kDim>
__device__ __forceinline__ void LeaveSums(const Rows& rows, int lane, WarpSums<kDim>* to) {
  GPU_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int row = lane / 4 + 8 * i;
    const float total = rows.softmax.Total(i);
    GPU_UNROLL
    for (int n = 0; n < kDim / 8; ++n) {
      GPU_UNROLL
      for (int j = 0; j < 2; ++j) to->sum[row][Rows::Column(lane, n, j)] = rows.sum[n][2 * i + j];
    }
    if (lane % 4 == 0) {
      to->max[row] = rows.softmax.max[i];
      to->total[row] = total;
    }
  }
}

template <int kDim>
__device__ __forceinline__ void WriteSums(const AttnCall& c, const Sequence& s, int kv_head, int first, int split,
                                          bool whole, const WarpSums<kDim>* warps) {
  const int rows = s.queries * c.group - first < 16 ? s.queries * c.group - first : 16;
  for (int i = static_cast<int>(threadIdx.x); i < rows * kDim; i += kDecodeWarps * kWarp) {
    const int row = i / kDim, d = i % kDim;
    float max = warps[0].max[row], total = 0, x = 0;
    GPU_UNROLL
    for (int w = 1; w < kDecodeWarps; ++w) max = fmaxf(max, warps[w].max[row]);
    GPU_UNROLL
    for (int w = 0; w < kDecodeWarps; ++w) {
      const float weight = Exp2(warps[w].max[row] - Subtrahend(max));
      total = fmaf(weight, warps[w].total[row], total);
      x = fmaf(weight, warps[w].sum[row][d], x);
    }
    if (whole) {
      const int64_t at = RowAt(c, s, kv_head, first + row, c.y_row, c.y_head) + d;
      StoreElement(c.y, c.q_dtype, at, total > 0 ? x / total : 0.0f);
    } else {
      const int64_t at = PartialAt(c, s, kv_head, first + row, split);
      c.partial[at * kDim + d] = x;
      if (d == 0) PartialStats(c)[at] = make_float2(max, total);
    }
  }
}

// A warp's share of the keys [keys.begin, keys.end): every fourth group of 16.
template <class T, class Kv, int kDim>
__device__ __forceinline__ void DecodeGroups(const AttnCall& c, const Sequence& s, int kv_head, KeyRange keys, int warp,
                                             int lane, Kv* ring, Rows<T, Kv, kDim>& rows) {
  constexpr int kTileElements = kGroupKeys * kDim, kApart = kDecodeWarps * kGroupKeys;
  const int base = keys.begin / kGroupKeys * kGroupKeys + warp * kGroupKeys;
  const int groups = keys.end > base ? (keys.end - base + kApart - 1) / kApart : 0;
  Pages pages;
  const auto copy = [&](int i) {
    if (i % kWarp == 0) pages.Find(c, s, base + (i + lane) * kApart, keys.end);
    if (i < groups) {
      Kv* stage = ring + i % kStages<Kv, kDim> * 2 * kTileElements;
      const int first = base + i * kApart;
      CopyTile<Kv, kDim, kGroupKeys, kWarp>(c.k, kv_head, pages, i % kWarp, first, keys, stage, lane);
      CopyTile<Kv, kDim, kGroupKeys, kWarp>(c.v, kv_head, pages, i % kWarp, first, keys, stage + kTileElements, lane);
    }
    CommitCopies();
  };
  for (int i = 1 - kStages<Kv, kDim>; i < groups; ++i) {
    if (i >= 0) WaitCopies<kStages<Kv, kDim> - 2>();
    SyncWarp();  // the others' copies have arrived, and they have read the stage that is written next
    copy(i + kStages<Kv, kDim> - 1);
    if (i < 0) continue;  // the ring is being filled
    const Kv* stage = ring + i % kStages<Kv, kDim> * 2 * kTileElements;
    float score[2][4];
    uint32_t weight[1][4];
    rows.template Scores<kGroupKeys>(stage, lane, score);
    rows.template Weigh<kGroupKeys>(c, lane, base + i * kApart, keys, false, score, weight);
    rows.template Add<kGroupKeys>(stage + kTileElements, lane, weight);
  }
  WaitCopies<0>();
}

// Block (split, KV head, sequence).
template <class T, class Kv, int kDim>
__global__ void __launch_bounds__(kDecodeWarps* kWarp, 2) DecodeKernel(AttnCall c) {
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
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  Kv* rings = DynamicShared<Kv>();
  auto* sums = DynamicShared<WarpSums<kDim>>();
  static_assert(sizeof(WarpSums<kDim>) <= kRingBytes, "the sums lie where the rings were");

  for (int first = 0; first < s.queries * c.group; first += 16) {
    Rows<T, Kv, kDim> rows;
    rows.Begin(c, s, kv_head, first, lane);
    constexpr int kRing = kRingBytes / static_cast<int>(sizeof(Kv));
    DecodeGroups<T, Kv, kDim>(c, s, kv_head, keys, warp, lane, rings + warp * kRing, rows);
    __syncthreads();
    LeaveSums(rows, lane, sums + warp);
    __syncthreads();
    WriteSums(c, s, kv_head, first, split, active == 1, sums);
    __syncthreads();
  }
}

// ---- Prefill

constexpr int kPrefillWarps = 4;
constexpr int kPrefillRows = 16 * kPrefillWarps;
constexpr int kPrefillKeys = 64;
constexpr int kPrefillThreads = kPrefillWarps * kWarp;

// Block (tile of query rows, KV head).
template <class T, class Kv, int kDim>
__global__ void __launch_bounds__(kPrefillThreads, kDim == 64 ? 3 : 2) PrefillKernel(AttnCall c) {
  WaitForPrevious();
  StartNext();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, kv_head = static_cast<int>(blockIdx.y);
  if (c.zero_unowned) ZeroUnowned(c, kv_head, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x));
  const QueryTile tile = FindQueryTile(c, static_cast<int>(blockIdx.x), kPrefillRows);
  const Sequence& s = tile.sequence;
  const int all_rows = s.queries * c.group;
  if (tile.first >= all_rows) return;
  const int first_query = tile.first / c.group;
  const int last_row = (all_rows < tile.first + kPrefillRows ? all_rows : tile.first + kPrefillRows) - 1;
  const KeyRange keys = VisibleKeys(first_query, last_row / c.group, s.queries, s.keys, c.window);
  // Every row sees the keys of this range.
  const int common_end = s.Position(first_query) + 1;
  const int common_begin = c.window > 0 ? s.Position(last_row / c.group) - c.window + 1 : 0;

  T* k_tile = DynamicShared<T>();
  T* v_tile = k_tile + kPrefillKeys * kDim;
  auto* raw = reinterpret_cast<Kv*>(v_tile + kPrefillKeys * kDim);
  Rows<T, T, kDim> rows;
  rows.Begin(c, s, kv_head, tile.first + thread / kWarp * 16, lane);
  const int begin = keys.begin / kPrefillKeys * kPrefillKeys;
  constexpr int kGroups = kPrefillKeys / kGroupKeys;
  Pages pages;
  const auto copy = [&](const CacheView& view, int first, T* to) {
    const int page = (first - begin) / kGroupKeys % kWarp;
    Kv* into = raw;
    if constexpr (std::is_same_v<T, Kv>) into = to;
    CopyTile<Kv, kDim, kPrefillKeys, kPrefillThreads>(view, kv_head, pages, page, first, keys, into, thread);
    CommitCopies();
  };
  const auto arrive = [&](T* to) {
    WaitCopies<0>();
    if constexpr (!std::is_same_v<T, Kv>) WidenTile<kDim, kPrefillKeys, kPrefillThreads>(raw, to, thread);
    __syncthreads();
  };
  static_assert(kWarp % kGroups == 0, "a tile's groups are found together");
  pages.Find(c, s, begin + lane * kGroupKeys, keys.end);
  copy(c.k, begin, k_tile);
  for (int first = begin; first < keys.end; first += kPrefillKeys) {
    arrive(k_tile);  // and the last values have been read
    copy(c.v, first, v_tile);
    float score[kPrefillKeys / 8][4];
    uint32_t weight[kPrefillKeys / 16][4];
    rows.template Scores<kPrefillKeys>(k_tile, lane, score);
    const bool all_visible = first >= common_begin && first >= keys.begin && first + kPrefillKeys <= common_end;
    rows.template Weigh<kPrefillKeys>(c, lane, first, keys, all_visible, score, weight);
    arrive(v_tile);  // and the keys have been read
    const int next = first + kPrefillKeys;
    if (next < keys.end) {
      if ((next - begin) / kGroupKeys % kWarp == 0) pages.Find(c, s, next + lane * kGroupKeys, keys.end);
      copy(c.k, next, k_tile);
    }
    rows.template Add<kPrefillKeys>(v_tile, lane, weight);
  }
  WaitCopies<0>();
  GPU_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int row = tile.first + thread / kWarp * 16 + lane / 4 + 8 * i;
    const float total = rows.softmax.Total(i), scale = total > 0 ? 1 / total : 0.0f;
    if (row >= all_rows) continue;
    const int64_t at = RowAt(c, s, kv_head, row, c.y_row, c.y_head) + lane % 4 * 2;
    GPU_UNROLL
    for (int n = 0; n < kDim / 8; ++n) {
      StorePair<T>(c, at + n * 8, rows.sum[n][2 * i] * scale, rows.sum[n][2 * i + 1] * scale);
    }
  }
}

// ---- Launching

bool Supported(const AttnCall& c, DType cache) {
  return SixteenBits(c, cache == DType::kF8_E4M3 ? DType::kBF16 : cache) &&
         (c.dim == 64 || c.dim == 96 || c.dim == 128);
}

// Calls f<T, Kv, kDim>() through a functor, for what Supported lets pass.
template <class F>
void WithTypes(const AttnCall& c, DType cache, const F& f) {
  const auto with_dim = [&](auto element, auto cached) {
    using T = decltype(element);
    using Kv = decltype(cached);
    if (c.dim == 64) {
      f.template operator()<T, Kv, 64>();
    } else if (c.dim == 96) {
      f.template operator()<T, Kv, 96>();
    } else {
      f.template operator()<T, Kv, 128>();
    }
  };
  if (cache == DType::kBF16) {
    with_dim(Bf16{}, Bf16{});
  } else if (cache == DType::kF16) {
    with_dim(F16{}, F16{});
  } else {
    with_dim(Bf16{}, E4m3{});
  }
}

struct LaunchDecode {
  const AttnCall& c;
  const Queue& queue;
  template <class T, class Kv, int kDim>
  void operator()() const {
    const dim3 grid(static_cast<unsigned>(c.splits), static_cast<unsigned>(c.kv_heads),
                    static_cast<unsigned>(c.sequences));
    Launch(DecodeKernel<T, Kv, kDim>, grid, dim3(kDecodeWarps * kWarp), kDecodeWarps * kRingBytes, queue.stream, c);
  }
};

struct LaunchPrefill {
  const AttnCall& c;
  const Queue& queue;
  template <class T, class Kv, int kDim>
  void operator()() const {
    const int64_t tiles = MaxQueryTiles(c.tokens, c.sequences, c.group, kPrefillRows);
    const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(c.kv_heads));
    constexpr size_t kTile = kPrefillKeys * kDim, kRaw = std::is_same_v<T, Kv> ? 0 : kTile * sizeof(Kv);
    Launch(PrefillKernel<T, Kv, kDim>, grid, dim3(kPrefillThreads), 2 * kTile * sizeof(T) + kRaw, queue.stream, c);
  }
};

}  // namespace

bool DecodeSm80(const AttnCall& call, DType cache, const Queue& queue) {
  if (!Supported(call, cache)) return false;
  WithTypes(call, cache, LaunchDecode{call, queue});
  return true;
}

bool PrefillSm80(const AttnCall& call, DType cache, const Queue& queue) {
  if (!Supported(call, cache)) return false;
  WithTypes(call, cache, LaunchPrefill{call, queue});
  return true;
}

}  // namespace assay::gpu

#endif  // GPU_HAS_SM80
