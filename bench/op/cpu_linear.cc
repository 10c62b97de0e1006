// SPDX-License-Identifier: Apache-2.0
// Products of the CPU kernels at models' shapes. Counters: GB/s of packed weights, GFLOP/s.
// Weights rotate through more memory than any cache holds, as the layers of a model do; with few rows of x the bound is
// the memory's read bandwidth (`assay kernels` measures it), with many the arithmetic.
#include <benchmark/benchmark.h>

#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/linear.h"
#include "kernels/cpu/thread_pool.h"

namespace assay::cpu {
namespace {

constexpr std::size_t kRotated = 256u << 20;

const std::map<std::string, DType> kTypes = {
    {"f32", DType::kF32},   {"f16", DType::kF16},   {"bf16", DType::kBF16}, {"q8_0", DType::kQ8_0},
    {"q4_0", DType::kQ4_0}, {"q4_1", DType::kQ4_1}, {"q5_0", DType::kQ5_0}, {"q5_1", DType::kQ5_1},
    {"q4_k", DType::kQ4_K}, {"q5_k", DType::kQ5_K}, {"q6_k", DType::kQ6_K}, {"i4_g128", DType::kI4_G128},
    {"i8", DType::kI8}};

struct Free {
  void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{kWeightAlignment}); }
};
using Memory = std::unique_ptr<std::byte, Free>;
Memory Allocate(std::size_t bytes) {
  return Memory(static_cast<std::byte*>(::operator new (bytes, std::align_val_t{kWeightAlignment})));
}

View Matrix(float* data, int64_t rows, int64_t cols) {
  return {data, DType::kF32, 2, {rows, cols, 1, 1}, {cols, 1, 0, 0}};
}

void Product(benchmark::State& state, DType dtype, int64_t m, int64_t n, int64_t k, int threads) {
  const WeightSpec spec{dtype, DType::kNone, n, k};
  if (const char* why = WeightUnsupported(spec)) return state.SkipWithError(why);
  const std::size_t bytes = PackedWeightBytes(spec);
  const std::size_t copies = m > 64 ? 1 : kRotated / bytes + 1;
  const Memory weights = Allocate(bytes * copies);
  std::memset(weights.get(), 0x11, bytes * copies);  // harmless numbers in every format
  std::vector<float> x(m * k, 0.5f), y(m * n);
  ThreadPool pool(threads, FindUsableCpus().ids);
  const Memory workspace = Allocate(LinearWorkspace(spec, m, threads) + 64);
  std::size_t copy = 0;
  for (auto _ : state) {
    const std::byte* const w = weights.get() + bytes * (copy++ % copies);
    pool.Run([&](const Team& team) {
      Linear(spec, Matrix(x.data(), m, k), w, {}, Matrix(y.data(), m, n), workspace.get(), team);
    });
  }
  const double runs = static_cast<double>(state.iterations());
  state.counters["GB/s"] = benchmark::Counter(static_cast<double>(bytes) * runs * 1e-9, benchmark::Counter::kIsRate);
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * static_cast<double>(m * n * k) * runs, benchmark::Counter::kIsRate);
}

// SmolLM2-135M, Qwen2.5-0.5B and Llama-3.2-1B; K in whole blocks of 256, so that every format takes it.
constexpr int64_t kShapes[][2] = {{3072, 768}, {9728, 1024}, {8192, 2048}, {2048, 8192}};

const bool kRegistered = [] {
  const int most = FindUsableCpus().cores;
  for (const auto& [name, dtype] : kTypes) {
    for (const auto& shape : kShapes) {
      for (const int64_t m : {1, 2, 4, 8, 32, 512}) {
        for (int threads = 1; threads <= most; threads = threads < most && 2 * threads > most ? most : 2 * threads) {
          const std::string text = "linear/" + name + "/m:" + std::to_string(m) + "/n:" + std::to_string(shape[0]) +
                                   "/k:" + std::to_string(shape[1]) + "/threads:" + std::to_string(threads);
          benchmark::RegisterBenchmark(text.c_str(), Product, dtype, m, shape[0], shape[1], threads)->UseRealTime();
        }
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace assay::cpu
