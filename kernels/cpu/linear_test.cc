// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/linear.h"

#include <gtest/gtest.h>

#include <barrier>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/linear_kernels.h"

namespace assay::cpu {

extern const AmxKernels kEmulatedAmx;  // linear_amx_test.cc

namespace {

class StdBarrier : public TeamBarrier {
 public:
  explicit StdBarrier(int size) : barrier_(size) {}
  void Wait(int) override { barrier_.arrive_and_wait(); }

 private:
  std::barrier<> barrier_;
};

template <class F>
void RunTeam(int size, F f) {
  StdBarrier barrier(size);
  std::vector<std::jthread> threads;
  for (int rank = 1; rank < size; ++rank) threads.emplace_back([&, rank] { f(Team{rank, size, &barrier}); });
  f(Team{0, size, &barrier});
}

// Memory that ends at its last byte, so that a sanitizer sees any overrun, and starts at `kWeightAlignment`.
struct Memory {
  explicit Memory(size_t bytes) : data(::operator new (bytes + 1, std::align_val_t{kWeightAlignment})) {
    std::memset(data, 0xa5, bytes + 1);
  }
  ~Memory() { ::operator delete (data, std::align_val_t{kWeightAlignment}); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  void* data;
};

double HalfValue(uint16_t h) {
  const int exponent = h >> 10 & 31, mantissa = h & 1023;
  const double magnitude = exponent == 0    ? std::ldexp(mantissa, -24)
                           : exponent == 31 ? (mantissa != 0 ? NAN : INFINITY)
                                            : std::ldexp(1024 + mantissa, exponent - 25);
  return h & 0x8000 ? -magnitude : magnitude;
}

uint16_t HalfOf(double v) {  // truncated; too small for a normal number: zero
  int e;
  const double f = std::frexp(std::abs(v), &e);
  if (e < -13) return 0;
  return (v < 0 ? 0x8000 : 0) | (e + 14) << 10 | (static_cast<int>(f * 2048) & 1023);
}

// Columns and bytes of a block in a file.
std::pair<int, int> BlockOf(DType dtype) {
  switch (dtype) {
    case DType::kQ8_0:
      return {32, 34};
    case DType::kQ4_0:
      return {32, 18};
    case DType::kQ4_1:
      return {32, 20};
    case DType::kQ5_0:
      return {32, 22};
    case DType::kQ5_1:
      return {32, 24};
    case DType::kQ4_K:
      return {256, 144};
    case DType::kQ5_K:
      return {256, 176};
    case DType::kQ6_K:
      return {256, 210};
    case DType::kI4_G128:
      return {128, 68};
    default:
      return {1, 0};
  }
}

// Element i of a block, straight from the formulas of the ABI header.
double BlockValue(DType dtype, const uint8_t* b, int i) {
  const auto half = [&](int at) { return HalfValue(static_cast<uint16_t>(b[at] | b[at + 1] << 8)); };
  const auto nibble = [&](int at, int n) { return i < n / 2 ? b[at + i] & 15 : b[at + i - n / 2] >> 4; };
  switch (dtype) {
    case DType::kQ8_0:
      return half(0) * static_cast<int8_t>(b[2 + i]);
    case DType::kQ4_0:
      return half(0) * (nibble(2, 32) - 8);
    case DType::kQ4_1:
      return half(0) * nibble(4, 32) + half(2);
    case DType::kQ5_0:
      return half(0) * (nibble(6, 32) + (b[2 + i / 8] >> i % 8 & 1) * 16 - 16);
    case DType::kQ5_1:
      return half(0) * (nibble(8, 32) + (b[4 + i / 8] >> i % 8 & 1) * 16) + half(2);
    case DType::kI4_G128:
      return half(0) * nibble(4, 128) + half(2);
    case DType::kQ6_K: {
      const int n = i / 128, t = i / 32 % 4, l = i % 32;
      const int byte = b[64 * n + 32 * (t % 2) + l];
      const int q = (t < 2 ? byte & 15 : byte >> 4) + (b[128 + 32 * n + l] >> 2 * t & 3) * 16;
      return half(208) * static_cast<int8_t>(b[192 + i / 16]) * (q - 32);
    }
    default: {  // Q4_K, Q5_K
      const int j = i / 32;
      const uint8_t* const s = b + 4;
      const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) + (s[j - 4] >> 6) * 16;
      const int min = j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) + (s[j] >> 6) * 16;
      const int byte = b[(dtype == DType::kQ5_K ? 48 : 16) + 32 * (j / 2) + i % 32];
      int q = j % 2 == 0 ? byte & 15 : byte >> 4;
      if (dtype == DType::kQ5_K) q += (b[16 + i % 32] >> j & 1) * 16;
      return half(0) * scale * q - half(2) * min;
    }
  }
}

// A random weight: its bytes as in a file, and its values.
struct Weight {
  WeightSpec spec;
  std::vector<uint8_t> bytes;
  std::vector<double> values;  // [rows, cols]
  std::vector<float> scales;   // [rows], of I8

  Weight(const WeightSpec& s, uint32_t seed) : spec(s), rng(seed) {
    for (int64_t i = 0; i < s.rows * s.cols;) {
      switch (s.dtype) {
        case DType::kF32: {
          const float v = Random(-1, 1);
          Put(v), values.push_back(v), ++i;
          break;
        }
        case DType::kF16: {
          const uint16_t h = i % 7 == 3 ? i % 1024 : HalfOf(Random(-1, 1));  // some are subnormal
          Put(h), values.push_back(HalfValue(h)), ++i;
          break;
        }
        case DType::kBF16: {
          const uint16_t h = std::bit_cast<uint32_t>(Random(-1, 1)) >> 16;
          Put(h), values.push_back(std::bit_cast<float>(static_cast<uint32_t>(h) << 16)), ++i;
          break;
        }
        case DType::kI8: {
          if (i % s.cols == 0) scales.push_back(Random(0.5f, 1) / 128);
          const int8_t q = static_cast<int8_t>(rng());
          Put(q), values.push_back(static_cast<double>(scales.back()) * q), ++i;
          break;
        }
        default:
          PutBlock();
          i += BlockOf(s.dtype).first;
      }
    }
  }

  const float* RowScales() const { return scales.empty() ? nullptr : scales.data(); }

 private:
  template <class T>
  void Put(T v) {
    bytes.insert(bytes.end(), reinterpret_cast<uint8_t*>(&v), reinterpret_cast<uint8_t*>(&v) + sizeof(v));
  }
  float Random(float low, float high) { return std::uniform_real_distribution<float>(low, high)(rng); }
  void PutBlock() {
    const auto& [cols, bytes] = BlockOf(spec.dtype);
    const size_t at = this->bytes.size();
    for (int i = 0; i < bytes; ++i) Put(static_cast<uint8_t>(rng()));
    // Half-precision scales where the format has them: what random bits would be is beyond any tolerance.
    const int levels = 1 << (spec.dtype == DType::kQ8_0 ? 7 : 3);
    const auto scale = [&](size_t where, float low, float high) {
      const uint16_t h = HalfOf(Random(low, high));
      std::memcpy(&this->bytes[at + where], &h, 2);
    };
    switch (spec.dtype) {
      case DType::kQ4_K:
      case DType::kQ5_K:
        scale(0, 0.5f / 1024, 1.0f / 1024);
        scale(2, 0.5f / 128, 1.0f / 128);
        break;
      case DType::kQ6_K:
        scale(208, 0.5f / 4096, 1.0f / 4096);
        break;
      default:
        scale(0, 0.5f / levels, 1.0f / levels);
        if (spec.dtype == DType::kQ4_1 || spec.dtype == DType::kQ5_1 || spec.dtype == DType::kI4_G128) {
          scale(2, -1, -0.5f);
        }
    }
    for (int i = 0; i < cols; ++i) values.push_back(BlockValue(spec.dtype, &this->bytes[at], i));
  }
  std::mt19937 rng;
};

View Matrix(void* data, int64_t rows, int64_t cols, int64_t stride) {
  return {data, DType::kF32, 2, {rows, cols, 1, 1}, {stride, 1, 0, 0}};
}

struct Level {
  Isa isa;
  const AmxKernels* amx = &kAmx;
};

std::vector<Level> Levels() {
  const Isa& best = CurrentIsa();
  Isa isa;
  std::vector<Level> levels = {{isa}};
  for (const auto field : {&Isa::avx2, &Isa::avx512, &Isa::avx512_vnni, &Isa::avx512_bf16}) {
    isa.*field = best.*field;
    if (best.*field) levels.push_back({isa});
  }
  isa.amx_bf16 = true;
  levels.push_back({isa, &kEmulatedAmx});
  if (best.amx_bf16) levels.push_back({isa});
  return levels;
}

std::string LevelName(const Level& level) {
  return IsaName(level.isa) + (level.amx == &kEmulatedAmx ? " emulated" : "");
}

// How far a product term x * w may be off, relative to max |x| * max |w|.
double TermError(const WeightSpec& spec) {
  if (spec.compute == DType::kF32 || spec.dtype == DType::kF32 || spec.dtype == DType::kF16) return 1e-6;
  if (spec.dtype == DType::kBF16) return 1.0 / 256;  // x in bf16
  return 1.0 / 127;                                  // x in i8: half a step of 1/127, and weights in bf16 with AMX
}

// A random product, its exact result, and runs of it.
class Product {
 public:
  // Gaps: elements between rows.
  Product(const WeightSpec& spec, int64_t m, bool bias, int64_t x_gap, int64_t y_gap)
      : weight_(spec, 17),
        packed_(PackedWeightBytes(spec)),
        m_(m),
        ldx_(spec.cols + x_gap),
        ldy_(spec.rows + y_gap),
        // The last row of x has no gap behind it: reading past it is an error.
        x_(m == 0 ? 0 : (m - 1) * ldx_ + spec.cols),
        bias_(bias ? spec.rows : 0),
        want_(m * spec.rows) {
    RunTeam(2, [&](const Team& t) { PackWeight(spec, weight_.bytes.data(), weight_.RowScales(), packed_.data, t); });
    std::mt19937 rng(5);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (float& v : x_) v = uniform(rng);
    for (float& v : bias_) v = uniform(rng);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < spec.rows; ++j) {
        const float* const x = &x_[i * ldx_];
        double sum = bias ? bias_[j] : 0.0;
        for (int64_t k = 0; k < spec.cols; ++k) sum += x[k] * weight_.values[j * spec.cols + k];
        want_[i * spec.rows + j] = sum;
      }
    }
  }

  // same_as: what another number of threads gave, which must be the same bits; takes y if it is empty.
  void Check(const Level& level, DType compute, int threads, std::vector<float>* same_as = nullptr) {
    const Isa& isa = level.isa;
    WeightSpec spec = weight_.spec;
    spec.compute = compute;
    SCOPED_TRACE(LevelName(level) + " compute " + std::to_string(static_cast<int>(compute)) + " M " +
                 std::to_string(m_) + " N " + std::to_string(spec.rows) + " K " + std::to_string(spec.cols) +
                 " threads " + std::to_string(threads) + (bias_.empty() ? "" : " bias"));
    std::vector<float> y(m_ * ldy_ + 1, 77.0f);
    const Memory workspace(LinearWorkspaceFor(isa, spec, m_, threads));
    const View bias = bias_.empty() ? View{} : View{bias_.data(), DType::kF32, 1, {spec.rows, 1, 1, 1}, {1, 0, 0, 0}};
    RunTeam(threads, [&](const Team& t) {
      LinearFor(isa, spec, Matrix(x_.data(), m_, spec.cols, ldx_), packed_.data, bias,
                Matrix(y.data(), m_, spec.rows, ldy_), workspace.data, t, *level.amx);
    });
    // Errors of terms are independent: their sum grows with the root of K. Five deviations.
    const double tolerance = 5 * TermError(spec) * std::sqrt(spec.cols) / 2 + 2e-6;
    for (int64_t i = 0; i < m_; ++i) {
      for (int64_t j = 0; j < spec.rows; ++j) {
        ASSERT_NEAR(y[i * ldy_ + j], want_[i * spec.rows + j], tolerance) << "row " << i << " column " << j;
      }
      for (int64_t j = spec.rows; j < ldy_; ++j)
        ASSERT_EQ(y[i * ldy_ + j], 77.0f) << "written between rows, after " << i;
    }
    ASSERT_EQ(y.back(), 77.0f) << "written past the end";
    if (same_as == nullptr) return;
    if (same_as->empty()) *same_as = y;
    ASSERT_EQ(y, *same_as) << "the number of threads shows";
  }

 private:
  Weight weight_;
  Memory packed_;
  int64_t m_, ldx_, ldy_;
  std::vector<float> x_, bias_;
  std::vector<double> want_;
};

class LinearTest : public testing::TestWithParam<DType> {
 protected:
  static bool IsBlock() { return GetParam() >= DType::kQ8_0; }
  // These numbers of columns; for block types, as many whole blocks.
  static std::vector<int64_t> Columns(std::vector<int64_t> plain, std::vector<int64_t> blocks) {
    if (!IsBlock()) return plain;
    for (int64_t& n : blocks) n *= BlockOf(GetParam()).first;
    return blocks;
  }
};

TEST_P(LinearTest, OddSizesOnEveryInstructionSet) {
  const auto cols = Columns({1, 7, 64, 172}, {1, 2, 3, BlockOf(GetParam()).first == 32 ? 18 : 5});
  const std::vector<Level> levels = Levels();
  int count = 0;
  for (const int64_t n : {1, 15, 16, 17, 100}) {
    for (const int64_t k : cols) {
      for (const int64_t m : {0, 1, 2, 3, 7, 16, 33}) {
        ++count;
        Product product({GetParam(), DType::kNone, n, k}, m, count % 2 == 0, count % 4 * 3, count % 5);
        for (const Level& level : levels) {
          for (const DType compute : {DType::kNone, DType::kF32}) product.Check(level, compute, 1 + count++ % 3);
        }
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Sizes at which work is cut along rows and columns, x is shared, columns are chunked and AMX's tiles have tails.
TEST_P(LinearTest, LargeSizesOnEveryInstructionSet) {
  const int64_t block = BlockOf(GetParam()).first;
  const int64_t narrow = 512 + std::max<int64_t>(32, block), wide = 2048 + std::max<int64_t>(32, block);
  Product products[] = {{{GetParam(), DType::kNone, 130, narrow}, 165, true, 0, 3},
                        {{GetParam(), DType::kNone, 40, wide}, 131, false, 1, 0},
                        {{GetParam(), DType::kNone, 600, narrow}, 40, true, 0, 0}};
  for (Product& product : products) {
    for (const Level& level : Levels()) {
      for (const DType compute : {DType::kNone, DType::kF32}) {
        std::vector<float> same;
        for (const int threads : {1, 2, 3}) product.Check(level, compute, threads, &same);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// A workspace for many rows serves fewer rows.
TEST_P(LinearTest, WorkspaceGrowsWithRows) {
  for (const auto& [isa, amx] : Levels()) {
    for (const int64_t k : {256, 768, 4096}) {
      const WeightSpec spec{GetParam(), DType::kNone, 256, k};
      size_t previous = 0;
      for (int64_t m = 0; m < 600; ++m) {
        const size_t bytes = LinearWorkspaceFor(isa, spec, m, 3);
        ASSERT_GE(bytes, previous) << IsaName(isa) << " M " << m << " K " << k;
        previous = bytes;
      }
    }
  }
}

TEST_P(LinearTest, NanInXReachesItsRowOnly) {
  const WeightSpec spec{GetParam(), DType::kNone, 20, 256};
  const Weight w(spec, 3);
  const Memory packed(PackedWeightBytes(spec));
  PackWeight(spec, w.bytes.data(), w.RowScales(), packed.data, {});
  for (const auto& [isa, amx] : Levels()) {
    for (const int64_t m : {1, 2, 65}) {
      const Memory workspace(LinearWorkspaceFor(isa, spec, m, 1));
      std::vector<float> x(m * 256, 0.5f), y(m * 20);
      x[(m - 1) * 256 + 14] = NAN;
      LinearFor(isa, spec, Matrix(x.data(), m, 256, 256), packed.data, {}, Matrix(y.data(), m, 20, 20), workspace.data,
                {}, *amx);
      for (int64_t i = 0; i < m * 20; ++i) {
        ASSERT_EQ(std::isnan(y[i]), i / 20 == m - 1) << IsaName(isa) << " M " << m << " at " << i;
      }
    }
  }
}

TEST_P(LinearTest, EmbedReadsRowsAndZeroesUnknownIds) {
  for (const int64_t cols : Columns({1, 33, 100}, {1, 3, 4})) {
    for (const int threads : {1, 3}) {
      const WeightSpec spec{GetParam(), DType::kNone, 83, cols};
      const Weight w(spec, 11);
      const Memory packed(PackedWeightBytes(spec));
      PackWeight(spec, w.bytes.data(), w.RowScales(), packed.data, {});
      std::vector<int32_t> ids = {82, 0, -1, 83, 17, 64, 15};
      const int64_t t = ids.size(), ldy = cols + 2;
      std::vector<float> y(t * ldy, 77.0f);
      const View ids_view{ids.data(), DType::kI32, 1, {t, 1, 1, 1}, {1, 0, 0, 0}};
      RunTeam(threads,
              [&](const Team& team) { Embed(spec, ids_view, packed.data, Matrix(y.data(), t, cols, ldy), team); });
      for (int64_t i = 0; i < t; ++i) {
        const bool known = ids[i] >= 0 && ids[i] < 83;
        for (int64_t k = 0; k < cols; ++k) {
          ASSERT_FLOAT_EQ(y[i * ldy + k], known ? w.values[ids[i] * cols + k] : 0.0)
              << "id " << ids[i] << " column " << k;
        }
        ASSERT_EQ(y[i * ldy + cols], 77.0f);
      }
    }
  }
}

std::string DtypeName(const testing::TestParamInfo<DType>& info) {
  switch (info.param) {
    case DType::kF32:
      return "F32";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
    case DType::kQ8_0:
      return "Q8_0";
    case DType::kQ4_0:
      return "Q4_0";
    case DType::kQ4_1:
      return "Q4_1";
    case DType::kQ5_0:
      return "Q5_0";
    case DType::kQ5_1:
      return "Q5_1";
    case DType::kQ4_K:
      return "Q4_K";
    case DType::kQ5_K:
      return "Q5_K";
    case DType::kQ6_K:
      return "Q6_K";
    case DType::kI8:
      return "I8";
    default:
      return "I4_G128";
  }
}
INSTANTIATE_TEST_SUITE_P(Dtypes, LinearTest,
                         testing::Values(DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0,
                                         DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K,
                                         DType::kQ6_K, DType::kI4_G128, DType::kI8),
                         DtypeName);

TEST(LinearCheck, TilesThatDifferFromVectorsAreFoundOut) {
  constexpr auto kWrong = [](const AmxArgs& a) {
    for (int64_t m = a.m0; m < a.m1; ++m) {
      for (int64_t n = a.n0; n < a.n1; ++n) a.y[m * a.ldy + n] = 0;
    }
  };
  constexpr auto kWrongToo = [](const GemmArgs&) {};
  int levels = 0;
  for (const auto& [isa, amx] : Levels()) {
    if (!isa.amx_bf16) continue;
    ++levels;
    EXPECT_TRUE(AmxAgrees(isa, *amx));
    EXPECT_FALSE(AmxAgrees(isa, {amx->convert, kWrong, amx->small}));
    EXPECT_FALSE(AmxAgrees(isa, {amx->convert, amx->gemm, kWrongToo}));
  }
  EXPECT_GT(levels, 0);
}

TEST(LinearSpec, SaysWhyAWeightIsUnsupported) {
  EXPECT_EQ(WeightUnsupported({DType::kQ4_0, DType::kNone, 5, 64}), nullptr);
  EXPECT_NE(WeightUnsupported({DType::kQ4_0, DType::kNone, 5, 65}), nullptr);
  EXPECT_NE(WeightUnsupported({DType::kI32, DType::kNone, 5, 64}), nullptr);
  EXPECT_NE(WeightUnsupported({DType::kF32, DType::kBF16, 5, 64}), nullptr);
  EXPECT_NE(WeightUnsupported({DType::kF32, DType::kNone, 0, 64}), nullptr);
  EXPECT_NE(WeightUnsupported({DType::kF32, DType::kNone, int64_t{1} << 40, 64}), nullptr);
}

}  // namespace
}  // namespace assay::cpu
