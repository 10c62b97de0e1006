// SPDX-License-Identifier: Apache-2.0
#include "runtime/sched/scheduler.h"

#include <algorithm>

namespace assay {

Scheduler::Scheduler(const SchedulerLimits& limits, BlockPool* pool) : limits_(limits), pool_(pool) {
  ASSAY_CHECK(limits.max_tokens > 0 && limits.max_seqs > 0 && limits.max_context > 0);
}

Result<int64_t> Scheduler::Add(Request request) {
  using R = Result<int64_t>;
  auto sequence = std::make_unique<Sequence>();
  sequence->request = std::move(request);
  const Request& r = sequence->request;
  if (r.prompt.empty()) return R::Fail("the prompt is empty; give at least one token");
  if (r.max_new_tokens < 0) return R::Fail("a negative number of new tokens was asked for");
  if (sequence->longest() > limits_.max_context) {
    return R::Fail("prompt and output together are " + std::to_string(sequence->longest()) +
                   " tokens, the context holds " + std::to_string(limits_.max_context));
  }
  if (pool_->BlocksFor(sequence->longest()) > pool_->total()) {
    return R::Fail("the sequence needs " + std::to_string(pool_->BlocksFor(sequence->longest())) +
                   " KV blocks, the cache has " + std::to_string(pool_->total()));
  }
  sequence->id = next_id_++;
  sequence->tokens = r.prompt;
  waiting_.push_back(std::move(sequence));
  return waiting_.back()->id;
}

void Scheduler::Admit() {
  if (!running_.empty()) return;
  while (!waiting_.empty() && static_cast<int64_t>(running_.size()) < limits_.max_seqs) {
    Sequence& next = *waiting_.front();
    if (!pool_->Grow(&next.block_table, next.longest())) break;
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

std::vector<StepItem> Scheduler::Schedule() {
  Admit();
  std::vector<StepItem> prompts, decodes;
  int64_t budget = limits_.max_tokens;
  for (const auto& sequence : running_) {
    if (sequence->generated() > 0) {
      decodes.push_back({sequence.get(), 1});
    } else if (budget > 0) {
      const int64_t n = std::min(budget, sequence->pending());
      prompts.push_back({sequence.get(), n});
      budget -= n;
    }
  }
  if (!prompts.empty()) return prompts;
  if (static_cast<int64_t>(decodes.size()) > limits_.max_tokens) decodes.resize(limits_.max_tokens);
  return decodes;
}

void Scheduler::Advance(const StepItem& item, int32_t token) {
  Sequence* s = item.sequence;
  s->computed += item.tokens;
  ASSAY_CHECK(s->computed <= static_cast<int64_t>(s->tokens.size()));
  if (s->pending() > 0) return;
  if (s->request.max_new_tokens == 0) return Finish(s, FinishReason::kLength);
  ASSAY_CHECK(token >= 0);
  s->tokens.push_back(token);
  const auto& stop = s->request.stop_ids;
  if (std::find(stop.begin(), stop.end(), token) != stop.end()) return Finish(s, FinishReason::kStop);
  if (s->generated() >= s->request.max_new_tokens) return Finish(s, FinishReason::kLength);
}

void Scheduler::Finish(Sequence* sequence, FinishReason reason) {
  sequence->finish = reason;
  pool_->Free(&sequence->block_table);
  const auto it = std::find_if(running_.begin(), running_.end(), [&](const auto& s) { return s.get() == sequence; });
  ASSAY_CHECK(it != running_.end());
  finished_.push_back(std::move(*it));
  running_.erase(it);
}

void Scheduler::Clear() {
  for (const auto& s : running_) pool_->Free(&s->block_table);
  running_.clear();
  waiting_.clear();
  finished_.clear();
}

std::vector<std::unique_ptr<Sequence>> Scheduler::TakeFinished() {
  return std::exchange(finished_, {});
}

}  // namespace assay
