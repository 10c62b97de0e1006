// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/ref/ops.h"
#include "kernels/ref/tensors_for_test.h"

namespace assay::ref {
namespace {

using Floats = std::vector<float>;

// One KV head of dimension 1, blocks of 2 tokens; block 0 holds positions 2 and 3, block 1 positions 0 and 1.
// Keys are zero, so every visible position weighs the same; the value at position p is 10^p.
struct Case {
  F32 k{{2, 1, 2, 1}, 0.0f};
  F32 v{{2, 1, 2, 1}, {100, 1000, 1, 10}};
  I32 table{{1, 2}, {1, 0}};
  AttnAttr attr{.kv = {KvLayout::kHND, 2}};

  Floats Run(const F32& q, std::vector<int32_t> offsets, int32_t kv_len) {
    F32 y({q.view.shape[0], q.view.shape[1], 1}, 77.0f);
    AttnPaged(q, k, v, table, I32({2}, std::move(offsets)), I32({1}, {kv_len}), y, attr);
    return y.data;
  }
};

TEST(AttnPaged, CausalThroughTheBlockTable) {
  Case c;
  const Floats y = c.Run(F32({3, 1, 1}, 1.0f), {0, 3}, 4);  // queries at positions 1, 2, 3
  EXPECT_FLOAT_EQ(y[0], 11 / 2.0f);
  EXPECT_FLOAT_EQ(y[1], 111 / 3.0f);
  EXPECT_FLOAT_EQ(y[2], 1111 / 4.0f);
}

TEST(AttnPaged, WindowCountsThePositionItself) {
  Case c;
  c.attr.window = 2;
  EXPECT_FLOAT_EQ(c.Run(F32({1, 1, 1}, 1.0f), {0, 1}, 4)[0], 1100 / 2.0f);
}

TEST(AttnPaged, PaddingIsZero) {
  Case c;
  EXPECT_EQ(c.Run(F32({3, 1, 1}, 1.0f), {1, 2}, 1), (Floats{0, 1, 0}));
  EXPECT_EQ(c.Run(F32({1, 1, 1}, 1.0f), {0, 1}, 0), (Floats{0}));
}

TEST(AttnPaged, ScaleAndSoftcap) {
  Case c;
  c.k.data = {0, 0, 0, 4};  // the key at position 1 is 4
  c.attr.scale = 0.5f;
  const auto expect = [](double score) {
    return static_cast<float>((1 + 10 * std::exp(score)) / (1 + std::exp(score)));
  };
  EXPECT_FLOAT_EQ(c.Run(F32({1, 1, 1}, 1.0f), {0, 1}, 2)[0], expect(2));
  c.attr.softcap = 1.5f;
  EXPECT_FLOAT_EQ(c.Run(F32({1, 1, 1}, 1.0f), {0, 1}, 2)[0], expect(1.5 * std::tanh(2 / 1.5)));
}

TEST(AttnPaged, QueryHeadsShareKvHeadsInBothLayouts) {
  // Two KV heads with values 1 and 2, four query heads: 0, 1 read head 0; 2, 3 read head 1.
  const F32 q({1, 4, 1}, 1.0f), k({1, 2, 1, 1}, 0.0f), v({1, 2, 1, 1}, {1, 2});
  const F32 nhd_k({1, 1, 2, 1}, 0.0f), nhd_v({1, 1, 2, 1}, {1, 2});
  const I32 table({1, 1}, {0}), offsets({2}, {0, 1}), lens({1}, {1});
  F32 y({1, 4, 1}, 0.0f), z({1, 4, 1}, 0.0f);
  AttnPaged(q, k, v, table, offsets, lens, y, {.kv = {KvLayout::kHND, 1}});
  AttnPaged(q, nhd_k, nhd_v, table, offsets, lens, z, {.kv = {KvLayout::kNHD, 1}});
  EXPECT_EQ(y.data, (Floats{1, 1, 2, 2}));
  EXPECT_EQ(z.data, y.data);
}

}  // namespace
}  // namespace assay::ref
