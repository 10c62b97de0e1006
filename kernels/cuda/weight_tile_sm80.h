// SPDX-License-Identifier: Apache-2.0
// Packed weights as operands of tensor cores (capability 8.0 and later): copies of a tile from device to shared memory
// with cp.async, and from there registers of the A operand of m16n8k16, in which lane 4 * g + t has rows g and g + 8.
// The order of columns is that of the packed layout (weight_block.h), and x is read in the same: a run of 8 columns
// makes two instructions, of its columns 0..3 and 4..7. Device functions, called by all lanes of a warp together.
#pragma once

#include <type_traits>

#include "kernels/cuda/mma_sm80.h"
#include "kernels/cuda/pair_sm80.h"
#include "kernels/cuda/weight_block.h"

namespace assay::gpu {

__device__ __forceinline__ void Mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Bf16) {
  MmaBf16(c, a, b);
}
__device__ __forceinline__ void Mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], F16) {
  MmaF16(c, a, b);
}

__device__ __forceinline__ uint32_t Component(uint4 v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// ---- Tiles. Of a tile of 16 rows and kTileK columns, shared memory holds kVectors vectors for each lane, [vector,
// lane], and behind them kScaleBytes. kScaled: Pairs gives quants without their scale, which Scale gives.

template <class Format>
struct WeightTile;

template <class T>
struct WeightTile<PlainFormat<T>> {
  using Format = PlainFormat<T>;
  using Half = T;
  static constexpr int kVectors = Format::kVectors, kScaleBytes = 0, kRunsPerGroup = 1;
  static constexpr bool kScaled = false, kMin = false;
  const uint8_t* row[2];
  int64_t row_bytes;

  __device__ __forceinline__ WeightTile(const WeightRef& w, int64_t row_tile, int lane) : row_bytes(w.row_bytes) {
    GPU_UNROLL
    for (int h = 0; h < 2; ++h) {
      int64_t at = row_tile * kTileRows + lane / 4 + 8 * h;
      if (at >= w.rows) at = w.rows - 1;
      row[h] = w.data + at * w.row_bytes;
    }
  }
  __device__ __forceinline__ void Copy(int k_tile, int lane, uint4* to) const {
    GPU_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const int64_t at = (static_cast<int64_t>(k_tile) * Format::kTileK + Format::Column(v / 2, lane % 4)) * 2;
      const bool valid = at < row_bytes;
      CopyAsync16(to + v * 32 + lane, row[v % 2] + (valid ? at : 0), valid);
    }
  }
  // The columns of run j of row g + 8 * h, as four pairs.
  __device__ __forceinline__ static void Pairs(const uint4* tile, int lane, int j, int h, uint32_t (&pair)[4]) {
    const uint4 v = tile[(2 * j + h) * 32 + lane];
    pair[0] = v.x;
    pair[1] = v.y;
    pair[2] = v.z;
    pair[3] = v.w;
  }
};

// 4-bit quants of a word as pairs of bf16. Behind the bits of 128 a nibble is the value 128 + q, exactly.
template <int kZero>
__device__ __forceinline__ void NibblePairs(uint32_t word, uint32_t (&pair)[4]) {
  constexpr uint32_t kOne = 0x3f803f80u, kMinusOffset = kZero == 8 ? 0xc308c308u : 0xc300c300u;  // -136, -128
  static_assert(kZero == 8 || kZero == 0, "the offsets above");
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) pair[i] = FmaBf16(MaskOr(word >> 4 * i, 0x000f000fu, 0x43004300u), kOne, kMinusOffset);
}
// 8-bit quants, kept as q + 128, of two words. Behind the bits of 2^23 a byte is the float 2^23 + byte.
__device__ __forceinline__ void BytePairs(uint32_t low, uint32_t high, uint32_t (&pair)[4]) {
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) {
    const uint32_t word = i < 2 ? low : high;
    const float a = __uint_as_float(Permute(word, 0x4b000000u, i % 2 == 0 ? 0x7440u : 0x7442u)) - 8388736.0f;
    const float b = __uint_as_float(Permute(word, 0x4b000000u, i % 2 == 0 ? 0x7441u : 0x7443u)) - 8388736.0f;
    pair[i] = Permute(__float_as_uint(a), __float_as_uint(b), 0x7632);  // 8 bits each: nothing is cut off
  }
}
// e4m3 of two words.
__device__ __forceinline__ void E4m3Pairs(uint32_t low, uint32_t high, uint32_t (&pair)[4]) {
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) pair[i] = E4m3Pair(i < 2 ? low : high, i % 2 == 0 ? kBytes01 : kBytes23);
}

template <int kBits, int kGroup, bool kMin_, int kZero>
struct WeightTile<RecordFormat<kBits, kGroup, kMin_, kZero>> {
  using Format = RecordFormat<kBits, kGroup, kMin_, kZero>;
  using Half = Bf16;
  static constexpr int kVectors = Format::kVectors, kScaleBytes = Format::kScaleBytes, kRunsPerGroup = kGroup / 32;
  static constexpr bool kScaled = true, kMin = kMin_;
  const uint8_t* record;

  __device__ __forceinline__ WeightTile(const WeightRef& w, int64_t row_tile, int)
      : record(Format::Record(w, row_tile < w.padded_rows / kTileRows ? row_tile : 0, 0)) {}
  __device__ __forceinline__ void Copy(int k_tile, int lane, uint4* to) const {
    const uint8_t* from = record + static_cast<int64_t>(k_tile) * Format::kRecordBytes + lane * 16;
    GPU_UNROLL
    for (int v = 0; v < kVectors; ++v) CopyAsync16(to + v * 32 + lane, from + v * 512);
    if (lane < kScaleBytes / 16) CopyAsync16(to + kVectors * 32 + lane, from + kVectors * 512);
  }
  __device__ __forceinline__ static void Pairs(const uint4* tile, int lane, int j, int h, uint32_t (&pair)[4]) {
    const int byte = (2 * j + h) * kBits;
    const uint4 v = tile[byte / 16 * 32 + lane];
    if constexpr (kBits == 4) {
      NibblePairs<kZero>(Component(v, byte % 16 / 4), pair);
    } else {
      BytePairs(Component(v, byte % 16 / 4), Component(v, byte % 16 / 4 + 1), pair);
    }
  }
  // d and m of run j, row g + 8 * h.
  __device__ __forceinline__ static float2 Scale(const uint4* tile, int lane, int j, int h) {
    constexpr int kWords = Format::kScaleWords;
    const auto* at = reinterpret_cast<const uint32_t*>(tile + kVectors * 32) + lane / 4 * kWords;
    uint32_t words[kWords];
    GPU_UNROLL
    for (int i = 0; i < kWords; i += 2) {
      const uint2 two = *reinterpret_cast<const uint2*>(at + i);
      words[i] = two.x;
      words[i + 1] = two.y;
    }
    return Format::Scale(words, j, h);
  }
};

__device__ __forceinline__ void QuantPairs(uint32_t low, uint32_t high, uint32_t (&pair)[4], E4m3) {
  E4m3Pairs(low, high, pair);
}
__device__ __forceinline__ void QuantPairs(uint32_t low, uint32_t high, uint32_t (&pair)[4], Int8) {
  BytePairs(low ^ 0x80808080u, high ^ 0x80808080u, pair);
}

template <class Quant>
struct WeightTile<ByteFormat<Quant>> {
  using Format = ByteFormat<Quant>;
  using Half = Bf16;
  static constexpr int kVectors = Format::kVectors, kScaleBytes = kTileRows * 4, kRunsPerGroup = 4;
  static constexpr bool kScaled = true, kMin = false;
  const uint8_t* row[2];
  const float* scales;
  int64_t scale_step;

  __device__ __forceinline__ WeightTile(const WeightRef& w, int64_t row_tile, int lane) : scale_step(w.scale_step) {
    GPU_UNROLL
    for (int h = 0; h < 2; ++h) {
      int64_t at = row_tile * kTileRows + lane / 4 + 8 * h;
      if (at >= w.rows) at = w.rows - 1;
      row[h] = w.data + at * w.row_bytes + 16 * (lane % 4);
    }
    scales = w.scales + (row_tile < w.padded_rows / kTileRows ? row_tile : 0) * kTileRows;
  }
  __device__ __forceinline__ void Copy(int k_tile, int lane, uint4* to) const {
    GPU_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      CopyAsync16(to + v * 32 + lane, row[v % 2] + static_cast<int64_t>(k_tile) * Format::kTileK + 64 * (v / 2));
    }
    if (lane < kScaleBytes / 16) CopyAsync16(to + kVectors * 32 + lane, scales + k_tile * scale_step + lane * 4);
  }
  __device__ __forceinline__ static void Pairs(const uint4* tile, int lane, int j, int h, uint32_t (&pair)[4]) {
    const uint4 v = tile[(j / 2 * 2 + h) * 32 + lane];
    QuantPairs(j % 2 == 0 ? v.x : v.z, j % 2 == 0 ? v.y : v.w, pair, Quant{});
  }
  __device__ __forceinline__ static float2 Scale(const uint4* tile, int lane, int, int h) {
    return make_float2(reinterpret_cast<const float*>(tile + kVectors * 32)[lane / 4 + 8 * h], 0.0f);
  }
};

// Bytes of shared memory for a tile.
template <class Format>
constexpr int kTileBytes = WeightTile<Format>::kVectors * 512 + WeightTile<Format>::kScaleBytes;

// Columns of run j as the A operands of its two instructions.
template <class Format>
__device__ __forceinline__ void LoadOperands(const uint4* tile, int lane, int j, uint32_t (&a)[2][4]) {
  uint32_t pair[2][4];
  WeightTile<Format>::Pairs(tile, lane, j, 0, pair[0]);
  WeightTile<Format>::Pairs(tile, lane, j, 1, pair[1]);
  GPU_UNROLL
  for (int s = 0; s < 2; ++s) {
    GPU_UNROLL
    for (int i = 0; i < 4; ++i) a[s][i] = pair[i % 2][2 * s + i / 2];
  }
}
// What a lane has of x for a run: its columns of one row.
__device__ __forceinline__ void SplitOperand(uint4 x, uint32_t (&b)[2][2]) {
  b[0][0] = x.x;
  b[0][1] = x.y;
  b[1][0] = x.z;
  b[1][1] = x.w;
}

// Formats that tensor cores take: all but f32.
template <class F>
void WithTensorFormat(DType dtype, const F& f) {
  WithFormat(dtype, [&](auto format) {
    if constexpr (!std::is_same_v<decltype(format), PlainFormat<float>>) f(format);
  });
}

}  // namespace assay::gpu
