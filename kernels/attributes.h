// SPDX-License-Identifier: Apache-2.0
// Static attributes of the operations, shared by the reference and the fast kernels.
// Their meaning is given in backends/api/assay_backend.h, operation by operation.
#pragma once

#include <cstdint>

#include "kernels/view.h"

namespace assay {

// A packed weight of linear or embed. How it is packed is a pure function of this (and of the device).
struct WeightSpec {
  DType dtype = DType::kNone;    // of the source, logically of the packed weight
  DType compute = DType::kNone;  // kF32: operands are never rounded below f32; kNone: what suits dtype
  int64_t rows = 0;              // N
  int64_t cols = 0;              // K; whole blocks for block types
};

// How elements lie in memory: blocks of so many elements and bytes.
struct Storage {
  int64_t elements, bytes;
};
constexpr Storage StorageOf(DType dtype) {
  switch (dtype) {
    case DType::kQ8_0:
      return {32, 34};
    case DType::kQ4_0:
      return {32, 18};
    case DType::kQ4_1:
      return {32, 20};
    case DType::kQ5_0:
      return {32, 22};
    case DType::kQ5_1:
      return {32, 24};
    case DType::kQ4_K:
      return {256, 144};
    case DType::kQ5_K:
      return {256, 176};
    case DType::kQ6_K:
      return {256, 210};
    case DType::kF8_B128:
      return {128, 132};
    case DType::kI4_G128:
      return {128, 68};
    case DType::kF32:
    case DType::kI32:
      return {1, 4};
    case DType::kI64:
      return {1, 8};
    case DType::kU8:
    case DType::kI8:
    case DType::kF8_E4M3:
      return {1, 1};
    default:
      return {1, 2};
  }
}

// Bytes, one an element, and a scale in f32 for each row.
constexpr bool IsRowScaled(DType dtype) {
  return dtype == DType::kF8_E4M3 || dtype == DType::kI8;
}

enum class RopeScaling : int32_t { kNone = 0, kLinear = 1, kLlama3 = 2, kYarn = 3 };

struct RopeAttr {
  int32_t rotary_dim = 0;
  bool interleaved = false;
  float theta = 10000.0f;
  RopeScaling scaling = RopeScaling::kNone;
  float factor = 1.0f;
  float low_freq_factor = 1.0f;
  float high_freq_factor = 4.0f;
  float original_context = 8192.0f;
  float beta_fast = 32.0f;
  float beta_slow = 1.0f;
  float attn_factor = 1.0f;
};

enum class GluAct : int32_t { kSilu = 0, kGeluTanh = 1 };

enum class KvLayout : int32_t { kHND = 1, kNHD = 2 };

struct KvAttr {
  KvLayout layout = KvLayout::kHND;
  int32_t block_size = 0;
};

struct AttnAttr {
  KvAttr kv;
  float scale = 1.0f;
  int32_t window = 0;
  float softcap = 0.0f;
};

// The uniform number in [0,1) that sampling draws: the splitmix64 finaliser over seed and step
// (the same function as assay_uniform in the backend ABI).
inline float Uniform(uint64_t seed, uint32_t step) {
  uint64_t z = seed + 0x9E3779B97F4A7C15ull * (static_cast<uint64_t>(step) + 1u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  z ^= z >> 31;
  return static_cast<float>(z >> 40) * (1.0f / 16777216.0f);
}

}  // namespace assay
