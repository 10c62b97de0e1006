// SPDX-License-Identifier: Apache-2.0
// When a measurement may begin (steady state) and whether it stayed what it was (drift and noise across trials).
// Plain values, one thread.
#pragma once

#include <cstddef>
#include <deque>
#include <span>
#include <string>
#include <vector>

namespace assay::bench {

// Warm-up ends when the last kWindow steps look like one another, or when its time is spent:
//   trend:  the medians of the older and the newer half of the window differ by less than kMaxTrend;
//   spread: the window's interquartile range is less than kMaxSpread of its median.
// Medians and quartiles, because one step that the operating system interrupted must not restart the wait.
// Steps must do comparable work (decode steps of one batch, or whole requests of one shape).
class WarmUp {
 public:
  static constexpr size_t kWindow = 10;
  static constexpr double kMaxTrend = 0.02;   // clocks still ramping or pages still faulting in show far more
  static constexpr double kMaxSpread = 0.10;  // the noise of a shared two-core machine at rest passes

  // min_s: the least warm-up, because frequency governors need up to 2 s of load; max_s: the most.
  WarmUp(double min_s, double max_s);

  void Add(double step_s);
  bool Done() const;    // steady, or out of time
  bool Steady() const;  // the rule above holds and min_s has passed
  double elapsed_s() const { return elapsed_s_; }
  size_t steps() const { return steps_; }

 private:
  double min_s_, max_s_, elapsed_s_ = 0;
  size_t steps_ = 0;
  std::deque<double> window_;
};

struct Trend {
  double relative_change = 0;  // fitted last trial over fitted first, minus 1
  double p_value = 1;          // two-sided, of a least-squares slope of zero
};
// At least 3 finite values with a mean above zero; anything else has no trend that could be known: {0, 1}.
Trend FitTrend(std::span<const double> per_trial);

// One warning for each thing that makes these per-trial rates hard to trust: a drift (p < 0.05 and more than 2 % from
// first to last), a coefficient of variation above 5 %, fewer than 5 trials. `what` names the metric: "decode speed".
std::vector<std::string> TrialWarnings(const std::string& what, std::span<const double> per_trial);

}  // namespace assay::bench
