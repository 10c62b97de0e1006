// SPDX-License-Identifier: Apache-2.0
// Rows of a packed table. Bytes moved: T rows as packed and as written; limited by bandwidth, and at decode by latency.
// A thread unpacks 8 columns. Not yet measured on a card.
#include "kernels/cuda/linear_tensors.h"
#include "kernels/cuda/weight_block.h"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;

template <class Format>
__global__ void __launch_bounds__(kThreads) EmbedKernel(WeightRef w, const int32_t* ids, MatrixRef y, int64_t runs) {
  WaitForPrevious();
  StartNext();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t token = i / runs, k = i % runs * 8;
  if (token >= y.rows) return;
  const int64_t row = ids[token];
  float x[8] = {};
  if (row >= 0 && row < w.rows) Format::Load8(w, row, k, x);
  Store8(y, token, k, x);
}

}  // namespace

void Embed(const WeightSpec& spec, const View& ids, const void* packed, const View& y, const Queue& queue) {
  if (y.shape[0] == 0 || y.shape[1] == 0) return;
  const WeightRef w = RefTo(spec, packed);
  const int64_t runs = CeilDiv(spec.cols, 8);
  const auto blocks = static_cast<unsigned>(CeilDiv(y.shape[0] * runs, kThreads));
  WithFormat(spec.dtype, [&](auto format) {
    Launch(EmbedKernel<decltype(format)>, dim3(blocks), dim3(kThreads), 0, queue.stream, w, ids.as<const int32_t>(),
           MatrixOf(y), runs);
  });
}

}  // namespace assay::gpu
