// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "bench/claims/build_gap.h"
#include "bench/claims/claim.h"
#include "bench/claims/model_roof.h"
#include "models/format/synthetic.h"
#include "runtime/core/error.h"

namespace assay::bench {
namespace {

Figure Claimed(double value, const std::string& confidence = "vendor") {
  Figure f;
  f.value = value;
  f.source = "a data sheet";
  f.date = "2026-01";
  f.confidence = confidence;
  return f;
}

Card ExampleCard() {
  Card card;
  card.id = "example";
  card.name = "Example X1";
  card.vendor = "Example";
  card.figures["bf16"] = Claimed(100e12);
  card.figures["fp16"] = Claimed(100e12);
  card.figures["bytes_per_s"] = Claimed(2e12, "press");
  card.figures["tdp_w"] = Claimed(400);
  return card;
}

// A prompt of 1000 tokens is bound by compute, a decode step of four sequences by memory.
RunResult ExampleResult() {
  RunResult r;
  r.model.dtype = "bf16";
  r.workload.isl = 1000;
  r.workload.osl = 101;
  r.limits.flops = 80e12;
  r.limits.flops_half_width = 0.8e12;
  r.limits.bytes_per_s = 1.5e12;
  r.limits.bytes_per_s_half_width = 0.03e12;
  r.phases.prefill = PhaseTimes{1000, 16e12, 16e9, Rate{0.25, 0.24, 0.26, 5}, Rate{0.32, 0.31, 0.33, 5}};
  r.phases.decode = PhaseTimes{4, 64e9, 20e9, Rate{0.016, 0.015, 0.017, 5}, Rate{0.02, 0.019, 0.021, 5}};
  r.metrics.prefill_tps = Rate{1000 / 0.32, 3000, 3250, 5};
  r.metrics.decode_tps = Rate{200, 190, 210, 5};
  r.metrics.output_tps = Rate{404 / 3.5, 404 / 3.6, 404 / 3.4, 5};
  r.environment.throttled = false;
  return r;
}

CardMatch Match(const Card& card) {
  return {&card, true, "named so"};
}

const Gap& Find(const GapReport& report, const std::string& metric) {
  for (const Gap& gap : report.gaps) {
    if (gap.metric == metric) return gap;
  }
  throw Error("no gap for " + metric);
}

double Sum(const Gap& gap) {
  return std::accumulate(gap.terms.begin(), gap.terms.end(), 0.0,
                         [](double sum, const GapTerm& t) { return sum + t.log.value; });
}

const Estimate& Stage(const Gap& gap, const std::string& stage) {
  for (const GapTerm& term : gap.terms) {
    if (term.stage == stage) return term.log;
  }
  throw Error("no stage " + stage);
}

TEST(Gap, StagesAddUpToTheWholeAndEachIsWhatItSays) {
  const Card card = ExampleCard();
  const GapReport report = BuildGapReport(ExampleResult(), Match(card));
  for (const char* metric : {"decode_tps", "prefill_tps", "output_tps"}) {
    const Gap& gap = Find(report, metric);
    EXPECT_NEAR(Sum(gap), std::log(gap.ratio.value), 1e-12) << metric;
    for (const GapTerm& term : gap.terms) {
      EXPECT_LE(*term.log.low, term.log.value) << metric << " " << term.stage;
      EXPECT_GE(*term.log.high, term.log.value) << metric << " " << term.stage;
    }
  }
  // Decode: 20 GB at the claimed 2 TB/s are 10 ms for 4 tokens; 13.3 ms attained, 16 ms in kernels, 20 ms in steps.
  const Gap& decode = Find(report, "decode_tps");
  EXPECT_NEAR(decode.claimed, 400, 1e-9);
  EXPECT_NEAR(decode.actual.value, 200, 1e-9);
  EXPECT_NEAR(decode.ratio.value, 0.5, 1e-12);
  EXPECT_NEAR(*decode.ratio.low, 190 / 400.0, 1e-9);
  EXPECT_NEAR(*decode.ratio.high, 210 / 400.0, 1e-9);
  EXPECT_NEAR(Stage(decode, "silicon").value, std::log(0.75), 1e-12);
  EXPECT_NEAR(Stage(decode, "kernels").value, std::log(20e9 / 1.5e12 / 0.016), 1e-12);
  EXPECT_NEAR(Stage(decode, "engine").value, std::log(0.8), 1e-12);
  EXPECT_NEAR(Stage(decode, "throttling").value, 0, 1e-12);
  EXPECT_NEAR(Stage(decode, "serving").value, 0, 1e-12);
  // Four prompts and a hundred steps take 3.28 s, the batch as a client sees it 3.5 s.
  EXPECT_NEAR(Stage(Find(report, "output_tps"), "serving").value, std::log(3.28 / 3.5), 1e-9);
  EXPECT_NEAR(*Stage(decode, "engine").high - Stage(decode, "engine").value, std::hypot(0.0625, 0.05), 1e-9);
  // Prefill: 16 TFLOP at the claimed 100 TFLOP/s.
  EXPECT_NEAR(Find(report, "prefill_tps").claimed, 1000 / 0.16, 1e-6);
  // Both: four prompts and a hundred steps give 404 tokens.
  EXPECT_NEAR(Find(report, "output_tps").claimed, 404 / (4 * 0.16 + 100 * 0.01), 1e-6);
  EXPECT_NEAR(Find(report, "output_tps").actual.value, 4 * 101 / 3.5, 1e-9);
  EXPECT_NE(decode.provenance.confidence.find("bandwidth: press"), std::string::npos);
}

TEST(Gap, ASlowerPartMovesItsOwnStageOnly) {
  const Card card = ExampleCard();
  const Gap before = Find(BuildGapReport(ExampleResult(), Match(card)), "decode_tps");
  const auto moved = [&](const RunResult& r) {
    const Gap after = Find(BuildGapReport(r, Match(card)), "decode_tps");
    std::string names;
    for (const char* stage : {"silicon", "kernels", "throttling", "engine", "serving"}) {
      if (std::abs(Stage(after, stage).value - Stage(before, stage).value) > 1e-9) names += std::string(stage) + " ";
    }
    EXPECT_EQ(after.claimed, before.claimed);
    return names;
  };
  RunResult kernels = ExampleResult();
  kernels.phases.decode->kernels_s->value += 0.01;
  kernels.phases.decode->steps_s->value *= 0.026 / 0.016;
  kernels.metrics.decode_tps->value /= 0.026 / 0.016;
  EXPECT_EQ(moved(kernels), "kernels ");
  RunResult engine = ExampleResult();
  engine.phases.decode->steps_s->value += 0.01;
  engine.metrics.decode_tps->value = 4 / 0.03;
  EXPECT_EQ(moved(engine), "engine ");
  RunResult silicon = ExampleResult();
  silicon.limits.bytes_per_s = 0.75e12;
  silicon.phases.decode->kernels_s->value *= 2;
  silicon.phases.decode->steps_s->value *= 2;
  silicon.metrics.decode_tps->value /= 2;
  EXPECT_EQ(moved(silicon), "silicon ");
  RunResult throttled = ExampleResult();
  throttled.environment.throttled = true;
  throttled.environment.profile_clock_mhz = 2000;
  throttled.environment.trial_clock_mhz = 1600;
  throttled.phases.decode->steps_s->value *= 2000.0 / 1600;
  throttled.metrics.decode_tps->value /= 2000.0 / 1600;
  EXPECT_EQ(moved(throttled), "throttling ");
  RunResult client = ExampleResult();
  client.metrics.decode_tps->value = 150;
  EXPECT_EQ(moved(client), "serving ");
}

TEST(Gap, WhatIsNotKnownIsSaidAndNotGuessed) {
  Card card = ExampleCard();
  card.figures["bytes_per_s"].value.reset();
  RunResult r = ExampleResult();
  r.environment.throttled.reset();
  const GapReport report = BuildGapReport(r, Match(card));
  std::string notes;
  for (const std::string& note : report.notes) notes += note + "\n";
  EXPECT_NE(notes.find("no public memory bandwidth of Example X1"), std::string::npos) << notes;
  EXPECT_NE(notes.find("throttling is not told apart"), std::string::npos) << notes;
  ASSERT_EQ(report.gaps.size(), 1u) << "only the matrix product has a claim";
  EXPECT_EQ(report.gaps[0].metric, "flops");
  EXPECT_NEAR(report.gaps[0].ratio.value, 0.8, 1e-12);

  const GapReport none = BuildGapReport(r, {nullptr, false, "no card is called so"});
  EXPECT_TRUE(none.gaps.empty());
  EXPECT_EQ(none.notes, std::vector<std::string>{"no claim to hold this device against: no card is called so"});
}

TEST(Gap, SparsePeaksAreHalvedAndTheReportSaysSo) {
  Card card = ExampleCard();
  card.figures["bf16"].value = 200e12;
  card.figures["bf16"].sparse = true;
  const Gap gap = Find(BuildGapReport(ExampleResult(), Match(card)), "flops");
  EXPECT_NEAR(gap.claimed, 100e12, 1);
  EXPECT_NE(gap.provenance.note.find("halved"), std::string::npos);
}

TEST(Gap, PowerAgainstTdpNeedsAMeasurement) {
  const Card card = ExampleCard();
  RunResult r = ExampleResult();
  r.power.grade = "B";
  r.power.scope = "board";
  r.power.mean_w = 380;
  r.power.mean_w_low = 376;
  r.power.mean_w_high = 384;
  const Gap gap = Find(BuildGapReport(r, Match(card)), "watts");
  EXPECT_NEAR(gap.ratio.value, 0.95, 1e-12);
  EXPECT_NEAR(*gap.ratio.high, 0.96, 1e-12);
  for (const auto& [grade, scope] : {std::pair("F", "board"), std::pair("A", "wall"), std::pair("D", "node")}) {
    r.power.grade = grade;
    r.power.scope = scope;
    EXPECT_THROW(Find(BuildGapReport(r, Match(card)), "watts"), Error) << grade << scope;
  }
  Card pair = card;
  pair.devices = 2;
  EXPECT_EQ(*DevicesOf(pair, 1).Find("tdp_w")->value, 400) << "a meter reads the board";
  EXPECT_EQ(*DevicesOf(pair, 1).Find("bf16")->value, 50e12);
  EXPECT_EQ(*DevicesOf(pair, 3).Find("bf16")->value, 150e12);
  EXPECT_EQ(*DevicesOf(pair, 3).Find("tdp_w")->value, 800) << "three devices are on two boards";
}

TEST(Claim, OfAUserIsTakenWithWhoAndWhen) {
  const UserClaim claim = ParseClaim("output_tps=12000 who=\"a vendor\" date=2026-05 dtype=fp8");
  EXPECT_EQ(claim.metric, "output_tps");
  EXPECT_EQ(claim.value, 12000);
  EXPECT_EQ(claim.provenance.who, "a vendor");
  EXPECT_EQ(claim.provenance.date, "2026-05");
  EXPECT_EQ(claim.dtype, "fp8");
  EXPECT_EQ(ParseClaim("flops=989TFLOPS who=x").value, 989e12);
  EXPECT_EQ(ParseClaim("flops=624TFLOPS sparse=yes").value, 312e12);
  EXPECT_EQ(ParseClaim("bandwidth=3.35TB/s").value, 3.35e12);
  EXPECT_EQ(ParseClaim("power=0.7kW").value, 700);
  EXPECT_NEAR(ParseClaim("percent=85 of=h100-sxm").value, 0.85, 1e-12);
}

TEST(Claim, BadOnesAreRefusedInOneLine) {
  const auto why = [](const std::string& text) -> std::string {
    try {
      ParseClaim(text);
    } catch (const Error& e) {
      return e.what();
    }
    return "taken";
  };
  const std::pair<const char*, const char*> cases[] = {
      {"", "claims nothing"},
      {"fast", "is not KEY=VALUE"},
      {"speed=5", "unknown key \"speed\""},
      {"output_tps=", "needs a number above 0"},
      {"output_tps=-5", "needs a number above 0"},
      {"output_tps=nan", "needs a number above 0"},
      {"output_tps=5furlongs", "unknown unit \"furlongs\" of output_tps; write one of tok/s"},
      {"flops=989", "unknown unit \"\" of flops"},
      {"power=700GB/s", "unknown unit \"GB/s\" of power"},
      {"output_tps=5 dtype=fp7", "unknown dtype \"fp7\""},
      {"output_tps=5 power=5W", "claims both output_tps and power"},
      {"percent=85", "go together"},
      {"output_tps=5 of=h100-sxm", "go together"},
      {"percent=85 of=h1000", "h1000"},
      {"output_tps=5 sparse=yes", "sparse=yes is for flops"}};
  for (const auto& [text, part] : cases) {
    EXPECT_NE(why(text).find(part), std::string::npos) << text << ": " << why(text);
    EXPECT_EQ(why(text).find('\n'), std::string::npos) << text;
  }
}

TEST(Claim, AboveTheRooflineIsAStageOfItsOwn) {
  const Card card = ExampleCard();
  RunResult r = ExampleResult();
  EXPECT_TRUE(GapOfClaim(r, ParseClaim("decode_tps=800")).terms.empty()) << "nothing to hold it against";
  r.gap = BuildGapReport(r, Match(card));
  const Gap gap = GapOfClaim(r, ParseClaim("decode_tps=800 who=vendor"));
  EXPECT_NEAR(gap.ratio.value, 0.25, 1e-12);
  EXPECT_NEAR(Stage(gap, "promise").value, std::log(0.5), 1e-12) << "the claimed peaks allow 400";
  EXPECT_NEAR(Sum(gap), std::log(0.25), 1e-12);
  EXPECT_NE(GapOfClaim(r, ParseClaim("decode_tps=800 dtype=fp8")).claim.find("while bf16 was measured"),
            std::string::npos);
  r.model.dtype = "f16";
  EXPECT_EQ(GapOfClaim(r, ParseClaim("decode_tps=800 dtype=fp16")).claim.find("was measured"), std::string::npos);
  const std::pair<const char*, const char*> same[] = {{"f8_b128", "fp8"}, {"i4_g128", "int4"}, {"i4_g128", "i4_g128"}};
  for (const auto& [measured, claimed] : same) {
    r.model.dtype = measured;
    EXPECT_EQ(GapOfClaim(r, ParseClaim(std::string("decode_tps=800 dtype=") + claimed)).claim.find("was measured"),
              std::string::npos);
  }
}

TEST(Claim, SharesOfAnotherCardAreOfItsRoofline) {
  RunResult r = ExampleResult();
  const Gap gap = GapOfClaim(r, ParseClaim("percent=50 of=h100-sxm who=vendor"));
  const double roof = ClaimedRoof(r, FindCard("h100-sxm"), "output_tps").value();
  EXPECT_NEAR(gap.claimed, 0.5 * roof, 1e-9 * roof);
  EXPECT_NEAR(roof, 404 / (4 * 16e12 / 989e12 + 100 * 20e9 / 3.35e12), 1e-3 * roof);
  r.model.dtype = "f8_b128";
  EXPECT_NEAR(ClaimedRoof(r, FindCard("h100-sxm"), "prefill_tps").value(), 1000 * 1979e12 / 16e12, 1);
  r.phases.decode.reset();
  EXPECT_THROW(GapOfClaim(r, ParseClaim("percent=50 of=h100-sxm")), Error);
}

// By hand for Llama 3.1 8B in bf16 on 3.35 TB/s: 7.50 G parameters are multiplied (the embedding is looked up), so a
// step reads 15.0 GB: 223 tokens/s at batch 1 with a short context, the figure of every H100 discussion.
TEST(ModelRoof, IsThatOfAPencil) {
  const ModelConfig llama = SyntheticConfig("llama-3.1-8b");
  EXPECT_NEAR(OutputRoof(llama, {1, 2, 1, 2, 2}, 989e12, 3.35e12), 223, 1);
  ServedWork batch{0, 1000, 256, 2, 2};
  // KV: 2 * 32 layers * 8 heads * 128 * 2 bytes = 131 kB per token, 500 tokens on average.
  const double step_s = (15.01e9 + 256 * 500 * 131072.0) / 3.35e12;
  EXPECT_NEAR(OutputRoof(llama, batch, 989e12, 3.35e12), 256 / step_s, 256 / step_s * 0.01);
  // Prompts of 1024 tokens: 7.0 G of the weights at 2 FLOP for each, hidden behind the memory traffic of decoding.
  const double bytes_s = (1024 * 15.01e9 + 256 * 1023.0 * 1536 * 131072) / 3.35e12;
  EXPECT_NEAR(OutputRoof(llama, {1024, 1024, 256, 2, 2}, 989e12, 3.35e12), 256 * 1024 / bytes_s, 100);
  batch.batch = 1e6;  // bound by compute in the end
  EXPECT_LT(OutputRoof(llama, batch, 989e12, 1e20), 989e12 / 15.0e9 * 1.01);
  EXPECT_EQ(LargestBatch(llama, {1000, 1000, 1, 2, 2}, 80 * 1e9), std::floor((80e9 - 16.06e9) / (1500 * 131072.0)));
  EXPECT_EQ(LargestBatch(llama, {1000, 1000, 1, 2, 2}, 1e9), 1);
}

}  // namespace
}  // namespace assay::bench
