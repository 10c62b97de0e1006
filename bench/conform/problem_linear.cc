// SPDX-License-Identifier: Apache-2.0
// Builder of linear, and how far two right products may lie apart.
#include <algorithm>
#include <cmath>

#include "bench/conform/problem.h"
#include "runtime/core/dtype.h"

namespace assay::bench {
namespace {

constexpr double kU = 0x1p-24;  // unit roundoff of f32
// A rounding error is spread evenly over half a step to either side: its deviation is step / 2 / sqrt(3). Six
// deviations of the sum of many.
const double kSixDeviations = 6 / std::sqrt(3.0);

// What the operation may round x to, given the weight's dtype and the asked-for precision.
struct Rounding {
  bool sixteen_bits = false, int8_blocks = false, e4m3_blocks = false, int8_rows = false, e4m3_rows = false;
};
Rounding AllowedRounding(assay_dtype weight, assay_dtype compute) {
  if (compute == ASSAY_F32 || weight == ASSAY_F32) return {};
  if (weight == ASSAY_F8_B128) return {.e4m3_blocks = true};
  if (weight == ASSAY_F8_E4M3) return {.e4m3_rows = true};
  if (weight == ASSAY_I8) return {.sixteen_bits = true, .int8_rows = true};
  if (weight == ASSAY_I4_G128) return {.sixteen_bits = true, .int8_blocks = true};
  return {.sixteen_bits = !IsBlockType(weight), .int8_blocks = IsBlockType(weight)};
}

// How far the product x . w moves when each x is rounded by up to half_step(|x|, largest |x| of its block).
template <class HalfStep>
double Moved(const float* x, const float* w, int64_t k, int64_t block, HalfStep half_step) {
  double sum = 0;
  for (int64_t at = 0; at < k; at += block) {
    const int64_t end = std::min(at + block, k);
    double largest = 0;
    for (int64_t i = at; i < end; ++i) largest = std::max(largest, std::abs(static_cast<double>(x[i])));
    for (int64_t i = at; i < end; ++i) {
      const double moved = half_step(std::abs(static_cast<double>(x[i])), largest) * w[i];
      sum += moved * moved;
    }
  }
  return kSixDeviations * std::sqrt(sum);
}

// The largest difference of one product x . w of length k.
double ProductTolerance(const float* x, const float* w, int64_t k, const Rounding& rounding) {
  double xx = 0, ww = 0;
  for (int64_t i = 0; i < k; ++i) {
    xx += static_cast<double>(x[i]) * x[i];
    ww += static_cast<double>(w[i]) * w[i];
  }
  // Where more than one is allowed, the loosest counts. What unpacked blocks lose in 16 bits is covered: a half step is
  // 0.7 of its bound in the root mean square, so that x and w rounded together stay within six deviations as well.
  double moved = 0;
  if (rounding.sixteen_bits) {
    moved = std::max(moved, Moved(x, w, k, k, [](double v, double) { return UnitRoundoff(ASSAY_BF16) * v; }));
  }
  if (rounding.int8_blocks || rounding.int8_rows) {  // integers over [-largest, largest]
    const int64_t block = rounding.int8_rows ? k : 32;
    moved = std::max(moved, Moved(x, w, k, block, [](double, double largest) { return largest / 254; }));
  }
  if (rounding.e4m3_blocks || rounding.e4m3_rows) {  // 4 significant bits; scaled to 448, the step below 2^-6 is 2^-9
    const int64_t block = rounding.e4m3_rows ? k : 128;
    moved = std::max(moved, Moved(x, w, k, block, [](double v, double largest) {
                       return std::max(0x1p-4 * v, 0x1p-10 * largest / 448);
                     }));
  }
  // Summing k products of random signs one by one in f32: the partial sums grow like sqrt(i), and the deviation of the
  // final error is u * |x| * |w| * 0.4. Twenty deviations; whoever sums in parts does better.
  return 8 * kU * std::sqrt(xx * ww) + moved;
}

}  // namespace

void BuildLinear(BuildContext& b) {
  const int64_t m = b.c.Int("m"), n = b.c.Int("n"), k = b.c.Int("k");
  const assay_dtype act = b.Act(), weight = b.c.DType("w"), compute = b.c.DType("compute", ASSAY_DTYPE_NONE);
  const bool f32_out = b.c.Has("y") && b.c.DType("y") == ASSAY_F32;
  const uint32_t usage = b.c.Int("tied", 0) ? ASSAY_WEIGHT_EMBED | ASSAY_WEIGHT_LINEAR : ASSAY_WEIGHT_LINEAR;
  const int x = b.Normal("x", act, {m, k}, 0, 1);
  const int w = b.Weight(weight, compute, usage, n, k, 1 / std::sqrt(static_cast<double>(k)));
  const int bias = b.c.Int("bias", 0) ? b.Normal("bias", ASSAY_F32, {n}, 0, 1) : -1;
  const int y = b.Output("y", f32_out ? ASSAY_F32 : act, {m, n});
  b.Gap({x, y});

  if (b.c.Int("perf", 0) == 0) {
    const std::vector<float> xs = b.Tensor(x).Floats(), ws = b.Tensor(w).Floats();
    const Rounding rounding = AllowedRounding(weight, compute);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        const double added = bias < 0 ? 0 : 2 * kU * std::abs(b.Tensor(bias).Value(j));
        b.Tensor(y).tolerance.push_back(ProductTolerance(&xs[i * k], &ws[j * k], k, rounding) + added);
      }
    }
  }
  b.Tensor(y).rounded = true;
  auto desc = NewDesc<assay_linear_desc>(ASSAY_OP_LINEAR);
  desc.compute = compute;
  b.problem.call.SetDesc(desc);
  b.problem.call.in = {x, w, bias};
  b.problem.call.out = {y};
  b.problem.flops = 2.0 * static_cast<double>(m * n * k);
  b.problem.bytes = static_cast<double>(b.Tensor(w).elements.size() + b.Tensor(x).elements.size() +
                                        DTypeBytes(b.Tensor(y).dtype, static_cast<uint64_t>(m * n)));
}

}  // namespace assay::bench
