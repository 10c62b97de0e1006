// SPDX-License-Identifier: Apache-2.0
// When a measurement may begin (steady state) and whether it stayed what it was (drift and noise across trials).
// Plain values, one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace assay::bench {

// Warm-up ends when the newer half of all steps so far (at least kMinWindow) look steady, or when its time is spent:
//   fall:  the median of the window's last third is less than kMaxFall below that of its first third;
//   noise: the median difference between neighbours is less than kMaxJump of the window's median.
// Medians, because one step that the operating system interrupted must not restart the wait. A window that grows with
// the wait, because a slow ramp looks flat through a short one. Steps that become slower do not prolong it: they read
// longer contexts, or the device heats up, which no waiting cures and which TrialWarnings reports.
class WarmUp {
 public:
  static constexpr size_t kMinWindow = 10;
  static constexpr double kMaxFall = 0.01;  // clocks still ramping or pages still faulting in show more
  static constexpr double kMaxJump = 0.07;  // the noise of a shared two-core machine at rest passes

  // min_s: the least warm-up, because frequency governors need up to 2 s of load; max_s: the most.
  WarmUp(double min_s, double max_s);

  void Add(double step_s);
  bool Done() const;    // steady, or out of time
  bool Steady() const;  // the rule above holds and min_s has passed
  double elapsed_s() const { return elapsed_s_; }
  size_t steps() const { return steps_s_.size(); }

 private:
  double min_s_, max_s_, elapsed_s_ = 0;
  std::vector<double> steps_s_;
};

struct Trend {
  double relative_change = 0;  // fitted last trial over fitted first, minus 1
  double p_value = 1;          // two-sided, of a least-squares slope of zero
};
// At least 3 finite values with a mean above zero; anything else has no trend that could be known: {0, 1}. p supposes
// independent trials: where neighbours correlate by 0.6 it is below 0.05 in 15 to 32 % of runs without a trend, which
// wander just as really (docs/statistics.md).
Trend FitTrend(std::span<const double> per_trial);

inline constexpr char kOutlierPolicy[] =
    "no trial is left out; those more than 3 robust standard deviations and 5 % from the median are counted";

// Trials more than 3 robust standard deviations (1.4826 x median absolute deviation) and more than 5 % from the median:
// nearer ones change nothing, and a fifth of all small normal samples has one beyond 3 such deviations.
int64_t CountOutliers(std::span<const double> per_trial);

// One warning for each thing that makes these per-trial rates hard to trust: a drift (p < 0.05 and more than 2 % from
// first to last), a coefficient of variation above 5 %, fewer than 5 trials, neighbours that correlate, outliers.
// `what` names the metric: "decode speed".
std::vector<std::string> TrialWarnings(const std::string& what, std::span<const double> per_trial);

}  // namespace assay::bench
