// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "bench/stats/format.h"
#include "bench/stats/steady.h"
#include "bench/stats/summary.h"

namespace assay::bench {
namespace {

// numpy.percentile([15, 20, 35, 40, 50], [50, 90, 95, 99]) = [35, 46, 48, 49.6]
TEST(Summary, PercentilesAreNumpys) {
  const auto latency = SummarizeLatency({50, 15, 40, 20, 35});
  ASSERT_TRUE(latency);
  EXPECT_DOUBLE_EQ(latency->mean, 32);
  EXPECT_DOUBLE_EQ(latency->p50, 35);
  EXPECT_DOUBLE_EQ(latency->p90, 46);
  EXPECT_DOUBLE_EQ(latency->p95, 48);
  EXPECT_DOUBLE_EQ(latency->p99, 49.6);
  EXPECT_DOUBLE_EQ(latency->max, 50);
  EXPECT_EQ(latency->n, 5);
}

TEST(Summary, OneValueIsEveryPercentile) {
  const auto latency = SummarizeLatency({7});
  ASSERT_TRUE(latency);
  EXPECT_EQ(latency->p50, 7);
  EXPECT_EQ(latency->p99, 7);
}

TEST(Summary, RefusesWhatCannotBeSummarized) {
  EXPECT_FALSE(SummarizeLatency({}));
  EXPECT_FALSE(SummarizeLatency({1, std::numeric_limits<double>::quiet_NaN()}));
  EXPECT_FALSE(SummarizeRate({}));
  EXPECT_FALSE(SummarizeRate(std::vector<double>{1, std::numeric_limits<double>::infinity()}));
}

// Standard deviation sqrt(10), so a standard error of sqrt(2); the t table gives 2.776445 for 4 degrees of freedom.
TEST(Summary, RateHasStudentsInterval) {
  const auto rate = SummarizeRate(std::vector<double>{100, 104, 98, 106, 102});
  ASSERT_TRUE(rate && rate->ci_low && rate->ci_high);
  EXPECT_DOUBLE_EQ(rate->value, 102);
  EXPECT_NEAR(*rate->ci_low, 102 - 2.776445 * std::sqrt(2), 1e-6);
  EXPECT_NEAR(*rate->ci_high, 102 + 2.776445 * std::sqrt(2), 1e-6);
  EXPECT_EQ(rate->n, 5);
}

TEST(Summary, OneTrialHasNoInterval) {
  const auto rate = SummarizeRate(std::vector<double>{100});
  ASSERT_TRUE(rate);
  EXPECT_EQ(rate->value, 100);
  EXPECT_FALSE(rate->ci_low || rate->ci_high || rate->HalfWidth());
}

TEST(Summary, IntervalOfARateStaysAboveZero) {
  const auto rate = SummarizeRate(std::vector<double>{1, 9});
  ASSERT_TRUE(rate);
  EXPECT_EQ(*rate->ci_low, 0);
  EXPECT_NEAR(*rate->HalfWidth(), *rate->ci_high - 5, 1e-12);  // the half that was not cut
}

void AddSteps(WarmUp& warm_up, int steps, double first_s, double factor) {
  for (int i = 0; i < steps; ++i, first_s *= factor) warm_up.Add(first_s);
}

TEST(WarmUp, EqualStepsAreSteadyAfterTheLeastTime) {
  WarmUp warm_up(1.0, 100);
  AddSteps(warm_up, 10, 0.05, 1);
  EXPECT_FALSE(warm_up.Done());  // 0.5 s of 1 s
  AddSteps(warm_up, 11, 0.05, 1);
  EXPECT_TRUE(warm_up.Steady());
  EXPECT_TRUE(warm_up.Done());
}

TEST(WarmUp, FallingStepsAreNotSteadyUntilTheyStopFalling) {
  WarmUp warm_up(0, 1000);
  AddSteps(warm_up, 30, 1.0, 0.98);
  EXPECT_FALSE(warm_up.Done());
  AddSteps(warm_up, 10, 0.5, 1);
  EXPECT_TRUE(warm_up.Steady());
}

TEST(WarmUp, OneInterruptedStepDoesNotMatterButConstantNoiseDoes) {
  WarmUp warm_up(0, 1000);
  AddSteps(warm_up, 4, 0.1, 1);
  warm_up.Add(0.9);
  AddSteps(warm_up, 5, 0.1, 1);
  EXPECT_TRUE(warm_up.Steady());
  WarmUp noisy(0, 1000);
  for (int i = 0; i < 10; ++i) noisy.Add(i % 2 ? 0.1 : 0.2);
  EXPECT_FALSE(noisy.Steady());
}

TEST(WarmUp, EndsUnsteadyWhenItsTimeIsSpent) {
  WarmUp warm_up(0, 3);
  for (int i = 0; i < 20; ++i) warm_up.Add(i % 2 ? 0.1 : 0.3);
  EXPECT_TRUE(warm_up.Done());
  EXPECT_FALSE(warm_up.Steady());
  EXPECT_EQ(warm_up.steps(), 20u);
}

// By hand: slope -2.6, fitted from 100 to 89.6; p from the closed form of Student's distribution with 3 degrees,
// 1 - 2/pi * (u / (1 + u^2) + atan u), u = t / sqrt(3).
TEST(Trend, IsLeastSquares) {
  const Trend trend = FitTrend(std::vector<double>{100, 97, 95, 93, 89});
  EXPECT_NEAR(trend.relative_change, 89.6 / 100 - 1, 1e-12);
  EXPECT_NEAR(trend.p_value, 0.0009828, 1e-7);
}

TEST(Trend, UnknownIsNoTrend) {
  for (const std::vector<double>& trials : {std::vector<double>{}, {1, 2}, {0, 0, 0}, {-1, -2, -3}}) {
    EXPECT_EQ(FitTrend(trials).p_value, 1);
  }
  EXPECT_GT(FitTrend(std::vector<double>{5, 5, 5, 5, 5}).p_value, 0.9);
}

TEST(TrialWarnings, SayWhatIsWrong) {
  EXPECT_TRUE(TrialWarnings("decode", std::vector<double>{100, 101, 99, 100, 100}).empty());
  const auto drift = TrialWarnings("decode", std::vector<double>{100, 98, 97, 95, 94});
  ASSERT_EQ(drift.size(), 1u);
  EXPECT_EQ(drift[0], "decode fell 6 % from the first trial to the last (heat, a power limit or another process)");
  const auto noise = TrialWarnings("decode", std::vector<double>{100, 120, 90, 115, 95});
  ASSERT_EQ(noise.size(), 1u);
  EXPECT_NE(noise[0].find("varies by 12 %"), std::string::npos) << noise[0];
  EXPECT_EQ(TrialWarnings("decode", std::vector<double>{100, 100}).size(), 1u);  // too few
}

TEST(Format, NoMoreDigitsThanTheInterval) {
  EXPECT_EQ(FormatUncertain(412.345, 6.2), "412 ± 6");
  EXPECT_EQ(FormatUncertain(412.345, 0.62), "412.3 ± 0.6");
  EXPECT_EQ(FormatUncertain(412.345, 1.26), "412.3 ± 1.3");
  EXPECT_EQ(FormatUncertain(41234.5, 126), "41230 ± 130");
  EXPECT_EQ(FormatUncertain(41234.5, 980), "41200 ± 1000");
  EXPECT_EQ(FormatUncertain(0.01234, 0.0005), "0.0123 ± 0.0005");
  EXPECT_EQ(FormatUncertain(3, 8), "3 ± 8");
}

TEST(Format, WithoutAnInterval) {
  EXPECT_EQ(FormatUncertain(412.345, std::nullopt), "412");
  EXPECT_EQ(FormatUncertain(412.345, 0.0), "412.3");
  EXPECT_EQ(FormatUncertain(0, 0.0), "0");
  EXPECT_EQ(FormatUncertain(std::nan(""), 1.0), "unknown");
  EXPECT_EQ(FormatRate(std::nullopt), "unknown");
}

TEST(Format, Numbers) {
  EXPECT_EQ(FormatNumber(1234.5), "1230");
  EXPECT_EQ(FormatNumber(9.996), "10.0");
  EXPECT_EQ(FormatNumber(0.012345), "0.0123");
  EXPECT_EQ(FormatNumber(-5.678), "-5.68");
  EXPECT_EQ(FormatNumber(0), "0");
  EXPECT_EQ(FormatNumber(std::numeric_limits<double>::infinity()), "unknown");
  EXPECT_EQ(FormatScaled(34.12e9, "B/s"), "34.1 GB/s");
  EXPECT_EQ(FormatScaled(999.7e9, "FLOP/s"), "1.00 TFLOP/s");
  EXPECT_EQ(FormatScaled(0, "B/s"), "0 B/s");
  EXPECT_EQ(FormatPercent(0.714), "71 %");
  EXPECT_EQ(FormatPercent(0.0424), "4.2 %");
}

}  // namespace
}  // namespace assay::bench
