// SPDX-License-Identifier: Apache-2.0
// A model over several ranks: processes that mpirun starts, and devices of one process.
#include <gtest/gtest.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <set>
#include <thread>

#include "tests/e2e/program.h"

namespace assay::e2e {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int kLimitS = 120;

std::string Tiny(const std::string& name) {
  return (fs::path(ASSAY_SOURCE_DIR) / "tests/data/checkpoints" / name).string();
}

class Ranks : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = WhyNoRanks(); !why.empty()) GTEST_SKIP() << why;
  }

  std::string Ids(const std::string& json = "[5, 6, 7, 8, 9, 10, 11, 12]") const {
    return folder_.Write("ids.json", json);
  }

  TemporaryFolder folder_;
};

Outcome RunRanks(int ranks, std::vector<std::string> args) {
  args.insert(args.end(), {"--tp", std::to_string(ranks), "--device", "cpu"});
  return Program::OnRanks(ranks, args).Wait(kLimitS);
}

// What a command prints as JSON, on one rank and on several.
struct Pair {
  Json one, several;
};
Pair Both(int ranks, const std::vector<std::string>& args) {
  const Outcome one = RunAssay(args), several = RunRanks(ranks, args);
  EXPECT_EQ(one.exit_code, 0) << one.err;
  EXPECT_EQ(several.exit_code, 0) << several.err;
  return {ParseOne(one.out), ParseOne(several.out)};
}

void ExpectSameScores(const Pair& scores, double tolerance) {
  const auto one = scores.one.at("logprobs").get<std::vector<double>>();
  const auto several = scores.several.at("logprobs").get<std::vector<double>>();
  ASSERT_EQ(several.size(), one.size());
  for (size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(several[i], one[i], tolerance) << "token " << i + 1;
}

TEST_F(Ranks, TinyModelsGiveTheSameTokensAndScores) {
  // Biases; windows and KV heads of their own; one KV head for both ranks, tied; blocks of 32 from a file.
  for (const char* name : {"llama-bias", "mistral-window", "qwen3-tied", "gguf-llama-q4_0.gguf"}) {
    SCOPED_TRACE(name);
    const std::string ids = Ids();
    const Pair texts =
        Both(2, {"generate", "--model", Tiny(name), "--token-ids", ids, "-n", "24", "--dtype", "f32", "--json"});
    EXPECT_EQ(texts.several.at("token_ids"), texts.one.at("token_ids"));
    ExpectSameScores(Both(2, {"score", "--model", Tiny(name), "--tokens", ids, "--dtype", "f32", "--json"}), 1e-4);
  }
}

TEST_F(Ranks, FourOfThemOnTwoKvHeads) {
  const Pair texts = Both(
      4, {"generate", "--model", Tiny("llama-bias"), "--token-ids", Ids(), "-n", "12", "--dtype", "f32", "--json"});
  EXPECT_EQ(texts.several.at("token_ids"), texts.one.at("token_ids"));
}

TEST_F(Ranks, ARealModelGivesTheSameTokensAndScores) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "sanitized, a real model takes minutes, on the same paths as the tiny ones";
#endif
  const char* home = std::getenv("HOME");
  const char* given = std::getenv("ASSAY_MODEL");
  const std::string model =
      given && *given ? given : std::string(home ? home : "") + "/.cache/assay/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!fs::exists(model)) GTEST_SKIP() << "no real model at " << model << ": `./dev bench` fetches it";
  const Json oracle = ParseOne(ReadFile(fs::path(ASSAY_SOURCE_DIR) / "tests/e2e/smollm2_oracle.json"));
  const Pair texts = Both(2, {"generate", "--model", model, "--token-ids", Ids(oracle.at("prompt").dump()), "-n", "16",
                              "--dtype", "f32", "--json"});
  EXPECT_EQ(texts.several.at("token_ids"), texts.one.at("token_ids"));
  ExpectSameScores(
      Both(2, {"score", "--model", model, "--tokens", Ids(oracle.at("ids").dump()), "--dtype", "f32", "--json"}), 1e-4);
}

TEST_F(Ranks, BenchCountsThem) {
  const Outcome run = RunRanks(2, {"bench", "--model", Tiny("llama-bias"), "--isl", "16", "--osl", "8", "--trials", "2",
                                   "--power", "none", "--threads", "1", "--out", folder_.path().string(), "--json"});
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const Json result = ParseOne(run.out);
  EXPECT_EQ(result.at("device").at("count"), 2);
  EXPECT_EQ(result.at("device").at("threads"), 2);
  EXPECT_EQ(result.at("accuracy").at("verdict"), "passed");
  EXPECT_GT(result.at("limits").at("bytes_per_s").get<double>(), 0);
  std::set<std::string> ops;
  for (const Json& op : result.at("ops")) ops.insert(op.at("op"));
  EXPECT_TRUE(ops.count("all_reduce") && ops.count("all_gather"));
  EXPECT_EQ(folder_.Files(), 4u) << "one rank writes: the result, its samples, two pictures";
}

TEST_F(Ranks, AWrongInputIsOneLineOfOneRank) {
  const std::vector<std::vector<std::string>> commands = {
      {"generate", "--model", Tiny("llama-bias"), "--token-ids", "/nonexistent.json"},
      {"generate", "--model", "/nonexistent", "--token-ids", Ids()},
      {"score", "--model", Tiny("smollm2-sharded"), "--tokens", Ids()}};  // 3 heads
  for (const auto& command : commands) {
    const Outcome run = RunRanks(2, command);
    EXPECT_FALSE(run.timed_out);
    EXPECT_EQ(run.exit_code, 2) << run.err;
    EXPECT_EQ(run.err.find("assay: "), run.err.rfind("assay: ")) << run.err;
    EXPECT_EQ(run.err.find("MPI_ABORT"), std::string::npos) << "ends in order: " << run.err;
  }
}

TEST_F(Ranks, TheirNumberIsThatOfTheOption) {
  const Outcome run = Program::OnRanks(2, {"score", "--model", Tiny("llama-bias"), "--tokens", Ids()}).Wait(kLimitS);
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_NE(run.err.find("give --tp 2"), std::string::npos) << run.err;
}

// Neither the leader nor a follower leaves the others waiting.
TEST_F(Ranks, OneThatIsKilledEndsAll) {
  const auto start = [this] {
    return Program::OnRanks(
        2, {"bench", "--model", Tiny("llama-bias"), "--isl", "16", "--osl", "64", "--trials", "100000", "--power",
            "none", "--threads", "1", "--tp", "2", "--device", "cpu", "--out", folder_.path().string()});
  };
  Program programs[] = {start(), start()};
  std::this_thread::sleep_for(std::chrono::seconds(6));  // they measure their limits, or warm up
  for (const int rank : {0, 1}) {
    ASSERT_TRUE(programs[rank].SignalRank(rank, SIGKILL));
    const Outcome run = programs[rank].Wait(/*limit_s=*/30);
    EXPECT_FALSE(run.timed_out) << "rank " << rank;
    EXPECT_NE(run.exit_code, 0);
    EXPECT_NE(run.err.find("signal 9"), std::string::npos) << run.err;
  }
}

class RanksOfOneProcess : public testing::Test {
 protected:
  // On the scripted plug-in with two devices.
  Outcome Generate(int ranks, Environment environment = {}) {
    environment["SCRIPTED_DEVICES"] = "2";
    const std::string ids = folder_.Write("ids.json", "[5, 6, 7, 8]");
    return RunAssay({"generate", "--model", Tiny("llama-bias"), "--token-ids", ids, "-n", "24", "--dtype", "f32",
                     "--device", ASSAY_SCRIPTED_BACKEND, "--threads", "1", "--tp", std::to_string(ranks)},
                    environment);
  }
  TemporaryFolder folder_;
};

TEST_F(RanksOfOneProcess, AreDevicesInARow) {
  const Outcome one = Generate(1), two = Generate(2);
  ASSERT_EQ(one.exit_code, 0) << one.err;
  ASSERT_EQ(two.exit_code, 0) << two.err;
  EXPECT_EQ(two.out, one.out);
  const Outcome three = Generate(3);
  EXPECT_EQ(three.exit_code, 2);
  EXPECT_NE(three.err.find("needs 3 devices from scripted:0 on"), std::string::npos) << three.err;
}

TEST_F(RanksOfOneProcess, UseTheDevicesOwnCollectives) {
  const Outcome one = Generate(1), two = Generate(2, {{"SCRIPTED_COMM", "1"}});
  ASSERT_EQ(two.exit_code, 0) << two.err;
  EXPECT_EQ(two.out, one.out);
}

TEST_F(RanksOfOneProcess, EndWithTheOneThatFails) {
  for (const char* dead : {"0", "1"}) {
    const Outcome run = Generate(2, {{"SCRIPTED_DEAD", dead}});
    EXPECT_FALSE(run.timed_out);
    EXPECT_EQ(run.exit_code, 2);
    EXPECT_NE(run.err.find("scripted:" + std::string(dead) + " fell off the bus"), std::string::npos) << run.err;
  }
}

TEST_F(RanksOfOneProcess, NeedMoreThanACpu) {
  const Outcome run =
      RunAssay({"score", "--model", Tiny("llama-bias"), "--tokens", "x", "--device", "cpu", "--tp", "2"});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_NE(run.err.find("mpirun -n 2"), std::string::npos) << run.err;
}

}  // namespace
}  // namespace assay::e2e
