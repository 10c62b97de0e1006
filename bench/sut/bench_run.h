// SPDX-License-Identifier: Apache-2.0
// One `assay bench`: limits, warm-up, trials, time per operation, accuracy guard, power, all into a RunResult.
// Execute runs on one thread; Snapshot may be called from another at any time, so that an interrupt loses no finished
// trial even while a long step cannot be stopped.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "bench/claims/cards.h"
#include "bench/power/power.h"
#include "bench/result/run_result.h"
#include "bench/result/write.h"
#include "bench/sut/guard.h"
#include "bench/sut/profile.h"
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
  double power_seconds = 30;                  // metered load in all trials together, where there is a meter
  bool no_guard = false;                      // the output is not checked, and the result says so
  std::function<void(int64_t)> before_trial;  // is told the trial's number, from 1, and may wait; null: nothing
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
  void CheckRanks(MeterChoice* meter) const;
  void Probe(bool first);
  void WarmUpEngine();
  void RunTrials();
  void RunPhase(bool decode);
  void ProfileOps();
  void Rest(std::vector<Window>* windows, const std::string& what);
  void PauseForPhase();
  TrialSpec Spec() const;
  MeteredTrial Metered(const TrialRecord& record) const;
  void SummarizeLocked();
  void AddPhases();
  void AddShares();
  void AddPower();
  void AddEnvironment(const MeterRecord* meter);
  void AddWarnings();
  int64_t StepTokens() const;
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

  std::mutex mutex_;  // guards what follows
  RunResult result_;
  CardMatch card_;
  bool accelerator_ = false;
  std::string uneven_;  // what the ranks do not share evenly
  std::vector<RequestSample> samples_;
  std::vector<PhaseTotals> prefill_, decode_;  // per trial
  Profile profile_;
  Window profile_window_;
  std::unique_ptr<Sampler> sampler_;  // set before the trials, then only read
  bool metered_load_ = false;         // there is a meter that measures: loads are made long enough for it
  std::string no_meter_;
  std::vector<MeteredTrial> metered_, metered_prefill_, metered_decode_;
  std::vector<Window> idle_before_, idle_loaded_, idle_after_;
};

}  // namespace assay::bench
