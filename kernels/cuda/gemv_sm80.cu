// SPDX-License-Identifier: Apache-2.0
// y [M, N] = x [M, K] * w [N, K]^T + bias for M <= 16 on tensor cores, x in 16 bits: decode. Limited by the bandwidth
// at which the weight, N * K at its density, is read, once. Tensor cores, because they make the rest cheap: a warp
// multiplies 16 rows by 8 tokens with the weights as the operand that is streamed; unpacking 4-bit quants to pairs of
// bf16 costs 1.3 operations each, and there is no other work per weight, whether one token comes or eight. Quants enter
// as exact integers and partial sums are scaled per block, in f32. A warp copies the tiles that it multiplies, ahead,
// into a ring in shared memory that no other warp touches: up to some 100 KB are under way on a multiprocessor (20 KB
// saturate its share of an H100's 3.35 TB/s) at few registers and without barriers. The ring fills before the previous
// kernel has ended: weights do not change. A block has kTiles * 16 rows; its 8 warps take every eighth tile of columns,
// and reads one contiguous stretch. x comes from the L2 cache, 2 * M bytes a column and block; where M > 2, more rows a
// block keep that under half of the weights. Sums of the warps meet in shared memory, in a fixed order. Not yet
// measured on a card.
#include "kernels/cuda/linear_kernels.h"

#if GPU_HAS_SM80

#include "kernels/cuda/weight_tile_sm80.h"

namespace assay::gpu {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kTokens = 8;  // columns of an instruction

// Tiles of columns that a warp takes at once: two where they are small, to share what a turn of its loop costs.
template <class Format>
constexpr int kColumnTiles = kTileBytes<Format> < 1200 && Format::kTileK == 64 ? 2 : 1;
// A warp's part of x in a stage, [tile of columns, run, token, t], follows its weights, [tile of columns, tile of
// rows].
template <class Format, int kRowTiles>
constexpr int kStageWeights = kColumnTiles<Format>* kRowTiles* kTileBytes<Format>;
template <class Format, int kRowTiles>
__host__ __device__ constexpr int StageBytes(int tokens) {
  return kStageWeights<Format, kRowTiles> + kColumnTiles<Format> * Format::kRuns * tokens * 64;
}
// Stages of a warp's ring: about 8 KB of weights, and one to multiply while two are under way.
template <class Format, int kRowTiles>
constexpr int kDepth = 8192 / kStageWeights<Format, kRowTiles> < 3 ? 3 : 8192 / kStageWeights<Format, kRowTiles>;
// Of a warp's sums in shared memory, [token, row]; no two lanes of a store meet in a bank.
template <int kRowTiles>
constexpr int kSumPitch = kRowTiles* kTileRows + 4;

// What a warp copies, stage by stage.
template <class Format, int kRowTiles, int kTokenTiles>
struct Stages {
  using Tile = WeightTile<Format>;
  static constexpr int kColumns = kColumnTiles<Format>, kTileVectors = kTileBytes<Format> / 16;
  const WeightRef& w;
  const MatrixRef& x;
  int64_t row_tile;
  int k_tiles, tokens, lane;

  __device__ __forceinline__ static const uint4* Weights(const uint4* stage, int u, int r) {
    return stage + (u * kRowTiles + r) * kTileVectors;
  }
  __device__ __forceinline__ int XVector(int u, int j, int token) const {
    return kStageWeights<Format, kRowTiles> / 16 + ((u * Format::kRuns + j) * tokens + token) * 4 + lane % 4;
  }
  __device__ __forceinline__ void CopyWeights(int k_tile, uint4* stage) const {
    GPU_UNROLL
    for (int u = 0; u < kColumns; ++u) {
      if (k_tile + u >= k_tiles) return;
      GPU_UNROLL
      for (int r = 0; r < kRowTiles; ++r) {
        Tile(w, row_tile + r, lane).Copy(k_tile + u, lane, stage + (u * kRowTiles + r) * kTileVectors);
      }
    }
  }
  __device__ __forceinline__ void CopyX(int k_tile, uint4* stage) const {
    GPU_UNROLL
    for (int n = 0; n < kTokenTiles; ++n) {
      const int token = n * kTokens + lane / 4;
      if (token >= tokens) return;
      const auto* row = static_cast<const uint16_t*>(x.data) + token * x.stride;
      GPU_UNROLL
      for (int u = 0; u < kColumns; ++u) {
        if (k_tile + u >= k_tiles) break;
        GPU_UNROLL
        for (int j = 0; j < Format::kRuns; ++j) {
          const int64_t column = static_cast<int64_t>(k_tile + u) * Format::kTileK + Format::Column(j, lane % 4);
          const bool valid = column < x.cols;
          CopyAsync16(stage + XVector(u, j, token), row + (valid ? column : 0), valid);
        }
      }
    }
  }
};

// sum += the tiles of a stage, column tile u, times x.
template <class Format, int kRowTiles, int kTokenTiles>
__device__ __forceinline__ void Multiply(const Stages<Format, kRowTiles, kTokenTiles>& s, const uint4* stage, int u,
                                         float (&sum)[kRowTiles][kTokenTiles][4]) {
  using Tile = WeightTile<Format>;
  using Half = typename Tile::Half;
  GPU_UNROLL
  for (int first = 0; first < Format::kRuns; first += Tile::kRunsPerGroup) {
    float part[kRowTiles][kTokenTiles][4] = {};
    float x_sum[kTokenTiles][4] = {};
    GPU_UNROLL
    for (int j = first; j < first + Tile::kRunsPerGroup; ++j) {
      uint32_t b[kTokenTiles][2][2];
      GPU_UNROLL
      for (int n = 0; n < kTokenTiles; ++n) {
        const int token = n * kTokens + s.lane / 4;
        SplitOperand(token < s.tokens ? stage[s.XVector(u, j, token)] : make_uint4(0, 0, 0, 0), b[n]);
      }
      GPU_UNROLL
      for (int r = 0; r < kRowTiles; ++r) {
        uint32_t a[2][4];
        LoadOperands<Format>(s.Weights(stage, u, r), s.lane, j, a);
        GPU_UNROLL
        for (int n = 0; n < kTokenTiles; ++n) {
          GPU_UNROLL
          for (int i = 0; i < 2; ++i) Mma(Tile::kScaled ? part[r][n] : sum[r][n], a[i], b[n][i], Half{});
        }
      }
      if (Tile::kMin) {  // sums of x, in every row of the result
        constexpr uint32_t kOnes = 0x3f803f80u;
        const uint32_t ones[4] = {kOnes, kOnes, kOnes, kOnes};
        GPU_UNROLL
        for (int n = 0; n < kTokenTiles; ++n) {
          GPU_UNROLL
          for (int i = 0; i < 2; ++i) Mma(x_sum[n], ones, b[n][i], Half{});
        }
      }
    }
    if constexpr (Tile::kScaled) {
      GPU_UNROLL
      for (int r = 0; r < kRowTiles; ++r) {
        GPU_UNROLL
        for (int i = 0; i < 4; ++i) {
          const float2 scale = Tile::Scale(s.Weights(stage, u, r), s.lane, first, i / 2);
          GPU_UNROLL
          for (int n = 0; n < kTokenTiles; ++n) {
            sum[r][n][i] += scale.x * part[r][n][i];
            if (Tile::kMin) sum[r][n][i] += scale.y * x_sum[n][i % 2];
          }
        }
      }
    }
  }
}

// y = the sum of what the warps have, + bias. shared: [warp, token, row].
template <int kRowTiles, int kTokenTiles>
__device__ __forceinline__ void AddWarps(const float (&sum)[kRowTiles][kTokenTiles][4], float* shared,
                                         int64_t first_row, const float* bias, const MatrixRef& y) {
  constexpr int kPitch = kSumPitch<kRowTiles>, kRows = kRowTiles * kTileRows, kMost = kTokenTiles * kTokens;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  GPU_UNROLL
  for (int r = 0; r < kRowTiles; ++r) {
    GPU_UNROLL
    for (int n = 0; n < kTokenTiles; ++n) {
      GPU_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int token = n * kTokens + 2 * (lane % 4) + i % 2, row = r * kTileRows + lane / 4 + 8 * (i / 2);
        shared[(warp * kMost + token) * kPitch + row] = sum[r][n][i];
      }
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < static_cast<int>(y.rows) * kRows; i += kThreads) {
    const int token = i / kRows, row = i % kRows;
    const int64_t n = first_row + row;
    if (n >= y.cols) continue;
    float total = bias != nullptr ? bias[n] : 0.0f;
    GPU_UNROLL
    for (int from = 0; from < kWarps; ++from) total += shared[(from * kMost + token) * kPitch + row];
    StoreElement(y, token, n, total);
  }
}

template <class Format, int kRowTiles, int kTokenTiles>
__global__ void __launch_bounds__(kThreads)
    GemvTensorKernel(WeightRef w, MatrixRef x, const float* bias, MatrixRef y, int k_tiles) {
  constexpr int kAhead = kDepth<Format, kRowTiles> - 1, kColumns = kColumnTiles<Format>, kStep = kWarps * kColumns;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int tokens = static_cast<int>(x.rows), stage_vectors = StageBytes<Format, kRowTiles>(tokens) / 16;
  auto* ring = DynamicShared<uint4>() + warp * (kAhead + 1) * stage_vectors;
  const int64_t row_tile = static_cast<int64_t>(blockIdx.x) * kRowTiles;
  const Stages<Format, kRowTiles, kTokenTiles> stages{w, x, row_tile, k_tiles, tokens, lane};

  const int first = warp * kColumns;
  GPU_UNROLL
  for (int i = 0; i < kAhead; ++i) stages.CopyWeights(first + i * kStep, ring + i * stage_vectors);
  WaitForPrevious();
  StartNext();
  GPU_UNROLL
  for (int i = 0; i < kAhead; ++i) {
    stages.CopyX(first + i * kStep, ring + i * stage_vectors);
    CommitCopies();
  }

  float sum[kRowTiles][kTokenTiles][4] = {};
  int now = 0, next = kAhead;
  for (int k_tile = first; k_tile < k_tiles; k_tile += kStep) {
    WaitCopies<kAhead - 1>();
    SyncWarp();  // scales come through other lanes; and all have read the stage that is filled next
    stages.CopyWeights(k_tile + kAhead * kStep, ring + next * stage_vectors);
    stages.CopyX(k_tile + kAhead * kStep, ring + next * stage_vectors);
    CommitCopies();
    GPU_UNROLL
    for (int u = 0; u < kColumns; ++u) {
      if (k_tile + u < k_tiles) Multiply(stages, ring + now * stage_vectors, u, sum);
    }
    now = now == kAhead ? 0 : now + 1;
    next = next == kAhead ? 0 : next + 1;
  }
  WaitCopies<0>();
  __syncthreads();  // all have read their rings, where the sums come to lie
  AddWarps(sum, DynamicShared<float>(), row_tile * kTileRows, bias, y);
}

// Whether it launched: false where a block would take more shared memory than the card has.
template <class Format, int kRowTiles, int kTokenTiles>
bool LaunchGemv(const WeightRef& w, const MatrixRef& x, const float* bias, const MatrixRef& y, const Queue& queue) {
  const int ring = kWarps * kDepth<Format, kRowTiles> * StageBytes<Format, kRowTiles>(static_cast<int>(x.rows));
  const int sums = kWarps * kTokenTiles * kTokens * kSumPitch<kRowTiles> * 4;
  const int shared = ring > sums ? ring : sums;
  if (shared > SharedLimit(queue)) return false;
  const int64_t blocks = CeilDiv(w.padded_rows / kTileRows, kRowTiles);
  Launch(GemvTensorKernel<Format, kRowTiles, kTokenTiles>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads),
         static_cast<size_t>(shared), queue.stream, w, x, bias, y, static_cast<int>(CeilDiv(w.cols, Format::kTileK)));
  return true;
}

template <class Format>
bool LaunchGemv(const WeightRef& w, const MatrixRef& x, const float* bias, const MatrixRef& y, const Queue& queue) {
  // Tiles of rows in a block. More of them read x less often, fewer make more blocks; few bytes a weight want more.
  constexpr bool kSmall = kTileBytes<Format> * 64 / Format::kTileK < 1024;
  constexpr int kFew = kSmall ? 2 : 1, kMany = kSmall ? 4 : 2;
  static_assert(kWarps * kDepth<Format, kFew> * StageBytes<Format, kFew>(1) <= kLeastSharedLimit, "one row fits");
  if (x.rows > kTokens) return LaunchGemv<Format, kMany, 2>(w, x, bias, y, queue);
  if (x.rows > kTokens / 2 && LaunchGemv<Format, kMany, 1>(w, x, bias, y, queue)) return true;
  return LaunchGemv<Format, kFew, 1>(w, x, bias, y, queue);
}

}  // namespace

void GemvTensor(const WeightSpec& spec, const WeightRef& w, const MatrixRef& x, const float* bias, const MatrixRef& y,
                const Queue& queue) {
  bool launched = false;
  WithTensorFormat(spec.dtype, [&](auto format) { launched = LaunchGemv<decltype(format)>(w, x, bias, y, queue); });
  if (launched) return;
  // An A100 or an Ada, with less shared memory than the rings want: the weight is read once for each half of the rows.
  const int64_t half = (x.rows + 1) / 2;
  GemvTensor(spec, w, RowsOf(x, 0, half), bias, RowsOf(y, 0, half), queue);
  GemvTensor(spec, w, RowsOf(x, half, x.rows - half), bias, RowsOf(y, half, x.rows - half), queue);
}

}  // namespace assay::gpu

#endif  // GPU_HAS_SM80
