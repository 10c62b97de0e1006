// SPDX-License-Identifier: Apache-2.0
#include "bench/claims/published_gap.h"

#include <gtest/gtest.h>

#include "bench/claims/cards.h"

namespace assay::bench {
namespace {

Published Example() {
  Published r;
  r.id = "h100-sxm/example/output_tps/1";
  r.card = "h100-sxm";
  r.count = 1;
  r.metric = "output_tps";
  r.value = 165;
  r.unit = "tok/s";
  r.model = "Llama-3.1-8B-Instruct";
  r.precision = "BF16/BF16";
  r.scenario = "server";
  r.isl = 10;
  r.osl = 100;
  r.concurrency = 1;
  return r;
}

TEST(PublishedGap, ADecodeLoopIsHeldAgainstTheRooflineOfItsSizes) {
  const PublishedGap answer = GapOfPublished(Example());
  ASSERT_TRUE(answer.gap) << answer.why_not;
  // 15.0 GB a step at 3.35 TB/s: 223 tokens/s.
  EXPECT_NEAR(answer.gap->claimed, 223, 1);
  EXPECT_NEAR(answer.gap->ratio.value, 0.74, 0.01);
  EXPECT_EQ(answer.gap->claim.find("upper bound"), std::string::npos);
  EXPECT_FALSE(answer.at_least);
  EXPECT_FALSE(answer.gap->provenance.source.empty());
}

TEST(PublishedGap, SumsOverCardsAreHeldAgainstTheirSum) {
  Published r = Example();
  r.count = 2;
  const PublishedGap two = GapOfPublished(r);
  ASSERT_TRUE(two.gap);
  EXPECT_NEAR(two.gap->actual.value, 82.5, 1e-9) << "of one card";
  EXPECT_NEAR(two.gap->claimed, GapOfPublished(Example()).gap->claimed, 1)
      << "at batch 1 both halve the time of a step";
}

TEST(PublishedGap, WhatIsLeftOutIsBoundedOrRefused) {
  Published r = Example();
  r.isl.reset();
  const PublishedGap bound = GapOfPublished(r);
  ASSERT_TRUE(bound.gap) << bound.why_not;
  EXPECT_NE(bound.gap->claim.find("an upper bound: prompts of unknown length counted as none"), std::string::npos);
  EXPECT_TRUE(bound.at_least);
  EXPECT_GE(bound.gap->claimed, GapOfPublished(Example()).gap->claimed);

  r = Example();
  r.concurrency.reset();
  EXPECT_NE(GapOfPublished(r).why_not.find("how many requests ran at a time"), std::string::npos);
  r.scenario = "offline";
  const PublishedGap offline = GapOfPublished(r);
  ASSERT_TRUE(offline.gap) << offline.why_not;
  EXPECT_NE(offline.gap->claim.find("the most that the memory holds"), std::string::npos);
  EXPECT_LT(offline.gap->ratio.value, 0.01);

  const auto why = [](auto change) {
    Published changed = Example();
    change(changed);
    const PublishedGap answer = GapOfPublished(changed);
    EXPECT_NE(answer.gap.has_value(), !answer.why_not.empty());
    return answer.why_not;
  };
  EXPECT_NE(why([](Published& p) { p.card = "ascend-910b-unspecified"; }).find("variant"), std::string::npos);
  EXPECT_NE(why([](Published& p) { p.precision = ""; }).find("precision"), std::string::npos);
  EXPECT_NE(why([](Published& p) { p.osl.reset(); }).find("length of the outputs"), std::string::npos);
  EXPECT_NE(why([](Published& p) { p.model = "DeepSeek-R1"; }).find("sizes of DeepSeek-R1"), std::string::npos);
  EXPECT_NE(why([](Published& p) { p.metric = "total_tps"; }).find("only output tokens"), std::string::npos);
  EXPECT_NE(why([](Published& p) { p.card = "metax-c550"; }).find("no public"), std::string::npos);
}

TEST(PublishedGap, EveryPublishedResultHasARatioOrAReason) {
  int ratios = 0, impossible = 0;
  for (const Published& r : PublishedResults()) {
    const PublishedGap answer = GapOfPublished(r);
    EXPECT_NE(answer.gap.has_value(), !answer.why_not.empty()) << r.id;
    if (!answer.gap) continue;
    ++ratios;
    EXPECT_GT(answer.gap->ratio.value, 0) << r.id;
    // Above what is claimed: a soft power cap, or a claim that is too low; the data's own README knows of a few.
    if (answer.gap->ratio.value > 1.02) {
      ++impossible;
      EXPECT_TRUE(r.metric == "mean_w" || r.metric == "gemm_tflops") << r.id << " " << answer.gap->ratio.value;
    }
  }
  EXPECT_GT(ratios, 60);
  EXPECT_LT(impossible, 10);
}

}  // namespace
}  // namespace assay::bench
