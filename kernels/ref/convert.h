// SPDX-License-Identifier: Apache-2.0
// Reading and writing single elements of a View in any dtype, and the conversions behind it.
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

inline double F16At(const uint8_t* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  return F16ToF32(h);
}

// Integer i of a block of 32 with five bits each: bit 4 of all, then the low nibbles.
inline int FiveBits(const uint8_t* p, int64_t i) {
  const int nibble = i < 16 ? p[4 + i] & 15 : p[4 + i - 16] >> 4;
  return nibble | (p[i / 8] >> i % 8 & 1) << 4;
}

// Element i of a block of Q4_K (high is nullptr) or Q5_K.
inline double LoadQ45K(const uint8_t* block, const uint8_t* high, const uint8_t* low, int64_t i) {
  const int64_t j = i / 32;
  const uint8_t* s = block + 4;
  const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
  const int minimum = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
  const int nibble = low[32 * (j / 2) + i % 32] >> (j % 2 * 4) & 15;
  const int q = nibble | (high != nullptr ? (high[i % 32] >> j & 1) << 4 : 0);
  return F16At(block) * scale * q - F16At(block + 2) * minimum;
}

inline double LoadQ6K(const uint8_t* block, int64_t i) {
  const int64_t n = i / 128, t = i % 128 / 32, l = i % 32;
  const int nibble = block[64 * n + 32 * (t % 2) + l] >> (t / 2 * 4) & 15;
  const int q = nibble | (block[128 + 32 * n + l] >> 2 * t & 3) << 4;
  return F16At(block + 208) * static_cast<int8_t>(block[192 + i / 16]) * (q - 32);
}

// Round to nearest even; beyond 448 gives 448, NaN stays NaN.
inline uint8_t F32ToE4M3(float f) {
  const uint8_t sign = std::signbit(f) ? 0x80 : 0;
  if (std::isnan(f)) return sign | 0x7f;
  const double size = std::fabs(f);
  if (size >= 448) return sign | 0x7e;
  int exponent = -5;  // values of 2^exponent and less lie 2^(exponent - 4) apart, the smallest all 2^-9
  if (size >= 0x1p-6) std::frexp(size, &exponent);
  const int steps = static_cast<int>(std::nearbyint(std::ldexp(size, 4 - exponent)));
  return static_cast<uint8_t>(sign | ((exponent + 5) * 8 + steps));  // 16 steps are the next exponent's 8
}

// Where element [i, j, k, l] lies, counted in elements from v.data.
inline int64_t At(const View& v, int64_t i, int64_t j = 0, int64_t k = 0, int64_t l = 0) {
  return i * v.stride[0] + j * v.stride[1] + k * v.stride[2] + l * v.stride[3];
}

// The value of the element `at` (see At). Rows of block types begin on a block.
inline double Load(const View& v, int64_t at) {
  const int64_t i = at % 32;
  switch (v.dtype) {
    case DType::kF32:
      return v.as<const float>()[at];
    case DType::kF16:
      return F16ToF32(v.as<const uint16_t>()[at]);
    case DType::kBF16:
      return BF16ToF32(v.as<const uint16_t>()[at]);
    case DType::kF8_E4M3:
      return E4M3ToDouble(v.as<const uint8_t>()[at]);
    case DType::kQ8_0: {
      const uint8_t* block = v.as<const uint8_t>() + at / 32 * 34;
      return F16At(block) * static_cast<int8_t>(block[2 + i]);
    }
    case DType::kQ4_0: {
      const uint8_t* block = v.as<const uint8_t>() + at / 32 * 18;
      const int nibble = i < 16 ? block[2 + i] & 15 : block[2 + i - 16] >> 4;
      return F16At(block) * (nibble - 8);
    }
    case DType::kQ4_1: {
      const uint8_t* block = v.as<const uint8_t>() + at / 32 * 20;
      const int nibble = i < 16 ? block[4 + i] & 15 : block[4 + i - 16] >> 4;
      return F16At(block) * nibble + F16At(block + 2);
    }
    case DType::kQ5_0: {
      const uint8_t* block = v.as<const uint8_t>() + at / 32 * 22;
      return F16At(block) * (FiveBits(block + 2, i) - 16);
    }
    case DType::kQ5_1: {
      const uint8_t* block = v.as<const uint8_t>() + at / 32 * 24;
      return F16At(block) * FiveBits(block + 4, i) + F16At(block + 2);
    }
    case DType::kQ4_K: {
      const uint8_t* block = v.as<const uint8_t>() + at / 256 * 144;
      return LoadQ45K(block, nullptr, block + 16, at % 256);
    }
    case DType::kQ5_K: {
      const uint8_t* block = v.as<const uint8_t>() + at / 256 * 176;
      return LoadQ45K(block, block + 16, block + 48, at % 256);
    }
    case DType::kQ6_K:
      return LoadQ6K(v.as<const uint8_t>() + at / 256 * 210, at % 256);
    case DType::kF8_B128: {
      const uint8_t* block = v.as<const uint8_t>() + at / 128 * 132;
      float d;
      std::memcpy(&d, block, 4);
      return d * E4M3ToDouble(block[4 + at % 128]);
    }
    case DType::kI8:
      return v.as<const int8_t>()[at];
    case DType::kI4_G128: {
      const uint8_t* block = v.as<const uint8_t>() + at / 128 * 68;
      const int64_t j = at % 128;
      const int nibble = j < 64 ? block[4 + j] & 15 : block[4 + j - 64] >> 4;
      return F16At(block) * nibble + F16At(block + 2);
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
    case DType::kF8_E4M3:
      v.as<uint8_t>()[at] = F32ToE4M3(f);
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
