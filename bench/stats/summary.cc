// SPDX-License-Identifier: Apache-2.0
#include "bench/stats/summary.h"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <numeric>

#include "runtime/core/error.h"

namespace assay::bench {
namespace {

bool AllFinite(std::span<const double> sample) {
  return std::all_of(sample.begin(), sample.end(), [](double x) { return std::isfinite(x); });
}

double Mean(std::span<const double> sample) {
  return std::accumulate(sample.begin(), sample.end(), 0.0) / static_cast<double>(sample.size());
}

}  // namespace

std::optional<double> Rate::HalfWidth() const {
  if (!ci_low || !ci_high) return std::nullopt;
  return std::max(value - *ci_low, *ci_high - value);
}

double Quantile(std::span<const double> ascending, double p) {
  ASSAY_CHECK(!ascending.empty() && p >= 0 && p <= 1);
  const double at = p * static_cast<double>(ascending.size() - 1);
  const size_t below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, ascending.size() - 1);
  return ascending[below] + (at - static_cast<double>(below)) * (ascending[above] - ascending[below]);
}

double Median(std::vector<double> sample) {
  std::sort(sample.begin(), sample.end());
  return Quantile(sample, 0.5);
}

std::optional<Latency> SummarizeLatency(std::vector<double> sample) {
  if (sample.empty() || !AllFinite(sample)) return std::nullopt;
  std::sort(sample.begin(), sample.end());
  return Latency{.mean = Mean(sample),
                 .p50 = Quantile(sample, 0.50),
                 .p90 = Quantile(sample, 0.90),
                 .p95 = Quantile(sample, 0.95),
                 .p99 = Quantile(sample, 0.99),
                 .max = sample.back(),
                 .n = static_cast<int64_t>(sample.size())};
}

std::optional<Rate> SummarizeRate(std::span<const double> per_trial) {
  if (per_trial.empty() || !AllFinite(per_trial)) return std::nullopt;
  const double n = static_cast<double>(per_trial.size());
  Rate rate;
  rate.value = Mean(per_trial);
  rate.n = static_cast<int64_t>(per_trial.size());
  if (per_trial.size() < 2) return rate;
  double squares = 0;
  for (double x : per_trial) squares += (x - rate.value) * (x - rate.value);
  const double t = boost::math::quantile(boost::math::students_t(n - 1), 0.975);
  const double half = t * std::sqrt(squares / (n - 1) / n);
  rate.ci_low = std::max(0.0, rate.value - half);
  rate.ci_high = rate.value + half;
  return rate;
}

}  // namespace assay::bench
