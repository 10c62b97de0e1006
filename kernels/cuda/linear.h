// SPDX-License-Identifier: Apache-2.0
// y = x * w^T + bias on a GPU, and the packed weights that it reads. A weight is packed once and serves decode (few
// rows of x: weights are streamed once at full bandwidth), prefill (many rows: tensor cores) and embedding look-ups.
// Its layout is a pure function of the WeightSpec. Specification: kernels/ref/linear.cc. Enqueues and returns. x: F32,
// BF16 or F16; y: x's dtype or F32; bias F32.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attributes.h"
#include "kernels/cuda/queue.h"
#include "kernels/view.h"

namespace assay::gpu {

class GemmLt;  // gemm_lt.h; null where there is no such library

// nullptr if this spec (kernels/attributes.h) is supported, else why not. dtype: F32, F16, BF16, Q8_0, Q4_0, Q4_1,
// F8_B128, F8_E4M3, I8, I4_G128.
const char* WeightUnsupported(const WeightSpec& spec);
constexpr size_t kWeightAlignment = 256;
size_t PackedWeightBytes(const WeightSpec& spec);
// Of a weight whose dtype has a scale per row: where these are to lie, f32 [rows], before its rows are packed.
float* RowScales(const WeightSpec& spec, void* packed);
// Packs rows [begin, begin + count) from `src` (device memory, row-major, block types as the ABI gives them, 256-byte
// aligned) into their places of the weight at `packed` (device memory, kWeightAlignment-aligned).
void PackRows(const WeightSpec& spec, const void* src, int64_t begin, int64_t count, void* packed, const Queue& queue);

// ids [T] i32, y [T, K]; ids outside [0, rows) give zeros.
void Embed(const WeightSpec& spec, const View& ids, const void* packed, const View& y, const Queue& queue);

// Scratch for Linear with at most m rows of x.
size_t LinearWorkspace(const WeightSpec& spec, int64_t m, DType x, const Queue& queue);
// x [M, K] (rows may be strided), y [M, N] (rows may be strided), bias [N] or empty. lt: may be null.
void Linear(const WeightSpec& spec, const View& x, const void* packed, const View& bias, const View& y, void* workspace,
            GemmLt* lt, const Queue& queue);

}  // namespace assay::gpu
