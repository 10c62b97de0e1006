// SPDX-License-Identifier: Apache-2.0
// Attention for cards that conformance, whose emulated card is a Hopper, does not show, and caches of which only a part
// may be touched.
#include "kernels/cuda/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/cuda/numeric.h"

namespace assay::gpu {
namespace {

float Load(const View& v, int64_t at) {
  return v.dtype == DType::kBF16 ? ToFloat(v.as<Bf16>()[at]) : ToFloat(v.as<F16>()[at]);
}
void Store(const View& v, int64_t at, float x) {
  if (v.dtype == DType::kBF16) {
    v.as<Bf16>()[at] = FromFloat<Bf16>(x);
  } else {
    v.as<F16>()[at] = FromFloat<F16>(x);
  }
}

// Owns its elements, all of them NaN at first.
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
    constexpr size_t kToAlign = 8;
    bits.assign(static_cast<size_t>(count * ElementBytes(dtype)) / 2 + kToAlign, 0xffff);
    view.data = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(bits.data()) + 15) / 16 * 16);
  }
  Tensor(DType dtype, std::vector<int64_t> shape, const std::vector<int32_t>& values) : Tensor(dtype, shape) {
    std::copy(values.begin(), values.end(), view.as<int32_t>());
  }
  Tensor(const Tensor&) = delete;
};

struct Problem {
  int capability;
  DType dtype;
  int dim, heads, kv_heads, block_size;
  std::vector<int32_t> queries, keys;
  int window = 0;
  int processors = 20;

  // The largest difference to what the ABI's words say. Keys that no query sees are NaN.
  double Error() const {
    const auto sequences = static_cast<int64_t>(queries.size());
    const int64_t columns = *std::max_element(keys.begin(), keys.end()) / block_size + 2, blocks = sequences * columns;
    std::vector<int32_t> offsets{0}, blocks_of(static_cast<size_t>(blocks));
    for (const int32_t n : queries) offsets.push_back(offsets.back() + n);
    for (int64_t i = 0; i < blocks; ++i) blocks_of[static_cast<size_t>(i)] = static_cast<int32_t>(blocks - 1 - i);
    const int64_t tokens = offsets.back();
    const Tensor q(dtype, {tokens, heads, dim}), y(dtype, {tokens, heads, dim});
    const Tensor k(dtype, {blocks, kv_heads, block_size, dim}), v(dtype, {blocks, kv_heads, block_size, dim});
    const Tensor table(DType::kI32, {sequences, columns}, blocks_of), lens(DType::kI32, {sequences}, keys);
    const Tensor q_offsets(DType::kI32, {sequences + 1}, offsets);
    Fill(q.view, k.view, v.view);

    AttnAttr attr;
    attr.kv = {KvLayout::kHND, block_size};
    attr.scale = 1 / std::sqrt(static_cast<float>(dim));
    attr.window = window;
    Queue queue;
    queue.processors = processors;
    queue.capability = capability;
    const size_t bytes = AttnPagedWorkspace(tokens, sequences, columns, heads, kv_heads, dim, attr, queue);
    std::vector<float> workspace(bytes / sizeof(float), NAN);
    AttnPaged(q.view, k.view, v.view, table.view, q_offsets.view, lens.view, y.view, attr, workspace.data(), queue);

    double error = 0;
    for (int64_t s = 0; s < sequences; ++s) {
      for (int64_t i = 0; i < queries[s] * heads; ++i) {
        const int64_t at = (offsets[s] * heads + i) * dim;
        const int64_t position = keys[s] - queries[s] + i / heads, head = i % heads / (heads / kv_heads);
        const std::vector<double> expected = Expected(q.view, at, k.view, v.view, s, head, position);
        for (int64_t d = 0; d < dim; ++d) {
          const double difference = std::abs(Load(y.view, at + d) - expected[static_cast<size_t>(d)]);
          error = std::max(error, std::isnan(difference) ? INFINITY : difference);
        }
      }
    }
    return error;
  }

 private:
  // Where the vector of a position lies; blocks are numbered from the last table entry on.
  int64_t At(const View& cache, int64_t s, int64_t head, int64_t position) const {
    const int64_t columns = cache.shape[0] / static_cast<int64_t>(keys.size());
    const int64_t block = cache.shape[0] - 1 - (s * columns + position / block_size);
    return block * cache.stride[0] + head * cache.stride[1] + position % block_size * cache.stride[2];
  }

  void Fill(const View& q, const View& k, const View& v) const {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < q.shape[0] * q.stride[0]; ++i) Store(q, i, normal(random));
    for (size_t s = 0; s < keys.size(); ++s) {
      const int64_t first = window > 0 ? std::max(0, keys[s] - queries[s] - window + 1) : 0;
      for (int64_t i = first * kv_heads; i < keys[s] * kv_heads; ++i) {
        const int64_t at = At(k, static_cast<int64_t>(s), i % kv_heads, i / kv_heads);
        for (int64_t d = 0; d < dim; ++d) {
          Store(k, at + d, normal(random));
          Store(v, at + d, normal(random));
        }
      }
    }
  }

  std::vector<double> Expected(const View& q, int64_t q_at, const View& k, const View& v, int64_t s, int64_t head,
                               int64_t position) const {
    std::vector<double> sum(static_cast<size_t>(dim), 0.0);
    double total = 0;
    for (int64_t p = window > 0 ? std::max<int64_t>(0, position - window + 1) : 0; p <= position; ++p) {
      const int64_t at = At(k, s, head, p);
      double product = 0;
      for (int64_t d = 0; d < dim; ++d) product += static_cast<double>(Load(q, q_at + d)) * Load(k, at + d);
      const double weight = std::exp(product / std::sqrt(dim));  // some standard deviations at most: no overflow
      total += weight;
      for (int64_t d = 0; d < dim; ++d) sum[static_cast<size_t>(d)] += weight * Load(v, at + d);
    }
    for (double& x : sum) x /= total;
    return sum;
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
