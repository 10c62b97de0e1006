// SPDX-License-Identifier: Apache-2.0
// The fast operations against the scalar specification, over odd shapes and teams of one to three, and once more with
// every lower instruction set that this machine has.
#include "kernels/cpu/ops.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/ops_kernels.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/ref/ops.h"

namespace assay::cpu {

extern const AmxKernels kEmulatedAmx;  // linear_amx_test.cc

namespace {

size_t BytesOf(DType dtype) {
  switch (dtype) {
    case DType::kI64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kU8:
    case DType::kF8_E4M3:
      return 1;
    default:
      return 2;
  }
}

// A tensor whose rows of dimension 0 are `gap` elements apart from each other, with a canary after every row.
class Tensor {
 public:
  Tensor(DType dtype, std::vector<int64_t> shape, int64_t gap = 0) {
    view_.dtype = dtype;
    view_.ndim = static_cast<int32_t>(shape.size());
    int64_t stride = 1;
    for (int d = view_.ndim - 1; d >= 0; --d) {
      view_.shape[d] = shape[d];
      view_.stride[d] = stride;
      stride *= shape[d];
      if (d == 1) stride += gap;
    }
    bytes_.resize(static_cast<size_t>(stride + 16) * BytesOf(dtype), kCanary);
    view_.data = bytes_.data();
    gap_ = view_.ndim > 1 ? gap : 0;
  }
  Tensor(const Tensor& other) : view_(other.view_), bytes_(other.bytes_), gap_(other.gap_) {
    view_.data = bytes_.data();
  }
  Tensor& operator=(const Tensor&) = delete;

  const View& view() const { return view_; }
  operator const View&() const { return view_; }
  template <class T>
  T* data() {
    return view_.as<T>();
  }
  const std::vector<uint8_t>& bytes() const { return bytes_; }

  bool CanariesLive() const {
    const size_t width = BytesOf(view_.dtype);
    const int64_t rows = view_.shape[0];
    const int64_t row = rows > 0 && view_.ndim > 1 ? view_.stride[0] : view_.shape[0];
    const int64_t used = view_.ndim > 1 ? row - gap_ : row;
    for (size_t i = 0; i < bytes_.size(); ++i) {
      const int64_t element = static_cast<int64_t>(i / width);
      const bool inside =
          view_.ndim > 1 ? element / std::max<int64_t>(row, 1) < rows && element % row < used : element < rows;
      if (!inside && bytes_[i] != kCanary) return false;
    }
    return true;
  }

 private:
  static constexpr uint8_t kCanary = 0xa5;
  View view_;
  std::vector<uint8_t> bytes_;
  int64_t gap_ = 0;
};

std::mt19937& Random() {
  static std::mt19937 random(7);
  return random;
}
// Normal numbers in f32, bf16 or f16.
Tensor Normal(DType dtype, std::vector<int64_t> shape, int64_t gap = 0, float deviation = 1) {
  Tensor f32(DType::kF32, shape, gap);
  std::normal_distribution<float> normal(0, deviation);
  const View& v = f32.view();
  for (int64_t a = 0; a < v.shape[0]; ++a) {
    const int64_t row = v.ndim > 1 ? v.shape[1] * v.shape[2] * v.shape[3] : 1;
    for (int64_t i = 0; i < row; ++i) f32.data<float>()[a * v.stride[0] + i] = normal(Random());
  }
  if (dtype == DType::kF32) return f32;
  Tensor out(dtype, shape, gap);
  View from = f32.view(), to = out.view();
  const int64_t rows = v.shape[0];
  for (View* view : {&from, &to}) {  // as a matrix
    view->shape[0] = rows;
    view->shape[1] = v.ndim > 1 ? v.shape[1] * v.shape[2] * v.shape[3] : 1;
    view->stride[1] = 1;
    view->shape[2] = view->shape[3] = 1;
    view->ndim = 2;
  }
  ref::Cast(from, to);
  return out;
}
Tensor Ints(const std::vector<int32_t>& values) {
  Tensor t(DType::kI32, {static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), t.data<int32_t>());
  return t;
}
Tensor Floats(const std::vector<float>& values) {
  Tensor t(DType::kF32, {static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), t.data<float>());
  return t;
}

constexpr int kTeamSizes[] = {1, 2, 3};

template <class F>
void OnTeam(int size, const F& f) {
  static ThreadPool pools[] = {{1, {}}, {2, {}}, {3, {}}};
  pools[size - 1].Run(f);
}

// Elementwise, relative to max(1, |b|) x scale.
void ExpectNear(const Tensor& a, const Tensor& b, double tolerance, const std::string& what) {
  const View& v = a.view();
  ASSERT_TRUE(a.CanariesLive()) << what << ": wrote outside the output";
  for (int64_t i = 0; i < v.shape[0]; ++i) {
    const int64_t row = v.ndim > 1 ? v.shape[1] * v.shape[2] * v.shape[3] : 1;
    for (int64_t j = 0; j < row; ++j) {
      const float x = v.as<float>()[i * v.stride[0] + j];
      const float y = b.view().as<float>()[i * v.stride[0] + j];
      if (x == y || (std::isnan(x) && std::isnan(y))) continue;
      ASSERT_LE(std::abs(x - y), tolerance * std::max(1.0f, std::abs(y))) << what << " at " << i << ", " << j;
    }
  }
}

TEST(Ops, RmsNorm) {
  for (const int team_size : kTeamSizes) {
    for (const int64_t columns : {1, 7, 16, 63, 64, 100, 576, 2049}) {
      for (const int64_t rows : {0, 1, 5}) {
        const Tensor x = Normal(DType::kF32, {rows, columns}, 3);
        const Tensor w = Normal(DType::kF32, {columns});
        Tensor y(DType::kF32, {rows, columns}, 5), expected(y);
        ref::RmsNorm(x, w, expected, 1e-5f);
        OnTeam(team_size, [&](const Team& team) { RmsNorm(x, w, y, 1e-5f, team); });
        ExpectNear(y, expected, 2e-6, "columns " + std::to_string(columns));

        Tensor residual = Normal(DType::kF32, {rows, columns}, 1), expected_residual(residual);
        ref::AddRmsNorm(x, w, expected_residual, expected, 1e-6f);
        OnTeam(team_size, [&](const Team& team) { AddRmsNorm(x, w, residual, y, 1e-6f, team); });
        ExpectNear(y, expected, 2e-6, "add_rms_norm");
        ExpectNear(residual, expected_residual, 0, "residual");
      }
    }
  }
}

TEST(Ops, RmsNormOfHeadsInPlace) {
  Tensor x = Normal(DType::kF32, {5, 3, 40}, 24), expected(x);
  const Tensor w = Normal(DType::kF32, {40});
  ref::RmsNorm(expected, w, expected, 1e-6f);
  OnTeam(3, [&](const Team& team) { RmsNorm(x, w, x, 1e-6f, team); });
  ExpectNear(x, expected, 2e-6, "heads");
}

TEST(Ops, Rope) {
  const Tensor positions = Ints({0, 1, 31, 4095, 131071, 1000000, 999999});
  for (const int team_size : kTeamSizes) {
    for (const int dim : {16, 64, 80, 128}) {
      for (const bool interleaved : {false, true}) {
        for (const int rotary : {dim, dim / 2, dim - 2}) {
          RopeAttr attr;
          attr.rotary_dim = rotary;
          attr.interleaved = interleaved;
          attr.scaling = rotary == dim ? RopeScaling::kLlama3 : RopeScaling::kYarn;
          attr.factor = 8;
          attr.attn_factor = 1.25f;
          Tensor q = Normal(DType::kF32, {7, 3, dim}, 8), expected_q(q);
          Tensor k = Normal(DType::kF32, {7, 2, dim}), expected_k(k);
          std::vector<double> inv_freq(rotary / 2);
          ref::RopeInvFreq(attr, inv_freq.data());
          ref::Rope(positions, View{}, expected_q, expected_k, attr);
          OnTeam(team_size, [&](const Team& team) { Rope(positions, inv_freq.data(), q, k, attr, team); });
          ExpectNear(q, expected_q, 1e-6, "q, dim " + std::to_string(dim));
          ExpectNear(k, expected_k, 1e-6, "k, dim " + std::to_string(dim));
          OnTeam(team_size, [&](const Team& team) { Rope(positions, inv_freq.data(), q, View{}, attr, team); });
          ref::Rope(positions, View{}, expected_q, View{}, attr);
          ExpectNear(q, expected_q, 2e-6, "without k");
        }
      }
    }
  }
}

TEST(Ops, Glu) {
  for (const int team_size : kTeamSizes) {
    for (const int64_t width : {1, 15, 256, 1000}) {
      Tensor x = Normal(DType::kF32, {3, 2 * width}, 2, 8);
      x.data<float>()[0] = -200;  // exp overflows
      Tensor y(DType::kF32, {3, width}, 1), expected(y);
      for (const GluAct act : {GluAct::kSilu, GluAct::kGeluTanh}) {
        ref::Glu(x, expected, act);
        OnTeam(team_size, [&](const Team& team) { Glu(x, y, act, team); });
        ExpectNear(y, expected, 1e-6, "width " + std::to_string(width));
      }
    }
  }
}

TEST(Ops, AddScaleAndGather) {
  for (const int team_size : kTeamSizes) {
    const Tensor a = Normal(DType::kF32, {4, 777}, 3);
    const Tensor b = Normal(DType::kF32, {4, 777}, 9);
    Tensor y(DType::kF32, {4, 777}), expected(y);
    ref::AddScale(a, b, expected, 0.5f, -2);
    OnTeam(team_size, [&](const Team& team) { AddScale(a, b, y, 0.5f, -2, team); });
    ExpectNear(y, expected, 1e-6, "add_scale");
    ref::AddScale(a, View{}, expected, 3, 1);
    OnTeam(team_size, [&](const Team& team) { AddScale(a, View{}, y, 3, 1, team); });
    ExpectNear(y, expected, 1e-7, "scale");

    const Tensor index = Ints({3, -1, 0, 4, 3});
    Tensor rows(DType::kF32, {5, 777}, 2), expected_rows(rows);
    ref::GatherRows(a, index, expected_rows);
    OnTeam(team_size, [&](const Team& team) { GatherRows(a, index, rows, team); });
    ExpectNear(rows, expected_rows, 0, "gather_rows");
  }
}

// Bit for bit, over every exponent, ties, denormals, infinities and NaN.
TEST(Ops, Cast) {
  std::vector<float> values = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1e-45f, 65504, 65519.99f, 65520, 3.4e38f};
  for (uint32_t bits = 0; bits < 0x7f800000u; bits += 0x7f3fu) {
    float value;
    std::memcpy(&value, &bits, 4);
    values.push_back(value);
    values.push_back(-value);
  }
  for (uint32_t half = 0; half < 0x7c00u; half += 3) {  // between neighbours in f16: ties
    values.push_back(std::ldexp(static_cast<float>((half & 0x3ff) | 0x400) + 0.5f, static_cast<int>(half >> 10) - 25));
  }
  const int64_t n = static_cast<int64_t>(values.size());
  Tensor x(DType::kF32, {1, n});
  std::copy(values.begin(), values.end(), x.data<float>());
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    Tensor y(dtype, {1, n}), expected(y);
    ref::Cast(x, expected);
    OnTeam(2, [&](const Team& team) { Cast(x, y, team); });
    EXPECT_TRUE(y.CanariesLive());
    Tensor back(DType::kF32, {1, n}), expected_back(back);
    OnTeam(3, [&](const Team& team) { Cast(y, back, team); });
    ref::Cast(expected, expected_back);
    for (int64_t i = 0; i < n; ++i) {
      const float a = back.data<float>()[i], b = expected_back.data<float>()[i];
      ASSERT_TRUE((std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b)))
          << values[i] << " as dtype " << static_cast<int>(dtype) << ": " << a << ", not " << b;
    }
  }
}

struct Cache {
  Tensor k, v;
  KvAttr attr;
};
Cache NewCache(DType dtype, KvLayout layout, int64_t blocks, int64_t heads, int32_t block_size, int64_t dim) {
  const std::vector<int64_t> shape = layout == KvLayout::kHND ? std::vector<int64_t>{blocks, heads, block_size, dim}
                                                              : std::vector<int64_t>{blocks, block_size, heads, dim};
  return {Normal(dtype, shape), Normal(dtype, shape), {layout, block_size}};
}

TEST(Ops, KvWriteAndBlockCopy) {
  for (const int team_size : kTeamSizes) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF8_E4M3}) {
      for (const KvLayout layout : {KvLayout::kHND, KvLayout::kNHD}) {
        for (const int64_t dim : {20, 64}) {
          Cache cache = NewCache(dtype, layout, 6, 3, 8, dim);
          Cache expected = cache;
          const Tensor k = Normal(DType::kF32, {5, 3, dim}, 7);
          const Tensor v = Normal(DType::kF32, {5, 3, dim}, 9);
          const Tensor slots = Ints({0, 47, -1, 15, 16});
          ref::KvWritePaged(k, v, slots, expected.k, expected.v, expected.attr);
          OnTeam(team_size, [&](const Team& team) { KvWritePaged(k, v, slots, cache.k, cache.v, cache.attr, team); });
          EXPECT_EQ(cache.k.bytes(), expected.k.bytes());
          EXPECT_EQ(cache.v.bytes(), expected.v.bytes());
          Tensor pairs(DType::kI32, {3, 2});
          const int32_t moves[] = {0, 3, -1, 2, 5, 1};
          std::copy(std::begin(moves), std::end(moves), pairs.data<int32_t>());
          ref::KvBlockCopy(pairs, expected.k, expected.v, expected.attr);
          OnTeam(team_size, [&](const Team& team) { KvBlockCopy(pairs, cache.k, cache.v, cache.attr, team); });
          EXPECT_EQ(cache.k.bytes(), expected.k.bytes());
          EXPECT_EQ(cache.v.bytes(), expected.v.bytes());
        }
      }
    }
  }
}

struct AttnCase {
  const char* name;
  DType dtype;
  KvLayout layout;
  int32_t block_size;
  int64_t kv_heads, group, dim;
  std::vector<int32_t> query_lens, kv_lens;
  int64_t idle_rows;  // of q, owned by no sequence, at the end
  int32_t window;
  float softcap;
};

void CheckAttention(const AttnCase& c, int team_size, LinearKernels::Gemm product) {
  SCOPED_TRACE(std::string(c.name) + ", team of " + std::to_string(team_size));
  std::vector<int32_t> offsets = {0};
  for (const int32_t n : c.query_lens) offsets.push_back(offsets.back() + n);
  const int64_t tokens = offsets.back() + c.idle_rows;
  const int32_t longest = *std::max_element(c.kv_lens.begin(), c.kv_lens.end());
  const int64_t width = (longest + c.block_size - 1) / c.block_size + 1;
  const int64_t sequences = static_cast<int64_t>(c.kv_lens.size());

  // Blocks in shuffled order; entries beyond a sequence's keys must not be read.
  std::vector<int32_t> blocks(sequences * width);
  std::iota(blocks.begin(), blocks.end(), 0);
  std::shuffle(blocks.begin(), blocks.end(), Random());
  Tensor table(DType::kI32, {sequences, width}, 3);
  for (int64_t s = 0; s < sequences; ++s) {
    for (int64_t b = 0; b < width; ++b) {
      const bool reached = b * c.block_size < c.kv_lens[s];
      table.data<int32_t>()[s * (width + 3) + b] = reached ? blocks[s * width + b] : INT32_MIN;
    }
  }
  const Cache cache = NewCache(c.dtype, c.layout, sequences * width, c.kv_heads, c.block_size, c.dim);
  const Tensor q = Normal(DType::kF32, {tokens, c.kv_heads * c.group, c.dim}, 5, 2);
  const Tensor q_offsets = Ints(offsets);
  const Tensor kv_lens = Ints(c.kv_lens);
  Tensor y(DType::kF32, {tokens, c.kv_heads * c.group, c.dim}, 11), expected(y);
  AttnAttr attr;
  attr.kv = cache.attr;
  attr.scale = 1 / std::sqrt(static_cast<float>(c.dim));
  attr.window = c.window;
  attr.softcap = c.softcap;
  ref::AttnPaged(q, cache.k, cache.v, table, q_offsets, kv_lens, expected, attr);

  const size_t bytes = AttnPagedWorkspace(tokens, c.kv_heads * c.group, c.dim, team_size);
  std::vector<uint8_t> workspace(bytes + 128, 0xff);  // NaN to begin with: nothing may be taken from an earlier use
  void* at = workspace.data() + (64 - reinterpret_cast<uintptr_t>(workspace.data()) % 64) % 64;
  OnTeam(team_size, [&](const Team& team) {
    AttnPagedBy(product, q, cache.k, cache.v, table, q_offsets, kv_lens, y, attr, at, team);
  });
  // The error of a score, a sum of dim products, enters its weight as a factor. In bf16: scores of deviation 2 from
  // operands, and then weights, that are off by up to 2^-9.
  const bool in_bf16 = product != nullptr && (c.dtype == DType::kBF16 || c.dtype == DType::kF8_E4M3);
  ExpectNear(y, expected, in_bf16 ? 0.02 : 2e-6 + 3e-7 * std::sqrt(static_cast<double>(c.dim)), c.name);
  Tensor alone(y);
  std::vector<float> own(AttnPagedWorkspace(tokens, c.kv_heads * c.group, c.dim, 1) / 4);
  AttnPagedBy(product, q, cache.k, cache.v, table, q_offsets, kv_lens, alone, attr, own.data(), {});
  ExpectNear(y, alone, 0, std::string(c.name) + ": the size of the team shows");
  for (const uint8_t* p = static_cast<uint8_t*>(at) + bytes; p < workspace.data() + workspace.size(); ++p) {
    ASSERT_EQ(*p, 0xff) << "wrote behind the workspace";
  }
}

TEST(Ops, Attention) {
  constexpr DType kF32 = DType::kF32, kBF16 = DType::kBF16, kF16 = DType::kF16, kE4M3 = DType::kF8_E4M3;
  constexpr KvLayout kHND = KvLayout::kHND, kNHD = KvLayout::kNHD;
  const AttnCase cases[] = {
      {"one key", kF32, kHND, 16, 1, 1, 64, {1}, {1}, 0, 0, 0},
      {"decode around block edges", kBF16, kHND, 16, 3, 3, 64, {1, 1, 1, 1, 1}, {15, 16, 17, 63, 65}, 0, 0, 0},
      {"decode, mha, f16", kF16, kNHD, 32, 4, 1, 128, {1, 1}, {200, 33}, 2, 0, 0},
      {"decode, group of 4, odd head size", kF32, kHND, 32, 2, 4, 20, {1, 1, 1}, {1, 64, 129}, 0, 0, 0},
      {"decode, group of 8, cut", kBF16, kNHD, 16, 2, 8, 128, {1, 1}, {2000, 515}, 0, 0, 0},
      {"decode, group of 7, cut, window", kBF16, kHND, 64, 2, 7, 64, {1, 1, 2}, {1500, 10, 700}, 1, 600, 0},
      {"decode, e4m3, cut", kE4M3, kHND, 32, 2, 3, 64, {1, 1}, {900, 65}, 0, 0, 0},
      {"prefill, e4m3, nhd, odd head size", kE4M3, kNHD, 16, 2, 4, 44, {70, 1, 33}, {70, 20, 100}, 3, 0, 0},
      {"decode, group of 24", kBF16, kHND, 16, 1, 24, 64, {1}, {333}, 0, 0, 0},
      {"prefill", kBF16, kHND, 32, 3, 3, 64, {97}, {97}, 0, 0, 0},
      {"prefill, f16, nhd, odd head size", kF16, kNHD, 16, 2, 4, 44, {70, 1, 33}, {70, 20, 100}, 3, 0, 0},
      {"chunk of a long prompt", kF32, kHND, 128, 1, 2, 32, {50}, {777}, 0, 0, 0},
      {"prefill, window", kBF16, kHND, 16, 2, 3, 64, {150}, {260}, 0, 40, 0},
      {"prefill, window of 1", kF32, kHND, 16, 2, 1, 64, {30}, {30}, 0, 1, 0},
      {"soft cap", kF32, kNHD, 8, 2, 2, 96, {40, 1}, {45, 300}, 0, 0, 3},
      {"mixed, empty and idle", kBF16, kHND, 32, 2, 3, 80, {1, 0, 20, 3, 1}, {90, 0, 25, 0, 64}, 6, 0, 0},
      {"head of 256", kBF16, kHND, 32, 1, 2, 256, {20, 1}, {20, 90}, 0, 0, 0},
      {"head of 512", kF32, kHND, 32, 1, 1, 512, {18, 1}, {18, 9}, 0, 0, 0},
  };
  // In f32, by the products of this machine, and by emulated tiles.
  Isa tiles;
  tiles.amx_bf16 = true;
  std::vector<LinearKernels::Gemm> products = {nullptr, SmallBf16Product(tiles, kEmulatedAmx)};
  if (SmallBf16Product(CurrentIsa()) != nullptr) products.push_back(SmallBf16Product(CurrentIsa()));
  for (const AttnCase& c : cases) {
    for (const int team_size : kTeamSizes) {
      for (const auto product : products) CheckAttention(c, team_size, product);
    }
  }
}

// The result of a sequence does not depend on the others in the batch.
TEST(Ops, DecodeAttentionIgnoresBatchMates) {
  const Cache cache = NewCache(DType::kBF16, KvLayout::kHND, 64, 2, 32, 64);
  const Tensor q = Normal(DType::kF32, {3, 6, 64});
  Tensor table(DType::kI32, {3, 40});
  for (int i = 0; i < 120; ++i) table.data<int32_t>()[i] = i % 64;
  AttnAttr attr;
  attr.kv = cache.attr;
  attr.scale = 0.125f;
  const auto run = [&](const std::vector<int32_t>& lens) {
    std::vector<int32_t> offsets(lens.size() + 1);
    std::iota(offsets.begin(), offsets.end(), 0);
    const int64_t n = static_cast<int64_t>(lens.size());
    View q_rows = q.view(), table_rows = table.view();
    q_rows.shape[0] = table_rows.shape[0] = n;
    Tensor y(DType::kF32, {n, 6, 64});
    std::vector<float> workspace(AttnPagedWorkspace(n, 6, 64, 2) / 4);
    const Tensor q_offsets = Ints(offsets), kv_lens = Ints(lens);
    OnTeam(2, [&](const Team& team) {
      AttnPaged(q_rows, cache.k, cache.v, table_rows, q_offsets, kv_lens, y, attr, workspace.data(), team);
    });
    return std::vector<float>(y.data<float>(), y.data<float>() + 6 * 64);
  };
  EXPECT_EQ(run({1200}), run({1200, 5, 800}));
}

struct SampleInputs {
  Tensor logits, temperature, top_k, top_p, min_p, seed, step;
};

std::vector<int32_t> RunSample(const SampleInputs& in, int team_size) {
  const int64_t rows = in.logits.view().shape[0];
  Tensor ids(DType::kI32, {rows});
  if (team_size == 0) {
    ref::Sample(in.logits, in.temperature, in.top_k, in.top_p, in.min_p, in.seed, in.step, ids);
  } else {
    std::vector<char> memory(SampleWorkspace(rows, in.logits.view().shape[1], team_size) + 64);
    void* workspace = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
    OnTeam(team_size, [&](const Team& team) {
      Sample(in.logits, in.temperature, in.top_k, in.top_p, in.min_p, in.seed, in.step, ids, workspace, team);
    });
  }
  EXPECT_TRUE(ids.CanariesLive());
  return std::vector<int32_t>(ids.data<int32_t>(), ids.data<int32_t>() + rows);
}

TEST(Ops, SampleDrawsWhatTheSpecificationDraws) {
  struct Params {
    float temperature;
    int32_t top_k;
    float top_p, min_p;
  };
  const Params params[] = {{0, 0, 1, 0},         {-1, 5, 0.5f, 0},     {1, 0, 1, 0},       {0.7f, 40, 1, 0},
                           {0.7f, 1, 1, 0},      {1, 0, 0.9f, 0},      {2, 0, 0.3f, 0},    {1, 0, 1, 0.1f},
                           {1, 50, 0.8f, 0.05f}, {100, 0, 1, 0},       {100, 0, 0.99f, 0}, {100, 3000, 0.5f, 0},
                           {1e-6f, 0, 1, 0},     {1e-40f, 0, 1, 0},    {1, 0, 0, 0},       {1, 0, 1, 2},
                           {1, 1 << 30, 1, 0},   {5, 0, 0.999f, 1e-3f}};
  for (const int64_t vocab : {1, 2, 100, 1024, 5000}) {
    for (const float spread : {0.0f, 1.0f, 4.0f}) {
      constexpr int64_t kRows = 18;
      SampleInputs in{Normal(DType::kF32, {kRows, vocab}, 3, spread),
                      Floats(std::vector<float>(kRows)),
                      Ints(std::vector<int32_t>(kRows)),
                      Floats(std::vector<float>(kRows)),
                      Floats(std::vector<float>(kRows)),
                      Tensor(DType::kI64, {kRows}),
                      Ints(std::vector<int32_t>(kRows))};
      for (int round = 0; round < 5; ++round) {
        for (int64_t r = 0; r < kRows; ++r) {
          in.temperature.data<float>()[r] = params[r].temperature;
          in.top_k.data<int32_t>()[r] = params[r].top_k;
          in.top_p.data<float>()[r] = params[r].top_p;
          in.min_p.data<float>()[r] = params[r].min_p;
          in.seed.data<int64_t>()[r] = r * 77 + 5;
          in.step.data<int32_t>()[r] = round;
        }
        const std::vector<int32_t> expected = RunSample(in, 0);
        for (const int team_size : kTeamSizes) {
          EXPECT_EQ(RunSample(in, team_size), expected) << "vocabulary " << vocab << ", spread " << spread;
        }
      }
    }
  }
}

TEST(Ops, SampleOfOddLogits) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  Tensor logits(DType::kF32, {5, 6});
  const float rows[5][6] = {{kNan, 2, 5, kNan, 5, 1},
                            {-kInf, -kInf, -kInf, -kInf, -kInf, -kInf},
                            {kNan, kNan, kNan, kNan, kNan, kNan},
                            {1, kInf, 3, kNan, kInf, 2},
                            {-kInf, 1, -kInf, 1, -kInf, kNan}};
  std::memcpy(logits.data<float>(), rows, sizeof rows);
  for (const float temperature : {0.0f, 1.0f}) {
    SampleInputs in{logits,
                    Floats(std::vector<float>(5, temperature)),
                    Ints({0, 0, 0, 0, 0}),
                    Floats({1, 1, 1, 1, 1}),
                    Floats({0, 0, 0, 0, 0}),
                    Tensor(DType::kI64, {5}),
                    Ints({3, 3, 3, 3, 3})};
    for (int i = 0; i < 5; ++i) in.seed.data<int64_t>()[i] = i;
    const std::vector<int32_t> expected = RunSample(in, 0);
    for (const int team_size : kTeamSizes) EXPECT_EQ(RunSample(in, team_size), expected);
    if (temperature == 0) {
      EXPECT_EQ(expected, (std::vector<int32_t>{2, 0, 0, 1, 1}));
    }
  }
}

TEST(Ops, Logprobs) {
  for (const int team_size : kTeamSizes) {
    for (const int64_t vocab : {1, 5, 1000, 4099}) {
      for (const int64_t top : {0, 1, 5, 300}) {
        Tensor logits = Normal(DType::kF32, {4, vocab}, 2, 6);
        if (vocab >= 1000) {
          for (int i = 0; i < 10; ++i) logits.data<float>()[100 * i] = 30;  // ties: the lower index first
          logits.data<float>()[(vocab + 2) * 1 + 7] = std::numeric_limits<float>::quiet_NaN();
          logits.data<float>()[(vocab + 2) * 2 + 7] = -std::numeric_limits<float>::infinity();
        }
        const Tensor targets = Ints({0, static_cast<int32_t>(vocab - 1), -1, static_cast<int32_t>(vocab)});
        const int64_t k = std::min(top, vocab);
        Tensor ids(DType::kI32, {4, k}, 1), expected_ids(ids);
        Tensor values(DType::kF32, {4, k}, 1), expected_values(values);
        Tensor target(DType::kF32, {4}), expected_target(target);
        const View none;
        const View& ids_view = top > 0 ? ids.view() : none;
        const View& values_view = top > 0 ? values.view() : none;
        if (top > 0) {
          ref::Logprobs(logits, targets, expected_target, expected_ids, expected_values);
        } else {
          ref::Logprobs(logits, targets, expected_target, none, none);
        }
        std::vector<char> memory(LogprobsWorkspace(4, vocab, team_size) + 64);
        void* workspace = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
        OnTeam(team_size,
               [&](const Team& team) { Logprobs(logits, targets, target, ids_view, values_view, workspace, team); });
        ExpectNear(target, expected_target, 1e-6, "target");
        if (top == 0) continue;
        ExpectNear(values, expected_values, 1e-6, "top_logprobs");
        EXPECT_EQ(ids.bytes(), expected_ids.bytes()) << "vocabulary " << vocab << ", top " << top;
      }
    }
  }
}

// The value depends on every byte.
TEST(Ops, ProbeRead) {
  Tensor x(DType::kU8, {300001});
  std::fill_n(x.data<uint8_t>(), 300001, 0);
  Tensor sink(DType::kF32, {1});
  alignas(64) char workspace[192];
  ASSERT_LE(ProbeReadWorkspace(3), sizeof workspace);
  const auto probe = [&] {
    OnTeam(3, [&](const Team& team) { ProbeRead(x, sink, workspace, team); });
    return *sink.data<float>();
  };
  const float zero = probe();
  for (const int at : {0, 4095, 100003, 299999}) {
    uint8_t* byte = x.data<uint8_t>() + at;
    *byte = 0x55;
    EXPECT_NE(probe(), zero) << at;
    *byte = 0;
  }
}

// CurrentIsa is read once per process, so the lower instruction sets have processes of their own.
TEST(OtherIsa, PassesTheSameTests) {
  if (std::getenv("ASSAY_ISA") != nullptr) GTEST_SKIP() << "this run has a chosen instruction set";
  char self[4096] = {};
  ASSERT_GT(readlink("/proc/self/exe", self, sizeof self - 1), 0);
  std::vector<std::string> lower = {"generic"};
  if (CurrentIsa().avx512) lower.push_back("avx2");
  for (const std::string& isa : lower) {
    const std::string command = "ASSAY_ISA=" + isa + " '" + self + "' --gtest_filter='Ops.*' --gtest_brief=1";
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
  }
}

}  // namespace
}  // namespace assay::cpu
