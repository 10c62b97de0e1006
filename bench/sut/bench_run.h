// SPDX-License-Identifier: Apache-2.0
// One `assay bench`: limits, warm-up, trials, time per operation, accuracy guard, power, all into a RunResult.
// Execute runs on one thread; Snapshot may be called from another at any time, so that an interrupt loses no finished
// trial even while a long step cannot be stopped.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "bench/power/sampler.h"
#include "bench/result/run_result.h"
#include "bench/result/write.h"
#include "bench/sut/guard.h"
#include "bench/sut/session.h"
#include "bench/sut/trial.h"

namespace assay::bench {

struct BenchOptions {
  ModelSpec model;
  Scenario scenario = Scenario::kSingleStream;
  int64_t isl = 512;
  int64_t osl = 128;
  int64_t concurrency = 1;  // offline: sequences per batch
  int64_t requests = 4;     // per trial
  int64_t trials = 5;
  uint64_t seed = 1;
  std::string power = "auto";
};
const char* ScenarioName(Scenario scenario);

struct BenchSnapshot {
  RunResult result;
  std::vector<RequestSample> samples;
};

class BenchRun {
 public:
  // progress: one short line on what is going on, for a terminal.
  BenchRun(const BenchOptions& options, std::function<void(const std::string&)> progress);
  ~BenchRun();

  // Throws Error, or Interrupted.
  void Execute();
  // Everything known so far; metrics are those of the finished trials.
  BenchSnapshot Snapshot();

 private:
  void Describe();
  void Probe();
  void WarmUpEngine();
  void RunTrials();
  void Profile();
  void SummarizeLocked();
  ExecutorOptions EngineOptions() const;
  void Progress(const std::string& text) const {
    if (progress_) progress_(text);
  }

  BenchOptions options_;
  std::function<void(const std::string&)> progress_;
  Clock::time_point epoch_;
  double epoch_s_ = 0;  // the same moment on the meters' clock

  // Touched by Execute only.
  std::unique_ptr<Session> session_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Prompts> prompts_;
  std::unique_ptr<Sampler> sampler_;
  std::string no_meter_;
  std::optional<Window> idle_;

  std::mutex mutex_;  // guards what follows
  RunResult result_;
  std::vector<RequestSample> samples_;
  StepTotals totals_;
};

}  // namespace assay::bench
