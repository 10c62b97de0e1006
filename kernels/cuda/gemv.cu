// SPDX-License-Identifier: Apache-2.0
// y [M, N] = x [M, K] * w [N, K]^T + bias for few rows of x, everywhere and in f32: the weights are converted exactly,
// nothing is rounded. Limited by bandwidth: the weight is read once, 16 bytes a lane, each lane kAhead tiles ahead of
// what it multiplies, the first of them before the previous kernel has ended.
// A block has one tile of 16 rows; its 8 teams of 32 lanes take every eighth tile of columns, so that a block reads one
// contiguous stretch and 2048 rows already make 128 blocks. x goes through shared memory, as f32, kSharedFloats at a
// time. Sums of the teams meet in shared memory, in a fixed order.
// Where tensor cores are, gemv_sm80.cu takes what 16 bits suffice for. Not yet measured on a card.
#include "kernels/cuda/linear_kernels.h"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kTeam = 32;
constexpr int kTeams = kThreads / kTeam;
constexpr int kSharedFloats = 8192;  // 1024 columns of 8 rows; whole tiles for every team

// Columns [first, first + columns) of x to shared memory, [row, column].
__device__ void Stage(const MatrixRef& x, int64_t first, int columns, float* shared) {
  const int runs = columns / 8;
  for (int i = static_cast<int>(threadIdx.x); i < static_cast<int>(x.rows) * runs; i += kThreads) {
    float values[8] = {};
    const int64_t k = first + i % runs * 8;
    if (k < x.cols) Load8(x, i / runs, k, values);
    StoreElements(shared + i * 8, values);
  }
}

// sum[h][m] += the tile's rows g + 8 * h times x; x: the tile's first column in shared memory.
template <class Format>
__device__ __forceinline__ void Multiply(const typename Format::Raw& raw, int t, const float* x, int x_pitch, int rows,
                                         float (&sum)[2][kGemvRows]) {
  GPU_UNROLL
  for (int j = 0; j < Format::kRuns; ++j) {
    float weights[2][8];
    Format::Run(raw, j, 0, weights[0]);
    Format::Run(raw, j, 1, weights[1]);
    GPU_UNROLL
    for (int m = 0; m < kGemvRows; ++m) {
      if (m >= rows) break;
      float values[8];
      LoadElements(x + m * x_pitch + Format::Column(j, t), values);
      GPU_UNROLL
      for (int e = 0; e < 8; ++e) {
        sum[0][m] += weights[0][e] * values[e];
        sum[1][m] += weights[1][e] * values[e];
      }
    }
  }
}

template <class Format>
__global__ void __launch_bounds__(kThreads)
    GemvKernel(WeightRef w, MatrixRef x, const float* bias, MatrixRef y, int k_tiles, int chunk) {
  constexpr int kAhead = Format::kVectors == 1 ? 2 : 1;
  __shared__ __align__(16) float sums[kTeams][kTileRows][kGemvRows];
  auto* shared = DynamicShared<float>();
  const int team = static_cast<int>(threadIdx.x) / kTeam, lane = static_cast<int>(threadIdx.x) % kTeam;
  const int g = lane / 4, t = lane % 4;
  const int64_t row_tile = blockIdx.x;
  const int rows = static_cast<int>(x.rows);

  typename Format::Raw raw[kAhead] = {};
  GPU_UNROLL
  for (int i = 0; i < kAhead; ++i) {
    if (team + i * kTeams < k_tiles) Format::Load(w, row_tile, team + i * kTeams, g, t, &raw[i]);
  }
  WaitForPrevious();
  StartNext();

  float sum[2][kGemvRows] = {};
  for (int first = 0; first < k_tiles;
       first += chunk) {  // chunk: tiles in shared memory, a multiple of kAhead * kTeams
    const int last = first + chunk < k_tiles ? first + chunk : k_tiles;
    __syncthreads();
    Stage(x, static_cast<int64_t>(first) * Format::kTileK, (last - first) * Format::kTileK, shared);
    __syncthreads();
    const int pitch = (last - first) * Format::kTileK;
    for (int base = first + team; base < last; base += kAhead * kTeams) {
      GPU_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        const int k_tile = base + i * kTeams, next = k_tile + kAhead * kTeams;
        if (k_tile >= last) break;
        const typename Format::Raw tile = raw[i];
        if (next < k_tiles) Format::Load(w, row_tile, next, g, t, &raw[i]);
        Multiply<Format>(tile, t, shared + (k_tile - first) * Format::kTileK, pitch, rows, sum);
      }
    }
  }

  GPU_UNROLL
  for (int h = 0; h < 2; ++h) {
    GPU_UNROLL
    for (int m = 0; m < kGemvRows; ++m) {
      float part = sum[h][m];
      part += ShuffleXor(part, 1, 4);
      part += ShuffleXor(part, 2, 4);
      if (t == 0) sums[team][g + 8 * h][m] = part;
    }
  }
  __syncthreads();
  const int m = static_cast<int>(threadIdx.x) / kTileRows, r = static_cast<int>(threadIdx.x) % kTileRows;
  const int64_t row = row_tile * kTileRows + r;
  if (m >= rows || row >= w.rows) return;
  float total = bias != nullptr ? bias[row] : 0.0f;
  GPU_UNROLL
  for (int i = 0; i < kTeams; ++i) total += sums[i][r][m];
  StoreElement(y, m, row, total);
}

}  // namespace

void Gemv(const WeightSpec& spec, const WeightRef& w, const MatrixRef& x, const float* bias, const MatrixRef& y,
          const Queue& queue) {
  WithFormat(spec.dtype, [&](auto format) {
    using Format = decltype(format);
    const auto k_tiles = static_cast<int>(CeilDiv(w.cols, Format::kTileK));
    int64_t rows = 1;
    while (rows < x.rows) rows *= 2;
    const auto chunk = static_cast<int>(kSharedFloats / rows / Format::kTileK);
    const int64_t floats = x.rows * Format::kTileK * (chunk < k_tiles ? chunk : k_tiles);
    Launch(GemvKernel<Format>, dim3(static_cast<unsigned>(w.padded_rows / kTileRows)), dim3(kThreads),
           static_cast<size_t>(floats) * sizeof(float), queue.stream, w, x, bias, y, k_tiles, chunk);
  });
}

}  // namespace assay::gpu
