// SPDX-License-Identifier: Apache-2.0
// Small tensors for the tests of this room: they own their data and show it as a View.
#pragma once

#include <initializer_list>
#include <vector>

#include "kernels/view.h"

namespace assay::ref {

template <class T>
struct TestTensor {
  std::vector<T> data;
  View view;

  TestTensor(DType dtype, std::initializer_list<int64_t> shape, std::vector<T> values) : data(std::move(values)) {
    view.data = data.data();
    view.dtype = dtype;
    view.ndim = static_cast<int32_t>(shape.size());
    int64_t stride = 1;
    for (int i = view.ndim - 1; i >= 0; --i) {
      view.shape[i] = shape.begin()[i];
      view.stride[i] = stride;
      stride *= view.shape[i];
    }
  }
  TestTensor(const TestTensor&) = delete;
  operator const View&() const { return view; }
};

struct F32 : TestTensor<float> {
  F32(std::initializer_list<int64_t> shape, std::vector<float> values)
      : TestTensor(DType::kF32, shape, std::move(values)) {}
  // All elements `fill`.
  F32(std::initializer_list<int64_t> shape, float fill) : F32(shape, std::vector<float>(Count(shape), fill)) {}
  static size_t Count(std::initializer_list<int64_t> shape) {
    size_t n = 1;
    for (const int64_t d : shape) n *= static_cast<size_t>(d);
    return n;
  }
};

struct I32 : TestTensor<int32_t> {
  I32(std::initializer_list<int64_t> shape, std::vector<int32_t> values)
      : TestTensor(DType::kI32, shape, std::move(values)) {}
};

struct I64 : TestTensor<int64_t> {
  I64(std::initializer_list<int64_t> shape, std::vector<int64_t> values)
      : TestTensor(DType::kI64, shape, std::move(values)) {}
};

}  // namespace assay::ref
