// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/log_clock.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

namespace assay::bench {
namespace {

constexpr double kStamp0 = 1767268800;  // what the log's clock says at time 0 of ours

struct Arrival {
  PowerRow row;
  double arrival_s;
};

// The load's power: 100 W, with a step to 300 W from 20 s to 40 s.
double PowerAt(double t_s) {
  return t_s >= 20 && t_s < 40 ? 300 : 100;
}

// A log of 60 s, a row every `step_s`, each seen up to 0.1 s after it was stamped; `set` is added to the clock.
std::vector<Arrival> Log(
    double step_s, const std::function<double(double)>& set = [](double) { return 0.0; }) {
  std::vector<Arrival> log;
  for (int i = 0; i * step_s < 60; ++i) {
    const double t_s = i * step_s, late_s = 0.1 * (i * 0.618 - std::floor(i * 0.618));
    log.push_back({{kStamp0 + t_s + set(t_s), PowerAt(t_s)}, t_s + late_s});
  }
  return log;
}

// What a meter makes of it that looks after every row.
std::vector<Reading> Placed(LogClock& clock, const std::vector<Arrival>& log) {
  std::vector<Reading> readings;
  for (const Arrival& a : log) {
    clock.Add(a.row, a.arrival_s);
    for (const Reading& reading : clock.Take()) readings.push_back(reading);
  }
  for (size_t i = 1; i < readings.size(); ++i) EXPECT_GT(readings[i].t_s, readings[i - 1].t_s);
  return readings;
}

// The energy from 10 s to 50 s is 8 kJ. Also: no gap that would spoil it.
void ExpectTheEnergy(const std::vector<Reading>& readings, double tolerance_j, double longest_gap_s = 0.3) {
  double energy_j = 0, longest_s = 0;
  for (size_t i = 1; i < readings.size(); ++i) {
    const double from = std::max(readings[i - 1].t_s, 10.0), to = std::min(readings[i].t_s, 50.0);
    if (to <= from) continue;
    energy_j += (*readings[i - 1].watts + *readings[i].watts) / 2 * (to - from);
    longest_s = std::max(longest_s, readings[i].t_s - readings[i - 1].t_s);
  }
  EXPECT_NEAR(energy_j, 8000, tolerance_j);
  EXPECT_LT(longest_s, longest_gap_s);
}

TEST(LogClock, TheEarliestArrivalTellsTheOffset) {
  LogClock clock;
  const auto readings = Placed(clock, Log(0.1));
  ExpectTheEnergy(readings, 5);
  EXPECT_NEAR(readings.back().t_s, 59.9, 0.002);
  EXPECT_FALSE(clock.marked());
  EXPECT_NEAR(clock.interval_s().value(), 0.1, 1e-6);
}

TEST(LogClock, AnHourForwardOrBackwardChangesNothing) {
  for (const double hour : {3600.0, -3600.0, 86400.0, -2.5, 2.5}) {
    for (const double when_s : {15.0, 30.0, 45.0}) {
      LogClock clock;
      const auto readings = Placed(clock, Log(0.1, [&](double t) { return t >= when_s ? hour : 0; }));
      ExpectTheEnergy(readings, 20);
      EXPECT_NEAR(readings.back().t_s, 59.9, 0.01) << hour;
    }
  }
}

TEST(LogClock, ThereAndBackAgain) {
  LogClock clock;
  ExpectTheEnergy(Placed(clock, Log(0.1, [](double t) { return t >= 15 && t < 35 ? 3600 : 0; })), 20);
}

TEST(LogClock, LateRowsKeepTheirPlace) {
  auto log = Log(0.1);
  for (size_t i = 300; i < 400; ++i) log[i].arrival_s = log[399].arrival_s;  // ten seconds in one block
  LogClock clock;
  const auto readings = Placed(clock, log);
  ASSERT_EQ(readings.size(), 600u);
  ExpectTheEnergy(readings, 5);
}

TEST(LogClock, OneRowFromNowhereDoesNoLastingHarm) {
  auto log = Log(0.1);
  log[250].row.stamp_s = 4e9;
  LogClock clock;
  ExpectTheEnergy(Placed(clock, log), 20);
}

TEST(LogClock, RowsOutOfOrderAreDropped) {
  auto log = Log(0.1);
  std::swap(log[250].row, log[251].row);
  LogClock clock;
  EXPECT_EQ(Placed(clock, log).size(), 599u);
}

TEST(LogClock, ReadingsStayInOrderWhereABetterOffsetIsFound) {
  LogClock clock;
  // The first row came a second late, so that the second is placed before it, and the third at the same time.
  const auto readings = Placed(clock, {{{0, 1}, 1}, {{0.5, 2}, 0.5}, {{1, 3}, 1}, {{1.5, 4}, 1.5}});
  ASSERT_EQ(readings.size(), 2u);
  EXPECT_DOUBLE_EQ(readings[0].t_s, 1);
  EXPECT_DOUBLE_EQ(readings[1].t_s, 1.5);
}

TEST(LogClock, AMarkPlacesALogThatComesOnlyAtTheEnd) {
  LogClock clock;
  for (const Arrival& a : Log(0.1)) {
    if (a.row.stamp_s == kStamp0 + 5) clock.Mark(5);
    clock.Add(a.row, 100);
  }
  const auto readings = clock.Take();
  ASSERT_EQ(readings.size(), 600u);  // those before the mark, too
  EXPECT_TRUE(clock.marked());
  EXPECT_NEAR(readings.front().t_s, 0, 1e-6);
  ExpectTheEnergy(readings, 1);
}

TEST(LogClock, AfterAMarkArrivalsDoNotCount) {
  LogClock clock;
  clock.Mark(0);
  auto log = Log(0.1);
  for (Arrival& a : log) a.arrival_s -= 1;  // as if the mark had been copied a second late
  EXPECT_NEAR(Placed(clock, log).back().t_s, 59.9, 1e-6);
}

TEST(LogClock, AClockThatIsSetAfterAMarkGoesOnAtThePaceOfTheRows) {
  for (const double hour : {3600.0, -3600.0}) {
    LogClock clock;
    clock.Mark(0);
    auto log = Log(0.1, [&](double t) { return t >= 30 ? hour : 0; });
    for (Arrival& a : log) a.arrival_s = 60;
    const auto readings = Placed(clock, log);
    EXPECT_TRUE(clock.marked());
    EXPECT_EQ(readings.size(), 600u);
    ExpectTheEnergy(readings, 1);
  }
}

TEST(LogClock, ALogThatBeginsAnewLosesItsMarkUnlessItsClockGoesOn) {
  LogClock clock;
  clock.Mark(0);
  clock.Add({100, 300}, 0.05);
  clock.Restart();
  clock.Add({101, 300}, 1.05);
  EXPECT_TRUE(clock.marked());
  clock.Restart();
  clock.Add({0, 300}, 31);  // seconds since the logger was started again
  EXPECT_FALSE(clock.marked());
  const auto readings = clock.Take();
  ASSERT_EQ(readings.size(), 3u);
  EXPECT_DOUBLE_EQ(readings[1].t_s, 1);
  EXPECT_DOUBLE_EQ(readings[2].t_s, 31);
}

TEST(LogClock, KnowsTheTimeBetweenRows) {
  LogClock clock;
  Placed(clock, {{{0, 1}, 0}, {{1, 1}, 1}, {{2, 1}, 2}, {{3, 1}, 3}, {{9, 1}, 9}});
  EXPECT_FALSE(clock.interval_s());
  Placed(clock, {{{10, 1}, 10}});
  EXPECT_DOUBLE_EQ(clock.interval_s().value(), 1);
}

}  // namespace
}  // namespace assay::bench
