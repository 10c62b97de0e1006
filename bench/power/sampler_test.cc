// SPDX-License-Identifier: Apache-2.0
#include "bench/power/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <functional>
#include <future>
#include <limits>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bench/power/energy.h"

namespace assay::bench {
namespace {

using Answer = Result<std::vector<Reading>>;

constexpr double kPeriodS = 0.005;
constexpr double kLimitS = 1;  // after so long a call of such a meter hangs

void Sleep(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

// Held shut, it keeps whoever comes through waiting.
class Gate {
 public:
  void Pass() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return open_; });
  }
  void Open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

// A meter that answers its n-th call, from 1, as a test likes.
class ScriptedMeter : public Meter {
 public:
  using Script = std::function<Answer(int call)>;
  explicit ScriptedMeter(Script script, double period_s = kPeriodS) : script_(std::move(script)) {
    info_.source = "script";
    info_.period_s = period_s;
  }
  const MeterInfo& info() const override { return info_; }
  Answer Read() override { return script_(++calls_); }

 private:
  Script script_;
  MeterInfo info_;
  int calls_ = 0;
};

std::unique_ptr<Meter> Scripted(ScriptedMeter::Script script, double period_s = kPeriodS) {
  return std::make_unique<ScriptedMeter>(std::move(script), period_s);
}

std::vector<Reading> Now(double energy_j) {
  Reading reading;
  reading.t_s = NowSeconds();
  reading.energy_j = energy_j;
  reading.watts = 1;
  return {reading};
}

// Until the sampler has so many readings and faults together; false where that takes too long.
bool WaitForEvents(const Sampler& sampler, size_t count) {
  const double until_s = NowSeconds() + 20;
  while (NowSeconds() < until_s) {
    const MeterRecord record = sampler.Record();
    if (record.readings.size() + record.faults.size() >= count) return true;
    Sleep(0.002);
  }
  return false;
}

double SecondsOf(const std::function<void()>& work) {
  const double begin_s = NowSeconds();
  work();
  return NowSeconds() - begin_s;
}

TEST(Sampler, KeepsWhatTheMeterSays) {
  const double begin_s = NowSeconds();
  Sampler sampler(Scripted([](int call) { return Now(call); }));
  ASSERT_TRUE(WaitForEvents(sampler, 10));
  const MeterRecord record = sampler.Record();
  EXPECT_EQ(record.info.source, "script");
  EXPECT_EQ(sampler.info().source, "script");
  EXPECT_TRUE(record.faults.empty());
  for (size_t i = 0; i < record.readings.size(); ++i) {
    EXPECT_EQ(*record.readings[i].energy_j, static_cast<double>(i + 1));
    EXPECT_GT(record.readings[i].t_s, i == 0 ? begin_s : record.readings[i - 1].t_s);
  }
  EXPECT_TRUE(EnergyWithin(record, {begin_s, record.readings.back().t_s}).ok());
}

TEST(Sampler, AMeterMayHaveNothingOrMuchToSay) {
  Sampler sampler(Scripted([](int call) {
    std::vector<Reading> readings;
    for (int i = 0; call == 3 && i < 3; ++i) {
      readings.push_back(Now(i)[0]);
      readings.back().t_s = 10 + i;
    }
    return readings;
  }));
  ASSERT_TRUE(WaitForEvents(sampler, 3));
  const MeterRecord record = sampler.Record();
  ASSERT_EQ(record.readings.size(), 3u);
  EXPECT_EQ(record.readings[2].t_s, 12);
  EXPECT_TRUE(record.faults.empty());
}

TEST(Sampler, TheTimeOfACallIsPartOfThePeriod) {
  constexpr double kSlowPeriodS = 0.03, kCallS = 0.02;
  std::mutex mutex;
  std::vector<double> starts_s;
  {
    Sampler sampler(Scripted(
        [&](int call) {
          {
            const std::lock_guard lock(mutex);
            starts_s.push_back(NowSeconds());
          }
          Sleep(kCallS);
          return Now(call);
        },
        kSlowPeriodS));
    ASSERT_TRUE(WaitForEvents(sampler, 6));
  }
  double least_s = HUGE_VAL, most_s = 0;
  for (size_t i = 1; i < starts_s.size(); ++i) {
    least_s = std::min(least_s, starts_s[i] - starts_s[i - 1]);
    most_s = std::max(most_s, starts_s[i] - starts_s[i - 1]);
  }
  EXPECT_LT(least_s, kCallS + 0.8 * kSlowPeriodS) << "the call was added to it";
  EXPECT_GT(least_s, 0.79 * kSlowPeriodS);
  EXPECT_GT(most_s - least_s, 1e-4) << "it keeps time, as a load might";
}

TEST(Sampler, NotesThatAMeterLearntAreInTheRecord) {
  class LearningMeter : public Meter {
   public:
    LearningMeter() {
      info_.source = "learns";
      info_.period_s = kPeriodS;
      later_ = info_;
      later_.notes = {"learnt"};
    }
    const MeterInfo& info() const override { return learnt_ ? later_ : info_; }
    Answer Read() override {
      learnt_ = true;
      return Now(1);
    }

   private:
    MeterInfo info_, later_;
    std::atomic<bool> learnt_ = false;
  };
  Sampler sampler(std::make_unique<LearningMeter>());
  ASSERT_TRUE(WaitForEvents(sampler, 1));
  EXPECT_EQ(sampler.Record().info.notes, std::vector<std::string>{"learnt"});
}

// Each kind of fault, at any of the calls 4 to 23 of a meter of its own, all at once.
TEST(Sampler, AFaultAtAnyMomentIsInTheRecordAtOnceAndSpoilsNothingBefore) {
  constexpr int kPoints = 20, kFirst = 4;
  const auto good = [](int call) { return Now(call); };
  const struct {
    const char* why;
    std::function<Answer(int call, int point)> at_fault;  // and after it
  } kinds[] = {
      {"the meter failed during the measurement: unplugged", [](int, int) { return Answer::Fail("unplugged"); }},
      {"the meter failed during the measurement: script: no such key",
       [](int, int) -> Answer { throw std::runtime_error("no such key"); }},
      {"the meter failed during the measurement: script: its readings are not in order of time",
       [](int call, int point) {
         auto readings = Now(call);
         if (call == point) readings.push_back(readings[0]);
         return Answer(readings);
       }},
      {"counter fell", [](int call, int) { return Now(call - 100); }},
      {"an energy that is not a number",
       [](int call, int point) { return Now(call == point ? std::numeric_limits<double>::quiet_NaN() : call); }},
      {"reported 0 W", [](int call, int point) {
         auto readings = Now(call);
         if (call == point) readings[0].watts = 0;
         return Answer(readings);
       }}};
  for (const auto& [why, at_fault] : kinds) {
    SCOPED_TRACE(why);
    std::vector<std::unique_ptr<Sampler>> samplers;
    for (int point = kFirst; point < kFirst + kPoints; ++point) {
      samplers.push_back(std::make_unique<Sampler>(Scripted([&good, &at_fault = at_fault, point](int call) {
        return call < point ? Answer(good(call)) : at_fault(call, point);
      })));
    }
    for (int i = 0; i < kPoints; ++i) {
      const size_t point = kFirst + static_cast<size_t>(i);
      ASSERT_TRUE(WaitForEvents(*samplers[i], point + 2));
      const MeterRecord record = samplers[i]->Record();
      ASSERT_GE(record.readings.size(), point - 1);
      const double begin_s = record.readings[0].t_s, good_s = record.readings[point - 2].t_s;
      const auto before = EnergyWithin(record, {begin_s, good_s});
      EXPECT_TRUE(before.ok()) << before.error();
      const auto with = EnergyWithin(record, {begin_s, NowSeconds()});
      ASSERT_FALSE(with.ok()) << point;
      EXPECT_NE(with.error().find(why), std::string::npos) << with.error();
      const double told_s = record.faults.empty() ? good_s : record.faults[0].t_s;
      EXPECT_LT(told_s - good_s, 2 * kPeriodS + 0.2);
    }
  }
}

TEST(Sampler, AMeterThatHangsHoldsUpNothing) {
  constexpr int kPoints = 20, kFirst = 4;
  constexpr double kShort = 0.5 * kLimitS;  // whoever waits for a call takes longer
  constexpr double kBusyS = 10;             // what a busy machine may add; waits are for 60
  auto gate = std::make_shared<Gate>();
  const auto hanging = [&](int point) {
    return std::make_unique<Sampler>(Scripted([gate, point](int call) {
      if (call == point) gate->Pass();
      return Now(call);
    }));
  };
  const double start_s = NowSeconds();
  std::vector<std::unique_ptr<Sampler>> samplers;
  for (int i = 0; i < kPoints; ++i) samplers.push_back(hanging(kFirst + i));
  auto late = hanging(kFirst);
  // Nobody waits for a call longer than its limit, even where it has just begun.
  auto destroyed = std::async(std::launch::async, [&] {
    auto called = std::make_shared<std::atomic<bool>>(false);
    auto sampler = std::make_unique<Sampler>(Scripted([gate, called](int call) {
      *called = true;
      gate->Pass();
      return Now(call);
    }));
    while (!*called) Sleep(0.001);
    return SecondsOf([&] { sampler.reset(); });
  });
  for (int i = 0; i < kPoints; ++i) {
    const Sampler& sampler = *samplers[i];
    ASSERT_TRUE(WaitForEvents(sampler, static_cast<size_t>(kFirst + i - 1)));
    EXPECT_LT(SecondsOf([&] { sampler.Record(); }), kShort);
    EXPECT_LT(SecondsOf([&] { sampler.WaitFor(NowSeconds() + 60, 0.01); }), kShort);
  }
  const double asked_s = NowSeconds();
  for (const auto& sampler : samplers) sampler->WaitFor(asked_s + 60, 60);
  late->WaitFor(asked_s + 60, 60);
  EXPECT_LT(NowSeconds() - start_s, kLimitS + kBusyS);
  for (auto& sampler : samplers) {
    const MeterRecord record = sampler->Record();
    ASSERT_EQ(record.faults.size(), 1u);
    EXPECT_EQ(record.faults[0].text, "script: the meter does not answer any more");
    // From its call on, which begins a period after the reading, or when the machine gets round to it.
    EXPECT_GT(record.faults[0].t_s - record.readings.back().t_s, kLimitS);
    EXPECT_LT(record.faults[0].t_s - record.readings.back().t_s, kLimitS + kBusyS);
    const double begin_s = record.readings[0].t_s, good_s = record.readings.back().t_s;
    EXPECT_TRUE(EnergyWithin(record, {begin_s, good_s}).ok());
    EXPECT_NE(EnergyWithin(record, {begin_s, NowSeconds()}).error().find("does not answer any more"),
              std::string::npos);
    EXPECT_LT(SecondsOf([&] { sampler.reset(); }), kShort) << "it is known to hang";
  }
  const double destroyed_s = destroyed.get();
  EXPECT_GT(destroyed_s, 0.5 * kLimitS);
  EXPECT_LT(destroyed_s, kLimitS + kBusyS);
  gate->Open();
  // One that answers after all has left a silence.
  ASSERT_TRUE(WaitForEvents(*late, kFirst + 2));
  const MeterRecord record = late->Record();
  EXPECT_TRUE(record.faults.empty());
  const double begin_s = record.readings[0].t_s, end_s = record.readings.back().t_s;
  EXPECT_NE(EnergyWithin(record, {begin_s, end_s}).error().find("silent for "), std::string::npos);
  EXPECT_TRUE(EnergyWithin(record, {record.readings[kFirst - 1].t_s, end_s}).ok());
  late.reset();
  // What was left behind ends when its call does.
  const std::weak_ptr<Gate> left = gate;
  gate.reset();
  while (!left.expired() && NowSeconds() < start_s + 60) Sleep(0.002);
  EXPECT_TRUE(left.expired());
}

TEST(Sampler, WaitsForAReadingNoLongerThanItMust) {
  Sampler works(Scripted([](int call) { return Now(call); }));
  const double asked_s = NowSeconds() + 0.03;
  EXPECT_LT(SecondsOf([&] { works.WaitFor(asked_s, 60); }), 1);
  EXPECT_GE(works.Record().readings.back().t_s, asked_s);
  Sampler fails(Scripted([](int) { return Answer::Fail("unplugged"); }));
  EXPECT_LT(SecondsOf([&] { fails.WaitFor(NowSeconds() + 0.03, 60); }), 1);
  Sampler silent(Scripted([](int) { return std::vector<Reading>(); }));
  const double waited_s = SecondsOf([&] { silent.WaitFor(NowSeconds(), 0.05); });
  EXPECT_GT(waited_s, 0.049);
  EXPECT_LT(waited_s, 1);
}

TEST(Sampler, EndsWithoutWaitingForTheNextPeriod) {
  EXPECT_LT(SecondsOf([] {
              Sampler sampler(Scripted([](int call) { return Now(call); }, 60));
              sampler.WaitFor(0, 1);
            }),
            1);
}

}  // namespace
}  // namespace assay::bench
