// SPDX-License-Identifier: Apache-2.0
// The step loop: requests in, tokens out. Each Step schedules a set of sequences, runs it, and reports the tokens that
// came out with the time at which the host had them. Where the executor looks ahead, the next step is scheduled and
// launched before this one has come back. One thread.
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <vector>

#include "runtime/engine/executor.h"
#include "runtime/sched/scheduler.h"

namespace assay {

using Clock = std::chrono::steady_clock;

struct TokenEvent {
  int64_t sequence = 0;
  int32_t token = 0;
  int64_t index = 0;  // 0 for the first generated token
};

struct StepReport {
  std::vector<TokenEvent> tokens;
  Clock::time_point begin, end;  // end: the tokens are in host memory
  int64_t prompt_tokens = 0;     // tokens of prompts that this step ran
  int64_t sequences = 0;
  int64_t context_tokens = 0;  // positions in the cache after the step, summed over its sequences
  bool decode = false;         // a pure decode step
};

class Engine {
 public:
  // comm: of the leader of several ranks.
  Engine(std::shared_ptr<Device> device, std::unique_ptr<Model> model, const ExecutorOptions& options,
         std::shared_ptr<Communicator> comm = nullptr);

  // The id of the new sequence, or why the request can never run.
  Result<int64_t> Submit(Request request);
  // Returns with the next step that has come back; a failing device is reported, and the engine is then of no more use.
  Result<StepReport> Step();
  bool idle() const { return scheduler_.idle() && flights_.empty(); }
  std::vector<std::unique_ptr<Sequence>> TakeFinished() { return scheduler_.TakeFinished(); }

  Executor& executor() { return executor_; }

 private:
  void TakeOff();
  StepReport Report(const Flight& flight, const StepResult& result);

  Executor executor_;
  BlockPool pool_;
  Scheduler scheduler_;
  std::deque<Flight> flights_;  // the oldest first
};

}  // namespace assay
