// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/attention_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "kernels/cuda/hopper_sm90.h"

namespace assay::gpu {
namespace {

AttnSizes Sizes(int64_t tokens, int64_t sequences, int64_t max_keys) {
  AttnSizes sizes;
  sizes.tokens = tokens;
  sizes.sequences = sequences;
  sizes.max_keys = max_keys;
  sizes.heads = 32;
  sizes.kv_heads = 8;
  sizes.head_dim = 128;
  sizes.processors = 132;
  return sizes;
}

TEST(AttentionPlan, VisibleKeysAreCausalAndWithinTheWindow) {
  const auto is = [](KeyRange range, int begin, int end) { return range.begin == begin && range.end == end; };
  EXPECT_TRUE(is(VisibleKeys(0, 2, 3, 10, 0), 0, 10));
  EXPECT_TRUE(is(VisibleKeys(0, 0, 3, 10, 0), 0, 8));
  EXPECT_TRUE(is(VisibleKeys(1, 2, 3, 10, 4), 5, 10));
  EXPECT_TRUE(is(VisibleKeys(0, 0, 3, 10, 100), 0, 8));
  EXPECT_TRUE(is(VisibleKeys(0, 0, 1, 0, 0), 0, 0));  // padding
}

TEST(AttentionPlan, SplitsAreDisjointAndCoverAllKeys) {
  for (const int keys : {1, 63, 64, 65, 1000, 4096, 4097}) {
    for (const int splits : {1, 2, 7, 33, 128}) {
      const KeyRange range{17, 17 + keys};
      const int active = ActiveSplits(range, splits);
      ASSERT_LE(active, splits);
      int next = range.begin;
      for (int i = 0; i < active; ++i) {
        const KeyRange part = SplitKeys(range, i, splits);
        EXPECT_EQ(part.begin, next);
        EXPECT_GT(part.end, part.begin);
        next = part.end;
      }
      EXPECT_EQ(next, range.end) << keys << " keys in " << splits;
    }
  }
  EXPECT_EQ(ActiveSplits({0, 0}, 33), 1);  // someone writes the zeros of padding
}

TEST(AttentionPlan, DecodeFillsTheCard) {
  const AttnPlan one = PlanAttention(Sizes(1, 1, 8192));
  EXPECT_TRUE(one.decode && !one.prefill);
  EXPECT_GE(8 * one.splits, 2 * 132 * 9 / 10);
  EXPECT_EQ(PlanAttention(Sizes(256, 256, 8192)).splits, 1);
  EXPECT_EQ(PlanAttention(Sizes(1, 1, 100)).splits, 2);  // a split of fewer keys than a block's warps take would idle
}

TEST(AttentionPlan, MixedStepsRunBothKernelsOverDifferentSequences) {
  const AttnPlan mixed = PlanAttention(Sizes(70, 4, 1024));
  EXPECT_TRUE(mixed.decode && mixed.prefill);
  EXPECT_EQ(mixed.decode_queries, 1);
  const AttnPlan prompt = PlanAttention(Sizes(70, 1, 1024));
  EXPECT_TRUE(!prompt.decode && prompt.prefill);
  EXPECT_EQ(prompt.decode_queries, 0);  // also of one query, if the others are padding
}

TEST(AttentionPlan, PartialResultsFitForAllSmallerCalls) {
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    AttnSizes most = Sizes(1 + random() % 600, 1 + random() % 300, 16 * (1 + random() % 500)), call = most;
    call.tokens = 1 + random() % most.tokens;
    call.sequences = 1 + random() % most.sequences;
    call.max_keys = 1 + random() % most.max_keys;
    call.window = most.window = random() % 2 == 0 ? 0 : 1 + random() % 4096;
    const AttnPlan plan = PlanAttention(call);
    if (!plan.decode || plan.splits == 1) continue;
    const int64_t rows = plan.prefill ? call.sequences : call.tokens;
    ASSERT_LE(static_cast<size_t>(rows * 32 * plan.splits * (128 + 2)) * sizeof(float), AttnPartialBytes(most));
  }
}

TEST(AttentionPlan, ThereAreTilesForAllQueries) {
  std::mt19937 random(1);
  for (int i = 0; i < 2000; ++i) {
    const int64_t group = 1 + random() % 8, sequences = 1 + random() % 9;
    int64_t tokens = 0, tiles = 0;
    for (int64_t s = 0; s < sequences; ++s) {
      const int64_t queries = random() % 100;
      tokens += queries;
      tiles += (queries * group + 31) / 32;
    }
    ASSERT_LE(tiles, MaxQueryTiles(tokens, sequences, group, 32));
  }
}

// Eight rows' chunks of one column lie in the eight 16-byte places of the banks, and no two chunks in one place.
template <class At>
void ExpectConflictFree(int rows, int chunks, const At& at) {
  std::set<int> places;
  for (int row = 0; row < rows; ++row) {
    for (int chunk = 0; chunk < chunks; ++chunk) places.insert(at(row, chunk));
  }
  EXPECT_EQ(places.size(), static_cast<size_t>(rows * chunks));
  EXPECT_EQ(*places.rbegin(), (rows * chunks - 1) * 16);
  for (int row = 0; row < rows; row += 8) {
    for (int chunk = 0; chunk < chunks; ++chunk) {
      std::set<int> banks;
      for (int i = 0; i < 8; ++i) banks.insert(at(row + i, chunk) % 128);
      EXPECT_EQ(banks.size(), 8u);
    }
  }
}

TEST(AttentionPlan, TilesAreFreeOfBankConflicts) {
  ExpectConflictFree(16, 4, TileAt<64>);
  ExpectConflictFree(16, 6, TileAt<96>);
  ExpectConflictFree(16, 8, TileAt<128>);
  ExpectConflictFree(16, 12, TileAt<192>);
  ExpectConflictFree(16, 16, TileAt<256>);
  ExpectConflictFree(16, 8, [](int row, int chunk) { return PanelAt(row, chunk); });
}

TEST(AttentionPlan, DescriptorsOfTilesAreThoseOfTheInstructionSet) {
  const uint64_t descriptor = TileDescriptor(0x12340, 0x4000);
  EXPECT_EQ(descriptor & 0x3fff, 0x1234u);           // the address, in 16 bytes
  EXPECT_EQ(descriptor >> 16 & 0x3fff, 0x400u);      // from panel to panel
  EXPECT_EQ(descriptor >> 32 & 0x3fff, 1024u / 16);  // from eight rows to the next
  EXPECT_EQ(descriptor >> 62, 1u);                   // swizzled over 128 bytes
  EXPECT_EQ(descriptor >> 46 & 0xffff, 0u) << "no base offset: tiles begin on 1024 bytes";
}

}  // namespace
}  // namespace assay::gpu
