// SPDX-License-Identifier: Apache-2.0
// A conformance case made concrete: tensors with contents, the calls to make, and what may differ between two right
// answers. Plain data on the host; builders (problem_*.cc) make it from a case's text, one per operation.
#pragma once

#include <array>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "backends/api/assay_backend.h"
#include "bench/conform/case_text.h"
#include "bench/conform/random.h"
#include "runtime/core/error.h"

namespace assay::bench {

// Half a unit in the last place, relative to 1: the rounding error of one operation in that dtype.
double UnitRoundoff(assay_dtype dtype);

struct ProblemTensor {
  std::string name;
  assay_dtype dtype = ASSAY_F32;
  std::vector<int64_t> shape;
  int64_t row_gap = 0;            // unused elements after each row of dimension 0: the tensor is strided
  std::vector<uint8_t> elements;  // contents, contiguous, in dtype; empty: an output that starts as poison
  bool packed = false;            // a weight, packed by the device as `weight` says
  assay_weight_desc weight{};
  std::vector<float> scales;     // of its rows, if its dtype has them
  bool undefined_after = false;  // may hold anything afterwards
  // Of an output: exact unless `rounded` (then any NaN still equals only a NaN). Two right answers y differ by at most
  // tolerance[i] (nothing if empty) + (relative + twice the unit roundoff of dtype) * |y|: each of them was rounded
  // once.
  bool rounded = false;
  bool judged = false;  // by Problem::judge instead
  double relative = 0;
  std::vector<double> tolerance;

  int64_t count() const;
  std::vector<float> Floats() const;  // of a tensor or weight of any floating point or quantised dtype
  // Value of a floating point element of `elements`.
  float Value(int64_t i) const;
  void SetFloats(const std::vector<float>& values);  // rounds to dtype
  void SetInts(const std::vector<int32_t>& values);
};

// One operation on tensors of the problem, by index; -1 for an optional tensor that is absent.
struct ProblemCall {
  std::array<uint64_t, 16> desc_storage{};
  std::vector<int> in, out;

  template <class Desc>
  void SetDesc(const Desc& desc) {
    static_assert(sizeof(Desc) <= sizeof(desc_storage));
    std::memcpy(desc_storage.data(), &desc, sizeof(desc));
  }
  const assay_op_desc* desc() const { return reinterpret_cast<const assay_op_desc*>(desc_storage.data()); }
};

// Contents of the problem's tensors after a run, contiguous, in dtype; empty for packed weights.
using Outcome = std::vector<std::vector<uint8_t>>;

struct Problem {
  std::vector<ProblemTensor> tensors;
  ProblemCall call;
  std::vector<ProblemCall> reference;  // what the reference runs instead, if not `call`
  // Host mirror of lengths, for devices that need it; empty if the operation has none.
  std::vector<int32_t> q_offsets, kv_lens;
  // Where equality within a tolerance is not the rule: judges outputs; empty string if right.
  std::function<std::string(const Outcome& subject, const Outcome& reference)> judge;
  bool optional = false;   // a device may refuse this case
  std::string undeclared;  // why the device need not run this case: what it does not declare
  double bytes = 0;        // perf: that the operation must move at least
  double flops = 0;

  int Add(ProblemTensor tensor) {
    tensors.push_back(std::move(tensor));
    return static_cast<int>(tensors.size()) - 1;
  }
};

// Builds a case for a device (whose declared capabilities decide `undeclared`). Throws Error for a bad case.
// seed: other inputs for the same case.
Problem BuildProblem(const ConformCase& c, const assay_device_info& info, uint64_t seed = 0);
// Operations that every backend has (all that are neither reserved nor composites).
const std::vector<std::string>& RequiredOps();

// ------------------------------------------------------------------------------------------ for the builders

struct BuildContext {
  const ConformCase& c;
  const assay_device_info& info;
  Random random;
  Problem problem;

  // The activation dtype, key "dtype"; notes it if the device does not declare it.
  assay_dtype Act();
  assay_dtype KvDType();  // key "kv"
  void NeedKvGeometry(assay_kv_layout layout, int64_t block_size, int64_t head_dim);
  void NeedWeight(assay_dtype dtype);

  int Output(const std::string& name, assay_dtype dtype, std::vector<int64_t> shape);
  int Normal(const std::string& name, assay_dtype dtype, std::vector<int64_t> shape, double mean, double deviation);
  int Floats(const std::string& name, std::vector<int64_t> shape, const std::vector<float>& values);
  int Ints(const std::string& name, std::vector<int64_t> shape, const std::vector<int32_t>& values);
  int Longs(const std::string& name, std::vector<int64_t> shape, const std::vector<int64_t>& values);
  // A packed weight of normal values.
  int Weight(assay_dtype dtype, assay_dtype compute, uint32_t usage, int64_t rows, int64_t cols, double deviation);
  ProblemTensor& Tensor(int i) { return problem.tensors[static_cast<size_t>(i)]; }
  // Strides the rows of tensors by key "gap" (elements).
  void Gap(std::initializer_list<int> tensors);
};

void BuildEmbed(BuildContext& b);
void BuildGatherRows(BuildContext& b);
void BuildCast(BuildContext& b);
void BuildRmsNorm(BuildContext& b);
void BuildAddRmsNorm(BuildContext& b);
void BuildRope(BuildContext& b);
void BuildGlu(BuildContext& b);
void BuildAddScale(BuildContext& b);
void BuildLinear(BuildContext& b);
void BuildKvBlockCopy(BuildContext& b);
void BuildKvWritePaged(BuildContext& b);
void BuildAttnPaged(BuildContext& b);
void BuildQkNormRopeKvWrite(BuildContext& b);
void BuildSample(BuildContext& b);
void BuildLogprobs(BuildContext& b);
void BuildProbeRead(BuildContext& b);

template <class Desc>
Desc NewDesc(assay_op op) {
  Desc desc{};
  desc.struct_size = sizeof(desc);
  desc.op = op;
  return desc;
}

// The rope keys of a case: theta, scaling, factor, ...
assay_rope_desc RopeDesc(const ConformCase& c, int64_t head_dim);
// For each element of x [T, H, D], how far its rotation may be off, rounding to x's dtype included.
std::vector<double> RopeTolerance(const ProblemTensor& x, const std::vector<int32_t>& positions,
                                  const std::vector<float>& freq_factors, const assay_rope_desc& rope);
// Key "positions", or tokens spread from 0 to key "max_position".
std::vector<int32_t> Positions(BuildContext& b, int64_t tokens);
// For rows of n elements: the relative error of a sum of n squares in f32 and of what follows from it.
double NormRelativeError(int64_t n);

}  // namespace assay::bench
