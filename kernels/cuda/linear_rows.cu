// SPDX-License-Identifier: Apache-2.0
// What stands before and behind a product when the kernel that makes it wants x, or gives y, in another form. Rows are
// read and written once, by vectors of 8 columns a thread; limited by bandwidth. Not yet measured on a card.
#include "kernels/cuda/linear_kernels.h"
#include "kernels/cuda/reduce.h"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) ConvertKernel(MatrixRef x, MatrixRef to, int64_t runs) {
  WaitForPrevious();
  StartNext();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t row = i / runs, k = i % runs * 8;
  if (row >= x.rows) return;
  float values[8];
  Load8(x, row, k, values);
  Store8(to, row, k, values);
}

__global__ void __launch_bounds__(kThreads)
    FinishKernel(const float* parts, int splits, int64_t stride, const float* bias, MatrixRef y, int64_t runs) {
  WaitForPrevious();
  StartNext();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t row = i / runs, n = i % runs * 8;
  if (row >= y.rows) return;
  float sum[8] = {};
  for (int s = 0; s < splits; ++s) {
    float part[8];
    LoadElements(parts + (s * y.rows + row) * stride + n, part);
    GPU_UNROLL
    for (int e = 0; e < 8; ++e) sum[e] += part[e];
  }
  GPU_UNROLL
  for (int e = 0; e < 8; ++e) {
    if (bias != nullptr && n + e < y.cols) sum[e] += bias[n + e];
  }
  Store8(y, row, n, sum);
}

// A group of 128 columns is the work of 16 lanes.
__global__ void __launch_bounds__(kThreads)
    QuantizeKernel(MatrixRef x, uint8_t* quants, float* scales, int64_t rows, int64_t groups) {
  constexpr int kLanes = 16;
  WaitForPrevious();
  StartNext();
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int64_t row = i / groups, group = i % groups, k = group * 128 + lane * 8;
  float values[8] = {};
  if (row < x.rows) Load8(x, row, k, values);
  float largest = 0;
  GPU_UNROLL
  for (int e = 0; e < 8; ++e) largest = fmaxf(largest, fabsf(values[e]));
  largest = GroupMax<kLanes>(largest);
  if (row >= rows) return;
  const float scale = largest > 0 ? largest * (1.0f / 448.0f) : 1.0f, inverse = 1.0f / scale;
  GPU_UNROLL
  for (float& value : values) value *= inverse;
  StoreElements(reinterpret_cast<E4m3*>(quants + row * x.cols + k), values);
  if (lane == 0) scales[group * rows + row] = scale;
}

template <class Format>
__global__ void __launch_bounds__(kThreads) UnpackKernel(WeightRef w, int64_t begin, MatrixRef to, int64_t runs) {
  WaitForPrevious();
  StartNext();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t row = i / runs, k = i % runs * 8;
  if (row >= to.rows) return;
  float values[8];
  Format::Load8(w, begin + row, k, values);
  Store8(to, row, k, values);
}

unsigned Blocks(int64_t threads) {
  return static_cast<unsigned>(CeilDiv(threads, kThreads));
}

}  // namespace

void ConvertRows(const MatrixRef& x, const MatrixRef& to, const Queue& queue) {
  const int64_t runs = to.stride / 8;
  MatrixRef padded = to;
  padded.cols = to.stride;
  Launch(ConvertKernel, dim3(Blocks(x.rows * runs)), dim3(kThreads), 0, queue.stream, x, padded, runs);
}

void FinishRows(const float* parts, int splits, int64_t stride, const float* bias, const MatrixRef& y,
                const Queue& queue) {
  const int64_t runs = CeilDiv(y.cols, 8);
  Launch(FinishKernel, dim3(Blocks(y.rows * runs)), dim3(kThreads), 0, queue.stream, parts, splits, stride, bias, y,
         runs);
}

void QuantizeRows(const MatrixRef& x, uint8_t* quants, float* scales, int64_t rows, const Queue& queue) {
  const int64_t groups = x.cols / 128;
  Launch(QuantizeKernel, dim3(Blocks(rows * groups * 16)), dim3(kThreads), 0, queue.stream, x, quants, scales, rows,
         groups);
}

void UnpackRows(const WeightSpec& spec, const WeightRef& w, int64_t begin, const MatrixRef& to, const Queue& queue) {
  const int64_t runs = CeilDiv(to.cols, 8);
  WithFormat(spec.dtype, [&](auto format) {
    Launch(UnpackKernel<decltype(format)>, dim3(Blocks(to.rows * runs)), dim3(kThreads), 0, queue.stream, w, begin, to,
           runs);
  });
}

}  // namespace assay::gpu
