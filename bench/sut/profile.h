// SPDX-License-Identifier: Apache-2.0
// The time of each operation at the model's own shapes: prompts and decode steps run outside the trials with every
// operation timed by the device's events. Repeated, so that the sums carry an interval. One thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bench/result/run_result.h"
#include "bench/sut/trial.h"

namespace assay::bench {

inline constexpr int64_t kProfileRepetitions = 5;

struct Profile {
  std::vector<OpShare> ops;
  // Seconds that the operations of one unit took together, one value per repetition. The unit of prefill is a prompt,
  // that of decode a step of all sequences.
  std::vector<double> prefill_s, decode_s;
};

// Runs batches as the trials of `spec` do, on an idle engine. Decode steps are timed around the trials' mean context.
Profile RunProfile(Engine& engine, const TrialSpec& spec, const Prompts& prompts, int64_t first_prompt,
                   const std::function<void(const std::string&)>& progress);

}  // namespace assay::bench
