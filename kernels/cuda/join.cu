// SPDX-License-Identifier: Apache-2.0
// The end of all_gather: parts [R, M, N] of R ranks become rows [M, V], rank after rank within a row. Moves every float
// once each way; memory is the limit, and for a decode step it is a few hundred kilobytes.
#include "kernels/cuda/ops.h"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    Join(const float* parts, int64_t rows, int64_t part, float* y, int64_t columns) {
  WaitForPrevious();
  const int64_t row = blockIdx.y;
  for (int64_t c = blockIdx.x * kThreads + threadIdx.x; c < columns; c += static_cast<int64_t>(gridDim.x) * kThreads) {
    y[row * columns + c] = parts[(c / part * rows + row) * part + c % part];
  }
}

}  // namespace

void JoinParts(const float* parts, int64_t rows, int64_t part, const View& y, const Queue& queue) {
  constexpr int64_t kMostBlocks = 128;  // per row; each then takes several columns
  const int64_t columns = y.shape[1], blocks = (columns + kThreads - 1) / kThreads;
  const dim3 grid(static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks), static_cast<unsigned>(rows));
  Launch(Join, grid, dim3(kThreads), 0, queue.stream, parts, rows, part, y.as<float>(), columns);
}

}  // namespace assay::gpu
