// SPDX-License-Identifier: Apache-2.0
// How a model is split over ranks (tensor parallelism): q, k, v by heads, gate and up by columns of the MLP, o and down
// by the same columns of their inputs, so that two sums over ranks per layer make it whole; the head by vocabulary. The
// embedding is on every rank: a step reads only its tokens' rows, and a split one would cost a third kind of sum.
// Plain values, any thread.
#pragma once

#include <cstdint>

#include "models/format/config.h"

namespace assay {

struct Range {
  int64_t begin = 0, count = 0;
  Range operator*(int64_t unit) const { return {begin * unit, count * unit}; }
};

// One rank's part, in indices of the whole model.
struct Shard {
  int rank = 0, size = 1;
  Range heads, kv_heads, ffn, vocab;
  int64_t all_kv_heads = 0;  // of all ranks: more than the model's where ranks share one
  bool whole() const { return size == 1; }
};

// Each KV head stays with its query heads. Where they do not divide evenly, some ranks have one KV head more (the first
// ones); where there are fewer KV heads than ranks, several ranks keep the same one. Throws Error for what cannot be
// split.
Shard ShardOf(const ModelConfig& config, int rank = 0, int size = 1);

// The config with the rank's counts of heads, KV heads and MLP columns in place of the model's.
ModelConfig ConfigOf(const ModelConfig& config, const Shard& shard);

}  // namespace assay
