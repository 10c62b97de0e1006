// SPDX-License-Identifier: Apache-2.0
// OpenTelemetry on a real device (the built-in CPU) whose backend is given a telemetry of the test's own.
#include "bench/power/meters/telemetry.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

namespace assay::bench {
namespace {

void KnowNothing(assay_telemetry&) {}

// What the backend does at the next reading; a plain function's state, since the table holds plain functions.
std::function<void(assay_telemetry&)> tell = KnowNothing;
assay_status status = ASSAY_OK;

assay_status ReadTelemetry(assay_device, assay_telemetry* telemetry, assay_message* msg) {
  if (status != ASSAY_OK) std::strncpy(msg->text, "the sensor is gone", sizeof(msg->text) - 1);
  tell(*telemetry);
  return status;
}

void Count(assay_telemetry& told) {
  told.energy_uj = 2'500'000;
}

void Advance() {  // by more than the rounding of nanoseconds
  for (const double begin_s = NowSeconds(); NowSeconds() < begin_s + 1e-6;) {
  }
}

class Telemetry : public ::testing::Test {
 protected:
  void SetUp() override {
    status = ASSAY_OK;
    tell = KnowNothing;
    device_ = Device::Open(Backend::Load(""), 0, 1);
    const_cast<assay_backend&>(device_->table()).telemetry_read = ReadTelemetry;
  }
  std::unique_ptr<Meter> Open() {
    auto meter = OpenTelemetry(device_);
    EXPECT_TRUE(meter.ok()) << meter.error();
    return meter.ok() ? std::move(meter.value()) : nullptr;
  }
  std::string WhyNot() {
    const auto meter = OpenTelemetry(device_);
    return meter.ok() ? "it opened" : meter.error();
  }
  double PeriodS(uint64_t energy_period_us, double power_period_s) {
    tell = [=](assay_telemetry& told) {
      Count(told);
      told.power_w = 5;
      told.energy_period_us = energy_period_us;
      told.power_period_s = power_period_s;
    };
    return Open()->info().period_s;
  }
  static Reading ReadOne(Meter& meter) {
    const auto readings = meter.Read();
    EXPECT_TRUE(readings.ok()) << readings.error();
    return readings.ok() && readings.value().size() == 1 ? readings.value()[0] : Reading{};
  }

  std::shared_ptr<Device> device_;
};

TEST_F(Telemetry, TheDeviceKnowsNothingThatItsBackendDoesNotTell) {
  const auto told = device_->ReadTelemetry();
  ASSERT_TRUE(told.ok());
  const assay_telemetry& t = told.value();
  EXPECT_EQ(t.struct_size, sizeof(assay_telemetry));
  for (const uint64_t count :
       {t.timestamp_ns, t.energy_uj, t.energy_period_us, t.throttle_reasons, t.memory_used, t.error_count}) {
    EXPECT_EQ(count, UINT64_MAX);
  }
  for (const double value : {t.power_w, t.power_period_s, t.temperature_c, t.clock_mhz, t.memory_clock_mhz}) {
    EXPECT_TRUE(std::isnan(value));
  }
}

TEST_F(Telemetry, ADeviceWithoutItSaysSo) {
  EXPECT_TRUE(device_->has_telemetry());
  const_cast<assay_backend&>(device_->table()).telemetry_read = nullptr;
  EXPECT_FALSE(device_->has_telemetry());
  EXPECT_EQ(WhyNot(), "backend cpu has no telemetry");
}

TEST_F(Telemetry, BecomesReadingsInTheMetersUnits) {
  tell = [](assay_telemetry& told) {
    Count(told);
    told.power_w = 321;
    told.clock_mhz = 1700;
    told.temperature_c = 65;
    told.throttle_reasons = 0;
  };
  const auto meter = Open();
  const double before_s = NowSeconds();
  const Reading reading = ReadOne(*meter);
  EXPECT_GE(reading.t_s, before_s);
  EXPECT_LE(reading.t_s, NowSeconds());
  EXPECT_DOUBLE_EQ(*reading.energy_j, 2.5);
  EXPECT_DOUBLE_EQ(*reading.watts, 321);
  EXPECT_DOUBLE_EQ(*reading.clock_mhz, 1700);
  EXPECT_DOUBLE_EQ(*reading.temperature_c, 65);
  EXPECT_DOUBLE_EQ(*reading.throttled_s, 0);
}

TEST_F(Telemetry, WhatIsUnknownIsAbsent) {
  tell = Count;
  const Reading counted = ReadOne(*Open());
  EXPECT_TRUE(counted.energy_j);
  EXPECT_FALSE(counted.watts || counted.clock_mhz || counted.temperature_c || counted.throttled_s);
  tell = [](assay_telemetry& told) { told.power_w = 7; };
  const Reading powered = ReadOne(*Open());
  EXPECT_FALSE(powered.energy_j);
  EXPECT_DOUBLE_EQ(*powered.watts, 7);
}

TEST_F(Telemetry, TheBackendsOwnTimeCountsWithinTheCallOnly) {
  double told_s = 0;
  tell = [&](assay_telemetry& told) {
    Count(told);
    Advance();
    told.timestamp_ns = static_cast<uint64_t>(1e9 * NowSeconds());
    told_s = 1e-9 * static_cast<double>(told.timestamp_ns);
    Advance();
  };
  const auto meter = Open();
  EXPECT_EQ(ReadOne(*meter).t_s, told_s);
  tell = [](assay_telemetry& told) {
    Count(told);
    told.timestamp_ns = 1;  // of another clock
  };
  const double before_s = NowSeconds();
  EXPECT_GE(ReadOne(*meter).t_s, before_s);
}

TEST_F(Telemetry, IsReadFourTimesPerStepOfTheFasterValue) {
  EXPECT_DOUBLE_EQ(PeriodS(100'000, 1), 0.025);
  EXPECT_DOUBLE_EQ(PeriodS(1'000'000, 0.08), 0.02);
  EXPECT_DOUBLE_EQ(PeriodS(UINT64_MAX, 0.4), 0.1);
  EXPECT_DOUBLE_EQ(PeriodS(1'000, NAN), 0.005);
  EXPECT_DOUBLE_EQ(PeriodS(60'000'000, NAN), 0.5);
  EXPECT_DOUBLE_EQ(PeriodS(UINT64_MAX, NAN), 0.02);
  EXPECT_DOUBLE_EQ(PeriodS(0, 0), 0.02);
}

TEST_F(Telemetry, ThePeriodOfAnAbsentValueDoesNotCount) {
  tell = [](assay_telemetry& told) {
    told.power_w = 5;
    told.power_period_s = 1;
    told.energy_period_us = 10'000;
  };
  EXPECT_DOUBLE_EQ(Open()->info().period_s, 0.25);
  tell = [](assay_telemetry& told) {
    Count(told);
    told.power_period_s = 1;
    told.energy_period_us = 1'200'000;
  };
  EXPECT_DOUBLE_EQ(Open()->info().period_s, 0.3);
}

TEST_F(Telemetry, SumsTheTimeUnderAThrottleReason) {
  uint64_t reasons = 0;
  tell = [&](assay_telemetry& told) {
    Count(told);
    told.throttle_reasons = reasons;
  };
  const auto meter = Open();
  std::vector<Reading> readings;
  for (const uint64_t now : {uint64_t{0}, uint64_t{4}, uint64_t{1}, uint64_t{0}, uint64_t{0}}) {
    reasons = now;
    readings.push_back(ReadOne(*meter));
  }
  const auto step = [&](int i) { return readings[i + 1].t_s - readings[i].t_s; };
  const auto grown = [&](int i) { return *readings[i + 1].throttled_s - *readings[i].throttled_s; };
  EXPECT_NEAR(grown(0), step(0) / 2, 1e-12);
  EXPECT_NEAR(grown(1), step(1), 1e-12);
  EXPECT_NEAR(grown(2), step(2) / 2, 1e-12);
  EXPECT_EQ(grown(3), 0);
}

TEST_F(Telemetry, UnknownReasonsLeaveAHoleAndAddNothing) {
  uint64_t reasons = 1;
  tell = [&](assay_telemetry& told) {
    Count(told);
    told.throttle_reasons = reasons;
  };
  const auto meter = Open();
  const double before_s = *ReadOne(*meter).throttled_s;
  reasons = UINT64_MAX;
  EXPECT_FALSE(ReadOne(*meter).throttled_s);
  reasons = 1;
  EXPECT_DOUBLE_EQ(*ReadOne(*meter).throttled_s, before_s);
}

TEST_F(Telemetry, SaysWhoseWordItIs) {
  tell = [](assay_telemetry& told) {
    Count(told);
    std::memset(told.source, 'x', sizeof(told.source));  // without an end
  };
  EXPECT_EQ(Open()->info().source, "telemetry of backend cpu: " + std::string(63, 'x'));
  EXPECT_EQ(Open()->info().scope, "chip");
  const_cast<assay_device_info&>(device_->info()).is_accelerator = 1;
  tell = Count;
  EXPECT_EQ(Open()->info().source, "telemetry of backend cpu");
  EXPECT_EQ(Open()->info().scope, "board");
}

TEST_F(Telemetry, FailsWithoutEnergyAndPower) {
  EXPECT_EQ(WhyNot(), "telemetry of backend cpu: neither energy nor power");
  tell = [](assay_telemetry& told) { told.power_w = INFINITY; };
  EXPECT_EQ(WhyNot(), "telemetry of backend cpu: neither energy nor power");
}

TEST_F(Telemetry, PassesOnTheBackendsWords) {
  tell = Count;
  const auto meter = Open();
  status = ASSAY_ERR_DEVICE;
  const auto readings = meter->Read();
  ASSERT_FALSE(readings.ok());
  EXPECT_EQ(readings.error(), "telemetry of cpu: the sensor is gone");
  EXPECT_EQ(WhyNot(), "telemetry of cpu: the sensor is gone");
  status = ASSAY_OK;
  EXPECT_TRUE(ReadOne(*meter).energy_j);
}

}  // namespace
}  // namespace assay::bench
