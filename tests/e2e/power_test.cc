// SPDX-License-Identifier: Apache-2.0
// Power from the meter to the result file: vendors' command lines (a script that prints what they print), a plug-in's
// telemetry, a driver library, and meters that fail in the middle of a run.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <memory>

#include "tests/e2e/program.h"

namespace assay::e2e {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

const std::string kModel = (fs::path(ASSAY_SOURCE_DIR) / "tests/data/checkpoints/smollm2-sharded").string();

// On one thread, so that several runs fit the machine.
std::vector<std::string> Bench(const std::string& out, const std::vector<std::string>& options) {
  std::vector<std::string> args{"bench",     "--model", kModel,       "--isl", "24",    "--osl", "8",
                                "--threads", "1",       "--requests", "1",     "--out", out,     "--json"};
  args.insert(args.end(), options.begin(), options.end());
  return args;
}

// A folder on PATH in which `tool` is the script that prints as it does.
class FakeTool {
 public:
  explicit FakeTool(const std::string& tool) {
    fs::create_symlink(fs::path(ASSAY_SOURCE_DIR) / "tests/e2e/fake_smi.sh", folder_.path() / tool);
  }
  Environment With(Environment environment) const {
    environment["PATH"] = folder_.path().string() + ":" + std::getenv("PATH");
    environment["FAKE_LOG"] = (folder_.path() / "log").string();
    return environment;
  }

 private:
  TemporaryFolder folder_;
};

// One `assay bench --power cmd:TOOL` under way.
struct ToolRun {
  // Long enough for four readings.
  ToolRun(const std::string& name, const Environment& environment)
      : tool(name),
        program(Bench(out.path().string(), {"--power", "cmd:" + name, "--trials", "1", "--power-seconds", "2.6"}),
                tool.With(environment)) {}
  FakeTool tool;
  TemporaryFolder out;
  Program program;
};

Json ResultOf(Program* program) {
  const Outcome run = program->Wait(/*limit_s=*/240);
  EXPECT_EQ(run.exit_code, 0) << run.err;
  return ParseOne(run.out);
}

bool Mentions(const Json& list, const std::string& text) {
  return list.dump().find(text) != std::string::npos;
}

// One tool for each form of output; Command.ReadsEveryToolOfTheTable knows them all.
TEST(Power, AVendorsCommandLineMetersAWholeRun) {
  const std::vector<std::string> tools = {"nvidia-smi", "npu-smi", "hy-smi", "rocm-smi"};
  std::vector<std::unique_ptr<ToolRun>> runs;
  for (size_t i = 0; i < tools.size(); ++i) {
    // The power swings from call to call: between any two, the trapezoid rule gives the middle.
    runs.push_back(std::make_unique<ToolRun>(
        tools[i], Environment{{"FAKE_WATTS", std::to_string(100 + 10 * i)}, {"FAKE_SWING", "20"}}));
  }
  for (size_t i = 0; i < tools.size(); ++i) {
    SCOPED_TRACE(tools[i]);
    const Json result = ResultOf(&runs[i]->program);
    const Json& power = result.at("power");
    ASSERT_EQ(power.at("grade"), "D") << power.dump(1);
    EXPECT_EQ(power.at("scope"), "board");
    EXPECT_NEAR(power.at("mean_w").get<double>(), 100.0 + 10.0 * static_cast<double>(i), 1e-6);
    EXPECT_NEAR(power.at("peak_w").get<double>(), 120.0 + 10.0 * static_cast<double>(i), 1e-6);
    EXPECT_NEAR(power.at("energy_j").get<double>(),
                power.at("mean_w").get<double>() * power.at("metered_s").get<double>(), 1e-6);
    EXPECT_GT(power.at("metered_s").get<double>(), 1);
    EXPECT_GT(power.at("j_per_output_token").get<double>(), 0);
    EXPECT_TRUE(Mentions(power.at("notes"), "slow")) << power.dump(1);
    // At rest, a second and a half may hold a single reading on a busy machine; then it is unknown, and said to be.
    if (power.at("idle_w").is_null()) {
      EXPECT_TRUE(Mentions(power.at("notes"), "at rest is unknown")) << power.dump(1);
    } else {
      EXPECT_NEAR(power.at("idle_w").get<double>(), power.at("mean_w").get<double>(), 1e-6);
    }
  }
}

TEST(Power, AMeterThatFailsLosesTheEnergyAndNotTheSpeed) {
  // No answer, an error, no number; Command.AFaultIsOneReadingNotMore knows more.
  const std::pair<const char*, const char*> faults[] = {
      {"hang", "killed"}, {"exit", "driver is not loaded"}, {"nan", ""}};
  std::vector<std::unique_ptr<ToolRun>> runs;
  for (const auto& [fault, words] : faults) {
    // From the twelfth call on, which is before the trials.
    runs.push_back(std::make_unique<ToolRun>("npu-smi", Environment{{"FAKE_FAULT", fault}, {"FAKE_FAULT_AT", "12"}}));
  }
  for (size_t i = 0; i < runs.size(); ++i) {
    SCOPED_TRACE(faults[i].first);
    const Json result = ResultOf(&runs[i]->program);
    EXPECT_EQ(result.at("status"), "complete");
    EXPECT_GT(result.at("metrics").at("decode_tps").at("value").get<double>(), 0);
    EXPECT_EQ(result.at("power").at("grade"), "none");
    for (const char* figure : {"mean_w", "energy_j", "j_per_output_token", "output_tps_per_w", "idle_w"}) {
      EXPECT_TRUE(result.at("power").at(figure).is_null()) << figure;
    }
    EXPECT_TRUE(Mentions(result.at("power").at("notes"), faults[i].second)) << result.at("power").dump(1);
    EXPECT_TRUE(Mentions(result.at("warnings"), "the energy is not valid")) << result.at("warnings").dump(1);
  }
}

TEST(Power, ABackendsTelemetryIsAMeterAndIsCrossChecked) {
  const TemporaryFolder out;
  const std::vector<std::string> args =
      Bench(out.path().string(), {"--device", ASSAY_SCRIPTED_BACKEND, "--power-seconds", "5.5", "--trials", "1"});
  Program good(args, Environment{{"SCRIPTED_WATTS", "80"}});
  Program bad(args, Environment{{"SCRIPTED_WATTS", "80"}, {"SCRIPTED_CROSS", "1.1"}});
  const Json power = ResultOf(&good).at("power");
  EXPECT_EQ(power.at("grade"), "B") << power.dump(1);
  EXPECT_NEAR(power.at("mean_w").get<double>(), 80, 0.8);
  EXPECT_NEAR(power.at("cross_check").get<double>(), 1, 0.02);
  EXPECT_NEAR(power.at("energy_j").get<double>(), 80 * power.at("metered_s").get<double>(), 1e-3 + 0.8 * 6);
  EXPECT_NEAR(power.at("prefill").at("mean_w").at("value").get<double>(), 80, 1.6);
  EXPECT_NEAR(power.at("decode").at("mean_w").at("value").get<double>(), 80, 1.6);
  EXPECT_NEAR(power.at("net_j_per_output_token").get<double>() / power.at("j_per_output_token").get<double>(), 0, 0.03)
      << "at rest it draws the same";
  EXPECT_EQ(power.at("mean_clock_mhz"), 2000);
  EXPECT_EQ(power.at("throttled_share"), 0);

  const Json refused = ResultOf(&bad);
  EXPECT_EQ(refused.at("power").at("grade"), "none");
  EXPECT_TRUE(refused.at("power").at("energy_j").is_null());
  EXPECT_NEAR(refused.at("power").at("cross_check").get<double>(), 1.1, 0.03);
  EXPECT_TRUE(Mentions(refused.at("warnings"), "more than 5 % apart"));
  EXPECT_GT(refused.at("metrics").at("decode_tps").at("value").get<double>(), 0);
}

TEST(Power, TheCommandShowsWhatAMeterReads) {
  const FakeTool tool("mx-smi");
  const Outcome run =
      RunAssay({"power", "--meter", "cmd:mx-smi", "--seconds", "2.5", "--json"}, tool.With({{"FAKE_WATTS", "123"}}));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const Json power = ParseOne(run.out);
  EXPECT_NEAR(power.at("mean_w").get<double>(), 123, 1e-9);
  EXPECT_EQ(power.at("grade"), "D");
  EXPECT_GE(power.at("readings").get<int>(), 3);

  const Outcome nvml =
      RunAssay({"power", "--meter", "nvml", "--seconds", "1"}, Environment{{"LD_LIBRARY_PATH", ASSAY_FAKE_NVML_DIR}});
  ASSERT_EQ(nvml.exit_code, 0) << nvml.err;
  EXPECT_NE(nvml.out.find("nvml: energy counter"), std::string::npos) << nvml.out;
  EXPECT_NE(nvml.out.find("cross-check"), std::string::npos) << nvml.out;

  const Outcome none = RunAssay({"power", "--meter", "cmd:no-such-tool"});
  EXPECT_EQ(none.exit_code, 2);
  const Outcome wrong = RunAssay({"power", "--meter", "thermometer"});
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_NE(wrong.err.find("there is no such meter; there are auto"), std::string::npos) << wrong.err;
}

}  // namespace
}  // namespace assay::e2e
