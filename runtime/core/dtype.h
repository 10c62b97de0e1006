// SPDX-License-Identifier: Apache-2.0
// Names, sizes and conversions of the ABI's data types. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "backends/api/assay_backend.h"

namespace assay {

struct DTypeInfo {
  const char* name;     // "bf16", "q4_1"
  int32_t block_elems;  // elements per block; 1 for plain types
  int32_t block_bytes;
};

// nullptr for an unknown dtype.
const DTypeInfo* FindDType(assay_dtype dtype);
const char* DTypeName(assay_dtype dtype);
bool IsBlockType(assay_dtype dtype);
bool IsRowScaled(assay_dtype dtype);  // a weight of it has a scale per row: F8_E4M3, I8
// ASSAY_DTYPE_NONE for an unknown name.
assay_dtype DTypeOfName(std::string_view name);
// Bytes of `elements` consecutive elements; elements must be a multiple of the block size (CHECKed).
uint64_t DTypeBytes(assay_dtype dtype, uint64_t elements);

float F16ToF32(uint16_t h);
uint16_t F32ToF16(float f);  // round to nearest even
inline float BF16ToF32(uint16_t h) {
  const uint32_t u = static_cast<uint32_t>(h) << 16;
  float f;
  __builtin_memcpy(&f, &u, 4);
  return f;
}
uint16_t F32ToBF16(float f);  // round to nearest even; NaN stays NaN
// e4m3 as the ABI describes it.
float E4M3ToF32(uint8_t q);
uint8_t F32ToE4M3(float f);  // round to nearest even; beyond 448 gives 448; NaN stays NaN

// Converts `elements` (a multiple of both block sizes) between any of F32, F16, BF16, F8_E4M3 (as it is: the scales of
// rows are the caller's), F8_B128, I4_G128 and GGUF's block types (its K types are written by a quantiser of our own:
// k_blocks.h). Finite values never become NaN in F8_B128.
void ConvertElements(assay_dtype from, const void* src, assay_dtype to, void* dst, uint64_t elements);

// F8_E4M3 and I8. The scale with which the largest of `x` (finite) takes the largest quant, 448 or 127; 0 if all are 0.
float ScaleFor(assay_dtype to, const float* x, uint64_t elements);
void Quantize(assay_dtype to, const float* x, float scale, uint8_t* quants, uint64_t elements);
void Dequantize(assay_dtype from, const uint8_t* quants, float scale, float* x, uint64_t elements);

}  // namespace assay
