// SPDX-License-Identifier: Apache-2.0
#include "bench/report/language.h"

#include <gtest/gtest.h>

namespace assay::bench {
namespace {

TEST(Language, TranslatesPhrasesAndLeavesNamesAlone) {
  EXPECT_STREQ(Say(Language::kEnglish, "loss"), "loss");
  EXPECT_STREQ(Say(Language::kChinese, "loss"), "损失");
  EXPECT_STREQ(Say(Language::kChinese, "H100 SXM"), "H100 SXM");
  EXPECT_STREQ(Say(Language::kChinese, ""), "");
}

}  // namespace
}  // namespace assay::bench
