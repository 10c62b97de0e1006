// SPDX-License-Identifier: Apache-2.0
// What conformance does not reach in the GPU kernels of ops.h: paths for long rows, for many equal logits, for views
// inside wider tensors. On the emulator; the reference is kernels/ref.
#include "kernels/cuda/ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/ref/ops.h"
#include "kernels/ref/tensors_for_test.h"

namespace assay::gpu {
namespace {

using ref::F32;
using ref::I32;
using ref::I64;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

Queue QueueOf(int processors) {
  Queue queue;
  queue.processors = processors;
  return queue;
}

// Device memory without contents.
struct Workspace {
  explicit Workspace(size_t bytes) { emulatedMalloc(&data, bytes); }
  ~Workspace() { emulatedFree(data); }
  Workspace(const Workspace&) = delete;
  void* data = nullptr;
};

// Numbers in [0, 1), always the same.
std::vector<float> Numbers(size_t n) {
  std::vector<float> numbers(n);
  for (size_t i = 0; i < n; ++i) numbers[i] = Uniform(7, static_cast<uint32_t>(i));
  return numbers;
}

struct Rows {
  std::vector<float> temperature, top_p, min_p;
  std::vector<int32_t> top_k;

  // The ids that rows of the same logits give, on a device of so many processors; 0: by the reference.
  std::vector<int32_t> Sample(const std::vector<float>& logits, int processors) const {
    const auto rows = static_cast<int64_t>(temperature.size()), vocab = static_cast<int64_t>(logits.size());
    std::vector<float> all;
    for (int64_t r = 0; r < rows; ++r) all.insert(all.end(), logits.begin(), logits.end());
    std::vector<int64_t> seeds(temperature.size());
    std::iota(seeds.begin(), seeds.end(), 1000);
    const F32 x({rows, vocab}, all), t({rows}, temperature), p({rows}, top_p), m({rows}, min_p);
    const I32 k({rows}, top_k), step({rows}, std::vector<int32_t>(temperature.size(), 3));
    const I64 seed({rows}, seeds);
    I32 ids({rows}, std::vector<int32_t>(temperature.size(), -1));
    if (processors == 0) {
      ref::Sample(x, t, k, p, m, seed, step, ids);
    } else {
      const Workspace workspace(SampleWorkspace(rows, vocab));
      gpu::Sample(x, t, k, p, m, seed, step, ids, workspace.data, QueueOf(processors));
    }
    return ids.data;
  }
};

// Of 12000 equal logits, 8000 are 0 and the others -inf: more in one bin than a list holds, and sums without rounding.
TEST(GpuSample, MoreEqualLogitsThanFit) {
  std::vector<float> logits(12000, 0.0f);
  for (size_t i = 0; i < logits.size(); i += 3) logits[i] = i % 2 == 0 ? -kInfinity : std::nanf("");
  const Rows rows = {{1, 1, 1, 0.5f, 2}, {1, 1, 0.25f, 0.5f, 1}, {0, 0, 0, 0, 0.5f}, {0, 5000, 0, 3000, 0}};
  const std::vector<int32_t> expected = rows.Sample(logits, 0);
  EXPECT_EQ(rows.Sample(logits, 1), expected);
  EXPECT_EQ(rows.Sample(logits, 132), expected);
}

TEST(GpuSample, TheSameHoweverARowIsShared) {
  std::vector<float> logits = Numbers(9000);
  for (float& x : logits) x *= 5;
  const Rows rows = {{0, 1, 0.7f, 1, 0.3f, 1}, {1, 1, 0.9f, 0.5f, 1, 1}, {0, 0, 0, 0.1f, 0, 2}, {0, 0, 50, 900, 7, 0}};
  const std::vector<int32_t> ids = rows.Sample(logits, 1);
  EXPECT_EQ(rows.Sample(logits, 4), ids);
  EXPECT_EQ(rows.Sample(logits, 132), ids);
  EXPECT_EQ(ids[0], ids[5]);  // min_p above 1 leaves the largest alone
  EXPECT_EQ(ids, rows.Sample(logits, 0));
}

// top_k, or min_p, ends inside a bin that holds most of the mass, so that what comes of it may end in any of several
// bins.
TEST(GpuSample, LimitsInsideAHeavyBin) {
  std::vector<float> logits(1100, -0.5f);  // bins are 0.02 wide
  for (size_t i = 0; i < logits.size(); i += 2) logits[i] = -0.505f;
  for (size_t i = 0; i < 100; ++i) logits[11 * i] = -0.05f * static_cast<float>(i / 10);
  logits.push_back(-20.0f);
  constexpr size_t kRows = 64;
  Rows rows = {std::vector<float>(kRows, 1.0f), std::vector<float>(kRows, 0.15f), std::vector<float>(kRows, 0.0f),
               std::vector<int32_t>(kRows, 600)};
  EXPECT_EQ(rows.Sample(logits, 1), rows.Sample(logits, 0));
  rows.top_p.assign(kRows, 1.0f);
  rows.top_k.assign(kRows, 0);
  rows.min_p.assign(kRows, std::exp(-0.5025f));
  EXPECT_EQ(rows.Sample(logits, 1), rows.Sample(logits, 0));
}

void ExpectTop(const std::vector<float>& logits, int64_t top) {
  const auto vocab = static_cast<int64_t>(logits.size());
  const F32 x({1, vocab}, logits);
  const I32 target({1}, {1});
  F32 logprob({1}, 0.0f), expected_logprob({1}, 0.0f), tops({1, top}, 0.0f), expected_tops({1, top}, 0.0f);
  I32 ids({1, top}, std::vector<int32_t>(static_cast<size_t>(top), -1));
  I32 expected_ids({1, top}, ids.data);
  const Workspace workspace(LogprobsWorkspace(1, vocab, top));
  Logprobs(x, target, logprob, ids, tops, workspace.data, QueueOf(132));
  ref::Logprobs(x, target, expected_logprob, expected_ids, expected_tops);
  EXPECT_EQ(ids.data, expected_ids.data);
  EXPECT_NEAR(logprob.data[0], expected_logprob.data[0], 1e-5);
  for (size_t i = 0; i < tops.data.size(); ++i) ASSERT_NEAR(tops.data[i], expected_tops.data[i], 1e-5) << i;
}

TEST(GpuLogprobs, MoreThanAListHolds) {
  ExpectTop(Numbers(3000), 2500);
}

TEST(GpuLogprobs, EqualLogitsAtTheBound) {
  std::vector<float> logits(20000, 1.0f);  // all of them reach the bound: they do not fit
  logits[19000] = 2.0f;
  ExpectTop(logits, 5);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = i % 50 == 0 ? 1.0f : -0.5f;  // 400 do
  ExpectTop(logits, 30);
}

TEST(GpuNorm, RowsThatNoBlockHolds) {
  constexpr int64_t kCols = 16388;
  const F32 x({2, kCols}, Numbers(2 * kCols)), w({kCols}, Numbers(kCols));
  F32 y({2, kCols}, 0.0f), expected({2, kCols}, 0.0f);
  RmsNorm(x, w, y, 1e-5f, QueueOf(1));
  ref::RmsNorm(x, w, expected, 1e-5f);
  for (size_t i = 0; i < y.data.size(); ++i) ASSERT_NEAR(y.data[i], expected.data[i], 1e-5) << i;
}

// Heads that are rotated in part, with a norm of q alone, and a norm of k alone.
TEST(GpuQkNormRopeKvWrite, PartialRotationAndOneNorm) {
  constexpr int64_t kDim = 32;
  const RopeAttr rope = {.rotary_dim = 16, .interleaved = true};
  const KvAttr kv = {KvLayout::kNHD, 2};
  RopeTable table;
  ref::RopeInvFreq(rope, table.inv_freq);
  const I32 positions({2}, {5, 1000}), slots({2}, {3, -1});
  const F32 weight({kDim}, Numbers(kDim)), v({2, 1, kDim}, Numbers(2 * kDim));
  for (const bool of_q : {true, false}) {
    F32 q({2, 3, kDim}, Numbers(6 * kDim)), k({2, 1, kDim}, Numbers(2 * kDim));
    F32 want_q({2, 3, kDim}, q.data), want_k({2, 1, kDim}, k.data);
    F32 k_cache({2, 2, 1, kDim}, 9.0f), v_cache({2, 2, 1, kDim}, 9.0f);
    F32 want_k_cache({2, 2, 1, kDim}, 9.0f), want_v_cache({2, 2, 1, kDim}, 9.0f);
    QkNormRopeKvWrite(q, k, v, positions, slots, of_q ? weight.view : View{}, of_q ? View{} : weight.view, View{},
                      k_cache, v_cache, 1e-6f, rope, table, kv, QueueOf(1));
    F32& normed = of_q ? want_q : want_k;
    ref::RmsNorm(normed, weight, normed, 1e-6f);
    ref::Rope(positions, View{}, want_q, want_k, rope);
    ref::KvWritePaged(want_k, v, slots, want_k_cache, want_v_cache, kv);
    for (size_t i = 0; i < q.data.size(); ++i) ASSERT_NEAR(q.data[i], want_q.data[i], 1e-5) << i;
    for (size_t i = 0; i < k_cache.data.size(); ++i) ASSERT_NEAR(k_cache.data[i], want_k_cache.data[i], 1e-5) << i;
    EXPECT_EQ(v_cache.data, want_v_cache.data);
  }
}

// Two of three heads of wider vectors: what lies beside them stays.
TEST(GpuKvBlockCopy, PartOfACache) {
  F32 k({3, 3, 2, 6}, Numbers(108)), v({3, 3, 2, 6}, Numbers(108));
  F32 expected_k({3, 3, 2, 6}, k.data), expected_v({3, 3, 2, 6}, v.data);
  const I32 pairs({2, 2}, {0, 2, 1, -1});
  const auto part = [](View view) {
    view.shape[1] = 2;
    view.shape[3] = 5;
    return view;
  };
  const KvAttr attr = {KvLayout::kHND, 2};
  KvBlockCopy(pairs, part(k), part(v), attr, QueueOf(1));
  ref::KvBlockCopy(pairs, part(expected_k), part(expected_v), attr);
  EXPECT_EQ(k.data, expected_k.data);
  EXPECT_EQ(v.data, expected_v.data);
}

TEST(GpuProbeRead, EveryByteOnce) {
  std::vector<uint8_t> bytes(200003);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 7 % 251);
  for (const size_t begin : {0, 1, 15}) {
    View x;
    x.data = bytes.data() + begin;
    x.dtype = DType::kU8;
    x.ndim = 1;
    x.shape[0] = static_cast<int64_t>(bytes.size() - begin);
    x.stride[0] = 1;
    F32 sink({1}, 0.0f), expected({1}, 0.0f);
    const Workspace workspace(ProbeReadWorkspace(QueueOf(2)));
    ProbeRead(x, sink, workspace.data, QueueOf(2));
    ref::ProbeRead(x, expected);
    EXPECT_EQ(sink.data, expected.data) << begin;
  }
}

}  // namespace
}  // namespace assay::gpu
