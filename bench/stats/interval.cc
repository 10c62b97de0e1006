// SPDX-License-Identifier: Apache-2.0
#include "bench/stats/interval.h"

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>

#include "bench/stats/summary.h"
#include "runtime/core/error.h"

namespace assay::bench {
namespace {

constexpr double kTail = 0.025;  // on either side
constexpr size_t kCorrelateFrom = 5;
constexpr size_t kDetrendFrom = 20;
constexpr size_t kTellCorrelationFrom = 10;

double StudentT(double degrees) {
  return boost::math::quantile(boost::math::students_t(degrees), 1 - kTail);
}

double SumOfSquares(std::span<const double> x) {
  double sum = 0;
  for (double v : x) sum += v * v;
  return sum;
}

// -(n - 1) / 2 ... (n - 1) / 2
std::vector<double> CentredPositions(size_t n) {
  std::vector<double> positions(n);
  for (size_t i = 0; i < n; ++i) positions[i] = static_cast<double>(i) - static_cast<double>(n - 1) / 2;
  return positions;
}

// What a mean, or a straight line, leaves of the trials.
struct Residuals {
  Residuals(std::span<const double> per_trial, bool detrend)
      : parameters(detrend ? 2 : 1), values(per_trial.begin(), per_trial.end()) {
    const std::vector<double> x = CentredPositions(values.size());
    const double mean = Mean(per_trial);
    double slope = 0;
    for (size_t i = 0; i < x.size(); ++i) slope += x[i] * (values[i] - mean);
    slope *= detrend ? 1 / SumOfSquares(x) : 0;
    for (size_t i = 0; i < x.size(); ++i) values[i] -= mean + slope * x[i];
  }

  double Lag1() const {
    double products = 0;
    for (size_t i = 1; i < values.size(); ++i) products += values[i] * values[i - 1];
    const double squares = SumOfSquares(values);
    return squares > 0 ? products / squares : 0;
  }

  int parameters;
  std::vector<double> values;
};

// Variance of the sum of w_i x_i for an AR(1) series x, as a multiple of what it is without correlation.
double Inflation(std::span<const double> weights, double rho) {
  double sum = 0, carried = 0;
  for (double w : weights) {
    sum += w * (w + 2 * carried);
    carried = rho * (carried + w);
  }
  return sum / SumOfSquares(weights);
}

// Order statistics, counted from 1, between which the p-quantile lies with 95 % confidence; below 1 and above n where
// there is none.
struct Ranks {
  int64_t low, high;
};
Ranks QuantileRanks(int64_t n, double p) {
  const boost::math::binomial_distribution<> below(static_cast<double>(n), p);
  // The smallest k with cdf(k) > tail, by bisection.
  const auto first_above = [&](double tail) {
    int64_t from = 0, to = n;
    while (from < to) {
      const int64_t k = from + (to - from) / 2;
      const bool above = boost::math::cdf(below, static_cast<double>(k)) > tail;
      (above ? to : from) = above ? k : k + 1;
    }
    return from;
  };
  return {first_above(kTail), first_above(1 - kTail) + 1};
}

// `n`: how many independent values the sample is worth.
std::optional<Interval> QuantileOf(std::span<const double> ascending, double p, int64_t n, const char* method) {
  if (n < 1) return std::nullopt;
  const Ranks ranks = QuantileRanks(n, p);
  if (ranks.low < 1 || ranks.high > n) return std::nullopt;
  // The k-th of n values stands where the k * (N + 1) / (n + 1)-th of N does.
  const double scale = static_cast<double>(ascending.size() + 1) / static_cast<double>(n + 1);
  const auto low = static_cast<size_t>(std::floor(static_cast<double>(ranks.low) * scale));
  const auto high = static_cast<size_t>(std::ceil(static_cast<double>(ranks.high) * scale));
  return Interval{Quantile(ascending, p), ascending[low - 1], ascending[std::min(high, ascending.size()) - 1],
                  static_cast<int64_t>(ascending.size()), method};
}

}  // namespace

std::optional<Interval> MeanInterval(std::span<const double> per_trial) {
  if (per_trial.size() < 2 || !AllFinite(per_trial)) return std::nullopt;
  const double n = static_cast<double>(per_trial.size());
  const bool detrend = per_trial.size() >= kDetrendFrom;
  const Residuals residuals(per_trial, detrend);
  double rho = 0;
  if (per_trial.size() >= kCorrelateFrom) {
    rho = std::clamp((residuals.Lag1() + residuals.parameters / n) / (1 - 4 / n), 0.0, std::max(0.5, 1 - 5 / n));
  }
  const double of_mean = Inflation(std::vector<double>(per_trial.size(), 1), rho);
  const double of_slope = detrend ? Inflation(CentredPositions(per_trial.size()), rho) : 0;
  // Fitting takes out of the residuals what the correlation put into mean and slope; this makes up for it.
  const double variance = SumOfSquares(residuals.values) / (n - of_mean - of_slope);
  const double half = StudentT(n - residuals.parameters) * std::sqrt(variance * of_mean / n);
  const double mean = Mean(per_trial);
  if (!std::isfinite(half)) return std::nullopt;
  const char* method = per_trial.size() < kCorrelateFrom ? "Student t"
                       : detrend                         ? "Student t, detrended, lag-1 corrected"
                                                         : "Student t, lag-1 corrected";
  return Interval{mean, mean - half, mean + half, static_cast<int64_t>(per_trial.size()), method};
}

bool NeighboursCorrelate(std::span<const double> per_trial) {
  if (per_trial.size() < kTellCorrelationFrom || !AllFinite(per_trial)) return false;
  const double n = static_cast<double>(per_trial.size());
  const Residuals residuals(per_trial, true);
  return residuals.Lag1() + residuals.parameters / n > 1.645 / std::sqrt(n);
}

std::optional<Interval> QuantileInterval(std::span<const double> ascending, double p) {
  ASSAY_CHECK(p > 0 && p < 1);
  if (!AllFinite(ascending)) return std::nullopt;
  return QuantileOf(ascending, p, static_cast<int64_t>(ascending.size()), "order statistics");
}

std::optional<Interval> QuantileInterval(std::span<const std::vector<double>> groups, double p) {
  ASSAY_CHECK(p > 0 && p < 1);
  std::vector<double> all;
  double count = 0;
  for (const std::vector<double>& group : groups) {
    all.insert(all.end(), group.begin(), group.end());
    count += group.empty() ? 0 : 1;
  }
  if (count < 2 || !AllFinite(all)) return std::nullopt;
  std::sort(all.begin(), all.end());
  const double n = static_cast<double>(all.size()), value = Quantile(all, p);
  const auto below = [&](const std::vector<double>& x) {
    return static_cast<double>(std::count_if(x.begin(), x.end(), [&](double v) { return v <= value; }));
  };
  const double share = below(all) / n;
  double squares = 0;
  for (const std::vector<double>& group : groups) {
    const double excess = below(group) - share * static_cast<double>(group.size());
    squares += excess * excess;
  }
  // Of the number of values below; n p (1 - p) where all are independent. Above zero, so that values that are all equal
  // divide by something.
  const double variance = std::max(squares * count / (count - 1), 1e-9);
  const double few = 1.959964 / StudentT(count - 1);
  const double worth = std::min(n, n * n * p * (1 - p) / variance * few * few);
  return QuantileOf(all, p, static_cast<int64_t>(worth), "order statistics, clustered by trial");
}

}  // namespace assay::bench
