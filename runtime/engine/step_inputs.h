// SPDX-License-Identifier: Apache-2.0
// The inputs of a step: one host block and its mirror on the device, at fixed addresses, so that recorded plans find
// them and one copy brings all of them over. Token ids may come from the step before, which still runs: its samples lie
// in front of the mirror, and a gather takes each id from there or from what the host gave (`given`). One thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/engine/model.h"
#include "runtime/sched/scheduler.h"

namespace assay {

// Capacity of a block of inputs.
struct StepCapacity {
  int64_t tokens, seqs, logits, blocks_per_seq;
};

// How many of the item's tokens want a prompt log-probability: those whose successor is also of the prompt.
int64_t PromptRows(const StepItem& item);

class StepInputs {
 public:
  StepInputs(std::shared_ptr<Device> device, const StepCapacity& capacity);

  // Where the rows of logits of one step go: first one per sampled item, then those of prompt log-probabilities.
  struct Fill {
    int64_t tokens = 0, seqs = 0, samples = 0, prompt_rows = 0;
    std::vector<int32_t> sample_of_item;       // per item, its row among the samples, or -1
    std::vector<int64_t> prompt_rows_of_item;  // per item
  };
  // Fills the host block. padded_seqs >= items.size(): the rest is padding of one token each (decode buckets); 0 for
  // no padding.
  Fill Stage(std::span<const StepItem> items, int32_t block_size, int64_t padded_seqs);
  void Upload(Stream& stream);
  // The host block as it is, for another rank with inputs of the same capacity, and there in place of Stage.
  std::span<const uint8_t> host() const { return host_; }
  void Adopt(std::span<const uint8_t> host, int64_t seqs);
  assay_host_lengths HostLengths() const;

  // Device views cut to a step's sizes.
  StepTensors Tensors(int64_t tokens, int64_t seqs, int64_t logits) const;
  struct SamplingTensors {
    Tensor temperature, top_k, top_p, min_p, seed, step;
  };
  SamplingTensors Sampling(int64_t samples) const;
  Tensor Targets(int64_t begin, int64_t count) const { return targets_.tensor.Rows(begin, count); }
  Tensor Samples() const { return samples_.tensor; }  // [logits] i32, written by the device
  // The gather that makes ids: rows of one word, which F32 moves as they are.
  struct IdTensors {
    Tensor words;  // [N, 1]: samples and given ids
    Tensor index;  // [T]
    Tensor ids;    // [T, 1]
  };
  IdTensors Ids(int64_t tokens) const;

 private:
  struct Field {
    Tensor tensor;
    uint8_t* host = nullptr;
    template <class T>
    T* as() const {
      return reinterpret_cast<T*>(host);
    }
  };
  void StageItem(const StepItem& item, int64_t s, int32_t block_size, Fill* fill);
  void StageSampling(const StepItem& item, int64_t row);

  StepCapacity capacity_;
  std::vector<uint8_t> host_;
  Buffer device_;
  uint64_t uploads_from_ = 0;  // behind the samples
  Field samples_, given_, index_, ids_, positions_, slots_, q_offsets_, kv_lens_, block_table_, logit_rows_, targets_;
  Field temperature_, top_k_, top_p_, min_p_, seed_, step_;
  int64_t staged_seqs_ = 0;
};

}  // namespace assay
