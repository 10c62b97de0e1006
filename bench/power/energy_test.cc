// SPDX-License-Identifier: Apache-2.0
#include "bench/power/energy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace assay::bench {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kLoadW = 300, kIdleW = 100;

// What `at` says every period_s, from 0 to end_s.
MeterRecord Record(double period_s, double end_s, const std::function<Reading(double t_s)>& at) {
  MeterRecord record;
  record.info.source = "meter";
  record.info.period_s = period_s;
  for (int i = 0; i * period_s <= end_s; ++i) {
    record.readings.push_back(at(i * period_s));
    record.readings.back().t_s = i * period_s;
  }
  return record;
}

Reading Counter(double energy_j) {
  Reading reading;
  reading.energy_j = energy_j;
  return reading;
}
Reading Watts(double watts) {
  Reading reading;
  reading.watts = watts;
  return reading;
}
Reading Both(double energy_j, double watts) {
  Reading reading = Counter(energy_j);
  reading.watts = watts;
  return reading;
}

// At rest for two seconds, then under load; the energy since 0.
double UsedJ(double t_s) {
  return t_s < 2 ? kIdleW * t_s : 2 * kIdleW + kLoadW * (t_s - 2);
}
double PowerW(double t_s) {
  return t_s < 2 ? kIdleW : kLoadW;
}
// The mean over the second before.
double MeanW(double t_s) {
  return UsedJ(t_s) - UsedJ(t_s - 1);
}

// A counter that moves every 0.1 s and is looked at every 0.02 s.
MeterRecord SlowCounter(double end_s) {
  return Record(0.02, end_s, [](double t_s) { return Counter(UsedJ(std::floor(t_s * 10 + 1e-6) / 10)); });
}
// A counter that has moved at every look, with the power beside it.
MeterRecord FastCounter(double end_s) {
  return Record(0.1, end_s, [](double t_s) { return Both(UsedJ(t_s), PowerW(t_s)); });
}
MeterRecord Powers(double end_s) {
  return Record(0.1, end_s, [](double t_s) { return Watts(PowerW(t_s)); });
}

std::string WhyNot(const MeterRecord& record, const Window& window) {
  const auto energy = EnergyWithin(record, window);
  return energy.ok() ? "valid" : energy.error();
}
::testing::AssertionResult Fails(const MeterRecord& record, const Window& window, const std::string& why) {
  const std::string error = WhyNot(record, window);
  if (error.find(why) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "\"" << why << "\" is not in \"" << error << "\"";
}

// ---- counters

TEST(Energy, OfACounterLiesBetweenTwoTicks) {
  const auto energy = EnergyWithin(SlowCounter(10), {3.03, 7.07});
  ASSERT_TRUE(energy.ok()) << energy.error();
  const WindowEnergy& e = energy.value();
  EXPECT_NEAR(e.window.begin_s, 3.09, 1e-9) << "seen at 3.10, not yet at 3.08";
  EXPECT_NEAR(e.window.end_s, 6.99, 1e-9);
  EXPECT_EQ(e.updates, 40);
  EXPECT_NEAR(e.energy_j, 3.9 * kLoadW, 1e-6);
  EXPECT_NEAR(e.mean_w(), kLoadW, 1e-6);
  EXPECT_NEAR(e.period_s, 0.1, 1e-9);
  EXPECT_FALSE(e.cross_energy_j);
}

TEST(Energy, NothingFromOutsideTheWindowComesIn) {
  // The tick at the window's begin still holds rest; a counter of one tick a second makes it a third of them.
  const MeterRecord record = Record(0.1, 10, [](double t_s) { return Counter(UsedJ(std::floor(t_s + 1e-6))); });
  const auto energy = EnergyWithin(record, {2.02, 5.5});
  ASSERT_TRUE(energy.ok()) << energy.error();
  EXPECT_NEAR(energy.value().energy_j, 2 * kLoadW, 1e-6) << "from the tick at 3 to that at 5";
  EXPECT_NEAR(energy.value().mean_w(), kLoadW, 1e-6);
}

TEST(Energy, OfACounterThatAlwaysMoves) {
  const auto energy = EnergyWithin(FastCounter(10), {3.02, 7.08});
  ASSERT_TRUE(energy.ok()) << energy.error();
  EXPECT_EQ(energy.value().updates, 39);
  EXPECT_NEAR(energy.value().mean_w(), kLoadW, 1e-6);
  EXPECT_NEAR(energy.value().window.seconds(), 3.8, 1e-9);
}

TEST(Energy, NeedsTwoTicks) {
  const MeterRecord record = SlowCounter(10);
  EXPECT_TRUE(EnergyWithin(record, {3.05, 3.25}).ok());
  EXPECT_TRUE(Fails(record, {3.05, 3.15}, "meter: it had something new to say only 1 times in 0.10 s"));
  EXPECT_TRUE(Fails(record, {3.01, 3.07}, "only 0 times"));
  EXPECT_TRUE(Fails(record, {5, 4}, "only 0 times"));
  EXPECT_TRUE(Fails({}, {5, 6}, "only 0 times"));
}

TEST(Energy, ACounterMayFallOrBeSetBackOutsideOnly) {
  MeterRecord record = FastCounter(10);
  for (Reading& r : record.readings) {
    if (r.t_s > 4.95) *r.energy_j -= 500;
  }
  EXPECT_TRUE(Fails(record, {3, 7}, "meter: the meter's counter fell by 470 J during the measurement"));
  EXPECT_EQ(WhyNot(record, {3, 4.95}), "valid");
  EXPECT_EQ(WhyNot(record, {4.95, 7}), "valid") << "it fell before the first reading inside";
  record = FastCounter(10);
  record.readings[50].broken = true;
  EXPECT_TRUE(Fails(record, {3, 7}, "meter: the meter's counter was set back, or not read in time"));
  EXPECT_EQ(WhyNot(record, {3, 4.95}), "valid");
  EXPECT_EQ(WhyNot(record, {4.95, 7}), "valid");
}

TEST(Energy, ACounterThatJumpsIsNotBelieved) {
  MeterRecord record = FastCounter(10);
  for (Reading& r : record.readings) {
    if (r.t_s > 4.95) *r.energy_j += 5e5;
  }
  EXPECT_TRUE(Fails(record, {3, 7}, "jumped by 500000 J in 0.15 s"));
  EXPECT_EQ(WhyNot(record, {5.5, 7}), "valid");
  // A counter may move rarely, and then by much.
  const MeterRecord rare = Record(0.1, 20, [](double t_s) { return Counter(9e4 * std::floor(t_s + 1e-6)); });
  EXPECT_EQ(WhyNot(rare, {3.5, 9.5}), "valid");
}

TEST(Energy, ACounterThatStandsStill) {
  const auto still = [](double from_s, double to_s) {
    return Record(0.1, 20, [=](double t_s) { return Counter(UsedJ(t_s > from_s && t_s < to_s ? from_s : t_s)); });
  };
  EXPECT_EQ(WhyNot(still(8, 9.5), {3, 17}), "valid");
  EXPECT_TRUE(Fails(still(8, 11), {3, 17}, "meter: the meter's counter stood still for 3"));
  EXPECT_TRUE(Fails(still(14, 18), {3, 17}, "stood still for 3")) << "at the end";
  EXPECT_TRUE(Fails(still(2, 5.5), {3, 17}, "stood still for 2.")) << "at the begin";
  EXPECT_TRUE(Fails(still(2, 19), {3, 17}, "only 0 times"));
  EXPECT_EQ(WhyNot(still(8, 11), {3, 8}), "valid");
  // One that moves once a second may also miss a beat.
  const MeterRecord slow = Record(0.1, 30, [](double t_s) {
    const double tick = std::floor(t_s + 1e-6);
    return Counter(UsedJ(tick > 10 && tick < 13 ? 10 : tick));
  });
  EXPECT_EQ(WhyNot(slow, {3, 27}), "valid");
}

TEST(Energy, ACounterThatCannotBeReadOnceIsNotReplacedByPowers) {
  for (const size_t missing : {35u, 70u}) {  // in the middle, and the last of the window
    MeterRecord record = FastCounter(10);
    record.readings[missing].energy_j.reset();
    EXPECT_TRUE(Fails(record, {3, 7.05}, "meter: the meter's counter was not readable")) << missing;
    EXPECT_EQ(WhyNot(record, {7.1, 9}), "valid");
  }
}

TEST(Energy, PeakOfACounterIsNotItsOwnStep) {
  EXPECT_NEAR(EnergyWithin(SlowCounter(10), {3, 7}).value().peak_w, kLoadW, 1e-6);
  EXPECT_NEAR(EnergyWithin(FastCounter(10), {3, 7}).value().peak_w, kLoadW, 1e-6);
  // One tick of 30 J that was seen in two halves, 1 ms apart.
  MeterRecord record = SlowCounter(10);
  Reading half = record.readings[250];
  half.t_s -= 0.001;
  *half.energy_j -= 15;
  record.readings.insert(record.readings.begin() + 250, half);
  EXPECT_LT(EnergyWithin(record, {3, 7}).value().peak_w, 1.5 * kLoadW);
}

// ---- powers

TEST(Energy, OfPowersIsTheirIntegral) {
  const MeterRecord record = Record(0.25, 10, [](double t_s) { return Watts(100 + 10 * t_s); });
  const auto energy = EnergyWithin(record, {2.1, 7.1});
  ASSERT_TRUE(energy.ok()) << energy.error();
  const WindowEnergy& e = energy.value();
  EXPECT_DOUBLE_EQ(e.window.begin_s, 2.5);
  EXPECT_DOUBLE_EQ(e.window.end_s, 7.0);
  EXPECT_NEAR(e.energy_j, 4.5 * (100 + 10 * (2.5 + 7.0) / 2), 1e-9);
  EXPECT_EQ(e.updates, 19);
  EXPECT_NEAR(e.period_s, 0.25, 1e-9);
  EXPECT_NEAR(e.peak_w, 170, 1e-9);
}

TEST(Energy, UnevenReadingsCountByTheirTime) {
  MeterRecord record = Record(0.1, 10, [](double) { return Watts(200); });
  std::erase_if(record.readings, [](const Reading& r) { return r.t_s > 5.05 && r.t_s < 5.95; });
  for (Reading& r : record.readings) {
    if (r.t_s > 5.5) r.watts = 400;
  }
  // Half of [4, 8] at either power, the step between 5 and 6 linear.
  EXPECT_NEAR(EnergyWithin(record, {3.85, 8.05}).value().mean_w(), (1.0 * 200 + 1.0 * 300 + 2.0 * 400) / 4, 5);
}

TEST(Energy, APowerMayBeThatOfAPeriodAgo) {
  const MeterRecord late = Record(0.1, 10, [](double t_s) { return Watts(PowerW(t_s - 0.08)); });
  const auto energy = EnergyWithin(late, {2.01, 5});
  ASSERT_TRUE(energy.ok()) << energy.error();
  EXPECT_NEAR(energy.value().mean_w(), kLoadW, 1e-9);
}

TEST(Energy, MeansOverThePastLeaveOutWhatWasBefore) {
  MeterRecord record = Record(0.1, 10, [](double t_s) { return Watts(MeanW(t_s)); });
  EXPECT_LT(EnergyWithin(record, {2, 6}).value().mean_w(), 0.95 * kLoadW) << "the test would show nothing";
  record.info.averaging_s = 1;
  const auto energy = EnergyWithin(record, {2, 6});
  ASSERT_TRUE(energy.ok()) << energy.error();
  EXPECT_NEAR(energy.value().mean_w(), kLoadW, 1e-6);
  EXPECT_NEAR(energy.value().window.begin_s, 2.1, 1e-9);
  EXPECT_NEAR(energy.value().window.end_s, 6, 1e-9);
  EXPECT_EQ(energy.value().updates, 30) << "readings from 3.1 on";
  EXPECT_TRUE(Fails(record, {2, 3}, "only 0 times in 1.0 s, without the first 1.0 s over which it averages"));
  record.info.averaging_s = 1e-300;  // as a broken BMC may have it
  EXPECT_EQ(EnergyWithin(record, {2, 6}).value().updates, 40);
}

TEST(Energy, MeansGiveEachMomentTheSameWeight) {
  // Half a second at twice the power, early, in the middle, late.
  for (const double burst_s : {2.2, 4.0, 6.3}) {
    const auto used_j = [&](double t_s) { return UsedJ(t_s) + kLoadW * std::clamp(t_s - burst_s, 0.0, 0.5); };
    MeterRecord record = Record(0.1, 10, [&](double t_s) { return Watts(used_j(t_s) - used_j(t_s - 1)); });
    record.info.averaging_s = 1;
    const auto energy = EnergyWithin(record, {2, 7.15});
    ASSERT_TRUE(energy.ok()) << energy.error();
    EXPECT_NEAR(energy.value().energy_j, 5 * kLoadW + 0.5 * kLoadW, 1e-6) << burst_s;
  }
}

TEST(Energy, ThatCannotBeIsRefusedInsideTheWindowOnly) {
  const struct {
    Reading reading;
    const char* why;
  } cases[] = {{Watts(kNan), "meter: the meter reported a power that is not a number"},
               {Watts(HUGE_VAL), "a power that is not a number"},
               {Watts(0), "meter: the meter reported 0 W while the machine was on"},
               {Watts(-5), "reported -5.00 W while"},
               {Watts(2e6), "reported 2000000 W"},
               {Both(kNan, 300), "meter: the meter reported an energy that is not a number"},
               {Both(HUGE_VAL, 300), "an energy that is not a number"}};
  for (const auto& [reading, why] : cases) {
    MeterRecord record = reading.energy_j ? FastCounter(10) : Powers(10);
    record.readings[50] = reading;
    record.readings[50].t_s = 5;
    EXPECT_TRUE(Fails(record, {3, 7}, why));
    EXPECT_EQ(WhyNot(record, {5.05, 7}), "valid") << why;
    EXPECT_EQ(WhyNot(record, {3, 4.95}), "valid") << why;
  }
}

// ---- the second opinion

TEST(Energy, PowersBesideACounterAreItsCrossCheck) {
  MeterRecord record = FastCounter(10);
  const auto energy = EnergyWithin(record, {3, 7});
  ASSERT_TRUE(energy.value().cross_energy_j);
  EXPECT_NEAR(*energy.value().cross_energy_j, energy.value().energy_j, 1e-6);
  for (Reading& r : record.readings) *r.watts *= 1.1;
  const auto other = EnergyWithin(record, {3, 7});
  EXPECT_NEAR(*other.value().cross_energy_j, 1.1 * other.value().energy_j, 1e-6);
  EXPECT_NEAR(other.value().energy_j, energy.value().energy_j, 1e-9) << "the counter alone tells the energy";
  record.readings[45].watts.reset();
  EXPECT_FALSE(EnergyWithin(record, {3, 7}).value().cross_energy_j) << "an integral over a hole";
}

TEST(Energy, MeansCrossCheckLongWindowsOnly) {
  MeterRecord record = Record(0.1, 30, [](double t_s) { return Both(UsedJ(t_s), MeanW(t_s)); });
  record.info.averaging_s = 1;
  EXPECT_FALSE(EnergyWithin(record, {2, 11}).value().cross_energy_j);
  const auto energy = EnergyWithin(record, {2, 22});
  ASSERT_TRUE(energy.value().cross_energy_j);
  EXPECT_NEAR(*energy.value().cross_energy_j / energy.value().energy_j, 1, 0.03);
}

// ---- silence and faults

TEST(Energy, AcrossAGapIsUnknown) {
  for (MeterRecord record : {FastCounter(10), Powers(10)}) {
    std::erase_if(record.readings, [](const Reading& r) { return r.t_s > 5.05 && r.t_s < 6.45; });
    EXPECT_TRUE(Fails(record, {3, 9}, "meter: the meter was silent for 1.5 s during the measurement"));
    EXPECT_EQ(WhyNot(record, {3, 5.9}), "valid");
    EXPECT_EQ(WhyNot(record, {5.6, 9}), "valid");
    EXPECT_TRUE(Fails(record, {3, 6.4}, "silent for 1.4 s")) << "at the end";
    EXPECT_TRUE(Fails(record, {5.1, 9}, "silent for 1.4 s")) << "at the begin";
    EXPECT_TRUE(Fails(record, {8, 12}, "silent for 2.0 s")) << "after the last";
    record.info.period_s = 0.6;
    EXPECT_EQ(WhyNot(record, {3, 9}), "valid") << "what is read rarely may be silent for longer";
  }
}

TEST(Energy, AFaultCountsWhereItLies) {
  MeterRecord record = FastCounter(20);
  record.faults.push_back({5, "npu-smi ended with exit code 1"});
  EXPECT_TRUE(Fails(record, {3, 7}, "the meter failed during the measurement: npu-smi ended with exit code 1"));
  EXPECT_EQ(WhyNot(record, {5.01, 9}), "valid") << "it has recovered";
  EXPECT_EQ(WhyNot(record, {3, 4.99}), "valid");
}

TEST(Energy, TheFaultBeforeASilenceIsItsReason) {
  MeterRecord record = FastCounter(5);
  record.faults = {{2.5, "hiccup"}, {6, "gone"}};
  EXPECT_TRUE(Fails(record, {3, 9}, "failed during the measurement: gone"));
  EXPECT_TRUE(Fails(record, {7, 9}, "failed during the measurement: gone")) << "the whole window is silent";
  EXPECT_EQ(WhyNot(record, {3, 5.5}), "valid") << "half a second of silence at the end costs only that";
}

// One fault of each kind at any of 20 moments of a run with five trials.
TEST(Energy, AFaultAtAnyMomentSpoilsItsTrialAndNoOther) {
  enum Kind { kDies, kHangs, kFalls, kNotANumber, kZero };
  const struct {
    Kind kind;
    const char* why;
  } kinds[] = {{kDies, "the meter failed during the measurement: unplugged"},
               {kHangs, "the meter failed during the measurement: no answer"},
               {kFalls, "counter fell by"},
               {kNotANumber, "a power that is not a number"},
               {kZero, "reported 0 W"}};
  constexpr double kHangLimitS = 1;
  int spoilt = 0, valid = 0;
  for (const auto& [kind, why] : kinds) {
    for (int point = 0; point < 20; ++point) {
      const double fault_s = 0.55 + 2.6 * point;
      MeterRecord record = Record(0.1, 54, [](double t_s) { return Both(kLoadW * t_s, kLoadW); });
      auto& readings = record.readings;
      const auto hit =
          std::find_if(readings.begin(), readings.end(), [&](const Reading& r) { return r.t_s > fault_s; });
      if (kind == kFalls) {
        for (auto r = hit; r != readings.end(); ++r) *r->energy_j -= 500;
      } else if (kind == kNotANumber || kind == kZero) {
        hit->watts = kind == kZero ? 0 : kNan;
      } else {
        if (kind == kHangs) record.faults.push_back({fault_s + kHangLimitS, "no answer"});
        for (auto r = hit; kind == kDies && r != readings.end(); ++r) record.faults.push_back({r->t_s, "unplugged"});
        readings.erase(hit, readings.end());
      }
      for (int trial = 0; trial < 5; ++trial) {
        const Window window{10.0 * trial + 2, 10.0 * trial + 8};
        // After a hang the trial may end before anybody can know of it, with what was read until then.
        const double known_s = kind == kHangs ? fault_s + kHangLimitS : fault_s;
        const bool stays = kind == kDies || kind == kHangs;
        const bool expected = known_s < window.end_s && (stays || fault_s > window.begin_s);
        const auto energy = EnergyWithin(record, window);
        const std::string where = std::string(why) + " at " + std::to_string(fault_s) + ", trial " +
                                  std::to_string(trial) + ": " + (energy.ok() ? "valid" : energy.error());
        ASSERT_EQ(!energy.ok(), expected) << where;
        ++(expected ? spoilt : valid);
        if (energy.ok()) {
          EXPECT_NEAR(energy.value().mean_w(), kLoadW, 1e-6) << where;
        } else {
          EXPECT_NE(energy.error().find(why), std::string::npos) << where;
        }
      }
    }
  }
  EXPECT_GT(spoilt, 100);
  EXPECT_GT(valid, 100);
}

// ---- the rest

TEST(Energy, SensorsAreThoseOfTheWindow) {
  const MeterRecord record = Record(0.1, 10, [](double t_s) {
    Reading reading = Counter(UsedJ(std::floor(t_s + 1e-6)));
    reading.clock_mhz = 1000 + 100 * std::floor(t_s + 1e-6);
    reading.temperature_c = 40 + std::floor(t_s + 1e-6);
    reading.throttled_s = t_s < 5 ? 0 : t_s - 5;
    return reading;
  });
  const auto energy = EnergyWithin(record, {3.5, 7.95});  // ticks seen from 3.95 to 6.95
  ASSERT_TRUE(energy.ok()) << energy.error();
  const WindowEnergy& e = energy.value();
  EXPECT_DOUBLE_EQ(*e.min_clock_mhz, 1400);
  EXPECT_NEAR(*e.mean_clock_mhz, 1500, 1e-6);
  EXPECT_DOUBLE_EQ(*e.max_temperature_c, 46);
  EXPECT_NEAR(*e.throttled_s, 1.9, 1e-6);
  const auto without = EnergyWithin(FastCounter(10), {4, 7});
  EXPECT_FALSE(without.value().min_clock_mhz || without.value().mean_clock_mhz || without.value().max_temperature_c ||
               without.value().throttled_s);
}

TEST(ChangePeriod, IsHowOftenTheMeterHasNews) {
  EXPECT_NEAR(ChangePeriod(SlowCounter(10), {3, 7}).value(), 0.1, 1e-9);
  EXPECT_NEAR(ChangePeriod(FastCounter(10), {3, 7}).value(), 0.1, 1e-9);
  const MeterRecord powers = Record(0.1, 20, [](double t_s) { return Watts(100 + std::floor(t_s / 2 + 1e-6)); });
  EXPECT_NEAR(ChangePeriod(powers, {3, 17}).value(), 2, 1e-9);
  EXPECT_FALSE(ChangePeriod(powers, {3, 7.5})) << "two changes are one step";
  EXPECT_FALSE(ChangePeriod(Powers(10), {3, 7})) << "it never changed";
  EXPECT_FALSE(ChangePeriod({}, {3, 7}));
}

TEST(ChangePeriod, OfACounterIgnoresThePowersBesideIt) {
  const MeterRecord record = Record(0.1, 20, [](double t_s) { return Both(100 * std::floor(t_s + 1e-6), 100 + t_s); });
  EXPECT_NEAR(ChangePeriod(record, {3, 17}).value(), 1, 1e-9);
}

}  // namespace
}  // namespace assay::bench
