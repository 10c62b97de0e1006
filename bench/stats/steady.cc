// SPDX-License-Identifier: Apache-2.0
#include "bench/stats/steady.h"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <cstdio>

#include "bench/stats/interval.h"
#include "bench/stats/summary.h"

namespace assay::bench {
namespace {

constexpr double kMaxDrift = 0.02;
constexpr double kDriftSignificance = 0.05;
constexpr double kMaxVariation = 0.05;
constexpr size_t kMinTrials = 5;
constexpr double kOutlierSigmas = 3;
constexpr double kMinOutlier = 0.05;  // of the median

std::string Percent(double fraction) {
  char text[32];
  std::snprintf(text, sizeof text, "%.0f %%", 100 * fraction);
  return text;
}

}  // namespace

WarmUp::WarmUp(double min_s, double max_s) : min_s_(min_s), max_s_(max_s) {}

void WarmUp::Add(double step_s) {
  elapsed_s_ += step_s;
  steps_s_.push_back(step_s);
}

bool WarmUp::Done() const {
  return elapsed_s_ >= max_s_ || Steady();
}

bool WarmUp::Steady() const {
  if (elapsed_s_ < min_s_ || steps_s_.size() < kMinWindow) return false;
  const size_t size = std::max(kMinWindow, steps_s_.size() / 2);
  const std::span<const double> window = std::span(steps_s_).last(size);
  const auto median = [](std::span<const double> x) { return Median({x.begin(), x.end()}); };
  std::vector<double> jumps;
  for (size_t i = 1; i < size; ++i) jumps.push_back(std::abs(window[i] - window[i - 1]));
  return median(window.last(size / 3)) > (1 - kMaxFall) * median(window.first(size / 3)) &&
         median(jumps) < kMaxJump * median(window);
}

Trend FitTrend(std::span<const double> per_trial) {
  const double n = static_cast<double>(per_trial.size());
  if (per_trial.size() < 3) return {};
  const double mean = Mean(per_trial), middle = (n - 1) / 2;
  if (!std::isfinite(mean) || mean <= 0) return {};
  double sxx = 0, sxy = 0, syy = 0;
  for (size_t i = 0; i < per_trial.size(); ++i) {
    const double dx = static_cast<double>(i) - middle, dy = per_trial[i] - mean;
    sxx += dx * dx, sxy += dx * dy, syy += dy * dy;
  }
  const double slope = sxy / sxx, first = mean - slope * middle;
  Trend trend{.relative_change = first > 0 ? slope * (n - 1) / first : 0};
  // Rounding alone leaves a residue of this size on a perfect line or a constant.
  const double residual = std::max(syy - slope * sxy, 1e-24 * mean * mean);
  const double t = std::abs(slope) / std::sqrt(residual / (n - 2) / sxx);
  trend.p_value = 2 * boost::math::cdf(boost::math::complement(boost::math::students_t(n - 2), t));
  return trend;
}

int64_t CountOutliers(std::span<const double> per_trial) {
  if (per_trial.empty()) return 0;
  const double median = Median({per_trial.begin(), per_trial.end()});
  std::vector<double> deviations;
  for (double x : per_trial) deviations.push_back(std::abs(x - median));
  // 1.4826 makes the median absolute deviation the standard deviation of a normal distribution.
  const double limit = std::max(kOutlierSigmas * 1.4826 * Median(deviations), kMinOutlier * std::abs(median));
  return std::count_if(deviations.begin(), deviations.end(), [&](double d) { return d > limit; });
}

std::vector<std::string> TrialWarnings(const std::string& what, std::span<const double> per_trial) {
  std::vector<std::string> warnings;
  if (per_trial.size() < kMinTrials) {
    warnings.push_back(what + " rests on " + std::to_string(per_trial.size()) +
                       " trials; with fewer than 5 the interval is wide and a drift cannot be seen");
  }
  if (per_trial.size() < 2) return warnings;
  const Trend trend = FitTrend(per_trial);
  if (std::abs(trend.relative_change) > kMaxDrift && trend.p_value < kDriftSignificance) {
    const bool fell = trend.relative_change < 0;
    warnings.push_back(what + (fell ? " fell " : " rose ") + Percent(std::abs(trend.relative_change)) +
                       " from the first trial to the last" +
                       (fell ? " (heat, a power limit or another process)" : " (warm-up was too short)"));
  }
  const double mean = Mean(per_trial);
  double squares = 0;
  for (double x : per_trial) squares += (x - mean) * (x - mean);
  const double variation = std::sqrt(squares / static_cast<double>(per_trial.size() - 1)) / mean;
  if (mean > 0 && variation > kMaxVariation) {
    warnings.push_back(what + " varies by " + Percent(variation) +
                       " between trials (one standard deviation); end other processes and repeat");
  }
  if (NeighboursCorrelate(per_trial)) {
    warnings.push_back(what + " wanders: neighbouring trials resemble each other, for which the interval is wider; " +
                       "longer trials would narrow it");
  }
  const int64_t outliers = per_trial.size() < kMinTrials ? 0 : CountOutliers(per_trial);
  if (outliers > 0) {
    warnings.push_back(what + ": " + std::to_string(outliers) + " of " + std::to_string(per_trial.size()) + " trials " +
                       (outliers == 1 ? "lies" : "lie") + " far from the others; " + kOutlierPolicy);
  }
  return warnings;
}

}  // namespace assay::bench
