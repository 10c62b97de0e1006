// SPDX-License-Identifier: Apache-2.0
// The program on the GPU backend, which runs here on an emulated GPU (tests/gpu): whole models against what Hugging
// Face transformers gave, with steps scheduled ahead and recorded as graphs; and what a user sees of a failing card.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/e2e/program.h"

namespace assay::e2e {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

const fs::path kCheckpoints = fs::path(ASSAY_SOURCE_DIR) / "tests/data/checkpoints";
const std::string kGpu = ASSAY_EMULATED_GPU;

class EmulatedGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (kGpu.empty()) GTEST_SKIP() << "the emulated GPU is not built under the thread sanitizer";
  }
  std::vector<std::string> Generate(const std::string& name, const std::string& n, const std::string& dtype) {
    const Json golden = ParseOne(ReadFile(kCheckpoints / (name + ".golden.json")));
    const std::string ids = folder_.Write("prompt.json", golden.at("prompt").dump());
    return {"generate",
            "--model",
            (kCheckpoints / golden.at("model").get<std::string>()).string(),
            "--token-ids",
            ids,
            "-n",
            n,
            "--dtype",
            dtype,
            "--json",
            "--device",
            kGpu};
  }
  void ExpectFails(const std::vector<std::string>& args, const Environment& environment, const std::string& words) {
    const Outcome run = RunAssay(args, environment);
    EXPECT_EQ(run.exit_code, 2) << run.err;
    EXPECT_EQ(run.out, "");
    EXPECT_NE(run.err.find(words), std::string::npos) << run.err << "does not say " << words;
  }

  TemporaryFolder folder_;
};

class EmulatedGpuGolden : public EmulatedGpu, public testing::WithParamInterface<std::string> {};

TEST_P(EmulatedGpuGolden, GreedyTokens) {
  const Json golden = ParseOne(ReadFile(kCheckpoints / (GetParam() + ".golden.json")));
  const auto expected = golden.at("greedy").get<std::vector<int>>();
  const Outcome run = RunAssay(Generate(GetParam(), std::to_string(expected.size()), "f32"), 240);
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(ParseOne(run.out).at("token_ids").get<std::vector<int>>(), expected);
}

double RootMeanSquare(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double squares = 0;
  for (size_t i = 0; i < a.size(); ++i) squares += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(squares / static_cast<double>(a.size()));
}

TEST_P(EmulatedGpuGolden, LogProbabilitiesIn16Bits) {
  const Json golden = ParseOne(ReadFile(kCheckpoints / (GetParam() + ".golden.json")));
  const std::string ids = folder_.Write("ids.json", golden.at("ids").dump());
  const std::string model = (kCheckpoints / golden.at("model").get<std::string>()).string();
  const Outcome run = RunAssay({"score", "--model", model, "--tokens", ids, "--json", "--device", kGpu}, 240);
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const auto expected = golden.at("logprobs").get<std::vector<double>>();
  const auto actual = ParseOne(run.out).at("logprobs").get<std::vector<double>>();
  // bf16 weights alone, with f32 activations, move these models' log-probabilities by 0.02 to 0.05.
  EXPECT_LT(RootMeanSquare(actual, expected), 0.15);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, EmulatedGpuGolden,
                         testing::Values("llama3-gqa-tied", "qwen3", "mistral-window", "gemma3", "gguf-llama-q4_1"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
                           return name;
                         });

// e4m3 has four bits less than bf16, so its errors are 16 times as large (measured: 19 times; it has subnormals, too).
TEST_F(EmulatedGpu, AnFp8CacheIsOffByItsRounding) {
  const Json golden = ParseOne(ReadFile(kCheckpoints / "llama3-gqa-tied.golden.json"));
  const std::string ids = folder_.Write("ids.json", golden.at("ids").dump());
  const auto error = [&](const std::string& kv) {
    const Outcome run = RunAssay({"score", "--model", (kCheckpoints / "llama3-gqa-tied").string(), "--tokens", ids,
                                  "--json", "--dtype", "f32", "--kv-dtype", kv, "--device", kGpu},
                                 240);
    EXPECT_EQ(run.exit_code, 0) << run.err;
    return RootMeanSquare(ParseOne(run.out).at("logprobs").get<std::vector<double>>(),
                          golden.at("logprobs").get<std::vector<double>>());
  };
  const double ratio = error("fp8") / error("bf16");
  EXPECT_GT(ratio, 8);
  EXPECT_LT(ratio, 32);
}

TEST_F(EmulatedGpu, TooLittleMemoryIsNamedWithWhatIsMissing) {
  ExpectFails(Generate("qwen3", "4", "f32"), {{"ASSAY_EMULATED_MEMORY", "200000"}}, "are missing");
}

// The error comes back from whatever the host waits for next; nothing hangs, nothing is printed as a result.
TEST_F(EmulatedGpu, ALostDeviceEndsTheRunWithItsCode) {
  ExpectFails(Generate("qwen3", "64", "f32"), {{"ASSAY_EMULATED_FAULT", "150:719"}}, "error 719");
}

TEST_F(EmulatedGpu, FailingMemoryIsNamed) {
  ExpectFails(Generate("qwen3", "4", "f32"), {{"ASSAY_EMULATED_FAULT", "3:214"}}, "the memory of this card is failing");
}

}  // namespace
}  // namespace assay::e2e
