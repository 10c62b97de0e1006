// SPDX-License-Identifier: Apache-2.0
#include "bench/claims/published.h"

#include <gtest/gtest.h>

#include <map>

#include "bench/claims/cards.h"
#include "runtime/core/error.h"

namespace assay::bench {
namespace {

const Published& Result(const std::string& id) {
  for (const Published& result : PublishedResults()) {
    if (result.id == id) return result;
  }
  throw Error("no published result is called " + id);
}

// Of the entries of a card and metric, the one with this value.
const Published& Result(const std::string& card, const std::string& metric, double value) {
  for (const Published* result : PublishedOf(card, metric)) {
    if (result->value == value) return *result;
  }
  throw Error("no such result of " + card);
}

double Ratio(const Published& a, const Published& b) {
  const Comparable comparable = CanCompare(a, b);
  EXPECT_TRUE(comparable.ok) << comparable.why_not;
  return *PerCard(a) / *PerCard(b);
}

std::string WhyNot(const Published& a, const Published& b) {
  const Comparable comparable = CanCompare(a, b);
  EXPECT_EQ(comparable.ok, comparable.why_not.empty());
  EXPECT_EQ(CanCompare(b, a).ok, comparable.ok) << "the order must not matter";
  return comparable.why_not;
}

std::string WhyNot(const Published& result) {
  return HasConditions(result).why_not;
}

TEST(Published, AllOfThemAreThereAndQuoted) {
  const std::vector<Published>& all = PublishedResults();
  EXPECT_EQ(all.size(), 429u);
  std::map<std::string, int> per_metric;
  for (const Published& result : all) {
    ++per_metric[result.metric];
    EXPECT_EQ(result.id.rfind(result.card + "/", 0), 0u) << result.id;
    EXPECT_NE(result.id.find("/" + result.metric + "/"), std::string::npos) << result.id;
    EXPECT_TRUE(result.confidence == "high" || result.confidence == "medium" || result.confidence == "low")
        << result.id;
    EXPECT_FALSE(result.source.empty() || result.quote.empty()) << result.id;
  }
  EXPECT_EQ(per_metric["output_tps"], 203);
  EXPECT_EQ(per_metric["mean_w"], 63);
  EXPECT_EQ(PublishedOf("h100-sxm").size(), 72u);
  EXPECT_EQ(PublishedOf("h100-sxm", "prefill_tps").size(), 2u);
  EXPECT_TRUE(PublishedOf("h20-141g").empty());
  const Published& one = Result("ascend-910b2/qwen3-32b/output_tps/3");
  EXPECT_EQ(one.value, 805.26);
  EXPECT_EQ(*one.count, 2);
  EXPECT_EQ(*one.concurrency, 64);
  EXPECT_EQ(*PerCard(one), 402.63);
}

TEST(Published, ValuesOfOneCard) {
  Published result;
  result.value = 800;
  result.unit = "tok/s";
  EXPECT_FALSE(PerCard(result)) << "the number of cards is not known";
  result.count = 8;
  EXPECT_EQ(*PerCard(result), 100);
  for (const char* unit : {"tok/s/card", "J/token", "W/card", "TFLOPS"}) {
    result.unit = unit;
    EXPECT_EQ(*PerCard(result), 800) << unit;
  }
}

TEST(Published, LikeIsComparedWithLike) {
  // The same loop before and after the clock was raised.
  EXPECT_NEAR(Ratio(Result("dcu-bw1000", "gemm_tflops", 456.4), Result("dcu-bw1000", "gemm_tflops", 301.8)), 1.51,
              0.01);
  EXPECT_NEAR(Ratio(Result("a100-40g-sxm", "gemm_tflops", 298.34), Result("a100-40g-sxm", "gemm_tflops", 251.5)), 1.19,
              0.01);
  // Two cards against one: per card.
  EXPECT_NEAR(Ratio(Result("ascend-910b2", "output_tps", 805.26), Result("h20-96g", "output_tps", 1333.49)), 0.30,
              0.005);
  // Offline, as large a batch as fits on either card.
  EXPECT_NEAR(Ratio(Result("h200-sxm", "output_tps", 26221), Result("h100-sxm", "output_tps", 22714)), 1.15, 0.01);
  EXPECT_NEAR(Ratio(Result("metax-c550", "copy_gbps", 1495.7), Result("metax-c550", "copy_gbps", 1390.5)), 1.08, 0.01);
  // Watts in the same loop: a microbenchmark has no model and no lengths.
  EXPECT_NEAR(Ratio(Result("bi-v150", "mean_w", 336.1), Result("a100-40g-sxm", "mean_w", 338.4)), 0.99, 0.01);
}

TEST(Published, ACardOfUnknownVariantIsNotCompared) {
  const std::string why =
      WhyNot(Result("h100-sxm", "output_tps", 496.88), Result("ascend-910b-unspecified", "output_tps", 80.06));
  EXPECT_NE(why.find("which variant of the card"), std::string::npos) << why;
  EXPECT_NE(
      WhyNot(Result("ascend-910b2", "output_tps", 805.26), Result("hygon-dcu-64g-unspecified", "output_tps", 962.24)),
      "");
  EXPECT_NE(WhyNot(Result("ascend-910b-unspecified", "gemm_tflops", 313.182)).find("variant"), std::string::npos);
  EXPECT_NE(WhyNot(Result("h100-nvl-94g-presumed", "mean_w", 391.6)).find("variant"), std::string::npos);
  EXPECT_NE(WhyNot(Result("cambricon-550w-redacted", "idle_w", 105)).find("variant"), std::string::npos);
}

TEST(Published, InputIsNotOutput) {
  const std::string why =
      WhyNot(Result("kunlun-p800", "total_tps", 7056.42), Result("kunlun-p800", "output_tps", 3533.68));
  EXPECT_EQ(why, "total_tps beside output_tps: total_tps counts the tokens of the prompts as well");
  EXPECT_NE(WhyNot(Result("h100-sxm", "prefill_tps", 52300), Result("h100-sxm", "decode_tps", 22300)), "");
}

TEST(Published, UnlikeConditionsAreNamed) {
  // A sum over the cards beside one card.
  EXPECT_EQ(WhyNot(Result("gb300", "output_tps", 2816), Result("b200", "output_tps", 4370)),
            "different units: tok/s/card beside tok/s");
  // A benchmark for experts beside a default recipe.
  EXPECT_EQ(WhyNot(Result("b300", "output_tps", 70132.3), Result("b300", "output_tps", 12518)),
            "different scenarios: offline beside server");
  EXPECT_EQ(WhyNot(Result("b200", "output_tps", 43146.2042), Result("b200", "output_tps", 302)),
            "different models: DeepSeek-R1 beside DeepSeek-R1-0528");
  EXPECT_EQ(WhyNot(Result("b200", "output_tps", 43146.2042), Result("b200", "output_tps", 36384.0838)),
            "different numbers of requests at a time: 7168 beside 3072");
  EXPECT_EQ(WhyNot(Result("b200", "output_tps", 9922), Result("h200-sxm", "output_tps", 4336)),
            "different precisions: NVFP4/NVFP4 beside FP8/FP8");
  EXPECT_EQ(WhyNot(Result("h200-sxm", "output_tps", 26221), Result("h200-sxm", "output_tps", 17744)),
            "different lengths of prompts: 128 beside 1000");
  EXPECT_EQ(WhyNot(Result("h200-sxm", "output_tps", 26221), Result("h200-sxm", "output_tps", 27911)),
            "different lengths of outputs: 2048 beside 128");
  // One sweep of energy, batch 8 and 512: the source does not say how long the prompts were.
  EXPECT_NE(WhyNot(Result("h100-sxm", "j_per_output_token", 0.4548), Result("h100-sxm", "j_per_output_token", 0.0702)),
            "");
}

TEST(Published, WhatTheSourceLeavesOutIsNamed) {
  EXPECT_EQ(WhyNot(Result("dcu-bw1000", "gemm_tflops", 456.4)), "");
  EXPECT_EQ(WhyNot(Result("mtt-s4000", "copy_gbps", 474)), "");
  EXPECT_EQ(WhyNot(Result("h20-96g", "output_tps", 44.79)), "");
  EXPECT_EQ(WhyNot(Result("bi-v150", "mean_w", 343.2)), "") << "any load may be set beside the TDP";
  EXPECT_EQ(WhyNot(Result("h200-sxm", "output_tps", 115.31)), "the source does not give the number of cards");
  EXPECT_EQ(WhyNot(Result("rtx4090", "output_tps", 210)), "the source does not give the precision");
  EXPECT_EQ(WhyNot(Result("kunlun-p800", "output_tps", 3533.68)), "the source does not give the model");
  EXPECT_EQ(WhyNot(Result("h100-sxm", "output_tps", 496.88)), "the source does not give the length of the outputs");
  EXPECT_EQ(WhyNot(Result("h20-96g", "decode_tps", 5700)), "the source does not give the length of the outputs");
  EXPECT_EQ(WhyNot(Result("h20-96g", "prefill_tps", 16500)),
            "the source does not give how many requests ran at a time");
  EXPECT_EQ(WhyNot(Result("rtx4090", "prefill_tps", 9056.26)), "") << "a prefill has no outputs";
  // Offline with the batch left to the engine: a bound can be had.
  EXPECT_EQ(WhyNot(Result("h100-sxm", "output_tps", 22714)), "");
  EXPECT_NE(WhyNot(Result("rtx4090", "mean_w", 464.2)).find("wall meter"), std::string::npos);
  EXPECT_NE(WhyNot(Result("h100-sxm", "j_per_output_token", 0.0702)).find("nobody claims"), std::string::npos);
}

TEST(Published, MistakesInAFileAreNamed) {
  const auto error = [](const std::string& text) -> std::string {
    try {
      ParsePublished("f", text);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  const auto entry = [](const std::string& field) {
    return R"([{"id": "c/m/read_gbps/1", "card": "c", "metric": "read_gbps", "value": 5, "unit": "GB/s", "source": "s",
                "quote": "5", "confidence": "low")" +
           field + "}]";
  };
  EXPECT_EQ(error(entry("")), "no error");
  EXPECT_EQ(error(entry(R"(, "isl": null)")), "no error");
  EXPECT_EQ(error("[{]"), "published results f: not a JSON array");
  EXPECT_EQ(error("[3]"), "published results f, entry 1: must be an object");
  EXPECT_EQ(error(entry(R"(, "isll": 5)")), "published results f, entry 1: unknown field \"isll\"");
  EXPECT_EQ(error(entry(R"(, "isl": "5")")), "published results f, entry 1: \"isl\" must be above zero");
  EXPECT_EQ(error(entry(R"(, "value": 0)")), "published results f, entry 1: \"value\" must be above zero");
  EXPECT_EQ(error(entry(R"(, "engine": 5)")), "published results f, entry 1: \"engine\" must be a text");
  EXPECT_EQ(error(entry(R"(, "quote": "")")), "published results f, entry 1: \"quote\" must be a text");
  EXPECT_EQ(error(entry(R"(, "unit": "TB/s")")),
            "published results f, entry 1: the unit of read_gbps is GB/s, not \"TB/s\"");
  EXPECT_EQ(error(entry(R"(, "metric": "speed")")), "published results f, entry 1: unknown metric \"speed\"");
}

}  // namespace
}  // namespace assay::bench
