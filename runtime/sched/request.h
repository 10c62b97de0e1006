// SPDX-License-Identifier: Apache-2.0
// What a caller asks of the engine, and what becomes of it. Plain values.
#pragma once

#include <cstdint>
#include <vector>

namespace assay {

struct SamplingParams {
  float temperature = 0.0f;  // 0: greedy
  int32_t top_k = 0;         // 0: off
  float top_p = 1.0f;        // 1: off
  float min_p = 0.0f;        // 0: off
  int64_t seed = 0;
};

struct Request {
  std::vector<int32_t> prompt;  // at least one token
  int64_t max_new_tokens = 0;   // 0: only the prompt is run (for prompt_logprobs)
  SamplingParams sampling;
  std::vector<int32_t> stop_ids;  // generation ends after any of these
  int32_t top_logprobs = -1;      // -1: none; 0: of the sampled token only; K: and the K most likely
  bool prompt_logprobs = false;   // log-probability of each prompt token but the first
};

enum class FinishReason { kNone, kLength, kStop };

// The log-probability of one token, and the most likely alternatives.
struct TokenLogprob {
  float logprob = 0.0f;
  std::vector<int32_t> top_ids;
  std::vector<float> top_logprobs;
};

// In place of a token that a step in flight is going to sample.
constexpr int32_t kTokenInFlight = -1;

// A request in the engine: waiting -> running (holds KV blocks) -> finished.
struct Sequence {
  int64_t id = 0;
  Request request;
  std::vector<int32_t> tokens;  // prompt, then generated; the last ones may be in flight
  int64_t computed = 0;         // tokens whose K and V are in the cache once the steps in flight are done
  int32_t in_flight = 0;        // steps that were scheduled and have not come back
  int32_t sample_row = -1;      // the row of its last sample among those of that step
  std::vector<int32_t> block_table;
  FinishReason finish = FinishReason::kNone;
  std::vector<float> prompt_logprobs;  // of prompt tokens 1, 2, ...
  std::vector<TokenLogprob> logprobs;  // of generated tokens

  int64_t generated() const { return static_cast<int64_t>(tokens.size() - request.prompt.size()); }
  int64_t pending() const { return static_cast<int64_t>(tokens.size()) - computed; }
  int64_t longest() const { return static_cast<int64_t>(request.prompt.size()) + request.max_new_tokens; }
};

}  // namespace assay
