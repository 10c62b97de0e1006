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

// An upper bound: all FLOP of a batch at `flops`, or all of its bytes at `bytes_per_s`, whichever takes longer, prompts
// and decode steps overlapped. 2 FLOP per weight and token (the head's for output tokens only), 4 per attended element;
// weights are read once for each of the osl steps that make a token, the KV cache by each step after the first.
// Launches, collectives and sampling are free. flops and bytes_per_s are those of all cards together.
double OutputRoof(const ModelConfig& model, const ServedWork& work, double flops, double bytes_per_s);

// The batch whose weights and KV cache, at the mean context isl + osl / 2, fill the memory; at least 1.
double LargestBatch(const ModelConfig& model, const ServedWork& work, double memory_bytes);

}  // namespace assay::bench
