// SPDX-License-Identifier: Apache-2.0
// `bench` as users and scripts meet it: the document it prints and writes, and Ctrl-C.
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "tests/e2e/program.h"

namespace assay::e2e {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

const std::string kModel = (fs::path(ASSAY_SOURCE_DIR) / "tests/data/checkpoints/smollm2-sharded").string();

// The result files of a folder (DIR/ID.json; the samples lie beside it as DIR/ID.samples.jsonl).
std::vector<fs::path> Results(const fs::path& dir) {
  std::vector<fs::path> found;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(dir, none)) {
    if (entry.path().extension() == ".json") found.push_back(entry.path());
  }
  return found;
}

std::vector<std::string> Bench(const fs::path& out, const std::vector<std::string>& options) {
  std::vector<std::string> args{"bench", "--model", kModel, "--isl", "24", "--osl", "8", "--out", out.string()};
  args.insert(args.end(), options.begin(), options.end());
  return args;
}

TEST(Bench, PrintsATableOrOneDocumentAndWritesTheSame) {
  const std::string scenarios[] = {"single-stream", "offline"};
  const TemporaryFolder folders[2];
  const auto bench = [&](int i) {
    return Bench(folders[i].path(),
                 {"--scenario", scenarios[i], "--requests", "3", "--threads", "1", "--power", "const:50", "--json"});
  };
  const TemporaryFolder table_folder;
  Program programs[] = {Program(bench(0)), Program(bench(1))};
  Program table_program(Bench(table_folder.path(), {"--requests", "2", "--threads", "1"}));
  for (int i = 0; i < 2; ++i) {
    const std::string& scenario = scenarios[i];
    const TemporaryFolder& folder = folders[i];
    SCOPED_TRACE(scenario);
    const Outcome run = programs[i].Wait(/*limit_s=*/240);
    ASSERT_EQ(run.exit_code, 0) << run.err;
    const Json printed = ParseOne(run.out);
    ASSERT_EQ(Results(folder.path()).size(), 1u);
    const fs::path file = Results(folder.path())[0];
    EXPECT_EQ(ParseOne(ReadFile(file)), printed);
    EXPECT_TRUE(fs::exists(fs::path(file).replace_extension(".samples.jsonl")));
    const bool claims = !printed.at("gap").at("gaps").empty();
    EXPECT_TRUE(fs::exists(fs::path(file).replace_extension(".roofline.svg")));
    EXPECT_EQ(fs::exists(fs::path(file).replace_extension(".gap-output.svg")), claims);
    EXPECT_EQ(folder.Files(), claims ? 4u : 3u) << "something temporary was left";

    EXPECT_EQ(printed.at("schema"), "assay.result/1");
    EXPECT_EQ(printed.at("status"), "complete");
    EXPECT_EQ(printed.at("workload").at("scenario"), scenario);
    EXPECT_EQ(printed.at("workload").at("achieved_isl"), 24);
    EXPECT_EQ(printed.at("workload").at("achieved_osl"), 8);
    EXPECT_GE(printed.at("trials").size(), 5u);
    EXPECT_EQ(printed.at("model").at("weights"), "file");
    EXPECT_EQ(printed.at("accuracy").at("verdict"), "passed");
    EXPECT_GT(printed.at("limits").at("bytes_per_s").get<double>(), 0);
    const Json& rate = printed.at("metrics").at("output_tps");
    EXPECT_GT(rate.at("value").get<double>(), 0);
    EXPECT_LE(rate.at("ci_low").get<double>(), rate.at("value").get<double>());
    EXPECT_GE(rate.at("ci_high").get<double>(), rate.at("value").get<double>());
    EXPECT_EQ(printed.at("power").at("grade"), "F") << "a constant is an assumption";
  }
  const Outcome table = table_program.Wait(/*limit_s=*/240);
  ASSERT_EQ(table.exit_code, 0) << table.err;
  EXPECT_NE(table.out.find("tok/s"), std::string::npos) << table.out;
  EXPECT_NE(table.out.find(Results(table_folder.path()).at(0).filename().string()), std::string::npos)
      << "the table does not say where the result is:\n"
      << table.out;
}

// Ctrl-C at a later and later moment, until some trials had finished: they are kept, whatever was cut off is not.
TEST(Bench, CtrlCKeepsFinishedTrials) {
  for (int delay_ms = 6000; delay_ms <= 96000; delay_ms *= 2) {
    const TemporaryFolder folder;
    Program program(Bench(folder.path() / "results", {"--trials", "1000000", "--requests", "1", "--json"}));
    std::this_thread::sleep_for(std::chrono::milliseconds(delay_ms));
    program.Signal(SIGINT);
    const auto sent = std::chrono::steady_clock::now();
    const Outcome run = program.Wait(/*limit_s=*/20);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - sent;
    ASSERT_FALSE(run.timed_out) << "it went on after Ctrl-C";
    ASSERT_EQ(run.exit_code, 130) << run.err;
    RecordProperty("seconds_to_end", std::to_string(took.count()));
    const std::vector<fs::path> results = Results(folder.path() / "results");
    if (results.empty()) continue;
    const Json result = ParseOne(ReadFile(results[0]));
    EXPECT_EQ(result.at("status"), "interrupted");
    if (result.at("trials").empty()) continue;
    EXPECT_LT(result.at("trials").size(), 1000000u);
    EXPECT_GT(result.at("metrics").at("output_tps").at("value").get<double>(), 0);
    return;
  }
  FAIL() << "no trial finished within a minute";
}

TEST(Commands, HelpAndDevices) {
  for (const std::string command : {"devices", "bench", "generate", "score", "kernels", "conform"}) {
    const Outcome help = RunAssay({command, "--help"});
    EXPECT_EQ(help.exit_code, 0) << command;
    EXPECT_NE(help.out.find("--json"), std::string::npos) << command << ": " << help.out;
  }
  const Outcome devices = RunAssay({"devices", "--json"});
  EXPECT_EQ(devices.exit_code, 0) << devices.err;
  EXPECT_NE(ParseOne(devices.out).dump().find("cpu"), std::string::npos);
}

}  // namespace
}  // namespace assay::e2e
