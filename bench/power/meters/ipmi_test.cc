// SPDX-License-Identifier: Apache-2.0
// OpenIpmi with an ipmitool of the test's own, which prints what a file says. The texts are those of ipmitool 1.8.19.
#include "bench/power/meters/ipmi.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace assay::bench {
namespace {

namespace fs = std::filesystem;

std::string Report(const std::string& watts, const std::string& state = "activated") {
  return "\n    Instantaneous power reading:                   " + watts +
         " Watts\n"
         "    Minimum during sampling period:                180 Watts\n"
         "    Maximum during sampling period:                410 Watts\n"
         "    Average power reading over sample period:      205 Watts\n"
         "    IPMI timestamp:                           Thu Feb 15 08:36:01 2024\n"
         "    Sampling period:                          00000005 Seconds.\n"
         "    Power reading state is:                   " +
         state + "\n\n\n";
}

class Ipmi : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const char* path = std::getenv("PATH")) path_before_ = path;
    folder_ = fs::temp_directory_path() / ("assay_ipmi_test_" + std::to_string(getpid()));
    fs::create_directory(folder_);
    fs::create_symlink("/bin/sed", folder_ / "sed");
    setenv("PATH", folder_.c_str(), 1);
  }
  void TearDown() override {
    setenv("PATH", path_before_.c_str(), 1);
    fs::remove_all(folder_);
  }

  // From now on ipmitool prints this and ends with that exit code.
  void Answer(const std::string& out, const std::string& err = "", int exit_code = 0) {
    std::ofstream(folder_ / "out") << out;
    std::ofstream(folder_ / "err") << err;
    const std::string here = folder_.string(), tool = here + "/ipmitool";
    std::ofstream(tool) << "#!/bin/sh\n[ \"$*\" = \"dcmi power reading\" ] || exit 9\n"
                        << "/bin/cat " << here << "/err >&2\n/bin/cat " << here << "/out\nexit " << exit_code << "\n";
    fs::permissions(tool, fs::perms::owner_all);
  }
  static std::string WhyNot() {
    const auto meter = OpenIpmi();
    return meter.ok() ? "it opened" : meter.error();
  }

  fs::path folder_;
  std::string path_before_;
};

testing::AssertionResult Has(const std::string& text, const std::string& piece) {
  return (text.find(piece) != std::string::npos ? testing::AssertionSuccess() : testing::AssertionFailure()) << text;
}

TEST_F(Ipmi, ReadsTheInstantaneousPower) {
  Answer(Report("230"), "IANA PEN registry open failed: No such file or directory\n");
  const auto meter = OpenIpmi();
  ASSERT_TRUE(meter.ok()) << meter.error();
  Answer(Report("1187"));
  const double before_s = NowSeconds();
  const auto readings = meter.value()->Read();
  ASSERT_TRUE(readings.ok()) << readings.error();
  ASSERT_EQ(readings.value().size(), 1u);
  const Reading& reading = readings.value()[0];
  EXPECT_DOUBLE_EQ(*reading.watts, 1187);
  EXPECT_FALSE(reading.energy_j);
  EXPECT_GT(reading.t_s, before_s);
  EXPECT_LT(reading.t_s, NowSeconds());
}

TEST_F(Ipmi, SaysWhatItCovers) {
  Answer(Report("230"));
  const auto meter = OpenIpmi();
  ASSERT_TRUE(meter.ok()) << meter.error();
  const MeterInfo& info = meter.value()->info();
  EXPECT_EQ(info.scope, "node");
  EXPECT_DOUBLE_EQ(info.period_s, 1);
  ASSERT_EQ(info.notes.size(), 2u);
  EXPECT_TRUE(Has(info.notes[0], "power supplies and fans"));
  EXPECT_TRUE(Has(info.notes[1], "a mean of 205 W in a sampling period of 5.00 s"));
}

TEST_F(Ipmi, SaysHowToMendWhatIsMissing) {
  EXPECT_TRUE(Has(WhyNot(), "install the package ipmitool"));
  Answer("",
         "IANA PEN registry open failed: No such file or directory\nCould not open device at /dev/ipmi0 or /dev/ipmi/0 "
         "or /dev/ipmidev/0: No such file or directory\n",
         1);
  EXPECT_TRUE(Has(WhyNot(), "run as root; where /dev/ipmi0 is missing"));
  Answer("", "\n    DCMI request failed because: Invalid command (c1)\n", 1);
  EXPECT_TRUE(Has(WhyNot(), "no DCMI power reading (DCMI request failed because: Invalid command (c1)); it may"));
  Answer("", "Unable to get response\n", 1);
  EXPECT_EQ(WhyNot(), "ipmitool tells no power: Unable to get response");
  Answer("");
  EXPECT_EQ(WhyNot(), "ipmitool tells no power: it printed nothing");
}

TEST_F(Ipmi, ABmcThatDoesNotMeasureIsNoMeter) {
  Answer(Report("235", "deactivated"));
  EXPECT_TRUE(Has(WhyNot(), "does not measure power now (it tells 235 W)"));
  Answer(Report("0"));
  EXPECT_TRUE(Has(WhyNot(), "does not measure power now (it tells 0 W)"));
  Answer(Report("many"));
  EXPECT_TRUE(Has(WhyNot(), "ipmitool tells no power: Instantaneous power reading:"));
}

TEST_F(Ipmi, AFailedReadingIsToldAndTheNextMayWork) {
  Answer(Report("230"));
  const auto meter = OpenIpmi();
  ASSERT_TRUE(meter.ok()) << meter.error();
  Answer("", "Unable to get response\n", 1);
  EXPECT_FALSE(meter.value()->Read().ok());
  Answer(Report("231"));
  EXPECT_TRUE(meter.value()->Read().ok());
}

}  // namespace
}  // namespace assay::bench
