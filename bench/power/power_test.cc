// SPDX-License-Identifier: Apache-2.0
#include "bench/power/power.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "bench/power/rapl.h"

namespace assay::bench {
namespace {

namespace fs = std::filesystem;

constexpr char kRange[] = "262143328850";  // of a real processor, in microjoules

// A powercap tree in a temporary folder.
class Rapl : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "assay-rapl-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    root_ = name;
  }
  void TearDown() override { fs::remove_all(root_); }

  // Written aside and renamed: a reader never sees an empty file.
  void Write(const std::string& file, const std::string& text) {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / "aside") << text << "\n";
    fs::rename(root_ / "aside", root_ / file);
  }
  void Zone(const std::string& folder, const std::string& name, const std::string& energy_uj,
            const std::string& range_uj = kRange) {
    Write(folder + "/name", name);
    Write(folder + "/max_energy_range_uj", range_uj);
    Write(folder + "/energy_uj", energy_uj);
  }
  std::unique_ptr<Meter> Open() {
    auto opened = OpenRapl(root_);
    EXPECT_TRUE(opened.ok()) << opened.error();
    return opened.ok() ? std::move(opened.value()) : nullptr;
  }
  std::string WhyNot(const std::string& root) {
    const auto opened = OpenRapl(root);
    return opened.ok() ? "opened" : opened.error();
  }
  // Joules between a reading now and one after `change`.
  double Joules(Meter& meter, const std::function<void()>& change) {
    const double before = meter.Read().value().energy_j.value();
    change();
    const auto after = meter.Read();
    EXPECT_FALSE(after.value().broken);
    return after.value().energy_j.value() - before;
  }

  fs::path root_;
};

void Sleep(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

TEST_F(Rapl, AddsPackagesAndDramOnce) {
  Zone("intel-rapl:0", "package-0", "1000000");
  Zone("intel-rapl:0:0", "core", "0");
  Zone("intel-rapl:0:1", "dram", "0");
  Zone("intel-rapl:0/intel-rapl:0:1", "dram", "0");  // the same zone under its second path
  Zone("intel-rapl:1", "package-1", "0");
  Zone("intel-rapl:2", "psys", "0");
  Zone("intel-rapl-mmio:0", "package-0", "0");
  const auto meter = Open();
  ASSERT_TRUE(meter);
  EXPECT_EQ(meter->info().scope, "chip");
  EXPECT_EQ(meter->info().source, "rapl: package-0, dram, package-1");
  EXPECT_NEAR(Joules(*meter,
                     [&] {
                       for (const char* zone : {"intel-rapl:0:0", "intel-rapl:2", "intel-rapl-mmio:0"}) {
                         Write(std::string(zone) + "/energy_uj", "900000000");
                       }
                       Write("intel-rapl:0/energy_uj", "3000000");
                       Write("intel-rapl:1/energy_uj", "500000");
                       Write("intel-rapl:0:1/energy_uj", "250000");
                       Write("intel-rapl:0/intel-rapl:0:1/energy_uj", "250000");
                     }),
              2.75, 1e-9);
}

TEST_F(Rapl, FindsZonesInsideTheControllersFolderAndAZoneByItself) {
  Zone("intel-rapl/intel-rapl:0", "package-0", "0");
  Zone("intel-rapl/intel-rapl:0/intel-rapl:0:0", "dram", "0");
  EXPECT_EQ(Open()->info().source, "rapl: package-0, dram");
  root_ /= "intel-rapl/intel-rapl:0/";
  EXPECT_EQ(Open()->info().source, "rapl: package-0, dram");
  root_ = root_.parent_path().parent_path().parent_path();
}

TEST_F(Rapl, UsesThePlatformZoneOnlyWithoutPackages) {
  Zone("intel-rapl:0", "psys", "0");
  EXPECT_EQ(Open()->info().source, "rapl: psys");
  EXPECT_EQ(Open()->info().scope, "node");
}

TEST_F(Rapl, FollowsTheCounterThroughItsWrap) {
  Zone("intel-rapl:0", "package-0", "262143000000");
  const auto meter = Open();
  EXPECT_NEAR(Joules(*meter, [&] { Write("intel-rapl:0/energy_uj", "500000"); }), 0.32885 + 0.5, 1e-9);
  EXPECT_NEAR(Joules(*meter, [&] { Write("intel-rapl:0/energy_uj", "700000"); }), 0.2, 1e-9);
}

TEST_F(Rapl, ACounterThatWasSetBackIsNotAWrap) {
  Zone("intel-rapl:0", "package-0", "5000000");
  const auto meter = Open();
  ASSERT_TRUE(meter->Read().ok());
  Write("intel-rapl:0/energy_uj", "0");  // as a wrap this would be 262 kJ in no time
  EXPECT_TRUE(meter->Read().value().broken);
  EXPECT_FALSE(meter->Read().value().broken);
}

TEST_F(Rapl, PollsFastEnoughForASmallRange) {
  Zone("intel-rapl:0", "package-0", "0");
  EXPECT_DOUBLE_EQ(Open()->info().period_s, 0.1);
  Zone("intel-rapl:0", "package-0", "0", "100000000");  // 100 J wrap in 50 ms at 2 kW
  EXPECT_DOUBLE_EQ(Open()->info().period_s, 0.0125);
}

TEST_F(Rapl, ReadTooLateIsBroken) {
  Zone("intel-rapl:0", "package-0", "0", "100000");  // 0.1 J
  const auto meter = Open();
  ASSERT_TRUE(meter->Read().ok());
  Sleep(0.02);
  EXPECT_TRUE(meter->Read().value().broken);
}

TEST_F(Rapl, SaysWhyItCannotServe) {
  EXPECT_NE(WhyNot(root_ / "missing").find("/missing is not there: this kernel or virtual machine shows no RAPL"),
            std::string::npos);
  EXPECT_NE(WhyNot(root_).find("holds no intel-rapl package"), std::string::npos);
  Zone("intel-rapl:0", "package-0", "many");
  EXPECT_NE(WhyNot(root_).find("intel-rapl:0/energy_uj does not hold a number but \"many\""), std::string::npos);
  Zone("intel-rapl:0", "package-0", "-5");
  EXPECT_NE(WhyNot(root_).find("does not hold a number"), std::string::npos);
  Zone("intel-rapl:0", "package-0", "");
  EXPECT_NE(WhyNot(root_).find("does not hold a number but \"\""), std::string::npos);
  Zone("intel-rapl:0", "package-0", "5", "0");
  EXPECT_NE(WhyNot(root_).find("max_energy_range_uj is 0"), std::string::npos);
  fs::remove(root_ / "intel-rapl:0/max_energy_range_uj");
  EXPECT_NE(WhyNot(root_).find("max_energy_range_uj cannot be read (No such file or directory)"), std::string::npos);
}

TEST_F(Rapl, PermissionDeniedComesWithTheRemedy) {
  if (getuid() == 0) GTEST_SKIP() << "root may read everything: run the tests as a user to check this";
  Zone("intel-rapl:0", "package-0", "0");
  fs::permissions(root_ / "intel-rapl:0/energy_uj", fs::perms::none);
  EXPECT_NE(WhyNot(root_).find("run as root, or allow it with `sudo chmod a+r "), std::string::npos);
}

// A meter whose counter is a given function of time; fails where it gives nothing.
class ScriptedMeter : public Meter {
 public:
  using Script = std::function<std::optional<Reading>(double seconds)>;
  explicit ScriptedMeter(Script script) : script_(std::move(script)), start_s_(NowSeconds()) {}
  const MeterInfo& info() const override { return info_; }
  Result<Reading> Read() override {
    const double now_s = NowSeconds();
    auto reading = script_(now_s - start_s_);
    if (!reading) return Result<Reading>::Fail("it was unplugged");
    reading->t_s = now_s;
    return *reading;
  }

 private:
  Script script_;
  double start_s_;
  MeterInfo info_ = {MeterKind::kCounter, "script", "wall", 0.005, ""};
};

Reading Counter(double energy_j) {
  Reading reading;
  reading.energy_j = energy_j;
  return reading;
}

TEST(Sampler, InterpolatesBetweenReadings) {
  Sampler sampler(std::make_unique<ScriptedMeter>([](double s) { return Counter(1000 + 40 * s); }));
  Sleep(0.02);
  const double begin_s = NowSeconds();
  Sleep(0.1);
  const double end_s = NowSeconds();
  const auto energy = sampler.Energy({begin_s, end_s});
  ASSERT_TRUE(energy.ok()) << energy.error();
  EXPECT_NEAR(energy.value().energy_j, 40 * (end_s - begin_s), 1e-6);
  EXPECT_NEAR(energy.value().peak_w, 40, 1e-3);
  EXPECT_GT(energy.value().updates, 0);
}

TEST(Sampler, IntegratesPowers) {
  Sampler sampler(std::make_unique<ScriptedMeter>([](double) {
    Reading reading;
    reading.watts = 25;
    return reading;
  }));
  const double begin_s = NowSeconds();
  Sleep(0.05);
  const double end_s = NowSeconds();
  EXPECT_NEAR(sampler.Energy({begin_s, end_s}).value().energy_j, 25 * (end_s - begin_s), 1e-6);
}

TEST(Sampler, RefusesWhatItDidNotSee) {
  const double before_s = NowSeconds();
  Sampler sampler(std::make_unique<ScriptedMeter>([](double s) { return Counter(s); }));
  Sleep(0.02);
  EXPECT_NE(sampler.Energy({before_s - 1, NowSeconds()}).error().find("before the start"), std::string::npos);
  EXPECT_NE(sampler.Energy({NowSeconds(), NowSeconds() + 100}).error().find("after the end"), std::string::npos);
  EXPECT_FALSE(sampler.Energy({NowSeconds(), NowSeconds() - 1}).ok());
}

TEST(Sampler, RefusesABrokenStepInsideOnly) {
  bool broken = false;
  std::mutex mutex;
  Sampler sampler(std::make_unique<ScriptedMeter>([&](double s) {
    std::lock_guard lock(mutex);
    Reading reading = Counter(s);
    reading.broken = std::exchange(broken, false);
    return reading;
  }));
  const double begin_s = NowSeconds();
  Sleep(0.03);
  const double middle_s = NowSeconds();
  ASSERT_TRUE(sampler.Energy({begin_s, middle_s}).ok());
  {
    std::lock_guard lock(mutex);
    broken = true;
  }
  Sleep(0.03);
  EXPECT_NE(sampler.Energy({begin_s, NowSeconds()}).error().find("was set back"), std::string::npos);
  EXPECT_TRUE(sampler.Energy({begin_s, middle_s}).ok());
}

TEST_F(Rapl, AMeterThatDiesKeepsWhatWasMeasuredBefore) {
  Zone("intel-rapl:0", "package-0", "0");
  Sampler sampler(Open());
  const double begin_s = NowSeconds();
  Sleep(0.02);
  Write("intel-rapl:0/energy_uj", "1000000");
  const double middle_s = NowSeconds();
  ASSERT_TRUE(sampler.Energy({begin_s, middle_s}).ok());
  fs::remove_all(root_ / "intel-rapl:0");
  Sleep(0.15);
  EXPECT_TRUE(sampler.Energy({begin_s, middle_s}).ok());
  const Window whole{begin_s, NowSeconds()};
  const Power power =
      SummarizePower(&sampler, "", {.windows = {&whole, 1}, .output_tokens = 5, .total_tokens = 9, .idle = {}});
  EXPECT_EQ(power.grade, "none");
  EXPECT_FALSE(power.mean_w || power.energy_j || power.j_per_output_token);
  ASSERT_EQ(power.notes.size(), 1u);
  EXPECT_EQ(power.notes[0].find("the meter failed during the measurement: " + root_.string()), 0u) << power.notes[0];
}

TEST(Power, FiguresFollowFromTheEnergy) {
  Sampler sampler(std::make_unique<ScriptedMeter>([](double s) { return Counter(100 * s); }));
  const Window idle{NowSeconds(), NowSeconds() + 0.02};
  Sleep(0.03);
  const double t_s = NowSeconds();
  const Window windows[] = {{t_s, t_s + 0.05}, {t_s + 0.06, t_s + 0.11}};
  Sleep(0.12);
  const Power power =
      SummarizePower(&sampler, "", {.windows = windows, .output_tokens = 20, .total_tokens = 100, .idle = idle});
  EXPECT_EQ(power.source, "script");
  EXPECT_EQ(power.scope, "wall");
  EXPECT_NEAR(power.energy_j.value(), 10, 1e-3);
  EXPECT_NEAR(power.mean_w.value(), 100, 1e-2);
  EXPECT_NEAR(power.idle_w.value(), 100, 1e-2);
  EXPECT_NEAR(power.j_per_output_token.value(), 0.5, 1e-4);
  EXPECT_NEAR(power.j_per_total_token.value(), 0.1, 1e-4);
  EXPECT_NEAR(power.output_tps_per_w.value(), 2, 1e-3);
  EXPECT_EQ(power.grade, "D") << "a tenth of a second is too short";
  EXPECT_FALSE(IsMeasured(power));
}

// Points from the past, so that a long window need not be waited for.
class PastMeter : public Meter {
 public:
  PastMeter(double first_s, double step_s, double tick_j) : t_s_(first_s), step_s_(step_s), tick_j_(tick_j) {}
  const MeterInfo& info() const override { return info_; }
  Result<Reading> Read() override {
    Reading reading = Counter(static_cast<double>(static_cast<int>(n_++ * step_s_)) * tick_j_);  // moves once a second
    reading.t_s = t_s_;
    t_s_ += step_s_;
    return reading;
  }

 private:
  double t_s_, step_s_, tick_j_;
  int n_ = 0;
  MeterInfo info_ = {MeterKind::kCounter, "past", "chip", 0.001, ""};
};

TEST(Power, GradeComesFromWhatHappened) {
  const auto grade = [](double seconds) {
    Sampler sampler(std::make_unique<PastMeter>(0, 0.5, 50));
    Sleep(0.5);
    const Window window{1, 1 + seconds};
    return SummarizePower(&sampler, "", {.windows = {&window, 1}, .output_tokens = 1, .total_tokens = 1, .idle = {}});
  };
  EXPECT_EQ(grade(40).grade, "C");
  EXPECT_TRUE(IsMeasured(grade(40)));
  EXPECT_EQ(grade(6).grade, "D") << "six movements of the counter are few";
  Sampler still(std::make_unique<PastMeter>(0, 0.5, 0));
  Sleep(0.1);
  const Window window{1, 11};
  const Power power =
      SummarizePower(&still, "", {.windows = {&window, 1}, .output_tokens = 1, .total_tokens = 1, .idle = {}});
  EXPECT_EQ(power.grade, "none") << "a counter that stands still measures nothing";
}

TEST(Power, WithoutAMeterSaysWhy) {
  const Power power = SummarizePower(nullptr, "no meter here", {});
  EXPECT_EQ(power.grade, "none");
  EXPECT_EQ(power.notes, std::vector<std::string>{"no meter here"});
  EXPECT_FALSE(power.source || power.scope || power.mean_w);
}

TEST(MakeMeter, ConstantIsGradeF) {
  Sampler sampler(MakeMeter("const:120.5").meter);
  const double begin_s = NowSeconds();
  Sleep(0.05);
  const Window window{begin_s, NowSeconds()};
  const Power power =
      SummarizePower(&sampler, "", {.windows = {&window, 1}, .output_tokens = 1, .total_tokens = 1, .idle = {}});
  EXPECT_EQ(power.grade, "F");
  EXPECT_NEAR(power.mean_w.value(), 120.5, 1e-6);
  EXPECT_FALSE(power.scope);
  EXPECT_FALSE(IsMeasured(power));
}

TEST(MakeMeter, NoneAndAutoSayWhyThereIsNone) {
  EXPECT_FALSE(MakeMeter("none").meter);
  EXPECT_EQ(MakeMeter("none").why_none, "power was not asked for (--power none)");
  const MeterChoice chosen = MakeMeter("auto");
  EXPECT_NE(chosen.meter == nullptr, chosen.why_none.empty());
}

TEST(MakeMeter, RefusesWhatItDoesNotKnow) {
  for (const char* spec : {"nvml", "ipmi", "redfish:http://x", "cmd:npu-smi", "", "rapl:", "rapl2", "const"}) {
    try {
      MakeMeter(spec);
      ADD_FAILURE() << spec << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.what(), "--power " + std::string(spec) +
                                  ": there is no such meter; there are auto, none, rapl[:PATH] and const:WATTS");
    }
  }
  for (const char* spec : {"const:", "const:-5", "const:0", "const:nan", "const:inf", "const:5W", "const:1e999"}) {
    EXPECT_THROW(MakeMeter(spec), Error) << spec;
  }
  EXPECT_THROW(MakeMeter("rapl:/nonexistent"), Error);
}

}  // namespace
}  // namespace assay::bench
