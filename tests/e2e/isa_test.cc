// SPDX-License-Identifier: Apache-2.0
// Each instruction set below the machine's own conforms: the kernels that --isa chooses, and that other machines run.
#include <gtest/gtest.h>

#include <string>

#include "tests/e2e/program.h"

namespace assay::e2e {
namespace {

class Isa : public testing::TestWithParam<std::string> {};

TEST_P(Isa, Conforms) {
  const Outcome run = RunAssay({"conform", "--isa", GetParam(), "--every", "10", "--json"});
  if (run.exit_code == 2 && run.err.find("which this machine lacks") != std::string::npos) GTEST_SKIP() << run.err;
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const auto report = ParseOne(run.out);
  EXPECT_EQ(report["device"]["id"], "cpu");
  EXPECT_EQ(report["failed"], 0) << run.err;
  EXPECT_GT(report["passed"].get<int64_t>(), 200);
}

INSTANTIATE_TEST_SUITE_P(Levels, Isa, testing::Values("generic", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace assay::e2e
