// SPDX-License-Identifier: Apache-2.0
// Builders of the operations on rows: embed, gather_rows, cast, norms, glu, add_scale, probe_read.
#include <algorithm>
#include <cmath>
#include <limits>

#include "bench/conform/problem.h"
#include "runtime/core/dtype.h"

namespace assay::bench {
namespace {

constexpr double kU = 0x1p-24;  // unit roundoff of f32

// Indices into n rows, some of them outside.
std::vector<int32_t> SomeRows(Random& random, int64_t count, int64_t n) {
  std::vector<int32_t> index;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t outside[] = {-1, static_cast<int32_t>(n), std::numeric_limits<int32_t>::min(),
                               std::numeric_limits<int32_t>::max()};
    index.push_back(i % 5 == 4 ? outside[i / 5 % 4] : static_cast<int32_t>(random.Below(n)));
  }
  return index;
}

double Size(const BuildContext& b, int i) {
  const ProblemTensor& t = b.problem.tensors[static_cast<size_t>(i)];
  return static_cast<double>(DTypeBytes(t.dtype, static_cast<uint64_t>(t.count())));
}

}  // namespace

double NormRelativeError(int64_t n) {
  // A sum of n squares (none cancels) has a relative error of about u * sqrt(n) when summed one by one; the root
  // halves it; four roundings follow. Four deviations.
  return 4 * kU * (0.5 * std::sqrt(static_cast<double>(n)) + 4);
}

void BuildEmbed(BuildContext& b) {
  const int64_t tokens = b.c.Int("tokens"), vocab = b.c.Int("vocab"), cols = b.c.Int("cols");
  const assay_dtype act = b.Act(), dtype = b.c.DType("w");
  const uint32_t usage = b.c.Int("tied", 0) ? ASSAY_WEIGHT_EMBED | ASSAY_WEIGHT_LINEAR : ASSAY_WEIGHT_EMBED;
  const int ids = b.Ints("ids", {tokens}, SomeRows(b.random, tokens, vocab));
  const int table = b.Weight(dtype, b.c.DType("compute", ASSAY_DTYPE_NONE), usage, vocab, cols, 1.0);
  const int y = b.Output("y", act, {tokens, cols});
  b.Gap({y});
  const bool quantized = IsBlockType(dtype) || IsRowScaled(dtype);
  if (quantized || act != ASSAY_F32) b.Tensor(y).rounded = true;
  // d * q + m: each part is at most about 8 (deviation 1), and is rounded once in f32.
  if (quantized) b.Tensor(y).tolerance.assign(static_cast<size_t>(tokens * cols), 16 * kU);
  b.problem.call.SetDesc(NewDesc<assay_op_desc>(ASSAY_OP_EMBED));
  b.problem.call.in = {ids, table};
  b.problem.call.out = {y};
  b.problem.bytes = Size(b, y) + static_cast<double>(DTypeBytes(dtype, static_cast<uint64_t>(tokens * cols)));
}

void BuildGatherRows(BuildContext& b) {
  const int64_t n = b.c.Int("rows"), m = b.c.Int("count"), cols = b.c.Int("cols");
  const assay_dtype act = b.Act();
  const int x = b.Normal("x", act, {n, cols}, 0, 1);
  const int index = b.Ints("index", {m}, SomeRows(b.random, m, n));
  const int y = b.Output("y", act, {m, cols});
  b.Gap({x, y});
  b.problem.call.SetDesc(NewDesc<assay_op_desc>(ASSAY_OP_GATHER_ROWS));
  b.problem.call.in = {x, index};
  b.problem.call.out = {y};
  b.problem.bytes = 2 * Size(b, y);
}

void BuildCast(BuildContext& b) {
  const int64_t rows = b.c.Int("rows"), cols = b.c.Int("cols");
  const int x = b.Normal("x", b.c.DType("from"), {rows, cols}, 0, 1);
  const int y = b.Output("y", b.c.DType("to"), {rows, cols});
  b.Gap({x, y});
  // Values at the edges of the formats: ties, overflow of f16, its subnormals, infinities, NaN.
  const float inf = std::numeric_limits<float>::infinity();
  const float edges[] = {1 + 0x1p-8f, 1 + 0x3p-8f, 1 + 0x1p-11f, 1 + 0x3p-11f, 65504.0f, 65519.0f, 65520.0f, 3e38f,
                         0x1p-24f,    0x3p-25f,    0x1p-25f,     -0.0f,        inf,      -inf,     NAN,      -1e-6f};
  ProblemTensor& source = b.Tensor(x);
  std::vector<float> values;
  for (int64_t i = 0; i < source.count(); ++i) {
    const bool edge = i % 3 == 0 && i / 3 < static_cast<int64_t>(std::size(edges));
    values.push_back(edge ? edges[i / 3] : source.Value(i));
  }
  source.SetFloats(values);
  b.problem.call.SetDesc(NewDesc<assay_op_desc>(ASSAY_OP_CAST));
  b.problem.call.in = {x};
  b.problem.call.out = {y};
  b.problem.bytes = Size(b, x) + Size(b, y);
}

void BuildRmsNorm(BuildContext& b) {
  const int64_t rows = b.c.Int("rows"), groups = b.c.Int("groups", 0), cols = b.c.Int("cols");
  const assay_dtype act = b.Act();
  const std::vector<int64_t> shape =
      groups ? std::vector<int64_t>{rows, groups, cols} : std::vector<int64_t>{rows, cols};
  const int x = b.Normal("x", act, shape, 0, b.c.Real("scale", 1));
  const int w = b.Normal("weight", ASSAY_F32, {cols}, 1, 0.3);
  const int y = b.c.Int("inplace", 0) ? x : b.Output("y", act, shape);
  b.Gap({x, y});
  b.Tensor(y).rounded = true;
  b.Tensor(y).relative = NormRelativeError(cols);
  auto desc = NewDesc<assay_norm_desc>(ASSAY_OP_RMS_NORM);
  desc.eps = static_cast<float>(b.c.Real("eps", 1e-5));
  b.problem.call.SetDesc(desc);
  b.problem.call.in = {x, w};
  b.problem.call.out = {y};
  b.problem.bytes = Size(b, x) + Size(b, y) + Size(b, w);
}

void BuildAddRmsNorm(BuildContext& b) {
  const int64_t rows = b.c.Int("rows"), cols = b.c.Int("cols");
  const assay_dtype act = b.Act();
  const int x = b.Normal("x", act, {rows, cols}, 0, 1);
  const int w = b.Normal("weight", ASSAY_F32, {cols}, 1, 0.3);
  const int residual = b.Normal("residual", act, {rows, cols}, 0, 2);
  const int y = b.Output("y", act, {rows, cols});
  b.Gap({x, residual, y});
  b.Tensor(residual).rounded = true;
  b.Tensor(y).rounded = true;
  // The sum that is normalised may itself lie one unit apart.
  b.Tensor(y).relative = NormRelativeError(cols) + 2 * UnitRoundoff(act);
  auto desc = NewDesc<assay_norm_desc>(ASSAY_OP_ADD_RMS_NORM);
  desc.eps = static_cast<float>(b.c.Real("eps", 1e-5));
  b.problem.call.SetDesc(desc);
  b.problem.call.in = {x, w};
  b.problem.call.out = {residual, y};
  b.problem.bytes = 4 * Size(b, x) + Size(b, w);
}

void BuildGlu(BuildContext& b) {
  const int64_t tokens = b.c.Int("tokens"), features = b.c.Int("features");
  const assay_dtype act = b.Act();
  const int x = b.Normal("gate_up", act, {tokens, 2 * features}, 0, b.c.Real("scale", 2));
  const int y = b.Output("y", act, {tokens, features});
  b.Gap({x, y});
  ProblemTensor& result = b.Tensor(y);
  result.rounded = true;
  // f(gate) comes out of 1 + tanh or 1 + exp, accurate to some units of 1, times at most |gate|.
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t f = 0; f < features; ++f) {
      const double gate = b.Tensor(x).Value(t * 2 * features + f);
      const double up = b.Tensor(x).Value((t * 2 + 1) * features + f);
      result.tolerance.push_back(16 * kU * std::abs(gate * up));
    }
  }
  auto desc = NewDesc<assay_glu_desc>(ASSAY_OP_GLU);
  const std::string name = b.c.Text("act");
  if (name != "silu" && name != "gelu_tanh") b.c.Fail("act=" + name + " is neither silu nor gelu_tanh");
  desc.act = name == "silu" ? ASSAY_GLU_SILU : ASSAY_GLU_GELU_TANH;
  b.problem.call.SetDesc(desc);
  b.problem.call.in = {x};
  b.problem.call.out = {y};
  b.problem.bytes = Size(b, x) + Size(b, y);
}

void BuildAddScale(BuildContext& b) {
  const int64_t rows = b.c.Int("rows"), cols = b.c.Int("cols");
  const assay_dtype act = b.Act();
  auto desc = NewDesc<assay_add_scale_desc>(ASSAY_OP_ADD_SCALE);
  desc.alpha = static_cast<float>(b.c.Real("alpha", 1));
  desc.beta = static_cast<float>(b.c.Real("beta", 1));
  const int a = b.Normal("a", act, {rows, cols}, 0, 1);
  const int other = b.c.Int("b", 1) ? b.Normal("b", act, {rows, cols}, 0, 1) : -1;
  const int y = b.c.Int("inplace", 0) ? a : b.Output("y", act, {rows, cols});
  b.Gap({a, y});
  std::vector<double> tolerance;
  for (int64_t i = 0; i < rows * cols; ++i) {
    const double added = other < 0 ? 0 : std::abs(desc.beta * b.Tensor(other).Value(i));
    tolerance.push_back(4 * kU * (std::abs(desc.alpha * b.Tensor(a).Value(i)) + added));
  }
  b.Tensor(y).rounded = true;
  b.Tensor(y).tolerance = std::move(tolerance);
  b.problem.call.SetDesc(desc);
  b.problem.call.in = {a, other};
  b.problem.call.out = {y};
  b.problem.bytes = Size(b, a) * (other < 0 ? 2 : 3);
}

void BuildProbeRead(BuildContext& b) {
  const int64_t n = b.c.Int("bytes");
  const int x = b.Output("x", ASSAY_U8, {n});
  std::vector<uint8_t>& bytes = b.Tensor(x).elements;
  bytes.resize(static_cast<size_t>(n));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(b.random.Next());
  const int sink = b.Output("sink", ASSAY_F32, {1});
  // Any value is right. That one was written at all shows in its being the same over both kinds of poison.
  b.Tensor(sink).judged = true;
  b.problem.call.SetDesc(NewDesc<assay_op_desc>(ASSAY_OP_PROBE_READ));
  b.problem.call.in = {x};
  b.problem.call.out = {sink};
  b.problem.bytes = static_cast<double>(n);
}

}  // namespace assay::bench
