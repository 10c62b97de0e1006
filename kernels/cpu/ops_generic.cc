// SPDX-License-Identifier: Apache-2.0
// Row and attention kernels for machines without AVX2.
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/ops_kernels.h"

namespace assay::cpu::generic {
// clang-format off
#include "kernels/cpu/simd_generic.inc"
#include "kernels/cpu/row_kernels.inc"
#include "kernels/cpu/attention_kernels.inc"
#include "kernels/cpu/ops_table.inc"
// clang-format on
}  // namespace assay::cpu::generic
