// SPDX-License-Identifier: Apache-2.0
// Attention for cards that conformance, whose emulated card is a Hopper, does not show, and caches of which only a part
// may be touched.
#include "kernels/cuda/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/ref/convert.h"
#include "kernels/ref/ops.h"

namespace assay::gpu {
namespace {

struct Tensor {
  std::vector<uint16_t> bits;
  View view;

  Tensor(DType dtype, std::vector<int64_t> shape) {
    int64_t count = 1;
    view.dtype = dtype;
    view.ndim = static_cast<int32_t>(shape.size());
    for (int i = view.ndim - 1; i >= 0; --i) {
      view.shape[i] = shape[static_cast<size_t>(i)];
      view.stride[i] = count;
      count *= view.shape[i];
    }
    bits.assign(static_cast<size_t>(count) * (dtype == DType::kI32 ? 2 : 1) + 8, 0xffff);  // NaN; 16 bytes to align
    view.data = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(bits.data()) + 15) / 16 * 16);
  }
  Tensor(const Tensor&) = delete;
  void Set(const std::vector<int32_t>& values) {
    for (size_t i = 0; i < values.size(); ++i) view.as<int32_t>()[i] = values[i];
  }
};

struct Problem {
  int capability;
  DType dtype;
  int dim, heads, kv_heads, block_size;
  std::vector<int32_t> queries, keys;
  int window = 0;
  int processors = 20;

  // The largest difference to the reference. Keys that no query sees are NaN.
  double Error() const {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    const auto sequences = static_cast<int64_t>(queries.size());
    std::vector<int32_t> offsets{0}, table;
    int64_t blocks_per_sequence = 0;
    for (const int32_t n : keys) blocks_per_sequence = std::max<int64_t>(blocks_per_sequence, n / block_size + 2);
    for (int64_t i = sequences * blocks_per_sequence; i > 0; --i) table.push_back(static_cast<int32_t>(i - 1));
    for (const int32_t n : queries) offsets.push_back(offsets.back() + n);

    Tensor q(dtype, {offsets.back(), heads, dim}), y(dtype, {offsets.back(), heads, dim});
    Tensor expected(dtype, {offsets.back(), heads, dim});
    const auto blocks = static_cast<int64_t>(table.size());
    Tensor k(dtype, {blocks, kv_heads, block_size, dim}), v(dtype, {blocks, kv_heads, block_size, dim});
    for (int64_t i = 0; i < offsets.back() * heads * dim; ++i) ref::Store(q.view, i, normal(random));
    for (int64_t s = 0; s < sequences; ++s) {
      const int32_t first = window > 0 ? keys[s] - queries[s] - window + 1 : 0;
      for (int32_t p = std::max(0, first); p < keys[s]; ++p) {
        const int32_t block = table[static_cast<size_t>(s * blocks_per_sequence + p / block_size)];
        for (int64_t i = 0; i < kv_heads * dim; ++i) {
          const int64_t at = ref::At(k.view, block, i / dim, p % block_size, i % dim);
          ref::Store(k.view, at, normal(random));
          ref::Store(v.view, at, normal(random));
        }
      }
    }
    Tensor block_table(DType::kI32, {sequences, blocks_per_sequence});
    Tensor q_offsets(DType::kI32, {sequences + 1}), kv_lens(DType::kI32, {sequences});
    block_table.Set(table);
    q_offsets.Set(offsets);
    kv_lens.Set(keys);

    AttnAttr attr;
    attr.kv = {KvLayout::kHND, block_size};
    attr.scale = 1 / std::sqrt(static_cast<float>(dim));
    attr.window = window;
    Queue queue;
    queue.processors = processors;
    queue.capability = capability;
    std::vector<float> workspace(
        AttnPagedWorkspace(offsets.back(), sequences, blocks_per_sequence, heads, kv_heads, dim, attr, queue) / 4, NAN);
    AttnPaged(q.view, k.view, v.view, block_table.view, q_offsets.view, kv_lens.view, y.view, attr, workspace.data(),
              queue);
    ref::AttnPaged(q.view, k.view, v.view, block_table.view, q_offsets.view, kv_lens.view, expected.view, attr);
    double error = 0;
    for (int64_t i = 0; i < offsets.back() * heads * dim; ++i) {
      const double difference = std::abs(ref::Load(y.view, i) - ref::Load(expected.view, i));
      error = std::isnan(difference) ? INFINITY : std::max(error, difference);
    }
    return error;
  }
};

// Results are sums of weights of 1 in all with values of deviation 1: 16-bit operands and results leave this much.
double Tolerance(DType dtype) {
  return dtype == DType::kBF16 ? 0.03 : 0.004;
}

TEST(Attention, AmpereInPrefillAndMixedSteps) {
  const Problem bf16{80, DType::kBF16, 128, 6, 2, 16, {40, 1, 9}, {150, 33, 200}};
  EXPECT_LT(bf16.Error(), Tolerance(DType::kBF16));
  const Problem f16{80, DType::kF16, 64, 6, 2, 48, {70, 1}, {150, 100}};
  EXPECT_LT(f16.Error(), Tolerance(DType::kF16));
}

// More blocks of the cache than a warp finds at once.
TEST(Attention, AmpereOverLongCaches) {
  const Problem decode{80, DType::kBF16, 64, 2, 2, 16, {1}, {2500}, 0, 1};  // one processor: one split
  EXPECT_LT(decode.Error(), Tolerance(DType::kBF16));
  const Problem prefill{80, DType::kBF16, 64, 2, 2, 16, {5}, {1100}};
  EXPECT_LT(prefill.Error(), Tolerance(DType::kBF16));
}

TEST(Attention, BlocksBehindTheWindowAreNotTouched) {
  for (const int capability : {0, 80, 90}) {
    const Problem decode{capability, DType::kBF16, 64, 4, 2, 16, {1, 1}, {300, 77}, 40};
    EXPECT_LT(decode.Error(), Tolerance(DType::kBF16)) << capability;
    const Problem prefill{capability, DType::kBF16, 64, 2, 1, 16, {40}, {333}, 40};
    EXPECT_LT(prefill.Error(), Tolerance(DType::kBF16)) << capability;
  }
}

TEST(Attention, HopperOverManyTiles) {
  for (const int block : {16, 48, 128}) {
    const int dim = block == 48 ? 128 : 64;
    const Problem problem{90, DType::kF16, dim, 3, 1, block, {50, 2}, {330, 129}};
    EXPECT_LT(problem.Error(), Tolerance(DType::kF16)) << block;
  }
}

}  // namespace
}  // namespace assay::gpu
