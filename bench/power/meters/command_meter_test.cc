// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/command_meter.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "bench/power/meters/vendor_tools.h"

namespace assay::bench {
namespace {

namespace fs = std::filesystem;

// A folder that is first on PATH, for tools that are scripts.
class Command : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "assay_command_XXXXXX";
    folder_ = mkdtemp(name.data());
    path_ = std::getenv("PATH");
    setenv("PATH", (folder_.string() + ":" + path_).c_str(), 1);
  }
  void TearDown() override {
    setenv("PATH", path_.c_str(), 1);
    for (const char* name : {"FAKE_LOG", "FAKE_WATTS", "FAKE_FAULT", "FAKE_FAULT_AT", "FAKE_FAULT_UNTIL"})
      unsetenv(name);
    fs::remove_all(folder_);
  }

  void Script(const std::string& name, const std::string& body) const {
    fs::remove(folder_ / name);
    std::ofstream(folder_ / name) << "#!/bin/sh\n" << body << "\n";
    chmod((folder_ / name).c_str(), 0755);
  }
  // hy-smi's table, a line for each card: "0 511.0W"
  void HySmi(const std::vector<std::string>& cards) const {
    std::string body = "echo 'HCU     AvgPwr     PwrCap     Temp'\n";
    for (const std::string& card : cards) body += "echo '" + card + "'\n";
    Script("hy-smi", body);
  }
  // The fake that plays all tools.
  void Fake(const std::string& name) const {
    fs::create_symlink(fs::path(ASSAY_SOURCE_DIR) / "tests/e2e/fake_smi.sh", folder_ / name);
    setenv("FAKE_LOG", (folder_ / "log").c_str(), 1);
  }

  static std::unique_ptr<Meter> Open(const std::string& text) {
    auto meter = OpenCommandMeter(text);
    if (!meter.ok()) throw Error(meter.error());
    return std::move(meter.value());
  }
  static std::string WhyNot(const std::string& text) {
    const auto meter = OpenCommandMeter(text);
    return meter.ok() ? "it was opened" : meter.error();
  }
  static double Watts(Meter& meter) {
    const auto readings = meter.Read();
    EXPECT_TRUE(readings.ok()) << readings.error();
    return readings.ok() ? readings.value().at(0).watts.value() : -1;
  }
  static std::string Fault(Meter& meter) {
    const auto readings = meter.Read();
    return readings.ok() ? "it was read" : readings.error();
  }
  static std::string Notes(const Meter& meter) {
    std::string notes;
    for (const std::string& note : meter.info().notes) notes += note + "\n";
    return notes;
  }

  fs::path folder_;
  std::string path_;
};

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_F(Command, AddsUpAllCardsOrThoseThatAreNamed) {
  HySmi({"0       511.0W     800.0W     57.0C", "2       480.5W     700.0W     55.0C",
         "5       N/A        N/A        20C"});
  const auto all = Open("hy-smi");
  const double before_s = NowSeconds();
  const auto readings = all->Read();
  ASSERT_TRUE(readings.ok()) << readings.error();
  ASSERT_EQ(readings.value().size(), 1u);
  const Reading& reading = readings.value()[0];
  EXPECT_EQ(reading.watts, 991.5);
  EXPECT_EQ(reading.temperature_c, 57);
  EXPECT_FALSE(reading.energy_j || reading.clock_mhz || reading.throttled_s || reading.broken);
  const double took_s = NowSeconds() - before_s;
  EXPECT_GT(reading.t_s, before_s + 0.25 * took_s);
  EXPECT_LT(reading.t_s, before_s + 0.75 * took_s);
  EXPECT_EQ(all->info().source, "hy-smi: card 0, 2");
  EXPECT_EQ(all->info().scope, "board");
  EXPECT_EQ(all->info().limit_w, 1500);
  EXPECT_EQ(all->info().period_s, 0.5);
  EXPECT_FALSE(all->info().constant);
  EXPECT_TRUE(Has(Notes(*all), "the sum of all 2 cards that show a power")) << Notes(*all);
  EXPECT_TRUE(Has(Notes(*all), "no power is shown for it: card 5")) << Notes(*all);
  EXPECT_TRUE(Has(Notes(*all), "each reading starts hy-smi on the host")) << Notes(*all);

  const auto one = Open("hy-smi:2");
  EXPECT_EQ(Watts(*one), 480.5);
  EXPECT_EQ(one->info().source, "hy-smi: card 2");
  EXPECT_EQ(one->info().limit_w, 700);
  EXPECT_FALSE(Has(Notes(*one), "sum")) << Notes(*one);
  EXPECT_EQ(Watts(*Open("hy-smi:2,0,2")), 991.5);

  HySmi({"0       511.0W     N/A        57.0C", "2       480.5W     700.0W     55.0C"});
  EXPECT_EQ(Open("hy-smi")->info().limit_w, std::nullopt) << "a part of the limit is none";
}

TEST_F(Command, NeverGivesAPartialSum) {
  HySmi({"0       511.0W     800.0W", "2       480.5W     800.0W"});
  const auto meter = Open("hy-smi");
  HySmi({"0       511.0W     800.0W"});
  EXPECT_EQ(Fault(*meter), "hy-smi: card 2 is not in its output");
  HySmi({"0       511.0W     800.0W", "2       N/A        800.0W"});
  EXPECT_EQ(Fault(*meter), "hy-smi: card 2 shows no power");
  HySmi({"0       511.0W     800.0W", "2       0.0W       800.0W"});
  EXPECT_EQ(Fault(*meter), "hy-smi: card 2 shows 0 W, which no card draws");
  HySmi({"2       480.5W     800.0W", "0       511.0W     800.0W", "3       100.0W     800.0W"});
  EXPECT_EQ(Watts(*meter), 991.5) << "by number, not by place; a new card is not in the sum";
}

TEST_F(Command, RefusesCardsThatItCannotRead) {
  HySmi({"0       511.0W     800.0W", "2       N/A        N/A"});
  EXPECT_EQ(WhyNot("hy-smi:1").find("hy-smi: card 1 is not in its output; cards that show one: 0"), 0u);
  EXPECT_EQ(WhyNot("hy-smi:2").find("hy-smi: card 2 shows no power; cards that show one: 0"), 0u);
  EXPECT_TRUE(Has(WhyNot("hy-smi:2"), "or use another meter (ipmi, redfish:URL, wall:FILE)"));
  for (const char* cards : {"", "x", "0,", ",0", "-1", "0-3", "0 1", "99999999999"}) {
    EXPECT_TRUE(Has(WhyNot("hy-smi:" + std::string(cards)), "separated by commas, for example hy-smi:0,2")) << cards;
  }
}

TEST_F(Command, CountsTwoDevicesThatShowOneFigureOnce) {
  const auto device = [](const std::string& number, const std::string& watts) {
    return "| " + number + "     /   MLU370-X8    v1.1.6 |\n|  0%   32C        " + watts + " W/ 250 W |\n+---+\n";
  };
  const std::string header =
      "cat << END\n| Card  VF  Name       Firmware |\n| Fan   Temp      Pwr:Usage/Cap |\n|=====|\n";
  Script("cnmon", header + device("0", "106") + device("1", "106") + device("2", "90") + device("3", "91") + "END");
  const auto meter = Open("cnmon");
  EXPECT_EQ(Watts(*meter), 106 + 91);
  EXPECT_EQ(meter->info().limit_w, 500);
  EXPECT_TRUE(Has(Notes(*meter), "counted once per card")) << Notes(*meter);
  EXPECT_EQ(Watts(*Open("cnmon:1,2")), 106 + 90);
}

TEST_F(Command, AddsUpTheChipsOfACard) {
  Script("npu-smi",
         "[ \"$*\" = info ] || exit 1\ncat << END\n"
         "| NPU   Name     | Power(W)    Temp(C)   |\n| Chip           | AICore(%)   Mem(MB)   |\n|==|\n"
         "| 0     910C     | 178.5       36        |\n| 0              | 0           3416      |\n+--+\n"
         "| 0     910C     | -           41        |\n| 1              | 0           3189      |\n+--+\nEND");
  const auto meter = Open("npu-smi:0");
  const auto readings = meter->Read();
  EXPECT_EQ(readings.value().at(0).watts, 178.5);
  EXPECT_EQ(readings.value().at(0).temperature_c, 41);
  const auto two_chips = [&](const std::string& second) {
    Script("npu-smi",
           "cat << END\n| NPU   Name     | Power(W)    |\n| Chip           | AICore(%)   |\n|==|\n"
           "| 0     Two      | 60          |\n| 0              | 0           |\n+--+\n"
           "| 0     Two      | " +
               second + "          |\n| 1              | 0           |\n+--+\nEND");
  };
  two_chips("70");
  const auto two = Open("npu-smi:0");
  EXPECT_EQ(Watts(*two), 130);
  two_chips("NA");
  EXPECT_EQ(Fault(*two), "npu-smi: 1 chips show a power where 2 did at first");
}

TEST_F(Command, SaysThatA310PShowsNoPower) {
  Script(
      "npu-smi",
      "cat << END\n| NPU   Name     | Power(W)    Temp(C)   |\n|==|\n| 1     310P3    | NA          49        |\nEND");
  const std::string why = WhyNot("npu-smi");
  EXPECT_TRUE(Has(why, "a 310P does not report the power of its chips")) << why;
  EXPECT_TRUE(Has(why, "npu-smi info -t power -i NPU -c CHIP")) << why;
  EXPECT_TRUE(Has(why, "ipmi, redfish:URL, wall:FILE")) << why;
}

TEST_F(Command, FallsBackToWhatOldVersionsKnow) {
  Script("nvidia-smi",
         "case \"$*\" in *instant*) echo 'Field \"power.draw.instant\" is not a valid field to query.'; exit 2;; esac\n"
         "echo 'index, power.draw [W], clocks.sm [MHz]'; echo '0, 57.10 W, 1000 MHz'; echo '1, 50.00 W, 2000 MHz'");
  const auto meter = Open("nvidia-smi");
  const auto readings = meter->Read();
  EXPECT_EQ(readings.value().at(0).watts, 107.1);
  EXPECT_EQ(readings.value().at(0).clock_mhz, 1500);
  EXPECT_EQ(meter->info().averaging_s, 1.0);
  EXPECT_EQ(meter->info().limit_w, std::nullopt);
}

TEST_F(Command, ReadsEveryToolOfTheTable) {
  for (const char* tool : {"nvidia-smi", "npu-smi", "mx-smi", "ht-smi", "mthreads-gmi", "hy-smi", "cnmon", "ixsmi",
                           "xpu-smi", "xpu_smi", "efsmi", "brsmi", "rocm-smi", "amd-smi"}) {
    SCOPED_TRACE(tool);
    Fake(tool);
    for (const char* watts : {"100", "7.25", "1234.5"}) {
      setenv("FAKE_WATTS", watts, 1);
      const auto meter = Open(tool + std::string(":0"));
      const auto readings = meter->Read();
      ASSERT_TRUE(readings.ok()) << readings.error();
      EXPECT_EQ(readings.value().at(0).watts, std::stod(watts));
      EXPECT_EQ(readings.value().at(0).temperature_c, 41);
    }
    EXPECT_TRUE(Has(VendorToolNames(), tool));
  }
  std::ofstream(folder_ / "fake_watts") << "42\n";
  EXPECT_EQ(Watts(*Open("npu-smi")), 42);
}

TEST_F(Command, AFaultIsOneReadingNotMore) {
  struct Case {
    std::string fault, what;
  };
  const Case cases[] = {{"exit", "npu-smi ended with exit code 1: npu-smi: the driver is not loaded"},
                        {"garbage", "npu-smi: "},
                        {"nan", "npu-smi: it lists one chip (910B3), none with a power"},
                        {"zero", "npu-smi: card 0 shows 0 W, which no card draws"}};
  Fake("npu-smi");
  for (const Case& fault : cases) {
    fs::remove(folder_ / "log");
    setenv("FAKE_FAULT", fault.fault.c_str(), 1);
    setenv("FAKE_FAULT_AT", "10", 1);
    setenv("FAKE_FAULT_UNTIL", "10", 1);
    const auto meter = Open("npu-smi");
    for (int call = 2; call < 10; ++call) EXPECT_EQ(Watts(*meter), 100);
    EXPECT_EQ(Fault(*meter).substr(0, fault.what.size()), fault.what);
    EXPECT_EQ(Watts(*meter), 100);
  }
}

TEST_F(Command, AHangIsAFaultAfterASecond) {
  Fake("npu-smi");
  setenv("FAKE_FAULT", "hang", 1);
  setenv("FAKE_FAULT_AT", "2", 1);
  setenv("FAKE_FAULT_UNTIL", "2", 1);
  const auto meter = Open("npu-smi");
  const double begin_s = NowSeconds();
  EXPECT_EQ(Fault(*meter), "npu-smi did not end within 1 s and was killed");
  EXPECT_LT(NowSeconds() - begin_s, 1.5);
  EXPECT_EQ(Watts(*meter), 100);
}

TEST_F(Command, ATalkativeToolThatLeavesAChildBehindIsRead) {
  Script("hy-smi", "echo noise >&2; sleep 100 & echo 'HCU     AvgPwr'; echo '0       511.0W'");
  const double begin_s = NowSeconds();
  EXPECT_EQ(Watts(*Open("hy-smi")), 511);
  EXPECT_LT(NowSeconds() - begin_s, 2.0);
}

TEST_F(Command, SaysWhyAToolDoesNotServe) {
  Script("mx-smi", "");
  EXPECT_EQ(WhyNot("mx-smi").find("mx-smi: it printed nothing; run mx-smi by hand to see what it says"), 0u);
  Script("mx-smi", "echo no permission >&2");
  EXPECT_TRUE(Has(WhyNot("mx-smi"), "it printed nothing; it says: no permission"));
  Script("mx-smi", "exit 1");
  EXPECT_EQ(WhyNot("mx-smi").find("mx-smi ended with exit code 1; "), 0u);
  setenv("PATH", folder_.c_str(), 1);
  EXPECT_EQ(WhyNot("cnmon").find("cnmon is not on PATH: install it or add its folder to PATH"), 0u);
}

TEST_F(Command, AnyShellCommandThatPrintsWatts) {
  EXPECT_EQ(Watts(*Open("echo 123.5")), 123.5);
  EXPECT_EQ(Watts(*Open("echo 1500 mW")), 1.5);
  EXPECT_EQ(Watts(*Open("printf '0.5kW'")), 500);
  EXPECT_EQ(Watts(*Open("echo 'a 77.5 b' | cut -d' ' -f2")), 77.5);
  EXPECT_EQ(Watts(*Open("printf '\\n 98,9 W \\n\\n'")), 98.9);
  const auto meter = Open("echo 123.5");
  EXPECT_EQ(meter->info().source, "command: echo 123.5");
  EXPECT_EQ(meter->info().scope, "");
  EXPECT_TRUE(Has(Notes(*meter), "the user's word")) << Notes(*meter);
}

TEST_F(Command, AShellCommandMustPrintOneNumberOfWatts) {
  for (const char* text :
       {"echo", "echo watts", "echo 1 2", "printf '1\\n2\\n'", "echo 35C", "echo -5", "echo 0", "echo nan", "echo inf",
        "echo 1e3", "echo 5 J", "echo 1,234", "head -c 5000 /dev/urandom", "yes 1"}) {
    EXPECT_NE(WhyNot(text), "it was opened") << text;
  }
  EXPECT_EQ(WhyNot("echo 1 2")
                .find("`echo 1 2` must print one number of watts above 0 and nothing else, but it printed "
                      "\"1 2\" (tools known by name: nvidia-smi, "),
            0u);
  EXPECT_TRUE(Has(WhyNot("true"), "but it printed nothing"));
  EXPECT_TRUE(Has(WhyNot("foo-smi:0"), "`foo-smi:0` ended with exit code 127: ")) << WhyNot("foo-smi:0");
  EXPECT_TRUE(Has(WhyNot(""), "a tool or a shell command is missing"));
}

}  // namespace
}  // namespace assay::bench
