// SPDX-License-Identifier: Apache-2.0
// Hand-computed values and properties of every operation except rope and attention (files of their own).
#include "kernels/ref/ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/ref/convert.h"
#include "kernels/ref/tensors_for_test.h"

namespace assay::ref {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
using Floats = std::vector<float>;
using Ints = std::vector<int32_t>;

TEST(Rows, EmbedAndGatherTakeRowsAndZeroTheRest) {
  const F32 table({3, 2}, {1, 2, 3, 4, 5, 6});
  const I32 ids({4}, {2, -1, 0, 3});
  F32 y({4, 2}, 9.0f);
  Embed(ids, table, y);
  EXPECT_EQ(y.data, (Floats{5, 6, 0, 0, 1, 2, 0, 0}));
  F32 z({4, 2}, 9.0f);
  GatherRows(table, ids, z);
  EXPECT_EQ(z.data, y.data);
}

TEST(Rows, CastRounds) {
  const F32 x({1, 2}, {1.0f + 0x1p-8f, -3.0f});
  TestTensor<uint16_t> y(DType::kBF16, {1, 2}, {0, 0});
  Cast(x, y);
  EXPECT_EQ(y.data, (std::vector<uint16_t>{0x3f80, 0xc040}));
}

TEST(Rows, KvWriteThenCopy) {
  // 3 blocks of 2 tokens, 2 heads of 1.
  const F32 k({3, 2, 1}, {1, 2, 3, 4, 5, 6}), v({3, 2, 1}, {-1, -2, -3, -4, -5, -6});
  const I32 slots({3}, {3, -1, 0});
  F32 hnd_k({3, 2, 2, 1}, 0.0f), hnd_v({3, 2, 2, 1}, 0.0f), nhd_k({3, 2, 2, 1}, 0.0f), nhd_v({3, 2, 2, 1}, 0.0f);
  KvWritePaged(k, v, slots, hnd_k, hnd_v, {KvLayout::kHND, 2});
  KvWritePaged(k, v, slots, nhd_k, nhd_v, {KvLayout::kNHD, 2});
  EXPECT_EQ(hnd_k.data, (Floats{5, 0, 6, 0, 0, 1, 0, 2, 0, 0, 0, 0}));
  EXPECT_EQ(nhd_k.data, (Floats{5, 6, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0}));
  EXPECT_EQ(nhd_v.data, (Floats{-5, -6, 0, 0, 0, 0, -1, -2, 0, 0, 0, 0}));
  KvBlockCopy(I32({2, 2}, {1, 2, -1, 0}), nhd_k, nhd_v, {KvLayout::kNHD, 2});
  EXPECT_EQ(nhd_k.data, (Floats{5, 6, 0, 0, 0, 0, 1, 2, 0, 0, 1, 2}));
  EXPECT_EQ(nhd_v.data, (Floats{-5, -6, 0, 0, 0, 0, -1, -2, 0, 0, -1, -2}));
}

TEST(Rows, ProbeReadSums) {
  TestTensor<uint8_t> x(DType::kU8, {3}, {1, 255, 7});
  F32 sink({1}, 0.0f);
  ProbeRead(x, sink);
  EXPECT_EQ(sink.data[0], 263.0f);
}

TEST(Norm, ByHand) {
  const F32 x({1, 2}, {3, 4}), w({2}, {2, 10});
  F32 y({1, 2}, 0.0f);
  RmsNorm(x, w, y, 0.0f);
  const double rms = std::sqrt(12.5);
  EXPECT_FLOAT_EQ(y.data[0], static_cast<float>(6 / rms));
  EXPECT_FLOAT_EQ(y.data[1], static_cast<float>(40 / rms));
  RmsNorm(x, w, y, 12.5f);  // eps is added to the mean of squares
  EXPECT_FLOAT_EQ(y.data[0], static_cast<float>(6 / 5.0));
}

TEST(Norm, GroupsAreNormalisedApartAndInPlace) {
  F32 x({1, 2, 2}, {3, 4, 30, 40});
  RmsNorm(x, F32({2}, {1, 1}), x, 0.0f);
  EXPECT_FLOAT_EQ(x.data[0], x.data[2]);
  EXPECT_FLOAT_EQ(x.data[1], x.data[3]);
}

TEST(Norm, AddRmsNormKeepsTheSum) {
  const F32 x({1, 2}, {1, 2});
  F32 residual({1, 2}, {2, 2}), y({1, 2}, 0.0f);
  AddRmsNorm(x, F32({2}, {1, 1}), residual, y, 0.0f);
  EXPECT_EQ(residual.data, (Floats{3, 4}));
  EXPECT_FLOAT_EQ(y.data[1], static_cast<float>(4 / std::sqrt(12.5)));
}

TEST(Norm, AddRmsNormNormalisesTheRoundedSum) {
  // 1 + 2^-9 rounds to 1 in bf16: the norm sees 1, so both halves are equal.
  TestTensor<uint16_t> x(DType::kBF16, {1, 2}, {F32ToBF16(0x1p-9f), 0}),
      residual(DType::kBF16, {1, 2}, {0x3f80, 0x3f80});
  TestTensor<uint16_t> y(DType::kBF16, {1, 2}, {0, 0});
  AddRmsNorm(x, F32({2}, {1, 1}), residual, y, 0.0f);
  EXPECT_EQ(residual.data, (std::vector<uint16_t>{0x3f80, 0x3f80}));
  EXPECT_EQ(y.data, (std::vector<uint16_t>{0x3f80, 0x3f80}));
}

TEST(Elementwise, Glu) {
  const F32 x({1, 4}, {1, -2, 3, 5});  // gate 1, -2; up 3, 5
  F32 y({1, 2}, 0.0f);
  Glu(x, y, GluAct::kSilu);
  EXPECT_NEAR(y.data[0], 3 * 0.7310586, 1e-6);
  EXPECT_NEAR(y.data[1], 5 * -0.2384058, 1e-6);
  Glu(x, y, GluAct::kGeluTanh);
  EXPECT_NEAR(y.data[0], 3 * 0.8411920, 1e-6);  // torch.nn.functional.gelu(x, approximate="tanh")
  EXPECT_NEAR(y.data[1], 5 * -0.0454023, 1e-6);
}

TEST(Elementwise, AddScale) {
  F32 a({1, 2}, {1, 2});
  AddScale(a, F32({1, 2}, {10, 20}), a, 2.0f, 0.5f);
  EXPECT_EQ(a.data, (Floats{7, 14}));
  AddScale(a, View{}, a, 3.0f, 1.0f);
  EXPECT_EQ(a.data, (Floats{21, 42}));
}

TEST(Linear, ByHand) {
  const F32 x({2, 2}, {1, 2, 3, 4}), w({3, 2}, {1, 0, 0, 1, 1, 1}), bias({3}, {0, 0, 10});
  F32 y({2, 3}, 0.0f);
  Linear(x, w, bias, y);
  EXPECT_EQ(y.data, (Floats{1, 2, 13, 3, 4, 17}));
  Linear(x, w, View{}, y);
  EXPECT_EQ(y.data, (Floats{1, 2, 3, 3, 4, 7}));
}

// ------------------------------------------------------------------------------------------ sample, logprobs

struct Params {
  float temperature = 1.0f;
  int32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
};

int32_t Draw(Floats logits, const Params& p, int64_t seed = 1) {
  const int64_t n = static_cast<int64_t>(logits.size());
  I32 ids({1}, {-1});
  Sample(F32({1, n}, std::move(logits)), F32({1}, Floats{p.temperature}), I32({1}, {p.top_k}),
         F32({1}, Floats{p.top_p}), F32({1}, Floats{p.min_p}), I64({1}, {seed}), I32({1}, {0}), ids);
  return ids.data[0];
}

Ints DrawMany(const Floats& logits, const Params& p) {
  Ints counts(logits.size());
  for (int64_t seed = 0; seed < 4000; ++seed) ++counts[static_cast<size_t>(Draw(logits, p, seed))];
  return counts;
}

TEST(Sample, GreedyTakesTheLowestIndexOfTheLargest) {
  EXPECT_EQ(Draw({1, 3, 3, 2}, {.temperature = 0}), 1);
  EXPECT_EQ(Draw({kNan, 1, kNan, 2}, {.temperature = 0}), 3);
  EXPECT_EQ(Draw({kNan, kNan}, {.temperature = 0}), 0);
  EXPECT_EQ(Draw({1, 3, 3, 2}, {.temperature = 5, .top_k = 1}), 1);
  EXPECT_EQ(Draw({1, 3, 2}, {.temperature = 5, .top_p = 1e-9f}), 1);
}

TEST(Sample, FrequenciesFollowTheProbabilities) {
  const Floats logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  const Ints counts = DrawMany(logits, {});
  EXPECT_NEAR(counts[0], 2000, 130);  // four standard deviations
  EXPECT_NEAR(counts[1], 1200, 120);
  const Ints hot = DrawMany(logits, {.temperature = 0.5f});  // squares: 25 / 38, 9 / 38, 4 / 38
  EXPECT_NEAR(hot[0], 4000 * 25 / 38, 125);
}

TEST(Sample, FiltersApplyInOrder) {
  const Floats logits = {std::log(0.4f), std::log(0.3f), std::log(0.2f), std::log(0.1f)};
  EXPECT_EQ(DrawMany(logits, {.top_k = 2})[2], 0);
  EXPECT_GT(DrawMany(logits, {.top_k = 2})[1], 0);
  // top_p 0.6 of the whole keeps two; of the first two, renormalised (0.571, 0.429), it also keeps two;
  // 0.55 of them keeps one, though 0.55 of the whole would keep two.
  EXPECT_EQ(DrawMany(logits, {.top_p = 0.55f})[2], 0);
  EXPECT_GT(DrawMany(logits, {.top_p = 0.55f})[1], 0);
  EXPECT_EQ(DrawMany(logits, {.top_k = 2, .top_p = 0.55f})[1], 0);
  // min_p 0.6: 0.3 stays (0.75 of the largest), 0.2 goes.
  EXPECT_GT(DrawMany(logits, {.min_p = 0.6f})[1], 0);
  EXPECT_EQ(DrawMany(logits, {.min_p = 0.6f})[2], 0);
}

TEST(Logprobs, ByHand) {
  const F32 logits({2, 3}, {std::log(1.0f), std::log(2.0f), std::log(1.0f), 0, 0, 0});
  F32 target({2}, 0.0f), top({2, 2}, 0.0f);
  I32 ids({2, 2}, {9, 9, 9, 9});
  Logprobs(logits, I32({2}, {1, 3}), target, ids, top);
  EXPECT_NEAR(target.data[0], std::log(0.5), 1e-6);
  EXPECT_TRUE(std::isnan(target.data[1]));
  EXPECT_EQ(ids.data, (Ints{1, 0, 0, 1}));
  EXPECT_NEAR(top.data[1], std::log(0.25), 1e-6);
  EXPECT_NEAR(top.data[2], std::log(1 / 3.0), 1e-6);
  Logprobs(F32({1, 2}, {kNan, 1}), I32({1}, {1}), target, View{}, View{});
  EXPECT_TRUE(std::isnan(target.data[0]));
}

}  // namespace
}  // namespace assay::ref
