// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/attention_plan.h"

#include <algorithm>

namespace assay::gpu {
namespace {

// Two blocks of a decode kernel lie on a processor; four rounds of them are the most that splitting asks for, since by
// then the last round's idle processors matter less than the partial results do.
constexpr int64_t kBlocksPerProcessor = 2;
constexpr int64_t kMaxRounds = 4;

int64_t Slots(const AttnSizes& sizes) {
  return sizes.processors * kBlocksPerProcessor;
}

int64_t MostSplits(const AttnSizes& sizes) {
  const int64_t keys = sizes.window > 0 ? std::min(sizes.window, sizes.max_keys) : sizes.max_keys;
  return std::clamp<int64_t>((keys + kSplitStep - 1) / kSplitStep, 1, kMaxSplits);
}

// The fewest splits that keep the processors nearly as busy as the best number would.
int64_t Splits(const AttnSizes& sizes) {
  const int64_t units = std::max<int64_t>(1, sizes.sequences * sizes.kv_heads), slots = Slots(sizes);
  const int64_t most = std::min(MostSplits(sizes), kMaxRounds * slots / units);
  const auto busy = [&](int64_t splits) {
    const int64_t blocks = units * splits;
    return static_cast<double>(blocks) / static_cast<double>((blocks + slots - 1) / slots * slots);
  };
  double best = 0;
  for (int64_t s = 1; s <= most; ++s) best = std::max(best, busy(s));
  int64_t splits = 1;
  while (splits < most && busy(splits) < 0.9 * best) ++splits;
  return splits;
}

}  // namespace

AttnPlan PlanAttention(const AttnSizes& sizes) {
  AttnPlan plan;
  if (sizes.tokens <= sizes.sequences) {  // as a decode step has it; right, if slow, for any other distribution
    plan.decode = true;
    plan.decode_queries = INT32_MAX;
  } else {
    plan.prefill = true;
    plan.decode = sizes.sequences > 1;
    plan.decode_queries = plan.decode ? 1 : 0;
  }
  if (plan.decode) plan.splits = static_cast<int>(Splits(sizes));
  return plan;
}

size_t AttnPartialBytes(const AttnSizes& sizes) {
  // sequences * kv_heads * splits <= rounds * slots wherever there is more than one split.
  const int64_t group = sizes.heads / std::max<int64_t>(1, sizes.kv_heads);
  const int64_t rows = std::min(sizes.tokens, sizes.sequences) * sizes.heads;
  const int64_t partials = std::min(kMaxRounds * Slots(sizes) * group, rows * MostSplits(sizes));
  return static_cast<size_t>(partials * (sizes.head_dim + 2)) * sizeof(float);
}

int64_t MaxQueryTiles(int64_t tokens, int64_t sequences, int64_t group, int rows) {
  return (tokens * group + sequences * (rows - 1)) / rows;
}

}  // namespace assay::gpu
