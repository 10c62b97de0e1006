// SPDX-License-Identifier: Apache-2.0
// OpenNvml against tests/power/fake_nvml.cc, whose time stands still or is set, so that every figure is exact.
#include "bench/power/meters/nvml.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace assay::bench {
namespace {

constexpr char kLibrary[] = ASSAY_FAKE_NVML_DIR "/libnvidia-ml.so.1";

std::string Notes(const Meter& meter) {
  std::string notes;
  for (const std::string& note : meter.info().notes) notes += note + "\n";
  return notes;
}

testing::AssertionResult Has(const std::string& text, const std::string& piece) {
  return (text.find(piece) != std::string::npos ? testing::AssertionSuccess() : testing::AssertionFailure()) << text;
}

class Nvml : public ::testing::Test {
 protected:
  void SetUp() override { Clear(); }
  void TearDown() override { Clear(); }

  static void Set(const std::string& what, const std::string& value) {
    setenv(("ASSAY_FAKE_NVML_" + what).c_str(), value.c_str(), 1);
  }
  static void Clear() {
    for (const char* name : {"GPUS", "WATTS", "DUTY", "TICK_MS", "INIT", "FAIL"}) {
      unsetenv((std::string("ASSAY_FAKE_NVML_") + name).c_str());
    }
    for (const char* name : {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"}) unsetenv(name);
    Set("TIME_S", "0");
  }
  static std::unique_ptr<Meter> Open(const std::string& gpu = "") {
    auto meter = OpenNvml(gpu, kLibrary);
    EXPECT_TRUE(meter.ok()) << meter.error();
    return meter.ok() ? std::move(meter.value()) : nullptr;
  }
  static std::string WhyNot(const std::string& gpu = "", const char* library = kLibrary) {
    const auto meter = OpenNvml(gpu, library);
    const std::string why = meter.ok() ? "it opened" : meter.error();
    EXPECT_FALSE(Has(why, "\n"));
    return why;
  }
  static Reading ReadOne(Meter& meter) {
    const auto readings = meter.Read();
    EXPECT_TRUE(readings.ok()) << readings.error();
    if (!readings.ok() || readings.value().size() != 1) return {};
    return readings.value()[0];
  }
};

TEST_F(Nvml, TellsEnergyPowerClockHeatAndThrottling) {
  const auto meter = Open();
  const double before_s = NowSeconds();
  const Reading at_rest = ReadOne(*meter);
  Set("TIME_S", "2");
  const Reading later = ReadOne(*meter);
  EXPECT_GE(at_rest.t_s, before_s);
  EXPECT_LE(later.t_s, NowSeconds());
  EXPECT_NEAR(*later.energy_j - *at_rest.energy_j, 2 * 300, 1e-6);
  EXPECT_DOUBLE_EQ(*later.watts, 300);
  EXPECT_DOUBLE_EQ(*later.clock_mhz, 1755);
  EXPECT_DOUBLE_EQ(*later.temperature_c, 61);
  EXPECT_NEAR(*later.throttled_s - *at_rest.throttled_s, 2 * (0.25 + 0.125 + 0.0625), 1e-9);
  EXPECT_FALSE(later.broken);
}

TEST_F(Nvml, ShowsTheCounterAsItIsBetweenItsTicks) {
  Set("TICK_MS", "100");
  Set("TIME_S", "0.05");
  const auto meter = Open();
  const double start_j = *ReadOne(*meter).energy_j;
  Set("TIME_S", "0.09");
  EXPECT_DOUBLE_EQ(*ReadOne(*meter).energy_j, start_j);
  Set("TIME_S", "0.11");
  EXPECT_NEAR(*ReadOne(*meter).energy_j, start_j + 30, 1e-6);
}

TEST_F(Nvml, TakesTheInstantaneousPowerForTheCrossCheck) {
  Set("DUTY", "0.5");
  const auto meter = Open();
  EXPECT_DOUBLE_EQ(*ReadOne(*meter).watts, 300);
  Set("TIME_S", "0.07");
  EXPECT_DOUBLE_EQ(*ReadOne(*meter).watts, 60);
  EXPECT_EQ(meter->info().averaging_s, 0);
}

TEST_F(Nvml, SaysHowItKnows) {
  const auto meter = Open();
  const MeterInfo& info = meter->info();
  EXPECT_EQ(info.source, "nvml: energy counter (field 83) of GPU 0, NVIDIA H100 80GB HBM3");
  EXPECT_EQ(info.scope, "board");
  EXPECT_DOUBLE_EQ(info.period_s, 0.02);
  EXPECT_DOUBLE_EQ(*info.limit_w, 500);
  EXPECT_TRUE(Has(Notes(*meter),
                  "power limit 500 W (default 700 W, can be set from 200 to 750 W); mean power 300 W when "
                  "the meter was opened"));
  EXPECT_FALSE(info.constant);
}

TEST_F(Nvml, AveragedPowerReplacesAMissingInstant) {
  Set("FAIL", "186:3");
  Set("DUTY", "0.25");
  const auto meter = Open();
  const Reading reading = ReadOne(*meter);
  EXPECT_TRUE(reading.energy_j);
  EXPECT_DOUBLE_EQ(*reading.watts, 120);
  EXPECT_DOUBLE_EQ(meter->info().averaging_s, 1);
}

TEST_F(Nvml, WithoutACounterItReadsTheAveragedPower) {
  Set("FAIL", "83:3,1083:3");
  Set("DUTY", "0.25");
  const auto meter = Open();
  const Reading reading = ReadOne(*meter);
  EXPECT_FALSE(reading.energy_j);
  EXPECT_DOUBLE_EQ(*reading.watts, 120);
  EXPECT_DOUBLE_EQ(meter->info().averaging_s, 1);
  EXPECT_DOUBLE_EQ(meter->info().period_s, 0.1);
  EXPECT_EQ(meter->info().source, "nvml: power averaged over 1 s (field 185) of GPU 0, NVIDIA H100 80GB HBM3");
}

TEST_F(Nvml, OlderCallsReplaceFieldsThatTheDriverDoesNotKnow) {
  Set("FAIL", "83:3,185:3,186:3,190:3");
  Set("TIME_S", "1");
  const auto meter = Open();
  const double start_j = *ReadOne(*meter).energy_j;
  Set("TIME_S", "3");
  const Reading reading = ReadOne(*meter);
  EXPECT_NEAR(*reading.energy_j - start_j, 600, 1e-6);
  EXPECT_DOUBLE_EQ(*reading.watts, 300);
  EXPECT_DOUBLE_EQ(*meter->info().limit_w, 500);
  EXPECT_EQ(meter->info().averaging_s, 0);
}

TEST_F(Nvml, TheOlderCallForPowerIsNotCalledAMean) {
  Set("FAIL", "83:3,1083:3,185:3,186:3");
  const auto meter = Open();
  const Reading reading = ReadOne(*meter);
  EXPECT_FALSE(reading.energy_j);
  EXPECT_DOUBLE_EQ(*reading.watts, 300);
  EXPECT_EQ(meter->info().source, "nvml: power (nvmlDeviceGetPowerUsage) of GPU 0, NVIDIA H100 80GB HBM3");
  EXPECT_EQ(meter->info().averaging_s, 0);
  EXPECT_TRUE(Has(Notes(*meter), "to 750 W); power 300 W when the meter was opened"));
  EXPECT_FALSE(Has(Notes(*meter), "instantaneous"));
}

TEST_F(Nvml, AValueThatFailsOnceIsAbsentOnce) {
  Set("FAIL", "186:999:2:2,75:999:3:3,83:999:4:4,1083:999:4:4");  // the first call is that of opening
  const auto meter = Open();
  const Reading no_power = ReadOne(*meter), no_heat = ReadOne(*meter), no_energy = ReadOne(*meter);
  EXPECT_TRUE(no_power.energy_j && !no_power.watts && no_power.throttled_s);
  EXPECT_TRUE(no_heat.energy_j && no_heat.watts && !no_heat.throttled_s);
  EXPECT_TRUE(!no_energy.energy_j && no_energy.watts && no_energy.throttled_s);
  const Reading whole = ReadOne(*meter);
  EXPECT_TRUE(whole.energy_j && whole.watts && whole.throttled_s);
}

TEST_F(Nvml, ThrottlingIsUnknownWhereNothingCountsIt) {
  Set("FAIL", "74:3,75:3,77:3");
  EXPECT_FALSE(ReadOne(*Open()).throttled_s);
}

TEST_F(Nvml, ALostGpuFailsInNvmlsWordsAndMayComeBack) {
  Set("FAIL", "0:15:2:2");
  const auto meter = Open();
  const auto lost = meter->Read();
  ASSERT_FALSE(lost.ok());
  EXPECT_EQ(lost.error(), "GPU 0: GPU is lost");
  EXPECT_TRUE(ReadOne(*meter).energy_j);
}

TEST_F(Nvml, AGpuIsChosenByIndexUuidOrBusId) {
  Set("GPUS", "3");
  for (const std::string wanted : {"1", "GPU-89014d6e-0000-4000-8000-000000000000", "GPU-8901", "0000:10:00.0"}) {
    const auto meter = Open(wanted);
    ASSERT_TRUE(meter) << wanted;
    EXPECT_DOUBLE_EQ(*ReadOne(*meter).watts, 600) << wanted;
  }
}

TEST_F(Nvml, WithoutAChoiceItObeysCuda) {
  Set("GPUS", "3");
  setenv("CUDA_VISIBLE_DEVICES", "2,0", 1);
  EXPECT_DOUBLE_EQ(*ReadOne(*Open()).watts, 900);
  EXPECT_TRUE(Has(Notes(*Open()), "CUDA_DEVICE_ORDER"));
  setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 1);
  EXPECT_FALSE(Has(Notes(*Open()), "CUDA_DEVICE_ORDER"));
  EXPECT_DOUBLE_EQ(*ReadOne(*Open("1")).watts, 600);
  EXPECT_DOUBLE_EQ(*ReadOne(*Open("cuda:1")).watts, 300) << "CUDA's second device is GPU 0 here";
  EXPECT_TRUE(Has(WhyNot("cuda:2"), "hides GPU 2"));
  for (const char* hidden : {"", "-1"}) {
    setenv("CUDA_VISIBLE_DEVICES", hidden, 1);
    EXPECT_TRUE(Has(WhyNot(), "hides GPU 0")) << hidden;
  }
}

TEST_F(Nvml, SaysWhenNobodyChoseAmongSeveral) {
  EXPECT_FALSE(Has(Notes(*Open()), "none was chosen"));
  Set("GPUS", "2");
  EXPECT_TRUE(Has(Notes(*Open()), "none was chosen"));
  EXPECT_FALSE(Has(Notes(*Open("0")), "none was chosen"));
}

TEST_F(Nvml, ListsTheGpusWhenTheOneWantedIsNotThere) {
  Set("GPUS", "2");
  for (const std::string wanted : {"2", "GPU-8907", "GPU-89", "0000:70:00.0", "-3", "99999999999"}) {
    const std::string why = WhyNot(wanted);
    EXPECT_TRUE(Has(why, wanted));
    EXPECT_TRUE(Has(why, "there are: 0 (NVIDIA H100 80GB HBM3, GPU-8900"));
    EXPECT_TRUE(Has(why, ", 1 (NVIDIA H100 80GB HBM3, GPU-8901"));
  }
  EXPECT_TRUE(Has(WhyNot("MIG-0815"), "part of a GPU"));
  Set("GPUS", "0");
  EXPECT_TRUE(Has(WhyNot(), "none can be used here"));
}

TEST_F(Nvml, SaysWhatKeepsItFromStarting) {
  EXPECT_TRUE(Has(WhyNot("", "libnvidia-ml-of-nobody.so.1"), "no NVIDIA driver here"));
  EXPECT_TRUE(Has(WhyNot("", "libm.so.6"), "nvmlInit_v2"));
  Set("INIT", "9");
  EXPECT_TRUE(Has(WhyNot(), "Driver Not Loaded; load the driver"));
  Set("INIT", "18");
  EXPECT_TRUE(Has(WhyNot(), "version mismatch; the driver was updated"));
}

TEST_F(Nvml, SaysWhatKeepsAGpuFromBeingRead) {
  Set("FAIL", "1:4");
  EXPECT_TRUE(Has(WhyNot("0"), "GPU 0: Insufficient Permissions; run as root"));
  EXPECT_TRUE(Has(WhyNot("0000:00:00.0"), "Insufficient Permissions"));
  Set("FAIL", "83:3,1083:3,185:3,1185:3,186:3");
  EXPECT_TRUE(Has(WhyNot(), "neither energy nor power: Not Supported"));
}

}  // namespace
}  // namespace assay::bench
