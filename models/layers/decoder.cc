// SPDX-License-Identifier: Apache-2.0
#include "models/layers/decoder.h"

#include <algorithm>
#include <cmath>

#include "runtime/core/dtype.h"
#include "runtime/core/interrupt.h"

namespace assay {
namespace {

// Activations lie one after the other; every tensor starts on a multiple of this many bytes.
constexpr uint64_t kAlign = 256;

struct ActivationShape {
  int64_t rows, cols;
  assay_dtype dtype;
};

// In the order of Decoder::Activations; config: of the rank's part.
std::vector<ActivationShape> ActivationShapes(const ModelConfig& c, assay_dtype act, const DecoderOptions& o) {
  const int64_t t = o.max_tokens, qkv = (c.heads + 2 * c.kv_heads) * c.head_dim;
  const int64_t own_logits = o.ranks > 1 ? (c.vocab + o.ranks - 1) / o.ranks : 0;
  return {{t, c.hidden, act},
          {t, c.hidden, act},
          {t, c.hidden, act},
          {t, qkv, act},
          {t, c.heads * c.head_dim, act},
          {t, 2 * c.ffn, act},
          {t, c.ffn, act},
          {o.max_logits, c.hidden, act},
          {o.max_logits, own_logits, ASSAY_F32}};
}

uint64_t AlignedBytes(const ActivationShape& s) {
  return (TensorBytes(s.dtype, {s.rows, s.cols}) + kAlign - 1) / kAlign * kAlign;
}

}  // namespace

uint64_t ActivationBytes(const ModelConfig& config, const DTypeChoice& dtypes, const DecoderOptions& options) {
  const ModelConfig own = ConfigOf(config, ShardOf(config, options.rank, options.ranks));
  uint64_t total = 0;
  for (const ActivationShape& s : ActivationShapes(own, dtypes.act, options)) total += AlignedBytes(s);
  return total;
}

Decoder::Decoder(std::shared_ptr<Device> device, Checkpoint* checkpoint, const DTypeChoice& dtypes,
                 const DecoderOptions& options)
    : device_(device),
      shard_(ShardOf(checkpoint->config(), options.rank, options.ranks)),
      config_(ConfigOf(checkpoint->config(), shard_)),
      dtypes_(dtypes),
      options_(options),
      loader_(device, checkpoint, dtypes, shard_) {
  if (config_.head_dim > device->info().max_head_dim) {
    throw Error("device " + device->id() + " takes heads of at most " + std::to_string(device->info().max_head_dim) +
                " dimensions, this model has " + std::to_string(config_.head_dim));
  }
  FillShape(checkpoint);
  AllocateActivations();
  // One buffer for all weights: many small ones would not lie on huge pages, and reading them would be slower.
  layers_offset_ = loader_.OuterBytes();
  uint64_t largest = 0;
  for (int64_t i = 0; i < config_.layers; ++i) largest = std::max(largest, loader_.LayerBytes(i));
  weights_ = Buffer(device, options.stream_layers ? layers_offset_ + largest : loader_.TotalBytes(), false);
  // The largest tensors first: while they are converted and packed, nothing else takes memory yet.
  outer_ = loader_.LoadOuter({&weights_, 0});
  uint64_t offset = layers_offset_;
  for (int64_t i = 0; i < config_.layers && !options.stream_layers; ++i) {
    layers_.push_back(loader_.LoadLayer(i, {&weights_, offset}));
    offset += loader_.LayerBytes(i);
  }
}

void Decoder::FillShape(Checkpoint* checkpoint) {
  const ModelConfig& c = checkpoint->config();
  shape_.layers = c.layers;
  shape_.heads = c.heads;
  shape_.kv_heads = shard_.all_kv_heads;
  shape_.cache_kv_heads = shard_.kv_heads.count;
  shape_.head_dim = c.head_dim;
  shape_.vocab = c.vocab;
  shape_.max_positions = c.max_positions;
  shape_.window = c.window;
  for (int64_t i = 0; i < c.layers; ++i) shape_.windowed_layers += c.Windowed(i);
  for (int r = 0; r < shard_.size; ++r) {
    shape_.step_weight_bytes += WeightLoader(device_, checkpoint, dtypes_, ShardOf(c, r, shard_.size)).StepBytes();
  }
  const int64_t qkv = (c.heads + 2 * shape_.kv_heads) * c.head_dim;
  const int64_t per_layer = c.hidden * (qkv + c.heads * c.head_dim + 3 * c.ffn);
  shape_.head_flops = 2ull * static_cast<uint64_t>(c.vocab * c.hidden);
  shape_.flops_per_token = 2ull * static_cast<uint64_t>(c.layers * per_layer) + shape_.head_flops;
}

void Decoder::AllocateActivations() {
  const auto shapes = ActivationShapes(config_, dtypes_.act, options_);
  uint64_t bytes = 0;
  for (const ActivationShape& s : shapes) bytes += AlignedBytes(s);
  activation_buffer_ = Buffer(device_, bytes, false);
  Activations& a = activations_;
  Tensor* const tensors[] = {&a.residual, &a.x, &a.h, &a.qkv, &a.attn, &a.gate_up, &a.act, &a.head_in, &a.logits};
  uint64_t offset = 0;
  size_t i = 0;
  for (const ActivationShape& s : shapes) {
    *tensors[i++] = MakeTensor(activation_buffer_.handle(), offset, s.dtype, {s.rows, s.cols});
    offset += AlignedBytes(s);
  }
}

Decoder::Activations Decoder::Cut(int64_t tokens, int64_t logits) const {
  Activations a = activations_;
  for (Tensor* t : {&a.residual, &a.x, &a.h, &a.qkv, &a.attn, &a.gate_up, &a.act}) *t = t->Rows(0, tokens);
  a.head_in = a.head_in.Rows(0, logits);
  a.logits = a.logits.Rows(0, logits);
  return a;
}

void Decoder::Linear(Ops& ops, const Tensor& x, const LinearWeights& w, const Tensor& y, const char* label) const {
  for (const LinearWeights::Part& part : w.parts) {
    const Tensor out = y.Columns(part.begin, part.w.dim(0));
    ops.Linear(x, part.w, part.bias ? &*part.bias : nullptr, out, dtypes_.compute, label);
  }
}

void Decoder::Attention(Ops& ops, const LayerWeights& w, int64_t layer, const StepTensors& step, const KvCache& kv,
                        const Activations& a) {
  const ModelConfig& c = config_;
  const int64_t q_cols = c.heads * c.head_dim, kv_cols = c.kv_heads * c.head_dim;
  Linear(ops, a.x, w.qkv, a.qkv, "linear qkv");
  const Tensor q = a.qkv.Columns(0, q_cols).Heads(c.heads, c.head_dim);
  const Tensor k = a.qkv.Columns(q_cols, kv_cols).Heads(c.kv_heads, c.head_dim);
  const Tensor v = a.qkv.Columns(q_cols + kv_cols, kv_cols).Heads(c.kv_heads, c.head_dim);
  const bool windowed = c.Windowed(layer);
  ops.QkNormRopeKvWrite(q, k, v, step.positions, step.slots, c.qk_norm ? &*w.q_norm : nullptr,
                        c.qk_norm ? &*w.k_norm : nullptr, outer_.rope_freqs ? &*outer_.rope_freqs : nullptr,
                        kv.k[layer], kv.v[layer], c.norm_eps, windowed && c.window_rope ? *c.window_rope : c.rope,
                        kv.layout, kv.block_size);

  assay_attn_desc attn{};
  attn.struct_size = sizeof(attn);
  attn.op = ASSAY_OP_ATTN_PAGED;
  attn.layout = kv.layout;
  attn.block_size = kv.block_size;
  attn.scale = c.attn_scale != 0.0f ? c.attn_scale : 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  attn.window = windowed ? c.window : 0;
  ops.AttnPaged(q, kv.k[layer], kv.v[layer], step.block_table, step.q_offsets, step.kv_lens,
                a.attn.Heads(c.heads, c.head_dim), attn);
  Linear(ops, a.attn, w.o, a.h, "linear o");
  if (!shard_.whole()) ops.AllReduce(a.h);
  if (w.attn_post_norm) ops.RmsNorm(a.h, *w.attn_post_norm, a.h, c.norm_eps);
}

void Decoder::Mlp(Ops& ops, const LayerWeights& w, const Activations& a) {
  Linear(ops, a.x, w.gate_up, a.gate_up, "linear gate_up");
  ops.Glu(a.gate_up, a.act, config_.gelu ? ASSAY_GLU_GELU_TANH : ASSAY_GLU_SILU);
  Linear(ops, a.act, w.down, a.h, "linear down");
  if (!shard_.whole()) ops.AllReduce(a.h);
  if (w.mlp_post_norm) ops.RmsNorm(a.h, *w.mlp_post_norm, a.h, config_.norm_eps);
}

void Decoder::Forward(Ops& ops, const StepTensors& step, const KvCache& kv, const Tensor& logits) {
  const Activations a = Cut(step.ids.dim(0), logits.dim(0));
  const float eps = config_.norm_eps;
  ops.Embed(step.ids, outer_.embedding, a.residual);
  if (config_.embed_scale != 1.0f) ops.Scale(a.residual, config_.embed_scale);
  for (int64_t i = 0; i < config_.layers; ++i) {
    LayerWeights streamed;
    if (options_.stream_layers) {
      ThrowIfInterrupted();
      ops.stream().Synchronize();  // the layer before is still being read until here
      streamed = loader_.LoadLayer(i, {ops.mode() == Ops::Mode::kCheck ? nullptr : &weights_, layers_offset_});
    }
    const LayerWeights& w = options_.stream_layers ? streamed : layers_[i];
    if (i == 0) {
      ops.RmsNorm(a.residual, w.attn_norm, a.x, eps);
    } else {
      ops.AddRmsNorm(a.h, w.attn_norm, a.residual, a.x, eps);
    }
    Attention(ops, w, i, step, kv, a);
    ops.AddRmsNorm(a.h, w.mlp_norm, a.residual, a.x, eps);
    Mlp(ops, w, a);
  }
  if (logits.dim(0) == 0) return;
  ops.AddRmsNorm(a.h, outer_.final_norm, a.residual, a.x, eps);
  ops.GatherRows(a.x, step.logit_rows, a.head_in);
  if (shard_.whole()) return Linear(ops, a.head_in, outer_.head, logits, "linear head");
  Linear(ops, a.head_in, outer_.head, a.logits, "linear head");
  ops.AllGather(a.logits, logits);
}

}  // namespace assay
