// SPDX-License-Identifier: Apache-2.0
// An emulation of the tile instructions, on which linear_amx.h runs here: linear_test.cc takes it for one more
// instruction set, and below are sizes of many blocks and the counts that the blocking is about.
#include "kernels/cpu/linear_amx.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <new>
#include <random>
#include <unordered_set>
#include <utility>
#include <vector>

namespace assay::cpu {
namespace {

struct Range {
  uintptr_t begin = 0, end = 0;
  bool Holds(uintptr_t at, int64_t bytes) const { return at >= begin && at + bytes <= end; }
};
Range RangeOf(const void* p, int64_t bytes) {
  return {reinterpret_cast<uintptr_t>(p), reinterpret_cast<uintptr_t>(p) + bytes};
}

struct Counts {
  int64_t x_loads = 0, w_loads = 0, bias_loads = 0, sum_loads = 0, sum_stores = 0, y_stores = 0, dots = 0;
  int64_t x_lines = 0, w_lines = 0, y_lines = 0;  // prefetched
  std::unordered_set<uintptr_t> x_distinct, w_distinct;
};

// One thread's tiles, and the memory that they may touch.
struct TileState {
  bool configured = false;
  alignas(64) std::byte tile[8][1024];
  Range x, w, bias, y, scratch;
  int64_t y_stride = 0, y_cols = 0;  // bytes of a row, and those of them that are this member's
  Counts counts;
};
thread_local TileState state;

float Flush(float v) {
  return std::fabs(v) < FLT_MIN ? 0.0f : v;
}
float FromBf16(uint16_t h) {
  return Flush(std::bit_cast<float>(static_cast<uint32_t>(h) << 16));
}

struct EmulatedTiles {
  static void Configure() {
    state.configured = true;
    std::memset(state.tile, 0, sizeof(state.tile));
  }
  static void Release() { state.configured = false; }

  template <int kTile>
  static void Load(const void* p, int64_t stride) {
    const Range all = Rows(p, stride);
    int64_t* const count = state.x.Holds(all.begin, all.end - all.begin)         ? &state.counts.x_loads
                           : state.w.Holds(all.begin, all.end - all.begin)       ? &state.counts.w_loads
                           : state.bias.Holds(all.begin, all.end - all.begin)    ? &state.counts.bias_loads
                           : state.scratch.Holds(all.begin, all.end - all.begin) ? &state.counts.sum_loads
                                                                                 : nullptr;
    if (!state.configured || count == nullptr) return Fail("tile load");
    ++*count;
    for (int i = 0; i < 16; ++i) std::memcpy(state.tile[kTile] + i * 64, At(p, i * stride), 64);
  }
  template <int kTile>
  static void LoadOnce(const void* p, int64_t stride) {
    Load<kTile>(p, stride);
  }

  template <int kTile>
  static void Store(void* p, int64_t stride) {
    const Range all = Rows(p, stride);
    const bool sums = state.scratch.Holds(all.begin, all.end - all.begin);
    const bool y = state.y.Holds(all.begin, all.end - all.begin) && stride == state.y_stride &&
                   static_cast<int64_t>((all.begin - state.y.begin) % stride) + 64 <= state.y_cols;
    if (!state.configured || sums == y) return Fail("tile store");
    ++(sums ? state.counts.sum_stores : state.counts.y_stores);
    for (int i = 0; i < 16; ++i) std::memcpy(const_cast<std::byte*>(At(p, i * stride)), state.tile[kTile] + i * 64, 64);
  }

  // As Intel's manual has it: even and odd columns are summed apart, then added to the tile; denormals are zero.
  template <int kSum, int kX, int kW>
  static void Dot() {
    if (!state.configured) return Fail("product");
    ++state.counts.dots;
    uint16_t x[16][32], w[16][16][2];
    float sum[16][16], w_even[16][16], w_odd[16][16];
    std::memcpy(x, state.tile[kX], sizeof(x));
    std::memcpy(w, state.tile[kW], sizeof(w));
    std::memcpy(sum, state.tile[kSum], sizeof(sum));
    for (int k = 0; k < 16; ++k) {
      for (int n = 0; n < 16; ++n) w_even[k][n] = FromBf16(w[k][n][0]), w_odd[k][n] = FromBf16(w[k][n][1]);
    }
    for (int m = 0; m < 16; ++m) {
      float even[16] = {}, odd[16] = {};
      for (int k = 0; k < 16; ++k) {
        const float x_even = FromBf16(x[m][2 * k]), x_odd = FromBf16(x[m][2 * k + 1]);
        for (int n = 0; n < 16; ++n) {
          even[n] = Flush(even[n] + x_even * w_even[k][n]);
          odd[n] = Flush(odd[n] + x_odd * w_odd[k][n]);
        }
      }
      for (int n = 0; n < 16; ++n) sum[m][n] = Flush(Flush(sum[m][n]) + Flush(even[n] + odd[n]));
    }
    std::memcpy(state.tile[kSum], sum, sizeof(sum));
  }

  static void Prefetch(const void* p) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(p);
    const bool x = state.x.Holds(at, 64);
    if (x == state.w.Holds(at, 64)) return Fail("prefetch");
    ++(x ? state.counts.x_lines : state.counts.w_lines);
    (x ? state.counts.x_distinct : state.counts.w_distinct).insert(at / 64);
  }
  static void PrefetchToWrite(const void* p) {
    if (!state.y.Holds(reinterpret_cast<uintptr_t>(p), 64)) return Fail("prefetch to write");
    ++state.counts.y_lines;
  }

 private:
  static const std::byte* At(const void* p, int64_t offset) { return static_cast<const std::byte*>(p) + offset; }
  static Range Rows(const void* p, int64_t stride) { return RangeOf(p, 15 * stride + 64); }
  static void Fail(const char* what) { ADD_FAILURE() << what << " outside its memory, or without tiles"; }
};

void EmulatedSmall(const GemmArgs& a) {
  const int64_t rows = (a.m1 - a.m0 + 15) / 16 * 16;
  state.x = RangeOf(static_cast<const uint16_t*>(a.x) + a.m0 * a.ldx, ((rows - 1) * a.ldx + a.k) * 2);
  state.w = RangeOf(a.w, a.n1 / kPanelRows * a.panel_bytes);
  state.bias = state.y = {};
  state.scratch = {0, UINTPTR_MAX};  // sums of some rows pass through the stack: ASan watches where they go
  AmxSmall<EmulatedTiles>(a);
  if (state.configured) ADD_FAILURE() << "tiles not released";
}

void EmulatedGemm(const AmxArgs& a) {
  const int64_t rows = a.dequantize != nullptr ? kBlockRows : kPanelRows;
  state.x = RangeOf(a.x, a.x_rows * a.k * 2);
  state.w = RangeOf(a.w + a.n0 / rows * a.panel_bytes, (a.n1 - a.n0 + rows - 1) / rows * a.panel_bytes);
  state.bias = a.bias == nullptr ? Range{} : RangeOf(a.bias + a.n0, (a.n1 - a.n0) * 4);
  state.y_stride = a.ldy * 4;
  state.y_cols = (a.n1 - a.n0) * 4;
  state.y = RangeOf(a.y + a.m0 * a.ldy + a.n0, (a.m1 - a.m0 - 1) * state.y_stride + state.y_cols);
  state.scratch = RangeOf(a.scratch, kAmxScratchBytes);
  AmxGemm<EmulatedTiles>::Run(a);
  if (state.configured) ADD_FAILURE() << "tiles not released";
}

}  // namespace

extern const AmxKernels kEmulatedAmx;
const AmxKernels kEmulatedAmx = {AmxConvert<EmulatedTiles>, EmulatedGemm, EmulatedSmall};

namespace {

std::byte* Aligned(std::vector<std::byte>& memory, size_t bytes) {
  memory.assign(bytes + 64, std::byte{0x7f});  // as bf16, as f32: a large value
  return memory.data() + (-reinterpret_cast<uintptr_t>(memory.data()) & 63);
}

// y = x * w^T + bias on the emulation in one thread, compared with sums in double; what it did is returned.
Counts Multiply(DType dtype, int64_t m, int64_t n, int64_t k) {
  SCOPED_TRACE(testing::Message() << "M " << m << " N " << n << " K " << k);
  const WeightSpec spec{dtype, DType::kNone, n, k};
  std::mt19937 rng(3);
  std::uniform_real_distribution<float> uniform(-1, 1);
  const auto bf16 = [&] { return static_cast<uint16_t>(std::bit_cast<uint32_t>(uniform(rng)) >> 16); };
  std::vector<uint16_t> source(dtype == DType::kBF16 ? n * k : n * k / 32 * 9);  // Q4_0: scale 2^-4, random nibbles
  for (size_t i = 0; i < source.size(); ++i) {
    source[i] = dtype == DType::kBF16 ? bf16() : i % 9 == 0 ? 0x2c00 : static_cast<uint16_t>(rng());
  }
  std::vector<std::byte> packed_memory, workspace_memory;
  std::byte* const packed = Aligned(packed_memory, PackedWeightBytes(spec));
  PackWeight(spec, source.data(), nullptr, packed, {});
  // Values that bf16 holds, so that sums are exact but for their own rounding.
  std::vector<float> x(m * k), y(m * n, 77.0f), bias(n);
  for (float& v : x) v = std::bit_cast<float>(static_cast<uint32_t>(bf16()) << 16);
  for (float& v : bias) v = uniform(rng);
  x[(m - 1) * k] = NAN;

  Isa isa;
  isa.amx_bf16 = true;
  std::byte* const workspace = Aligned(workspace_memory, LinearWorkspaceFor(isa, spec, m, 1));
  state.counts = {};
  LinearFor(isa, spec, {x.data(), DType::kF32, 2, {m, k, 1, 1}, {k, 1, 0, 0}}, packed,
            {bias.data(), DType::kF32, 1, {n, 1, 1, 1}, {1, 0, 0, 0}},
            {y.data(), DType::kF32, 2, {m, n, 1, 1}, {n, 1, 0, 0}}, workspace, {}, kEmulatedAmx);

  const auto weight = [&](int64_t row, int64_t column) {
    if (dtype == DType::kBF16) return FromBf16(source[row * k + column]);
    const int64_t block = (row * k + column) / 32 * 9, i = column % 32;
    const int byte = source[block + 1 + i % 16 / 2] >> (i % 2 * 8) & 0xff;
    return ((i < 16 ? byte & 15 : byte >> 4) - 8) / 16.0f;
  };
  for (int64_t i = 0; i < m - 1; ++i) {
    for (int64_t j = i % 13; j < n; j += 13) {  // a part of them: double is slow
      double want = bias[j];
      for (int64_t c = 0; c < k; ++c) want += x[i * k + c] * weight(j, c);
      if (std::abs(y[i * n + j] - want) > 2e-5 * std::sqrt(k)) {
        ADD_FAILURE() << "row " << i << " column " << j << ": " << y[i * n + j] << ", not " << want;
        return state.counts;
      }
    }
  }
  EXPECT_TRUE(std::all_of(y.end() - n, y.end(), [](float v) { return std::isnan(v); }));
  EXPECT_TRUE(std::none_of(y.begin(), y.end() - n, [](float v) { return std::isnan(v) || v == 77.0f; }));
  return state.counts;
}

// A block more than one in every direction, uneven, with tails of every kind.
TEST(LinearAmx, ManyBlocksGiveTheExactProduct) {
  Multiply(DType::kBF16, 272, 293, 800);
  Multiply(DType::kBF16, 290, 97, 32);
  Multiply(DType::kQ4_0, 529, 165, 416);
}

// What the blocking is for, on a whole number of tiles: one load per product, weights that are read once per block of
// rows and prefetched but for the first block, and few sums that pass through memory.
TEST(LinearAmx, LoadsAndPrefetchesAreThoseOfTheBlocking) {
  constexpr int64_t kM = 512, kN = 512, kK = 576;
  for (const DType dtype : {DType::kBF16, DType::kQ4_0}) {
    const Counts c = Multiply(dtype, kM, kN, kK);
    const int64_t dots = (kM / 16) * (kN / 16) * (kK / 32), tiles = (kM / 16) * (kN / 16);
    EXPECT_EQ(c.dots, dots);
    EXPECT_EQ(c.y_stores, tiles);
    EXPECT_EQ(c.bias_loads, tiles);
    EXPECT_EQ(c.y_lines, tiles * 16);
    EXPECT_EQ(c.sum_stores, tiles);  // 2 blocks of columns: once out and in
    EXPECT_EQ(c.x_loads, dots / 2);
    const bool bf16 = dtype == DType::kBF16;
    EXPECT_EQ(c.w_loads, bf16 ? dots / 2 : 0);
    EXPECT_EQ(c.sum_loads, tiles + (bf16 ? 0 : dots / 2));  // those of block types are dequantised into scratch

    // Blocks of 256 columns and 320; of 256 rows and 256 weight rows, or 512 and 128.
    const int64_t w_lines = PackedWeightBytes({dtype, DType::kNone, kN, kK}) / 64, x_lines = kM * kK * 2 / 64;
    const int64_t first_w = w_lines / (bf16 ? 2 : 4) * 256 / kK, first_x = x_lines / (bf16 ? 2 : 1) * 256 / kK;
    EXPECT_EQ(c.w_lines, bf16 ? 2 * w_lines - first_w : w_lines - first_w);
    EXPECT_EQ(static_cast<int64_t>(c.w_distinct.size()), bf16 ? w_lines : w_lines - first_w);
    EXPECT_EQ(c.x_lines, (bf16 ? 2 : 4) * x_lines - first_x);
    EXPECT_EQ(static_cast<int64_t>(c.x_distinct.size()), x_lines);
  }
}

TEST(LinearAmx, ConvertsLikeTheOtherKernels) {
  constexpr int64_t kM = 35, kK = 393, kCols = 416;  // two parts of 192 and 224 columns
  std::vector<float> x(kM * kK);
  std::mt19937 rng(7);
  for (float& v : x) v = std::bit_cast<float>(static_cast<uint32_t>(rng()));  // of every size, and NaN
  for (size_t i = 0; i < x.size(); i += 3) x[i] = std::bit_cast<float>(std::bit_cast<uint32_t>(x[i]) & 0xffff8000);
  x[1] = INFINITY;
  std::vector<uint16_t> want(64 * kCols, 1), got(64 * kCols, 1);
  ConvertArgs a;
  a.x = x.data();
  a.ldx = a.k = kK;
  a.rows = kM;
  a.pieces_per_row = kCols / 32;
  a.padded_rows = 64;
  a.out = want.data();
  LinearKernelsFor({}).to_bf16(a, 0, 64 * a.pieces_per_row);
  a.out = got.data();
  for (const auto& [begin, end] : {std::pair(0, 5), {5, 200}, {200, 832}}) kEmulatedAmx.convert(a, begin, end);
  for (int64_t i = 0; i < 64; ++i) {
    for (int64_t k = 0; k < kCols; ++k) {
      const int64_t k0 = k < 192 ? 0 : 192, k1 = k < 192 ? 192 : kCols;
      const int64_t at = k0 * 64 + (i / 32 * (k1 - k0) + (k - k0) / 32 * 32) * 32 + i % 32 * 32 + k % 32;
      ASSERT_EQ(got[at], want[i * kCols + k]) << "row " << i << " column " << k;
    }
  }
}

}  // namespace
}  // namespace assay::cpu
