// SPDX-License-Identifier: Apache-2.0
// y = x * w^T + bias.
#include "kernels/ref/convert.h"
#include "kernels/ref/ops.h"

namespace assay::ref {

void Linear(const View& x, const View& w, const View& bias, const View& y) {
  const int64_t rows = x.shape[0], inner = x.shape[1];
  std::vector<std::vector<double>> x_rows;
  for (int64_t m = 0; m < rows; ++m) x_rows.push_back(LoadRow(x, At(x, m), inner));
  for (int64_t n = 0; n < w.shape[0]; ++n) {
    std::vector<double> w_row = LoadRow(w, At(w, n), inner);
    for (double& v : w_row) v *= RowScale(w, n);
    for (int64_t m = 0; m < rows; ++m) {
      const std::vector<double>& x_row = x_rows[static_cast<size_t>(m)];
      double sum = bias ? Load(bias, n) : 0.0;
      for (size_t k = 0; k < w_row.size(); ++k) sum += x_row[k] * w_row[k];
      Store(y, At(y, m, n), sum);
    }
  }
}

}  // namespace assay::ref
