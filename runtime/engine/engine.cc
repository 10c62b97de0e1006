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

Result<StepReport> Engine::Step() {
  StepReport report;
  report.begin = Clock::now();
  const std::vector<StepItem> items = scheduler_.Schedule();
  report.sequences = static_cast<int64_t>(items.size());
  report.decode = !items.empty();
  StepResult result;
  try {
    result = executor_.Run(items);
  } catch (const Error& e) {
    return Result<StepReport>::Fail(e.what());
  }
  report.end = Clock::now();
  for (size_t i = 0; i < items.size(); ++i) {
    const Sequence& s = *items[i].sequence;
    report.context_tokens += s.computed + items[i].tokens;
    if (s.generated() == 0) {
      report.prompt_tokens += items[i].tokens;
      report.decode = false;
    }
    if (result.tokens[i] >= 0) report.tokens.push_back({s.id, result.tokens[i], s.generated()});
    scheduler_.Advance(items[i], result.tokens[i]);
  }
  return report;
}

}  // namespace assay
