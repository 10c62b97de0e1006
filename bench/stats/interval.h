// SPDX-License-Identifier: Apache-2.0
// 95 % confidence intervals for means over trials and for percentiles. What they cover and what they do not, with the
// simulated coverage of each: docs/statistics.md. Pure functions without random numbers, any thread; values keep the
// unit of their sample. A value that is not finite makes the interval absent, because it could only mislead.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace assay::bench {

struct Interval {
  double value = 0, low = 0, high = 0;
  int64_t n = 0;            // values that it rests on
  const char* method = "";  // static text for people
};

// Of the mean over the measured period, from one value per trial in the order of time. Absent below two trials.
//
// Student's t on the variance between trials, with two departures, each decided by n alone:
//   from  5 trials  the variance of the mean is that of an AR(1) series with the lag-1 correlation of the trials,
//                   corrected for its bias of -(k + 4 rho) / n (Kendall 1954; Marriott and Pope 1954; k fitted
//                   parameters), never below 0 nor above max(0.5, 1 - 5 / n), the most that n trials can resolve;
//   from 20 trials  a straight line is taken out first, because a steady drift adds no chance to the mean over the
//                   period; in fewer trials a drift cannot be told from wandering and widens the interval;
//   below 5 trials  nothing of that can be estimated and plain t stands.
std::optional<Interval> MeanInterval(std::span<const double> per_trial);

// Whether neighbouring trials resemble each other more than chance explains (one-sided, 5 %), a straight line apart.
// Always false below ten trials, which cannot tell.
bool NeighboursCorrelate(std::span<const double> per_trial);

// Of the p-quantile, 0 < p < 1, of independent samples of any distribution: two order statistics, by the binomial
// distribution. Absent where the sample cannot bound it: p50 needs 6 values, p99 needs 368.
std::optional<Interval> QuantileInterval(std::span<const double> ascending, double p);

// The same where samples of one group (the tokens and requests of one trial) may depend on each other and only groups
// are independent: the number of samples is replaced by the number of independent ones that would show the same spread
// of "share below the quantile" between groups, reduced for the few groups it rests on (Korn and Graubard 1998).
// Absent below two groups as well; empty groups are ignored.
std::optional<Interval> QuantileInterval(std::span<const std::vector<double>> groups, double p);

}  // namespace assay::bench
