// SPDX-License-Identifier: Apache-2.0
// One trial on the engine in process: a set of requests, run to the end, with the time of every token.
// Latencies are taken where a user of the engine would see the tokens: after the step's host synchronisation.
// One thread; checks for an interrupt between steps (throws Interrupted).
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "bench/result/run_result.h"
#include "bench/result/write.h"
#include "bench/workload/prompts.h"
#include "runtime/engine/engine.h"

namespace assay::bench {

enum class Scenario { kSingleStream, kOffline };

struct TrialSpec {
  Scenario scenario = Scenario::kSingleStream;
  int64_t isl = 0, osl = 0;
  int64_t requests = 0;     // single-stream: one after the other; offline: all at once
  int64_t concurrency = 1;  // sequences per batch
  double min_seconds = 0;   // the requests are repeated, each time with new prompts, until so long has passed
};

// What the steps of one phase did: those that ran prompts, or pure decode steps.
struct PhaseTotals {
  double seconds = 0;
  int64_t units = 0;   // prompts that were finished, or decode steps
  int64_t tokens = 0;  // of the prompts, or generated
  double flops = 0;    // matrix products and attention
  double bytes = 0;    // weights, and KV cache that decode steps read or prompts write
  void operator+=(const PhaseTotals& other);
};

inline constexpr int64_t kPromptsPerTrial = int64_t{1} << 20;

struct TrialRecord {
  Trial trial;  // start_s is since `epoch`
  std::vector<RequestSample> samples;
  PhaseTotals prefill, decode;
};

// `first_prompt` numbers the prompts of this trial; a trial uses fewer than kPromptsPerTrial, so that no two use the
// same. on_step(seconds) is called after each pure decode step.
TrialRecord RunTrial(Engine& engine, const TrialSpec& spec, const Prompts& prompts, int64_t trial, int64_t first_prompt,
                     Clock::time_point epoch, const std::function<void(double)>& on_step);

// The metrics of all trials: rates with between-trial intervals, latencies pooled over all requests.
Metrics Summarize(const std::vector<Trial>& trials, const std::vector<RequestSample>& samples);

}  // namespace assay::bench
