// SPDX-License-Identifier: Apache-2.0
// y [M, N] = x [M, K] * w [N, K]^T + bias for M > 16 on tensor cores by mma.sync, x in 16 bits: blocks of quants, which
// no library reads, and weights in 16 bits where there is no library. Limited by the rate of mma.sync (on Hopper some
// 60 % of what wgmma reaches; for very many rows linear.cu therefore unpacks and calls the library). A block makes 128
// rows of w by 64 or 128 tokens, its 8 warps 32 rows by half of the tokens each. Tiles of w, packed, and of x come
// ahead by cp.async in the order in which lanes read them (weight_block.h), so that every operand is one conflict-free
// vector and there is no ldmatrix; quants become bf16, scale and minimum included, in registers: 3 to 5 operations a
// weight beside 128 or 64 products. Few tiles of results are split along K; the parts are added afterwards. Not yet
// measured on a card.
#include "kernels/cuda/linear_kernels.h"

#if GPU_HAS_SM80

#include "kernels/cuda/weight_tile_sm80.h"

namespace assay::gpu {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kRowTiles = 8;  // of 16, in a block
constexpr int kRows = kRowTiles * kTileRows;
constexpr int kWarpRowTiles = 2;
constexpr int kPitch = kRows + 4;  // of results in shared memory, [token, row]

// kTokenTiles: of 8, in a warp; two warps share the block's tokens.
template <class Format, int kTokenTiles>
constexpr int kStageBytes = kRowTiles* kTileBytes<Format> + 2 * kTokenTiles * 8 * Format::kTileK * 2;
template <class Format, int kTokenTiles>
constexpr int kDepth = kStageBytes<Format, kTokenTiles> > (32 << 10) ? 3 : 4;

// The operands of run j, in full: what is scaled is unpacked in f32 and rounded once.
template <class Format>
__device__ __forceinline__ void LoadScaledOperands(const uint4* tile, int lane, int j, uint32_t (&a)[2][4]) {
  LoadOperands<Format>(tile, lane, j, a);
  if constexpr (WeightTile<Format>::kScaled) {
    GPU_UNROLL
    for (int h = 0; h < 2; ++h) {
      const float2 scale = WeightTile<Format>::Scale(tile, lane, j, h);
      GPU_UNROLL
      for (int s = 0; s < 2; ++s) {
        GPU_UNROLL
        for (int i = h; i < 4; i += 2) {
          a[s][i] = PackBf16(__uint_as_float(a[s][i] << 16) * scale.x + scale.y,
                             __uint_as_float(a[s][i] & 0xffff0000u) * scale.x + scale.y);
        }
      }
    }
  }
}

// Which part of the product a launch makes: `splits` times `tiles_per_split` tiles of columns, part s to y.data + s *
// split_bytes.
struct Split {
  int64_t bytes;
  int k_tiles, tiles_per_split;
};

template <class Format, int kTokenTiles>
__global__ void __launch_bounds__(kThreads)
    GemmTensorKernel(WeightRef w, MatrixRef x, const float* bias, MatrixRef y, Split split) {
  using Half = typename WeightTile<Format>::Half;
  constexpr int kAhead = kDepth<Format, kTokenTiles>;
  constexpr int kTileVectors = kTileBytes<Format> / 16;
  constexpr int kBlockTiles = 2 * kTokenTiles, kBlockTokens = kBlockTiles * 8;
  constexpr int kStageVectors = kStageBytes<Format, kTokenTiles> / 16;
  auto* shared = DynamicShared<uint4>();
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t first_token = static_cast<int64_t>(blockIdx.x) * kBlockTokens;
  const int64_t first_tile = static_cast<int64_t>(blockIdx.y) * kRowTiles;
  const int begin = static_cast<int>(blockIdx.z) * split.tiles_per_split;
  const int end = begin + split.tiles_per_split < split.k_tiles ? begin + split.tiles_per_split : split.k_tiles;

  const WeightTile<Format> tile(w, first_tile + warp, lane);  // what this warp copies
  const auto copy_weights = [&](int k_tile, uint4* stage) {
    if (k_tile < end) tile.Copy(k_tile, lane, stage + warp * kTileVectors);
  };
  const auto copy_x = [&](int k_tile, uint4* stage) {
    if (k_tile >= end) return;
    GPU_UNROLL
    for (int n = 0; n < kBlockTiles; n += kWarps) {
      if (n + warp >= kBlockTiles) continue;
      const int64_t token = first_token + (n + warp) * 8 + lane / 4;
      const auto* row = static_cast<const uint16_t*>(x.data) + (token < x.rows ? token : 0) * x.stride;
      GPU_UNROLL
      for (int j = 0; j < Format::kRuns; ++j) {
        const int64_t column = static_cast<int64_t>(k_tile) * Format::kTileK + Format::Column(j, lane % 4);
        const bool valid = column < x.cols && token < x.rows;
        CopyAsync16(stage + kRowTiles * kTileVectors + ((n + warp) * Format::kRuns + j) * 32 + lane,
                    row + (valid ? column : 0), valid);
      }
    }
  };

  GPU_UNROLL
  for (int i = 0; i < kAhead - 1; ++i) copy_weights(begin + i, shared + i * kStageVectors);
  WaitForPrevious();
  StartNext();
  GPU_UNROLL
  for (int i = 0; i < kAhead - 1; ++i) {
    copy_x(begin + i, shared + i * kStageVectors);
    CommitCopies();
  }

  const int warp_row = warp % 4 * kWarpRowTiles, warp_token = warp / 4 * kTokenTiles;
  float sum[kWarpRowTiles][kTokenTiles][4] = {};
  int stage_index = 0, next_index = kAhead - 1;
  for (int k_tile = begin; k_tile < end; ++k_tile) {
    WaitCopies<kAhead - 2>();
    __syncthreads();
    uint4* next = shared + next_index * kStageVectors;
    copy_weights(k_tile + kAhead - 1, next);
    copy_x(k_tile + kAhead - 1, next);
    CommitCopies();
    const uint4* stage = shared + stage_index * kStageVectors;
    stage_index = stage_index + 1 == kAhead ? 0 : stage_index + 1;
    next_index = next_index + 1 == kAhead ? 0 : next_index + 1;
    GPU_UNROLL
    for (int j = 0; j < Format::kRuns; ++j) {
      uint32_t a[kWarpRowTiles][2][4];
      GPU_UNROLL
      for (int r = 0; r < kWarpRowTiles; ++r) {
        LoadScaledOperands<Format>(stage + (warp_row + r) * kTileVectors, lane, j, a[r]);
      }
      GPU_UNROLL
      for (int n = 0; n < kTokenTiles; ++n) {
        uint32_t b[2][2];
        SplitOperand(stage[kRowTiles * kTileVectors + ((warp_token + n) * Format::kRuns + j) * 32 + lane], b);
        GPU_UNROLL
        for (int s = 0; s < 2; ++s) {
          GPU_UNROLL
          for (int r = 0; r < kWarpRowTiles; ++r) Mma(sum[r][n], a[r][s], b[s], Half{});
        }
      }
    }
  }

  WaitCopies<0>();
  __syncthreads();
  auto* results = DynamicShared<float>();  // [token, row], where the tiles were
  GPU_UNROLL
  for (int r = 0; r < kWarpRowTiles; ++r) {
    GPU_UNROLL
    for (int n = 0; n < kTokenTiles; ++n) {
      GPU_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int token = (warp_token + n) * 8 + 2 * (lane % 4) + i % 2;
        results[token * kPitch + (warp_row + r) * kTileRows + lane / 4 + 8 * (i / 2)] = sum[r][n][i];
      }
    }
  }
  __syncthreads();
  y.data = static_cast<uint8_t*>(y.data) + blockIdx.z * split.bytes;
  for (int i = static_cast<int>(threadIdx.x); i < kBlockTokens * kRows / 8; i += kThreads) {
    const int64_t token = first_token + i / (kRows / 8), row = first_tile * kTileRows + i % (kRows / 8) * 8;
    if (token >= y.rows || row >= y.cols) continue;
    float out[8];
    LoadElements(results + i / (kRows / 8) * kPitch + i % (kRows / 8) * 8, out);
    GPU_UNROLL
    for (int e = 0; e < 8; ++e) {
      if (bias != nullptr && row + e < y.cols) out[e] += bias[row + e];
    }
    Store8(y, token, row, out);
  }
}

// Whether it launched: false where a block would take more shared memory than the card has.
template <class Format, int kTokenTiles>
bool LaunchGemm(const WeightRef& w, const MatrixRef& x, const float* bias, const MatrixRef& y, int splits,
                int64_t split_bytes, const Queue& queue) {
  constexpr int kBlockTokens = 2 * kTokenTiles * 8;
  constexpr int kRing = kDepth<Format, kTokenTiles> * kStageBytes<Format, kTokenTiles>;
  constexpr int kResults = kBlockTokens * kPitch * 4;
  constexpr int kShared = kRing > kResults ? kRing : kResults;
  static_assert(kTokenTiles > 4 || kShared <= kLeastSharedLimit, "narrow blocks fit every card");
  if (kShared > SharedLimit(queue)) return false;
  const auto k_tiles = static_cast<int>(CeilDiv(w.cols, Format::kTileK));
  const Split split{split_bytes, k_tiles, static_cast<int>(CeilDiv(k_tiles, splits))};
  const dim3 grid(static_cast<unsigned>(CeilDiv(x.rows, kBlockTokens)), static_cast<unsigned>(CeilDiv(w.rows, kRows)),
                  static_cast<unsigned>(splits));
  Launch(GemmTensorKernel<Format, kTokenTiles>, grid, dim3(kThreads), static_cast<size_t>(kShared), queue.stream, w, x,
         bias, y, split);
  return true;
}

bool IsNarrow(int64_t m) {
  return m <= 64;
}

}  // namespace

int GemmTensorSplits(const WeightSpec& spec, int64_t m, const Queue& queue) {
  const int64_t blocks = CeilDiv(spec.rows, kRows) * CeilDiv(m, IsNarrow(m) ? 64 : 128);
  // Enough blocks for every processor to have one, two where they are small; parts of at least 512 columns.
  const int64_t wanted = queue.processors * (IsNarrow(m) ? 2 : 1) / blocks;
  const int64_t most = spec.cols / 512 < kMostSplits ? spec.cols / 512 : kMostSplits;
  return static_cast<int>(wanted < 1 || most < 1 ? 1 : wanted < most ? wanted : most);
}

void GemmTensor(const WeightSpec& spec, const WeightRef& w, const MatrixRef& x, const float* bias, const MatrixRef& y,
                int splits, int64_t split_bytes, const Queue& queue) {
  WithTensorFormat(spec.dtype, [&](auto format) {
    using Format = decltype(format);
    if (!IsNarrow(x.rows) && LaunchGemm<Format, 8>(w, x, bias, y, splits, split_bytes, queue)) return;
    static_cast<void>(LaunchGemm<Format, 4>(w, x, bias, y, splits, split_bytes, queue));
  });
}

}  // namespace assay::gpu

#endif  // GPU_HAS_SM80
