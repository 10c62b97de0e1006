// SPDX-License-Identifier: Apache-2.0
// y [M, N] = x [M, K] * w [N, K]^T + bias for many rows of x, everywhere and in f32: weights of any dtype are converted
// exactly, nothing is rounded. Limited by the f32 rate. Blocks of 64 x 64 results, 4 x 4 a thread, columns in steps of
// 32 through shared memory: 16 multiplications for 8 words that it reads there.
// For weights in f32, and for cards without tensor cores or a library; gemm_lt.h and gemm_sm80.cu are the fast ones.
#include "kernels/cuda/linear_kernels.h"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 64;  // rows of x and of w in a block
constexpr int kStep = 32;  // columns
constexpr int kEdge = 4;   // results of a thread in each direction
constexpr int kPitch = kTile + kEdge;

// [column][row], so that a thread reads its 4 rows as a vector.
__device__ __forceinline__ void Put(float (*tile)[kPitch], int row, int run, const float (&x)[8]) {
  GPU_UNROLL
  for (int i = 0; i < 8; ++i) tile[run * 8 + i][row] = x[i];
}

template <class Format>
__global__ void __launch_bounds__(kThreads)
    GemmKernel(WeightRef w, MatrixRef x, const float* bias, MatrixRef y, int64_t x_tiles) {
  __shared__ __align__(16) float x_tile[kStep][kPitch];
  __shared__ __align__(16) float w_tile[kStep][kPitch];
  WaitForPrevious();
  StartNext();
  const int64_t x_first = blockIdx.x % x_tiles * kTile, w_first = blockIdx.x / x_tiles * kTile;
  const int thread = static_cast<int>(threadIdx.x);
  const int load_row = thread % kTile, load_run = thread / kTile;  // what it brings to shared memory
  const int x_at = thread % 16 * kEdge, w_at = thread / 16 * kEdge;

  float sum[kEdge][kEdge] = {};
  for (int64_t k = 0; k < w.cols; k += kStep) {
    float from_x[8] = {}, from_w[8] = {};
    const int64_t column = k + load_run * 8;
    if (column < w.cols && x_first + load_row < x.rows) Load8(x, x_first + load_row, column, from_x);
    if (column < w.cols && w_first + load_row < w.rows) Format::Load8(w, w_first + load_row, column, from_w);
    __syncthreads();
    Put(x_tile, load_row, load_run, from_x);
    Put(w_tile, load_row, load_run, from_w);
    __syncthreads();
    GPU_UNROLL
    for (int c = 0; c < kStep; ++c) {
      const float4 a = *reinterpret_cast<const float4*>(&x_tile[c][x_at]);
      const float4 b = *reinterpret_cast<const float4*>(&w_tile[c][w_at]);
      const float xs[kEdge] = {a.x, a.y, a.z, a.w}, ws[kEdge] = {b.x, b.y, b.z, b.w};
      GPU_UNROLL
      for (int i = 0; i < kEdge; ++i) {
        GPU_UNROLL
        for (int j = 0; j < kEdge; ++j) sum[i][j] += xs[i] * ws[j];
      }
    }
  }
  GPU_UNROLL
  for (int i = 0; i < kEdge; ++i) {
    GPU_UNROLL
    for (int j = 0; j < kEdge; ++j) {
      const int64_t m = x_first + x_at + i, n = w_first + w_at + j;
      if (m < x.rows && n < w.rows) StoreElement(y, m, n, sum[i][j] + (bias != nullptr ? bias[n] : 0.0f));
    }
  }
}

}  // namespace

void Gemm(const WeightSpec& spec, const WeightRef& w, const MatrixRef& x, const float* bias, const MatrixRef& y,
          const Queue& queue) {
  WithFormat(spec.dtype, [&](auto format) {
    const int64_t x_tiles = CeilDiv(x.rows, kTile), w_tiles = CeilDiv(w.rows, kTile);
    Launch(GemmKernel<decltype(format)>, dim3(static_cast<unsigned>(x_tiles * w_tiles)), dim3(kThreads), 0,
           queue.stream, w, x, bias, y, x_tiles);
  });
}

}  // namespace assay::gpu
