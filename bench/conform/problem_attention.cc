// SPDX-License-Identifier: Apache-2.0
// Builders of the operations on the paged KV cache: kv_write_paged, kv_block_copy, attn_paged, and the composite
// qk_norm_rope_kv_write.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "bench/conform/problem.h"
#include "runtime/core/dtype.h"

namespace assay::bench {
namespace {

constexpr double kU = 0x1p-24;  // unit roundoff of f32

struct CacheGeometry {
  assay_kv_layout layout;
  int64_t block_size, kv_heads, dim, blocks;

  std::vector<int64_t> Shape() const {
    return layout == ASSAY_KV_HND ? std::vector<int64_t>{blocks, kv_heads, block_size, dim}
                                  : std::vector<int64_t>{blocks, block_size, kv_heads, dim};
  }
  // First element of a vector.
  int64_t At(int64_t block, int64_t offset, int64_t head) const {
    const int64_t row = layout == ASSAY_KV_HND ? head * block_size + offset : offset * kv_heads + head;
    return (block * kv_heads * block_size + row) * dim;
  }
};

CacheGeometry Geometry(BuildContext& b, int64_t blocks) {
  const CacheGeometry g{b.c.Layout(), b.c.Int("block"), b.c.Int("kv_heads"), b.c.Int("dim"), blocks};
  b.NeedKvGeometry(g.layout, g.block_size, g.dim);
  return g;
}

std::vector<int32_t> Shuffled(Random& random, int64_t n) {
  std::vector<int32_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = n - 1; i > 0; --i) std::swap(order[i], order[random.Below(i + 1)]);
  return order;
}

// ---------------------------------------------------------------------------------------------- attn_paged

struct AttentionCase {
  CacheGeometry g;
  int64_t heads, blocks_per_seq;
  std::vector<int32_t> q_offsets, kv_lens, table;
  assay_attn_desc desc;
};

// Adds a cache in which the positions that the sequences reach hold numbers, and all others NaN: reading one too many
// does not go unseen. (Old contents of real caches may be anything.)
int Cache(BuildContext& b, const AttentionCase& a, const std::string& name, assay_dtype dtype) {
  const int i = b.Output(name, dtype, a.g.Shape());
  std::vector<float> values(static_cast<size_t>(b.Tensor(i).count()), NAN);
  for (size_t s = 0; s < a.kv_lens.size(); ++s) {
    for (int64_t p = 0; p < a.kv_lens[s]; ++p) {
      const int32_t block = a.table[s * a.blocks_per_seq + p / a.g.block_size];
      for (int64_t h = 0; h < a.g.kv_heads; ++h) {
        float* vector = &values[a.g.At(block, p % a.g.block_size, h)];
        for (int64_t d = 0; d < a.g.dim; ++d) vector[d] = b.random.Normal();
      }
    }
  }
  b.Tensor(i).SetFloats(values);
  return i;
}

// What limits the accuracy of one row of attention, from the exact weights p of the visible positions.
struct RowSpread {
  double p2 = 0;         // sum of p^2
  double range = 0;      // largest score - smallest
  double dot = 0;        // scale * |q| * max |k|
  double largest_v = 0;  // max |v|
};

std::vector<float> ToFloats(const ProblemTensor& t) {
  std::vector<float> values(static_cast<size_t>(t.count()));
  if (!values.empty()) ConvertElements(t.dtype, t.elements.data(), ASSAY_F32, values.data(), values.size());
  return values;
}

RowSpread Spread(const AttentionCase& a, const float* q, const std::vector<float>& k, const std::vector<float>& v,
                 size_t s, int64_t kv_head, int64_t position) {
  RowSpread spread;
  const int64_t first = a.desc.window > 0 ? std::max<int64_t>(0, position - a.desc.window + 1) : 0;
  double qq = 0, largest_kk = 0;
  for (int64_t d = 0; d < a.g.dim; ++d) qq += static_cast<double>(q[d]) * q[d];
  std::vector<double> scores;
  for (int64_t p = first; p <= position; ++p) {
    const int64_t at = a.g.At(a.table[s * a.blocks_per_seq + p / a.g.block_size], p % a.g.block_size, kv_head);
    double score = 0, kk = 0;
    for (int64_t d = 0; d < a.g.dim; ++d) {
      score += static_cast<double>(q[d]) * k[at + d];
      kk += static_cast<double>(k[at + d]) * k[at + d];
      spread.largest_v = std::max<double>(spread.largest_v, std::abs(v[at + d]));
    }
    score *= a.desc.scale;
    if (a.desc.softcap > 0) score = a.desc.softcap * std::tanh(score / a.desc.softcap);
    scores.push_back(score);
    largest_kk = std::max(largest_kk, kk);
  }
  const auto [low, high] = std::minmax_element(scores.begin(), scores.end());
  double total = 0, squares = 0;
  for (const double score : scores) {
    const double p = std::exp(score - *high);
    total += p;
    squares += p * p;
  }
  spread.p2 = squares / (total * total);
  spread.range = *high - *low;
  spread.dot = a.desc.scale * std::sqrt(qq * largest_kk);
  return spread;
}

double RowTolerance(const RowSpread& r, int64_t visible, int64_t dim, double operand_roundoff) {
  // Errors of the scores and of the weights are independent from position to position, so that those of the output
  // add up like the root of the sum of (p v)^2. In f32: a score is off by what linear says of a product of length dim,
  // plus its range times u from the exponential. Six deviations where operands are rounded to 16 bits: q . k, then p.
  const double spread = r.largest_v * std::sqrt(r.p2);
  const double f32 = (8 * r.dot + r.range + 16 + 16 * std::sqrt(static_cast<double>(visible))) * kU;
  const double sixteen_bits =
      operand_roundoff > kU ? 6 / std::sqrt(3.0) * operand_roundoff * (1 + r.dot / std::sqrt(dim)) : 0;
  return spread * (f32 + sixteen_bits);
}

void SetAttentionTolerance(BuildContext& b, const AttentionCase& a, int q, int k_cache, int v_cache, int y) {
  // Operands in 16 bits may be multiplied as such: the coarser of the activations' and the cache's rounding. What a
  // cache of 8 bits holds is exact in 16, and what it meets is rounded no further.
  const assay_dtype kv = b.Tensor(k_cache).dtype;
  const double roundoff =
      std::max(UnitRoundoff(b.Tensor(q).dtype), UnitRoundoff(kv == ASSAY_F8_E4M3 ? ASSAY_BF16 : kv));
  const std::vector<float> qs = ToFloats(b.Tensor(q)), ks = ToFloats(b.Tensor(k_cache)),
                           vs = ToFloats(b.Tensor(v_cache));
  ProblemTensor& result = b.Tensor(y);
  result.rounded = true;
  result.relative = 32 * kU;
  result.tolerance.assign(static_cast<size_t>(result.count()), 0.0);
  for (size_t s = 0; s < a.kv_lens.size(); ++s) {
    for (int64_t row = a.q_offsets[s]; row < a.q_offsets[s + 1]; ++row) {
      const int64_t position = a.kv_lens[s] - (a.q_offsets[s + 1] - row);
      for (int64_t h = 0; position >= 0 && h < a.heads; ++h) {
        const int64_t at = (row * a.heads + h) * a.g.dim;
        const int64_t visible = a.desc.window > 0 ? std::min<int64_t>(position + 1, a.desc.window) : position + 1;
        const double tolerance = RowTolerance(Spread(a, &qs[at], ks, vs, s, h / (a.heads / a.g.kv_heads), position),
                                              visible, a.g.dim, roundoff);
        std::fill_n(result.tolerance.begin() + at, a.g.dim, tolerance);
      }
    }
  }
}

// Blocks for all sequences in random order; block 0 belongs to nobody and stands in table entries beyond a sequence.
void AssignBlocks(BuildContext& b, AttentionCase& a) {
  std::vector<int64_t> needed;
  for (const int32_t length : a.kv_lens) needed.push_back((length + a.g.block_size - 1) / a.g.block_size);
  a.blocks_per_seq = 1 + (needed.empty() ? 0 : *std::max_element(needed.begin(), needed.end()));
  const int64_t total = std::accumulate(needed.begin(), needed.end(), int64_t{0});
  a.g.blocks = total + 1;
  const std::vector<int32_t> order = Shuffled(b.random, total);
  int64_t next = 0;
  for (const int64_t n : needed) {
    for (int64_t i = 0; i < a.blocks_per_seq; ++i) a.table.push_back(i < n ? order[next++] + 1 : 0);
  }
}

// Where an operation reads only what is visible: query rows, K and V of each position once per step, the output.
void CountAttentionWork(BuildContext& b, const AttentionCase& a, int q, int k_cache) {
  double vectors = 0, pairs = 0;
  for (size_t s = 0; s < a.kv_lens.size(); ++s) {
    vectors += a.kv_lens[s];
    for (int64_t row = a.q_offsets[s]; row < a.q_offsets[s + 1]; ++row) {
      pairs += a.kv_lens[s] - (a.q_offsets[s + 1] - row) + 1;
    }
  }
  const double element = static_cast<double>(DTypeBytes(b.Tensor(k_cache).dtype, 1));
  b.problem.bytes = 2 * vectors * static_cast<double>(a.g.kv_heads * a.g.dim) * element +
                    2 * static_cast<double>(b.Tensor(q).elements.size());
  b.problem.flops = 4 * pairs * static_cast<double>(a.heads * a.g.dim);
}

}  // namespace

void BuildAttnPaged(BuildContext& b) {
  AttentionCase a{Geometry(b, 0), b.c.Int("heads"), 0, {}, b.c.Ints("kvlens"), {}, {}};
  const std::vector<int32_t> q_lens = b.c.Ints("qlens");
  const assay_dtype act = b.Act(), kv = b.KvDType();
  if (q_lens.size() != a.kv_lens.size()) b.c.Fail("qlens and kvlens differ in number");
  a.q_offsets.push_back(static_cast<int32_t>(b.c.Int("front", 0)));
  for (const int32_t n : q_lens) a.q_offsets.push_back(a.q_offsets.back() + n);
  const int64_t tokens = a.q_offsets.back() + b.c.Int("pad", 0);
  const int64_t sequences = static_cast<int64_t>(q_lens.size());
  AssignBlocks(b, a);
  a.desc = NewDesc<assay_attn_desc>(ASSAY_OP_ATTN_PAGED);
  a.desc.layout = a.g.layout;
  a.desc.block_size = static_cast<int32_t>(a.g.block_size);
  a.desc.scale = static_cast<float>(b.c.Real("scale", 1 / std::sqrt(static_cast<double>(a.g.dim))));
  a.desc.window = static_cast<int32_t>(b.c.Int("window", 0));
  a.desc.softcap = static_cast<float>(b.c.Real("softcap", 0));

  const int q = b.Normal("q", act, {tokens, a.heads, a.g.dim}, 0, b.c.Real("sharp", 1));
  const int k_cache = Cache(b, a, "k_cache", kv), v_cache = Cache(b, a, "v_cache", kv);
  const int table = b.Ints("block_table", {sequences, a.blocks_per_seq}, a.table);
  const int q_offsets = b.Ints("q_offsets", {sequences + 1}, a.q_offsets);
  const int kv_lens = b.Ints("kv_lens", {sequences}, a.kv_lens);
  const int y = b.Output("y", act, {tokens, a.heads, a.g.dim});
  b.Gap({q, y});
  if (b.c.Int("perf", 0) == 0) SetAttentionTolerance(b, a, q, k_cache, v_cache, y);
  CountAttentionWork(b, a, q, k_cache);
  b.problem.call.SetDesc(a.desc);
  b.problem.call.in = {q, k_cache, v_cache, table, q_offsets, kv_lens};
  b.problem.call.out = {y};
  b.problem.q_offsets = a.q_offsets;
  b.problem.kv_lens = a.kv_lens;
}

namespace {

// Distinct slots of the cache, every fifth one negative (padding).
std::vector<int32_t> Slots(BuildContext& b, int64_t tokens, const CacheGeometry& g) {
  std::vector<int32_t> slots = Shuffled(b.random, g.blocks * g.block_size);
  if (tokens > static_cast<int64_t>(slots.size())) b.c.Fail("more tokens than slots");
  slots.resize(static_cast<size_t>(tokens));
  for (int64_t t = 4; t < tokens; t += 5) slots[static_cast<size_t>(t)] = -1;
  return slots;
}

}  // namespace

void BuildKvWritePaged(BuildContext& b) {
  const int64_t tokens = b.c.Int("tokens");
  const CacheGeometry g = Geometry(b, b.c.Int("blocks"));
  const assay_dtype act = b.Act(), kv = b.KvDType();
  const double deviation = b.c.Real("deviation", 1);
  const int k = b.Normal("k", act, {tokens, g.kv_heads, g.dim}, 0, deviation);
  const int v = b.Normal("v", act, {tokens, g.kv_heads, g.dim}, 0, deviation);
  const int slots = b.Ints("slots", {tokens}, Slots(b, tokens, g));
  const int k_cache = b.Normal("k_cache", kv, g.Shape(), 0, 1), v_cache = b.Normal("v_cache", kv, g.Shape(), 0, 1);
  b.Gap({k, v});
  // A step of e4m3 is too coarse to be forgiven.
  for (const int cache : {k_cache, v_cache}) b.Tensor(cache).rounded = kv != act && kv != ASSAY_F8_E4M3;
  auto desc = NewDesc<assay_kv_desc>(ASSAY_OP_KV_WRITE_PAGED);
  desc.layout = g.layout;
  desc.block_size = static_cast<int32_t>(g.block_size);
  b.problem.call.SetDesc(desc);
  b.problem.call.in = {k, v, slots};
  b.problem.call.out = {k_cache, v_cache};
  b.problem.bytes = 2 * static_cast<double>(tokens * g.kv_heads * g.dim) *
                    static_cast<double>(DTypeBytes(act, 1) + DTypeBytes(kv, 1));
}

void BuildKvBlockCopy(BuildContext& b) {
  const int64_t pairs = b.c.Int("pairs");
  const CacheGeometry g = Geometry(b, 2 * pairs + 1);
  const assay_dtype kv = b.KvDType();
  std::vector<int32_t> blocks = Shuffled(b.random, 2 * pairs);
  for (int64_t i = 0; i < pairs; ++i) {
    if (i % 3 == 2) blocks[2 * i + i % 2] = -1;
  }
  const int list = b.Ints("pairs", {pairs, 2}, blocks);
  const int k_cache = b.Normal("k_cache", kv, g.Shape(), 0, 1), v_cache = b.Normal("v_cache", kv, g.Shape(), 0, 1);
  auto desc = NewDesc<assay_kv_desc>(ASSAY_OP_KV_BLOCK_COPY);
  desc.layout = g.layout;
  desc.block_size = static_cast<int32_t>(g.block_size);
  b.problem.call.SetDesc(desc);
  b.problem.call.in = {list};
  b.problem.call.out = {k_cache, v_cache};
  b.problem.bytes =
      4 * static_cast<double>(pairs * g.kv_heads * g.block_size * g.dim) * static_cast<double>(DTypeBytes(kv, 1));
}

namespace {

ProblemCall Call(const auto& desc, std::vector<int> in, std::vector<int> out) {
  ProblemCall call;
  call.SetDesc(desc);
  call.in = std::move(in);
  call.out = std::move(out);
  return call;
}

}  // namespace

void BuildQkNormRopeKvWrite(BuildContext& b) {
  const int64_t tokens = b.c.Int("tokens"), heads = b.c.Int("heads");
  const CacheGeometry g = Geometry(b, b.c.Int("blocks"));
  const assay_dtype act = b.Act(), kv = b.KvDType();
  const bool norm = b.c.Int("norm", 1) != 0;
  const std::vector<int32_t> at = Positions(b, tokens);
  const int q = b.Normal("q", act, {tokens, heads, g.dim}, 0, 1);
  const int k = b.Normal("k", act, {tokens, g.kv_heads, g.dim}, 0, 1);
  const int v = b.Normal("v", act, {tokens, g.kv_heads, g.dim}, 0, 1);
  const int positions = b.Ints("positions", {tokens}, at);
  const int slots = b.Ints("slots", {tokens}, Slots(b, tokens, g));
  const int q_weight = norm ? b.Normal("q_weight", ASSAY_F32, {g.dim}, 1, 0.1) : -1;
  const int k_weight = norm ? b.Normal("k_weight", ASSAY_F32, {g.dim}, 1, 0.1) : -1;
  const int k_cache = b.Normal("k_cache", kv, g.Shape(), 0, 1), v_cache = b.Normal("v_cache", kv, g.Shape(), 0, 1);
  b.Tensor(k).undefined_after = true;

  auto fused = NewDesc<assay_qk_norm_rope_kv_write_desc>(ASSAY_OP_QK_NORM_ROPE_KV_WRITE);
  fused.eps = static_cast<float>(b.c.Real("eps", 1e-6));
  fused.layout = g.layout;
  fused.block_size = static_cast<int32_t>(g.block_size);
  fused.rope = RopeDesc(b.c, g.dim);
  b.problem.call = Call(fused, {q, k, v, positions, slots, q_weight, k_weight, -1}, {q, k_cache, v_cache});

  auto norm_desc = NewDesc<assay_norm_desc>(ASSAY_OP_RMS_NORM);
  norm_desc.eps = fused.eps;
  auto kv_desc = NewDesc<assay_kv_desc>(ASSAY_OP_KV_WRITE_PAGED);
  kv_desc.layout = g.layout;
  kv_desc.block_size = fused.block_size;
  if (norm) {
    b.problem.reference.push_back(Call(norm_desc, {q, q_weight}, {q}));
    b.problem.reference.push_back(Call(norm_desc, {k, k_weight}, {k}));
  }
  b.problem.reference.push_back(Call(fused.rope, {positions, -1}, {q, k}));
  b.problem.reference.push_back(Call(kv_desc, {k, v, slots}, {k_cache, v_cache}));

  // A normalised vector has elements of about the size of the unnormalised ones here (deviation 1), so that rope's
  // tolerance for a vector of length sqrt(2 * dim) and the roundings between the steps bound the whole.
  const double longest = 6 * std::sqrt(2.0) * (4 * UnitRoundoff(act) + NormRelativeError(g.dim));
  for (const int i : {q, k_cache, v_cache}) b.Tensor(i).rounded = true;
  std::vector<double> q_tolerance = RopeTolerance(b.Tensor(q), at, {}, fused.rope);
  double turn = 0;
  for (double& t : q_tolerance) turn = std::max(turn, t = 2 * t + longest);
  b.Tensor(q).tolerance = std::move(q_tolerance);
  b.Tensor(k_cache).tolerance.assign(static_cast<size_t>(b.Tensor(k_cache).count()), turn);
  b.problem.bytes = 2 * static_cast<double>(b.Tensor(q).elements.size() + b.Tensor(k).elements.size() * 2);
}

}  // namespace assay::bench
