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

// To nearest, ties to even; |x| <= 127 but for rounding, of which adding and taking 1.5 * 2^23 rids it. NaN gives
// whatever: its row's scale is NaN.
__device__ __forceinline__ uint32_t ToInt8(float x) {
  return __float_as_uint(x + 12582912.0f) & 255u;
}

// A row is the work of a block, which reads it twice: the second time from the cache.
__global__ void __launch_bounds__(kThreads)
    QuantizeWholeKernel(MatrixRef x, bool int8, uint8_t* quants, int64_t stride, float* scales) {
  __shared__ float scratch[kThreads / kWarp];
  WaitForPrevious();
  StartNext();
  const int64_t row = blockIdx.x;
  float largest = 0, other = 0;  // `other`: NaN, if there is one in the row
  for (int64_t k = threadIdx.x * 8; k < x.cols; k += kThreads * 8) {
    float values[8];
    Load8(x, row, k, values);
    GPU_UNROLL
    for (int e = 0; e < 8; ++e) {
      largest = fmaxf(largest, fabsf(values[e]));
      other += values[e] * 0.0f;  // infinite values, too, have no scale
    }
  }
  largest = BlockMax<kThreads>(largest, scratch);
  other = BlockSum<kThreads>(other, scratch);
  const float limit = int8 ? 127.0f : 448.0f;
  const float scale = fmaxf(largest, 0x1p-100f) / limit, inverse = 1.0f / scale;
  for (int64_t k = threadIdx.x * 8; k < stride; k += kThreads * 8) {
    float values[8] = {};
    if (k < x.cols) Load8(x, row, k, values);
    uint32_t words[2] = {0, 0};
    GPU_UNROLL
    for (int e = 0; e < 8; ++e) {
      const float v = values[e] * inverse;
      words[e / 4] |= (int8 ? ToInt8(v) : FromFloat<E4m3>(v).bits) << 8 * (e % 4);
    }
    *reinterpret_cast<uint2*>(quants + row * stride + k) = make_uint2(words[0], words[1]);
  }
  if (threadIdx.x == 0) scales[row] = scale + other;
}

template <class Sum>
__global__ void __launch_bounds__(kThreads)
    FinishScaledKernel(const Sum* sums, int64_t stride, const float* x_scales, const float* w_scales, const float* bias,
                       MatrixRef y, int64_t runs) {
  WaitForPrevious();
  StartNext();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t row = i / runs, n = i % runs * 8;
  if (row >= y.rows) return;
  const float x_scale = x_scales[row];
  float out[8] = {};
  GPU_UNROLL
  for (int e = 0; e < 8; ++e) {
    if (n + e >= y.cols) break;
    out[e] = static_cast<float>(sums[row * stride + n + e]) * x_scale * w_scales[n + e];
    if (bias != nullptr) out[e] += bias[n + e];
  }
  Store8(y, row, n, out);
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

void QuantizeWholeRows(const MatrixRef& x, DType dtype, uint8_t* quants, int64_t stride, float* scales,
                       const Queue& queue) {
  Launch(QuantizeWholeKernel, dim3(static_cast<unsigned>(x.rows)), dim3(kThreads), 0, queue.stream, x,
         dtype == DType::kI8, quants, stride, scales);
}

void FinishScaledRows(const void* sums, DType dtype, int64_t stride, const float* x_scales, const float* w_scales,
                      const float* bias, const MatrixRef& y, const Queue& queue) {
  const int64_t runs = CeilDiv(y.cols, 8);
  const auto finish = [&](auto sum) {
    using Sum = decltype(sum);
    Launch(FinishScaledKernel<Sum>, dim3(Blocks(y.rows * runs)), dim3(kThreads), 0, queue.stream,
           static_cast<const Sum*>(sums), stride, x_scales, w_scales, bias, y, runs);
  };
  if (dtype == DType::kI32) {
    finish(int32_t{});
  } else {
    finish(float{});
  }
}

void UnpackRows(const WeightSpec& spec, const WeightRef& w, int64_t begin, const MatrixRef& to, const Queue& queue) {
  const int64_t runs = CeilDiv(to.cols, 8);
  WithFormat(spec.dtype, [&](auto format) {
    Launch(UnpackKernel<decltype(format)>, dim3(Blocks(to.rows * runs)), dim3(kThreads), 0, queue.stream, w, begin, to,
           runs);
  });
}

}  // namespace assay::gpu
