// SPDX-License-Identifier: Apache-2.0
// Which kernel multiplies, and what goes through scratch on the way.
//   strict f32            gemv.cu for 8 rows of x; beyond, the library if all is F32, else gemm.cu
//   no tensor cores       the same
//   up to 16 rows         gemv_sm80.cu: the weight is streamed once
//   more                  weights in 16 bits: the library, else gemm_sm80.cu
//                         F8_B128 on Hopper: x becomes e4m3 as well, then the library
//                         F8_E4M3, I8: x takes the weight's type, too, if the library does that on this card
//                         blocks and many rows: the weight is unpacked to bf16, piece by piece, for the library
//                         blocks otherwise: gemm_sm80.cu
// Scratch is cut into four regions, kRegion bytes each at most: what does not fit goes in pieces.
#include <algorithm>

#include "kernels/cuda/gemm_lt.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/linear_kernels.h"

namespace assay::gpu {
namespace {

constexpr int64_t kRegion = int64_t{32} << 20;
constexpr int64_t kAlign = 256;
// From here on the unpacked weight (written and read once more, 4 bytes, against 2 * m operations) costs less than the
// library gains on mma.sync. From counts, to be tuned on a card.
constexpr int64_t kUnpackRows = 768;

int64_t RoundUp(int64_t value, int64_t step) {
  return CeilDiv(value, step) * step;
}
// How many of `rows` rows of that many bytes go through a region at once.
int64_t RowsAtOnce(int64_t rows, int64_t row_bytes) {
  constexpr int64_t kStep = 64;
  const int64_t fit = kRegion / row_bytes / kStep * kStep;
  const int64_t most = fit < kStep ? kStep : fit;
  return rows < most ? rows : most;
}

bool IsStrict(const WeightSpec& spec) {
  return spec.compute == DType::kF32 || spec.dtype == DType::kF32;
}
bool HasTensorCores(const Queue& queue) {
  return GPU_HAS_SM80 && queue.capability >= 80;
}

// Bytes of a row of x when it is quantised to the weight's dtype: the row, as long as the weight's, and its scale.
int64_t QuantizedRowBytes(const WeightSpec& spec) {
  return RoundUp(spec.cols, I8Format::kTileK) + static_cast<int64_t>(sizeof(float));
}

// Offsets of the regions, for products of at most m rows.
struct Regions {
  int64_t x = 0, result = 0, weight = 0, library = 0, total = 0;
};
Regions RegionsFor(const WeightSpec& spec, int64_t m, const Queue& queue) {
  Regions r;
  if (!HasTensorCores(queue) || m == 0) return r;
  const int64_t padded_k = RoundUp(spec.cols, 8), padded_n = RoundUp(spec.rows, 8);
  const auto take = [&](int64_t bytes) {
    const int64_t at = r.total;
    r.total = RoundUp(at + bytes, kAlign);
    return at;
  };
  if (spec.dtype == DType::kF32) {
    r.library = take(m > kGemvRows ? static_cast<int64_t>(kLtWorkspaceBytes) : 0);
    return r;
  }
  if (IsStrict(spec)) return r;
  const int64_t half = RowsAtOnce(m, padded_k * 2) * padded_k * 2, row_bytes = QuantizedRowBytes(spec);
  const bool quantized = IsRowScaled(spec.dtype) && m > kGemvTensorRows;
  r.x = take(quantized ? std::max(half, RowsAtOnce(m, row_bytes) * row_bytes + kAlign) : half);
  if (m <= kGemvTensorRows) return r;
  // Parts of a split product fill the processors once, with tiles of 64 KB.
  const int64_t parts = int64_t{queue.processors} * 64 << 10;
  const int64_t result = RowsAtOnce(RoundUp(m, 4), padded_n * 4) * padded_n * 4;
  r.result = take(parts > result ? parts : result);
  r.library = take(static_cast<int64_t>(kLtWorkspaceBytes));
  if (IsQuantized(spec.dtype) && m >= kUnpackRows) {
    r.weight = take(RowsAtOnce(spec.rows, padded_k * 2) * padded_k * 2);
  }
  return r;
}

#if GPU_HAS_SM80

constexpr int kHopper = 90;

MatrixRef ColumnsOf(const MatrixRef& m, int64_t begin, int64_t count) {
  MatrixRef part = m;
  part.data = static_cast<uint8_t*>(m.data) + begin * ElementBytes(m.dtype);
  part.cols = count;
  return part;
}

// One product on tensor cores.
struct TensorLinear {
  const WeightSpec& spec;
  const WeightRef& w;
  const float* bias;
  uint8_t* scratch;
  const Regions& regions;
  GemmLt* lt;
  const Queue& queue;

  LtOperands Operands(const void* x, const void* weight, void* y) const {
    LtOperands operands;
    operands.x = x;
    operands.w = weight;
    operands.y = y;
    operands.workspace = scratch + regions.library;
    return operands;
  }
  MatrixRef Result(int64_t rows, int64_t cols) const {
    return {scratch + regions.result, DType::kF32, true, rows, cols, RoundUp(cols, 8)};
  }
  // Whether the library may write y itself: it adds no bias in f32 to 16 bits, and wants aligned rows.
  bool Direct(DType operands, const MatrixRef& y) const {
    return bias == nullptr && y.vectors &&
           (y.dtype == operands || y.dtype == DType::kF32 || operands == DType::kF8_B128 ||
            operands == DType::kF8_E4M3);
  }

  void Run(const MatrixRef& x, const MatrixRef& y) const {
    const int64_t m = x.rows;
    if (m > kGemvTensorRows && spec.dtype == DType::kF8_B128 && RunF8(x, y)) return;
    if (m > kGemvTensorRows && IsRowScaled(spec.dtype) && RunRowScaled(x, y)) return;
    const DType dtype = TensorDType(spec);
    if (x.dtype == dtype && x.vectors && x.cols % 8 == 0) return RunHalf(x, y);
    const int64_t padded = RoundUp(x.cols, 8), at_once = RowsAtOnce(m, padded * 2);
    for (int64_t row = 0; row < m; row += at_once) {
      const int64_t count = m - row < at_once ? m - row : at_once;
      const MatrixRef half{scratch + regions.x, dtype, true, count, x.cols, padded};
      ConvertRows(RowsOf(x, row, count), half, queue);
      RunHalf(half, RowsOf(y, row, count));
    }
  }

  // x in 16 bits.
  void RunHalf(const MatrixRef& x, const MatrixRef& y) const {
    if (x.rows <= kGemvTensorRows) return GemvTensor(spec, w, x, bias, y, queue);
    if (lt != nullptr) {
      if (!IsQuantized(spec.dtype)) {
        const int64_t w_stride = w.row_bytes / 2;
        if (Library(x, w.data, w_stride, bias, y)) return;
      } else if (x.rows >= kUnpackRows && RunUnpacked(x, y)) {
        return;
      }
    }
    const int splits = GemmTensorSplits(spec, x.rows, queue);
    if (splits == 1) return GemmTensor(spec, w, x, bias, y, 1, 0, queue);
    const MatrixRef parts = Result(x.rows, y.cols);
    GemmTensor(spec, w, x, nullptr, parts, splits, parts.rows * parts.stride * 4, queue);
    FinishRows(static_cast<const float*>(parts.data), splits, parts.stride, bias, y, queue);
  }

  // By the library, with rows of `weight` in x's dtype; false if it does not do that.
  bool Library(const MatrixRef& x, const void* weight, int64_t w_stride, const float* added, const MatrixRef& y) const {
    const bool direct = added == nullptr && Direct(x.dtype, y);
    LtProduct product{x.dtype, direct ? y.dtype : DType::kF32, x.rows, y.cols, x.cols, x.stride, w_stride, y.stride};
    if (direct) return lt->Multiply(product, Operands(x.data, weight, y.data), queue.stream);
    const int64_t padded = RoundUp(y.cols, 8), at_once = RowsAtOnce(x.rows, padded * 4);
    for (int64_t row = 0; row < x.rows; row += at_once) {
      const int64_t count = x.rows - row < at_once ? x.rows - row : at_once;
      const MatrixRef result = Result(count, y.cols), from = RowsOf(x, row, count);
      product.m = count;
      product.y_stride = result.stride;
      if (!lt->Multiply(product, Operands(from.data, weight, result.data), queue.stream)) return false;
      FinishRows(static_cast<const float*>(result.data), 1, result.stride, added, RowsOf(y, row, count), queue);
    }
    return true;
  }

  bool RunUnpacked(const MatrixRef& x, const MatrixRef& y) const {
    const int64_t padded = RoundUp(spec.cols, 8), at_once = RowsAtOnce(spec.rows, padded * 2);
    for (int64_t n = 0; n < spec.rows; n += at_once) {
      const int64_t count = spec.rows - n < at_once ? spec.rows - n : at_once;
      const MatrixRef piece{scratch + regions.weight, DType::kBF16, true, count, spec.cols, padded};
      MatrixRef part = ColumnsOf(y, n, count);
      part.vectors = y.vectors && n % 8 == 0;
      UnpackRows(spec, w, n, piece, queue);
      if (!Library(x, piece.data, padded, bias == nullptr ? nullptr : bias + n, part)) return false;
    }
    return true;
  }

  // x as e4m3, too; false if the library does not do that here.
  bool RunF8(const MatrixRef& x, const MatrixRef& y) const {
    if (lt == nullptr || queue.capability != kHopper || w.rows != w.padded_rows) return false;
    const int64_t groups = x.cols / F8Format::kGroup, n = y.cols;
    const bool direct = Direct(DType::kF8_B128, y) && x.rows % 4 == 0;
    const int64_t by_x = RowsAtOnce(x.rows, x.cols + groups * 4);
    const int64_t at_once = direct ? by_x : RowsAtOnce(by_x, RoundUp(n, 8) * 4);
    LtProduct product{DType::kF8_B128, direct ? y.dtype : DType::kF32, 0, n, x.cols, x.cols, x.cols, y.stride};
    for (int64_t row = 0; row < x.rows; row += at_once) {
      const int64_t count = x.rows - row < at_once ? x.rows - row : at_once;
      product.m = RoundUp(count, 4);
      if (!direct) product.y_stride = RoundUp(n, 8);
      if (!lt->Has(product)) return false;
      uint8_t* quants = scratch + regions.x;
      auto* scales = reinterpret_cast<float*>(quants + RoundUp(product.m * x.cols, kAlign));
      QuantizeRows(RowsOf(x, row, count), quants, scales, product.m, queue);
      const MatrixRef to = RowsOf(y, row, count), result = Result(product.m, n);
      LtOperands operands = Operands(quants, w.data, direct ? to.data : result.data);
      operands.x_scales = scales;
      operands.w_scales = w.scales;
      if (!lt->Multiply(product, operands, queue.stream)) return false;
      if (!direct) FinishRows(static_cast<const float*>(result.data), 1, result.stride, bias, to, queue);
    }
    return true;
  }

  // x in the weight's dtype with a scale per row, too; false if the library does not do that here. Where it applies the
  // scales itself (F8_E4M3, on Hopper) it may write y; elsewhere bare sums are scaled afterwards.
  bool RunRowScaled(const MatrixRef& x, const MatrixRef& y) const {
    constexpr int64_t kMostColumns = int64_t{1} << 17;  // of products of two bytes, in 32 bits
    if (lt == nullptr || w.rows != w.padded_rows || w.row_bytes > kMostColumns) return false;
    const int64_t k = w.row_bytes, n = y.cols;
    const LtProduct bare{spec.dtype, spec.dtype == DType::kI8 ? DType::kI32 : DType::kF32, x.rows, n, k, k, k, n};
    LtProduct product = bare;
    bool direct = false;
    if (spec.dtype == DType::kF8_E4M3) {
      product.row_scales = true;
      direct = Direct(spec.dtype, y);
      if (direct) product.y = y.dtype, product.y_stride = y.stride;
    }
    if (!lt->Has(product)) {
      product = bare;
      direct = false;
    }
    const int64_t by_x = RowsAtOnce(x.rows, QuantizedRowBytes(spec));
    const int64_t at_once = direct ? by_x : RowsAtOnce(by_x, n * 4);
    uint8_t* quants = scratch + regions.x;
    auto* scales = reinterpret_cast<float*>(quants + RoundUp(at_once * k, kAlign));
    for (int64_t row = 0; row < x.rows; row += at_once) {
      product.m = x.rows - row < at_once ? x.rows - row : at_once;
      if (!lt->Has(product)) return false;
      QuantizeWholeRows(RowsOf(x, row, product.m), spec.dtype, quants, k, scales, queue);
      const MatrixRef to = RowsOf(y, row, product.m), result = Result(product.m, n);
      LtOperands operands = Operands(quants, w.data, direct ? to.data : result.data);
      operands.x_scales = scales;
      operands.w_scales = w.scales;
      if (!lt->Multiply(product, operands, queue.stream)) return false;
      if (direct) continue;
      if (product.row_scales) {
        FinishRows(static_cast<const float*>(result.data), 1, n, bias, to, queue);
      } else {
        FinishScaledRows(result.data, product.y, n, scales, w.scales, bias, to, queue);
      }
    }
    return true;
  }
};

#endif  // GPU_HAS_SM80

bool AllF32(const WeightSpec& spec, const MatrixRef& x, const MatrixRef& y) {
  return spec.dtype == DType::kF32 && x.dtype == DType::kF32 && x.vectors && y.vectors;
}

}  // namespace

size_t LinearWorkspace(const WeightSpec& spec, int64_t m, DType, const Queue& queue) {
  return static_cast<size_t>(RegionsFor(spec, m, queue).total);
}

void Linear(const WeightSpec& spec, const View& x_view, const void* packed, const View& bias_view, const View& y_view,
            void* workspace, GemmLt* lt, const Queue& queue) {
  if (x_view.shape[0] == 0 || spec.rows == 0) return;
  const WeightRef w = RefTo(spec, packed);
  const MatrixRef x = MatrixOf(x_view), y = MatrixOf(y_view);
  const auto* bias = bias_view.as<const float>();
  const Regions regions = RegionsFor(spec, x.rows, queue);
  auto* scratch = static_cast<uint8_t*>(workspace);
#if GPU_HAS_SM80
  if (HasTensorCores(queue) && !IsStrict(spec) && spec.cols > 0) {
    return TensorLinear{spec, w, bias, scratch, regions, lt, queue}.Run(x, y);
  }
#endif
  if (x.rows <= kGemvRows) return Gemv(spec, w, x, bias, y, queue);
  if (lt != nullptr && HasTensorCores(queue) && AllF32(spec, x, y) && (bias == nullptr || y.cols % 8 == 0)) {
    const LtProduct product{DType::kF32, DType::kF32, x.rows, y.cols, x.cols, x.stride, w.row_bytes / 4, y.stride};
    LtOperands operands;
    operands.x = x.data;
    operands.w = w.data;
    operands.y = y.data;
    operands.workspace = scratch + regions.library;
    if (lt->Multiply(product, operands, queue.stream)) {
      if (bias != nullptr) FinishRows(static_cast<const float*>(y.data), 1, y.stride, bias, y, queue);
      return;
    }
  }
  Gemm(spec, w, x, bias, y, queue);
}

}  // namespace assay::gpu
