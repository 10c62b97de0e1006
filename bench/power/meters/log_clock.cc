// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/log_clock.h"

#include <algorithm>
#include <utility>

#include "bench/stats/summary.h"

namespace assay::bench {
namespace {

constexpr double kJumpS = 2;  // less is a late row, or a clock that is being slewed
constexpr size_t kLeastSteps = 5, kMostSteps = 31;

}  // namespace

bool LogClock::IsSet(double stamp_s, double arrival_s) const {
  const double step_s = stamp_s - last_->stamp_s;
  const bool from_the_future = stamp_s + offset_s_ > arrival_s + kJumpS;
  const bool backwards = step_s < 0 && arrival_s - last_->arrival_s - step_s > kJumpS;
  return from_the_future || backwards;
}

void LogClock::Add(const PowerRow& row, double arrival_s) {
  const double stamp_s = row.stamp_s;
  double step_s = last_ ? stamp_s - last_->stamp_s : 0;
  if (mark_s_) {
    offset_s_ = *mark_s_ - stamp_s;  // also for the rows before it that are not placed yet
    marked_ = true;
    mark_s_.reset();
  } else if (!last_) {
    offset_s_ = arrival_s - stamp_s;
  } else if (IsSet(stamp_s, arrival_s)) {
    Place();
    step_s = last_->step_s;
    marked_ &= !restarted_;
    offset_s_ = (marked_ ? last_->stamp_s + offset_s_ + step_s : arrival_s) - stamp_s;
  } else if (step_s < 0) {
    return;
  } else {
    if (!marked_) offset_s_ = std::min(offset_s_, arrival_s - stamp_s);
    if (step_s > 0 && !restarted_ && steps_s_.size() < kMostSteps) steps_s_.push_back(step_s);
  }
  rows_.push_back(row);
  last_ = {stamp_s, arrival_s, step_s};
  restarted_ = false;
}

void LogClock::Place() {
  for (const PowerRow& row : rows_) {
    const double t_s = row.stamp_s + offset_s_;
    if (last_placed_s_ && t_s <= *last_placed_s_) continue;
    last_placed_s_ = t_s;
    Reading& reading = readings_.emplace_back();
    reading.t_s = t_s;
    reading.watts = row.watts;
  }
  rows_.clear();
}

std::vector<Reading> LogClock::Take() {
  Place();
  return std::exchange(readings_, {});
}

std::optional<double> LogClock::interval_s() const {
  if (steps_s_.size() < kLeastSteps) return std::nullopt;
  return Median(steps_s_);
}

}  // namespace assay::bench
