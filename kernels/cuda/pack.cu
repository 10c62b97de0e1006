// SPDX-License-Identifier: Apache-2.0
// Packs weights into the layouts of weight_block.h, once, at load: each thread moves 8 columns of a row. Bytes read and
// written: the weight, once each.
#include "kernels/cuda/weight_block.h"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;

// Rows [begin, end) of the packed weight, of which those from spec.rows on are padding; src holds row `begin` first.
struct Rows {
  const uint8_t* src;
  int64_t src_row_bytes;
  int64_t begin, end;
  int64_t runs;  // of 8 columns, in a padded row
};

__device__ __forceinline__ uint16_t LoadHalf(const uint8_t* p) {
  return static_cast<uint16_t>(p[0] | p[1] << 8);
}

// Elements and bytes of a file's block, and where its quants and scale lie.
template <class Format>
struct Source;
template <>
struct Source<Q8Format> {
  static constexpr int kBytes = 34, kQuants = 2;
};
template <>
struct Source<Q4Format> {
  static constexpr int kBytes = 18, kQuants = 2;
};
template <>
struct Source<Q4MinFormat> {
  static constexpr int kBytes = 20, kQuants = 4;
};
template <>
struct Source<I4Format> {
  static constexpr int kBytes = 68, kQuants = 4;
};

template <class T>
__device__ void PackRun(PlainFormat<T>, const WeightRef& w, const Rows& rows, int64_t row, int64_t k) {
  auto* to = reinterpret_cast<T*>(const_cast<uint8_t*>(w.data) + row * w.row_bytes);
  const auto* from = reinterpret_cast<const T*>(rows.src + (row - rows.begin) * rows.src_row_bytes);
  const int64_t padded = w.row_bytes / static_cast<int64_t>(sizeof(T));
  for (int64_t i = k; i < k + 8 && i < padded; ++i) to[i] = i < w.cols ? from[i] : T{};
}

template <class Quant>
__device__ void PackRun(ByteFormat<Quant>, const WeightRef& w, const Rows& rows, int64_t row, int64_t k) {
  using Format = ByteFormat<Quant>;
  constexpr int kBlockBytes = 132;
  auto* scales = const_cast<float*>(w.scales) + k / Format::kGroup * w.scale_step + row;
  if (row >= w.rows) {
    if (k % Format::kGroup == 0) *scales = 0;
    return;
  }
  // A NaN among the quants becomes the scale: tensor cores that are fed by bit tricks would take it for 480.
  uint8_t* to = const_cast<uint8_t*>(w.data) + row * w.row_bytes + k;
  bool nan = false;
  if (w.scale_step == 0) {  // the scales are there already
    const uint8_t* from = rows.src + (row - rows.begin) * rows.src_row_bytes + k;
    for (int i = 0; i < 8; ++i) {
      to[i] = k + i < w.cols ? from[i] : 0;
      const float value = ToFloat(Quant{to[i]});
      nan |= value != value;
    }
    if (nan) *scales = __uint_as_float(0x7fc00000u);
    return;
  }
  const uint8_t* block = rows.src + (row - rows.begin) * rows.src_row_bytes + k / Format::kGroup * kBlockBytes;
  for (int i = 0; i < 8; ++i) to[i] = block[4 + k % Format::kGroup + i];
  if (k % Format::kGroup != 0) return;
  for (int i = 0; i < Format::kGroup; ++i) nan |= (block[4 + i] & 0x7f) == 0x7f;
  const uint32_t bits = LoadHalf(block) | static_cast<uint32_t>(LoadHalf(block + 2)) << 16;
  *scales = __uint_as_float(nan ? 0x7fc00000u : bits);
}

template <int kBits, int kGroup, bool kMin, int kZero>
__device__ void PackRun(RecordFormat<kBits, kGroup, kMin, kZero>, const WeightRef& w, const Rows& rows, int64_t row,
                        int64_t k) {
  using Format = RecordFormat<kBits, kGroup, kMin, kZero>;
  using From = Source<Format>;
  auto* record = const_cast<uint8_t*>(Format::Record(w, row / kTileRows, k / Format::kTileK));
  const int g = static_cast<int>(row % 8), h = static_cast<int>(row % kTileRows / 8);
  const int j = static_cast<int>(k % Format::kTileK / 32), t = static_cast<int>(k % 32 / 8);
  const int in_group = static_cast<int>(k % kGroup);
  const bool padding = row >= w.rows || k >= w.cols;
  const uint8_t* block =
      padding ? nullptr : rows.src + (row - rows.begin) * rows.src_row_bytes + k / kGroup * From::kBytes;
  auto* words = reinterpret_cast<uint32_t*>(record + Format::QuantByte(g, t, j, h));
  uint32_t packed[2] = {0, 0};
  for (int i = 0; i < 8 && !padding; ++i) {
    const uint8_t* quants = block + From::kQuants;
    const int at = in_group + i;
    if (kBits == 8) {
      packed[i / 4] |= static_cast<uint32_t>(quants[at] ^ 0x80) << 8 * (i % 4);
    } else {
      const uint32_t q = at < kGroup / 2 ? quants[at] & 15u : quants[at - kGroup / 2] >> 4;
      packed[0] |= q << NibbleShift(i);
    }
  }
  words[0] = packed[0];
  if (kBits == 8) words[1] = packed[1];
  if (in_group != 0) return;
  for (int part = 0; part < (kMin ? 2 : 1); ++part) {
    auto* scale = reinterpret_cast<uint16_t*>(record + Format::ScaleByte(g, h, j * 32 / kGroup, part));
    *scale = padding ? 0 : LoadHalf(block + 2 * part);
  }
}

template <class Format>
__global__ void __launch_bounds__(kThreads) PackKernel(WeightRef w, Rows rows) {
  WaitForPrevious();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t row = rows.begin + i / rows.runs;
  if (row < rows.end) PackRun(Format{}, w, rows, row, i % rows.runs * 8);
}

template <class T>
int64_t RowBytes(PlainFormat<T>, int64_t cols) {
  return CeilDiv(cols * static_cast<int64_t>(sizeof(T)), 16) * 16;
}
template <class Quant>
int64_t RowBytes(ByteFormat<Quant>, int64_t cols) {
  return CeilDiv(cols, ByteFormat<Quant>::kTileK) * ByteFormat<Quant>::kTileK;
}
template <int kBits, int kGroup, bool kMin, int kZero>
int64_t RowBytes(RecordFormat<kBits, kGroup, kMin, kZero>, int64_t cols) {
  using Format = RecordFormat<kBits, kGroup, kMin, kZero>;
  return CeilDiv(cols, Format::kTileK) * Format::kRecordBytes;
}

// Of row-major bytes; the other formats have their scales in their records.
bool HasScalesBehind(DType dtype) {
  return dtype == DType::kF8_B128 || IsRowScaled(dtype);
}
int64_t ScaleOffset(const WeightRef& w) {
  return CeilDiv(w.rows * w.row_bytes, 256) * 256;
}

}  // namespace

WeightRef RefTo(const WeightSpec& spec, const void* packed) {
  WeightRef w{};
  w.data = static_cast<const uint8_t*>(packed);
  w.rows = spec.rows;
  w.cols = spec.cols;
  w.padded_rows = CeilDiv(spec.rows, kTileRows) * kTileRows;
  WithFormat(spec.dtype, [&](auto format) { w.row_bytes = RowBytes(format, spec.cols); });
  if (HasScalesBehind(spec.dtype)) w.scales = reinterpret_cast<const float*>(w.data + ScaleOffset(w));
  w.scale_step = spec.dtype == DType::kF8_B128 ? w.padded_rows : 0;
  return w;
}

float* RowScales(const WeightSpec& spec, void* packed) {
  return const_cast<float*>(RefTo(spec, packed).scales);
}

const char* WeightUnsupported(const WeightSpec& spec) {
  switch (spec.dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kQ8_0:
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kF8_B128:
    case DType::kF8_E4M3:
    case DType::kI8:
    case DType::kI4_G128:
      break;
    default:
      return "weights are f32, f16, bf16, q8_0, q4_0, q4_1, f8_b128, f8_e4m3, i8 or i4_g128 here";
  }
  if (spec.cols % StorageOf(spec.dtype).elements != 0) return "a row of a block type is a whole number of blocks";
  return nullptr;
}

size_t PackedWeightBytes(const WeightSpec& spec) {
  const WeightRef w = RefTo(spec, nullptr);
  if (HasScalesBehind(spec.dtype)) {
    const int64_t groups = IsRowScaled(spec.dtype) ? 1 : w.cols / F8Format::kGroup;
    return static_cast<size_t>(ScaleOffset(w) + groups * w.padded_rows * 4);
  }
  return static_cast<size_t>((IsQuantized(spec.dtype) ? w.padded_rows / kTileRows : w.rows) * w.row_bytes);
}

void PackRows(const WeightSpec& spec, const void* src, int64_t begin, int64_t count, void* packed, const Queue& queue) {
  if (count == 0 || spec.cols == 0) return;
  const WeightRef w = RefTo(spec, packed);
  const Storage block = StorageOf(spec.dtype);
  WithFormat(spec.dtype, [&](auto format) {
    using Format = decltype(format);
    Rows rows{};
    rows.src = static_cast<const uint8_t*>(src);
    rows.src_row_bytes = spec.cols / block.elements * block.bytes;
    rows.begin = begin;
    rows.end = begin + count;
    if (rows.end == spec.rows && IsQuantized(spec.dtype)) rows.end = w.padded_rows;
    rows.runs = CeilDiv(spec.cols, Format::kTileK) * Format::kTileK / 8;
    const int64_t blocks = CeilDiv((rows.end - begin) * rows.runs, kThreads);
    Launch(PackKernel<Format>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, queue.stream, w, rows);
  });
}

}  // namespace assay::gpu
