// SPDX-License-Identifier: Apache-2.0
// bf16 GEMM by AMX tiles: a tile is 16 rows of 64 bytes, and one instruction adds the product of 16 x 32 values of x
// and 32 x 16 weights to 16 x 16 sums in 16 cycles. A template over the instructions, so that a test can run all of it
// on an emulation; Tiles gives Configure, Release, Load, LoadOnce, Store, Dot, Prefetch and PrefetchToWrite.
//
// Registers: 2 x 2 tiles of sums, 2 of x, 2 of weights: four loads for four products, so each load has 16 cycles. It
// takes 8 from the L1 cache and over 20 from L2: if all came from L2, it would be bound at 3/4 of the peak.
//
// Caches (48 KiB and 2 MiB, which two hardware threads may share). For a block of at most 256 rows of x, 256 weight
// rows and 320 columns:
//   - a strip of 32 rows of x stays in L1 (at most 20 KiB) while all weights of the block pass from L2, loaded with the
//     hint that they need no place in L1. Not the other way round: rows of a weight tile lie 256 bytes apart, so that
//     32 weight rows use half of L1's sets. x lies as it is read: part of the columns, strip, 32 columns, row.
//   - L2 holds the weights of this block and the next (2 x 160 KiB), both blocks of x (2 x 160 KiB) and the sums that
//     wait for the next columns (256 KiB), which pass between L2 and the tiles once per block.
//   - the next block is prefetched into L2 meanwhile, at an even pace. At 1 TFLOP/s per thread that is 4 GB/s of
//     weights (each is read once per 256 rows) and, where x is too large to stay in L2, 4 GB/s of x; a core gets 10.
// Weights of block types are dequantised to bf16 block by block. That costs as much as 30 to 60 rows of products, so
// one dequantising serves 512 rows; the block then has 128 weight rows, so that the sums stay 256 KiB. Tiles of int8
// would be no faster: one holds 64 columns, two blocks of 32 with scales of their own, so half of it would be zeros,
// and after every product 256 sums had to leave the tile to be scaled.
//
// Not measured yet: run on an emulation only. The test counts what that loads and prefetches; the device compares a
// product with its vectors' before it is opened.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/linear_kernels.h"

namespace assay::cpu {

// How a member's part of y is cut into blocks: columns of x within weight rows within rows of x. Within the template's
// files only (and, like all here, a template: linkers must not keep one file's copy for another).
template <class Tiles>
struct AmxBlocks {
  static constexpr int64_t kUnit = 64;  // columns: block types are dequantised so many at a time
  struct Block {
    int64_t s0, s1, n0, n1, k0, k1;  // strips of x, rows of the weight, columns
    bool first, last;                // of the columns
  };

  static constexpr int64_t Parts(int64_t n, int64_t most) { return (n + most - 1) / most; }
  static constexpr int64_t ColumnParts(int64_t k) { return Parts(Parts(k, kUnit), kAmxMostCols / kUnit); }

  int64_t s0, strips, n0, n1, panels, k, m_parts, n_parts, k_parts;

  explicit AmxBlocks(const AmxArgs& a)
      : s0(a.m0 / kAmxStripRows),
        strips(Parts(a.m1, kAmxStripRows) - s0),
        n0(a.n0),
        n1(a.n1),
        panels(Parts(a.n1 - a.n0, kPanelRows)),
        k(a.k),
        m_parts(Parts(strips, (a.dequantize != nullptr ? kAmxMostRowsOfBlocks : kAmxMostRows) / kAmxStripRows)),
        n_parts(0),
        k_parts(ColumnParts(a.k)) {
    const int64_t most = kAmxSums / kPanelRows / (Parts(strips, m_parts) * kAmxStripRows);
    n_parts = Parts(panels, most < kAmxMostPanels ? most : kAmxMostPanels);
  }

  int64_t Count() const { return m_parts * n_parts * k_parts; }
  Block At(int64_t i) const {
    const int64_t c = i % k_parts, n = i / k_parts % n_parts, m = i / k_parts / n_parts;
    const int64_t end = n0 + panels * (n + 1) / n_parts * kPanelRows;
    return {s0 + strips * m / m_parts,
            s0 + strips * (m + 1) / m_parts,
            n0 + panels * n / n_parts * kPanelRows,
            end < n1 ? end : n1,
            ColumnsBegin(k, c),
            ColumnsBegin(k, c + 1),
            c == 0,
            c + 1 == k_parts};
  }
  // The first column of part c.
  static int64_t ColumnsBegin(int64_t k, int64_t c) {
    const int64_t begin = Parts(k, kUnit) * c / ColumnParts(k) * kUnit;
    return begin < k ? begin : k;
  }
};

// Where the 32 rows and 32 columns begin that hold (strip * 32, k), k in the columns [k0, k1), as bytes.
template <class Tiles>
int64_t AmxXOffset(int64_t x_rows, int64_t k0, int64_t k1, int64_t strip, int64_t k) {
  return (k0 * x_rows + (strip * (k1 - k0) + k - k0) * kAmxStripRows) * 2;
}

// Rounds to nearest even, as LinearKernels::to_bf16 does; NaN becomes quiet.
template <class Tiles>
void AmxConvertPiece(const float* x, int64_t left, uint16_t* out) {
  float padded[32];
  if (left < 32) {
    for (int64_t j = 0; j < 32; ++j) padded[j] = j < left ? x[j] : 0.0f;
    x = padded;
  }
  for (int j = 0; j < 32; ++j) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, x[j]);
    const uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
    out[j] = static_cast<uint16_t>(((bits & 0x7fffffff) > 0x7f800000 ? bits | 0x400000 : rounded) >> 16);
  }
}

template <class Tiles>
void AmxConvert(const ConvertArgs& a, int64_t begin, int64_t end) {
  using Blocks = AmxBlocks<Tiles>;
  const int64_t pieces = a.pieces_per_row, cols = pieces * 32;
  for (int64_t c = 0; c < Blocks::ColumnParts(cols); ++c) {
    const int64_t k0 = Blocks::ColumnsBegin(cols, c), k1 = Blocks::ColumnsBegin(cols, c + 1);
    for (int64_t row = begin / pieces; row * pieces < end; ++row) {
      const int64_t first = (begin - row * pieces) * 32, last = (end - row * pieces) * 32;
      for (int64_t k = first > k0 ? first : k0; k < k1 && k < last; k += 32) {
        std::byte* const to = static_cast<std::byte*>(a.out) + row % kAmxStripRows * 64 +
                              AmxXOffset<Tiles>(a.padded_rows, k0, k1, row / kAmxStripRows, k);
        AmxConvertPiece<Tiles>(a.x + row * a.ldx + k, row < a.rows ? a.k - k : 0, reinterpret_cast<uint16_t*>(to));
      }
    }
  }
}

// Cache lines that are asked for.
struct AmxLines {
  const std::byte* at = nullptr;
  const std::byte* end = nullptr;
};

// What a block prefetches for the next: pieces of equal length, spread evenly over the block's products.
template <class Tiles>
class AmxAhead {
 public:
  AmxAhead() = default;
  // lines: of 64 bytes, per piece; stride: bytes from piece to piece.
  AmxAhead(const std::byte* first, int64_t lines, int64_t pieces, int64_t stride, int64_t products)
      : at_(first),
        lines_(lines),
        pieces_(pieces),
        skip_(stride - lines * 64),
        rate_((lines * pieces + products - 1) / products),
        left_(lines) {}

  AmxLines Take() {  // one product's
    due_ += rate_;
    const int64_t count = due_ < left_ ? due_ : left_;
    const AmxLines taken = {at_, at_ + count * 64};
    at_ = taken.end;
    due_ -= count;
    left_ -= count;
    if (left_ == 0 && pieces_ > 1) {
      --pieces_;
      at_ += skip_;
      left_ = lines_;
    }
    return taken;
  }

 private:
  const std::byte* at_ = nullptr;
  int64_t lines_ = 0, pieces_ = 0, skip_ = 0, rate_ = 0, left_ = 0, due_ = 0;
};

// One product: 32 rows of x (or 16) by 32 weight rows, added to the sums at `from` into `to`.
struct AmxProduct {
  const std::byte* x;
  const std::byte* w;
  int64_t x_row, x_step;  // bytes from one row of x to the next, and from 32 columns to the next
  int64_t steps;          // of 32 columns
  const float* from;
  float* to;
  int64_t from_stride, to_stride;  // bytes
  AmxLines next_w, next_x;
  bool prefetch_to;  // `to` is y, perhaps far away
};

template <class Tiles>
[[gnu::always_inline]] inline void AmxPrefetch(const std::byte*& at, const std::byte* end, int64_t bytes) {
  const std::byte* const stop = end - at > bytes ? at + bytes : end;
  for (; at < stop; at += 64) Tiles::Prefetch(at);
}

template <class Tiles, int kTall>  // tiles of x: 1 or 2
[[gnu::noinline]] void AmxMultiply(const AmxProduct& p) {
  constexpr int64_t kWStride = kPanelRows * 4;  // of two columns
  const std::byte *x = p.x, *w = p.w, *next_w = p.next_w.at, *next_x = p.next_x.at;
  const std::byte *const end_w = p.next_w.end, *const end_x = p.next_x.end;
  const int64_t steps = p.steps, stride = p.to_stride;
  const int64_t bytes_w = ((end_w - next_w) / 64 + steps - 1) / steps * 64;
  const int64_t bytes_x = ((end_x - next_x) / 64 + steps - 1) / steps * 64;
  std::byte* const to = reinterpret_cast<std::byte*>(p.to);
  const std::byte* to_row = to;
  int64_t rows = p.prefetch_to ? kTall * 16 : 0;

  const std::byte* const from = reinterpret_cast<const std::byte*>(p.from);
  Tiles::template Load<0>(from, p.from_stride);
  Tiles::template Load<1>(from + 64, p.from_stride);
  if constexpr (kTall == 2) {
    Tiles::template Load<2>(from + 16 * p.from_stride, p.from_stride);
    Tiles::template Load<3>(from + 16 * p.from_stride + 64, p.from_stride);
  }
  for (int64_t i = 0; i < steps; ++i, x += p.x_step, w += 16 * kWStride) {
    Tiles::template LoadOnce<6>(w, kWStride);
    Tiles::template Load<4>(x, p.x_row);
    Tiles::template Dot<0, 4, 6>();
    Tiles::template LoadOnce<7>(w + 64, kWStride);
    Tiles::template Dot<1, 4, 7>();
    if constexpr (kTall == 2) {
      Tiles::template Load<5>(x + 16 * p.x_row, p.x_row);
      Tiles::template Dot<2, 5, 6>();
      Tiles::template Dot<3, 5, 7>();
    }
    AmxPrefetch<Tiles>(next_w, end_w, bytes_w);
    AmxPrefetch<Tiles>(next_x, end_x, bytes_x);
    // Else the store buffer fills with stores that wait for their lines.
    for (int64_t stop = rows > 4 ? rows - 4 : 0; rows > stop; --rows, to_row += stride) {
      Tiles::PrefetchToWrite(to_row);
      Tiles::PrefetchToWrite(to_row + 64);
    }
  }
  Tiles::template Store<0>(to, stride);
  Tiles::template Store<1>(to + 64, stride);
  if constexpr (kTall == 2) {
    Tiles::template Store<2>(to + 16 * stride, stride);
    Tiles::template Store<3>(to + 16 * stride + 64, stride);
  }
}

template <class Tiles>
class AmxGemm {
 public:
  static void Run(const AmxArgs& a) {
    AmxGemm gemm(a);
    Tiles::Configure();
    const int64_t count = gemm.blocks_.Count();
    for (int64_t i = 0; i < count; ++i) {
      gemm.Prepare(gemm.blocks_.At(i));
      if (i + 1 < count) gemm.LookAhead(gemm.blocks_.At(i + 1));
      gemm.Multiply();
    }
    Tiles::Release();
  }

 private:
  using Block = typename AmxBlocks<Tiles>::Block;
  static constexpr int64_t kEdgeStride = 32 * 4;

  explicit AmxGemm(const AmxArgs& a)
      : a_(a),
        blocks_(a),
        sums_(reinterpret_cast<float*>(a.scratch)),
        chunk_(sums_ + kAmxSums),
        edge_(chunk_ + kAmxChunkCols * kPanelRows),
        bias_(edge_ + 32 * 32),
        weights_(reinterpret_cast<std::byte*>(edge_ + kAmxEdge)) {}

  // Where columns from k on lie in a packed panel: exactly in one of bf16, near enough to prefetch in block types.
  int64_t InPanel(int64_t k) const { return a_.panel_bytes * k / a_.k; }
  int64_t PackedRows() const { return a_.dequantize != nullptr ? kBlockRows : kPanelRows; }

  void Prepare(const Block& b) {
    b_ = b;
    next_w_ = next_x_ = {};
    if (a_.dequantize == nullptr) {
      w_ = a_.w + b.n0 / kPanelRows * a_.panel_bytes + InPanel(b.k0);
      w_stride_ = a_.panel_bytes;
      return;
    }
    w_ = weights_;
    w_stride_ = (b.k1 - b.k0) * kPanelRows * 2;
    std::byte* to = weights_;
    for (int64_t n = b.n0; n < b.n1; n += kPanelRows) {
      const int panels = b.n1 - n > kBlockRows ? 2 : 1;
      for (int64_t k = b.k0; k < b.k1; k += kAmxChunkCols, to += kAmxChunkCols * kPanelRows * 2) {
        a_.dequantize(a_.w + n / kBlockRows * a_.panel_bytes, a_.panel_bytes, panels, k, kAmxChunkCols, chunk_);
        a_.panel_to_bf16(chunk_, kAmxChunkCols, to);
      }
    }
  }

  void LookAhead(const Block& next) {
    const int64_t begin = InPanel(next.k0) / 64 * 64, rows = PackedRows(), products = (b_.s1 - b_.s0) * Across();
    next_w_ = {a_.w + next.n0 / rows * a_.panel_bytes + begin, (InPanel(next.k1) - begin + 63) / 64,
               (next.n1 - next.n0 + rows - 1) / rows, a_.panel_bytes, products};
    // 32 rows of a column of x are a line.
    next_x_ = {X(next, next.s0), (next.s1 - next.s0) * (next.k1 - next.k0), 1, 0, products};
  }

  int64_t Across() const { return (b_.n1 - b_.n0 + 31) / 32; }

  const std::byte* X(const Block& b, int64_t strip) const {
    return static_cast<const std::byte*>(a_.x) + AmxXOffset<Tiles>(a_.x_rows, b.k0, b.k1, strip, b.k0);
  }

  void Multiply() {
    const int64_t across = Across();
    int64_t i = 0;
    for (int64_t s = b_.s0; s < b_.s1; ++s) {
      for (int64_t j = 0; j < across; ++j, ++i) {
        AmxProduct p = {};
        p.x = X(b_, s);
        p.x_row = 64;
        p.x_step = kAmxStripRows * 64;
        p.w = w_ + j / 2 * w_stride_ + j % 2 * 128;
        p.steps = (b_.k1 - b_.k0) / 32;
        p.next_w = next_w_.Take();
        p.next_x = next_x_.Take();
        Product(p, s * kAmxStripRows, b_.n0 + j * 32, sums_ + i * 32 * 32);
      }
    }
  }

  // Rows m .. of y, columns n ..; `sums` keeps them between the blocks of columns.
  void Product(AmxProduct& p, int64_t m, int64_t n, float* sums) {
    const int64_t rows = a_.m1 - m < 32 ? a_.m1 - m : 32, cols = a_.n1 - n < 32 ? a_.n1 - n : 32;
    const bool whole = rows % 16 == 0 && cols == 32;
    p.from = b_.first ? Bias(n, cols) : sums;
    p.from_stride = b_.first ? 0 : kEdgeStride;
    p.to = !b_.last ? sums : whole ? a_.y + m * a_.ldy + n : edge_;
    p.to_stride = b_.last && whole ? a_.ldy * 4 : kEdgeStride;
    p.prefetch_to = b_.last && whole;
    if (rows > 16) {
      AmxMultiply<Tiles, 2>(p);
    } else {
      AmxMultiply<Tiles, 1>(p);
    }
    if (!b_.last || whole) return;
    for (int64_t r = 0; r < rows; ++r) std::memcpy(a_.y + (m + r) * a_.ldy + n, edge_ + r * 32, cols * sizeof(float));
  }

  // 32 values, with which every row of sums begins.
  const float* Bias(int64_t n, int64_t cols) {
    if (a_.bias != nullptr && cols == 32) return a_.bias + n;
    for (int64_t j = 0; j < 32; ++j) bias_[j] = a_.bias != nullptr && j < cols ? a_.bias[n + j] : 0.0f;
    return bias_;
  }

  const AmxArgs& a_;
  const AmxBlocks<Tiles> blocks_;
  float* const sums_;
  float* const chunk_;
  float* const edge_;
  float* const bias_;
  std::byte* const weights_;
  Block b_ = {};
  const std::byte* w_ = nullptr;  // of the block, one panel after another
  int64_t w_stride_ = 0;
  AmxAhead<Tiles> next_w_, next_x_;
};

// SmallBf16Product. What does not fill 16 rows goes to y by way of a block of its own.
template <class Tiles>
void AmxSmall(const GemmArgs& a) {
  static constexpr float kZeros[32] = {};
  Tiles::Configure();
  for (int64_t n = 0; n < a.n1; n += 32) {
    AmxProduct p = {};
    p.w = a.w + n / kPanelRows * a.panel_bytes + n % kPanelRows * 4;
    p.x_row = a.ldx * 2;
    p.x_step = 64;
    p.steps = a.k / 32;
    for (int64_t m = a.m0; m < a.m1;) {
      const int64_t left = a.m1 - m, rows = left < 16 ? left : left < 32 ? 16 : 32;
      float* const y = a.y + m * a.ldy + n;
      float edge[16 * 32];
      p.x = static_cast<const std::byte*>(a.x) + m * p.x_row;
      p.to = rows < 16 ? edge : y;
      p.to_stride = rows < 16 ? 32 * 4 : a.ldy * 4;
      p.from = a.accumulate ? p.to : kZeros;
      p.from_stride = a.accumulate ? p.to_stride : 0;
      for (int64_t r = 0; r < rows && p.to == edge; ++r) std::memcpy(edge + r * 32, y + r * a.ldy, 32 * 4);
      if (rows == 32) {
        AmxMultiply<Tiles, 2>(p);
      } else {
        AmxMultiply<Tiles, 1>(p);
      }
      for (int64_t r = 0; r < rows && p.to == edge; ++r) std::memcpy(y + r * a.ldy, edge + r * 32, 32 * 4);
      m += rows;
    }
  }
  Tiles::Release();
}

}  // namespace assay::cpu
