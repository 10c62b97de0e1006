// SPDX-License-Identifier: Apache-2.0
// Internal to linear: the packed layouts, and the table of inner kernels that each instruction set fills.
//
// Packed layouts (the same on every machine, so that one copy of a weight serves every kernel; rows and columns
// are padded with zeros). A panel is read front to back, so a thread's share of the rows is one forward stream.
//   F32   panels of 64 rows: [K][64]
//   F16   panels of 64 rows: [K][64]
//   BF16  panels of 64 rows: [K/2][64][2], K padded to 32, which AMX tiles load as they are
//   Block types: panels of 32 rows x blocks of 64 columns (256 for K types, 128 for I4_G128); a block is a head and
//   then a piece per 32 columns. In a piece, w[j][32][4] are j-th groups of 4 columns of each of the 32 rows.
//           head                                   piece
//   Q8_0    f16 d[2][32]                           u8 (q + 128) [8][32][4]
//   Q4_0    f16 d[2][32]                           u8 n[4][32][4]: columns 4j..4j+3, in the high nibble 16 further
//   Q4_1    f16 d[2][32], f16 m[2][32]             n
//   Q5_0    as Q4_0                                n, u8 h[32][4]: bit j of h[r][c] is bit 4 of column 4j + c
//   Q5_1    as Q4_1                                n, h
//   Q4_K    f16 d[32], f16 m[32], u8 s[3][32][4]   n
//   Q5_K    as Q4_K                                n, h
//   Q6_K    f16 d[32], i8 s[4][32][4]              n, u8 h[2][32][4]: bits 2i, 2i + 1 of h[t][r][c] are bits 4, 5 of
//           (of 16 columns each)                   column 16t + 4i + c
//   I4_G128 f16 d[32], f16 m[32]                   n
//   I8      none; the panel begins with f32 d[32]  u8 (q + 128) [8][32][4]
//   K types' 6-bit scales and mins of the 32 columns number i + 4t (i < 4, t < 2): s[t][r][i] has the low 4 bits of the
//   scale and, above, of the min; bits 4t, 4t + 1 of s[2][r][i] are the upper 2 of the scale, the next two of the min.
// A 64-byte load of a block type is thus 16 rows x 4 columns, what VNNI multiplies with 4 bytes of x, and two such
// loads share them. (32 rows as two streams of 16 instead halved the bandwidth: the prefetchers lost them.)
// Bytes per weight are those of the file but for the padding.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/linear.h"

namespace assay::cpu {

constexpr int kPanelRows = 64;  // F32, F16, BF16
constexpr int kBlockRows = 32;  // block types
constexpr int kBlockCols = 64;  // columns of block types are padded to it
constexpr int kPieceCols = 32;

// How a packed block of kBlockRows rows is laid out; all sizes are multiples of 64 bytes.
struct BlockLayout {
  int cols;  // 0: not a block type
  int head_bytes;
  int piece_bytes;
  constexpr int bytes() const { return head_bytes + cols / kPieceCols * piece_bytes; }
};
constexpr BlockLayout LayoutOf(DType dtype) {
  switch (dtype) {
    case DType::kQ8_0:
      return {64, 128, 1024};
    case DType::kQ4_0:
      return {64, 128, 512};
    case DType::kQ4_1:
      return {64, 256, 512};
    case DType::kQ5_0:
      return {64, 128, 640};
    case DType::kQ5_1:
      return {64, 256, 640};
    case DType::kQ4_K:
      return {256, 512, 512};
    case DType::kQ5_K:
      return {256, 512, 640};
    case DType::kQ6_K:
      return {256, 576, 768};
    case DType::kI4_G128:
      return {128, 128, 512};
    case DType::kI8:
      return {64, 0, 1024};
    default:
      return {0, 0, 0};
  }
}
// What lies before the first block of a panel.
constexpr int PanelHeadBytes(DType dtype) {
  return dtype == DType::kI8 ? kBlockRows * 4 : 0;
}
// What is subtracted from the stored, unsigned quantity of types without a min.
constexpr int OffsetOf(DType dtype) {
  switch (dtype) {
    case DType::kQ8_0:
    case DType::kI8:
      return 128;
    case DType::kQ4_0:
      return 8;
    case DType::kQ5_0:
      return 16;
    case DType::kQ6_K:
      return 32;
    default:
      return 0;
  }
}

// What goes with 32 values of x, quantised to x = scale * q.
struct BlockScale {
  float scale;
  float sum;           // scale * (sum of q): for the mins
  int32_t correct[2];  // -offset * (sum of q), which undoes OffsetOf: of all, or with ConvertArgs::halves of 16 each
};

// y[m, n] (+)= sum over k in [0, k) of x[m, k] * w[n, k], for m in [m0, m1), n in [n0, n1).
struct GemmArgs {
  const void* x = nullptr;  // rows of f32 or of bf16 (padded to 32), or i8 as ConvertArgs has it
  int64_t ldx = 0;          // elements
  const BlockScale* xs = nullptr;
  int64_t x_rows = 0;  // of the whole converted x
  const std::byte* w = nullptr;
  int64_t panel_bytes = 0;
  const float* bias = nullptr;  // may be nullptr
  float* y = nullptr;
  int64_t ldy = 0;
  int64_t m0 = 0, m1 = 0, n0 = 0, n1 = 0;  // n0 begins a panel
  int64_t k = 0;
  bool accumulate = false;       // add to y, without bias
  std::byte* scratch = nullptr;  // kExpandedScratch for BlockKernels::many, 64-aligned
};

// Conversion of x in pieces of 32 columns; piece i is row i / pieces_per_row. Past k and past `rows` come zeros.
struct ConvertArgs {
  const float* x = nullptr;
  int64_t ldx = 0;
  int64_t rows = 0;
  int64_t k = 0;
  int64_t pieces_per_row = 0;
  int64_t padded_rows = 0;  // AMX only
  // bf16: [rows][pieces_per_row * 32]. i8, and scales likewise: by kExpandedCols columns, [rows][columns of the chunk].
  void* out = nullptr;
  BlockScale* scales = nullptr;
  int32_t offset = 0;
  bool halves = false;
};

// Columns of a block weight that are expanded to bytes and f32 scales at a time: with them 32 rows fit the L1 cache.
constexpr int64_t kExpandedCols = 512;
constexpr int64_t kExpandedBytes = kExpandedCols / kPieceCols * (1024 + 2 * kBlockRows * sizeof(float));
constexpr int64_t kExpandedRows = 256;  // of x, whose sums wait for the next columns
constexpr int64_t kExpandedScratch = kExpandedBytes + kExpandedRows * kBlockRows * sizeof(float);

// x is i8.
struct BlockKernels {
  DType dtype;
  void (*one)(const GemmArgs&);   // one row of x: unpacks in registers
  void (*many)(const GemmArgs&);  // several: likewise for some dozens of them, beyond that into scratch, once
  // Columns [k0, k0 + count) (multiples of 64) of the panels at w -> f32 [count][64]; one panel of two leaves zeros.
  void (*dequantize)(const std::byte* w, int64_t panel_bytes, int panels, int64_t k0, int64_t count, float* out);
};

struct LinearKernels {
  using Gemm = void (*)(const GemmArgs&);
  using Convert = void (*)(const ConvertArgs&, int64_t begin, int64_t end);
  Gemm f32, f16, bf16;         // x is f32
  Gemm bf16_dot;               // x is bf16; nullptr without AVX-512 BF16
  const BlockKernels* blocks;  // block_count of them, one per dtype
  int block_count;
  Convert to_bf16, quantize;
  void (*panel_to_bf16)(const float* panel, int64_t count, void* out);  // f32 [count][64] -> [count/2][64][2]
};

// The best table that `isa` allows.
const LinearKernels& LinearKernelsFor(const Isa& isa);

// Bytes from one panel to the next.
int64_t PanelBytes(const WeightSpec& spec);

// bf16 GEMM by AMX tiles (linear_amx.h). x is bf16 in strips of 32 rows, which `convert` makes.
constexpr int kAmxStripRows = 32;
struct AmxArgs : GemmArgs {  // k: padded to 32, for block types to 64; m0 begins a strip; scratch: kAmxScratchBytes
  // Block types; else nullptr.
  decltype(BlockKernels::dequantize) dequantize = nullptr;
  void (*panel_to_bf16)(const float* panel, int64_t count, void* out) = nullptr;
};
struct AmxKernels {
  LinearKernels::Convert convert;  // x_rows is ConvertArgs::padded_rows
  void (*gemm)(const AmxArgs&);
  LinearKernels::Gemm small;  // SmallBf16Product
};
extern const AmxKernels kAmx;  // for machines with Isa::amx_bf16 only
// The product of bf16 rows, any number of columns (but a multiple of 32) and of rows apart, with panels that all fit
// the caches: y (+)= x * w^T, n1 a multiple of 64. Reads up to 15 rows more of x, of which nothing becomes of y.
// nullptr where the machine has no such products.
LinearKernels::Gemm SmallBf16Product(const Isa& isa, const AmxKernels& amx = kAmx);
// Whether a small product by tiles is that of the vectors of `isa`: these kernels were tested on an emulation.
bool AmxAgrees(const Isa& isa, const AmxKernels& amx = kAmx);

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
