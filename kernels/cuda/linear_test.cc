// SPDX-License-Identifier: Apache-2.0
// What conformance does not reach in linear: the paths through a library, here one that multiplies on the host and
// checks what it is given. On the emulator. Weights come back by Embed, which conformance holds against the reference.
#include "kernels/cuda/linear.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <tuple>
#include <vector>

#include "kernels/cuda/gemm_lt.h"
#include "kernels/ref/convert.h"

namespace assay::gpu {
namespace {

struct Memory {
  explicit Memory(size_t bytes) { emulatedMalloc(&data, bytes); }
  ~Memory() { emulatedFree(data); }
  Memory(const Memory&) = delete;
  void* data = nullptr;
};

View MatrixView(void* data, DType dtype, int64_t rows, int64_t cols) {
  View v;
  v.data = data;
  v.dtype = dtype;
  v.ndim = 2;
  v.shape[0] = rows;
  v.shape[1] = cols;
  v.stride[0] = cols;
  v.stride[1] = 1;
  return v;
}

float FromE4m3(uint8_t q) {
  const int exponent = q >> 3 & 15, fraction = q & 7;
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -9)
                                   : std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
  return (q & 0x80) != 0 ? -size : size;
}

class HostLibrary : public GemmLt {
 public:
  bool refuses = false, scales_rows = true;
  std::vector<LtProduct> made;

  bool Has(const LtProduct& p) override { return !refuses && (scales_rows || !p.row_scales); }
  void Tune(const LtProduct&, const LtOperands&, gpuStream) override {}
  bool Multiply(const LtProduct& p, const LtOperands& o, gpuStream) override {
    if (refuses) return false;
    made.push_back(p);
    for (const void* address : {o.x, o.w, static_cast<const void*>(o.y)}) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(address) % 16, 0u);
    }
    const bool f8 = p.operands == DType::kF8_B128;
    const bool quants = f8 || IsRowScaled(p.operands);
    const int64_t bytes = quants ? 1 : 2;
    EXPECT_EQ(p.x_stride * bytes % 16 + p.w_stride * bytes % 16, 0);
    EXPECT_EQ(p.y_stride * (p.y == DType::kF32 || p.y == DType::kI32 ? 4 : 2) % 16, 0);
    EXPECT_TRUE(!f8 || p.m % 4 == 0);
    EXPECT_TRUE(!quants || p.n % 16 + p.k % 128 == 0);
    EXPECT_EQ(p.operands == DType::kI8, p.y == DType::kI32);
    EXPECT_TRUE(p.row_scales || !IsRowScaled(p.operands) || p.y == DType::kI32 || p.y == DType::kF32);
    View y = MatrixView(o.y, p.y, p.m, p.n);
    for (int64_t m = 0; m < p.m; ++m) {
      for (int64_t n = 0; n < p.n; ++n) {
        double sum = 0;
        for (int64_t k = 0; k < p.k; ++k) {
          sum += static_cast<double>(Element(p, o.x, o.x_scales, p.m, m * p.x_stride, m, k)) *
                 Element(p, o.w, o.w_scales, p.n, n * p.w_stride, n, k);
        }
        if (p.y == DType::kI32) {
          static_cast<int32_t*>(o.y)[m * p.y_stride + n] = static_cast<int32_t>(sum);
        } else {
          ref::Store(y, m * p.y_stride + n, sum);
        }
      }
    }
    return true;
  }

 private:
  static float Element(const LtProduct& p, const void* data, const float* scales, int64_t rows, int64_t row_at,
                       int64_t row, int64_t k) {
    if (p.operands == DType::kF8_B128) {
      return FromE4m3(static_cast<const uint8_t*>(data)[row_at + k]) * scales[k / 128 * rows + row];
    }
    if (IsRowScaled(p.operands)) {
      const uint8_t q = static_cast<const uint8_t*>(data)[row_at + k];
      return (p.operands == DType::kI8 ? static_cast<int8_t>(q) : FromE4m3(q)) * (p.row_scales ? scales[row] : 1);
    }
    const uint16_t bits = static_cast<const uint16_t*>(data)[row_at + k];
    return p.operands == DType::kBF16 ? ref::BF16ToF32(bits) : ref::F16ToF32(bits);
  }
};

struct Case {
  DType weight;
  int64_t block, block_bytes, m, n, k;
  bool bias;
};

// Multiplies a case of bf16 and gives the largest error, in units of |x| * |w|.
double LargestError(const Case& c, GemmLt* lt, int capability) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  Queue queue;
  queue.processors = 16;
  queue.capability = capability;
  const WeightSpec spec{c.weight, DType::kNone, c.n, c.k};
  const size_t source_bytes = static_cast<size_t>(c.n * c.k / c.block * c.block_bytes);
  Memory source(source_bytes), packed(PackedWeightBytes(spec)), table(static_cast<size_t>(c.n * c.k) * 4);
  auto* bytes = static_cast<uint8_t*>(source.data);
  for (size_t i = 0; i < source_bytes; ++i) bytes[i] = static_cast<uint8_t>(random() & 0xb7);  // no large e4m3
  for (int64_t row = 0; IsRowScaled(c.weight) && row < c.n; ++row) {
    RowScales(spec, packed.data)[row] = 1 + std::abs(normal(random));
  }
  for (size_t i = 0; !IsRowScaled(c.weight) && i < source_bytes; i += static_cast<size_t>(c.block_bytes)) {
    const float scale = 1 + std::abs(normal(random));
    const uint16_t half = ref::F32ToF16(scale);
    if (c.weight == DType::kF8_B128) {
      std::memcpy(bytes + i, &scale, sizeof scale);
    } else {
      std::memcpy(bytes + i, &half, sizeof half);
    }
  }
  PackRows(spec, source.data, 0, c.n, packed.data, queue);
  std::vector<int32_t> ids(static_cast<size_t>(c.n));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  View id_view = MatrixView(ids.data(), DType::kI32, c.n, 1);
  id_view.ndim = 1;
  const View w = MatrixView(table.data, DType::kF32, c.n, c.k);
  Embed(spec, id_view, packed.data, w, queue);

  Memory x_memory(static_cast<size_t>(c.m * c.k) * 2), y_memory(static_cast<size_t>(c.m * c.n) * 2);
  const View x = MatrixView(x_memory.data, DType::kBF16, c.m, c.k);
  const View y = MatrixView(y_memory.data, DType::kBF16, c.m, c.n);
  for (int64_t i = 0; i < c.m * c.k; ++i) ref::Store(x, i, normal(random));
  std::vector<float> bias_values(static_cast<size_t>(c.n));
  for (float& b : bias_values) b = normal(random);
  View bias = MatrixView(bias_values.data(), DType::kF32, c.n, 1);
  bias.ndim = 1;
  Memory workspace(LinearWorkspace(spec, c.m, DType::kBF16, queue));
  Linear(spec, x, packed.data, c.bias ? bias : View{}, y, workspace.data, lt, queue);
  EXPECT_EQ(emulatedGetLastError(), emulatedSuccess);

  double largest = 0;
  for (int64_t m = 0; m < c.m; ++m) {
    for (int64_t n = 0; n < c.n; ++n) {
      double sum = c.bias ? bias_values[static_cast<size_t>(n)] : 0, xx = 0, ww = 0;
      for (int64_t k = 0; k < c.k; ++k) {
        const double a = ref::Load(x, m * c.k + k), b = ref::Load(w, n * c.k + k);
        sum += a * b;
        xx += a * a;
        ww += b * b;
      }
      const double error = std::abs(ref::Load(y, m * c.n + n) - sum) - std::ldexp(std::abs(sum), -8);
      largest = std::isnan(error) ? error : std::max(largest, error / std::sqrt(xx * ww));
    }
  }
  return largest;
}

constexpr double kHalfError = 4e-3;  // of operands rounded to bf16, at these lengths
constexpr double kF8Error = 2e-2;    // of x as e4m3

TEST(LinearThroughALibrary, F8OnHopperRoundsXToF8) {
  // 20 rows: the library writes y. 18 rows, or a bias: it writes f32 with whole groups of 4 rows.
  for (const auto& [m, bias, y] :
       {std::tuple(20, false, DType::kBF16), std::tuple(18, false, DType::kF32), std::tuple(20, true, DType::kF32)}) {
    HostLibrary library;
    const double error = LargestError({DType::kF8_B128, 128, 132, m, 48, 256, bias}, &library, 90);
    EXPECT_LT(error, kF8Error) << m;
    ASSERT_EQ(library.made.size(), 1u);
    EXPECT_EQ(library.made[0].operands, DType::kF8_B128);
    EXPECT_EQ(library.made[0].y, y);
    EXPECT_EQ(library.made[0].m, 20);
  }
}

TEST(LinearThroughALibrary, F8ElsewhereStaysExact) {
  HostLibrary library;
  EXPECT_LT(LargestError({DType::kF8_B128, 128, 132, 20, 48, 256, true}, &library, 89), kHalfError);
  EXPECT_LT(LargestError({DType::kF8_B128, 128, 132, 20, 40, 256, true}, &library, 90), kHalfError);  // rows not of 16
  EXPECT_TRUE(library.made.empty());
}

TEST(LinearThroughALibrary, ARowsScaleIsAppliedByTheLibraryOrAfterwards) {
  constexpr double kI8Error = 1e-2;  // of x as int8: half a step of the largest of a row
  for (const int64_t k : {256, 200}) {
    for (const bool bias : {false, true}) {
      HostLibrary hopper, ada, ints;
      ada.scales_rows = false;
      EXPECT_LT(LargestError({DType::kF8_E4M3, 1, 1, 18, 48, k, bias}, &hopper, 90), kF8Error);
      EXPECT_LT(LargestError({DType::kF8_E4M3, 1, 1, 18, 48, k, bias}, &ada, 89), kF8Error);
      EXPECT_LT(LargestError({DType::kI8, 1, 1, 18, 48, k, bias}, &ints, 80), kI8Error);
      ASSERT_EQ(hopper.made.size() + ada.made.size() + ints.made.size(), 3u);
      EXPECT_TRUE(hopper.made[0].row_scales);
      EXPECT_EQ(hopper.made[0].y, bias ? DType::kF32 : DType::kBF16);
      EXPECT_FALSE(ada.made[0].row_scales);
      EXPECT_EQ(ints.made[0].operands, DType::kI8);
    }
  }
}

// A NaN is not lost where its bits would be a number.
TEST(LinearThroughALibrary, NaNStaysOne) {
  for (const DType dtype : {DType::kF8_E4M3, DType::kI8}) {
    HostLibrary library;
    Queue queue;
    queue.processors = 16;
    queue.capability = 89;
    library.scales_rows = false;
    const WeightSpec spec{dtype, DType::kNone, 16, 128};
    Memory source(16 * 128), packed(PackedWeightBytes(spec)), x_memory(17 * 128 * 4), y_memory(17 * 16 * 4);
    std::fill_n(static_cast<uint8_t*>(source.data), 16 * 128, uint8_t{1});
    if (dtype == DType::kF8_E4M3) static_cast<uint8_t*>(source.data)[3 * 128 + 70] = 0xff;
    std::fill_n(RowScales(spec, packed.data), 16, 1.0f);
    PackRows(spec, source.data, 0, 16, packed.data, queue);
    const View x = MatrixView(x_memory.data, DType::kF32, 17, 128), y = MatrixView(y_memory.data, DType::kF32, 17, 16);
    std::fill_n(x.as<float>(), 17 * 128, 1.0f);
    x.as<float>()[5 * 128 + 9] = NAN;
    Memory workspace(LinearWorkspace(spec, 17, DType::kF32, queue));
    Linear(spec, x, packed.data, View{}, y, workspace.data, &library, queue);
    ASSERT_EQ(library.made.size(), 1u);
    for (int i = 0; i < 17 * 16; ++i) {
      const bool nan = i / 16 == 5 || (dtype == DType::kF8_E4M3 && i % 16 == 3);
      EXPECT_EQ(std::isnan(y.as<float>()[i]), nan) << i;
    }
  }
}

TEST(LinearThroughALibrary, BlocksAreUnpackedForManyRows) {
  HostLibrary library;
  EXPECT_LT(LargestError({DType::kQ4_0, 32, 18, 770, 40, 64, true}, &library, 90), kHalfError);
  ASSERT_EQ(library.made.size(), 1u);
  EXPECT_EQ(library.made[0].operands, DType::kBF16);
}

TEST(LinearThroughALibrary, WhatItRefusesIsMultipliedAnyway) {
  HostLibrary library;
  library.refuses = true;
  EXPECT_LT(LargestError({DType::kF8_B128, 128, 132, 20, 48, 256, false}, &library, 90), kHalfError);
  EXPECT_LT(LargestError({DType::kQ4_0, 32, 18, 770, 40, 64, false}, &library, 90), kHalfError);
  EXPECT_LT(LargestError({DType::kI8, 1, 1, 20, 48, 200, true}, &library, 90), kHalfError);
}

TEST(LinearOnASmallerCard, BlocksFitItsSharedMemory) {
  for (const auto& [capability, limit] : {std::pair(80, size_t{163} << 10), std::pair(89, size_t{99} << 10)}) {
    emulator::shared_limit = limit;
    for (const int64_t m : {5, 16, 70}) {
      EXPECT_LT(LargestError({DType::kQ4_0, 32, 18, m, 40, 192, true}, nullptr, capability), kHalfError) << m;
      EXPECT_LT(LargestError({DType::kF8_B128, 128, 132, m, 40, 256, false}, nullptr, capability), kHalfError) << m;
      EXPECT_LT(LargestError({DType::kI8, 1, 1, m, 40, 200, false}, nullptr, capability), kHalfError) << m;
    }
  }
  emulator::shared_limit = size_t{227} << 10;
}

}  // namespace
}  // namespace assay::gpu
