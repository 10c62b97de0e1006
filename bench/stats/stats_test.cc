// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

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

TEST(Summary, LatencyOfTrialsHasIntervals) {
  std::vector<std::vector<double>> trials(5);
  for (int i = 0; i <= 5000; ++i) trials[static_cast<size_t>(i % 5)].push_back(i);
  const auto latency = SummarizeLatencyOfTrials(trials);
  ASSERT_TRUE(latency && latency->p50_low && latency->p50_high && latency->p99_low && latency->p99_high);
  EXPECT_EQ(latency->p50, 2500);
  EXPECT_EQ(latency->p99, 4950);
  EXPECT_LT(*latency->p50_low, 2500);
  EXPECT_GT(*latency->p50_high, 2500);
  EXPECT_LT(*latency->p99_low, 4950);
  EXPECT_GT(*latency->p99_high, 4950);
  const auto pooled = SummarizeLatency({1, 2, 3, 4, 5, 6, 7, 8});
  EXPECT_FALSE(pooled->p50_low || pooled->p50_high || pooled->p99_low || pooled->p99_high);
  EXPECT_FALSE(SummarizeLatencyOfTrials(std::vector<std::vector<double>>{{}, {}}));
  EXPECT_FALSE(SummarizeLatencyOfTrials(std::vector<std::vector<double>>{{1, 2, 3}, {2, 3, 4}})->p99_high);
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
  EXPECT_FALSE(warm_up.Done());  // half of what it saw was falling still
  AddSteps(warm_up, 20, 0.5, 1);
  EXPECT_TRUE(warm_up.Steady());
}

// A decode step reads more context than the one before; a new request begins short again.
TEST(WarmUp, GrowingContextIsNotARamp) {
  WarmUp warm_up(2, 20);
  for (int request = 0; request < 4; ++request) AddSteps(warm_up, 100, 0.006, std::pow(1.3, 0.01));
  EXPECT_TRUE(warm_up.Steady());
}

// Clocks that rise over seconds, seen through steps of 4 ms: a short window would call them steady at once.
TEST(WarmUp, WaitsForSlowRamps) {
  std::mt19937_64 bits(1);
  for (double tau_s : {0.5, 2.0, 5.0}) {
    WarmUp warm_up(2, 20);
    while (!warm_up.Done()) {
      const double noise = 0.98 + 0.04 * static_cast<double>(bits() >> 11) * 0x1p-53;
      const double spike = bits() % 50 == 0 ? 3 : 1;
      warm_up.Add(0.004 * (1 + 0.3 * std::exp(-warm_up.elapsed_s() / tau_s)) * noise * spike);
    }
    EXPECT_LT(0.3 * std::exp(-warm_up.elapsed_s() / tau_s), 0.01) << tau_s;
    EXPECT_EQ(warm_up.Steady(), tau_s < 5) << tau_s;  // the slowest ramp outlasts the most that it may take
    EXPECT_LT(tau_s > 1 ? 0 : warm_up.elapsed_s(), 4);
  }
}

TEST(WarmUp, WaitsForAStepInTheClock) {
  WarmUp warm_up(0.5, 20);
  AddSteps(warm_up, 100, 0.011, 1);
  EXPECT_TRUE(warm_up.Steady());
  AddSteps(warm_up, 60, 0.010, 1);
  EXPECT_FALSE(warm_up.Steady());
  AddSteps(warm_up, 60, 0.010, 1);
  EXPECT_TRUE(warm_up.Steady());
}

TEST(WarmUp, OneInterruptedStepDoesNotMatterButConstantNoiseDoes) {
  WarmUp warm_up(0, 1000);
  AddSteps(warm_up, 4, 0.1, 1);
  warm_up.Add(0.9);
  AddSteps(warm_up, 5, 0.1, 1);
  EXPECT_TRUE(warm_up.Steady());
  WarmUp noisy(0, 1000);
  for (int i = 0; i < 10; ++i) noisy.Add(i % 2 ? 0.2 : 0.1);
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

TEST(Outliers, AreCountedNotRemoved) {
  std::vector<double> trials = {100, 101, 99, 100, 102, 98, 101, 99, 100, 100};
  EXPECT_EQ(CountOutliers(trials), 0);
  trials[3] = 120;
  EXPECT_EQ(CountOutliers(trials), 1);
  trials[7] = 60;
  EXPECT_EQ(CountOutliers(trials), 2);
  EXPECT_EQ(SummarizeRate(trials)->n, 10);
  EXPECT_NEAR(SummarizeRate(trials)->value, 98.1, 1e-9);  // the outliers are in it
  const auto warnings = TrialWarnings("decode", trials);
  EXPECT_EQ(std::count_if(warnings.begin(), warnings.end(),
                          [](const std::string& w) {
                            return w.find("2 of 10 trials lie far from the others; no trial is left out") !=
                                   std::string::npos;
                          }),
            1);
  EXPECT_EQ(CountOutliers(std::vector<double>{}), 0);
  EXPECT_EQ(CountOutliers(std::vector<double>{100, 100, 100, 100, 104}), 0);  // too near to matter
}

TEST(TrialWarnings, NameWandering) {
  std::vector<double> trials;
  for (int i = 0; i < 20; ++i) trials.push_back(i / 5 % 2 ? 101 : 100);
  const auto warnings = TrialWarnings("decode", trials);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_EQ(warnings[0].find("decode wanders"), 0u) << warnings[0];
}

TEST(Format, WithoutAnInterval) {
  EXPECT_EQ(FormatUncertain(412.345, std::nullopt), "412");
  EXPECT_EQ(FormatUncertain(412.345, 0.0), "412.3");
  EXPECT_EQ(FormatUncertain(0, 0.0), "0");
  EXPECT_EQ(FormatUncertain(std::nan(""), 1.0), "unknown");
  EXPECT_EQ(FormatRate(std::nullopt), "unknown");
}

TEST(Format, LopsidedIntervals) {
  EXPECT_EQ(FormatInterval(58, 54, 62), "58 ± 4");
  EXPECT_EQ(FormatInterval(58, 51, 70), "58 (51 to 70)");
  EXPECT_EQ(FormatInterval(58.4, 58, 70.9), "58 (58 to 71)");
  EXPECT_EQ(FormatInterval(5.2, 0, 55.3), "10 (0 to 60)");
  EXPECT_EQ(FormatInterval(58.43, std::nullopt, 61), "58.4");
  EXPECT_EQ(FormatInterval(std::nan(""), 1, 2), "unknown");
  EXPECT_EQ(FormatInterval(0, 0, 0), "0");
  EXPECT_EQ(FormatRate(Rate{.value = 5, .ci_low = 0, .ci_high = 17, .n = 2}), "5 (0 to 17)");
  EXPECT_EQ(FormatPercentUncertain(0.584, 0.544, 0.624), "58 ± 4 %");
  EXPECT_EQ(FormatPercentUncertain(0.58, 0.51, 0.70), "58 % (51 to 70)");
  EXPECT_EQ(FormatPercentUncertain(0.0421, 0.0401, 0.0441), "4.21 ± 0.20 %");
  EXPECT_EQ(FormatPercentUncertain(0.03, -0.05, 0.11), "3 ± 8 %");
  EXPECT_EQ(FormatPercentUncertain(0.584, std::nullopt, std::nullopt), "58 %");
  EXPECT_EQ(FormatUncertain(-0.3, 8), "0 ± 8");  // not "-0"
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
