// SPDX-License-Identifier: Apache-2.0
// Internal to linear: the packed layouts, and the table of inner kernels that each instruction set fills.
//
// Packed layouts (the same on every machine, so that one copy of a weight serves every kernel; rows and columns
// are padded with zeros). A panel is read front to back, so a thread's share of the rows is one forward stream.
//   F32   panels of 64 rows: [K][64]
//   F16   panels of 64 rows: [K][64]
//   BF16  panels of 64 rows: [K/2][64][2], K padded to 32, which AMX tiles load as they are
//   Q8_0  panels of 32 rows x blocks of 64 columns: f16 scale[2][32], then u8 (q + 128) [2][8][32][4]
//   Q4_0  the same with f16 scale[2][32], u8 [2][4][32][4]: low nibble columns 4i..4i+3, high nibble 16 further
//   Q4_1  as Q4_0 with f16 scale[2][32], f16 min[2][32] in front
// A 64-byte load of a block type is thus 16 rows x 4 columns, what VNNI multiplies with 4 bytes of x, and two such
// loads share them. (32 rows as two streams of 16 instead halved the bandwidth: the prefetchers lost them.)
// Bytes per weight are those of GGUF (4, 2, 2, 1.0625, 0.5625, 0.625) but for the padding.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/linear.h"

namespace assay::cpu {

constexpr int kPanelRows = 64;  // F32, F16, BF16
constexpr int kBlockRows = 32;  // block types
constexpr int kBlockCols = 64;  // two blocks of 32

// What goes with 32 values of x, quantised to x = scale * q.
struct BlockScale {
  float scale;
  float sum;        // scale * (sum of q): for the mins of Q4_1
  int32_t correct;  // -offset * (sum of q): undoes the offset of Q8_0 (128) and Q4_0 (8)
};

// y[m, n] (+)= sum over k in [0, k) of x[m, k] * w[n, k], for m in [m0, m1), n in [n0, n1).
struct GemmArgs {
  const void* x = nullptr;  // rows of f32, of bf16 (padded to 32) or of i8 (padded to 64)
  int64_t ldx = 0;          // elements
  const BlockScale* xs = nullptr;
  int64_t ldxs = 0;
  const std::byte* w = nullptr;
  int64_t panel_bytes = 0;
  const float* bias = nullptr;  // may be nullptr
  float* y = nullptr;
  int64_t ldy = 0;
  int64_t m0 = 0, m1 = 0, n0 = 0, n1 = 0;  // n0 begins a panel
  int64_t k = 0;
  bool accumulate = false;  // add to y, without bias
};

// Conversion of x in pieces of 32 columns; piece i is row i / pieces_per_row. Past k and past `rows` come zeros.
struct ConvertArgs {
  const float* x = nullptr;
  int64_t ldx = 0;
  int64_t rows = 0;
  int64_t k = 0;
  int64_t pieces_per_row = 0;
  int64_t padded_rows = 0;  // AMX only
  void* out = nullptr;      // [rows][pieces_per_row * 32] bf16 or i8
  BlockScale* scales = nullptr;
  int32_t offset = 0;
};

struct LinearKernels {
  using Gemm = void (*)(const GemmArgs&);
  using Convert = void (*)(const ConvertArgs&, int64_t begin, int64_t end);
  // Columns [k0, k0 + count) (multiples of 64) of the block panels at w -> f32 [count][64]; one panel of two leaves
  // zeros.
  using Dequantize = void (*)(const std::byte* w, int64_t panel_bytes, int panels, int64_t k0, int64_t count,
                              float* out);
  Gemm f32, f16, bf16;    // x is f32
  Gemm bf16_dot;          // x is bf16; nullptr without AVX-512 BF16
  Gemm q8_0, q4_0, q4_1;  // x is i8
  Dequantize dequantize_q8_0, dequantize_q4_0, dequantize_q4_1;
  Convert to_bf16, quantize;
  void (*panel_to_bf16)(const float* panel, int64_t count, void* out);  // f32 [count][64] -> [count/2][64][2]
};

// The best table that `isa` allows.
const LinearKernels& LinearKernelsFor(const Isa& isa);

// Bytes from one panel to the next.
int64_t PanelBytes(const WeightSpec& spec);

// bf16 GEMM by AMX tiles (linear_amx.h). x is bf16 in strips of 32 rows, which `convert` makes.
constexpr int kAmxStripRows = 32;
struct AmxArgs : GemmArgs {  // k: padded to 32, for block types to 64; m0 begins a strip; ldx, xs: not used
  int64_t x_rows = 0;        // of the whole x, padded to strips
  // Block types; else nullptr.
  LinearKernels::Dequantize dequantize = nullptr;
  void (*panel_to_bf16)(const float* panel, int64_t count, void* out) = nullptr;
  std::byte* scratch = nullptr;  // kAmxScratchBytes, 64-aligned
};
struct AmxKernels {
  LinearKernels::Convert convert;  // x_rows is ConvertArgs::padded_rows
  void (*gemm)(const AmxArgs&);
};
extern const AmxKernels kAmx;  // for machines with Isa::amx_bf16 only

// A block of the product, at most (linear_amx.h says why).
constexpr int64_t kAmxMostRows = 256;          // of x ...
constexpr int64_t kAmxMostRowsOfBlocks = 512;  // ... for block types
constexpr int64_t kAmxMostCols = 320;
constexpr int64_t kAmxMostPanels = 4;  // of weights
constexpr int64_t kAmxSums = 256 * 256;
constexpr int64_t kAmxChunkCols = 64;       // columns that are dequantised at a time
constexpr int64_t kAmxEdge = 32 * 32 + 32;  // a product that does not fit y, and 32 of bias
constexpr int64_t kAmxScratchBytes =
    (kAmxSums + kAmxChunkCols * kPanelRows + kAmxEdge) * 4 + kAmxMostPanels * kPanelRows * kAmxMostCols * 2;

// linear.h for a given instruction set. Tests bring tiles of their own.
size_t LinearWorkspaceFor(const Isa& isa, const WeightSpec& spec, int64_t m, int threads);
void LinearFor(const Isa& isa, const WeightSpec& spec, const View& x, const void* packed, const View& bias,
               const View& y, void* workspace, const Team& team, const AmxKernels& amx = kAmx);

}  // namespace assay::cpu
