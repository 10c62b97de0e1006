// SPDX-License-Identifier: Apache-2.0
#include "bench/power/sampler.h"

#include <algorithm>
#include <chrono>

namespace assay::bench {
namespace {

// Over so long a step without a reading the power may have been anything.
constexpr double kLongestGapS = 1.0;

}  // namespace

Sampler::Sampler(std::unique_ptr<Meter> meter)
    : meter_(std::move(meter)), longest_gap_s_(std::max(kLongestGapS, 3 * meter_->info().period_s)) {
  Poll();
  thread_ = std::thread([this] { Run(); });
}

Sampler::~Sampler() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Sampler::Run() {
  const auto period = std::chrono::duration<double>(meter_->info().period_s);
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, period, [this] { return stop_ || !failure_.empty(); })) Poll();
}

void Sampler::Poll() {
  if (!failure_.empty()) return;
  const auto read = meter_->Read();
  if (!read.ok()) {
    failure_ = read.error();
    return;
  }
  const Reading& reading = read.value();
  Point point{reading.t_s, reading.energy_j.value_or(0), reading.broken};
  if (reading.watts && last_) {
    const double elapsed_s = reading.t_s - last_->t_s;
    point.energy_j = points_.back().energy_j + (*reading.watts + last_->watts.value_or(*reading.watts)) / 2 * elapsed_s;
    point.broken |= elapsed_s > longest_gap_s_;
  }
  last_ = reading;
  points_.push_back(point);
}

Result<double> Sampler::EnergyAt(double t_s) const {
  using Energy = Result<double>;
  const auto after =
      std::lower_bound(points_.begin(), points_.end(), t_s, [](const Point& point, double t) { return point.t_s < t; });
  if (after == points_.end()) return Energy::Fail("the meter has no reading after the end of the measurement");
  if (after->t_s == t_s) return after->energy_j;
  if (after == points_.begin()) return Energy::Fail("the meter has no reading before the start of the measurement");
  const auto before = after - 1;
  const double step_s = after->t_s - before->t_s;
  if (step_s > longest_gap_s_) return Energy::Fail("the meter was silent around an end of the measurement");
  return before->energy_j + (after->energy_j - before->energy_j) * (t_s - before->t_s) / step_s;
}

Result<WindowEnergy> Sampler::Energy(const Window& window) {
  using Answer = Result<WindowEnergy>;
  if (window.end_s <= window.begin_s) return Answer::Fail("the measurement took no time");
  std::lock_guard lock(mutex_);
  if (points_.empty() || points_.back().t_s < window.end_s) Poll();
  const bool covered = !points_.empty() && points_.back().t_s >= window.end_s;
  if (!covered && !failure_.empty()) return Answer::Fail("the meter failed during the measurement: " + failure_);
  const auto begin = EnergyAt(window.begin_s), end = EnergyAt(window.end_s);
  if (!begin.ok()) return Answer::Fail(begin.error());
  if (!end.ok()) return Answer::Fail(end.error());
  WindowEnergy answer{.energy_j = end.value() - begin.value()};
  answer.peak_w = answer.energy_j / (window.end_s - window.begin_s);
  // Between readings that lie closer, the counter's own step would pass for a peak.
  const double least_step_s = meter_->info().period_s / 2;
  const bool counts = meter_->info().kind == MeterKind::kCounter;
  for (size_t i = 1; i < points_.size() && points_[i - 1].t_s < window.end_s; ++i) {
    const Point &from = points_[i - 1], &to = points_[i];
    if (to.t_s <= window.begin_s) continue;
    if (to.broken) return Answer::Fail("the meter's counter was set back, or not read in time, during the measurement");
    const double step_s = to.t_s - from.t_s;
    if (step_s >= least_step_s) answer.peak_w = std::max(answer.peak_w, (to.energy_j - from.energy_j) / step_s);
    if (to.t_s <= window.end_s && (!counts || to.energy_j > from.energy_j)) ++answer.updates;
  }
  return answer;
}

}  // namespace assay::bench
