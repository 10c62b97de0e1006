// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/rapl.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "bench/power/energy.h"

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
    const double before_j = Read(meter).energy_j.value();
    change();
    const Reading after = Read(meter);
    EXPECT_FALSE(after.broken);
    return after.energy_j.value() - before_j;
  }
  Reading Read(Meter& meter) {
    const auto read = meter.Read();
    EXPECT_TRUE(read.ok() && read.value().size() == 1);
    return read.ok() && read.value().size() == 1 ? read.value()[0] : Reading();
  }

  fs::path root_;
};

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
  ASSERT_EQ(meter->info().notes.size(), 1u);
  EXPECT_NE(meter->info().notes[0].find("not the board"), std::string::npos);
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
  EXPECT_NE(Open()->info().notes.at(0).find("depends on the maker"), std::string::npos);
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
  EXPECT_TRUE(Read(*meter).broken);
  EXPECT_FALSE(Read(*meter).broken);
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
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_TRUE(Read(*meter).broken);
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

TEST_F(Rapl, AMeterThatDiesKeepsWhatWasMeasuredBefore) {
  Zone("intel-rapl:0", "package-0", "0");
  auto meter = Open();
  ASSERT_TRUE(meter);
  MeterRecord record;
  record.info = meter->info();
  for (const char* energy_uj : {"0", "10000", "20000", "30000"}) {
    Write("intel-rapl:0/energy_uj", energy_uj);
    record.readings.push_back(Read(*meter));
  }
  const double begin_s = record.readings.front().t_s, good_s = record.readings.back().t_s;
  fs::remove_all(root_ / "intel-rapl:0");
  const auto failed = meter->Read();
  ASSERT_FALSE(failed.ok());
  record.faults.push_back({NowSeconds(), failed.error()});
  const auto energy = EnergyWithin(record, {begin_s, good_s});
  ASSERT_TRUE(energy.ok()) << energy.error();
  EXPECT_NEAR(energy.value().energy_j, 0.02, 1e-9) << "from the first tick to the third";
  EXPECT_EQ(EnergyWithin(record, {begin_s, NowSeconds()}).error(),
            "the meter failed during the measurement: " + (root_ / "intel-rapl:0/energy_uj").string() +
                " cannot be read (No such file or directory)");
}

}  // namespace
}  // namespace assay::bench
