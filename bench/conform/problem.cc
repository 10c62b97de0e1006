// SPDX-License-Identifier: Apache-2.0
#include "bench/conform/problem.h"

#include <algorithm>
#include <map>

#include "runtime/core/dtype.h"

namespace assay::bench {
namespace {

struct Builder {
  void (*build)(BuildContext&);
  bool required;
};

const std::map<std::string, Builder>& Builders() {
  static const std::map<std::string, Builder> builders = {
      {"embed", {BuildEmbed, true}},
      {"gather_rows", {BuildGatherRows, true}},
      {"cast", {BuildCast, true}},
      {"kv_block_copy", {BuildKvBlockCopy, true}},
      {"rms_norm", {BuildRmsNorm, true}},
      {"add_rms_norm", {BuildAddRmsNorm, true}},
      {"rope", {BuildRope, true}},
      {"glu", {BuildGlu, true}},
      {"add_scale", {BuildAddScale, true}},
      {"linear", {BuildLinear, true}},
      {"kv_write_paged", {BuildKvWritePaged, true}},
      {"attn_paged", {BuildAttnPaged, true}},
      {"sample", {BuildSample, true}},
      {"logprobs", {BuildLogprobs, true}},
      {"probe_read", {BuildProbeRead, true}},
      {"qk_norm_rope_kv_write", {BuildQkNormRopeKvWrite, false}},
  };
  return builders;
}

template <class T, size_t N>
bool Declared(const T (&list)[N], T value) {
  const T* end = std::find(list, list + N, T{0});
  return std::find(list, end, value) != end;
}

template <class T>
std::vector<uint8_t> Bytes(const std::vector<T>& values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(T));
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

}  // namespace

double UnitRoundoff(assay_dtype dtype) {
  switch (dtype) {
    case ASSAY_BF16:
      return 0x1p-8;
    case ASSAY_F16:
      return 0x1p-11;
    case ASSAY_F8_E4M3:
      return 0x1p-4;
    default:
      return 0x1p-24;
  }
}

int64_t ProblemTensor::count() const {
  int64_t n = 1;
  for (const int64_t d : shape) n *= d;
  return n;
}

float ProblemTensor::Value(int64_t i) const {
  float value;
  ConvertElements(dtype, elements.data() + static_cast<int64_t>(DTypeBytes(dtype, 1)) * i, ASSAY_F32, &value, 1);
  return value;
}

std::vector<float> ProblemTensor::Floats() const {
  std::vector<float> values(static_cast<size_t>(count()));
  if (scales.empty()) {
    if (!values.empty()) ConvertElements(dtype, elements.data(), ASSAY_F32, values.data(), values.size());
    return values;
  }
  const auto cols = static_cast<uint64_t>(shape[1]);
  for (size_t row = 0; row < scales.size(); ++row) {
    Dequantize(dtype, &elements[row * cols], scales[row], &values[row * cols], cols);
  }
  return values;
}

void ProblemTensor::SetFloats(const std::vector<float>& values) {
  ASSAY_CHECK(static_cast<int64_t>(values.size()) == count());
  elements.assign(DTypeBytes(dtype, values.size()), 0);
  if (!values.empty()) ConvertElements(ASSAY_F32, values.data(), dtype, elements.data(), values.size());
}

void ProblemTensor::SetInts(const std::vector<int32_t>& values) {
  ASSAY_CHECK(static_cast<int64_t>(values.size()) == count());
  elements = Bytes(values);
}

// ---------------------------------------------------------------------------------------------- BuildContext

assay_dtype BuildContext::Act() {
  const assay_dtype act = c.DType("dtype");
  if (!Declared(info.act_dtypes, act)) problem.undeclared = std::string("no ") + DTypeName(act) + " activations";
  return act;
}

assay_dtype BuildContext::KvDType() {
  const assay_dtype kv = c.DType("kv");
  if (!Declared(info.kv_dtypes, kv)) problem.undeclared = std::string("no ") + DTypeName(kv) + " KV cache";
  return kv;
}

void BuildContext::NeedKvGeometry(assay_kv_layout layout, int64_t block_size, int64_t head_dim) {
  if (!Declared(info.kv_layouts, layout)) {
    problem.undeclared = std::string("no KV layout ") + (layout == ASSAY_KV_HND ? "hnd" : "nhd");
  }
  if (!Declared(info.kv_block_sizes, static_cast<int32_t>(block_size))) {
    problem.undeclared = "no KV blocks of " + std::to_string(block_size);
  }
  if (head_dim > info.max_head_dim) problem.undeclared = "no heads of " + std::to_string(head_dim) + " dimensions";
}

void BuildContext::NeedWeight(assay_dtype dtype) {
  if (!Declared(info.weight_dtypes, dtype)) problem.undeclared = std::string("no ") + DTypeName(dtype) + " weights";
}

int BuildContext::Output(const std::string& name, assay_dtype dtype, std::vector<int64_t> shape) {
  ProblemTensor t;
  t.name = name;
  t.dtype = dtype;
  t.shape = std::move(shape);
  return problem.Add(std::move(t));
}

int BuildContext::Floats(const std::string& name, std::vector<int64_t> shape, const std::vector<float>& values) {
  const int i = Output(name, ASSAY_F32, std::move(shape));
  Tensor(i).SetFloats(values);
  return i;
}

int BuildContext::Normal(const std::string& name, assay_dtype dtype, std::vector<int64_t> shape, double mean,
                         double deviation) {
  const int i = Output(name, dtype, std::move(shape));
  std::vector<float> values(static_cast<size_t>(Tensor(i).count()));
  for (float& v : values) v = static_cast<float>(mean + deviation * random.Normal());
  Tensor(i).SetFloats(values);
  return i;
}

int BuildContext::Ints(const std::string& name, std::vector<int64_t> shape, const std::vector<int32_t>& values) {
  const int i = Output(name, ASSAY_I32, std::move(shape));
  Tensor(i).SetInts(values);
  return i;
}

int BuildContext::Longs(const std::string& name, std::vector<int64_t> shape, const std::vector<int64_t>& values) {
  const int i = Output(name, ASSAY_I64, std::move(shape));
  Tensor(i).elements = Bytes(values);
  return i;
}

int BuildContext::Weight(assay_dtype dtype, assay_dtype compute, uint32_t usage, int64_t rows, int64_t cols,
                         double deviation) {
  NeedWeight(dtype);
  const bool row_scaled = IsRowScaled(dtype);
  const int i = Normal("w", row_scaled ? ASSAY_F32 : dtype, {rows, cols}, 0.0, deviation);
  ProblemTensor& t = Tensor(i);
  if (row_scaled) {
    const std::vector<float> values = t.Floats();
    t.dtype = dtype;
    t.elements.resize(values.size());
    for (size_t at = 0; at < values.size(); at += static_cast<size_t>(cols)) {
      t.scales.push_back(ScaleFor(dtype, &values[at], static_cast<uint64_t>(cols)));
      Quantize(dtype, &values[at], t.scales.back(), &t.elements[at], static_cast<uint64_t>(cols));
    }
  }
  t.packed = true;
  t.weight.struct_size = sizeof(t.weight);
  t.weight.dtype = dtype;
  t.weight.usage = usage;
  t.weight.compute = compute;
  t.weight.rows = rows;
  t.weight.cols = cols;
  return i;
}

void BuildContext::Gap(std::initializer_list<int> tensors) {
  for (const int i : tensors) Tensor(i).row_gap = c.Int("gap", 0);
}

Problem BuildProblem(const ConformCase& c, const assay_device_info& info, uint64_t seed) {
  const auto found = Builders().find(c.op());
  if (found == Builders().end()) c.Fail("there is no operation '" + c.op() + "'");
  BuildContext b{c, info, Random(c.text() + (seed == 0 ? "" : " " + std::to_string(seed))), {}};
  b.problem.optional = !found->second.required || c.Int("optional", 0) != 0;
  found->second.build(b);
  if (b.problem.reference.empty()) b.problem.reference = {b.problem.call};
  c.Int("perf", 0);
  c.CheckAllRead();
  return std::move(b.problem);
}

const std::vector<std::string>& RequiredOps() {
  static const std::vector<std::string> ops = [] {
    std::vector<std::string> required;
    for (const auto& [name, builder] : Builders()) {
      if (builder.required) required.push_back(name);
    }
    return required;
  }();
  return ops;
}

}  // namespace assay::bench
