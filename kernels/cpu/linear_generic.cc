// SPDX-License-Identifier: Apache-2.0
#define ASSAY_LINEAR_ISA linear_generic
#include "kernels/cpu/linear_simd.h"
