// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace assay {
namespace {

std::string Hex(const std::vector<uint8_t>& bytes) {
  std::string s;
  for (const uint8_t b : bytes) {
    char two[3];
    std::snprintf(two, sizeof(two), "%02x", b);
    s += two;
  }
  return s;
}

// Made with exact binary fractions, with ties and extremes of both signs among them.
std::vector<float> BlockX() {
  std::vector<float> x(32);
  for (int i = 0; i < 32; ++i) x[i] = static_cast<float>((i * 37) % 64 - 31) / 16.0f;
  x[5] = -2.5f;
  x[9] = 0.0f;
  return x;
}

std::vector<float> BlockY() {
  std::vector<float> y(32);
  for (int i = 0; i < 32; ++i) y[i] = static_cast<float>((i * 29 + 7) % 53 - 20) * 0.3125f;
  return y;
}

std::string Quantized(assay_dtype dtype, const std::vector<float>& x) {
  std::vector<uint8_t> bytes(DTypeBytes(dtype, x.size()));
  ConvertElements(ASSAY_F32, x.data(), dtype, bytes.data(), x.size());
  return Hex(bytes);
}

// The expected bytes were made with gguf.quants.quantize of the Python package gguf 0.19.
TEST(DType, QuantisesAsGgmlDoes) {
  EXPECT_EQ(Quantized(ASSAY_Q8_0, BlockX()), "0a259e13bd33dd81fda71d003ce75c06b126d046f06610ba30da4ffaa419c439e359");
  EXPECT_EQ(Quantized(ASSAY_Q8_0, BlockY()), "0a2dcc40e053f467087b1cbd30d043e457f86b0c7f20c034d447e85bfc6f10b124c4");
  EXPECT_EQ(Quantized(ASSAY_Q4_0, BlockX()), "003552c974eb9640b862da882ca64ec863ea");
  EXPECT_EQ(Quantized(ASSAY_Q4_0, BlockY()), "00bd1b740a63c952b840a62c851b74da63c9");
  EXPECT_EQ(Quantized(ASSAY_Q4_1, BlockX()), "cd3400c152da74fc9640b863ea882ca74ec963eb");
  EXPECT_EQ(Quantized(ASSAY_Q4_1, BlockY()), "553c40c6e27af38c15ad36bf48c159e27b048c15");
}

TEST(DType, BlocksComeBackWithinHalfAStep) {
  const struct {
    assay_dtype dtype;
    float half_step;  // of BlockY, whose values span -6.25 .. 10
  } cases[] = {{ASSAY_Q8_0, 10.0f / 127 / 2}, {ASSAY_Q4_0, 10.0f / 8}, {ASSAY_Q4_1, 16.25f / 15 / 2}};
  const std::vector<float> y = BlockY();
  for (const auto& c : cases) {
    std::vector<uint8_t> bytes(DTypeBytes(c.dtype, 32));
    std::vector<float> back(32);
    ConvertElements(ASSAY_F32, y.data(), c.dtype, bytes.data(), 32);
    ConvertElements(c.dtype, bytes.data(), ASSAY_F32, back.data(), 32);
    for (int i = 0; i < 32; ++i) EXPECT_NEAR(back[i], y[i], c.half_step * 1.01f) << DTypeName(c.dtype) << " " << i;
  }
}

TEST(DType, ZeroAndNonFiniteBlocksDoNotTrap) {
  std::vector<float> x(32, 0.0f);
  EXPECT_EQ(Quantized(ASSAY_Q4_0, x), "0080" + std::string(32, '8'));  // 0 / -8 is -0, in ggml too
  x[3] = std::numeric_limits<float>::quiet_NaN();
  x[4] = std::numeric_limits<float>::infinity();
  for (const assay_dtype t : {ASSAY_Q8_0, ASSAY_Q4_0, ASSAY_Q4_1}) EXPECT_FALSE(Quantized(t, x).empty());
}

TEST(DType, EveryF16ComesBack) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float f = F16ToF32(static_cast<uint16_t>(h));
    const int exponent = static_cast<int>(h >> 10 & 31);
    const int mantissa = static_cast<int>(h & 1023);
    if (exponent == 31 && mantissa != 0) {
      EXPECT_TRUE(std::isnan(f)) << h;
      continue;
    }
    const float magnitude = exponent == 31  ? std::numeric_limits<float>::infinity()
                            : exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                            : std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
    ASSERT_EQ(f, (h & 0x8000) != 0 ? -magnitude : magnitude) << h;
    ASSERT_EQ(F32ToF16(f), h);
  }
}

TEST(DType, F16RoundsToNearestEven) {
  EXPECT_EQ(F32ToF16(1.0f + 0x1p-11f), 0x3C00);             // a tie, down to even
  EXPECT_EQ(F32ToF16(1.0f + 3 * 0x1p-11f), 0x3C02);         // a tie, up to even
  EXPECT_EQ(F32ToF16(1.0f + 0x1p-11f + 0x1p-20f), 0x3C01);  // just over a tie
  EXPECT_EQ(F32ToF16(65519.0f), 0x7BFF);                    // the last that stays finite
  EXPECT_EQ(F32ToF16(65520.0f), 0x7C00);
  EXPECT_EQ(F32ToF16(0x1p-25f), 0x0000);  // half of the least subnormal: a tie
  EXPECT_EQ(F32ToF16(0x1.8p-25f), 0x0001);
  EXPECT_EQ(F32ToF16(-0.0f), 0x8000);
  EXPECT_TRUE(std::isnan(F16ToF32(F32ToF16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(DType, Bf16RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(F32ToBF16(1.0f + 0x1p-8f), 0x3F80);
  EXPECT_EQ(F32ToBF16(1.0f + 3 * 0x1p-8f), 0x3F82);
  EXPECT_EQ(F32ToBF16(std::numeric_limits<float>::max()), 0x7F80);
  EXPECT_TRUE(std::isnan(BF16ToF32(F32ToBF16(std::bit_cast<float>(0x7F800001u)))));
  EXPECT_TRUE(std::isnan(BF16ToF32(F32ToBF16(std::bit_cast<float>(0xFFFFFFFFu)))));
}

TEST(DType, ConvertsManyElementsBetweenAnyTwo) {
  const size_t n = 5 * 1024 + 32;  // more than one chunk, and a part of one
  std::vector<float> x(n);
  for (size_t i = 0; i < n; ++i) x[i] = static_cast<float>(static_cast<int>(i % 255) - 127);  // exact in every type
  const assay_dtype types[] = {ASSAY_F32, ASSAY_F16, ASSAY_BF16, ASSAY_Q8_0};
  for (const assay_dtype from : types) {
    for (const assay_dtype to : types) {
      std::vector<uint8_t> a(DTypeBytes(from, n));
      std::vector<uint8_t> b(DTypeBytes(to, n));
      std::vector<float> back(n);
      ConvertElements(ASSAY_F32, x.data(), from, a.data(), n);
      ConvertElements(from, a.data(), to, b.data(), n);
      ConvertElements(to, b.data(), ASSAY_F32, back.data(), n);
      // Blocks whose largest magnitude is not 127 round in q8_0; the scale of the rest is exactly 1.
      for (size_t i = 0; i < n; ++i) ASSERT_NEAR(back[i], x[i], 0.6f) << DTypeName(from) << DTypeName(to) << i;
    }
  }
}

TEST(DType, SizesAndNames) {
  EXPECT_EQ(DTypeBytes(ASSAY_Q8_0, 64), 68u);
  EXPECT_EQ(DTypeBytes(ASSAY_Q4_0, 64), 36u);
  EXPECT_EQ(DTypeBytes(ASSAY_Q4_1, 64), 40u);
  EXPECT_EQ(DTypeBytes(ASSAY_BF16, 3), 6u);
  EXPECT_STREQ(DTypeName(ASSAY_Q4_1), "q4_1");
  EXPECT_EQ(FindDType(999), nullptr);
  EXPECT_TRUE(IsBlockType(ASSAY_Q4_0));
  EXPECT_FALSE(IsBlockType(ASSAY_F16));
}

}  // namespace
}  // namespace assay
