// SPDX-License-Identifier: Apache-2.0
// Operations on rows, element by element: gather_rows, cast, add_scale, glu.
// Shapes: [R, C], rows strided. Bytes: every input is read once, every output written once; memory bandwidth is the
// limit. A block takes 1024 units of one row (8 elements, or 16 bytes of a copy), four units a thread, all of them
// loaded before the first is used: 16 to 64 KB on their way per block; less of little work. Where rows are not made of
// aligned vectors, a unit is one element; rows that lie without a gap are taken as one long row. Not yet measured on a
// card.
#include <initializer_list>
#include <type_traits>

#include "kernels/cuda/numeric.h"
#include "kernels/cuda/ops.h"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kUnits = 4;  // per thread
constexpr int kWide = 8;   // elements of a vector unit

// Op: Load(row, column, loaded) fills a Loaded, as it lies in memory; Store(row, column, loaded) computes and writes.
// Columns count elements.
template <class Op>
__global__ void __launch_bounds__(kThreads) RowKernel(Op op, int64_t cols, int units) {
  WaitForPrevious();
  StartNext();
  const int64_t row = blockIdx.x;
  const int64_t first = (static_cast<int64_t>(blockIdx.y) * kThreads * units + threadIdx.x) * Op::kCount;
  typename Op::Loaded loaded[kUnits] = {};
  GPU_UNROLL
  for (int i = 0; i < kUnits; ++i) {
    const int64_t col = first + i * kThreads * Op::kCount;
    if (i < units && col < cols) op.Load(row, col, loaded[i]);
  }
  GPU_UNROLL
  for (int i = 0; i < kUnits; ++i) {
    const int64_t col = first + i * kThreads * Op::kCount;
    if (i < units && col < cols) op.Store(row, col, loaded[i]);
  }
}

struct Rows {
  const void* data;
  int64_t stride;  // elements

  template <class T>
  __device__ __forceinline__ T* At(int64_t row, int64_t col) const {
    return static_cast<T*>(const_cast<void*>(data)) + row * stride + col;
  }
};
Rows RowsOf(const View& v) {
  return {v.data, v.stride[0]};
}

template <class Raw>
struct GatherOp {
  static constexpr int kCount = 1;
  using Loaded = Raw;
  Rows x, y;
  const int32_t* index;  // null: row r of y is row r of x
  int64_t index_stride, x_rows;

  __device__ __forceinline__ void Load(int64_t row, int64_t col, Raw& value) const {
    const int64_t from = index != nullptr ? index[row * index_stride] : row;
    value = from >= 0 && from < x_rows ? *x.At<const Raw>(from, col) : Raw{};
  }
  __device__ __forceinline__ void Store(int64_t row, int64_t col, Raw value) const { *y.At<Raw>(row, col) = value; }
};

template <class From, class To, int count>
struct CastOp {
  static constexpr int kCount = count;
  using Loaded = PackedElements<From, count>;
  Rows x, y;

  __device__ __forceinline__ void Load(int64_t row, int64_t col, Loaded& v) const {
    LoadPacked(x.At<const From>(row, col), v);
  }
  __device__ __forceinline__ void Store(int64_t row, int64_t col, const Loaded& v) const {
    float values[count];
    UnpackElements(v, values);
    StoreElements(y.At<To>(row, col), values);
  }
};

template <class T, int count>
struct AddScaleOp {
  static constexpr int kCount = count;
  struct Loaded {
    PackedElements<T, count> a, b;
  };
  Rows a, b, y;  // b may be absent
  float alpha, beta;

  __device__ __forceinline__ void Load(int64_t row, int64_t col, Loaded& v) const {
    LoadPacked(a.At<const T>(row, col), v.a);
    if (b.data != nullptr) LoadPacked(b.At<const T>(row, col), v.b);
  }
  __device__ __forceinline__ void Store(int64_t row, int64_t col, const Loaded& v) const {
    float sum[count], added[count];
    UnpackElements(v.a, sum);
    UnpackElements(v.b, added);
    GPU_UNROLL
    for (int i = 0; i < count; ++i) sum[i] = alpha * sum[i] + (b.data != nullptr ? beta * added[i] : 0.0f);
    StoreElements(y.At<T>(row, col), sum);
  }
};

// x * sigmoid(z): silu with z = x; gelu's 0.5 * (1 + tanh(w)) is sigmoid(2w).
template <class T>
__device__ __forceinline__ float Activate(float x, GluAct act) {
  const float z = act == GluAct::kSilu ? x : 1.5957691216057308f * (x + 0.044715f * x * x * x);
  if constexpr (sizeof(T) == 4) return x / (1.0f + expf(-z));
  return __fdividef(x, 1.0f + __expf(-z));  // off by some units of f32, far below those of T
}

template <class T, int count>
struct GluOp {
  static constexpr int kCount = count;
  struct Loaded {
    PackedElements<T, count> gate, up;
  };
  Rows gate_up, y;
  int64_t features;
  GluAct act;

  __device__ __forceinline__ void Load(int64_t row, int64_t col, Loaded& v) const {
    LoadPacked(gate_up.At<const T>(row, col), v.gate);
    LoadPacked(gate_up.At<const T>(row, features + col), v.up);
  }
  __device__ __forceinline__ void Store(int64_t row, int64_t col, const Loaded& v) const {
    float gate[count], up[count];
    UnpackElements(v.gate, gate);
    UnpackElements(v.up, up);
    GPU_UNROLL
    for (int i = 0; i < count; ++i) up[i] *= Activate<T>(gate[i], act);
    StoreElements(y.At<T>(row, col), up);
  }
};

template <class Op>
void LaunchRows(const Op& op, int64_t rows, int64_t cols, const Queue& queue) {
  if (rows == 0 || cols == 0) return;
  const int64_t work = CeilDiv(cols, kThreads * Op::kCount);
  int units = kUnits;  // fewer where that would leave processors without a block
  while (units > 1 && rows * CeilDiv(work, units) < queue.processors) units /= 2;
  const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>(CeilDiv(work, units)));
  Launch(RowKernel<Op>, grid, kThreads, 0, queue.stream, op, cols, units);
}

// One row instead of many, where they follow each other without a gap in every view. Not without end: the pieces of a
// row are counted by the grid's second dimension.
bool Flatten(const View& y, std::initializer_list<Rows> all, int64_t* rows, int64_t* cols) {
  *rows = y.shape[0];
  *cols = y.shape[1];
  constexpr int64_t kMost = 65535ll * kThreads * kUnits;
  for (const Rows& r : all) {
    if (r.data != nullptr && r.stride != *cols) return false;
  }
  if (*rows * *cols > kMost) return false;
  *cols *= *rows;
  *rows = *rows > 0 ? 1 : 0;
  return true;
}

// Raw words of the rows: 16 bytes where all are made of them, else elements.
template <class Raw>
void Copy(const View& x, const View& index, const View& y, const Queue& queue) {
  const int64_t ratio = static_cast<int64_t>(sizeof(Raw)) / ElementBytes(y.dtype);
  GatherOp<Raw> op = {{x.data, x.stride[0] / ratio}, {y.data, y.stride[0] / ratio}, nullptr, 0, x.shape[0]};
  int64_t rows = y.shape[0], cols = y.shape[1];
  if (index) {
    op.index = index.as<const int32_t>();
    op.index_stride = index.stride[0];
  } else {
    Flatten(y, {RowsOf(x), RowsOf(y)}, &rows, &cols);
  }
  LaunchRows(op, rows, cols / ratio, queue);
}
void CopyRows(const View& x, const View& index, const View& y, const Queue& queue) {
  if (HasVectorRows(x) && HasVectorRows(y)) {
    Copy<uint4>(x, index, y, queue);
  } else if (ElementBytes(y.dtype) == 2) {
    Copy<uint16_t>(x, index, y, queue);
  } else {
    Copy<uint32_t>(x, index, y, queue);
  }
}

// Whether units of kWide elements fit all rows.
bool IsWide(const View& y, std::initializer_list<const View*> others) {
  bool wide = HasVectorRows(y) && y.shape[1] % kWide == 0;
  for (const View* v : others) wide = wide && HasVectorRows(*v);
  return wide;
}

template <class From, class To>
void CastRows(const View& x, const View& y, const Queue& queue) {
  int64_t rows, cols;
  Flatten(y, {RowsOf(x), RowsOf(y)}, &rows, &cols);
  if (IsWide(y, {&x})) {
    LaunchRows(CastOp<From, To, kWide>{RowsOf(x), RowsOf(y)}, rows, cols, queue);
  } else {
    LaunchRows(CastOp<From, To, 1>{RowsOf(x), RowsOf(y)}, rows, cols, queue);
  }
}

}  // namespace

void GatherRows(const View& x, const View& index, const View& y, const Queue& queue) {
  CopyRows(x, index, y, queue);
}

void Cast(const View& x, const View& y, const Queue& queue) {
  if (x.dtype == y.dtype) return CopyRows(x, View{}, y, queue);
  WithElement(x.dtype, [&](auto from) {
    WithElement(y.dtype, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      if constexpr (!std::is_same_v<From, To>) CastRows<From, To>(x, y, queue);
    });
  });
}

void AddScale(const View& a, const View& b, const View& y, float alpha, float beta, const Queue& queue) {
  int64_t rows, cols;
  Flatten(y, {RowsOf(a), RowsOf(b), RowsOf(y)}, &rows, &cols);
  WithElement(y.dtype, [&](auto element) {
    using T = decltype(element);
    if (IsWide(y, {&a, &b})) {
      LaunchRows(AddScaleOp<T, kWide>{RowsOf(a), RowsOf(b), RowsOf(y), alpha, beta}, rows, cols, queue);
    } else {
      LaunchRows(AddScaleOp<T, 1>{RowsOf(a), RowsOf(b), RowsOf(y), alpha, beta}, rows, cols, queue);
    }
  });
}

void Glu(const View& gate_up, const View& y, GluAct act, const Queue& queue) {
  const int64_t rows = y.shape[0], features = y.shape[1];
  WithElement(y.dtype, [&](auto element) {
    using T = decltype(element);
    if (IsWide(y, {&gate_up})) {
      LaunchRows(GluOp<T, kWide>{RowsOf(gate_up), RowsOf(y), features, act}, rows, features, queue);
    } else {
      LaunchRows(GluOp<T, 1>{RowsOf(gate_up), RowsOf(y), features, act}, rows, features, queue);
    }
  });
}

}  // namespace assay::gpu
