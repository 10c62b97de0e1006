// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/engine.h"

namespace assay {

Engine::Engine(std::shared_ptr<Device> device, std::unique_ptr<Model> model, const ExecutorOptions& options,
               std::shared_ptr<Communicator> comm)
    : executor_(std::move(device), std::move(model), options, std::move(comm)),
      pool_(executor_.kv_plan().blocks, executor_.kv_plan().block_size),
      scheduler_({options.max_tokens, options.max_seqs, options.max_context}, &pool_) {}

Result<int64_t> Engine::Submit(Request request) {
  const int64_t vocab = executor_.model().shape().vocab;
  for (const int32_t id : request.prompt) {
    if (id < 0 || id >= vocab) {
      return Result<int64_t>::Fail("token id " + std::to_string(id) + " is not in the vocabulary (0.." +
                                   std::to_string(vocab - 1) + ")");
    }
  }
  const int32_t most = executor_.options().top_logprobs;
  if (request.top_logprobs > most) {
    return Result<int64_t>::Fail("the engine was set up for at most " + std::to_string(most) + " log-probabilities");
  }
  return scheduler_.Add(std::move(request));
}

void Engine::TakeOff() {
  std::vector<StepItem> items = scheduler_.Schedule();
  if (!items.empty()) flights_.push_back(executor_.Launch(std::move(items)));
}

Result<StepReport> Engine::Step() {
  const Clock::time_point begin = Clock::now();
  try {
    if (flights_.empty()) TakeOff();
    if (flights_.empty()) return StepReport{{}, begin, Clock::now()};
    if (executor_.looks_ahead()) TakeOff();
    const Flight flight = std::move(flights_.front());
    flights_.pop_front();
    const StepResult result = executor_.Land(flight);
    StepReport report = Report(flight, result);
    report.begin = begin;
    return report;
  } catch (const Error& e) {
    return Result<StepReport>::Fail(e.what());
  }
}

StepReport Engine::Report(const Flight& flight, const StepResult& result) {
  StepReport report;
  report.end = Clock::now();
  report.sequences = static_cast<int64_t>(flight.items.size());
  report.decode = true;
  for (size_t i = 0; i < flight.items.size(); ++i) {
    const StepItem& item = flight.items[i];
    const Sequence& s = *item.sequence;
    const int64_t id = s.id, end = item.begin + item.tokens;
    const int64_t index = end - static_cast<int64_t>(s.request.prompt.size());
    report.context_tokens += end;
    if (!item.decodes()) {
      report.prompt_tokens += item.tokens;
      report.decode = false;
    }
    const bool counts = scheduler_.Advance(item, result.tokens[i]);
    if (counts && result.tokens[i] >= 0) report.tokens.push_back({id, result.tokens[i], index});
  }
  return report;
}

}  // namespace assay
