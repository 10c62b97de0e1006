// SPDX-License-Identifier: Apache-2.0
// glu and add_scale.
#include <cmath>
#include <numbers>

#include "kernels/ref/convert.h"
#include "kernels/ref/ops.h"

namespace assay::ref {
namespace {

double Activate(double x, GluAct act) {
  if (act == GluAct::kSilu) return x / (1 + std::exp(-x));
  const double sqrt_2_over_pi = std::sqrt(2.0 / std::numbers::pi);
  return 0.5 * x * (1 + std::tanh(sqrt_2_over_pi * (x + 0.044715 * x * x * x)));
}

}  // namespace

void Glu(const View& gate_up, const View& y, GluAct act) {
  const int64_t features = y.shape[1];
  for (int64_t t = 0; t < y.shape[0]; ++t) {
    for (int64_t f = 0; f < features; ++f) {
      const double gate = Load(gate_up, At(gate_up, t, f));
      const double up = Load(gate_up, At(gate_up, t, features + f));
      Store(y, At(y, t, f), Activate(gate, act) * up);
    }
  }
}

void AddScale(const View& a, const View& b, const View& y, float alpha, float beta) {
  for (int64_t r = 0; r < a.shape[0]; ++r) {
    for (int64_t c = 0; c < a.shape[1]; ++c) {
      const double scaled = static_cast<double>(alpha) * Load(a, At(a, r, c));
      const double added = b ? static_cast<double>(beta) * Load(b, At(b, r, c)) : 0.0;
      Store(y, At(y, r, c), scaled + added);
    }
  }
}

}  // namespace assay::ref
