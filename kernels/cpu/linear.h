// SPDX-License-Identifier: Apache-2.0
// y = x * w^T + bias on the CPU, and the packed weight layouts that it reads.
// The layout of a packed weight is a pure function of (WeightSpec, this machine's ISA): whoever holds dtype,
// rows, cols and compute can read it. A weight is packed once and serves decode (few rows of x: weights are
// streamed once at full bandwidth), prefill (many rows: dense GEMM) and embedding look-ups.
// Limits. Few rows of x: memory; every packed byte is read once per call, and the stream is measured against a
// bare read of the same memory. Many rows: arithmetic, measured against a loop of the same instruction. Measured on an
// AMD EPYC Zen 4, 2 cores (54 GB/s; f32 FMA 230, bf16 dot 460, i8 dot 915 GFLOP/s):
//   M = 1, from DRAM   bf16 93..99 % at 3072x576 and above, 84..88 % at 1.7 MB, 70 % at 0.7 MB (576x576);
//                      q4_1 75..97 % at 49152x576, 68..80 % at 3072x576, 43..61 % at 576x576 (0.2 MB, 7 us a call):
//                      between 30 GB/s, where it follows memory, and 54 GB/s it is bound by latency and start-up
//                      (at 28 GB/s, all block types but Q6_K read 8192x2048 at 88..100 %, Q6_K at 65..85 %)
//   M = 512            f32 92 %, bf16 83..92 %, q4_0 and q8_0 54..69 %, q4_1, q5_1, q4_k, q5_k 58..64 %, q6_k 55..59 %:
//                      each 8 dots of 4 columns end in a conversion and 2 (with mins 3) multiplications by scales
// AMX tiles (linear_amx.h) have run on an emulation only. SPMD: see team.h. Activations are f32.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attributes.h"
#include "kernels/cpu/team.h"
#include "kernels/view.h"

namespace assay::cpu {

// nullptr if this spec is supported, else why not: F32, F16, BF16, GGUF's block types, I4_G128, I8.
const char* WeightUnsupported(const WeightSpec& spec);
size_t PackedWeightBytes(const WeightSpec& spec);
constexpr size_t kWeightAlignment = 64;
// src: row-major [rows, cols], block types as in files. scales: [rows] for I8, otherwise nullptr. dst:
// PackedWeightBytes, kWeightAlignment-aligned.
void PackWeight(const WeightSpec& spec, const void* src, const float* scales, void* dst, const Team& team);

// ids [T] i32, y [T, K] f32; ids outside [0, rows) give zeros.
void Embed(const WeightSpec& spec, const View& ids, const void* packed, const View& y, const Team& team);

// Scratch for Linear with at most m rows of x.
size_t LinearWorkspace(const WeightSpec& spec, int64_t m, int threads);
// x [M, K] f32 (rows may be strided), y [M, N] f32 (rows may be strided), bias [N] f32 or empty.
void Linear(const WeightSpec& spec, const View& x, const void* packed, const View& bias, const View& y, void* workspace,
            const Team& team);

// False where the machine has AMX tiles and a small product by them is not that of its vectors. Any thread.
bool TilesAgree();

// Asks for the first `bytes` of what this member will read of the weight in Linear with m rows of x, so that they are
// on their way while something else runs. Changes nothing.
void PrefetchWeight(const WeightSpec& spec, int64_t m, const void* packed, int64_t bytes, const Team& team);

}  // namespace assay::cpu
