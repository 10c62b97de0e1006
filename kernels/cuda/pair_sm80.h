// SPDX-License-Identifier: Apache-2.0
// Instructions on pairs of 16 bits (capability 8.0 and later), and values of 8 bits as pairs of bf16. The emulated ones
// are exact where the kernels use them. Device functions, any thread.
#pragma once

#include "kernels/cuda/mma_sm80.h"

namespace assay::gpu {

// a * b + c of two pairs of bf16.
__device__ __forceinline__ uint32_t FmaBf16(uint32_t a, uint32_t b, uint32_t c) {
#if defined(ASSAY_GPU_EMULATED)
  const auto at = [](uint32_t pair, int i) { return __uint_as_float(i == 0 ? pair << 16 : pair & 0xffff0000u); };
  return PackBf16(at(a, 0) * at(b, 0) + at(c, 0), at(a, 1) * at(b, 1) + at(c, 1));
#else
  uint32_t d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
#endif
}
// (a & mask) | b; in one instruction, which the compiler does not find when mask and b are both constants.
__device__ __forceinline__ uint32_t MaskOr(uint32_t a, uint32_t mask, uint32_t b) {
#if defined(ASSAY_GPU_EMULATED)
  return (a & mask) | b;
#else
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(a), "r"(mask), "r"(b));
  return d;
#endif
}
// Bytes of b:a (a is 0..3) by the nibbles of a selector, the lowest first.
__device__ __forceinline__ uint32_t Permute(uint32_t a, uint32_t b, uint32_t selector) {
#if defined(ASSAY_GPU_EMULATED)
  const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    result |= static_cast<uint32_t>(bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
  }
  return result;
#else
  return __byte_perm(a, b, selector);
#endif
}

// Two bytes of a word, each to the upper byte of a half: selectors of E4m3Pair.
constexpr uint32_t kBytes01 = 0x1404, kBytes23 = 0x3424, kBytes02 = 0x2404, kBytes13 = 0x3414;

// e4m3 as a pair of bf16, exactly, but for NaN, which becomes 480. In the fields of bf16 the exponent is too small by
// 120; the product restores it, subnormals too.
__device__ __forceinline__ uint32_t E4m3Pair(uint32_t word, uint32_t selector) {
  constexpr uint32_t k2To120 = 0x7b807b80u, kMinusZero = 0x80008000u;
  const uint32_t spread = Permute(word, 0, selector);
  return FmaBf16(MaskOr(spread, 0x80008000u, spread >> 4 & 0x07f007f0u), k2To120, kMinusZero);
}

}  // namespace assay::gpu
