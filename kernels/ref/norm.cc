// SPDX-License-Identifier: Apache-2.0
// rms_norm and add_rms_norm.
#include <cmath>

#include "kernels/ref/convert.h"
#include "kernels/ref/ops.h"

namespace assay::ref {
namespace {

// One row of n elements at x_at, normalised into y_at. The row is copied first: y may be x.
void NormRow(const View& x, int64_t x_at, const View& w, const View& y, int64_t y_at, int64_t n, float eps) {
  const std::vector<double> row = LoadRow(x, x_at, n);
  double squares = 0;
  for (const double value : row) squares += value * value;
  const double scale = 1.0 / std::sqrt(squares / static_cast<double>(n) + eps);
  for (int64_t c = 0; c < n; ++c) Store(y, y_at + c, row[static_cast<size_t>(c)] * scale * Load(w, c));
}

}  // namespace

void RmsNorm(const View& x, const View& w, const View& y, float eps) {
  const bool grouped = x.ndim == 3;  // [R, G, C]
  const int64_t groups = grouped ? x.shape[1] : 1;
  const int64_t n = grouped ? x.shape[2] : x.shape[1];
  for (int64_t r = 0; r < x.shape[0]; ++r) {
    for (int64_t g = 0; g < groups; ++g) NormRow(x, At(x, r, g), w, y, At(y, r, g), n, eps);
  }
}

void AddRmsNorm(const View& x, const View& w, const View& residual, const View& y, float eps) {
  for (int64_t r = 0; r < x.shape[0]; ++r) {
    for (int64_t c = 0; c < x.shape[1]; ++c) {
      const int64_t at = At(residual, r, c);
      Store(residual, at, Load(residual, at) + Load(x, At(x, r, c)));
    }
    NormRow(residual, At(residual, r), w, y, At(y, r), x.shape[1], eps);
  }
}

}  // namespace assay::ref
