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

StepItem Scheduler::Take(Sequence* s, int64_t tokens) {
  StepItem item{s, s->computed, tokens, false};
  s->computed += tokens;
  ++s->in_flight;
  item.samples = s->pending() == 0 && s->request.max_new_tokens > 0;
  if (item.samples) s->tokens.push_back(kTokenInFlight);
  return item;
}

std::vector<StepItem> Scheduler::Schedule() {
  Admit();
  std::vector<StepItem> prompts, decodes;
  int64_t budget = limits_.max_tokens;
  for (const auto& sequence : running_) {
    if (sequence->generated() > 0 || sequence->pending() == 0 || budget == 0) continue;
    prompts.push_back(Take(sequence.get(), std::min(budget, sequence->pending())));
    budget -= prompts.back().tokens;
  }
  if (!prompts.empty()) return prompts;
  for (const auto& sequence : running_) {
    const bool more = sequence->generated() < sequence->request.max_new_tokens;
    if (sequence->finish != FinishReason::kNone || sequence->generated() == 0 || !more || budget == 0) continue;
    decodes.push_back(Take(sequence.get(), 1));
    --budget;
  }
  return decodes;
}

bool Scheduler::Advance(const StepItem& item, int32_t token) {
  Sequence* s = item.sequence;
  ASSAY_CHECK(s->in_flight > 0 && item.samples == (token >= 0));
  --s->in_flight;
  const bool late = s->finish != FinishReason::kNone;
  if (!late && item.samples) {
    const auto at = static_cast<size_t>(item.begin + item.tokens);
    s->tokens[at] = token;
    const auto& stop = s->request.stop_ids;
    if (std::find(stop.begin(), stop.end(), token) != stop.end()) {
      s->finish = FinishReason::kStop;
      s->tokens.resize(at + 1);  // what is in flight will be dropped
    } else if (s->generated() >= s->request.max_new_tokens && s->in_flight == 0) {
      s->finish = FinishReason::kLength;
    }
  } else if (!late && s->request.max_new_tokens == 0 && s->pending() == 0 && s->in_flight == 0) {
    s->finish = FinishReason::kLength;
  }
  if (s->finish != FinishReason::kNone && s->in_flight == 0) Finish(s);
  return !late;
}

void Scheduler::Finish(Sequence* sequence) {
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
