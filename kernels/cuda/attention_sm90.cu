// SPDX-License-Identifier: Apache-2.0
// Prefill of paged attention on Hopper (sm_90a): bf16 or f16 caches and queries (f32 queries with bf16 caches are
// rounded), head sizes 64 and 128, both layouts, blocks of the cache that are a multiple of 16 (64 and 128 cost the
// fewest copies), windows and soft caps.
//
// A block has 128 query rows (attention_plan.h): two warpgroups of 64 compute, a warp of a third copies 128 keys or
// values at a time by a tensor map over the cache, box by box of one cache block, into a ring of swizzled tiles. Scores
// and weights stay in registers. Each warpgroup starts the scores of the next keys before it adds the values of the
// last, so that its softmax runs under that product; the two take turns at starting products, so that one's softmax
// also runs under the other's. Limited by the tensor cores: 4 * 128 * 128 * dim operations for 512 * dim bytes of K and
// V from the L2 cache. Shared memory at dim 128: 32 KiB of queries, 2 * 64 KiB of keys and values. Registers: 232 a
// thread of the warpgroups that compute. Not yet measured on a card.
#include "kernels/cuda/gpu.h"

#if GPU_HAS_SM90

#include <type_traits>

#include "kernels/cuda/attention_softmax.h"
#include "kernels/cuda/hopper_sm90.h"

namespace assay::gpu {
namespace {

constexpr int kConsumers = 2;  // warpgroups
constexpr int kThreads = (1 + kConsumers) * kWarpgroup;
constexpr int kGroupRows = 64;  // of a warpgroup
constexpr int kRows = kConsumers * kGroupRows;
constexpr int kPanelBytes = 128 * 128;  // 128 rows of queries, keys or values, 64 columns

template <int kDim>
struct Ring {
  static constexpr int kStages = 256 / kDim;
  static constexpr int kPanels = kDim / kPanelColumns;
  static constexpr int kTileBytes = kPanels * kPanelBytes;

  struct Barriers {
    Mbarrier keys_full[kStages], keys_empty[kStages], values_full[kStages], values_empty[kStages];
  };
  static constexpr size_t kSharedBytes = (1 + 2 * kStages) * kTileBytes + sizeof(Barriers);

  unsigned char* base;  // queries, keys, values, barriers

  __device__ __forceinline__ unsigned char* Queries() const { return base; }
  __device__ __forceinline__ unsigned char* Keys(int stage) const { return base + (1 + stage) * kTileBytes; }
  __device__ __forceinline__ unsigned char* Values(int stage) const {
    return base + (1 + kStages + stage) * kTileBytes;
  }
  __device__ __forceinline__ Barriers* Gates() const {
    return reinterpret_cast<Barriers*>(base + (1 + 2 * kStages) * kTileBytes);
  }
};

#if GPU_COMPILES_SM90

constexpr int kKeys = 128;                                        // of a tile
constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;  // of 168 each at first; 40 + 2 * 232 <= 3 * 168

// Named barriers of the block's hardware; 0 is that of __syncthreads.
constexpr int kBothBarrier = 1;  // both warpgroups that compute
constexpr int kTurnBarrier = 2;  // and 3: the turn of a warpgroup to start products
constexpr int kOwnBarrier = 4;   // and 5: a warpgroup's own

// Where a ring stands.
template <int kStages>
struct Turn {
  int stage = 0, phase = 0;
  __device__ __forceinline__ void Next() {
    if (++stage == kStages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

// What a block works on.
struct Work {
  Sequence sequence;
  int kv_head, first_row, all_rows;  // rows within the sequence's matrix
  KeyRange keys;

  __device__ __forceinline__ int FirstTile() const { return keys.begin / kKeys * kKeys; }
};

// ---- The warp that copies. A lane has a box of each tile.

template <int kDim>
__device__ __forceinline__ void Produce(const AttnCall& c, const Work& w, int box, const TensorMap* k_map,
                                        const TensorMap* v_map, Ring<kDim> ring) {
  using R = Ring<kDim>;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  typename R::Barriers* gates = ring.Gates();
  Turn<R::kStages> turn;
  for (int first = w.FirstTile(); first < w.keys.end; first += kKeys) {
    const int position = first + lane * box;
    const bool mine = lane * box < kKeys && position + box > w.keys.begin && position < w.keys.end;
    const int block = mine ? c.block_table[w.sequence.index * c.table_row + position / c.block_size] : 0;
    const int slot = position % c.block_size;
    const int begin = (first > w.keys.begin ? first : w.keys.begin) / box;
    const int end = ((first + kKeys < w.keys.end ? first + kKeys : w.keys.end) + box - 1) / box;
    const int bytes = (end - begin) * box * kDim * 2;
    const auto copy = [&](Mbarrier* empty, Mbarrier* full, const TensorMap* map, unsigned char* tile) {
      WaitBarrier(empty, turn.phase ^ 1);
      if (lane == 0) ArriveExpecting(full, bytes);
      SyncWarp();
      if (!mine) return;
      GPU_UNROLL
      for (int p = 0; p < R::kPanels; ++p) {
        CopyBox(tile + p * kPanelBytes + lane * box * 128, map, block, w.kv_head, slot, p * kPanelColumns, full);
      }
    };
    copy(&gates->keys_empty[turn.stage], &gates->keys_full[turn.stage], k_map, ring.Keys(turn.stage));
    copy(&gates->values_empty[turn.stage], &gates->values_full[turn.stage], v_map, ring.Values(turn.stage));
    turn.Next();
  }
}

// ---- The warpgroups that compute

// A warpgroup's 64 rows of queries to its part of the tile. A row that does not exist is the last one once more: loads
// without branches lie in flight together.
template <class T, int kDim>
__device__ __forceinline__ void LoadQueries(const AttnCall& c, const Work& w, int first_row, int thread,
                                            unsigned char* to) {
  constexpr int kChunks = kDim / 8, kEach = kGroupRows * kChunks / kWarpgroup;
  uint4 raw[kEach];
  const auto at = [&](int i) {
    const int row = first_row + (i * kWarpgroup + thread) / kChunks, chunk = (i * kWarpgroup + thread) % kChunks;
    const int exists = row < w.all_rows ? row : w.all_rows - 1;
    return RowAt(c, w.sequence, w.kv_head, exists, c.q_row, c.q_head) + chunk * 8;
  };
  if (c.q_dtype == DType::kF32) {
    GPU_UNROLL
    for (int i = 0; i < kEach; ++i) {
      const auto* q = static_cast<const float*>(c.q) + at(i);
      float x[2][4];
      Unpack<float>(LoadVector(q), x[0]);
      Unpack<float>(LoadVector(q + 4), x[1]);
      raw[i] = make_uint4(PackPair(x[0][0], x[0][1], T{}), PackPair(x[0][2], x[0][3], T{}),
                          PackPair(x[1][0], x[1][1], T{}), PackPair(x[1][2], x[1][3], T{}));
    }
  } else {
    GPU_UNROLL
    for (int i = 0; i < kEach; ++i) raw[i] = LoadVector(static_cast<const T*>(c.q) + at(i));
  }
  GPU_UNROLL
  for (int i = 0; i < kEach; ++i) {
    const int row = (i * kWarpgroup + thread) / kChunks, chunk = (i * kWarpgroup + thread) % kChunks;
    StoreVector(to + chunk / 8 * kPanelBytes + PanelAt(row, chunk % 8), raw[i]);
  }
}

// A warpgroup's rows of results, by way of its part of the tile of queries, which nobody reads any more.
template <class T, int kDim>
__device__ __forceinline__ void StoreResults(const AttnCall& c, const Work& w, int first_row, int thread, int own,
                                             const float (&sum)[kDim / 8][4], const SoftmaxRows& softmax,
                                             unsigned char* through) {
  const int lane = thread % kWarp;
  GPU_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int row = thread / kWarp * 16 + lane / 4 + 8 * i;
    const float total = softmax.Total(i), scale = total > 0 ? 1 / total : 0.0f;
    const int64_t at = RowAt(c, w.sequence, w.kv_head, first_row + row, c.y_row, c.y_head) + lane % 4 * 2;
    GPU_UNROLL
    for (int n = 0; n < kDim / 8; ++n) {
      const float x0 = sum[n][2 * i] * scale, x1 = sum[n][2 * i + 1] * scale;
      if (c.q_dtype == DType::kF32) {
        if (first_row + row < w.all_rows) StorePair<T>(c, at + n * 8, x0, x1);
      } else {
        unsigned char* chunk = through + n / 8 * kPanelBytes + PanelAt(row, n % 8);
        *reinterpret_cast<uint32_t*>(chunk + lane % 4 * 4) = PackPair(x0, x1, T{});
      }
    }
  }
  if (c.q_dtype == DType::kF32) return;
  SyncNamed(kOwnBarrier + own, kWarpgroup);
  constexpr int kChunks = kDim / 8;
  for (int i = thread; i < kGroupRows * kChunks; i += kWarpgroup) {
    const int row = i / kChunks, chunk = i % kChunks;
    if (first_row + row >= w.all_rows) continue;
    const int64_t at = RowAt(c, w.sequence, w.kv_head, first_row + row, c.y_row, c.y_head) + chunk * 8;
    StoreVector(static_cast<T*>(c.y) + at, LoadVector(through + chunk / 8 * kPanelBytes + PanelAt(row, chunk % 8)));
  }
}

// Zeros for the values of a tile that lie outside `keys`: their weight is zero, but what stands there may be no number.
// By both warpgroups.
template <int kDim>
__device__ __forceinline__ void ClearValues(int first, KeyRange keys, unsigned char* tile) {
  const int thread = static_cast<int>(threadIdx.x) - kWarpgroup, row = thread / 2;
  if (first + row < keys.begin || first + row >= keys.end) {
    for (int chunk = thread % 2; chunk < kDim / 8; chunk += 2) {
      StoreVector(tile + chunk / 8 * kPanelBytes + row * 128 + chunk % 8 * 16, make_uint4(0, 0, 0, 0));
    }
  }
  FenceAsyncProxy();
  SyncNamed(kBothBarrier, kConsumers * kWarpgroup);
}

template <class T, int kDim>
struct Consumer {
  using R = Ring<kDim>;
  static constexpr bool kBf16 = std::is_same<T, Bf16>::value;

  const AttnCall& c;
  const Work& w;
  Ring<kDim> ring;
  int own, lane;  // which of the warpgroups; of the warp

  __device__ __forceinline__ bool Partial(int first) const {
    return first < w.keys.begin || first + kKeys > w.keys.end;
  }

  // Starts score = q . k.
  __device__ __forceinline__ void StartScores(int stage, float (&score)[kKeys / 8][4]) const {
    const uint32_t q = SharedAddress(ring.Queries()) + static_cast<uint32_t>(own * kGroupRows * 128);
    const uint32_t k = SharedAddress(ring.Keys(stage));
    GPU_UNROLL
    for (int i = 0; i < kDim / 16; ++i) {
      const auto step = static_cast<uint32_t>(i / 4 * kPanelBytes + i % 4 * 32);
      ProductOfTiles<kBf16>(score, TileDescriptor(q + step), TileDescriptor(k + step), i > 0);
    }
    CommitProducts();
  }
  // Starts sum += weight * v.
  __device__ __forceinline__ void StartSums(int stage, const uint32_t (&weight)[kKeys / 16][4],
                                            float (&sum)[kDim / 8][4]) const {
    const uint32_t v = SharedAddress(ring.Values(stage));
    GPU_UNROLL
    for (int i = 0; i < kKeys / 16; ++i) {
      ProductWithTile<kBf16>(sum, weight[i], TileDescriptor(v + static_cast<uint32_t>(i * 16 * 128), kPanelBytes));
    }
    CommitProducts();
  }
  __device__ __forceinline__ void Release(Mbarrier* empty) const {
    if (lane == 0) Arrive(empty);
  }

  // The sums of all keys of the work.
  __device__ __forceinline__ void Run(int first_row, SoftmaxRows& softmax, float (&sum)[kDim / 8][4]) const {
    const int last_row = (first_row + kGroupRows < w.all_rows ? first_row + kGroupRows : w.all_rows) - 1;
    // All rows of the warpgroup see the keys of this range.
    const int common_end = first_row < w.all_rows ? w.sequence.Position(first_row / c.group) + 1 : w.keys.end;
    const int common_begin = c.window > 0 ? w.sequence.Position(last_row / c.group) - c.window + 1 : 0;
    const auto all_visible = [&](int first) {
      return !Partial(first) && first >= common_begin && first + kKeys <= common_end;
    };
    typename R::Barriers* gates = ring.Gates();
    float score[kKeys / 8][4], rescale[2];
    uint32_t weight[kKeys / 16][4];

    if (own == 1) ArriveNamed(kTurnBarrier, kConsumers * kWarpgroup);  // the other's is the first turn
    int first = w.FirstTile();
    Turn<R::kStages> turn;
    WaitBarrier(&gates->keys_full[0], 0);
    SyncNamed(kTurnBarrier + own, kConsumers * kWarpgroup);
    FenceProducts();
    StartScores(0, score);
    ArriveNamed(kTurnBarrier + (own ^ 1), kConsumers * kWarpgroup);
    WaitProducts<0>();
    HoldRegisters(score);
    Release(&gates->keys_empty[0]);
    softmax.Weigh<kKeys>(c, lane, first, w.keys, all_visible(first), score, rescale);
    PackWeights<T>(score, weight);

    for (first += kKeys; first < w.keys.end; first += kKeys) {
      const Turn<R::kStages> before = turn;
      turn.Next();
      if (Partial(first - kKeys)) {  // not during a turn: both take part
        WaitBarrier(&gates->values_full[before.stage], before.phase);
        ClearValues<kDim>(first - kKeys, w.keys, ring.Values(before.stage));
      }
      WaitBarrier(&gates->keys_full[turn.stage], turn.phase);
      SyncNamed(kTurnBarrier + own, kConsumers * kWarpgroup);
      FenceProducts();
      StartScores(turn.stage, score);
      WaitBarrier(&gates->values_full[before.stage], before.phase);
      FenceProducts();
      StartSums(before.stage, weight, sum);
      ArriveNamed(kTurnBarrier + (own ^ 1), kConsumers * kWarpgroup);
      WaitProducts<1>();
      HoldRegisters(score);
      Release(&gates->keys_empty[turn.stage]);
      softmax.Weigh<kKeys>(c, lane, first, w.keys, all_visible(first), score, rescale);
      WaitProducts<0>();
      HoldRegisters(sum);
      Release(&gates->values_empty[before.stage]);
      Rescale(sum, rescale);
      PackWeights<T>(score, weight);
    }
    WaitBarrier(&gates->values_full[turn.stage], turn.phase);
    if (Partial(first - kKeys)) ClearValues<kDim>(first - kKeys, w.keys, ring.Values(turn.stage));
    FenceProducts();
    StartSums(turn.stage, weight, sum);
    WaitProducts<0>();
    HoldRegisters(sum);
  }
};

#endif

// Block (KV head, tile of query rows): the tiles with the most keys come first, for all heads.
template <class T, int kDim>
__global__ void __launch_bounds__(kThreads, 1)
    PrefillKernel(AttnCall c, int box, const __grid_constant__ TensorMap k_map,
                  const __grid_constant__ TensorMap v_map) {
#if GPU_COMPILES_SM90
  WaitForPrevious();
  StartNext();
  const int thread = static_cast<int>(threadIdx.x), kv_head = static_cast<int>(blockIdx.x);
  if (c.zero_unowned) ZeroUnowned(c, kv_head, static_cast<int>(blockIdx.y), static_cast<int>(gridDim.y));
  const QueryTile tile = FindQueryTile(c, static_cast<int>(blockIdx.y), kRows);
  const int all_rows = tile.sequence.queries * c.group;
  if (tile.first >= all_rows) return;
  const int last_row = (tile.first + kRows < all_rows ? tile.first + kRows : all_rows) - 1;
  const Work w{
      tile.sequence, kv_head, tile.first, all_rows,
      VisibleKeys(tile.first / c.group, last_row / c.group, tile.sequence.queries, tile.sequence.keys, c.window)};
  using R = Ring<kDim>;
  const R ring{DynamicShared<unsigned char>()};
  typename R::Barriers* gates = ring.Gates();
  if (thread == 0) {
    constexpr int kReaders = kConsumers * kWarpgroup / kWarp;  // each warp says when it is done with a tile
    for (int i = 0; i < R::kStages; ++i) {
      InitBarrier(&gates->keys_full[i], 1);
      InitBarrier(&gates->values_full[i], 1);
      InitBarrier(&gates->keys_empty[i], kReaders);
      InitBarrier(&gates->values_empty[i], kReaders);
    }
    FenceBarrierInit();
  }
  __syncthreads();

  if (thread < kWarpgroup) {
    GiveRegisters<kProducerRegisters>();
    if (thread < kWarp) Produce<kDim>(c, w, box, &k_map, &v_map, ring);
  } else {
    TakeRegisters<kConsumerRegisters>();
    const int own = thread / kWarpgroup - 1, mine = thread % kWarpgroup, first_row = tile.first + own * kGroupRows;
    unsigned char* queries = ring.Queries() + own * kGroupRows * 128;
    LoadQueries<T, kDim>(c, w, first_row, mine, queries);
    FenceAsyncProxy();
    SyncNamed(kOwnBarrier + own, kWarpgroup);
    SoftmaxRows softmax;
    softmax.Begin(c, w.sequence, first_row + mine / kWarp * 16, mine % kWarp);
    float sum[kDim / 8][4];
    GPU_UNROLL
    for (int i = 0; i < kDim / 2; ++i) sum[i / 4][i % 4] = 0;
    if (w.keys.begin < w.keys.end) {
      const Consumer<T, kDim> consumer{c, w, ring, own, mine % kWarp};
      consumer.Run(first_row, softmax, sum);
    }
    StoreResults<T, kDim>(c, w, first_row, mine, own, sum, softmax, queries);
  }
#endif
}

template <class T, int kDim>
void LaunchPrefill(const AttnCall& c, int box, const TensorMap& k_map, const TensorMap& v_map, const Queue& queue) {
  const int64_t tiles = MaxQueryTiles(c.tokens, c.sequences, c.group, kRows);
  const dim3 grid(static_cast<unsigned>(c.kv_heads), static_cast<unsigned>(tiles));
  Launch(PrefillKernel<T, kDim>, grid, dim3(kThreads), Ring<kDim>::kSharedBytes, queue.stream, c, box, k_map, v_map);
}

template <class T>
void LaunchPrefill(const AttnCall& c, int box, const TensorMap& k_map, const TensorMap& v_map, const Queue& queue) {
  if (c.dim == 64) {
    LaunchPrefill<T, 64>(c, box, k_map, v_map, queue);
  } else {
    LaunchPrefill<T, 128>(c, box, k_map, v_map, queue);
  }
}

bool Supported(const AttnCall& c, DType cache) {
  const bool vectors = (c.q_row | c.q_head | c.y_row | c.y_head) % 8 == 0 &&
                       (reinterpret_cast<uintptr_t>(c.q) | reinterpret_cast<uintptr_t>(c.y)) % 16 == 0;
  constexpr int64_t kMostTiles = 65535;  // of a grid's second dimension
  return SixteenBits(c, cache) && vectors && (c.dim == 64 || c.dim == 128) && c.block_size % 16 == 0 &&
         MaxQueryTiles(c.tokens, c.sequences, c.group, kRows) <= kMostTiles;
}

}  // namespace

bool PrefillSm90(const AttnCall& call, DType cache, int64_t blocks, const Queue& queue) {
  if (!Supported(call, cache)) return false;
  // The tallest box that is part of one block of the cache and of one tile.
  int box = 128;
  while (call.block_size % box != 0) box /= 2;
  const int64_t shape[4] = {blocks, call.kv_heads, call.block_size, call.dim};
  const int64_t k_stride[4] = {call.k.block, call.k.head, call.k.position, 1};
  const int64_t v_stride[4] = {call.v.block, call.v.head, call.v.position, 1};
  TensorMap k_map, v_map;
  if (!MakeTensorMap(call.k.data, cache, shape, k_stride, box, &k_map)) return false;
  if (!MakeTensorMap(call.v.data, cache, shape, v_stride, box, &v_map)) return false;
  if (cache == DType::kBF16) {
    LaunchPrefill<Bf16>(call, box, k_map, v_map, queue);
  } else {
    LaunchPrefill<F16>(call, box, k_map, v_map, queue);
  }
  return true;
}

}  // namespace assay::gpu

#endif  // GPU_HAS_SM90
