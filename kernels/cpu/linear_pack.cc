// SPDX-License-Identifier: Apache-2.0
// Packing of weights into the layouts of linear_kernels.h, and embedding look-ups in them.
#include <algorithm>
#include <cstring>

#include "kernels/cpu/linear_kernels.h"
#include "kernels/ref/convert.h"

namespace assay::cpu {
namespace {

bool IsBlock(DType dtype) {
  return LayoutOf(dtype).cols > 0;
}

int64_t RoundUp(int64_t n, int64_t unit) {
  return (n + unit - 1) / unit * unit;
}

// A block of one row as it lies in a file: see the ABI header for the layouts.
struct SourceBlock {
  int64_t cols, bytes;
  int quants;  // where the quantities begin
};
constexpr SourceBlock SourceOf(DType dtype) {
  const Storage storage = StorageOf(dtype);
  switch (dtype) {
    case DType::kI8:
      return {kPieceCols, kPieceCols, 0};  // of a row
    case DType::kQ4_1:
    case DType::kI4_G128:
      return {storage.elements, storage.bytes, 4};
    case DType::kQ5_0:
      return {storage.elements, storage.bytes, 6};
    case DType::kQ5_1:
      return {storage.elements, storage.bytes, 8};
    case DType::kQ4_K:
      return {storage.elements, storage.bytes, 16};
    case DType::kQ5_K:
      return {storage.elements, storage.bytes, 48};
    case DType::kQ6_K:
      return {storage.elements, storage.bytes, 0};
    default:  // Q8_0, Q4_0
      return {storage.elements, storage.bytes, 2};
  }
}

int64_t SourceRowBytes(const WeightSpec& spec) {
  const Storage storage = StorageOf(spec.dtype);
  return spec.cols / storage.elements * storage.bytes;
}

bool HasMin(DType dtype) {
  return OffsetOf(dtype) == 0;
}
int FifthBits(DType dtype) {  // above the nibbles
  return dtype == DType::kQ5_0 || dtype == DType::kQ5_1 || dtype == DType::kQ5_K ? 1 : dtype == DType::kQ6_K ? 2 : 0;
}

uint32_t Load32(const uint8_t* p) {
  uint32_t v;
  std::memcpy(&v, p, 4);
  return v;
}

// [rows][cols] of T, `pitch` bytes from row to row -> [cols][64]. Columns of 64 rows at a time: what is written stays
// in the L1 cache until its lines are full.
template <class T>
void TransposePanel(const std::byte* src, int64_t pitch, int64_t rows, int64_t cols, std::byte* dst) {
  constexpr int64_t kCols = 64 / sizeof(T);
  const auto put = [&](int64_t n, int64_t k) {
    std::memcpy(dst + (k * kPanelRows + n) * sizeof(T), src + n * pitch + k * sizeof(T), sizeof(T));
  };
  for (int64_t k0 = 0; k0 < cols; k0 += kCols) {
    if (k0 + kCols <= cols) {
      for (int64_t n = 0; n < rows; ++n) {
        for (int64_t k = 0; k < kCols; ++k) put(n, k0 + k);
      }
    } else {
      for (int64_t n = 0; n < rows; ++n) {
        for (int64_t k = k0; k < cols; ++k) put(n, k);
      }
    }
  }
}

void PackPanel(const WeightSpec& spec, const std::byte* src, int64_t rows, std::byte* dst) {
  const int64_t pitch = SourceRowBytes(spec), cols = spec.cols;
  const bool pairs = spec.dtype == DType::kBF16;
  if (rows < kPanelRows || (pairs && cols % 32 != 0)) std::memset(dst, 0, PanelBytes(spec));
  if (spec.dtype == DType::kF16) return TransposePanel<uint16_t>(src, pitch, rows, cols, dst);
  TransposePanel<uint32_t>(src, pitch, rows, pairs ? cols / 2 : cols, dst);
  if (pairs && cols % 2 != 0) {  // the last column, beside a zero
    for (int64_t n = 0; n < rows; ++n) {
      std::memcpy(dst + (cols / 2 * kPanelRows + n) * 4, src + n * pitch + (cols - 1) * 2, 2);
    }
  }
}

// The unsigned quantities of a block, in the order of its columns.
void ReadQuants(DType dtype, const uint8_t* from, uint8_t* q) {
  const SourceBlock source = SourceOf(dtype);
  const uint8_t* const at = from + source.quants;
  if (OffsetOf(dtype) == 128) {
    for (int i = 0; i < 32; ++i) q[i] = at[i] ^ 0x80;
  } else if (dtype == DType::kQ6_K) {
    for (int i = 0; i < 256; ++i) {
      const int n = i / 128, t = i / 32 % 4, l = i % 32;
      const int low = at[64 * n + 32 * (t % 2) + l] >> (t / 2 * 4) & 15;
      q[i] = low | (at[128 + 32 * n + l] >> 2 * t & 3) << 4;
    }
  } else if (source.cols == 256) {
    for (int i = 0; i < 256; ++i) q[i] = at[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
    for (int i = 0; i < 256 && dtype == DType::kQ5_K; ++i) q[i] |= (at[i % 32 - 32] >> i / 32 & 1) << 4;
  } else {
    const int half = source.cols / 2;
    for (int i = 0; i < half; ++i) q[i] = at[i] & 15, q[half + i] = at[i] >> 4;
    if (FifthBits(dtype) > 0) {
      const uint32_t bits = Load32(at - 4);
      for (int i = 0; i < 32; ++i) q[i] |= (bits >> i & 1) << 4;
    }
  }
}

// 32 quantities of row n into a piece.
void PackPiece(DType dtype, const uint8_t* q, int64_t n, std::byte* piece) {
  const auto put = [&](int group, uint32_t four) { std::memcpy(piece + group * 128 + n * 4, &four, 4); };
  if (OffsetOf(dtype) == 128) {
    for (int j = 0; j < 8; ++j) put(j, Load32(q + j * 4));
    return;
  }
  for (int j = 0; j < 4; ++j) put(j, (Load32(q + j * 4) & 0x0f0f0f0f) | (Load32(q + 16 + j * 4) & 0x0f0f0f0f) << 4);
  if (FifthBits(dtype) == 1) {
    uint32_t bits = 0;
    for (int j = 0; j < 8; ++j) bits |= (Load32(q + j * 4) >> 4 & 0x01010101) << j;
    put(4, bits);
  } else if (FifthBits(dtype) == 2) {
    uint32_t bits[2] = {};
    for (int j = 0; j < 8; ++j) bits[j / 4] |= (Load32(q + j * 4) >> 4 & 0x03030303) << (j % 4 * 2);
    put(4, bits[0]), put(5, bits[1]);
  }
}

// The scales of block `from` of row n into the head of a packed block, in which it begins with piece p.
void PackHead(DType dtype, const uint8_t* from, int64_t n, int p, std::byte* head) {
  if (dtype == DType::kI8) return;
  if (SourceOf(dtype).cols == 32) {
    std::memcpy(head + p * 64 + n * 2, from, 2);
    if (HasMin(dtype)) std::memcpy(head + 128 + p * 64 + n * 2, from + 2, 2);
    return;
  }
  if (dtype == DType::kQ6_K) {
    std::memcpy(head + n * 2, from + 208, 2);
    for (int i = 0; i < 4; ++i) std::memcpy(head + 64 + i * 128 + n * 4, from + 192 + i * 4, 4);
    return;
  }
  std::memcpy(head + n * 2, from, 2);
  std::memcpy(head + 64 + n * 2, from + 2, 2);
  if (dtype == DType::kI4_G128) return;
  const uint8_t* const s = from + 4;
  uint32_t words[3] = {};
  for (int j = 0; j < 8; ++j) {
    const uint32_t scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    const uint32_t min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
    const int shift = j % 4 * 8;
    words[j / 4] |= ((scale & 15) | (min & 15) << 4) << shift;
    words[2] |= (scale >> 4 | (min >> 4) << 2) << (shift + j / 4 * 4);
  }
  for (int i = 0; i < 3; ++i) std::memcpy(head + 128 + i * 128 + n * 4, &words[i], 4);
}

// scales: of the panel's rows, for types that have one per row.
void PackBlockPanel(DType dtype, const std::byte* src, const float* scales, int64_t rows, int64_t cols, std::byte* dst,
                    int64_t panel_bytes) {
  const SourceBlock source = SourceOf(dtype);
  const BlockLayout layout = LayoutOf(dtype);
  const int64_t row_bytes = SourceRowBytes({dtype, DType::kNone, rows, cols});
  if (rows < kBlockRows || cols % layout.cols != 0) std::memset(dst, 0, panel_bytes);
  if (scales != nullptr) std::memcpy(dst, scales, rows * sizeof(float));
  uint8_t q[256], padded[32] = {};
  for (int64_t column = 0; column < cols; column += source.cols) {
    std::byte* const block = dst + PanelHeadBytes(dtype) + column / layout.cols * layout.bytes();
    const int first = column % layout.cols / kPieceCols;
    for (int64_t n = 0; n < rows; ++n) {
      const auto* from = reinterpret_cast<const uint8_t*>(src + n * row_bytes + column / source.cols * source.bytes);
      if (column + source.cols > cols) {  // only I8 rows end within a piece
        std::memcpy(padded, from, cols - column);
        from = padded;
      }
      PackHead(dtype, from, n, first, block);
      ReadQuants(dtype, from, q);
      for (int p = 0; p < source.cols / kPieceCols; ++p) {
        PackPiece(dtype, q + p * kPieceCols, n, block + layout.head_bytes + (first + p) * layout.piece_bytes);
      }
    }
  }
}

// What 32 columns of row n are made of: the quantity of column i, x = d[i / 16] * q + lowest.
struct Piece {
  const std::byte* at;
  float d[2], lowest;
};
Piece OpenPiece(DType dtype, const std::byte* panel, const std::byte* block, int p, int64_t n) {
  const BlockLayout layout = LayoutOf(dtype);
  const auto half = [&](int64_t at) {
    uint16_t h;
    std::memcpy(&h, block + at, 2);
    return ref::F16ToF32(h);
  };
  const auto byte = [&](int64_t at) { return static_cast<uint8_t>(block[at]); };
  Piece piece{block + layout.head_bytes + p * layout.piece_bytes, {}, 0};
  if (dtype == DType::kI8) {
    float scale;
    std::memcpy(&scale, panel + n * 4, 4);
    piece.d[0] = piece.d[1] = scale;
    return piece;
  }
  const int64_t at = (SourceOf(dtype).cols == 32 ? p * 64 : 0) + n * 2;
  piece.d[0] = piece.d[1] = half(at);
  if (dtype == DType::kQ6_K) {
    for (int h = 0; h < 2; ++h) {
      piece.d[h] *= static_cast<int8_t>(byte(64 + p / 2 * 128 + n * 4 + p % 2 * 2 + h));
    }
  } else if (dtype == DType::kI4_G128) {
    piece.lowest = half(64 + at);
  } else if (SourceOf(dtype).cols == 256) {
    const int64_t s = 128 + n * 4 + p % 4;
    const int low = byte(s + p / 4 * 128), high = byte(s + 256) >> p / 4 * 4;
    piece.d[0] = piece.d[1] *= (low & 15) | (high & 3) << 4;
    piece.lowest = -half(64 + at) * (low >> 4 | (high >> 2 & 3) << 4);
  } else if (HasMin(dtype)) {
    piece.lowest = half(128 + at);
  }
  return piece;
}
int QuantAt(DType dtype, const Piece& piece, int64_t n, int i) {
  const auto byte = [&](int group) { return static_cast<int>(piece.at[group * 128 + n * 4 + i % 4]); };
  if (OffsetOf(dtype) == 128) return byte(i / 4);
  const int low = byte(i / 4 % 4) >> i / 16 * 4 & 15;
  switch (FifthBits(dtype)) {
    case 1:
      return low | (byte(4) >> i / 4 & 1) << 4;
    case 2:
      return low | (byte(4 + i / 16) >> i / 4 % 4 * 2 & 3) << 4;
    default:
      return low;
  }
}

// Columns [k0, k1), within one block of 64, of a row.
void ReadRow(const WeightSpec& spec, const std::byte* packed, int64_t row, int64_t k0, int64_t k1, float* y) {
  if (!IsBlock(spec.dtype)) {
    const std::byte* const panel = packed + row / kPanelRows * PanelBytes(spec);
    const int64_t n = row % kPanelRows;
    for (int64_t k = k0; k < k1; ++k) {
      uint16_t half;
      if (spec.dtype == DType::kF32) {
        std::memcpy(y + k, panel + (k * kPanelRows + n) * 4, 4);
      } else if (spec.dtype == DType::kF16) {
        std::memcpy(&half, panel + (k * kPanelRows + n) * 2, 2);
        y[k] = ref::F16ToF32(half);
      } else {
        std::memcpy(&half, panel + ((k / 2 * kPanelRows + n) * 2 + k % 2) * 2, 2);
        y[k] = ref::BF16ToF32(half);
      }
    }
    return;
  }
  const BlockLayout layout = LayoutOf(spec.dtype);
  const std::byte* const panel = packed + row / kBlockRows * PanelBytes(spec);
  const std::byte* const block = panel + PanelHeadBytes(spec.dtype) + k0 / layout.cols * layout.bytes();
  const int64_t n = row % kBlockRows;
  for (int64_t k = k0; k < k1; k += kPieceCols) {
    const Piece piece = OpenPiece(spec.dtype, panel, block, k % layout.cols / kPieceCols, n);
    for (int i = 0; i < std::min<int64_t>(kPieceCols, k1 - k); ++i) {
      y[k + i] = piece.d[i / 16] * (QuantAt(spec.dtype, piece, n, i) - OffsetOf(spec.dtype)) + piece.lowest;
    }
  }
}

}  // namespace

const char* WeightUnsupported(const WeightSpec& spec) {
  constexpr int64_t kMost = int64_t{1} << 31;  // keeps every product of sizes below within 64 bits
  const DType d = spec.dtype;
  if (d != DType::kF32 && d != DType::kF16 && d != DType::kBF16 && !IsBlock(d)) {
    return "the weight's dtype is not one of f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k, i4_g128, "
           "i8";
  }
  if (spec.compute != DType::kNone && spec.compute != DType::kF32) return "the compute dtype is neither none nor f32";
  if (spec.rows < 1 || spec.cols < 1 || spec.rows > kMost || spec.cols > kMost) {
    return "the weight's rows or columns are not within 1 .. 2^31";
  }
  if (IsBlock(d) && d != DType::kI8 && spec.cols % SourceOf(d).cols != 0)
    return "the columns are not a whole number of blocks";
  return nullptr;
}

int64_t PanelBytes(const WeightSpec& spec) {
  switch (spec.dtype) {
    case DType::kF32:
      return spec.cols * kPanelRows * 4;
    case DType::kF16:
      return spec.cols * kPanelRows * 2;
    case DType::kBF16:
      return RoundUp(spec.cols, 32) * kPanelRows * 2;
    default: {
      const BlockLayout layout = LayoutOf(spec.dtype);
      return PanelHeadBytes(spec.dtype) + RoundUp(spec.cols, layout.cols) / layout.cols * layout.bytes();
    }
  }
}

size_t PackedWeightBytes(const WeightSpec& spec) {
  const int64_t rows = IsBlock(spec.dtype) ? kBlockRows : kPanelRows;
  return RoundUp(spec.rows, rows) / rows * PanelBytes(spec);
}

void PackWeight(const WeightSpec& spec, const void* src, const float* scales, void* dst, const Team& team) {
  const bool block = IsBlock(spec.dtype);
  const int64_t height = block ? kBlockRows : kPanelRows, panel_bytes = PanelBytes(spec);
  const int64_t row_bytes = SourceRowBytes(spec);
  const Share share = Split(spec.rows, height, team);
  for (int64_t n = share.begin; n < share.end; n += height) {
    const std::byte* const from = static_cast<const std::byte*>(src) + n * row_bytes;
    std::byte* const to = static_cast<std::byte*>(dst) + n / height * panel_bytes;
    const int64_t rows = std::min(height, spec.rows - n);
    if (block) {
      PackBlockPanel(spec.dtype, from, scales == nullptr ? nullptr : scales + n, rows, spec.cols, to, panel_bytes);
    } else {
      PackPanel(spec, from, rows, to);
    }
  }
}

void Embed(const WeightSpec& spec, const View& ids, const void* packed, const View& y, const Team& team) {
  const int64_t pieces = RoundUp(spec.cols, kBlockCols) / kBlockCols;
  const Share share = Split(ids.shape[0] * pieces, 1, team);
  for (int64_t i = share.begin; i < share.end; ++i) {
    const int64_t t = i / pieces, k0 = i % pieces * kBlockCols, k1 = std::min<int64_t>(k0 + kBlockCols, spec.cols);
    const int64_t id = ids.as<const int32_t>()[t * ids.stride[0]];
    float* const row = y.as<float>() + t * y.stride[0];
    if (id < 0 || id >= spec.rows) {
      std::fill(row + k0, row + k1, 0.0f);
    } else {
      ReadRow(spec, static_cast<const std::byte*>(packed), id, k0, k1, row);
    }
  }
}

}  // namespace assay::cpu
