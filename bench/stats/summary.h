// SPDX-License-Identifier: Apache-2.0
// What a sample says: percentiles of latencies, and rates with the interval that the spread between trials allows.
// Pure functions, any thread. Latencies keep the unit of their sample; rates are per second.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace assay::bench {

struct Latency {
  double mean = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0, max = 0;
  int64_t n = 0;
  // 95 % confidence; absent where the sample cannot bound them.
  std::optional<double> p50_low{}, p50_high{}, p99_low{}, p99_high{};
};

struct Rate {
  double value = 0;                       // mean over the trials
  std::optional<double> ci_low, ci_high;  // 95 % confidence; absent below two trials
  int64_t n = 0;                          // trials

  // The larger half of the interval; absent where the interval is.
  std::optional<double> HalfWidth() const;
};

// The p-quantile, 0 <= p <= 1, of a non-empty ascending sample, by linear interpolation between the two nearest order
// statistics at p * (n - 1): numpy's default and so vLLM's.
double Quantile(std::span<const double> ascending, double p);
double Median(std::vector<double> sample);    // non-empty
double Mean(std::span<const double> sample);  // non-empty
bool AllFinite(std::span<const double> sample);

// Absent for an empty sample, and for one with a value that is not finite: it could only mislead. Without intervals,
// because a pooled sample does not tell which of its values depend on each other.
std::optional<Latency> SummarizeLatency(std::vector<double> sample);

// The same for one sample per trial, pooled, with the intervals that trials which are independent of each other allow.
std::optional<Latency> SummarizeLatencyOfTrials(std::span<const std::vector<double>> trials);

// One value per trial, in the order of time. The interval is MeanInterval's, on the variance between trials, because
// requests inside one trial share its clocks, batch and neighbours and so are not independent. A rate is never below 0,
// nor is its interval.
std::optional<Rate> SummarizeRate(std::span<const double> per_trial);

}  // namespace assay::bench
