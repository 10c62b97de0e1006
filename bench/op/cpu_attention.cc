// SPDX-License-Identifier: Apache-2.0
// Paged attention of the CPU kernels, for one sequence. Counters: GB/s of keys and values read, GFLOP/s of visible
// pairs.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "kernels/cpu/ops.h"
#include "kernels/cpu/thread_pool.h"

namespace assay::cpu {
namespace {

constexpr int64_t kBlock = 32;

struct Heads {
  const char* model;
  int64_t heads, kv_heads, dim;
};
constexpr Heads kHeads[] = {
    {"smollm2-135m", 9, 3, 64}, {"qwen2.5-0.5b", 14, 2, 64}, {"llama-3.1-8b", 32, 8, 128}, {"gemma-3-270m", 4, 1, 256}};

void Attention(benchmark::State& state, Heads h, int64_t tokens, int64_t context, int threads) {
  const int64_t blocks = (context + kBlock - 1) / kBlock, cache = blocks * kBlock * h.kv_heads * h.dim;
  std::vector<float> q(tokens * h.heads * h.dim, 0.01f), y(q.size());
  std::vector<uint16_t> keys(cache, 0x3c00), values(cache, 0x3c00);  // bf16 0.0078
  std::vector<int32_t> table(blocks), offsets = {0, static_cast<int32_t>(tokens)},
                                      lens = {static_cast<int32_t>(context)};
  for (int64_t i = 0; i < blocks; ++i) table[i] = static_cast<int32_t>(i);
  const auto rows = [&](float* data) {
    return View{data, DType::kF32, 3, {tokens, h.heads, h.dim, 1}, {h.heads * h.dim, h.dim, 1, 0}};
  };
  const auto paged = [&](uint16_t* data) {
    return View{data,
                DType::kBF16,
                4,
                {blocks, h.kv_heads, kBlock, h.dim},
                {h.kv_heads * kBlock * h.dim, kBlock * h.dim, h.dim, 1}};
  };
  const auto list = [&](std::vector<int32_t>& v) {
    return View{v.data(), DType::kI32, 1, {static_cast<int64_t>(v.size()), 1, 1, 1}, {1, 0, 0, 0}};
  };
  const View block_table{table.data(), DType::kI32, 2, {1, blocks, 1, 1}, {blocks, 1, 0, 0}};
  AttnAttr attr;
  attr.kv = {KvLayout::kHND, kBlock};
  attr.scale = 0.125f;
  ThreadPool pool(threads, FindUsableCpus().ids);
  std::vector<std::byte> workspace(AttnPagedWorkspace(tokens, h.heads, h.dim, threads) + 64);
  for (auto _ : state) {
    pool.Run([&](const Team& team) {
      AttnPaged(rows(q.data()), paged(keys.data()), paged(values.data()), block_table, list(offsets), list(lens),
                rows(y.data()), attr, workspace.data(), team);
    });
  }
  const double runs = static_cast<double>(state.iterations());
  const double pairs = static_cast<double>(tokens) * (context - 0.5 * static_cast<double>(tokens - 1)) * h.heads;
  state.counters["GB/s"] =
      benchmark::Counter(4e-9 * static_cast<double>(context * h.kv_heads * h.dim) * runs, benchmark::Counter::kIsRate);
  state.counters["GFLOP/s"] =
      benchmark::Counter(4e-9 * pairs * static_cast<double>(h.dim) * runs, benchmark::Counter::kIsRate);
}

const bool kRegistered = [] {
  const int most = FindUsableCpus().cores;
  for (const Heads& h : kHeads) {
    for (const int64_t context : {512, 8192}) {
      for (const int64_t tokens : {int64_t{1}, int64_t{512}}) {
        const std::string text = std::string("attention/") + h.model + "/tokens:" + std::to_string(tokens) +
                                 "/context:" + std::to_string(context) + "/threads:" + std::to_string(most);
        benchmark::RegisterBenchmark(text.c_str(), Attention, h, tokens, context, most)->UseRealTime();
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace assay::cpu
