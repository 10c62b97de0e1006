// SPDX-License-Identifier: Apache-2.0
// Every committed checkpoint gives what Hugging Face transformers gave (tests/data/make_checkpoints.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/e2e/program.h"

namespace assay::e2e {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

const fs::path kCheckpoints = fs::path(ASSAY_SOURCE_DIR) / "tests/data/checkpoints";

std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kCheckpoints)) {
    const std::string file = entry.path().filename().string(), end = ".golden.json";
    if (file.ends_with(end)) names.push_back(file.substr(0, file.size() - end.size()));
  }
  std::sort(names.begin(), names.end());
  return names;
}

class Golden : public testing::TestWithParam<std::string> {
 protected:
  Golden() : golden_(ParseOne(ReadFile(kCheckpoints / (GetParam() + ".golden.json")))) {
    model_ = (kCheckpoints / golden_.at("model").get<std::string>()).string();
  }

  TemporaryFolder folder_;
  Json golden_;
  std::string model_;
};

TEST_P(Golden, EveryLogProbability) {
  const std::string ids = folder_.Write("ids.json", golden_.at("ids").dump());
  const Outcome run = RunAssay({"score", "--model", model_, "--tokens", ids, "--json", "--dtype", "f32"});
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const auto expected = golden_.at("logprobs").get<std::vector<double>>();
  const Json score = ParseOne(run.out);
  const auto actual = score.at("logprobs").get<std::vector<double>>();
  ASSERT_EQ(actual.size(), expected.size());
  double sum = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(actual[i], expected[i], 1e-3) << "token " << i + 1;
    sum += expected[i];
  }
  const double mean = sum / static_cast<double>(expected.size());
  EXPECT_NEAR(score.at("mean_logprob").get<double>(), mean, 1e-3);
  EXPECT_NEAR(score.at("perplexity").get<double>() / std::exp(-mean), 1, 1e-3);
}

TEST_P(Golden, GreedyTokens) {
  const auto expected = golden_.at("greedy").get<std::vector<int>>();
  const std::string ids = folder_.Write("prompt.json", golden_.at("prompt").dump());
  const Outcome run = RunAssay({"generate", "--model", model_, "--token-ids", ids, "-n",
                                std::to_string(expected.size()), "--dtype", "f32", "--json"});
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(ParseOne(run.out).at("token_ids").get<std::vector<int>>(), expected);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, Golden, testing::ValuesIn(Names()), [](const auto& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
});

}  // namespace
}  // namespace assay::e2e
