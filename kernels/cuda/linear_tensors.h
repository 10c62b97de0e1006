// SPDX-License-Identifier: Apache-2.0
// x, bias and y of a linear as kernels get them, in any dtype of activations. The dtype is looked at when an element
// moves: that costs a uniform branch for 8 elements, and spares a kernel for each combination.
// Plain data and device functions, any thread; owns nothing.
#pragma once

#include "kernels/cuda/numeric.h"

namespace assay::gpu {

struct MatrixRef {
  void* data;
  DType dtype;   // F32, BF16, F16
  bool vectors;  // rows begin 16-byte aligned
  int64_t rows, cols;
  int64_t stride;  // elements, from row to row
};

inline MatrixRef MatrixOf(const View& v) {
  MatrixRef m{v.data, v.dtype, false, v.shape[0], v.shape[1], v.stride[0]};
  m.vectors =
      reinterpret_cast<uintptr_t>(v.data) % 16 == 0 && (m.rows <= 1 || m.stride * ElementBytes(v.dtype) % 16 == 0);
  return m;
}

inline MatrixRef RowsOf(const MatrixRef& m, int64_t begin, int64_t count) {
  MatrixRef part = m;
  part.data = static_cast<uint8_t*>(m.data) + begin * m.stride * ElementBytes(m.dtype);
  part.rows = count;
  return part;
}

template <class T>
__device__ __forceinline__ void Load8As(const MatrixRef& x, int64_t row, int64_t k, float (&out)[8]) {
  const T* from = static_cast<const T*>(x.data) + row * x.stride + k;
  if (x.vectors && k + 8 <= x.cols) {
    LoadElements(from, out);
    return;
  }
  GPU_UNROLL
  for (int i = 0; i < 8; ++i) out[i] = k + i < x.cols ? ToFloat(from[i]) : 0.0f;
}
// 8 columns from k on (a multiple of 8) of a row; zeros beyond the last column.
__device__ __forceinline__ void Load8(const MatrixRef& x, int64_t row, int64_t k, float (&out)[8]) {
  if (x.dtype == DType::kBF16) {
    Load8As<Bf16>(x, row, k, out);
  } else if (x.dtype == DType::kF16) {
    Load8As<F16>(x, row, k, out);
  } else {
    Load8As<float>(x, row, k, out);
  }
}

template <class T>
__device__ __forceinline__ void Store8As(const MatrixRef& y, int64_t row, int64_t k, const float (&x)[8]) {
  T* to = static_cast<T*>(y.data) + row * y.stride + k;
  if (y.vectors && k + 8 <= y.cols) {
    StoreElements(to, x);
    return;
  }
  GPU_UNROLL
  for (int i = 0; i < 8; ++i) {
    if (k + i < y.cols) to[i] = FromFloat<T>(x[i]);
  }
}
__device__ __forceinline__ void Store8(const MatrixRef& y, int64_t row, int64_t k, const float (&x)[8]) {
  if (y.dtype == DType::kBF16) {
    Store8As<Bf16>(y, row, k, x);
  } else if (y.dtype == DType::kF16) {
    Store8As<F16>(y, row, k, x);
  } else {
    Store8As<float>(y, row, k, x);
  }
}

__device__ __forceinline__ void StoreElement(const MatrixRef& y, int64_t row, int64_t k, float x) {
  const int64_t at = row * y.stride + k;
  if (y.dtype == DType::kBF16) {
    static_cast<Bf16*>(y.data)[at] = FromFloat<Bf16>(x);
  } else if (y.dtype == DType::kF16) {
    static_cast<F16*>(y.data)[at] = FromFloat<F16>(x);
  } else {
    static_cast<float*>(y.data)[at] = x;
  }
}

}  // namespace assay::gpu
