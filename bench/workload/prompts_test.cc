// SPDX-License-Identifier: Apache-2.0
#include "bench/workload/prompts.h"

#include <gtest/gtest.h>

#include <set>

#include "runtime/core/error.h"

namespace assay::bench {
namespace {

TEST(Prompts, AreTheSameOnEveryMachine) {
  // Fixed by the standard's mt19937_64 and seed_seq: a change of these would make old results incomparable.
  const std::vector<int32_t> expected = {24072, 20803, 44158, 35726, 24427, 5483};
  EXPECT_EQ(Prompts(42, 49152, {0, 1, 2}).Prompt(0, 6), expected);
}

TEST(Prompts, DependOnSeedAndIndexOnly) {
  const Prompts prompts(7, 1000, {}), other(8, 1000, {});
  EXPECT_EQ(prompts.Prompt(3, 64), Prompts(7, 1000, {}).Prompt(3, 64));
  EXPECT_NE(prompts.Prompt(3, 64), prompts.Prompt(4, 64));
  EXPECT_NE(prompts.Prompt(3, 64), other.Prompt(3, 64));
  const auto longer = prompts.Prompt(3, 100);
  EXPECT_EQ(prompts.Prompt(3, 64), std::vector<int32_t>(longer.begin(), longer.begin() + 64));
  EXPECT_NE(prompts.Prompt(1, 1), prompts.Prompt(1LL << 32, 1)) << "the high half of the index must count";
}

TEST(Prompts, DrawEveryIdButTheSpecialOnes) {
  const auto prompt = Prompts(1, 10, {3, 9, 0, 3, -5, 77}).Prompt(0, 2000);
  EXPECT_EQ(std::set<int32_t>(prompt.begin(), prompt.end()), (std::set<int32_t>{1, 2, 4, 5, 6, 7, 8}));
}

TEST(Prompts, RefuseAnEmptyVocabulary) {
  EXPECT_THROW(Prompts(1, 0, {}), Error);
  EXPECT_THROW(Prompts(1, 2, {0, 1}), Error);
}

}  // namespace
}  // namespace assay::bench
