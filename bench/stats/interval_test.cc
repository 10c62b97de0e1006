// SPDX-License-Identifier: Apache-2.0
// Values by hand and from tables; how often the intervals hold is in coverage_test.cc.
#include "bench/stats/interval.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace assay::bench {
namespace {

std::vector<double> Ascending(int n) {
  std::vector<double> x;
  for (int i = 1; i <= n; ++i) x.push_back(i);
  return x;
}

double Width(const Interval& interval) {
  return interval.high - interval.low;
}

TEST(MeanInterval, BelowFiveTrialsIsStudents) {
  // Standard deviation 2, t = 4.302653 for 2 degrees of freedom.
  const auto interval = MeanInterval(std::vector<double>{8, 10, 12});
  ASSERT_TRUE(interval);
  EXPECT_DOUBLE_EQ(interval->value, 10);
  EXPECT_NEAR(interval->high - 10, 4.302653 * 2 / std::sqrt(3), 1e-5);
  EXPECT_NEAR(10 - interval->low, 4.302653 * 2 / std::sqrt(3), 1e-5);
  EXPECT_EQ(interval->n, 3);
  EXPECT_STREQ(interval->method, "Student t");
}

// Residuals -2 -2 -1 1 2 2: lag-1 correlation 11 / 18, corrected (11/18 + 1/6) / (1 - 4/6) = 2.3, held at 0.5. Sum of
// 6 values of an AR(1) series with rho 0.5: 6 + 2 (5/2 + 4/4 + 3/8 + 2/16 + 1/32) = 14.0625, so 2.34375 times that of
// independent ones; the residuals' squares have 6 - 2.34375 degrees of freedom; t = 2.570582 for 5.
TEST(MeanInterval, WidensForCorrelatedTrials) {
  const auto interval = MeanInterval(std::vector<double>{98, 98, 99, 101, 102, 102});
  ASSERT_TRUE(interval);
  EXPECT_NEAR(Width(*interval) / 2, 2.570582 * std::sqrt(18 / (6 - 2.34375) * 2.34375 / 6), 1e-5);
}

// Trials that alternate show a negative correlation, which must not narrow the interval.
TEST(MeanInterval, NeverNarrowerThanStudents) {
  const auto interval = MeanInterval(std::vector<double>{99, 101, 99, 101, 99, 101});
  ASSERT_TRUE(interval);
  EXPECT_NEAR(Width(*interval) / 2, 2.570582 * std::sqrt(6.0 / 5 / 6), 1e-5);
}

TEST(MeanInterval, SteadyDriftDoesNotWidenManyTrials) {
  std::vector<double> line, flat;
  for (int i = 0; i < 20; ++i) {
    const double noise = i % 2 ? 1 : -1;
    flat.push_back(100 + noise);
    line.push_back(100 + noise + i);
  }
  EXPECT_NEAR(Width(*MeanInterval(line)), Width(*MeanInterval(flat)), 1e-9);
  EXPECT_NEAR(MeanInterval(line)->value, 109.5, 1e-9);
  line.pop_back();
  EXPECT_GT(Width(*MeanInterval(line)), 6);  // 19 trials cannot tell it from wandering
}

TEST(MeanInterval, RefusesWhatHasNone) {
  EXPECT_FALSE(MeanInterval({}));
  EXPECT_FALSE(MeanInterval(std::vector<double>{1}));
  EXPECT_FALSE(MeanInterval(std::vector<double>{1, std::numeric_limits<double>::quiet_NaN()}));
  EXPECT_FALSE(MeanInterval(std::vector<double>{1e308, -1e308, 1e308}));  // the squares overflow
  EXPECT_EQ(Width(*MeanInterval(std::vector<double>(7, 5.0))), 0);
}

TEST(NeighboursCorrelate, NeedsTenTrialsAndMoreThanADrift) {
  std::vector<double> waves;
  for (int i = 0; i < 24; ++i) waves.push_back(i / 4 % 2);
  EXPECT_TRUE(NeighboursCorrelate(waves));
  EXPECT_FALSE(NeighboursCorrelate(std::span(waves).first(9)));
  std::vector<double> line;
  for (int i = 0; i < 24; ++i) line.push_back(3 * i + (i * 6 % 13));
  EXPECT_FALSE(NeighboursCorrelate(line));
}

// Ranks of the exact binomial interval of the median, as tables of the sign test have them: n = 6: 1 and 6, n = 10: 2
// and 9, n = 20: 6 and 15, n = 100: 40 and 61.
TEST(QuantileInterval, MedianHasTheRanksOfTheSignTest) {
  const int ranks[][3] = {{6, 1, 6}, {10, 2, 9}, {20, 6, 15}, {100, 40, 61}};
  for (const auto& [n, low, high] : ranks) {
    const auto interval = QuantileInterval(Ascending(n), 0.5);
    ASSERT_TRUE(interval) << n;
    EXPECT_EQ(interval->low, low) << n;
    EXPECT_EQ(interval->high, high) << n;
    EXPECT_EQ(interval->value, 0.5 * (n + 1));
  }
}

TEST(QuantileInterval, IsAbsentWhereTheSampleCannotBoundIt) {
  EXPECT_FALSE(QuantileInterval(std::span<const double>{}, 0.5));
  EXPECT_FALSE(QuantileInterval(Ascending(5), 0.5));
  EXPECT_FALSE(QuantileInterval(Ascending(367), 0.99));  // 0.99^367 > 0.025
  EXPECT_TRUE(QuantileInterval(Ascending(368), 0.99));
}

TEST(QuantileInterval, GroupsThatDifferAreFewValues) {
  std::vector<std::vector<double>> mixed(20), sorted(20);
  for (int i = 0; i < 2000; ++i) {
    mixed[static_cast<size_t>(i % 20)].push_back(i);
    sorted[static_cast<size_t>(i / 100)].push_back(i);
  }
  const auto independent = QuantileInterval(Ascending(2000), 0.5), alike = QuantileInterval(mixed, 0.5),
             clustered = QuantileInterval(sorted, 0.5);
  ASSERT_TRUE(independent && alike && clustered);
  EXPECT_NEAR(Width(*alike), Width(*independent), 4);
  // Ten groups lie below the median and ten above, 50 values more or less than half each. That is the spread of
  // 2000^2 / 4 / (20 * 50^2 * 20 / 19) = 19 values, and 16.7 with t = 2.093 for the 19 degrees of freedom. Ranks 4 and
  // 13 of 16 stand at 4 and 13 times 2001 / 17.
  EXPECT_EQ(clustered->low, 469);
  EXPECT_EQ(clustered->high, 1530);
  EXPECT_EQ(clustered->n, 2000);
}

TEST(QuantileInterval, EqualValuesAreTheirOwnBounds) {
  const auto interval = QuantileInterval(std::vector<std::vector<double>>(5, std::vector<double>(100, 6.25)), 0.99);
  ASSERT_TRUE(interval);
  EXPECT_EQ(interval->low, 6.25);
  EXPECT_EQ(interval->high, 6.25);
}

TEST(QuantileInterval, NeedsTwoGroups) {
  EXPECT_FALSE(QuantileInterval(std::vector<std::vector<double>>{Ascending(100)}, 0.5));
  EXPECT_FALSE(QuantileInterval(std::vector<std::vector<double>>{Ascending(100), {}}, 0.5));
  EXPECT_FALSE(QuantileInterval(std::vector<std::vector<double>>{{1, 2}, {1, NAN}}, 0.5));
}

}  // namespace
}  // namespace assay::bench
