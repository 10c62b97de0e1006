// SPDX-License-Identifier: Apache-2.0
// Row and attention kernels for AVX2, FMA and F16C. Everything that this file defines lies in its own namespace, and
// headers come before the change of target: no function compiled for these instructions can be picked by the linker
// elsewhere.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/ops_kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

namespace assay::cpu::avx2 {
// clang-format off
#include "kernels/cpu/simd_avx2.inc"
#include "kernels/cpu/transpose_x86.inc"
#include "kernels/cpu/row_kernels.inc"
#include "kernels/cpu/attention_kernels.inc"
#include "kernels/cpu/ops_table.inc"
// clang-format on
}  // namespace assay::cpu::avx2

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif  // __x86_64__
