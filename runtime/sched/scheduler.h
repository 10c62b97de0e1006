// SPDX-License-Identifier: Apache-2.0
// Decides which sequences run in the next step, and how many tokens of each. Knows nothing of models or devices.
// Policy: static batches. A batch is admitted when the one before it is finished; a sequence is admitted only with
// room for its longest possible length, so it can never run out of KV blocks. All prompts of a batch are run first
// (several per step, within the token budget), then all its sequences decode together, one token each per step.
// A step counts as done for the planning of the next as soon as it is scheduled, so that the next can be scheduled
// while it runs; what it sampled is told later (Advance). A sequence that then turns out to have met a stop token may
// have run one step too many, whose token is dropped. One thread.
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
  int64_t begin = 0;  // the step computes the sequence's tokens [begin, begin + tokens)
  int64_t tokens = 0;
  bool samples = false;  // and samples the one after them

  bool decodes() const { return begin >= static_cast<int64_t>(sequence->request.prompt.size()); }
};

class Scheduler {
 public:
  Scheduler(const SchedulerLimits& limits, BlockPool* pool);

  // The new sequence's id, or why the request can never run.
  Result<int64_t> Add(Request request);
  // The next step; empty when nothing can be done before steps in flight have come back, or at all. Blocks for the
  // step's tokens are in the sequences' tables.
  std::vector<StepItem> Schedule();
  // The oldest step in flight of the item's sequence has come back. `token` is what was sampled for it, or -1 if
  // nothing was. A sequence that is thereby finished gives its blocks back. False if the token came after the
  // sequence's end.
  bool Advance(const StepItem& item, int32_t token);
  // Ends every sequence, waiting or running, and gives all blocks back.
  void Clear();

  // Finished sequences since the last call, in the order in which they finished.
  std::vector<std::unique_ptr<Sequence>> TakeFinished();
  bool idle() const { return waiting_.empty() && running_.empty(); }

 private:
  void Admit();
  StepItem Take(Sequence* sequence, int64_t tokens);
  void Finish(Sequence* sequence);

  SchedulerLimits limits_;
  BlockPool* pool_;
  int64_t next_id_ = 0;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;
  std::vector<std::unique_ptr<Sequence>> finished_;
};

}  // namespace assay
