// SPDX-License-Identifier: Apache-2.0
// bf16 GEMM by oneDNN, for its AMX kernels. Each thread runs its own share with primitives of its own, made while
// this thread's OpenMP team is of size 1: oneDNN then runs in the caller and starts no thread.
#include "kernels/cpu/linear_kernels.h"

#if ASSAY_ONEDNN
#include <omp.h>

#include <compare>
#include <cstring>
#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

namespace assay::cpu {
namespace {

using dnnl::memory;

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

struct Shape {
  int64_t m, n, k;
  auto operator<=>(const Shape&) const = default;
};

dnnl::matmul::primitive_desc Describe(const Shape& s) {
  const memory::desc x({s.m, s.k}, memory::data_type::bf16, memory::format_tag::ab);
  const memory::desc w({s.k, s.n}, memory::data_type::bf16, memory::format_tag::BA16a64b2a);
  const memory::desc y({s.m, s.n}, memory::data_type::f32, memory::format_tag::ab);
  return {dnnl::matmul::desc(x, w, y), Engine()};
}

struct Multiplication {
  dnnl::matmul matmul;
  memory x, w, y;
  dnnl::stream stream;
  explicit Multiplication(const dnnl::matmul::primitive_desc& pd)
      : matmul(pd),
        x(pd.src_desc(), Engine(), nullptr),
        w(pd.weights_desc(), Engine(), nullptr),
        y(pd.dst_desc(), Engine(), nullptr),
        stream(Engine()) {}
};

}  // namespace

bool OnednnHasBf16() {
  static const bool has = [] {
    try {
      return std::strstr(Describe({kOnednnRows, kPanelRows, 32}).impl_info_str(), "brg") != nullptr;
    } catch (const dnnl::error&) {
      return false;  // this build or machine has none: linear's own kernels serve
    }
  }();
  return has;
}

void OnednnBf16(int64_t m, int64_t n, int64_t k, const void* x, const void* w, float* y) {
  thread_local std::map<Shape, Multiplication> cache;
  const Shape shape{m, n, k};
  auto it = cache.find(shape);
  if (it == cache.end()) {
    omp_set_num_threads(1);
    it = cache.try_emplace(shape, Describe(shape)).first;
  }
  Multiplication& mul = it->second;
  mul.x.set_data_handle(const_cast<void*>(x));
  mul.w.set_data_handle(const_cast<void*>(w));
  mul.y.set_data_handle(y);
  mul.matmul.execute(mul.stream, {{DNNL_ARG_SRC, mul.x}, {DNNL_ARG_WEIGHTS, mul.w}, {DNNL_ARG_DST, mul.y}});
}

}  // namespace assay::cpu

#else

namespace assay::cpu {

bool OnednnHasBf16() {
  return false;
}
void OnednnBf16(int64_t, int64_t, int64_t, const void*, const void*, float*) {}

}  // namespace assay::cpu

#endif
