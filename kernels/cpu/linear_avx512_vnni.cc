// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#define ASSAY_LINEAR_ISA linear_avx512_vnni
#include "kernels/cpu/linear_simd.h"
#endif
