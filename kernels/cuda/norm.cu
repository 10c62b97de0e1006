// SPDX-License-Identifier: Apache-2.0
// rms_norm and add_rms_norm.
// Shapes: x, y [R, C] or [R, G, C], strided in all but the last dimension; w [C]. Bytes: x read and y written once (and
// residual read and written once), so memory bandwidth is the limit; of a decode step, where a row or a few are all
// there is, the latency of one load and two barriers. Hence a row stays in registers between its sum and its result,
// all its loads are made before the first is used, and weights, which no kernel writes, are loaded before the
// predecessor has ended. Rows of at most 32 vectors (heads) belong to 32 lanes, eight rows to a block; longer ones to a
// block. What fits neither, or is not aligned, is read twice, element by element. Not yet measured on a card.
#include "kernels/cuda/numeric.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/reduce.h"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kGroup = 32;  // lanes of a short row

// Rows of a tensor of 2 or 3 dimensions, counted through.
struct NormRows {
  void* data;
  int64_t row_stride, group_stride;

  template <class T>
  __device__ __forceinline__ T* At(uint32_t row, uint32_t group) const {
    return static_cast<T*>(data) + row * row_stride + group * group_stride;
  }
};
struct NormArgs {
  NormRows x, residual, y;
  const float* w;
  uint32_t rows, groups;  // rows: all of them, groups of them share an index of dimension 0
  int cols;
  float eps;
};

__device__ __forceinline__ float Scale(float squares, const NormArgs& a) {
  return 1.0f / sqrtf(squares / static_cast<float>(a.cols) + a.eps);
}

// The sum over the threads of a row.
template <int kLanes>
__device__ __forceinline__ float RowSum(float value, float* scratch) {
  if constexpr (kLanes == kThreads) {
    return BlockSum<kThreads>(value, scratch);
  } else {
    return GroupSum<kLanes>(value);
  }
}

// kLanes threads have a row, vectors lane, lane + kLanes, ... of it in registers: at most kVectors each.
template <class T, bool kAdd, int kLanes, int kVectors>
__global__ void __launch_bounds__(kThreads) NormVectors(NormArgs a) {
  constexpr int kEach = kVector<T>;
  constexpr bool kEarlyWeights = kVectors <= 2;  // more would take too many registers
  __shared__ float scratch[kThreads / kWarp];
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  float w[kEarlyWeights ? kVectors : 1][kEach];
  if constexpr (kEarlyWeights) {
    GPU_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      const int col = (lane + i * kLanes) * kEach;
      if (col < a.cols) LoadElements(a.w + col, w[i]);
    }
  }
  WaitForPrevious();
  StartNext();

  const uint32_t at = blockIdx.x * (kThreads / kLanes) + threadIdx.x / kLanes;
  const bool inside = at < a.rows;  // the others stay for the shuffles
  const uint32_t row = at / a.groups, group = at % a.groups;
  const T* x = a.x.At<const T>(row, group);
  T* residual = a.residual.At<T>(row, group);
  uint4 raw[kVectors] = {}, other[kAdd ? kVectors : 1] = {};
  GPU_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const int col = (lane + i * kLanes) * kEach;
    if (!inside || col >= a.cols) continue;
    raw[i] = LoadVector(x + col);
    if constexpr (kAdd) other[i] = LoadVector(residual + col);
  }
  float squares = 0;
  GPU_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const int col = (lane + i * kLanes) * kEach;
    if (!inside || col >= a.cols) continue;
    float v[kEach];
    Unpack<T>(raw[i], v);
    if constexpr (kAdd) {
      float add[kEach];
      Unpack<T>(other[i], add);
      GPU_UNROLL
      for (int j = 0; j < kEach; ++j) v[j] += add[j];
      raw[i] = Pack<T>(v);
      StoreVector(residual + col, raw[i]);
      Unpack<T>(raw[i], v);  // the norm is that of the rounded sum
    }
    GPU_UNROLL
    for (int j = 0; j < kEach; ++j) squares += v[j] * v[j];
  }
  const float scale = Scale(RowSum<kLanes>(squares, scratch), a);
  T* y = a.y.At<T>(row, group);
  GPU_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const int col = (lane + i * kLanes) * kEach;
    if (!inside || col >= a.cols) continue;
    float v[kEach];
    Unpack<T>(raw[i], v);
    float late[kEach];
    if constexpr (!kEarlyWeights) LoadElements(a.w + col, late);
    GPU_UNROLL
    for (int j = 0; j < kEach; ++j) v[j] *= scale * (kEarlyWeights ? w[kEarlyWeights ? i : 0][j] : late[j]);
    StoreVector(y + col, Pack<T>(v));
  }
}

// Any row; a block each, which reads it twice.
template <class T, bool kAdd>
__global__ void __launch_bounds__(kThreads) NormElements(NormArgs a) {
  WaitForPrevious();
  StartNext();
  __shared__ float scratch[kThreads / kWarp];
  const uint32_t row = blockIdx.x / a.groups, group = blockIdx.x % a.groups;
  const T* x = a.x.At<const T>(row, group);
  T* residual = a.residual.At<T>(row, group);
  float squares = 0;
  for (int col = static_cast<int>(threadIdx.x); col < a.cols; col += kThreads) {
    float v = ToFloat(x[col]);
    if constexpr (kAdd) {
      const T sum = FromFloat<T>(v + ToFloat(residual[col]));
      residual[col] = sum;
      v = ToFloat(sum);
    }
    squares += v * v;
  }
  const float scale = Scale(RowSum<kThreads>(squares, scratch), a);
  T* y = a.y.At<T>(row, group);
  for (int col = static_cast<int>(threadIdx.x); col < a.cols; col += kThreads) {
    const float v = ToFloat(kAdd ? residual[col] : x[col]);  // what this thread has read or written before
    y[col] = FromFloat<T>(v * (scale * a.w[col]));
  }
}

template <class T, bool kAdd, int kLanes, int kVectors>
void LaunchVectors(const NormArgs& a, const Queue& queue) {
  const auto blocks = static_cast<unsigned>(CeilDiv(a.rows, kThreads / kLanes));
  Launch(NormVectors<T, kAdd, kLanes, kVectors>, blocks, kThreads, 0, queue.stream, a);
}

template <class T, bool kAdd>
void LaunchNorm(const NormArgs& a, bool vectors, const Queue& queue) {
  constexpr int kEach = kVector<T>;
  if (vectors && a.cols <= kGroup * kEach) {
    LaunchVectors<T, kAdd, kGroup, 1>(a, queue);
  } else if (vectors && a.cols <= kThreads * kEach) {
    LaunchVectors<T, kAdd, kThreads, 1>(a, queue);
  } else if (vectors && a.cols <= kThreads * 2 * kEach) {
    LaunchVectors<T, kAdd, kThreads, 2>(a, queue);
  } else if (vectors && a.cols <= kThreads * 8 * kEach) {
    LaunchVectors<T, kAdd, kThreads, 8>(a, queue);
  } else {
    Launch(NormElements<T, kAdd>, a.rows, kThreads, 0, queue.stream, a);
  }
}

NormRows RowsOf(const View& v) {
  return {v.data, v.stride[0], v.ndim == 3 ? v.stride[1] : 0};
}

template <bool kAdd>
void Norm(const View& x, const View& w, const View& residual, const View& y, float eps, const Queue& queue) {
  const int64_t groups = x.ndim == 3 ? x.shape[1] : 1;
  const int64_t rows = x.shape[0] * groups, cols = x.shape[x.ndim - 1];
  if (rows == 0 || cols == 0) return;
  const NormArgs args = {RowsOf(x),
                         RowsOf(residual),
                         RowsOf(y),
                         w.as<const float>(),
                         static_cast<uint32_t>(rows),
                         static_cast<uint32_t>(groups),
                         static_cast<int>(cols),
                         eps};
  const bool vectors = HasVectorRows(x) && HasVectorRows(residual) && HasVectorRows(y) && HasVectorRows(w);
  WithElement(x.dtype, [&](auto element) { LaunchNorm<decltype(element), kAdd>(args, vectors, queue); });
}

}  // namespace

void RmsNorm(const View& x, const View& w, const View& y, float eps, const Queue& queue) {
  Norm<false>(x, w, View{}, y, eps, queue);
}

void AddRmsNorm(const View& x, const View& w, const View& residual, const View& y, float eps, const Queue& queue) {
  Norm<true>(x, w, residual, y, eps, queue);
}

}  // namespace assay::gpu
