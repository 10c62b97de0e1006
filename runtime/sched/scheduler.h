// SPDX-License-Identifier: Apache-2.0
// Decides which sequences run in the next step, and how many tokens of each. Knows nothing of models or devices.
// Policy: static batches. A batch is admitted when the one before it is finished; a sequence is admitted only with
// room for its longest possible length, so it can never run out of KV blocks. All prompts of a batch are run first
// (several per step, within the token budget), then all its sequences decode together, one token each per step.
// One thread.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/kv/block_pool.h"
#include "runtime/sched/request.h"

namespace assay {

struct SchedulerLimits {
  int64_t max_tokens = 0;   // tokens per step
  int64_t max_seqs = 0;     // sequences per batch
  int64_t max_context = 0;  // tokens per sequence
};

struct StepItem {
  Sequence* sequence = nullptr;
  int64_t tokens = 0;  // the next `tokens` of sequence->tokens that are not computed yet
};

class Scheduler {
 public:
  Scheduler(const SchedulerLimits& limits, BlockPool* pool);

  // The new sequence's id, or why the request can never run.
  Result<int64_t> Add(Request request);
  // The next step; empty when nothing is left to do. Blocks for the step's tokens are in the sequences' tables.
  std::vector<StepItem> Schedule();
  // The step ran: item.tokens are in the cache. `token` is what was sampled for it, or -1 if prompt tokens are left
  // or nothing was to be sampled. A sequence that is thereby finished gives its blocks back.
  void Advance(const StepItem& item, int32_t token);
  // Ends every sequence, waiting or running, and gives all blocks back.
  void Clear();

  // Finished sequences since the last call, in the order in which they finished.
  std::vector<std::unique_ptr<Sequence>> TakeFinished();
  bool idle() const { return waiting_.empty() && running_.empty(); }

 private:
  void Admit();
  void Finish(Sequence* sequence, FinishReason reason);

  SchedulerLimits limits_;
  BlockPool* pool_;
  int64_t next_id_ = 0;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;
  std::vector<std::unique_ptr<Sequence>> finished_;
};

}  // namespace assay
