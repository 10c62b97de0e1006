// SPDX-License-Identifier: Apache-2.0
#include "bench/sut/guard.h"

#include <gtest/gtest.h>

#include <cmath>

namespace assay::bench {
namespace {

// The most likely of 100 000 normal logits stands four deviations above the mean: what a device says of tokens that
// have nothing to do with the model is about that far from the reference.
TEST(Guard, Fp8InADeepModelIsNotAPassForAnything) {
  ModelShape deep;
  deep.layers = 80;
  const auto tolerance = [&](assay_dtype dtype, assay_dtype kv = ASSAY_BF16) {
    return GuardTolerance(deep, dtype, ASSAY_DTYPE_NONE, kv, 1.0);
  };
  EXPECT_LT(tolerance(ASSAY_F8_B128), 3.0);
  // Twice what e4m3 activations do (2^-5.3 of a product, 321 products).
  EXPECT_GT(tolerance(ASSAY_F8_B128), 2 * 0.0254 * std::sqrt(321.0));
  EXPECT_LT(tolerance(ASSAY_I4_G128), 0.5);
  EXPECT_LT(tolerance(ASSAY_BF16, ASSAY_F8_E4M3), 2.0);
  EXPECT_GT(tolerance(ASSAY_BF16, ASSAY_F8_E4M3), 2 * 0.0254 * std::sqrt(160.0));
  EXPECT_LT(tolerance(ASSAY_BF16, ASSAY_BF16), 0.5);
}

}  // namespace
}  // namespace assay::bench
