// SPDX-License-Identifier: Apache-2.0
// For tests: small model files, written byte by byte so that a test can also write wrong ones.
#pragma once

#include <stdlib.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "models/format/gguf.h"
#include "runtime/core/dtype.h"
#include "runtime/core/error.h"

namespace assay::testing {

// A folder that goes away with the object.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "assay-test-XXXXXX").string();
    ASSAY_CHECK(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string Write(const std::string& name, const std::string& bytes) const {
    std::string path = path_ + "/" + name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

 private:
  std::string path_;
};

// The text of the Error that `run` throws, "" if it throws none.
template <class F>
std::string ErrorOf(F&& run) {
  try {
    run();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

template <class T>
std::string Bytes(T value) {
  std::string out(sizeof(T), '\0');
  std::memcpy(out.data(), &value, sizeof(T));
  return out;
}

// Numbers that look like weights, the same each time, as `dtype`.
inline std::string Weights(assay_dtype dtype, uint64_t elements, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> x(elements);
  for (float& v : x) v = static_cast<float>(static_cast<int32_t>(random())) * 0x1p-34f;
  std::string out(DTypeBytes(dtype, elements), '\0');
  ConvertElements(ASSAY_F32, x.data(), dtype, out.data(), elements);
  return out;
}

class GgufWriter {
 public:
  struct Tensor {
    std::string name;
    std::vector<uint64_t> dims;  // the contiguous one first
    uint32_t type;
    std::string data;
  };

  uint32_t version = 3;
  uint64_t alignment = 32;
  std::vector<std::pair<std::string, std::string>> entries;  // a key; the value's type and bytes
  std::vector<Tensor> tensors;

  static std::string Text(const std::string& text) { return Bytes<uint64_t>(text.size()) + text; }
  static std::string TypeCode(GgufType type) { return Bytes(static_cast<uint32_t>(type)); }
  static std::string ArrayHead(GgufType element, uint64_t count) {
    return TypeCode(GgufType::kArray) + TypeCode(element) + Bytes(count);
  }
  // Replaces the entry if there is one.
  void Raw(const std::string& key, const std::string& type_and_bytes) {
    Remove(key);
    entries.emplace_back(key, type_and_bytes);
  }
  void Remove(const std::string& key) {
    std::erase_if(entries, [&](const auto& e) { return e.first == key; });
  }
  void U32(const std::string& key, uint32_t v) { Raw(key, TypeCode(GgufType::kU32) + Bytes(v)); }
  void F32(const std::string& key, float v) { Raw(key, TypeCode(GgufType::kF32) + Bytes(v)); }
  void Bool(const std::string& key, bool v) { Raw(key, TypeCode(GgufType::kBool) + Bytes<uint8_t>(v)); }
  void Str(const std::string& key, const std::string& v) { Raw(key, TypeCode(GgufType::kString) + Text(v)); }
  void Strs(const std::string& key, const std::vector<std::string>& v) {
    std::string bytes = ArrayHead(GgufType::kString, v.size());
    for (const std::string& s : v) bytes += Text(s);
    Raw(key, bytes);
  }
  template <class T>
  void Array(const std::string& key, GgufType element, const std::vector<T>& v) {
    std::string bytes = ArrayHead(element, v.size());
    for (const T& x : v) bytes += Bytes(x);
    Raw(key, bytes);
  }

  void Add(const std::string& name, std::vector<uint64_t> dims, assay_dtype dtype) {
    uint64_t elements = 1;
    for (const uint64_t d : dims) elements *= d;
    static const std::vector<std::pair<assay_dtype, uint32_t>> kCodes = {
        {ASSAY_F32, 0},  {ASSAY_F16, 1},  {ASSAY_BF16, 30}, {ASSAY_Q4_0, 2},  {ASSAY_Q4_1, 3}, {ASSAY_Q8_0, 8},
        {ASSAY_Q5_0, 6}, {ASSAY_Q5_1, 7}, {ASSAY_Q4_K, 12}, {ASSAY_Q5_K, 13}, {ASSAY_Q6_K, 14}};
    uint32_t code = 0;
    for (const auto& [d, c] : kCodes) code = d == dtype ? c : code;
    tensors.push_back({name, std::move(dims), code, Weights(dtype, elements, static_cast<uint32_t>(tensors.size()))});
  }
  Tensor& Find(const std::string& name) {
    for (Tensor& t : tensors) {
      if (t.name == name) return t;
    }
    ASSAY_CHECK(false);
    return tensors.front();
  }

  std::string Header() const {
    std::string out = "GGUF" + Bytes(version) + Bytes<uint64_t>(tensors.size()) + Bytes<uint64_t>(entries.size());
    for (const auto& [key, value] : entries) out += Text(key) + value;
    return out;
  }
  static std::string TensorHead(const Tensor& t, uint64_t offset) {
    std::string out = Text(t.name) + Bytes(static_cast<uint32_t>(t.dims.size()));
    for (const uint64_t d : t.dims) out += Bytes(d);
    return out + Bytes(t.type) + Bytes(offset);
  }
  std::string Build() const {
    std::string out = Header();
    std::string data;
    const auto pad = [&](std::string* s) { s->resize((s->size() + alignment - 1) / alignment * alignment); };
    for (const Tensor& t : tensors) {
      out += TensorHead(t, data.size());
      data += t.data;
      pad(&data);
    }
    pad(&out);
    return out + data;
  }
};

// A whole model: 2 layers, width 64, 4 heads of 16, 2 key/value heads, feed-forward 96, 64 tokens; linear weights of
// `dtype`, embeddings q8_0 where that is a block type.
inline GgufWriter TinyGguf(const std::string& arch, assay_dtype dtype) {
  GgufWriter w;
  w.Str("general.architecture", arch);
  w.Str("general.name", "tiny");
  w.U32(arch + ".block_count", 2);
  w.U32(arch + ".context_length", 256);
  w.U32(arch + ".embedding_length", 64);
  w.U32(arch + ".feed_forward_length", 96);
  w.U32(arch + ".attention.head_count", 4);
  w.U32(arch + ".attention.head_count_kv", 2);
  w.F32(arch + ".attention.layer_norm_rms_epsilon", 1e-5f);
  w.F32(arch + ".rope.freq_base", 10000.0f);
  w.U32("tokenizer.ggml.bos_token_id", 1);
  w.U32("tokenizer.ggml.eos_token_id", 2);
  w.Strs("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "a", "b"});
  w.Array<int32_t>("tokenizer.ggml.token_type", GgufType::kI32, {2, 3, 3, 1, 1});
  w.Array<float>("tokenizer.ggml.scores", GgufType::kF32, {0.0f, 0.5f, -1.0f, 2.0f, 3.0f});
  w.Add("token_embd.weight", {64, 64}, IsBlockType(dtype) ? ASSAY_Q8_0 : dtype);
  for (int i = 0; i < 2; ++i) {
    const std::string b = "blk." + std::to_string(i) + ".";
    w.Add(b + "attn_norm.weight", {64}, ASSAY_F32);
    w.Add(b + "attn_q.weight", {64, 64}, dtype);
    w.Add(b + "attn_k.weight", {64, 32}, dtype);
    w.Add(b + "attn_v.weight", {64, 32}, dtype);
    w.Add(b + "attn_output.weight", {64, 64}, dtype);
    if (arch == "qwen2") {
      w.Add(b + "attn_q.bias", {64}, ASSAY_F32);
      w.Add(b + "attn_k.bias", {32}, ASSAY_F32);
      w.Add(b + "attn_v.bias", {32}, ASSAY_F32);
    }
    if (arch == "gemma3") {
      w.Add(b + "post_attention_norm.weight", {64}, ASSAY_F32);
      w.Add(b + "post_ffw_norm.weight", {64}, ASSAY_F32);
    }
    if (arch == "qwen3" || arch == "gemma3") {
      w.Add(b + "attn_q_norm.weight", {16}, ASSAY_F32);
      w.Add(b + "attn_k_norm.weight", {16}, ASSAY_F32);
    }
    w.Add(b + "ffn_norm.weight", {64}, ASSAY_F32);
    w.Add(b + "ffn_gate.weight", {64, 96}, dtype);
    w.Add(b + "ffn_up.weight", {64, 96}, dtype);
    w.Add(b + "ffn_down.weight", {96, 64}, dtype);
  }
  w.Add("output_norm.weight", {64}, ASSAY_F32);
  return w;
}

class SafetensorsWriter {
 public:
  struct Tensor {
    std::string name;
    std::string type;
    std::vector<int64_t> shape;
    std::string data;
  };
  std::vector<Tensor> tensors;

  void Add(const std::string& name, std::vector<int64_t> shape, assay_dtype dtype = ASSAY_BF16) {
    uint64_t elements = 1;
    for (const int64_t d : shape) elements *= static_cast<uint64_t>(d);
    const char* type = dtype == ASSAY_F32 ? "F32" : dtype == ASSAY_F16 ? "F16" : "BF16";
    tensors.push_back({name, type, std::move(shape), Weights(dtype, elements, static_cast<uint32_t>(tensors.size()))});
  }
  nlohmann::json Header() const {
    nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
    uint64_t at = 0;
    for (const Tensor& t : tensors) {
      header[t.name] = {{"dtype", t.type}, {"shape", t.shape}, {"data_offsets", {at, at + t.data.size()}}};
      at += t.data.size();
    }
    return header;
  }
  std::string Data() const {
    std::string out;
    for (const Tensor& t : tensors) out += t.data;
    return out;
  }
  // `header` instead of the one that describes the tensors.
  std::string BuildWith(std::string header) const {
    header.resize((header.size() + 7) / 8 * 8, ' ');
    return Bytes<uint64_t>(header.size()) + header + Data();
  }
  std::string Build() const { return BuildWith(Header().dump()); }
};

// The model of TinyGguf in Hugging Face's layout.
inline nlohmann::json TinyConfig(const std::string& architecture) {
  return {{"architectures", {architecture}},
          {"hidden_size", 64},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"head_dim", 16},
          {"intermediate_size", 96},
          {"vocab_size", 64},
          {"max_position_embeddings", 256},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"tie_word_embeddings", true},
          {"bos_token_id", 1},
          {"eos_token_id", 2}};
}

inline SafetensorsWriter TinySafetensors(const std::string& architecture, const std::string& prefix = "model.") {
  SafetensorsWriter w;
  w.Add(prefix + "embed_tokens.weight", {64, 64});
  for (int i = 0; i < 2; ++i) {
    const std::string b = prefix + "layers." + std::to_string(i) + ".";
    w.Add(b + "input_layernorm.weight", {64});
    w.Add(b + "self_attn.q_proj.weight", {64, 64});
    w.Add(b + "self_attn.k_proj.weight", {32, 64});
    w.Add(b + "self_attn.v_proj.weight", {32, 64});
    w.Add(b + "self_attn.o_proj.weight", {64, 64});
    if (architecture == "Qwen2ForCausalLM") {
      w.Add(b + "self_attn.q_proj.bias", {64});
      w.Add(b + "self_attn.k_proj.bias", {32});
      w.Add(b + "self_attn.v_proj.bias", {32});
    }
    if (architecture == "Gemma3ForCausalLM") {
      w.Add(b + "pre_feedforward_layernorm.weight", {64});
      w.Add(b + "post_feedforward_layernorm.weight", {64});
    }
    if (architecture == "Qwen3ForCausalLM" || architecture == "Gemma3ForCausalLM") {
      w.Add(b + "self_attn.q_norm.weight", {16});
      w.Add(b + "self_attn.k_norm.weight", {16});
    }
    w.Add(b + "post_attention_layernorm.weight", {64});
    w.Add(b + "mlp.gate_proj.weight", {96, 64});
    w.Add(b + "mlp.up_proj.weight", {96, 64});
    w.Add(b + "mlp.down_proj.weight", {64, 96});
  }
  w.Add(prefix + "norm.weight", {64});
  return w;
}

}  // namespace assay::testing
