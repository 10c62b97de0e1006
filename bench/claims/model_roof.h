// SPDX-License-Identifier: Apache-2.0
// The most output tokens per second that peaks allow a dense model in batches of requests, from its shape alone: for
// results of others, whose steps were not seen. Pure functions, any thread.
#pragma once

#include "models/format/config.h"

namespace assay::bench {

struct ServedWork {
  double isl = 0, osl = 0;  // tokens in and out per request
  double batch = 1;         // requests at a time
  double weight_bytes = 2;  // per parameter
  double kv_bytes = 2;      // per element of the KV cache
};

// A batch takes: its prompts, max(FLOP / flops, weights / bytes_per_s), and osl decode steps at the mean context
// isl + osl / 2, max(FLOP / flops, (weights + KV cache of the batch) / bytes_per_s), compute and memory overlapped;
// 2 FLOP per weight and token, 4 per attended element. Everything else (launches, collectives, sampling) is free.
// flops and bytes_per_s are those of all cards together.
double OutputRoof(const ModelConfig& model, const ServedWork& work, double flops, double bytes_per_s);

// The batch whose weights and KV cache fill the memory; at least 1.
double LargestBatch(const ModelConfig& model, const ServedWork& work, double memory_bytes);

}  // namespace assay::bench
