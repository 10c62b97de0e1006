// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/ref/ops.h"
#include "kernels/ref/tensors_for_test.h"

namespace assay::ref {
namespace {

// Golden inverse frequencies: transformers 5.23, float32, every fourth pair (head_dim 64). For llama3:
//   p = dict(rope_type="llama3", rope_theta=5e5, factor=32., low_freq_factor=1., high_freq_factor=4.,
//            original_max_position_embeddings=8192)
//   transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](
//       LlamaConfig(hidden_size=256, num_attention_heads=4, head_dim=64, max_position_embeddings=131072,
//                   rope_parameters=p), "cpu")[0][::4]
// For yarn: rope_theta=1e6, factor=4., original_max_position_embeddings=32768.
void ExpectEveryFourth(const RopeAttr& attr, const std::vector<double>& golden) {
  std::vector<double> inv_freq(static_cast<size_t>(attr.rotary_dim / 2));
  RopeInvFreq(attr, inv_freq.data());
  for (size_t i = 0; i < golden.size(); ++i) EXPECT_NEAR(inv_freq[4 * i] / golden[i], 1.0, 1e-6) << "pair " << 4 * i;
}

TEST(RopeInvFreq, Llama3MatchesTransformers) {
  RopeAttr attr{.rotary_dim = 64, .theta = 5e5f, .scaling = RopeScaling::kLlama3, .factor = 32.0f};
  ExpectEveryFourth(attr, {1.00000000e+00, 1.93922758e-01, 3.76060307e-02, 7.29266508e-03, 4.29556705e-04,
                           8.57025589e-06, 1.66196742e-06, 3.22293289e-07});
}

TEST(RopeInvFreq, YarnMatchesTransformers) {
  RopeAttr attr{
      .rotary_dim = 64, .theta = 1e6f, .scaling = RopeScaling::kYarn, .factor = 4.0f, .original_context = 32768.0f};
  ExpectEveryFourth(attr, {1.00000000e+00, 1.77827939e-01, 3.16227786e-02, 5.15479548e-03, 5.83333371e-04,
                           4.44569851e-05, 7.90569356e-06, 1.40585337e-06});
}

TEST(RopeInvFreq, PlainAndLinear) {
  RopeAttr attr{.rotary_dim = 4, .theta = 100.0f};
  double inv_freq[2];
  RopeInvFreq(attr, inv_freq);
  EXPECT_DOUBLE_EQ(inv_freq[0], 1.0);
  EXPECT_DOUBLE_EQ(inv_freq[1], 0.1);
  attr.scaling = RopeScaling::kLinear;
  attr.factor = 4.0f;
  RopeInvFreq(attr, inv_freq);
  EXPECT_DOUBLE_EQ(inv_freq[1], 0.025);
}

TEST(Rope, PairsByHand) {
  // Position 1, theta 1: every pair turns by one radian; the fifth element is not rotated.
  const float c = std::cos(1.0f), s = std::sin(1.0f);
  const I32 positions({1}, {1});
  RopeAttr attr{.rotary_dim = 4, .theta = 1.0f};
  F32 q({1, 1, 5}, {1, 2, 3, 4, 5}), k({1, 1, 5}, {1, 2, 3, 4, 5});
  Rope(positions, View{}, q, k, attr);
  const std::vector<float> neox = {c - 3 * s, 2 * c - 4 * s, 3 * c + s, 4 * c + 2 * s, 5};
  for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(q.data[i], neox[i], 1e-6);
  EXPECT_EQ(k.data, q.data);

  attr.interleaved = true;
  F32 x({1, 1, 5}, {1, 2, 3, 4, 5});
  Rope(positions, View{}, x, View{}, attr);
  const std::vector<float> interleaved = {c - 2 * s, 2 * c + s, 3 * c - 4 * s, 4 * c + 3 * s, 5};
  for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(x.data[i], interleaved[i], 1e-6);
}

TEST(Rope, FreqFactorsDivideTheAngleAndYarnScalesTheLength) {
  RopeAttr attr{.rotary_dim = 2, .theta = 1.0f};
  F32 x({1, 1, 2}, {1, 0});
  Rope(I32({1}, {3}), F32({1}, std::vector<float>{2.0f}), x, View{}, attr);
  EXPECT_NEAR(x.data[0], std::cos(1.5), 1e-6);
  EXPECT_NEAR(x.data[1], std::sin(1.5), 1e-6);

  attr.scaling = RopeScaling::kYarn;
  attr.theta = 10000.0f;
  attr.attn_factor = 1.5f;
  F32 y({1, 1, 2}, {3, 4});
  Rope(I32({1}, {7}), View{}, y, View{}, attr);
  EXPECT_NEAR(std::hypot(y.data[0], y.data[1]), 7.5, 1e-5);
}

}  // namespace
}  // namespace assay::ref
