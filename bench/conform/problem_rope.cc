// SPDX-License-Identifier: Apache-2.0
// Builder of rope.
#include <algorithm>
#include <cmath>

#include "bench/conform/problem.h"

namespace assay::bench {

assay_rope_desc RopeDesc(const ConformCase& c, int64_t head_dim) {
  auto d = NewDesc<assay_rope_desc>(ASSAY_OP_ROPE);
  const std::string scaling = c.Has("scaling") ? c.Text("scaling") : "none";
  const char* const names[] = {"none", "linear", "llama3", "yarn"};
  const auto found = std::find(std::begin(names), std::end(names), scaling);
  if (found == std::end(names)) c.Fail("scaling=" + scaling + " is none of none, linear, llama3, yarn");
  d.scaling = static_cast<assay_rope_scaling>(found - std::begin(names));
  d.rotary_dim = static_cast<int32_t>(c.Int("rotary", head_dim));
  d.interleaved = static_cast<int32_t>(c.Int("interleaved", 0));
  d.theta = static_cast<float>(c.Real("theta", 10000));
  d.factor = static_cast<float>(c.Real("factor", 1));
  d.low_freq_factor = static_cast<float>(c.Real("low", 1));
  d.high_freq_factor = static_cast<float>(c.Real("high", 4));
  d.original_context = static_cast<float>(c.Real("context", 8192));
  d.beta_fast = static_cast<float>(c.Real("beta_fast", 32));
  d.beta_slow = static_cast<float>(c.Real("beta_slow", 1));
  d.attn_factor = static_cast<float>(c.Real("attn_factor", 1));
  return d;
}

std::vector<int32_t> Positions(BuildContext& b, int64_t tokens) {
  std::vector<int32_t> positions = b.c.Ints("positions");
  const int64_t last = b.c.Int("max_position", 4095);
  while (static_cast<int64_t>(positions.size()) < tokens) {
    positions.push_back(static_cast<int32_t>(b.random.Below(last + 1)));
  }
  positions.resize(static_cast<size_t>(tokens));
  return positions;
}

std::vector<double> RopeTolerance(const ProblemTensor& x, const std::vector<int32_t>& positions,
                                  const std::vector<float>& freq_factors, const assay_rope_desc& rope) {
  constexpr double u = 0x1p-24;
  const int64_t heads = x.shape[1], dim = x.shape[2], pairs = rope.rotary_dim / 2;
  std::vector<double> tolerance(static_cast<size_t>(x.count()), 0.0);
  for (int64_t i = 0; i < pairs; ++i) {
    // No scaling raises a frequency, so this is the largest that the pair can have.
    const double exponent = -2.0 * static_cast<double>(i) / rope.rotary_dim;
    const double frequency = std::pow(static_cast<double>(rope.theta), exponent) /
                             (freq_factors.empty() ? 1.0 : freq_factors[static_cast<size_t>(i)]);
    // In f32 the frequency is off by some units, more where an exponent was rounded before it was raised; the angle
    // is off in proportion, which at position 100000 is a hundredth of a radian.
    const double relative = (6 - exponent * std::log(static_cast<double>(rope.theta))) * u;
    for (int64_t t = 0; t < x.shape[0]; ++t) {
      const double turn = std::abs(positions[static_cast<size_t>(t)] * frequency) * relative + 8 * u;
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t base = (t * heads + h) * dim;
        const int64_t first = base + (rope.interleaved ? 2 * i : i);
        const int64_t second = base + (rope.interleaved ? 2 * i + 1 : i + pairs);
        const double length = std::hypot(x.Value(first), x.Value(second)) * std::max(1.0f, rope.attn_factor);
        tolerance[static_cast<size_t>(first)] = tolerance[static_cast<size_t>(second)] = length * turn;
      }
    }
  }
  return tolerance;
}

void BuildRope(BuildContext& b) {
  const int64_t tokens = b.c.Int("tokens"), heads = b.c.Int("heads"), kv_heads = b.c.Int("kv_heads", 0);
  const int64_t dim = b.c.Int("dim");
  const assay_dtype act = b.Act();
  if (dim > b.info.max_head_dim) b.problem.undeclared = "no heads of " + std::to_string(dim) + " dimensions";
  const assay_rope_desc desc = RopeDesc(b.c, dim);
  const std::vector<int32_t> at = Positions(b, tokens);
  const int positions = b.Ints("positions", {tokens}, at);
  std::vector<float> factors;
  int freq_factors = -1;
  if (b.c.Int("freq_factors", 0)) {
    for (int i = 0; i < desc.rotary_dim / 2; ++i) factors.push_back(static_cast<float>(1 + 7 * b.random.Uniform()));
    freq_factors = b.Floats("freq_factors", {desc.rotary_dim / 2}, factors);
  }
  const int q = b.Normal("q", act, {tokens, heads, dim}, 0, 1);
  const int k = kv_heads ? b.Normal("k", act, {tokens, kv_heads, dim}, 0, 1) : -1;
  for (const int i : {q, k}) {
    if (i < 0) continue;
    b.Gap({i});
    b.Tensor(i).rounded = true;
    b.Tensor(i).tolerance = RopeTolerance(b.Tensor(i), at, factors, desc);
  }
  b.problem.call.SetDesc(desc);
  b.problem.call.in = {positions, freq_factors};
  b.problem.call.out = {q, k};
  b.problem.bytes = 2.0 * static_cast<double>(b.Tensor(q).elements.size() + (k < 0 ? 0 : b.Tensor(k).elements.size()));
}

}  // namespace assay::bench
