// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/dtype.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
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

std::vector<float> RoundTrip(assay_dtype dtype, const std::vector<float>& x) {
  std::vector<uint8_t> bytes(DTypeBytes(dtype, x.size()));
  std::vector<float> back(x.size());
  ConvertElements(ASSAY_F32, x.data(), dtype, bytes.data(), x.size());
  ConvertElements(dtype, bytes.data(), ASSAY_F32, back.data(), x.size());
  return back;
}

// The expected bytes were made with gguf.quants.quantize of the Python package gguf 0.19.
TEST(DType, QuantisesAsGgmlDoes) {
  EXPECT_EQ(Quantized(ASSAY_Q8_0, BlockX()), "0a259e13bd33dd81fda71d003ce75c06b126d046f06610ba30da4ffaa419c439e359");
  EXPECT_EQ(Quantized(ASSAY_Q8_0, BlockY()), "0a2dcc40e053f467087b1cbd30d043e457f86b0c7f20c034d447e85bfc6f10b124c4");
  EXPECT_EQ(Quantized(ASSAY_Q4_0, BlockX()), "003552c974eb9640b862da882ca64ec863ea");
  EXPECT_EQ(Quantized(ASSAY_Q4_0, BlockY()), "00bd1b740a63c952b840a62c851b74da63c9");
  EXPECT_EQ(Quantized(ASSAY_Q4_1, BlockX()), "cd3400c152da74fc9640b863ea882ca74ec963eb");
  EXPECT_EQ(Quantized(ASSAY_Q4_1, BlockY()), "553c40c6e27af38c15ad36bf48c159e27b048c15");
  EXPECT_EQ(Quantized(ASSAY_Q5_0, BlockX()), "00314ab75aa9a492e8d62c7060b5a4f0483d8c71c6b5");
  EXPECT_EQ(Quantized(ASSAY_Q5_0, BlockY()), "00b915aa50a537f804c682a36f713d591a26e8a4c581");
  EXPECT_EQ(Quantized(ASSAY_Q5_1, BlockX()), "a53000c14ab75aabb4b4f8f83c8081c5c501595e9e92d6d6");
  EXPECT_EQ(Quantized(ASSAY_Q5_1, BlockY()), "323840c6aa55ad4ac4e5f7182a4b5d7e80a2b3d5e608193b");
}

// tests/data/make_blocks.py: random bits, and what the Python package gguf reads in them.
TEST(DType, ReadsBlocksAsGgmlDoes) {
  std::ifstream file(ASSAY_SOURCE_DIR "/tests/data/blocks.txt");
  int types = 0;
  for (std::string name, hex; file >> name >> hex; ++types) {
    const assay_dtype dtype = DTypeOfName(name);
    const DTypeInfo* info = FindDType(dtype);
    ASSERT_NE(info, nullptr) << name;
    std::vector<uint8_t> bytes;
    for (size_t i = 0; i < hex.size(); i += 2) {
      bytes.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    }
    std::vector<float> x(bytes.size() / info->block_bytes * info->block_elems);
    ConvertElements(dtype, bytes.data(), ASSAY_F32, x.data(), x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      float expected;
      ASSERT_TRUE(file >> expected);
      ASSERT_EQ(x[i], expected) << name << " " << i;
    }
  }
  EXPECT_EQ(types, 5);
}

// A part of a block's values is far from the rest, so that the scales within a block differ.
TEST(DType, KBlocksComeBackWithinAStepOfTheirPart) {
  std::vector<float> x(256);
  for (int i = 0; i < 256; ++i) {
    x[i] = static_cast<float>(i * i % 113 - 50) * std::ldexp(1.0f, -(i / 32)) + (i / 32 == 3 ? 20.0f : 0.0f);
  }
  const struct {
    assay_dtype dtype;
    int part;
    float steps;  // over the span of a part
  } cases[] = {{ASSAY_Q4_K, 32, 15}, {ASSAY_Q5_K, 32, 31}, {ASSAY_Q6_K, 16, 31}};
  for (const auto& c : cases) {
    const std::vector<float> back = RoundTrip(c.dtype, x);
    for (int p = 0; p < 256; p += c.part) {
      const auto [low, high] = std::minmax_element(x.begin() + p, x.begin() + p + c.part);
      // Scales are whole steps of the block's: a 63rd (a 128th) of the largest.
      const float span = std::max(*high, 0.0f) - std::min(*low, 0.0f) + 2 * 70.0f / 63;
      for (int i = p; i < p + c.part; ++i) EXPECT_NEAR(back[i], x[i], span / c.steps) << DTypeName(c.dtype) << " " << i;
    }
  }
}

TEST(DType, BlocksComeBackWithinHalfAStep) {
  const struct {
    assay_dtype dtype;
    float half_step;  // of BlockY, whose values span -6.25 .. 10
  } cases[] = {{ASSAY_Q8_0, 10.0f / 127 / 2},
               {ASSAY_Q4_0, 10.0f / 8},
               {ASSAY_Q4_1, 16.25f / 15 / 2},
               {ASSAY_Q5_0, 10.0f / 16},
               {ASSAY_Q5_1, 16.25f / 31 / 2}};
  const std::vector<float> y = BlockY();
  for (const auto& c : cases) {
    const std::vector<float> back = RoundTrip(c.dtype, y);
    for (int i = 0; i < 32; ++i) EXPECT_NEAR(back[i], y[i], c.half_step * 1.01f) << DTypeName(c.dtype) << " " << i;
  }
}

TEST(DType, ZeroAndNonFiniteBlocksDoNotTrap) {
  std::vector<float> x(32, 0.0f);
  EXPECT_EQ(Quantized(ASSAY_Q4_0, x), "0080" + std::string(32, '8'));  // 0 / -8 is -0, in ggml too
  x[3] = std::numeric_limits<float>::quiet_NaN();
  x[4] = std::numeric_limits<float>::infinity();
  for (const assay_dtype t : {ASSAY_Q8_0, ASSAY_Q4_0, ASSAY_Q4_1, ASSAY_Q5_0, ASSAY_Q5_1}) {
    EXPECT_FALSE(Quantized(t, x).empty());
  }
  EXPECT_EQ(RoundTrip(ASSAY_Q4_K, std::vector<float>(256, 0.0f)), std::vector<float>(256, 0.0f));
  EXPECT_EQ(RoundTrip(ASSAY_Q6_K, std::vector<float>(256, 0.0f)), std::vector<float>(256, 0.0f));
  x.resize(256, 1.0f);
  for (const assay_dtype t : {ASSAY_Q4_K, ASSAY_Q5_K, ASSAY_Q6_K}) EXPECT_FALSE(Quantized(t, x).empty());
  for (const assay_dtype t : {ASSAY_F8_B128, ASSAY_I4_G128}) EXPECT_FALSE(Quantized(t, x).empty());
}

std::vector<float> LargeBlock() {
  std::vector<float> x(128);
  for (int i = 0; i < 128; ++i) x[i] = static_cast<float>(i * i % 113 - 40) * std::ldexp(1.0f, -(i % 20));
  return x;
}

float Largest(const std::vector<float>& x) {
  float largest = 0;
  for (const float v : x) largest = std::max(largest, std::fabs(v));
  return largest;
}

TEST(DType, Fp8BlocksHoldScaleAndE4m3) {
  std::vector<float> x(128, 0.0f);
  x[0] = -896.0f;  // d = 2
  x[1] = 2.0f;     // 1.0
  x[2] = 0x1p-8f;  // the least subnormal, 2^-9
  x[127] = 4.25f;  // 2.125, a tie between 2 and 2.25
  EXPECT_EQ(Quantized(ASSAY_F8_B128, x), "00000040fe3801" + std::string(2 * 124, '0') + "40");
  EXPECT_EQ(Quantized(ASSAY_F8_B128, std::vector<float>(128, 0.0f)), std::string(2 * 132, '0'));
}

TEST(DType, Fp8BlocksComeBackWithinHalfAStep) {
  for (const float scale : {1.0f, 0x1p-126f, 0x1p-100f, 0x1p+120f}) {
    std::vector<float> x = LargeBlock();
    for (float& v : x) v *= scale;
    const std::vector<float> back = RoundTrip(ASSAY_F8_B128, x);
    const double d = Largest(x) / 448;
    // Where d is subnormal, its own rounding (2^-150 at most) is on top, 448 times.
    for (int i = 0; i < 128; ++i) {
      const double half_step = std::max(0x1p-4 * std::abs(x[i]), 0x1p-10 * d);
      EXPECT_NEAR(back[i], x[i], half_step * 1.0001 + 448 * 0x1p-150) << scale << " " << i;
    }
  }
}

TEST(DType, Fp8BlocksOfFiniteValuesAreFinite) {
  for (const float largest : {std::numeric_limits<float>::max(), 1e-38f, 1e-40f, 4e-43f, 1e-45f}) {
    std::vector<float> x(128, largest / 3);
    x[7] = -largest;
    const std::vector<float> back = RoundTrip(ASSAY_F8_B128, x);
    for (const float v : back) EXPECT_TRUE(std::isfinite(v)) << largest;
    if (largest > 1e-38f) {
      EXPECT_EQ(back[7], -largest);
    }
  }
}

TEST(DType, Int4GroupsHoldScaleMinimumAndHalves) {
  std::vector<float> x(128);
  std::string quants;
  for (int i = 0; i < 64; ++i) {
    x[i] = static_cast<float>(i % 16) * 0.5f - 3.0f;  // d = 0.5, m = -3
    x[i + 64] = static_cast<float>(15 - i % 16) * 0.5f - 3.0f;
    quants += Hex({static_cast<uint8_t>(i % 16 | (15 - i % 16) << 4)});
  }
  EXPECT_EQ(Quantized(ASSAY_I4_G128, x), "003800c2" + quants);
  EXPECT_EQ(RoundTrip(ASSAY_I4_G128, x), x);
  const std::vector<float> y = LargeBlock(), back = RoundTrip(ASSAY_I4_G128, y);
  const auto [min, max] = std::minmax_element(y.begin(), y.end());
  for (int i = 0; i < 128; ++i) EXPECT_NEAR(back[i], y[i], (*max - *min) / 15 / 2 * 1.01f) << i;
}

TEST(DType, LargeBlocksOfAStreamAreThoseOfEach) {
  const size_t n = 5 * 1024 + 128;  // more than one chunk, and a part of one
  std::vector<float> x(n);
  for (size_t i = 0; i < n; ++i) x[i] = static_cast<float>(i * 31 % 1009) - 500.0f;
  for (const assay_dtype t : {ASSAY_F8_B128, ASSAY_I4_G128}) {
    std::vector<float> each;
    for (size_t at = 0; at < n; at += 128) {
      const std::vector<float> block = RoundTrip(t, {x.begin() + at, x.begin() + at + 128});
      each.insert(each.end(), block.begin(), block.end());
    }
    EXPECT_EQ(RoundTrip(t, x), each) << DTypeName(t);
  }
}

TEST(DType, EveryE4m3ComesBack) {
  for (int q = 0; q < 256; ++q) {
    const float f = E4M3ToF32(static_cast<uint8_t>(q));
    const int exponent = q >> 3 & 15;
    if ((q & 0x7F) == 0x7F) {
      EXPECT_TRUE(std::isnan(f)) << q;
      EXPECT_TRUE(std::isnan(E4M3ToF32(F32ToE4M3(f))));
      continue;
    }
    const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(q & 7), -9)
                                          : std::ldexp(static_cast<float>((q & 7) + 8), exponent - 10);
    ASSERT_EQ(f, (q & 0x80) != 0 ? -magnitude : magnitude) << q;
    ASSERT_EQ(F32ToE4M3(f), q);
  }
}

TEST(DType, E4m3RoundsToNearestEvenAndSaturates) {
  for (int q = 0; q < 0x7E; ++q) {
    const float low = E4M3ToF32(static_cast<uint8_t>(q)), high = E4M3ToF32(static_cast<uint8_t>(q + 1));
    const float middle = (low + high) / 2;  // exact
    EXPECT_EQ(F32ToE4M3(middle), q + q % 2) << q;
    EXPECT_EQ(F32ToE4M3(std::nextafter(middle, 0.0f)), q);
    EXPECT_EQ(F32ToE4M3(-std::nextafter(middle, 1e3f)), (q + 1) | 0x80);
  }
  for (const float f : {449.0f, 480.0f, 1e30f, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(F32ToE4M3(f), 0x7E) << f;
    EXPECT_EQ(F32ToE4M3(-f), 0xFE) << f;
  }
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
  EXPECT_EQ(DTypeBytes(ASSAY_Q5_0, 64), 44u);
  EXPECT_EQ(DTypeBytes(ASSAY_Q5_1, 64), 48u);
  EXPECT_EQ(DTypeBytes(ASSAY_Q4_K, 512), 288u);
  EXPECT_EQ(DTypeBytes(ASSAY_Q5_K, 512), 352u);
  EXPECT_EQ(DTypeBytes(ASSAY_Q6_K, 512), 420u);
  EXPECT_EQ(DTypeBytes(ASSAY_F8_B128, 256), 264u);
  EXPECT_EQ(DTypeBytes(ASSAY_I4_G128, 256), 136u);
  EXPECT_EQ(DTypeBytes(ASSAY_BF16, 3), 6u);
  EXPECT_STREQ(DTypeName(ASSAY_Q4_1), "q4_1");
  EXPECT_STREQ(DTypeName(ASSAY_F8_B128), "f8_b128");
  EXPECT_STREQ(DTypeName(ASSAY_I4_G128), "i4_g128");
  for (const assay_dtype t : {ASSAY_F32, ASSAY_Q4_1, ASSAY_Q6_K, ASSAY_F8_B128, ASSAY_I4_G128}) {
    EXPECT_EQ(DTypeOfName(DTypeName(t)), t);
  }
  EXPECT_EQ(DTypeOfName("f99"), ASSAY_DTYPE_NONE);
  EXPECT_EQ(FindDType(999), nullptr);
  EXPECT_TRUE(IsBlockType(ASSAY_Q4_0));
  EXPECT_FALSE(IsBlockType(ASSAY_F16));
}

TEST(DType, QuantsWithAScalePerRow) {
  const float x[] = {1, -0.5f, 0.25f, 0, -1};
  uint8_t q[5];
  float back[5];
  EXPECT_TRUE(IsRowScaled(ASSAY_I8) && IsRowScaled(ASSAY_F8_E4M3) && !IsRowScaled(ASSAY_Q8_0));
  EXPECT_FLOAT_EQ(ScaleFor(ASSAY_I8, x, 5), 1.0f / 127);
  EXPECT_FLOAT_EQ(ScaleFor(ASSAY_F8_E4M3, x, 5), 1.0f / 448);
  Quantize(ASSAY_I8, x, 0.25f, q, 5);
  EXPECT_EQ(std::vector<int>(q, q + 5), (std::vector<int>{4, 254, 1, 0, 252}));
  Quantize(ASSAY_I8, x, 1e-3f, q, 5);
  EXPECT_EQ(std::vector<int>(q, q + 5), (std::vector<int>{127, 129, 127, 0, 129}));
  Quantize(ASSAY_F8_E4M3, x, 0.5f, q, 5);
  EXPECT_EQ(std::vector<int>(q, q + 5), (std::vector<int>{0x40, 0xb8, 0x30, 0, 0xc0}));
  Dequantize(ASSAY_F8_E4M3, q, 0.5f, back, 5);
  EXPECT_EQ(std::vector<float>(back, back + 5), std::vector<float>(x, x + 5));
  const float zeros[5] = {};
  EXPECT_EQ(ScaleFor(ASSAY_I8, zeros, 5), 0);
  Quantize(ASSAY_I8, zeros, 0, q, 5);
  EXPECT_EQ(std::vector<int>(q, q + 5), std::vector<int>(5, 0));
}

}  // namespace
}  // namespace assay
