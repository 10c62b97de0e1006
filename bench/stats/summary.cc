// SPDX-License-Identifier: Apache-2.0
#include "bench/stats/summary.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "bench/stats/interval.h"
#include "runtime/core/error.h"

namespace assay::bench {

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

double Mean(std::span<const double> sample) {
  return std::accumulate(sample.begin(), sample.end(), 0.0) / static_cast<double>(sample.size());
}

bool AllFinite(std::span<const double> sample) {
  return std::all_of(sample.begin(), sample.end(), [](double x) { return std::isfinite(x); });
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

std::optional<Latency> SummarizeLatencyOfTrials(std::span<const std::vector<double>> trials) {
  std::vector<double> pooled;
  for (const std::vector<double>& trial : trials) pooled.insert(pooled.end(), trial.begin(), trial.end());
  auto latency = SummarizeLatency(std::move(pooled));
  if (!latency) return latency;
  if (const auto p50 = QuantileInterval(trials, 0.50)) latency->p50_low = p50->low, latency->p50_high = p50->high;
  if (const auto p99 = QuantileInterval(trials, 0.99)) latency->p99_low = p99->low, latency->p99_high = p99->high;
  return latency;
}

std::optional<Rate> SummarizeRate(std::span<const double> per_trial) {
  if (per_trial.empty() || !AllFinite(per_trial)) return std::nullopt;
  Rate rate;
  rate.value = Mean(per_trial);
  rate.n = static_cast<int64_t>(per_trial.size());
  if (const auto interval = MeanInterval(per_trial)) {
    rate.ci_low = std::max(0.0, interval->low);
    rate.ci_high = interval->high;
  }
  return rate;
}

}  // namespace assay::bench
