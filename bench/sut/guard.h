// SPDX-License-Identifier: Apache-2.0
// The accuracy guard: what the device under test computed for a short prefix, held against the reference device, so
// that no device can win by computing something else. It checks kernels and engine (prefill and decode), not the
// quality of the weights' dtype: the reference reads the same weights. One thread.
#pragma once

#include <vector>

#include "bench/result/run_result.h"
#include "bench/sut/session.h"

namespace assay::bench {

inline constexpr int64_t kGuardPrompt = 8;
inline constexpr int64_t kGuardTokens = 8;

// The prompt, what the device generated after it (greedy), and the log-probability that it gave each of these tokens.
struct GuardRun {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
};
// Runs on the engine under test, which must be idle and allow log-probabilities of sampled tokens.
GuardRun RunGuard(Engine& engine, std::vector<int32_t> prompt);

// The largest difference of a log-probability that rounding explains. Each matrix product rounds its operands to the
// compute dtype, and each of attention's has an operand as the KV cache holds it, which moves its result by about
// epsilon of its own spread; the errors of all products on the way add up as a random walk, and reach the logits in
// proportion to their spread. Times 4: standard deviations.
double GuardTolerance(const ModelShape& shape, assay_dtype weight_dtype, assay_dtype compute, assay_dtype kv_dtype,
                      double spread);

// Scores run.tokens on the reference device and compares.
Accuracy CheckGuard(Session& session, const GuardRun& run);

}  // namespace assay::bench
