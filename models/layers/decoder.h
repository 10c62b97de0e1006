// SPDX-License-Identifier: Apache-2.0
// The dense decoder that the families Llama, SmolLM2, Mistral, Qwen2, Qwen3 and Gemma 3 share (pre-norm, rotary
// positions, grouped-query attention, gated MLP); what differs between them is in ModelConfig. Owns its weights and
// activations. One thread.
#pragma once

#include <memory>
#include <vector>

#include "models/layers/weights.h"
#include "runtime/engine/model.h"

namespace assay {

struct DecoderOptions {
  int64_t max_tokens = 0;  // per step
  int64_t max_logits = 0;  // rows of logits per step
  // Keeps one layer on the device at a time and reads it from the checkpoint again in every step. For the reference
  // run beside a resident model: the memory of a second copy would falsify what is measured.
  bool stream_layers = false;
  int rank = 0, ranks = 1;  // which part of a model that is split over ranks (shard.h)
};

class Decoder : public Model {
 public:
  // The checkpoint must outlive the model only if stream_layers is set.
  Decoder(std::shared_ptr<Device> device, Checkpoint* checkpoint, const DTypeChoice& dtypes,
          const DecoderOptions& options);

  const ModelShape& shape() const override { return shape_; }
  void Forward(Ops& ops, const StepTensors& step, const KvCache& kv, const Tensor& logits) override;

 private:
  struct Activations {
    Tensor residual, x, h;  // [T, hidden]
    Tensor qkv;             // [T, (Hq + 2 Hkv) * D]
    Tensor attn;            // [T, Hq * D]
    Tensor gate_up;         // [T, 2 * ffn]
    Tensor act;             // [T, ffn]
    Tensor head_in;         // [L, hidden]
    Tensor logits;          // [L, vocab / ranks], rounded up: this rank's; unused by a whole model
  };
  void FillShape(Checkpoint* checkpoint);
  void AllocateActivations();
  Activations Cut(int64_t tokens, int64_t logits) const;
  void Attention(Ops& ops, const LayerWeights& w, int64_t layer, const StepTensors& step, const KvCache& kv,
                 const Activations& a);
  void Mlp(Ops& ops, const LayerWeights& w, const Activations& a);
  void Linear(Ops& ops, const Tensor& x, const LinearWeights& w, const Tensor& y, const char* label) const;

  std::shared_ptr<Device> device_;
  Shard shard_;
  ModelConfig config_;  // of this rank's part
  DTypeChoice dtypes_;
  DecoderOptions options_;
  WeightLoader loader_;
  ModelShape shape_;
  Buffer weights_;  // all of them, or what lies outside the layers and room for one layer if they are streamed
  uint64_t layers_offset_ = 0;  // where in it the layers begin
  Buffer activation_buffer_;
  OuterWeights outer_;
  std::vector<LayerWeights> layers_;  // empty if layers are streamed
  Activations activations_;           // at their largest
};

// Device bytes of the activations that a decoder with these options needs; config: the whole model's.
uint64_t ActivationBytes(const ModelConfig& config, const DTypeChoice& dtypes, const DecoderOptions& options);

}  // namespace assay
