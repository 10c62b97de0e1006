// SPDX-License-Identifier: Apache-2.0
// What a kernel sees of a tensor: a pointer, a dtype, a shape and strides. Owns nothing; any thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace assay {

// The numeric values are those of the backend ABI (checked where the two meet, in backends/cpu).
enum class DType : int32_t {
  kNone = 0,
  kF32 = 1,
  kF16 = 2,
  kBF16 = 3,
  kF8_E4M3 = 4,
  kI32 = 8,
  kI64 = 9,
  kU8 = 7,
  kI8 = 6,
  kQ8_0 = 32,
  kQ4_0 = 33,
  kQ4_1 = 34,
  kQ5_0 = 35,
  kQ5_1 = 36,
  kQ4_K = 37,
  kQ5_K = 38,
  kQ6_K = 39,
  kF8_B128 = 64,
  kI4_G128 = 65,
};

// Up to four dimensions, dimension 0 the slowest; strides count elements; the last dimension is contiguous.
// Unused dimensions have shape 1 and stride 0.
struct View {
  void* data = nullptr;
  DType dtype = DType::kNone;
  int32_t ndim = 0;
  int64_t shape[4] = {1, 1, 1, 1};
  int64_t stride[4] = {0, 0, 0, 0};

  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  explicit operator bool() const { return data != nullptr; }
};

}  // namespace assay
