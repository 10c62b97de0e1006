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
};

// What the steps of a trial did, for MFU and MBU.
struct StepTotals {
  double prefill_s = 0, decode_s = 0;  // time in steps that ran prompts; in pure decode steps
  double prefill_flops = 0;            // matrix products and attention
  double decode_bytes = 0;             // weights and KV cache that the steps had to read
  void operator+=(const StepTotals& other);
};

struct TrialRecord {
  Trial trial;  // start_s is since `epoch`
  std::vector<RequestSample> samples;
  StepTotals totals;
};

// `first_prompt` numbers the prompts of this trial, so that no two trials use the same. on_step(seconds) is called
// after each pure decode step.
TrialRecord RunTrial(Engine& engine, const TrialSpec& spec, const Prompts& prompts, int64_t trial, int64_t first_prompt,
                     Clock::time_point epoch, const std::function<void(double)>& on_step);

// The metrics of all trials: rates with between-trial intervals, latencies pooled over all requests.
Metrics Summarize(const std::vector<Trial>& trials, const std::vector<RequestSample>& samples);

}  // namespace assay::bench
