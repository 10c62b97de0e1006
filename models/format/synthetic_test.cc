// SPDX-License-Identifier: Apache-2.0
#include "models/format/synthetic.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "models/format/test_files.h"

namespace assay {
namespace {

using testing::ErrorOf;

ModelConfig Small() {
  ModelConfig c = SyntheticConfig("qwen2.5-0.5b");
  c.layers = 2;
  c.vocab = 8192;
  return c;
}

std::vector<float> Values(Checkpoint& c, const TensorInfo& t) {
  std::vector<float> x(1);
  uint64_t n = 1;
  for (const int64_t d : t.shape) n *= static_cast<uint64_t>(d);
  x.resize(n);
  ConvertElements(t.dtype, c.Data(t), ASSAY_F32, x.data(), n);
  return x;
}

TEST(Synthetic, HasThePublishedNumberOfParameters) {
  const std::map<std::string, uint64_t> published = {
      {"smollm2-135m", 134'515'008},
      {"smollm2-1.7b", 1'711'376'384},
      {"llama-3.2-1b", 1'235'814'400},
      {"llama-3.1-8b", 8'030'261'248},
      {"llama-3.1-70b", 70'553'706'496},
      {"llama-3.1-405b", 405'853'388'800},
      {"llama-3.2-3b", 3'212'749'824},
      {"qwen2.5-0.5b", 494'032'768},
      {"qwen2.5-7b", 7'615'616'512},
      {"qwen3-0.6b", 596'049'920},
      {"qwen3-8b", 8'190'735'360},
      {"qwen3-14b", 14'768'307'200},
      {"qwen3-32b", 32'762'123'264},
      {"deepseek-r1-distill-qwen-1.5b", 1'777'088'000},
      {"deepseek-r1-distill-qwen-32b", 32'763'876'352},
      {"gemma3-270m", 268'098'176},
      {"gemma3-1b", 999'885'952},
  };
  EXPECT_EQ(SyntheticShapeNames().size(), published.size());
  for (const auto& [name, parameters] : published) EXPECT_EQ(SyntheticConfig(name).Parameters(), parameters) << name;
}

TEST(Synthetic, IsTheSameEachTimeAndInEachType) {
  const auto f32 = MakeSynthetic(Small(), ASSAY_F32);
  const auto again = MakeSynthetic(Small(), ASSAY_F32);
  for (const assay_dtype dtype : {ASSAY_F16, ASSAY_BF16, ASSAY_Q8_0, ASSAY_Q4_0, ASSAY_Q4_1, ASSAY_Q5_0, ASSAY_Q5_1,
                                  ASSAY_Q4_K, ASSAY_Q5_K, ASSAY_Q6_K, ASSAY_F8_B128, ASSAY_I4_G128}) {
    const auto other = MakeSynthetic(Small(), dtype);
    EXPECT_EQ(other->config().file_dtype, dtype);
    for (const char* name : {"model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"}) {
      const std::vector<float> x = Values(*f32, *f32->Find(name));
      ASSERT_EQ(x, Values(*again, *again->Find(name)));
      const TensorInfo& t = *other->Find(name);
      EXPECT_EQ(t.dtype, dtype);
      std::string expected(t.bytes, '\0');
      ConvertElements(ASSAY_F32, x.data(), dtype, expected.data(), x.size());
      EXPECT_EQ(std::memcmp(other->Data(t), expected.data(), t.bytes), 0) << DTypeName(dtype) << " " << name;
    }
  }
  for (const assay_dtype dtype : {ASSAY_F8_E4M3, ASSAY_I8}) {
    const auto other = MakeSynthetic(Small(), dtype);
    const TensorInfo& t = *other->Find("model.layers.1.mlp.down_proj.weight");
    EXPECT_EQ(t.dtype, dtype);
    EXPECT_EQ(other->Find("model.norm.weight")->dtype, ASSAY_F32);
    const std::vector<float> x = Values(*f32, *f32->Find(t.name)), scales = other->Scales(t);
    ASSERT_EQ(scales.size(), static_cast<size_t>(t.shape[0]));
    std::vector<float> back(x.size());
    Dequantize(dtype, static_cast<const uint8_t*>(other->Data(t)), scales[0], back.data(), back.size());
    // Half a step: of int8 of the whole range, of e4m3 of the number itself, or of its subnormals.
    const float step = scales[0] * (dtype == ASSAY_I8 ? 0.5f : 0x1p-10f);
    for (size_t i = 0; i < x.size(); ++i) {
      const float relative = dtype == ASSAY_I8 ? 1e-6f : 0x1p-4f;
      ASSERT_LE(std::abs(back[i] - x[i]), std::max(step * 1.001f, relative * std::abs(x[i]))) << i;
    }
  }
  f32->Release(*f32->Find("model.embed_tokens.weight"));
  const std::vector<float> made_again = Values(*f32, *f32->Find("model.embed_tokens.weight"));
  EXPECT_EQ(made_again, Values(*again, *again->Find("model.embed_tokens.weight")));
}

// The first values of two tensors, so that results of different machines and versions stay comparable.
TEST(Synthetic, StaysTheSameBetweenVersions) {
  const auto c = MakeSynthetic(Small(), ASSAY_F32);
  const auto* embed = static_cast<const float*>(c->Data(*c->Find("model.embed_tokens.weight")));
  EXPECT_FLOAT_EQ(embed[0], -0.041529797f);
  EXPECT_FLOAT_EQ(embed[5000], 0.0064513851f);
  const auto* bias = static_cast<const float*>(c->Data(*c->Find("model.layers.0.self_attn.q_proj.bias")));
  EXPECT_FLOAT_EQ(bias[1], 0.0184765179f);
}

TEST(Synthetic, WeightsAreScaledAndNotCorrelated) {
  const auto c = MakeSynthetic(Small(), ASSAY_F32);
  for (const TensorInfo& t : c->tensors()) {
    const std::vector<float> x = Values(*c, t);
    double sum = 0;
    double squares = 0;
    double neighbours = 0;
    double far = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      sum += x[i];
      squares += double{x[i]} * x[i];
      neighbours += double{x[i]} * x[(i + 16) % x.size()];  // 16: the same generator, one step on
      far += double{x[i]} * x[(i + 4096) % x.size()];
    }
    const double n = static_cast<double>(x.size());
    if (t.name.find("norm.weight") != std::string::npos) {
      EXPECT_EQ(sum, n) << t.name;
      continue;
    }
    const bool residual = t.name.find("o_proj") != std::string::npos || t.name.find("down_proj") != std::string::npos;
    const double wanted =
        t.shape.size() == 1 ? 0.02 : 1 / std::sqrt(static_cast<double>(t.shape[1])) / (residual ? std::sqrt(4.0) : 1.0);
    const double spread = 6 / std::sqrt(n);
    EXPECT_NEAR(std::sqrt(squares / n) / wanted, 1, spread) << t.name;
    EXPECT_NEAR(sum / n / wanted, 0, spread) << t.name;
    if (t.shape.size() == 1) continue;
    EXPECT_NEAR(neighbours / squares, 0, spread) << t.name;
    EXPECT_NEAR(far / squares, 0, spread) << t.name;
  }
}

TEST(Synthetic, VectorsOfBlockModelsAreF32) {
  const auto c = MakeSynthetic(Small(), ASSAY_Q4_1);
  EXPECT_EQ(c->Find("model.norm.weight")->dtype, ASSAY_F32);
  EXPECT_EQ(c->Find("model.layers.0.self_attn.k_proj.bias")->dtype, ASSAY_F32);
  EXPECT_TRUE(c->synthetic());
  EXPECT_EQ(c->Sha256(), "");
  EXPECT_EQ(c->tokenizer_source(), "");
  uint64_t bytes = 0;
  for (const TensorInfo& t : c->tensors()) bytes += t.bytes;
  EXPECT_EQ(c->file_bytes(), bytes);
}

TEST(Synthetic, RefusesWhatItCannotMake) {
  EXPECT_NE(ErrorOf([] { OpenSynthetic("llama-9", ASSAY_BF16); }).find("smollm2-135m, smollm2-1.7b"),
            std::string::npos);
  EXPECT_NE(ErrorOf([] { OpenSynthetic("smollm2-135m", ASSAY_U8); }).find("type u8 cannot be made"), std::string::npos);
  ModelConfig odd = Small();
  odd.ffn = 100;
  EXPECT_NE(ErrorOf([&] { MakeSynthetic(odd, ASSAY_Q8_0); }).find("no whole number of q8_0 blocks"), std::string::npos);
  EXPECT_EQ(ErrorOf([&] { MakeSynthetic(odd, ASSAY_BF16); }), "");
}

}  // namespace
}  // namespace assay
