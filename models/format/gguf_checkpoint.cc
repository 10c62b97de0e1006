// SPDX-License-Identifier: Apache-2.0
#include "models/format/gguf_checkpoint.h"

#include <cmath>
#include <filesystem>
#include <utility>

#include "models/format/gguf.h"
#include "models/format/layout.h"
#include "models/format/mapped_checkpoint.h"
#include "models/format/printable.h"
#include "runtime/core/error.h"

namespace assay {
namespace {

using TensorMap = std::unordered_map<std::string_view, const GgufTensor*>;

// "model.layers.3.self_attn.q_proj.bias" -> "blk.3.attn_q.bias"
std::string GgufName(const std::string& name, const ModelConfig& config) {
  static constexpr std::pair<std::string_view, std::string_view> kParts[] = {
      {"input_layernorm", "attn_norm"},
      {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},
      {"self_attn.o_proj", "attn_output"},
      {"self_attn.q_norm", "attn_q_norm"},
      {"self_attn.k_norm", "attn_k_norm"},
      {"pre_feedforward_layernorm", "ffn_norm"},
      {"mlp.gate_proj", "ffn_gate"},
      {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"},
      {"post_feedforward_layernorm", "post_ffw_norm"},
      {"post_attention_layernorm", "post_attention_norm"},
  };
  if (name == kEmbedName) return "token_embd.weight";
  if (name == "model.norm.weight") return "output_norm.weight";
  if (name == kHeadName) return "output.weight";
  const size_t layer = std::string_view("model.layers.").size();
  const size_t part = name.find('.', layer) + 1;
  const size_t kind = name.rfind('.');
  std::string_view middle = std::string_view(name).substr(part, kind - part);
  // Without norms behind attention, Hugging Face's name means the one before the MLP.
  if (middle == "post_attention_layernorm" && !config.post_norms) middle = "pre_feedforward_layernorm";
  for (const auto& [hf, gguf] : kParts) {
    if (middle == hf) return "blk." + name.substr(layer, part - layer) + std::string(gguf) + name.substr(kind);
  }
  ASSAY_CHECK(false);
  return "";
}

// Metadata under the architecture's own prefix ("llama.block_count").
class ArchKeys {
 public:
  ArchKeys(const GgufFile& file, std::string arch) : file_(file), prefix_(std::move(arch) + ".") {}

  std::string Key(const char* key) const { return prefix_ + key; }
  std::optional<int64_t> Int(const char* key) const { return file_.Int(Key(key)); }
  std::optional<double> Number(const char* key) const { return file_.Number(Key(key)); }
  std::optional<std::string_view> String(const char* key) const { return file_.String(Key(key)); }
  int64_t NeededInt(const char* key) const {
    const auto v = Int(key);
    if (!v) Missing(key);
    return *v;
  }
  double NeededNumber(const char* key) const {
    const auto v = Number(key);
    if (!v) Missing(key);
    return *v;
  }
  [[noreturn]] void Fail(const char* key, const std::string& what) const {
    throw Error(file_.path() + ": metadata " + Key(key) + ": " + what);
  }

 private:
  [[noreturn]] void Missing(const char* key) const { Fail(key, "is missing: convert the model again"); }

  const GgufFile& file_;
  std::string prefix_;
};

Family FamilyOf(const GgufFile& file, std::string* arch) {
  const auto value = file.String("general.architecture");
  if (!value) throw Error(file.path() + ": metadata general.architecture is missing");
  *arch = std::string(*value);
  if (*arch == "llama") return Family::kLlama;
  if (*arch == "qwen2") return Family::kQwen2;
  if (*arch == "qwen3") return Family::kQwen3;
  if (*arch == "gemma3") return Family::kGemma3;
  throw Error(file.path() + ": architecture \"" + Printable(*arch) +
              "\" is not supported (supported: llama, qwen2, qwen3, gemma3)");
}

void ReadSizes(const ArchKeys& keys, ModelConfig* c) {
  c->hidden = keys.NeededInt("embedding_length");
  c->layers = keys.NeededInt("block_count");
  c->ffn = keys.NeededInt("feed_forward_length");
  c->heads = keys.NeededInt("attention.head_count");
  c->kv_heads = keys.Int("attention.head_count_kv").value_or(c->heads);
  c->max_positions = keys.NeededInt("context_length");
  c->norm_eps = static_cast<float>(keys.NeededNumber("attention.layer_norm_rms_epsilon"));
  if (const auto key_length = keys.Int("attention.key_length")) {
    c->head_dim = *key_length;
  } else {
    if (c->heads < 1 || c->hidden % c->heads != 0) {
      keys.Fail("embedding_length", "is not a multiple of attention.head_count, and there is no attention.key_length");
    }
    c->head_dim = c->hidden / c->heads;
  }
  if (keys.Int("attention.value_length").value_or(c->head_dim) != c->head_dim) {
    keys.Fail("attention.value_length", "differs from the length of keys, which is not supported");
  }
  if (keys.Int("expert_count").value_or(0) != 0) {
    keys.Fail("expert_count", "is not 0: mixtures of experts are not supported");
  }
  const int64_t window = keys.Int("attention.sliding_window").value_or(0);
  if (window < 0 || window > INT32_MAX) keys.Fail("attention.sliding_window", "is out of range");
  c->window = static_cast<int32_t>(window);
}

void ReadRope(const ArchKeys& keys, ModelConfig* c) {
  assay_rope_desc* r = &c->rope;
  *r = {sizeof(assay_rope_desc), ASSAY_OP_ROPE, 0, 0, 10000.0f, ASSAY_ROPE_NONE, 1, 1, 4, 8192, 32, 1, 1};
  const int64_t rotary = keys.Int("rope.dimension_count").value_or(c->head_dim);
  if (rotary < 2 || rotary > c->head_dim) keys.Fail("rope.dimension_count", "does not suit the head's dimension");
  r->rotary_dim = static_cast<int32_t>(rotary);
  r->interleaved = c->family == Family::kLlama;
  r->theta = static_cast<float>(keys.Number("rope.freq_base").value_or(10000.0));
  r->original_context = static_cast<float>(
      keys.Number("rope.scaling.original_context_length").value_or(static_cast<double>(c->max_positions)));
  const char* factor_key = keys.Number("rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear";
  const double factor = keys.Number(factor_key).value_or(1.0);
  const std::string_view type = keys.String("rope.scaling.type").value_or(factor == 1.0 ? "none" : "linear");
  if (type == "linear") {
    r->scaling = ASSAY_ROPE_LINEAR;
    r->factor = static_cast<float>(factor);
  } else if (type == "yarn") {
    r->scaling = ASSAY_ROPE_YARN;
    r->factor = static_cast<float>(factor);
    r->beta_fast = static_cast<float>(keys.Number("rope.scaling.yarn_beta_fast").value_or(32.0));
    r->beta_slow = static_cast<float>(keys.Number("rope.scaling.yarn_beta_slow").value_or(1.0));
    const double given = keys.Number("rope.scaling.attn_factor").value_or(1.0);
    r->attn_factor = static_cast<float>(given * (factor > 1.0 ? 0.1 * std::log(factor) + 1.0 : 1.0));
  } else if (type != "none") {
    keys.Fail("rope.scaling.type", Printable(type) + " is not supported (supported: none, linear, yarn)");
  }
}

// What a Gemma 3 file leaves unsaid is as llama.cpp has it. Its norms hold whole weights, unlike Hugging Face's.
void ReadGemma(const ArchKeys& keys, ModelConfig* c) {
  c->qk_norm = c->post_norms = c->gelu = true;
  c->embed_scale = std::sqrt(static_cast<float>(c->hidden));
  if (c->layers == 62) {  // the 27 B model: by the width over the heads, not by their dimension
    c->attn_scale = 1.0f / std::sqrt(static_cast<float>(c->hidden / c->heads));
  }
  for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping"}) {
    if (keys.Number(key).value_or(0.0) != 0.0) keys.Fail(key, "soft-capping is not supported");
  }
  if (c->window == 0) return;
  c->full_every = keys.Int("attention.sliding_window_pattern").value_or(6);
  c->window_rope = c->rope;
  c->window_rope->theta = static_cast<float>(keys.Number("rope.freq_base_swa").value_or(10000.0));
  c->window_rope->scaling = ASSAY_ROPE_NONE;
  c->window_rope->factor = c->window_rope->attn_factor = 1.0f;
}

void ReadTokenIds(const GgufFile& file, ModelConfig* c) {
  const auto id_of = [&](const char* key) {
    const int64_t id = file.Int(key).value_or(-1);
    if (id > INT32_MAX) throw Error(file.path() + ": metadata " + key + " is out of range");
    return static_cast<int32_t>(id < 0 ? -1 : id);
  };
  c->bos_id = id_of("tokenizer.ggml.bos_token_id");
  for (const char* key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    if (const int32_t id = id_of(key); id >= 0) c->eos_ids.push_back(id);
  }
}

std::vector<int64_t> ShapeOf(const GgufTensor& tensor) {
  std::vector<int64_t> shape;
  for (uint32_t d = tensor.ndim; d > 0; --d) shape.push_back(static_cast<int64_t>(tensor.dims[d - 1]));
  return shape;
}

ModelConfig ReadConfig(const GgufFile& file, const TensorMap& tensors) {
  ModelConfig c;
  c.family = FamilyOf(file, &c.architecture);
  const ArchKeys keys(file, c.architecture);
  const auto name = file.String("general.name");
  c.name = name && !name->empty() ? Printable(*name) : std::filesystem::path(file.path()).stem().string();
  ReadSizes(keys, &c);
  const auto embed = tensors.find("token_embd.weight");
  if (embed == tensors.end())
    throw Error(file.path() + ": tensor token_embd.weight is missing: this is no language model");
  c.vocab = ShapeOf(*embed->second).front();
  // What the metadata does not say, the presence of tensors does.
  const auto has = [&](const char* tensor) { return tensors.count(tensor) != 0; };
  c.tied_embeddings = !has("output.weight");
  c.qkv_bias = has("blk.0.attn_q.bias");
  c.o_bias = has("blk.0.attn_output.bias");
  c.mlp_bias = has("blk.0.ffn_gate.bias");
  c.qk_norm = c.family == Family::kQwen3;
  ReadRope(keys, &c);
  if (c.family == Family::kGemma3) {
    CheckConfig(c, file.path());  // sizes, before they are divided by
    ReadGemma(keys, &c);
  }
  ReadTokenIds(file, &c);
  CheckConfig(c, file.path());
  return c;
}

class GgufCheckpoint : public MappedCheckpoint {
 public:
  explicit GgufCheckpoint(const std::string& path) : gguf_(path) {
    path_ = path;
    tokenizer_source_ = path;
    TensorMap tensors;
    for (const GgufTensor& t : gguf_.tensors()) tensors.emplace(t.name, &t);
    config_ = ReadConfig(gguf_, tensors);
    std::unordered_map<std::string, Place> places;
    for (const TensorInfo& wanted : LayoutOf(config_)) {
      const std::string name = GgufName(wanted.name, config_);
      const auto found = tensors.find(name);
      if (found == tensors.end()) {
        throw Error(path + ": tensor " + name + " " + ShapeText(wanted.shape) +
                    " is missing: the file is damaged or was badly converted");
      }
      places.emplace(wanted.name, PlaceOf(*found->second));
    }
    if (const auto freqs = tensors.find(kRopeFreqsName); freqs != tensors.end()) {
      places.emplace(kRopeFreqsName, PlaceOf(*freqs->second));
    }
    Adopt(std::move(places));
  }

 protected:
  std::vector<const MappedFile*> Files() const override { return {&gguf_.file()}; }

 private:
  Place PlaceOf(const GgufTensor& t) const {
    if (t.type->dtype == ASSAY_DTYPE_NONE) {
      throw Error(
          path_ + ": tensor " + Printable(t.name) + " is of type " + t.type->name +
          ", which is not supported (supported: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K): "
          "make another file from the original model with llama-quantize, for example of type Q8_0");
    }
    return {&gguf_.file(), std::string(t.name), t.type->dtype, ShapeOf(t), gguf_.data_offset() + t.offset, t.bytes};
  }

  GgufFile gguf_;
};

}  // namespace

std::unique_ptr<Checkpoint> OpenGgufCheckpoint(const std::string& path) {
  return std::make_unique<GgufCheckpoint>(path);
}

}  // namespace assay
