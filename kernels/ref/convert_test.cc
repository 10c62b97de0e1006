// SPDX-License-Identifier: Apache-2.0
#include "kernels/ref/convert.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "kernels/ref/tensors_for_test.h"

namespace assay::ref {
namespace {

TEST(Convert, EveryF16SurvivesTheRoundTrip) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float f = F16ToF32(static_cast<uint16_t>(h));
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(F16ToF32(F32ToF16(f)))) << h;
    } else {
      ASSERT_EQ(F32ToF16(f), h);
    }
  }
}

TEST(Convert, F16KnownValues) {
  EXPECT_EQ(F16ToF32(0x3c00), 1.0f);
  EXPECT_EQ(F16ToF32(0xc000), -2.0f);
  EXPECT_EQ(F16ToF32(0x7bff), 65504.0f);
  EXPECT_EQ(F16ToF32(0x0001), 0x1p-24f);
  EXPECT_EQ(F32ToF16(65519.0f), 0x7bff);
  EXPECT_EQ(F32ToF16(65520.0f), 0x7c00);
  EXPECT_EQ(F32ToF16(1.0f + 0x1p-11f), 0x3c00);  // a tie goes to the even neighbour
  EXPECT_EQ(F32ToF16(1.0f + 0x3p-11f), 0x3c02);
  EXPECT_EQ(F32ToF16(0x1p-25f), 0x0000);
  EXPECT_EQ(F32ToF16(std::nextafter(0x1p-25f, 1.0f)), 0x0001);
}

TEST(Convert, BF16RoundsToNearestEven) {
  EXPECT_EQ(F32ToBF16(1.0f), 0x3f80);
  EXPECT_EQ(F32ToBF16(1.0f + 0x1p-8f), 0x3f80);
  EXPECT_EQ(F32ToBF16(1.0f + 0x3p-8f), 0x3f82);
  EXPECT_EQ(F32ToBF16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_TRUE(std::isnan(BF16ToF32(F32ToBF16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(Convert, E4M3RoundsToNearestEvenAndSaturates) {
  for (int q = 0; q < 0x7e; ++q) {
    const auto low = static_cast<float>(E4M3ToDouble(static_cast<uint8_t>(q)));
    const auto high = static_cast<float>(E4M3ToDouble(static_cast<uint8_t>(q + 1)));
    const float middle = (low + high) / 2;
    ASSERT_EQ(F32ToE4M3(low), q);
    EXPECT_EQ(F32ToE4M3(-low), q | 0x80);
    EXPECT_EQ(F32ToE4M3(middle), q + q % 2) << q;
    EXPECT_EQ(F32ToE4M3(std::nextafter(middle, 0.0f)), q);
    EXPECT_EQ(F32ToE4M3(std::nextafter(middle, 1e3f)), q + 1);
  }
  for (const float f : {448.0f, 464.0f, 1e9f, INFINITY}) EXPECT_EQ(F32ToE4M3(-f), 0xfe) << f;
  EXPECT_TRUE(std::isnan(E4M3ToDouble(F32ToE4M3(NAN))));
}

TEST(Convert, BlockTypes) {
  // d = 0.5 (0x3800), m = -2 (0xc000); quants count up.
  std::vector<uint8_t> q8(34), q4_0(18), q4_1(20);
  q8[1] = q4_0[1] = q4_1[1] = 0x38;
  q4_1[3] = 0xc0;
  for (int i = 0; i < 32; ++i) q8[2 + i] = static_cast<uint8_t>(i - 16);
  for (int i = 0; i < 16; ++i) q4_0[2 + i] = q4_1[4 + i] = static_cast<uint8_t>(i | (15 - i) << 4);
  View v;
  v.dtype = DType::kQ8_0;
  v.data = q8.data();
  for (int i = 0; i < 32; ++i) EXPECT_EQ(Load(v, i), 0.5 * (i - 16));
  v.dtype = DType::kQ4_0;
  v.data = q4_0.data();
  for (int i = 0; i < 32; ++i) EXPECT_EQ(Load(v, i), 0.5 * ((i < 16 ? i : 31 - i) - 8)) << i;
  v.dtype = DType::kQ4_1;
  v.data = q4_1.data();
  for (int i = 0; i < 32; ++i) EXPECT_EQ(Load(v, i), 0.5 * (i < 16 ? i : 31 - i) - 2) << i;
}

// tests/data/make_blocks.py: random bits, and what the Python package gguf reads in them.
TEST(Convert, FiveBitAndKBlocks) {
  std::ifstream file(ASSAY_SOURCE_DIR "/tests/data/blocks.txt");
  for (const DType dtype : {DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    std::string name, hex;
    ASSERT_TRUE(file >> name >> hex);
    std::vector<uint8_t> bytes;
    for (size_t i = 0; i < hex.size(); i += 2) {
      bytes.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    }
    View v;
    v.dtype = dtype;
    v.data = bytes.data();
    const int elements = dtype == DType::kQ5_0 || dtype == DType::kQ5_1 ? 128 : 512;
    for (int i = 0; i < elements; ++i) {
      float expected;
      ASSERT_TRUE(file >> expected);
      ASSERT_EQ(static_cast<float>(Load(v, i)), expected) << name << " " << i;
    }
  }
}

// Two blocks each, so that the second is looked for where it is.
TEST(Convert, BlocksOf128) {
  std::vector<uint8_t> f8(2 * 132), i4(2 * 68);
  f8[3] = 0x3f;        // d = 0.5
  f8[132 + 3] = 0x40;  // d = 2
  f8[4 + 1] = 0x38;    // 1
  f8[4 + 127] = 0xfe;  // -448
  f8[132 + 4] = 0x01;  // 2^-9
  f8[132 + 5] = 0x87;  // -7 * 2^-9, the largest subnormal
  f8[132 + 6] = 0x08;  // 2^-6
  f8[132 + 7] = 0x7f;
  View v;
  v.dtype = DType::kF8_B128;
  v.data = f8.data();
  EXPECT_EQ(Load(v, 0), 0);
  EXPECT_EQ(Load(v, 1), 0.5);
  EXPECT_EQ(Load(v, 127), -224);
  EXPECT_EQ(Load(v, 128), 0x1p-8);
  EXPECT_EQ(Load(v, 129), -7 * 0x1p-8);
  EXPECT_EQ(Load(v, 130), 0x1p-5);
  EXPECT_TRUE(std::isnan(Load(v, 131)));
  // d = 0.5, m = -2; d = 1, m = 0.
  i4[1] = 0x38;
  i4[3] = 0xc0;
  i4[68 + 1] = 0x3c;
  for (int i = 0; i < 64; ++i) i4[4 + i] = i4[68 + 4 + i] = static_cast<uint8_t>(i % 16 | (i / 4) << 4);
  v.dtype = DType::kI4_G128;
  v.data = i4.data();
  for (int i = 0; i < 128; ++i) {
    const int q = i < 64 ? i % 16 : (i - 64) / 4;
    EXPECT_EQ(Load(v, i), 0.5 * q - 2) << i;
    EXPECT_EQ(Load(v, 128 + i), q) << i;
  }
}

TEST(Convert, ScalesBehindRows) {
  // Two rows of three quants; the scales are 0.5 and 2.
  uint8_t rows[] = {0x38, 0xfe, 0x01, 0, 0, 0, 0x3f, 0x08, 0x80, 0x7f, 0, 0, 0, 0x40};
  View v;
  v.data = rows;
  v.dtype = DType::kF8_E4M3;
  v.shape[1] = 3;
  v.stride[0] = 7;
  EXPECT_EQ(RowScale(v, 0), 0.5);
  EXPECT_EQ(RowScale(v, 1), 2);
  EXPECT_EQ(Load(v, 0), 1);
  EXPECT_EQ(Load(v, 1), -448);
  EXPECT_EQ(Load(v, 2), 0x1p-9);
  EXPECT_EQ(Load(v, At(v, 1)), 0x1p-6);
  v.dtype = DType::kI8;
  EXPECT_EQ(Load(v, 1), -2);
  EXPECT_EQ(Load(v, At(v, 1) + 1), -128);
  EXPECT_EQ(Load(v, At(v, 1) + 2), 127);
  v.dtype = DType::kQ8_0;
  EXPECT_EQ(RowScale(v, 1), 1);
}

}  // namespace
}  // namespace assay::ref
