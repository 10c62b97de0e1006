// SPDX-License-Identifier: Apache-2.0
// Reading and writing single elements of a View in any dtype, and the 16-bit conversions behind it.
// Pure functions, any thread. Block types are read only; the ABI describes their layouts.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/attributes.h"
#include "kernels/view.h"

namespace assay::ref {

inline float BF16ToF32(uint16_t h) {
  const uint32_t bits = static_cast<uint32_t>(h) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

// Round to nearest even; NaN stays NaN.
inline uint16_t F32ToBF16(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float F16ToF32(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 0x1fu;
  const uint32_t fraction = h & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | (fraction << 13);
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

// Round to nearest even; beyond the range gives infinity, NaN stays NaN.
inline uint16_t F32ToF16(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and more
  if (magnitude < 0x38800000u) {                                               // below the smallest normal, 2^-14
    // Adding 0.5 leaves the value, rounded to multiples of 2^-24, in the low bits of the sum.
    float m;
    std::memcpy(&m, &magnitude, 4);
    m += 0.5f;
    uint32_t sum;
    std::memcpy(&sum, &m, 4);
    return static_cast<uint16_t>(sign | (sum - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

// e4m3: 4 bits of exponent (bias 7), 3 of fraction; all ones is NaN, there are no infinities.
inline double E4M3ToDouble(uint8_t q) {
  const int exponent = q >> 3 & 15, fraction = q & 7;
  if (exponent == 15 && fraction == 7) return NAN;
  const double magnitude = exponent == 0 ? fraction * 0x1p-9 : ((8 + fraction) << exponent) * 0x1p-10;
  return (1 - (q >> 7) * 2) * magnitude;
}

// Where element [i, j, k, l] lies, counted in elements from v.data.
inline int64_t At(const View& v, int64_t i, int64_t j = 0, int64_t k = 0, int64_t l = 0) {
  return i * v.stride[0] + j * v.stride[1] + k * v.stride[2] + l * v.stride[3];
}

// The value of the element `at` (see At). Rows of block types begin on a block.
inline double Load(const View& v, int64_t at) {
  const auto f16_at = [](const uint8_t* p) {
    uint16_t h;
    std::memcpy(&h, p, 2);
    return static_cast<double>(F16ToF32(h));
  };
  const int64_t i = at % 32;
  switch (v.dtype) {
    case DType::kF32:
      return v.as<const float>()[at];
    case DType::kF16:
      return F16ToF32(v.as<const uint16_t>()[at]);
    case DType::kBF16:
      return BF16ToF32(v.as<const uint16_t>()[at]);
    case DType::kQ8_0: {
      const uint8_t* block = v.as<const uint8_t>() + at / 32 * 34;
      return f16_at(block) * static_cast<int8_t>(block[2 + i]);
    }
    case DType::kQ4_0: {
      const uint8_t* block = v.as<const uint8_t>() + at / 32 * 18;
      const int nibble = i < 16 ? block[2 + i] & 15 : block[2 + i - 16] >> 4;
      return f16_at(block) * (nibble - 8);
    }
    case DType::kQ4_1: {
      const uint8_t* block = v.as<const uint8_t>() + at / 32 * 20;
      const int nibble = i < 16 ? block[4 + i] & 15 : block[4 + i - 16] >> 4;
      return f16_at(block) * nibble + f16_at(block + 2);
    }
    case DType::kF8_B128: {
      const uint8_t* block = v.as<const uint8_t>() + at / 128 * 132;
      float d;
      std::memcpy(&d, block, 4);
      return d * E4M3ToDouble(block[4 + at % 128]);
    }
    case DType::kF8_E4M3:
      return E4M3ToDouble(v.as<const uint8_t>()[at]);
    case DType::kI8:
      return v.as<const int8_t>()[at];
    case DType::kI4_G128: {
      const uint8_t* block = v.as<const uint8_t>() + at / 128 * 68;
      const int64_t j = at % 128;
      const int nibble = j < 64 ? block[4 + j] & 15 : block[4 + j - 64] >> 4;
      return f16_at(block) * nibble + f16_at(block + 2);
    }
    default:
      return 0;  // integer tensors are read through as<int32_t>()
  }
}

// What the elements of a weight's row are to be multiplied by: 1 unless its dtype has a scale per row. That lies behind
// the row's last column, and the stride from row to row counts it.
inline double RowScale(const View& w, int64_t row) {
  if (!IsRowScaled(w.dtype)) return 1;
  float scale;
  std::memcpy(&scale, w.as<const uint8_t>() + At(w, row) + w.shape[1], sizeof scale);
  return scale;
}

inline void Store(const View& v, int64_t at, double value) {
  const float f = static_cast<float>(value);
  switch (v.dtype) {
    case DType::kF32:
      v.as<float>()[at] = f;
      break;
    case DType::kF16:
      v.as<uint16_t>()[at] = F32ToF16(f);
      break;
    case DType::kBF16:
      v.as<uint16_t>()[at] = F32ToBF16(f);
      break;
    default:
      break;  // no operation writes floating point to another dtype
  }
}

// `n` consecutive elements from `at` on.
inline std::vector<double> LoadRow(const View& v, int64_t at, int64_t n) {
  std::vector<double> row(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) row[static_cast<size_t>(i)] = Load(v, at + i);
  return row;
}

}  // namespace assay::ref
