// SPDX-License-Identifier: Apache-2.0
#include "models/format/layout.h"

#include <cmath>

#include "runtime/core/error.h"

namespace assay {
namespace {

void CheckSize(const std::string& where, const char* what, int64_t value, int64_t most) {
  if (value < 1 || value > most) {
    throw Error(where + ": " + what + " is " + std::to_string(value) + "; it must be from 1 to " +
                std::to_string(most));
  }
}

void CheckPositive(const std::string& where, const char* what, float value) {
  if (!std::isfinite(value) || value <= 0.0f) {
    throw Error(where + ": " + what + " is " + std::to_string(value) + "; it must be a positive number");
  }
}

void CheckRope(const ModelConfig& c, const assay_rope_desc& r, const std::string& where) {
  if (r.rotary_dim < 2 || r.rotary_dim % 2 != 0 || r.rotary_dim > c.head_dim) {
    throw Error(where + ": rotary dimension " + std::to_string(r.rotary_dim) + " must be even and at most the head's " +
                std::to_string(c.head_dim));
  }
  CheckPositive(where, "rope theta", r.theta);
  CheckPositive(where, "rope scaling factor", r.factor);
  CheckPositive(where, "rope attention factor", r.attn_factor);
  if (r.scaling == ASSAY_ROPE_LLAMA3) {
    CheckPositive(where, "rope low_freq_factor", r.low_freq_factor);
    CheckPositive(where, "rope high_freq_factor - low_freq_factor", r.high_freq_factor - r.low_freq_factor);
  }
  if (r.scaling == ASSAY_ROPE_YARN) {
    if (r.theta <= 1.0f) throw Error(where + ": rope theta must be above 1 for yarn scaling");
    CheckPositive(where, "rope beta_slow", r.beta_slow);
    CheckPositive(where, "rope beta_fast - beta_slow", r.beta_fast - r.beta_slow);
  }
  if (r.scaling == ASSAY_ROPE_LLAMA3 || r.scaling == ASSAY_ROPE_YARN) {
    CheckPositive(where, "rope original context", r.original_context);
  }
}

}  // namespace

const char* FamilyName(Family family) {
  switch (family) {
    case Family::kLlama:
      return "llama";
    case Family::kMistral:
      return "mistral";
    case Family::kQwen2:
      return "qwen2";
    case Family::kQwen3:
      return "qwen3";
    case Family::kGemma3:
      return "gemma3";
  }
  return "unknown";
}

uint64_t ModelConfig::Parameters() const {
  uint64_t sum = 0;
  for (const TensorInfo& tensor : LayoutOf(*this)) {
    uint64_t elements = 1;
    for (const int64_t dim : tensor.shape) elements *= static_cast<uint64_t>(dim);
    sum += elements;
  }
  return sum;
}

void CheckConfig(const ModelConfig& c, const std::string& where) {
  CheckSize(where, "hidden size", c.hidden, 1 << 20);
  CheckSize(where, "number of layers", c.layers, 1 << 12);
  CheckSize(where, "number of attention heads", c.heads, 1 << 12);
  CheckSize(where, "number of key/value heads", c.kv_heads, 1 << 12);
  CheckSize(where, "head dimension", c.head_dim, 1 << 12);
  CheckSize(where, "feed-forward size", c.ffn, 1 << 24);
  CheckSize(where, "vocabulary size", c.vocab, 1 << 24);
  CheckSize(where, "number of positions", c.max_positions, INT32_MAX);
  if (c.heads % c.kv_heads != 0) {
    throw Error(where + ": " + std::to_string(c.heads) + " attention heads are not a multiple of " +
                std::to_string(c.kv_heads) + " key/value heads");
  }
  if (!std::isfinite(c.norm_eps) || c.norm_eps < 0.0f) throw Error(where + ": the norm's epsilon must not be negative");
  if (c.window < 0) throw Error(where + ": the sliding window is " + std::to_string(c.window));
  if (c.full_every < 0) throw Error(where + ": each " + std::to_string(c.full_every) + "th layer is to have no window");
  if (c.attn_scale != 0.0f) CheckPositive(where, "the scale of attention scores", c.attn_scale);
  CheckRope(c, c.rope, where);
  if (c.window_rope) CheckRope(c, *c.window_rope, where);
}

std::vector<TensorInfo> LayoutOf(const ModelConfig& c) {
  const int64_t q = c.heads * c.head_dim;
  const int64_t kv = c.kv_heads * c.head_dim;
  std::vector<TensorInfo> out;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    out.push_back({name, ASSAY_DTYPE_NONE, std::move(shape), 0});
  };
  const auto linear = [&](const std::string& name, int64_t rows, int64_t cols, bool bias) {
    add(name + ".weight", {rows, cols});
    if (bias) add(name + ".bias", {rows});
  };
  add(kEmbedName, {c.vocab, c.hidden});
  for (int64_t i = 0; i < c.layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    add(layer + "input_layernorm.weight", {c.hidden});
    linear(layer + "self_attn.q_proj", q, c.hidden, c.qkv_bias);
    linear(layer + "self_attn.k_proj", kv, c.hidden, c.qkv_bias);
    linear(layer + "self_attn.v_proj", kv, c.hidden, c.qkv_bias);
    if (c.qk_norm) {
      add(layer + "self_attn.q_norm.weight", {c.head_dim});
      add(layer + "self_attn.k_norm.weight", {c.head_dim});
    }
    linear(layer + "self_attn.o_proj", c.hidden, q, c.o_bias);
    add(layer + "post_attention_layernorm.weight", {c.hidden});
    if (c.post_norms) add(layer + "pre_feedforward_layernorm.weight", {c.hidden});
    linear(layer + "mlp.gate_proj", c.ffn, c.hidden, c.mlp_bias);
    linear(layer + "mlp.up_proj", c.ffn, c.hidden, c.mlp_bias);
    linear(layer + "mlp.down_proj", c.hidden, c.ffn, c.mlp_bias);
    if (c.post_norms) add(layer + "post_feedforward_layernorm.weight", {c.hidden});
  }
  add("model.norm.weight", {c.hidden});
  if (!c.tied_embeddings) add(kHeadName, {c.vocab, c.hidden});
  return out;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace assay
