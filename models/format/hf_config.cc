// SPDX-License-Identifier: Apache-2.0
#include "models/format/hf_config.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>

#include "models/format/hf_quantization.h"
#include "models/format/json_file.h"
#include "models/format/layout.h"
#include "models/format/printable.h"
#include "runtime/core/error.h"

namespace assay {
namespace {

using nlohmann::json;

// One object of a config file, with typed access. null counts as absent.
class Fields {
 public:
  Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {}

  [[noreturn]] void Fail(const std::string& what) const { throw Error(where_ + ": " + what); }
  bool Mentions(const char* key) const { return object_.contains(key); }  // even as null
  const json* Find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  std::optional<int64_t> Int(const char* key) const {
    const json* v = Find(key);
    if (v == nullptr) return std::nullopt;
    return AsInt(*v, key);
  }
  int64_t AsInt(const json& v, const char* key) const {
    if (!v.is_number_integer()) Fail(std::string(key) + " must be an integer");
    if (v.is_number_unsigned() && v.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
      Fail(std::string(key) + " is too large");
    }
    return v.get<int64_t>();
  }
  std::optional<double> Number(const char* key) const {
    const json* v = Find(key);
    if (v == nullptr) return std::nullopt;
    if (!v->is_number()) Fail(std::string(key) + " must be a number");
    return v->get<double>();
  }
  double NeededNumber(const char* key) const {
    const std::optional<double> v = Number(key);
    if (!v) Fail(std::string(key) + " is missing");
    return *v;
  }
  bool Bool(const char* key, bool absent) const {
    const json* v = Find(key);
    if (v == nullptr) return absent;
    if (!v->is_boolean()) Fail(std::string(key) + " must be true or false");
    return v->get<bool>();
  }
  std::optional<std::string> String(const char* key) const {
    const json* v = Find(key);
    if (v == nullptr) return std::nullopt;
    if (!v->is_string()) Fail(std::string(key) + " must be a string");
    return v->get<std::string>();
  }
  const json& object() const { return object_; }
  const std::string& where() const { return where_; }

 private:
  const json& object_;
  std::string where_;
};

// The sizes are those that transformers assumes where config.json is silent.
struct FamilyDefaults {
  Family family;
  const char* model_type;
  const char* architecture;
  const char* base_architecture;  // saved without a language model head
  int64_t hidden, layers, heads;
  int64_t vocab, ffn, kv_heads /* 0: as many as heads */, head_dim /* 0: hidden / heads */, positions;
  int32_t bos, eos;
};

constexpr FamilyDefaults kFamilies[] = {
    {Family::kLlama, "llama", "LlamaForCausalLM", "LlamaModel", 4096, 32, 32, 32000, 11008, 0, 0, 2048, 1, 2},
    {Family::kMistral, "mistral", "MistralForCausalLM", "MistralModel", 4096, 32, 32, 32000, 14336, 8, 0, 131072, 1, 2},
    {Family::kQwen2, "qwen2", "Qwen2ForCausalLM", "Qwen2Model", 4096, 32, 32, 151936, 22016, 32, 0, 32768, -1, -1},
    {Family::kQwen3, "qwen3", "Qwen3ForCausalLM", "Qwen3Model", 4096, 32, 32, 151936, 22016, 32, 128, 32768, -1, -1},
    {Family::kGemma3, "gemma3_text", "Gemma3ForCausalLM", "Gemma3TextModel", 2304, 26, 8, 262208, 9216, 4, 256, 131072,
     2, 1},
};

const FamilyDefaults& FindFamily(const Fields& f, std::string* architecture) {
  if (const json* list = f.Find("architectures"); list != nullptr && list->is_array() && !list->empty()) {
    if (!list->front().is_string()) f.Fail("architectures must be a list of strings");
    *architecture = list->front().get<std::string>();
  } else {
    *architecture = f.String("model_type").value_or("");
  }
  std::string known;
  for (const FamilyDefaults& d : kFamilies) {
    if (*architecture == d.architecture || *architecture == d.base_architecture || *architecture == d.model_type) {
      return d;
    }
    known += (known.empty() ? "" : ", ") + std::string(d.architecture);
  }
  f.Fail(architecture->empty()
             ? "neither architectures nor model_type says what the model is (supported: " + known + ")"
             : "architecture \"" + Printable(*architecture) + "\" is not supported (supported: " + known + ")");
}

double YarnAttentionFactor(const Fields& rope, double factor) {
  const auto scale = [&](double mscale) { return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; };
  if (const auto given = rope.Number("attention_factor")) return *given;
  const double mscale = rope.Number("mscale").value_or(0.0);
  const double mscale_all_dim = rope.Number("mscale_all_dim").value_or(0.0);
  return mscale != 0.0 && mscale_all_dim != 0.0 ? scale(mscale) / scale(mscale_all_dim) : scale(1.0);
}

void ParseYarn(const Fields& rope, int64_t max_positions, assay_rope_desc* out) {
  if (!rope.Bool("truncate", true)) rope.Fail("yarn scaling with truncate = false is not supported");
  const auto factor = rope.Number("factor");
  const double scale =
      factor ? *factor : static_cast<double>(max_positions) / static_cast<double>(out->original_context);
  out->scaling = ASSAY_ROPE_YARN;
  out->factor = static_cast<float>(scale);
  const double fast = rope.Number("beta_fast").value_or(0.0);
  const double slow = rope.Number("beta_slow").value_or(0.0);
  out->beta_fast = static_cast<float>(fast != 0.0 ? fast : 32.0);
  out->beta_slow = static_cast<float>(slow != 0.0 ? slow : 1.0);
  out->attn_factor = static_cast<float>(YarnAttentionFactor(rope, scale));
}

// One kind of layers: `rope` holds the parameters; f is the file, with those keys that older ones have there.
assay_rope_desc ParseRopeOf(const Fields& rope, const Fields& f, const char* theta_key, double theta,
                            const ModelConfig& c) {
  for (const Fields* place : {&rope, &f}) {
    if (place->Number("partial_rotary_factor").value_or(1.0) != 1.0) {
      place->Fail("partial_rotary_factor other than 1 is not supported for this architecture");
    }
  }
  assay_rope_desc desc = c.rope, *r = &desc;
  r->rotary_dim = static_cast<int32_t>(c.head_dim);
  const auto inside = rope.Number("rope_theta");
  r->theta = static_cast<float>(inside ? *inside : f.Number(theta_key).value_or(theta));
  const auto given_type = rope.String("rope_type");
  const std::string type = given_type ? *given_type : rope.String("type").value_or("default");
  const auto outer = f.Number("original_max_position_embeddings");
  const auto inner = rope.Number("original_max_position_embeddings");
  r->original_context = static_cast<float>(outer ? *outer : inner.value_or(static_cast<double>(c.max_positions)));
  if (type == "linear") {
    r->scaling = ASSAY_ROPE_LINEAR;
    r->factor = static_cast<float>(rope.NeededNumber("factor"));
  } else if (type == "llama3") {
    r->scaling = ASSAY_ROPE_LLAMA3;
    r->factor = static_cast<float>(rope.NeededNumber("factor"));
    r->low_freq_factor = static_cast<float>(rope.NeededNumber("low_freq_factor"));
    r->high_freq_factor = static_cast<float>(rope.NeededNumber("high_freq_factor"));
  } else if (type == "yarn") {
    ParseYarn(rope, c.max_positions, r);
  } else if (type != "default") {
    rope.Fail("scaling of type \"" + Printable(type) +
              "\" is not supported (supported: default, linear, llama3, yarn)");
  }
  return desc;
}

// "rope_scaling" is the older place (with rope_theta beside it), "rope_parameters" the newer one (with it inside).
// Gemma 3's layers with and without a window differ: the newer place has an object for each, the older one, and
// rope_theta, are of those without.
void ParseRope(const Fields& f, ModelConfig* c) {
  const json none = json::object();
  const json* chosen = f.Find("rope_scaling");
  const bool old_place = chosen != nullptr && !chosen->empty();
  if (!old_place) chosen = f.Find("rope_parameters");
  if (chosen == nullptr) chosen = &none;
  if (!chosen->is_object()) f.Fail(std::string(old_place ? "rope_scaling" : "rope_parameters") + " must be an object");
  const Fields rope(*chosen, f.where() + ": " + (old_place ? "rope_scaling" : "rope_parameters"));
  const bool by_layer = rope.Mentions("full_attention") || rope.Mentions("sliding_attention");
  if (c->family != Family::kGemma3) {
    if (by_layer) rope.Fail("parameters that differ between layers are not supported");
    c->rope = ParseRopeOf(rope, f, "rope_theta", 10000.0, *c);
    return;
  }
  const auto of = [&](const char* layers, const json* otherwise) {
    const json* found = by_layer ? rope.Find(layers) : otherwise;
    if (found != nullptr && !found->is_object()) rope.Fail(std::string(layers) + " must be an object");
    return Fields(found != nullptr ? *found : none, by_layer ? rope.where() + ": " + layers : rope.where());
  };
  c->window_rope = ParseRopeOf(of("sliding_attention", &none), f, "rope_local_base_freq", 10000.0, *c);
  c->rope = ParseRopeOf(of("full_attention", chosen), f, "rope_theta", 1000000.0, *c);
}

void ParseLayerTypes(const Fields& f, const json& types, ModelConfig* c) {
  if (!types.is_array() || static_cast<int64_t>(types.size()) != c->layers) {
    f.Fail("layer_types must be a list with one entry per layer");
  }
  c->window_from_layer = c->layers;
  for (int64_t i = 0; i < c->layers; ++i) {
    const json& type = types[static_cast<size_t>(i)];
    if (type != "full_attention" && type != "sliding_attention") {
      f.Fail("layer_types: entry " + std::to_string(i) + " is neither full_attention nor sliding_attention");
    }
    const bool slides = type == "sliding_attention";
    if (slides && c->window_from_layer == c->layers) c->window_from_layer = i;
    if (!slides && c->window_from_layer < i) {
      f.Fail("layer_types: full attention after sliding attention (layer " + std::to_string(i) + ") is not supported");
    }
  }
}

// Each n'th layer has full attention: n is given, or follows from the list of layers.
void ParseGemmaWindow(const Fields& f, ModelConfig* c) {
  const int64_t window = f.Int("sliding_window").value_or(f.Mentions("sliding_window") ? 0 : 4096);
  if (window < 1 || window > INT32_MAX) f.Fail("sliding_window must be positive, and less than 2^31");
  c->window = static_cast<int32_t>(window);
  c->full_every = f.Int("sliding_window_pattern").value_or(6);
  if (c->full_every < 1) f.Fail("sliding_window_pattern must be positive");
  const json* types = f.Find("layer_types");
  if (types != nullptr && (!types->is_array() || static_cast<int64_t>(types->size()) != c->layers)) {
    f.Fail("layer_types must be a list with one entry per layer");
  }
  if (types != nullptr) {
    const auto full = std::find(types->begin(), types->end(), "full_attention");
    c->full_every = full == types->end() ? 0 : full - types->begin() + 1;
  }
  for (int64_t i = 0; types != nullptr && i < c->layers; ++i) {
    const bool full = c->full_every != 0 && (i + 1) % c->full_every == 0;
    if ((*types)[static_cast<size_t>(i)] != (full ? "full_attention" : "sliding_attention")) {
      f.Fail("layer_types: entry " + std::to_string(i) + " does not follow the pattern of those before it");
    }
  }
}

void ParseWindow(const Fields& f, ModelConfig* c) {
  if (c->family == Family::kGemma3) return ParseGemmaWindow(f, c);
  const bool qwen = c->family == Family::kQwen2 || c->family == Family::kQwen3;
  if (c->family == Family::kLlama) return;
  int64_t window = 0;
  if (!qwen || f.Bool("use_sliding_window", false)) {
    window = f.Int("sliding_window").value_or(f.Mentions("sliding_window") ? 0 : 4096);
    if (window < 0 || window > INT32_MAX) f.Fail("sliding_window is " + std::to_string(window));
  }
  if (qwen) {
    c->window_from_layer = f.Int("max_window_layers").value_or(28);
    if (c->window_from_layer < 0) f.Fail("max_window_layers must not be negative");
    if (const json* types = f.Find("layer_types")) {
      ParseLayerTypes(f, *types, c);
      if (c->window_from_layer < c->layers && window == 0) {
        f.Fail("layer_types has sliding attention, but use_sliding_window or sliding_window is not set");
      }
    }
  }
  if (c->window_from_layer >= c->layers) window = 0;
  if (window == 0) c->window_from_layer = 0;
  c->window = static_cast<int32_t>(window);
}

void ParseGemma(const Fields& f, ModelConfig* c) {
  c->post_norms = c->gelu = true;
  c->norm_offset = 1.0f;
  // transformers rounds the factor to the weights' dtype; GGUF's readers, and everybody in float32, do not.
  c->embed_scale = std::sqrt(static_cast<float>(c->hidden));
  const double scalar = f.Number("query_pre_attn_scalar").value_or(256.0);
  if (!(scalar > 0.0)) f.Fail("query_pre_attn_scalar must be positive");
  c->attn_scale = static_cast<float>(1.0 / std::sqrt(scalar));
  for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping"}) {
    if (f.Number(key).value_or(0.0) != 0.0) f.Fail(std::string(key) + ": soft-capping is not supported");
  }
  if (f.Bool("use_bidirectional_attention", false)) f.Fail("use_bidirectional_attention is not supported");
}

std::vector<int32_t> ParseIds(const Fields& f, const char* key) {
  std::vector<int32_t> ids;
  const json* value = f.Find(key);
  if (value == nullptr) return ids;
  const json list = value->is_array() ? *value : json::array({*value});
  for (const json& v : list) {
    const int64_t id = f.AsInt(v, key);
    if (id < 0 || id > INT32_MAX) f.Fail(std::string(key) + " is out of range");
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

void ParseSizes(const Fields& f, const FamilyDefaults& d, ModelConfig* c) {
  c->hidden = f.Int("hidden_size").value_or(d.hidden);
  c->layers = f.Int("num_hidden_layers").value_or(d.layers);
  c->heads = f.Int("num_attention_heads").value_or(d.heads);
  c->vocab = f.Int("vocab_size").value_or(d.vocab);
  c->ffn = f.Int("intermediate_size").value_or(d.ffn);
  c->max_positions = f.Int("max_position_embeddings").value_or(d.positions);
  const bool as_heads = d.kv_heads == 0 || f.Mentions("num_key_value_heads");
  c->kv_heads = f.Int("num_key_value_heads").value_or(as_heads ? c->heads : d.kv_heads);
  if (const auto head_dim = f.Int("head_dim")) {
    c->head_dim = *head_dim;
  } else if (d.head_dim != 0) {
    c->head_dim = d.head_dim;
  } else {
    if (c->heads < 1 || c->hidden % c->heads != 0) {
      f.Fail("hidden_size " + std::to_string(c->hidden) + " is not a multiple of num_attention_heads " +
             std::to_string(c->heads) + ", and there is no head_dim");
    }
    c->head_dim = c->hidden / c->heads;
  }
  // transformers' default is 1e-6 for every family.
  c->norm_eps = static_cast<float>(f.Number("rms_norm_eps").value_or(1e-6));
}

}  // namespace

ModelConfig ParseHfConfig(const json& config, const std::string& where) {
  const Fields f(config, where);
  ModelConfig c;
  const FamilyDefaults& d = FindFamily(f, &c.architecture);
  c.family = d.family;
  for (const char* key : {"quantization_config", "compression_config"}) {
    if (const json* found = f.Find(key)) CheckQuantization(*found, where + ": " + key);
  }
  const bool gemma = c.family == Family::kGemma3;
  const char* act_key = gemma ? "hidden_activation" : "hidden_act";
  const std::string known_act = gemma ? "gelu_pytorch_tanh" : "silu", act = f.String(act_key).value_or(known_act);
  if (act != known_act && (gemma || act != "swish")) {
    f.Fail(std::string(act_key) + " \"" + Printable(act) + "\" is not supported (only " + known_act + ")");
  }
  ParseSizes(f, d, &c);
  c.rope = {sizeof(assay_rope_desc), ASSAY_OP_ROPE, 0, 0, 10000.0f, ASSAY_ROPE_NONE, 1, 1, 4, 8192, 32, 1, 1};
  // The checks of sizes come before what is derived from them.
  c.rope.rotary_dim = 2;
  if (c.head_dim >= 2) CheckConfig(c, where);
  ParseRope(f, &c);
  ParseWindow(f, &c);
  if (gemma) ParseGemma(f, &c);
  const bool attention_bias =
      (c.family == Family::kLlama || c.family == Family::kQwen3 || gemma) && f.Bool("attention_bias", false);
  c.qkv_bias = attention_bias || c.family == Family::kQwen2;
  c.o_bias = attention_bias;
  c.mlp_bias = c.family == Family::kLlama && f.Bool("mlp_bias", false);
  c.qk_norm = c.family == Family::kQwen3 || gemma;
  c.tied_embeddings = f.Bool("tie_word_embeddings", gemma);
  const std::vector<int32_t> bos = ParseIds(f, "bos_token_id");
  c.bos_id = !bos.empty() ? bos.front() : f.Mentions("bos_token_id") ? -1 : d.bos;
  c.eos_ids = ParseIds(f, "eos_token_id");
  if (!f.Mentions("eos_token_id") && d.eos >= 0) c.eos_ids = {d.eos};
  CheckConfig(c, where);
  return c;
}

ModelConfig ReadHfConfig(const std::string& dir) {
  const std::string path = dir + "/config.json";
  ModelConfig c = ParseHfConfig(ReadJsonObject(path), path);
  const std::string generation = dir + "/generation_config.json";
  if (std::filesystem::exists(generation)) {
    const json object = ReadJsonObject(generation);
    const std::vector<int32_t> ids = ParseIds(Fields(object, generation), "eos_token_id");
    if (!ids.empty()) c.eos_ids = ids;
  }
  return c;
}

}  // namespace assay
