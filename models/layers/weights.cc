// SPDX-License-Identifier: Apache-2.0
#include "models/layers/weights.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "runtime/core/dtype.h"
#include "runtime/core/interrupt.h"

namespace assay {
namespace {

template <size_t N>
bool Lists(const assay_dtype (&list)[N], assay_dtype dtype) {
  return std::find(list, list + N, dtype) != list + N;
}

template <size_t N>
std::string ListNames(const assay_dtype (&list)[N]) {
  std::string names;
  for (const assay_dtype d : list) {
    if (d == ASSAY_DTYPE_NONE) break;
    names += (names.empty() ? "" : ", ") + std::string(DTypeName(d));
  }
  return names;
}

assay_dtype ChooseKv(const std::string& name, const std::string& kv, const assay_device_info& info) {
  static const std::map<std::string, assay_dtype> dtypes = {
      {"f32", ASSAY_F32}, {"bf16", ASSAY_BF16}, {"f16", ASSAY_F16}, {"fp8", ASSAY_F8_E4M3}};
  if (kv == "auto" && name != "f32") return info.kv_dtypes[0];
  const auto found = dtypes.find(kv == "auto" ? name : kv);
  if (found == dtypes.end()) throw Error("--kv-dtype " + kv + ": unknown; use auto, bf16, f16, f32 or fp8");
  if (!Lists(info.kv_dtypes, found->second)) {
    throw Error((kv == "auto" ? "--dtype " + name : "--kv-dtype " + kv) + ": device " + info.id +
                " has no kernels for a KV cache in " + DTypeName(found->second) + "; it has " +
                ListNames(info.kv_dtypes));
  }
  return found->second;
}

}  // namespace

DTypeChoice ChooseDTypes(const std::string& name, const std::string& kv, const assay_device_info& info) {
  DTypeChoice c;
  c.name = name;
  c.act = info.act_dtypes[0];
  if (name == "f32") {
    c.linear = c.embed = c.compute = c.act = ASSAY_F32;
  } else if (name == "bf16") {
    c.linear = c.embed = ASSAY_BF16;
  } else if (name == "f16") {
    c.linear = c.embed = ASSAY_F16;
  } else if (name == "int8") {
    c.linear = c.embed = ASSAY_Q8_0;
  } else if (name == "i8" || name == "f8_e4m3") {  // as below
    c.linear = DTypeOfName(name);
    c.embed = Lists(info.weight_dtypes, ASSAY_BF16) ? ASSAY_BF16 : ASSAY_F16;
  } else if (name == "fp8" || (name == "int4" && Lists(info.weight_dtypes, ASSAY_I4_G128))) {
    // Published FP8 and INT4 models (AWQ, GPTQ, TensorRT-LLM) quantise the layers alone: embedding and head keep 16
    // bits.
    c.linear = name == "fp8" ? ASSAY_F8_B128 : ASSAY_I4_G128;
    c.embed = Lists(info.weight_dtypes, ASSAY_BF16) ? ASSAY_BF16 : ASSAY_F16;
  } else if (name == "int4") {
    // The head's precision decides the output distribution and costs little: it stays at 8 bits, as is usual.
    c.linear = ASSAY_Q4_0;
    c.embed = ASSAY_Q8_0;
  } else if (name != "auto") {
    throw Error("--dtype " + name + ": unknown; use auto, bf16, f16, f32, int8, int4, fp8, i8 or f8_e4m3");
  }
  for (const assay_dtype d : {c.linear, c.embed}) {
    if (d != ASSAY_DTYPE_NONE && !Lists(info.weight_dtypes, d)) {
      throw Error("--dtype " + name + ": device " + info.id + " has no kernels for " + DTypeName(d) +
                  " weights; it has " + ListNames(info.weight_dtypes));
    }
  }
  if (!Lists(info.act_dtypes, c.act)) {
    throw Error("--dtype " + name + ": device " + info.id + " cannot keep activations in f32");
  }
  c.kv = ChooseKv(name, kv, info);
  return c;
}

WeightLoader::WeightLoader(std::shared_ptr<Device> device, Checkpoint* checkpoint, const DTypeChoice& dtypes,
                           const Shard& shard)
    : device_(std::move(device)), checkpoint_(checkpoint), dtypes_(dtypes), shard_(shard) {}

void WeightLoader::Begin(const Place& at) {
  ASSAY_CHECK(at.offset % kPlaceAlignment == 0);
  buffer_ = at.buffer;
  begin_ = offset_ = at.offset;
  matrix_bytes_ = 0;
}

// Bytes placed since Begin.
uint64_t WeightLoader::End() const {
  return (offset_ - begin_ + kPlaceAlignment - 1) / kPlaceAlignment * kPlaceAlignment;
}

uint64_t WeightLoader::LayerBytes(int64_t layer) {
  LoadLayer(layer, {});
  return End();
}

uint64_t WeightLoader::OuterBytes() {
  LoadOuter({});
  return End();
}

uint64_t WeightLoader::TotalBytes() {
  uint64_t total = OuterBytes();
  for (int64_t i = 0; i < checkpoint_->config().layers; ++i) total += LayerBytes(i);
  return total;
}

uint64_t WeightLoader::StepBytes() {
  uint64_t total = 0;
  LoadOuter({});
  total += matrix_bytes_;
  for (int64_t i = 0; i < checkpoint_->config().layers; ++i) {
    LoadLayer(i, {});
    total += matrix_bytes_;
  }
  return total;
}

assay_dtype WeightLoader::MainDType() {
  std::map<assay_dtype, int64_t> elements;
  for (const TensorInfo& t : checkpoint_->tensors()) {
    if (t.shape.size() != 2) continue;
    const bool outer = t.name.find("layers.") == std::string::npos;
    const assay_dtype wanted = outer ? dtypes_.embed : dtypes_.linear;
    elements[wanted == ASSAY_DTYPE_NONE ? t.dtype : wanted] += t.shape[0] * t.shape[1];
  }
  const auto most = std::max_element(elements.begin(), elements.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == elements.end() ? ASSAY_DTYPE_NONE : most->first;
}

const TensorInfo& WeightLoader::Need(const std::string& name) const {
  const TensorInfo* info = checkpoint_->Find(name);
  ASSAY_CHECK(info != nullptr);  // the checkpoint promised every tensor that its config asks for
  return *info;
}

WeightLoader::Source WeightLoader::Whole(const std::string& weight, const std::string& bias) const {
  const TensorInfo& info = Need(weight);
  return {weight, bias, {0, info.shape[0]}, {0, info.shape[1]}};
}

WeightLoader::Source WeightLoader::Rows(Source source, const Range& rows) const {
  if (!shard_.whole()) source.rows = rows;
  return source;
}

WeightLoader::Source WeightLoader::Columns(Source source, const Range& cols) const {
  if (shard_.whole()) return source;
  source.cols = cols;
  if (shard_.rank > 0) source.bias.clear();
  return source;
}

assay_dtype WeightLoader::TargetDType(const Source& source, assay_dtype wanted) const {
  const TensorInfo& info = Need(source.weight);
  const assay_dtype target = wanted == ASSAY_DTYPE_NONE ? info.dtype : wanted;
  if (!Lists(device_->info().weight_dtypes, target)) {
    throw Error(checkpoint_->path() + ": tensor '" + info.name + "' is " + DTypeName(target) + ", and device " +
                device_->id() + " has kernels for " + ListNames(device_->info().weight_dtypes) +
                " only; choose one with --dtype");
  }
  const DTypeInfo* d = FindDType(target);
  if (info.shape[1] % d->block_elems != 0) {
    throw Error("--dtype " + dtypes_.name + ": tensor '" + info.name + "' has rows of " +
                std::to_string(info.shape[1]) + " elements, which " + DTypeName(target) + " blocks of " +
                std::to_string(d->block_elems) + " do not divide; use another --dtype");
  }
  for (const assay_dtype dtype : {info.dtype, target}) {
    const int64_t block = FindDType(dtype)->block_elems;
    if (source.cols.begin % block == 0 && source.cols.count % block == 0) continue;
    throw Error("--tp " + std::to_string(shard_.size) + ": a rank's part of the rows of tensor '" + info.name +
                "' is elements " + std::to_string(source.cols.begin) + " to " +
                std::to_string(source.cols.begin + source.cols.count) + ", no whole blocks of " + DTypeName(dtype) +
                " (" + std::to_string(block) + " elements); use a smaller --tp");
  }
  return target;
}

uint64_t WeightLoader::Reserve(uint64_t bytes, uint64_t alignment) {
  alignment = std::max<uint64_t>(alignment, 1);
  const uint64_t at = (offset_ + alignment - 1) / alignment * alignment;
  offset_ = at + bytes;
  return at;
}

Tensor WeightLoader::LoadVector(const std::string& name, float offset) {
  const TensorInfo& info = Need(name);
  const int64_t n = info.shape[0];
  const uint64_t bytes = static_cast<uint64_t>(n) * sizeof(float);
  const uint64_t at = Reserve(bytes, device_->info().buffer_alignment);
  if (buffer_) {
    std::vector<float> values(n);
    ConvertElements(info.dtype, checkpoint_->Data(info), ASSAY_F32, values.data(), n);
    for (float& v : values) v += offset;
    checkpoint_->Release(info);
    Stream stream(device_);
    stream.Upload(*buffer_, at, values.data(), bytes);
    stream.Synchronize();
  }
  return MakeTensor(buffer_ ? buffer_->handle() : nullptr, at, ASSAY_F32, {n});
}

std::optional<Tensor> WeightLoader::LoadBias(const std::vector<Source>& sources, int64_t rows) {
  if (std::all_of(sources.begin(), sources.end(), [](const Source& s) { return s.bias.empty(); })) return std::nullopt;
  const uint64_t bytes = static_cast<uint64_t>(rows) * sizeof(float);
  const uint64_t at = Reserve(bytes, device_->info().buffer_alignment);
  if (buffer_) {
    std::vector<float> values;
    for (const Source& s : sources) {
      const size_t begin = values.size();
      values.resize(begin + s.rows.count, 0.0f);
      if (s.bias.empty()) continue;
      const TensorInfo& info = Need(s.bias);
      std::vector<float> all(info.shape[0]);
      ConvertElements(info.dtype, checkpoint_->Data(info), ASSAY_F32, all.data(), info.shape[0]);
      std::copy_n(all.begin() + s.rows.begin, s.rows.count, values.begin() + begin);
      checkpoint_->Release(info);
    }
    Stream stream(device_);
    stream.Upload(*buffer_, at, values.data(), bytes);
    stream.Synchronize();
  }
  return MakeTensor(buffer_ ? buffer_->handle() : nullptr, at, ASSAY_F32, {rows});
}

// The source's elements in the target dtype, row by row; returns where they end. scales: those of a row-scaled target's
// rows are added.
uint8_t* WeightLoader::Convert(const Source& source, assay_dtype target, uint8_t* to, std::vector<float>* scales) {
  const TensorInfo& info = Need(source.weight);
  if (IsRowScaled(info.dtype) || IsRowScaled(target)) return ConvertByRows(source, target, to, scales);
  const auto* data = static_cast<const uint8_t*>(checkpoint_->Data(info));
  const int64_t cols = info.shape[1];
  // Whole rows lie one after the other.
  const bool whole = source.cols.count == cols;
  const int64_t runs = whole ? 1 : source.rows.count;
  const int64_t run = whole ? source.rows.count * cols : source.cols.count;
  for (int64_t r = 0; r < runs; ++r) {
    const int64_t first = (source.rows.begin + r) * cols + source.cols.begin;
    ConvertElements(info.dtype, data + DTypeBytes(info.dtype, first), target, to, run);
    to += DTypeBytes(target, run);
  }
  checkpoint_->Release(info);
  return to;
}

// From or to a dtype with a scale per row.
uint8_t* WeightLoader::ConvertByRows(const Source& source, assay_dtype target, uint8_t* to,
                                     std::vector<float>* scales) {
  const TensorInfo& info = Need(source.weight);
  const auto* data = static_cast<const uint8_t*>(checkpoint_->Data(info));
  const std::vector<float> given = IsRowScaled(info.dtype) ? checkpoint_->Scales(info) : std::vector<float>();
  const auto cols = static_cast<uint64_t>(source.cols.count);
  std::vector<float> values(cols);
  for (int64_t r = source.rows.begin; r < source.rows.begin + source.rows.count; ++r) {
    const uint8_t* from = data + DTypeBytes(info.dtype, static_cast<uint64_t>(r * info.shape[1] + source.cols.begin));
    if (info.dtype == target) {
      std::memcpy(to, from, cols);
      scales->push_back(given[static_cast<size_t>(r)]);
    } else {
      if (given.empty()) {
        ConvertElements(info.dtype, from, ASSAY_F32, values.data(), cols);
      } else {
        Dequantize(info.dtype, from, given[static_cast<size_t>(r)], values.data(), cols);
      }
      if (IsRowScaled(target)) {
        scales->push_back(ScaleFor(target, values.data(), cols));
        Quantize(target, values.data(), scales->back(), to, cols);
      } else {
        ConvertElements(ASSAY_F32, values.data(), target, to, cols);
      }
    }
    to += DTypeBytes(target, cols);
  }
  checkpoint_->Release(info);
  return to;
}

void WeightLoader::Pack(const std::vector<Source>& sources, assay_weight_desc desc, uint64_t offset) {
  ThrowIfInterrupted();
  const TensorInfo& first = Need(sources[0].weight);
  std::vector<float> scales;
  if (sources.size() == 1 && first.dtype == desc.dtype && desc.cols == first.shape[1]) {
    const auto* data = static_cast<const uint8_t*>(checkpoint_->Data(first));
    if (IsRowScaled(desc.dtype)) {
      scales = checkpoint_->Scales(first);
      desc.scales = scales.data() + sources[0].rows.begin;
    }
    device_->PackWeight(desc, data + DTypeBytes(desc.dtype, sources[0].rows.begin * desc.cols), *buffer_, offset);
    checkpoint_->Release(first);
    return;
  }
  std::vector<uint8_t> joined(DTypeBytes(desc.dtype, static_cast<uint64_t>(desc.rows * desc.cols)));
  uint8_t* at = joined.data();
  for (const Source& s : sources) at = Convert(s, desc.dtype, at, &scales);
  desc.scales = scales.data();
  device_->PackWeight(desc, joined.data(), *buffer_, offset);
}

LinearWeights::Part WeightLoader::LoadPart(const std::vector<Source>& sources, assay_dtype target, uint32_t usage) {
  assay_weight_desc desc{};
  desc.struct_size = sizeof(desc);
  desc.dtype = target;
  desc.usage = usage;
  desc.compute = dtypes_.compute;
  desc.cols = sources[0].cols.count;
  for (const Source& s : sources) desc.rows += s.rows.count;

  const uint64_t bytes = device_->PackedBytes(desc);
  const uint64_t at = Reserve(bytes, device_->info().weight_alignment);
  if (usage & ASSAY_WEIGHT_LINEAR) matrix_bytes_ += bytes;
  if (buffer_) Pack(sources, desc, at);
  LinearWeights::Part part;
  part.w = MakeTensor(buffer_ ? buffer_->handle() : nullptr, at, target, {desc.rows, desc.cols});
  part.w.flags = ASSAY_TENSOR_PACKED;
  part.bias = LoadBias(sources, desc.rows);
  return part;
}

LinearWeights WeightLoader::LoadLinear(const std::vector<Source>& sources, uint32_t usage, assay_dtype wanted) {
  LinearWeights weights;
  int64_t column = 0;
  for (size_t i = 0; i < sources.size();) {
    const assay_dtype target = TargetDType(sources[i], wanted);
    std::vector<Source> group;
    while (i < sources.size() && TargetDType(sources[i], wanted) == target) group.push_back(sources[i++]);
    LinearWeights::Part part = LoadPart(group, target, usage);
    part.begin = column;
    column += part.w.dim(0);
    weights.parts.push_back(std::move(part));
  }
  return weights;
}

LayerWeights WeightLoader::LoadLayer(int64_t layer, const Place& at) {
  Begin(at);
  const ModelConfig& c = checkpoint_->config();
  const std::string p = "model.layers." + std::to_string(layer) + ".";
  const auto source = [&](const std::string& name, bool bias) {
    return Whole(p + name + ".weight", bias ? p + name + ".bias" : "");
  };
  LayerWeights w;
  const auto norm = [&](const std::string& name) { return LoadVector(p + name + ".weight", c.norm_offset); };
  w.attn_norm = norm("input_layernorm");
  w.mlp_norm = norm(c.post_norms ? "pre_feedforward_layernorm" : "post_attention_layernorm");
  if (c.post_norms) {
    w.attn_post_norm = norm("post_attention_layernorm");
    w.mlp_post_norm = norm("post_feedforward_layernorm");
  }
  if (c.qk_norm) {
    w.q_norm = norm("self_attn.q_norm");
    w.k_norm = norm("self_attn.k_norm");
  }
  const uint32_t linear = ASSAY_WEIGHT_LINEAR;
  const Range q = shard_.heads * c.head_dim, kv = shard_.kv_heads * c.head_dim;
  w.qkv = LoadLinear({Rows(source("self_attn.q_proj", c.qkv_bias), q), Rows(source("self_attn.k_proj", c.qkv_bias), kv),
                      Rows(source("self_attn.v_proj", c.qkv_bias), kv)},
                     linear, dtypes_.linear);
  w.o = LoadLinear({Columns(source("self_attn.o_proj", c.o_bias), q)}, linear, dtypes_.linear);
  w.gate_up = LoadLinear(
      {Rows(source("mlp.gate_proj", c.mlp_bias), shard_.ffn), Rows(source("mlp.up_proj", c.mlp_bias), shard_.ffn)},
      linear, dtypes_.linear);
  w.down = LoadLinear({Columns(source("mlp.down_proj", c.mlp_bias), shard_.ffn)}, linear, dtypes_.linear);
  return w;
}

OuterWeights WeightLoader::LoadOuter(const Place& at) {
  Begin(at);
  const ModelConfig& c = checkpoint_->config();
  OuterWeights w;
  const std::string embedding = "model.embed_tokens.weight";
  const bool both = c.tied_embeddings && shard_.whole();
  const uint32_t usage = both ? ASSAY_WEIGHT_LINEAR | ASSAY_WEIGHT_EMBED : ASSAY_WEIGHT_EMBED;
  w.head = LoadLinear({Whole(embedding, "")}, usage, dtypes_.embed);
  w.embedding = w.head.parts[0].w;
  if (!both) {
    const Source head = Whole(c.tied_embeddings ? embedding : "lm_head.weight", "");
    w.head = LoadLinear({Rows(head, shard_.vocab)}, ASSAY_WEIGHT_LINEAR, dtypes_.embed);
  }
  w.final_norm = LoadVector("model.norm.weight", c.norm_offset);
  if (checkpoint_->Find("rope_freqs.weight")) w.rope_freqs = LoadVector("rope_freqs.weight", 0.0f);
  return w;
}

}  // namespace assay
