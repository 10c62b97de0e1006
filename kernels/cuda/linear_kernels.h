// SPDX-License-Identifier: Apache-2.0
// The kernels between which Linear (linear.cu) chooses. Each enqueues and returns; arguments are trusted.
#pragma once

#include "kernels/cuda/linear_tensors.h"
#include "kernels/cuda/weight_block.h"

namespace assay::gpu {

// y = x * w^T + bias in f32, for at most kGemvRows rows of x: the weight is streamed once. bias may be null.
constexpr int kGemvRows = 8;
void Gemv(const WeightSpec& spec, const WeightRef& w, const MatrixRef& x, const float* bias, const MatrixRef& y,
          const Queue& queue);
// The same for any number of rows.
void Gemm(const WeightSpec& spec, const WeightRef& w, const MatrixRef& x, const float* bias, const MatrixRef& y,
          const Queue& queue);

// ---- Capability 8.0 and later; every dtype of weights but f32. x has the dtype of TensorDType(spec) and 16-byte
// aligned rows, readable and zero up to a whole number of 8 columns.

// bf16, or f16 beside weights in f16.
constexpr DType TensorDType(const WeightSpec& spec) {
  return spec.dtype == DType::kF16 ? DType::kF16 : DType::kBF16;
}
// At most kGemvTensorRows rows of x.
constexpr int kGemvTensorRows = 16;
void GemvTensor(const WeightSpec& spec, const WeightRef& w, const MatrixRef& x, const float* bias, const MatrixRef& y,
                const Queue& queue);

// Any number of rows. With splits > 1, y is f32 and stands for part 0; part s lies split_bytes * s behind it, and bias
// must be null: FinishRows adds the parts.
constexpr int kMostSplits = 8;
int GemmTensorSplits(const WeightSpec& spec, int64_t m, const Queue& queue);
void GemmTensor(const WeightSpec& spec, const WeightRef& w, const MatrixRef& x, const float* bias, const MatrixRef& y,
                int splits, int64_t split_bytes, const Queue& queue);

// ---- Before and behind

// x in another dtype, with rows of to.stride columns, zeros behind the last (to.stride: a multiple of 8).
void ConvertRows(const MatrixRef& x, const MatrixRef& to, const Queue& queue);
// y = the sum of `splits` parts + bias; parts: f32 [splits, y.rows, stride], stride a multiple of 8 and at least
// y.cols.
void FinishRows(const float* parts, int splits, int64_t stride, const float* bias, const MatrixRef& y,
                const Queue& queue);
// x as e4m3 with a scale for every 128 columns, the largest becoming 448: quants [rows, x.cols], scales [x.cols / 128,
// rows]. rows >= x.rows; those beyond x are zero.
void QuantizeRows(const MatrixRef& x, uint8_t* quants, float* scales, int64_t rows, const Queue& queue);
// x as `dtype`, F8_E4M3 or I8, with a scale for each row, the largest becoming 448 or 127: quants [x.rows, stride],
// zeros behind the last column, scales [x.rows]. stride: a multiple of 8, at least x.cols.
void QuantizeWholeRows(const MatrixRef& x, DType dtype, uint8_t* quants, int64_t stride, float* scales,
                       const Queue& queue);
// y = sums * x_scales [y.rows] * w_scales [y.cols] + bias; sums: of `dtype`, F32 or I32, [y.rows, stride], stride a
// multiple of 8 and at least y.cols.
void FinishScaledRows(const void* sums, DType dtype, int64_t stride, const float* x_scales, const float* w_scales,
                      const float* bias, const MatrixRef& y, const Queue& queue);
// Rows [begin, begin + to.rows) of a weight, unpacked.
void UnpackRows(const WeightSpec& spec, const WeightRef& w, int64_t begin, const MatrixRef& to, const Queue& queue);

}  // namespace assay::gpu
