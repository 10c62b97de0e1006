// SPDX-License-Identifier: Apache-2.0
// What the engine needs of a model: its shape, and its forward pass as operations on a ragged batch with a paged
// KV cache. A Model owns its weights and activations on one device. One thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "runtime/engine/ops.h"

namespace assay {

struct ModelShape {
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;        // in the caches of all ranks together
  int64_t cache_kv_heads = 0;  // in this rank's cache
  int64_t head_dim = 0;
  int64_t vocab = 0;
  int64_t max_positions = 0;  // 0: unknown
  int32_t window = 0;         // sliding window of some layers
  int64_t windowed_layers = 0;
  // Of one decode step, over all ranks: bytes of the weights that every step reads (layers and head, as packed), and
  // the floating point operations per token of all matrix products (2 per weight), attention apart.
  uint64_t step_weight_bytes = 0;
  uint64_t flops_per_token = 0;
  uint64_t head_flops = 0;  // the part of flops_per_token that only tokens with logits need

  // Cached positions that attention reads for one query at the end of a context of kv_len tokens, summed over layers.
  int64_t AttendedPositions(int64_t kv_len) const {
    return (layers - windowed_layers) * kv_len + windowed_layers * std::min<int64_t>(kv_len, window);
  }
  // Floating point operations of that query's attention: scores and weighted sum, 2 per multiply-add.
  uint64_t AttentionFlops(int64_t kv_len) const {
    return static_cast<uint64_t>(4 * heads * head_dim * AttendedPositions(kv_len));
  }
};

// The inputs of one step on the device: T tokens of S sequences, logits wanted for L of the tokens.
struct StepTensors {
  Tensor ids;          // [T] i32
  Tensor positions;    // [T] i32
  Tensor slots;        // [T] i32, -1 for padding
  Tensor q_offsets;    // [S+1] i32
  Tensor kv_lens;      // [S] i32, this step's tokens included; 0 for padding
  Tensor block_table;  // [S, B] i32
  Tensor logit_rows;   // [L] i32, rows of the step's tokens; -1 for padding
};

struct KvCache {
  assay_kv_layout layout = ASSAY_KV_HND;
  int32_t block_size = 0;
  std::vector<Tensor> k, v;  // per layer, [blocks, Hkv, block_size, D] or [blocks, block_size, Hkv, D]
};

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelShape& shape() const = 0;
  // logits: [L, V] f32.
  virtual void Forward(Ops& ops, const StepTensors& step, const KvCache& kv, const Tensor& logits) = 0;
};

}  // namespace assay
