// SPDX-License-Identifier: Apache-2.0
// How packed weights lie in device memory, and how a kernel reads them. A weight [rows, cols] is cut into tiles of 16
// rows; 32 lanes read a tile together as the A operand of mma.m16n8k16 wants it: lane 4 * g + t (g < 8, t < 4) has rows
// g and g + 8 and, of every 32 columns, 8 that follow one another. Vectors of 16 bytes are therefore both what a lane
// loads and what it feeds to a tensor core, without shared memory or shuffles between; x is read in the same order.
//   F32, F16, BF16   row-major; a row is padded with zeros to whole vectors. (cuBLASLt reads the same bytes.)
//   F8_B128, F8_E4M3, I8   row-major bytes, a row padded with zeros to 128; behind them the scales, f32 [cols / 128,
//                    rows padded to 16], or [rows padded to 16] of a dtype with one for each row (as cuBLASLt wants).
//   the others       records, one per tile of 16 rows and kTileK columns, row tile by row tile, columns inside: for
//   each
//                    lane its quants, kVectors vectors [vector, lane], then for each g the scales of rows g and g + 8.
//                    Rows are padded to 16, columns to kTileK, with zeros.
// Bytes: Q8_0 17 for 16 weights, Q4_0 9, Q4_1 10, I4_G128 8.5, F8_B128 16.5, F8_E4M3 and I8 16: what a file takes.
// Plain data and device functions, any thread; owns nothing.
#pragma once

#include "kernels/cuda/linear.h"
#include "kernels/cuda/numeric.h"

namespace assay::gpu {

constexpr int kTileRows = 16;

// A packed weight, as kernels get it.
struct WeightRef {
  const uint8_t* data;
  const float* scales;  // F8_B128, F8_E4M3, I8
  int64_t rows, cols;
  int64_t row_bytes;    // row-major formats: from row to row; of records: from row tile to row tile
  int64_t padded_rows;  // a multiple of kTileRows
  int64_t scale_step;   // from a row's scale to that of its next 128 columns; 0: the same
};

// The columns of a tile that lane t has, in runs of 8: run j begins at column Column(j, t). kRuns = kTileK / 32.
// Unless a format says otherwise.
__device__ __forceinline__ int RunColumn(int j, int t) {
  return 32 * j + 8 * t;
}

// ---- Row-major

template <class T>
struct PlainFormat {
  static constexpr int kTileK = sizeof(T) == 4 ? 32 : 64;
  static constexpr int kRuns = kTileK / 32;
  static constexpr int kVectors = kRuns * 2 * 8 * static_cast<int>(sizeof(T)) / 16;
  struct Raw {
    uint4 q[kVectors];
  };

  __device__ __forceinline__ static int Column(int j, int t) { return RunColumn(j, t); }
  // The tile's part of lane (g, t); rows and columns beyond the weight are some row, and zeros.
  __device__ __forceinline__ static void Load(const WeightRef& w, int64_t row_tile, int64_t k_tile, int g, int t,
                                              Raw* raw) {
    constexpr int kEach = kVector<T>;
    GPU_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const int per_run = 8 / kEach, j = v / (2 * per_run), h = v / per_run % 2, part = v % per_run;
      int64_t row = row_tile * kTileRows + g + 8 * h;
      if (row >= w.rows) row = w.rows - 1;
      const int64_t at = (k_tile * kTileK + Column(j, t) + part * kEach) * static_cast<int64_t>(sizeof(T));
      raw->q[v] = at < w.row_bytes ? LoadVector(w.data + row * w.row_bytes + at) : make_uint4(0, 0, 0, 0);
    }
  }
  // Run j of row g + 8 * h.
  __device__ __forceinline__ static void Run(const Raw& raw, int j, int h, float (&out)[8]) {
    constexpr int kEach = kVector<T>;
    GPU_UNROLL
    for (int part = 0; part < 8 / kEach; ++part) {
      float x[kEach];
      Unpack<T>(raw.q[(2 * j + h) * (8 / kEach) + part], x);
      GPU_UNROLL
      for (int i = 0; i < kEach; ++i) out[part * kEach + i] = x[i];
    }
  }
  // 8 columns of one row; k is a multiple of 8 within the padded row.
  __device__ __forceinline__ static void Load8(const WeightRef& w, int64_t row, int64_t k, float (&out)[8]) {
    constexpr int kEach = kVector<T>;
    GPU_UNROLL
    for (int part = 0; part < 8 / kEach; ++part) {
      const int64_t at = (k + part * kEach) * static_cast<int64_t>(sizeof(T));
      float x[kEach];
      Unpack<T>(at < w.row_bytes ? LoadVector(w.data + row * w.row_bytes + at) : make_uint4(0, 0, 0, 0), x);
      GPU_UNROLL
      for (int i = 0; i < kEach; ++i) out[part * kEach + i] = x[i];
    }
  }
};

// ---- Quants

// Eight nibbles of a word: columns 0, 2, 4, 6 from bit 0 on, columns 1, 3, 5, 7 from bit 16 on, so that a mask and a
// shift give pairs of neighbours in the halves of a word.
__device__ constexpr int NibbleShift(int column) {
  return 2 * column + 14 * (column % 2);
}
// 8-bit quants of GGUF are kept as q + 128.
constexpr int kQ8Bias = 128;

__device__ __forceinline__ void UnpackNibbles(uint32_t word, float d, float m, float (&out)[8]) {
  GPU_UNROLL
  for (int i = 0; i < 8; ++i) out[i] = d * static_cast<float>(word >> NibbleShift(i) & 15u) + m;
}

// Records whose quants have kBits; groups of kGroup columns with a scale, and a minimum if kMin; x = d * (q - kZero) +
// m.
template <int kBits, int kGroup_, bool kMin_, int kZero_>
struct RecordFormat {
  static constexpr int kGroup = kGroup_, kZero = kZero_;
  static constexpr bool kMin = kMin_;
  static constexpr int kTileK = kGroup > 64 ? kGroup : 64;
  static constexpr int kRuns = kTileK / 32;
  static constexpr int kGroups = kTileK / kGroup;
  static constexpr int kVectors = kTileRows * kTileK * kBits / 8 / 512;
  static constexpr int kScaleWords = kGroups * (kMin ? 2 : 1);  // of a g: d, or m and d, of two rows, 16 bits each
  static constexpr int kScaleBytes = 8 * kScaleWords * 4;
  static constexpr int kRecordBytes = kVectors * 512 + kScaleBytes;
  struct Raw {
    uint4 q[kVectors];
    uint32_t scale[kScaleWords];
  };

  __device__ __forceinline__ static int Column(int j, int t) { return RunColumn(j, t); }
  __device__ __forceinline__ static const uint8_t* Record(const WeightRef& w, int64_t row_tile, int64_t k_tile) {
    return w.data + row_tile * w.row_bytes + k_tile * kRecordBytes;
  }
  // Where a value lies in a record, in bytes. Scales: `part` 0 is d, 1 is m.
  __device__ __forceinline__ static int QuantByte(int g, int t, int j, int h) {  // of the run's 8 quants
    const int byte = (2 * j + h) * kBits;
    return byte / 16 * 512 + (4 * g + t) * 16 + byte % 16;
  }
  __device__ __forceinline__ static int ScaleByte(int g, int h, int group, int part) {
    return kVectors * 512 + g * kScaleWords * 4 + ((h * kGroups + group) * (kMin ? 2 : 1) + part) * 2;
  }
  __device__ __forceinline__ static void Load(const WeightRef& w, int64_t row_tile, int64_t k_tile, int g, int t,
                                              Raw* raw) {
    const uint8_t* record = Record(w, row_tile, k_tile);
    GPU_UNROLL
    for (int v = 0; v < kVectors; ++v) raw->q[v] = LoadVector(record + v * 512 + (4 * g + t) * 16);
    const auto* scales = reinterpret_cast<const uint32_t*>(record + kVectors * 512) + g * kScaleWords;
    GPU_UNROLL
    for (int i = 0; i < kScaleWords; ++i) raw->scale[i] = scales[i];
  }
  // The scale (and minimum) of run j, row g + 8 * h.
  __device__ __forceinline__ static float2 Scale(const uint32_t (&scale)[kScaleWords], int j, int h) {
    const int index = h * kGroups + j * 32 / kGroup;
    if (kMin) {
      return make_float2(HalfBitsToFloat(static_cast<uint16_t>(scale[index])),
                         HalfBitsToFloat(static_cast<uint16_t>(scale[index] >> 16)));
    }
    return make_float2(HalfBitsToFloat(static_cast<uint16_t>(scale[index / 2] >> 16 * (index % 2))), 0.0f);
  }
  __device__ __forceinline__ static uint32_t Word(const Raw& raw, int i) {
    const uint4 v = raw.q[i / 4];
    return i % 4 == 0 ? v.x : i % 4 == 1 ? v.y : i % 4 == 2 ? v.z : v.w;
  }
  __device__ __forceinline__ static void Values(uint32_t low, uint32_t high, float2 scale, float (&out)[8]) {
    if (kBits == 4) {
      UnpackNibbles(low, scale.x, scale.y - static_cast<float>(kZero) * scale.x, out);
    } else {
      GPU_UNROLL
      for (int i = 0; i < 8; ++i) {
        const auto q = static_cast<int>((i < 4 ? low : high) >> 8 * (i % 4) & 255u);
        out[i] = scale.x * static_cast<float>(q - kZero);
      }
    }
  }
  __device__ __forceinline__ static void Run(const Raw& raw, int j, int h, float (&out)[8]) {
    const int word = (2 * j + h) * kBits / 4;
    Values(Word(raw, word), kBits == 8 ? Word(raw, word + 1) : 0, Scale(raw.scale, j, h), out);
  }
  __device__ __forceinline__ static void Load8(const WeightRef& w, int64_t row, int64_t k, float (&out)[8]) {
    const uint8_t* record = Record(w, row / kTileRows, k / kTileK);
    const int g = static_cast<int>(row % 8), h = static_cast<int>(row % kTileRows / 8);
    const int j = static_cast<int>(k % kTileK / 32), t = static_cast<int>(k % 32 / 8);
    const auto* quants = reinterpret_cast<const uint32_t*>(record + QuantByte(g, t, j, h));
    const auto* d = reinterpret_cast<const uint16_t*>(record + ScaleByte(g, h, j * 32 / kGroup, 0));
    Values(quants[0], kBits == 8 ? quants[1] : 0,
           make_float2(HalfBitsToFloat(d[0]), kMin ? HalfBitsToFloat(d[1]) : 0.0f), out);
  }
};
using Q8Format = RecordFormat<8, 32, false, kQ8Bias>;  // Q8_0
using Q4Format = RecordFormat<4, 32, false, 8>;        // Q4_0
using Q4MinFormat = RecordFormat<4, 32, true, 0>;      // Q4_1
using I4Format = RecordFormat<4, 128, true, 0>;        // I4_G128

struct Int8 {
  uint8_t bits;
};
__device__ __forceinline__ float ToFloat(Int8 x) {
  return static_cast<float>(static_cast<int8_t>(x.bits));
}

// Bytes and their scales. A lane's 16 bytes of a row are 16 columns that follow one another: runs 2i and 2i + 1.
template <class Quant>
struct ByteFormat {
  static constexpr int kGroup = 128;
  static constexpr int kTileK = 128;
  static constexpr int kRuns = 4;
  static constexpr int kVectors = 4;  // [pair of runs, row g or g + 8]
  struct Raw {
    uint4 q[kVectors];
    float d[2];
  };

  __device__ __forceinline__ static int Column(int j, int t) { return 64 * (j / 2) + 16 * t + 8 * (j % 2); }
  __device__ __forceinline__ static void Load(const WeightRef& w, int64_t row_tile, int64_t k_tile, int g, int t,
                                              Raw* raw) {
    GPU_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      int64_t row = row_tile * kTileRows + g + 8 * (v % 2);
      if (row >= w.rows) row = w.rows - 1;
      raw->q[v] = LoadVector(w.data + row * w.row_bytes + k_tile * kTileK + Column(v / 2 * 2, t));
    }
    GPU_UNROLL
    for (int h = 0; h < 2; ++h) raw->d[h] = w.scales[k_tile * w.scale_step + row_tile * kTileRows + g + 8 * h];
  }
  __device__ __forceinline__ static void Values(uint32_t low, uint32_t high, float d, float (&out)[8]) {
    GPU_UNROLL
    for (int i = 0; i < 8; ++i) {
      const uint32_t bits = (i < 4 ? low : high) >> 8 * (i % 4) & 255u;
      out[i] = d * ToFloat(Quant{static_cast<uint8_t>(bits)});
    }
  }
  __device__ __forceinline__ static void Run(const Raw& raw, int j, int h, float (&out)[8]) {
    const uint4 v = raw.q[j / 2 * 2 + h];
    Values(j % 2 == 0 ? v.x : v.z, j % 2 == 0 ? v.y : v.w, raw.d[h], out);
  }
  __device__ __forceinline__ static void Load8(const WeightRef& w, int64_t row, int64_t k, float (&out)[8]) {
    const auto* q = reinterpret_cast<const uint32_t*>(w.data + row * w.row_bytes + k);
    Values(q[0], q[1], w.scales[k / kGroup * w.scale_step + row], out);
  }
};
using F8Format = ByteFormat<E4m3>;  // F8_B128, F8_E4M3
using I8Format = ByteFormat<Int8>;  // I8

// ---- On the host

// Calls f with a value of the format of a dtype that WeightUnsupported lets through.
template <class F>
void WithFormat(DType dtype, const F& f) {
  switch (dtype) {
    case DType::kF16:
      return f(PlainFormat<F16>{});
    case DType::kBF16:
      return f(PlainFormat<Bf16>{});
    case DType::kQ8_0:
      return f(Q8Format{});
    case DType::kQ4_0:
      return f(Q4Format{});
    case DType::kQ4_1:
      return f(Q4MinFormat{});
    case DType::kI4_G128:
      return f(I4Format{});
    case DType::kF8_B128:
    case DType::kF8_E4M3:
      return f(F8Format{});
    case DType::kI8:
      return f(I8Format{});
    default:
      return f(PlainFormat<float>{});
  }
}

// Whether weights are quants with scales.
constexpr bool IsQuantized(DType dtype) {
  return dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16;
}
// The places of a weight packed at `packed`.
WeightRef RefTo(const WeightSpec& spec, const void* packed);

}  // namespace assay::gpu
