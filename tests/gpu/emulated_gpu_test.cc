// SPDX-License-Identifier: Apache-2.0
// The GPU backend on an emulated GPU, through all conformance cases: every kernel, the adapter, recorded plans.
#include <gtest/gtest.h>

#include <set>

#include "bench/conform/case_text.h"
#include "bench/conform/conform.h"

namespace assay::bench {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr int64_t kEvery = 127;  // a prime, so that the sample meets all combinations
constexpr int kWarps[] = {32};   // what is built (CMakeLists.txt)
#else
constexpr int kWarps[] = {32, 64, 128};
constexpr int64_t kEvery = 29;
#endif

std::shared_ptr<Device> OpenEmulated(int warp) {
  const DeviceChoice choice =
      ChooseDevice(std::string(ASSAY_EMULATED_GPUS) + "/libassay-emulated-gpu" + std::to_string(warp) + ".so");
  return Device::Open(choice.backend, choice.index, 0);
}

class EmulatedGpuConforms : public testing::TestWithParam<std::tuple<std::string, int>> {};

TEST_P(EmulatedGpuConforms, AllCases) {
  const auto& [op, warp] = GetParam();
  ConformOptions options;
  options.filter = "^" + op + " ";
  // Some have hundreds or thousands of combinations, and an emulated thread is slow.
  const std::set<std::string> many = {"attn_paged", "linear", "kv_write_paged", "kv_block_copy",
                                      "qk_norm_rope_kv_write"};
  if (many.contains(op)) options.every = kEvery;
  const ConformReport report = RunConformance(OpenEmulated(warp), options, {});
  EXPECT_GT(report.Count(CaseStatus::kPassed), 0);
  for (const CaseReport& c : report.cases) {
    EXPECT_NE(c.status, CaseStatus::kFailed) << c.where << " " << c.text << ": " << c.detail;
  }
}

std::vector<std::string> Ops() {
  std::vector<std::string> ops;
  for (const CaseFile& file : ConformanceCases()) ops.push_back(file.name);
  return ops;
}

INSTANTIATE_TEST_SUITE_P(Warps, EmulatedGpuConforms,
                         testing::Combine(testing::ValuesIn(Ops()), testing::ValuesIn(kWarps)), [](const auto& info) {
                           return std::get<0>(info.param) + "_" + std::to_string(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace assay::bench
