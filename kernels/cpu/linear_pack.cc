// SPDX-License-Identifier: Apache-2.0
// Packing of weights into the layouts of linear_kernels.h, and embedding look-ups in them.
#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/cpu/linear_kernels.h"

namespace assay::cpu {
namespace {

bool IsBlock(DType dtype) {
  return dtype >= DType::kQ8_0;
}

int64_t RoundUp(int64_t n, int64_t unit) {
  return (n + unit - 1) / unit * unit;
}

// What a block of 32 columns of one row takes in GGUF, and where its parts go in a packed block of 32 x 64.
struct BlockLayout {
  int source_bytes;
  int header_bytes;  // scale, and min where there is one, in the source
  int scale_bytes;   // in the packed block
  int half_bytes;
  int quants;    // pieces of 4 bytes per row and half
  uint8_t flip;  // makes the bytes unsigned
};
constexpr BlockLayout LayoutOf(DType dtype) {
  if (dtype == DType::kQ8_0) return {34, 2, 128, 1024, 8, 0x80};
  if (dtype == DType::kQ4_0) return {18, 2, 128, 512, 4, 0};
  return {20, 4, 256, 512, 4, 0};
}

float HalfToFloat(uint16_t h) {
  const uint32_t bits = (h & 0x7fffu) << 13;
  const uint32_t magnitude =
      bits >= 0x0f800000 ? bits | 0x7f800000 : std::bit_cast<uint32_t>(std::bit_cast<float>(bits) * 0x1p112f);
  return std::bit_cast<float>(magnitude | (h & 0x8000u) << 16);
}

// kPair columns of one row lie together: [cols / kPair][64][kPair].
template <class T, int kPair>
void PackPanel(const std::byte* src, int64_t rows, int64_t cols, std::byte* dst, int64_t panel_bytes) {
  constexpr int64_t kCols = 32;  // a tile of 64 x 32 stays in the L1 cache
  if (rows < kPanelRows || cols % kPair != 0 || cols % kCols != 0) std::memset(dst, 0, panel_bytes);
  for (int64_t k0 = 0; k0 < cols; k0 += kCols) {
    const int64_t k1 = std::min(k0 + kCols, cols);
    for (int64_t n = 0; n < rows; ++n) {
      for (int64_t k = k0; k < k1; ++k) {
        const int64_t at = (k / kPair * kPanelRows + n) * kPair + k % kPair;
        std::memcpy(dst + at * sizeof(T), src + (n * cols + k) * sizeof(T), sizeof(T));
      }
    }
  }
}

void PackBlockPanel(const BlockLayout& layout, const std::byte* src, int64_t rows, int64_t cols, std::byte* dst,
                    int64_t panel_bytes) {
  const int64_t blocks = cols / 32;
  if (rows < kBlockRows || blocks % 2 != 0) std::memset(dst, 0, panel_bytes);
  for (int64_t b = 0; b < blocks; ++b) {
    std::byte* const block = dst + b / 2 * (layout.scale_bytes + 2 * layout.half_bytes);
    std::byte* const half = block + layout.scale_bytes + b % 2 * layout.half_bytes;
    for (int64_t n = 0; n < rows; ++n) {
      const std::byte* const from = src + (n * blocks + b) * layout.source_bytes;
      for (int i = 0; i < layout.header_bytes / 2; ++i) {
        std::memcpy(block + i * 128 + b % 2 * 64 + n * 2, from + i * 2, 2);
      }
      for (int i = 0; i < layout.quants; ++i) {
        uint32_t four;
        std::memcpy(&four, from + layout.header_bytes + i * 4, 4);
        four ^= layout.flip * 0x01010101u;
        std::memcpy(half + i * 128 + n * 4, &four, 4);
      }
    }
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
        y[k] = HalfToFloat(half);
      } else {
        std::memcpy(&half, panel + ((k / 2 * kPanelRows + n) * 2 + k % 2) * 2, 2);
        y[k] = std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
      }
    }
    return;
  }
  const BlockLayout layout = LayoutOf(spec.dtype);
  const std::byte* const block =
      packed + row / kBlockRows * PanelBytes(spec) + k0 / kBlockCols * (layout.scale_bytes + 2 * layout.half_bytes);
  const int64_t n = row % kBlockRows;
  const int offset = layout.quants == 8 ? 128 : 8;
  for (int64_t k = k0; k < k1; ++k) {
    const int64_t half = k / 32 % 2, i = k % 32;
    uint16_t header[2] = {0, 0};
    for (int h = 0; h < layout.header_bytes / 2; ++h) std::memcpy(&header[h], block + h * 128 + half * 64 + n * 2, 2);
    const int64_t piece = i / 4 % layout.quants;
    int q = static_cast<int>(block[layout.scale_bytes + half * layout.half_bytes + piece * 128 + n * 4 + i % 4]);
    if (layout.quants == 4) q = i < 16 ? q & 15 : q >> 4;
    const float d = HalfToFloat(header[0]);
    y[k] = spec.dtype == DType::kQ4_1 ? d * q + HalfToFloat(header[1]) : d * (q - offset);
  }
}

}  // namespace

const char* WeightUnsupported(const WeightSpec& spec) {
  constexpr int64_t kMost = int64_t{1} << 31;  // keeps every product of sizes below within 64 bits
  const DType d = spec.dtype;
  if (d != DType::kF32 && d != DType::kF16 && d != DType::kBF16 && d != DType::kQ8_0 && d != DType::kQ4_0 &&
      d != DType::kQ4_1) {
    return "the weight's dtype is not one of f32, f16, bf16, q8_0, q4_0, q4_1";
  }
  if (spec.compute != DType::kNone && spec.compute != DType::kF32) return "the compute dtype is neither none nor f32";
  if (spec.rows < 1 || spec.cols < 1 || spec.rows > kMost || spec.cols > kMost) {
    return "the weight's rows or columns are not within 1 .. 2^31";
  }
  if (IsBlock(d) && spec.cols % 32 != 0) return "the columns of a block type are not a multiple of 32";
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
      return RoundUp(spec.cols, kBlockCols) / kBlockCols * (layout.scale_bytes + 2 * layout.half_bytes);
    }
  }
}

size_t PackedWeightBytes(const WeightSpec& spec) {
  const int64_t rows = IsBlock(spec.dtype) ? kBlockRows : kPanelRows;
  return RoundUp(spec.rows, rows) / rows * PanelBytes(spec);
}

void PackWeight(const WeightSpec& spec, const void* src, void* dst, const Team& team) {
  const bool block = IsBlock(spec.dtype);
  const int64_t height = block ? kBlockRows : kPanelRows, panel_bytes = PanelBytes(spec);
  const int64_t element_bytes = spec.dtype == DType::kF32 ? 4 : 2;
  const int64_t row_bytes = block ? spec.cols / 32 * LayoutOf(spec.dtype).source_bytes : spec.cols * element_bytes;
  const Share share = Split(spec.rows, height, team);
  for (int64_t n = share.begin; n < share.end; n += height) {
    const std::byte* const from = static_cast<const std::byte*>(src) + n * row_bytes;
    std::byte* const to = static_cast<std::byte*>(dst) + n / height * panel_bytes;
    const int64_t rows = std::min(height, spec.rows - n);
    if (block) {
      PackBlockPanel(LayoutOf(spec.dtype), from, rows, spec.cols, to, panel_bytes);
    } else if (spec.dtype == DType::kF32) {
      PackPanel<uint32_t, 1>(from, rows, spec.cols, to, panel_bytes);
    } else if (spec.dtype == DType::kF16) {
      PackPanel<uint16_t, 1>(from, rows, spec.cols, to, panel_bytes);
    } else {
      PackPanel<uint16_t, 2>(from, rows, spec.cols, to, panel_bytes);
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
