// SPDX-License-Identifier: Apache-2.0
// Runs one step of a set of sequences on a device: stages the step's inputs, runs the model's operations (decode
// steps as recorded plans, one per batch bucket), samples on the device, and brings the tokens back.
// Owns the model, the KV cache, the staging buffers and the plans. One thread.
// On several ranks each has an Executor with its part of the model: the leader's Run and RecordPlan send the others
// what their Follow needs.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <vector>

#include "runtime/engine/model.h"
#include "runtime/engine/recorded_step.h"
#include "runtime/engine/step_inputs.h"
#include "runtime/sched/scheduler.h"

namespace assay {

struct ExecutorOptions {
  int64_t max_tokens = 512;                 // tokens per step
  int64_t max_seqs = 1;                     // sequences per step, at most max_tokens
  int64_t max_context = 2048;               // tokens per sequence
  assay_dtype kv_dtype = ASSAY_DTYPE_NONE;  // NONE: what the device prefers
  bool prompt_logprobs = false;             // logits for every token of a step, not only for the last of a sequence
  int32_t top_logprobs = 0;                 // the most alternatives that a request may ask for
};

// The KV cache that these options lead to on this device.
struct KvPlan {
  assay_dtype dtype;
  assay_kv_layout layout;
  int32_t block_size;
  int32_t blocks;  // for max_seqs sequences of max_context tokens
  int64_t blocks_per_seq;
  uint64_t bytes;         // K and V of all layers
  uint64_t tensor_bytes;  // K or V of one layer, aligned
};
KvPlan PlanKv(const assay_device_info& info, const ExecutorOptions& options, int64_t layers, int64_t kv_heads,
              int64_t head_dim);

struct StepResult {
  std::vector<int32_t> tokens;  // one per item; -1 where nothing was sampled
};

// A step that was launched and has not come back.
struct Flight {
  std::vector<StepItem> items;
  StepInputs::Fill fill;
  int32_t top = -1;  // the most log-probabilities that one of them asked for
  int slot = 0;      // where its results arrive
};

class Executor {
 public:
  // comm: null for one rank.
  Executor(std::shared_ptr<Device> device, std::unique_ptr<Model> model, const ExecutorOptions& options,
           std::shared_ptr<Communicator> comm = nullptr);
  ~Executor();

  // Starts a step; the blocks of its items are in the sequences' tables. At most kFlights may be under way, and a token
  // that an item needs may be in flight only if looks_ahead().
  Flight Launch(std::vector<StepItem> items);
  // Waits for the oldest one. Appends log-probabilities to the sequences that asked for them; the sampled tokens are
  // returned, not stored.
  StepResult Land(const Flight& flight);
  static constexpr int kFlights = 2;
  // Whether a step can take the tokens of the step before from the device, so that the host need not wait between them.
  // Only where work is asynchronous; and ranks sample on one of them alone.
  bool looks_ahead() const { return looks_ahead_ && ops_.mode() != Ops::Mode::kProfile; }

  // On the ranks that do not lead: does what the leader's message of kind kStep or kRecord says.
  void Follow(const Message& message);

  const KvPlan& kv_plan() const { return kv_plan_; }
  const Model& model() const { return *model_; }
  Ops& ops() { return ops_; }
  Stream& stream() { return stream_; }
  const ExecutorOptions& options() const { return options_; }
  // Records the plan that decode steps of `sequences` sequences use, so that no measured step pays for it.
  void RecordPlan(int64_t sequences);

 private:
  void AllocateKv();
  void Check();
  void Sample(const StepInputs& inputs, int64_t samples);
  // The sizes of a step, as every rank needs them.
  struct StepSizes {
    int64_t tokens, seqs, logits;
    int64_t samples;  // by the leader alone
    int32_t decode;   // 1: in the decode inputs
    int32_t planned;  // 1: by its recorded plan
  };
  StepSizes DecodeSizes(int64_t bucket) const;
  StepInputs& InputsOf(const StepSizes& sizes) { return sizes.decode ? *decode_inputs_ : *prompt_inputs_; }
  void Enqueue(const StepSizes& sizes);
  RecordedStep& Recorded(int64_t bucket);
  void RunModel(const StepSizes& sizes, const assay_host_lengths* lengths);
  void RunLogprobs(const StepInputs& inputs, int64_t sampled, int64_t samples, int64_t prompt_rows);
  void Fetch(const Flight& flight);

  std::shared_ptr<Device> device_;
  std::shared_ptr<Communicator> comm_;
  Stream stream_;
  std::unique_ptr<Model> model_;
  ExecutorOptions options_;
  KvPlan kv_plan_;
  Ops ops_;
  Buffer kv_buffer_;
  KvCache kv_;
  int64_t max_logits_;
  bool looks_ahead_;
  Buffer logits_buffer_;
  Tensor logits_;  // [max_logits, V] f32
  // What a step gives: sampled ids and their log-probabilities [max_logits], the most likely ones [max_logits, K].
  struct Outputs {
    Tensor ids, logprob, top_ids, top_logprobs;
  };
  Outputs PlaceOutputs(bool host, Buffer* buffer) const;
  Buffer output_buffer_, result_buffers_[kFlights];
  Outputs outputs_, results_[kFlights];  // on the device; in host memory, by slot
  std::unique_ptr<Event> arrived_[kFlights];
  int next_slot_ = 0;
  std::unique_ptr<StepInputs> decode_inputs_, prompt_inputs_;
  std::map<int64_t, std::unique_ptr<RecordedStep>> plans_;  // by bucket
};

// The batch size that a decode step of `sequences` is padded to: exact up to 8, then multiples of 8 (at most 7
// sequences are padding), so that few plans serve all sizes.
int64_t DecodeBucket(int64_t sequences, int64_t max_seqs);

}  // namespace assay
