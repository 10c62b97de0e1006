// SPDX-License-Identifier: Apache-2.0
// Sharing out of attention. The work is a line of items (sequence, KV head, block of query rows, part of the keys)
// with known costs; every member takes a contiguous stretch of about the same cost. A decoding sequence with many
// keys is cut into parts, whose sums are merged after a barrier. How a sequence is cut depends on its own length alone,
// so that its results depend neither on its batch mates (up to kMaxSplitTokens of them) nor on the size of the team.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/ops.h"
#include "kernels/cpu/ops_kernels.h"

namespace assay::cpu {
namespace {

constexpr int64_t kKeysPerPart = 256;  // below, reading the keys takes less than a barrier
constexpr int64_t kMaxParts = 16;
constexpr int64_t kMaxSplitTokens = 64;  // with more, there are heads enough for everyone without cutting
constexpr int64_t kItemsPerMember = 4;   // fewer would leave members idle at the end

struct Sequence {
  int64_t first_row;  // of q
  int64_t tokens;
  int64_t keys;
  int64_t first_position;  // of its first query
  int64_t first_key;       // a multiple of kAttnTile: the first tile that any of its queries sees
};

struct Problem {
  View q, k_cache, v_cache, block_table, q_offsets, kv_lens, y;
  AttnAttr attr;
  LinearKernels::Gemm bf16_product;
  int64_t kv_heads, group, dim, sequences;
  int team_size;
  int64_t row_block = kAttnMaxRows;
  bool split = true;

  Sequence At(int64_t s) const {
    const int32_t* offsets = q_offsets.as<int32_t>();
    Sequence seq;
    seq.first_row = offsets[s];
    seq.tokens = offsets[s + 1] - offsets[s];
    seq.keys = kv_lens.as<int32_t>()[s];
    seq.first_position = seq.keys - seq.tokens;
    const int64_t oldest = attr.window > 0 ? std::max<int64_t>(0, seq.first_position - attr.window + 1) : 0;
    seq.first_key = oldest / kAttnTile * kAttnTile;
    return seq;
  }
  bool IsSmall(const Sequence& seq) const { return seq.tokens * group <= kAttnFewRows; }
  int64_t Parts(const Sequence& seq) const {
    if (!split || !IsSmall(seq)) return 1;
    return std::clamp<int64_t>((seq.keys - seq.first_key) / kKeysPerPart, 1, kMaxParts);
  }
};

// Where the sums of a cut sequence's KV head begin, in rows of dim + 2 floats. Only small sequences are cut, and
// `small_tokens` counts the tokens of those before this one.
int64_t PartialRow(const Problem& p, int64_t small_tokens, const Sequence& seq, int64_t head) {
  return (small_tokens * p.kv_heads + head * seq.tokens) * p.group * kMaxParts;
}

struct Item {
  Sequence seq;
  int64_t index;  // of the sequence
  int64_t head, row_begin, row_end, key_begin, key_end;
  int64_t partial_row;  // -1: not cut
  int64_t cost;
};

// visit(item) in a fixed order.
template <class Visit>
void ForEachItem(const Problem& p, Visit visit) {
  int64_t small_tokens = 0;
  for (int64_t s = 0; s < p.sequences; ++s) {
    const Sequence seq = p.At(s);
    if (seq.tokens <= 0 || seq.keys <= 0) continue;
    const int64_t rows = seq.tokens * p.group;
    const int64_t parts = p.Parts(seq);
    const int64_t block = p.IsSmall(seq) ? rows : p.row_block;
    for (int64_t head = 0; head < p.kv_heads; ++head) {
      for (int64_t row = 0; row < rows; row += block) {
        const int64_t row_end = std::min(rows, row + block);
        // Keys that the block's last row sees, from the oldest that its first row sees.
        const int64_t key_end = std::min(seq.keys, seq.first_position + (row_end - 1) / p.group + 1);
        int64_t key_begin = 0;
        if (p.attr.window > 0) {
          key_begin = std::max<int64_t>(0, seq.first_position + row / p.group - p.attr.window + 1);
          key_begin = key_begin / kAttnTile * kAttnTile;
        }
        const int64_t tiles = std::max<int64_t>(0, (key_end - key_begin + kAttnTile - 1) / kAttnTile);
        for (int64_t part = 0; part < parts; ++part) {
          Item item;
          item.seq = seq;
          item.index = s;
          item.head = head;
          item.row_begin = row;
          item.row_end = row_end;
          item.key_begin = key_begin + tiles * part / parts * kAttnTile;
          item.key_end = std::min(key_end, key_begin + tiles * (part + 1) / parts * kAttnTile);
          item.partial_row = parts > 1 ? PartialRow(p, small_tokens, seq, head) + part * rows : -1;
          // A tile costs its multiplications and, as much as some rows would, its loading and conversion.
          constexpr int64_t kTileInRows = 8;
          item.cost = (row_end - row + kTileInRows) * (item.key_end - item.key_begin) + 1;
          visit(item);
        }
      }
    }
    if (p.IsSmall(seq)) small_tokens += seq.tokens;
  }
}

struct Totals {
  int64_t items = 0, cost = 0;
  bool cut = false;
};
Totals Measure(const Problem& p) {
  Totals totals;
  ForEachItem(p, [&](const Item& item) {
    ++totals.items;
    totals.cost += item.cost;
    totals.cut |= item.partial_row >= 0;
  });
  return totals;
}

AttnItem Bind(const Problem& p, const Item& item, float* partials, float* scratch) {
  const int head_dim_index = p.attr.kv.layout == KvLayout::kHND ? 1 : 2;
  const int token_dim_index = 3 - head_dim_index;
  const int64_t bytes = p.k_cache.dtype == DType::kF32 ? 4 : p.k_cache.dtype == DType::kF8_E4M3 ? 1 : 2;
  AttnItem a;
  a.q = p.q.as<float>() + item.seq.first_row * p.q.stride[0] + item.head * p.group * p.q.stride[1];
  a.y = p.y.as<float>() + item.seq.first_row * p.y.stride[0] + item.head * p.group * p.y.stride[1];
  a.q_token_stride = p.q.stride[0];
  a.q_head_stride = p.q.stride[1];
  a.y_token_stride = p.y.stride[0];
  a.y_head_stride = p.y.stride[1];
  a.row_begin = item.row_begin;
  a.row_end = item.row_end;
  a.few = p.IsSmall(item.seq);
  a.group = p.group;
  a.first_position = item.seq.first_position;
  a.key_begin = item.key_begin;
  a.key_end = item.key_end;
  a.k_cache = p.k_cache.as<char>() + item.head * p.k_cache.stride[head_dim_index] * bytes;
  a.v_cache = p.v_cache.as<char>() + item.head * p.v_cache.stride[head_dim_index] * bytes;
  a.k_block_stride = p.k_cache.stride[0];
  a.k_token_stride = p.k_cache.stride[token_dim_index];
  a.v_block_stride = p.v_cache.stride[0];
  a.v_token_stride = p.v_cache.stride[token_dim_index];
  a.blocks = p.block_table.as<int32_t>() + item.index * p.block_table.stride[0];
  a.block_size = p.attr.kv.block_size;
  a.dim = p.dim;
  a.scale = p.attr.scale;
  a.window = p.attr.window;
  a.softcap = p.attr.softcap;
  a.partial = item.partial_row < 0 ? nullptr : partials + item.partial_row * (p.dim + 2);
  a.scratch = scratch;
  a.bf16_product = item.seq.tokens * p.group > kAttnFewRowsToBf16 ? p.bf16_product : nullptr;
  return a;
}

void ZeroRow(const View& y, int64_t row) {
  for (int64_t h = 0; h < y.shape[1]; ++h) {
    float* at = y.as<float>() + row * y.stride[0] + h * y.stride[1];
    std::fill(at, at + y.shape[2], 0.0f);
  }
}

// Rows that no sequence owns, and those of sequences without keys.
void ZeroIdleRows(const Problem& p, const Team& team) {
  const Share share = Split(p.y.shape[0], 1, team);
  const auto zero = [&](int64_t begin, int64_t end) {
    for (int64_t r = std::max<int64_t>(begin, share.begin); r < std::min<int64_t>(end, share.end); ++r) ZeroRow(p.y, r);
  };
  const int32_t* offsets = p.q_offsets.as<int32_t>();
  zero(0, offsets[0]);
  zero(offsets[p.sequences], p.y.shape[0]);
  for (int64_t s = 0; s < p.sequences; ++s) {
    if (p.kv_lens.as<int32_t>()[s] <= 0) zero(offsets[s], offsets[s + 1]);
  }
}

// One query row of one head: the sums of its parts, each relative to its own maximum.
void MergeRow(const float* partial, int64_t part_stride, int64_t parts, int64_t dim, float* y) {
  float most = -std::numeric_limits<float>::infinity();
  for (int64_t part = 0; part < parts; ++part) most = std::max(most, partial[part * part_stride + dim]);
  std::fill(y, y + dim, 0.0f);
  if (most == -std::numeric_limits<float>::infinity()) return;
  float factors[kMaxParts];
  float weight = 0;
  for (int64_t part = 0; part < parts; ++part) {
    factors[part] = std::exp(partial[part * part_stride + dim] - most);
    weight += factors[part] * partial[part * part_stride + dim + 1];
  }
  for (int64_t part = 0; part < parts; ++part) {
    const float factor = factors[part] / weight;
    const float* sums = partial + part * part_stride;
    for (int64_t d = 0; d < dim; ++d) y[d] += factor * sums[d];
  }
}

void MergeParts(const Problem& p, const float* partials, const Team& team) {
  int64_t small_tokens = 0;
  int64_t turn = 0;
  for (int64_t s = 0; s < p.sequences; ++s) {
    const Sequence seq = p.At(s);
    if (seq.tokens <= 0 || seq.keys <= 0 || !p.IsSmall(seq)) continue;
    const int64_t parts = p.Parts(seq);
    const int64_t rows = seq.tokens * p.group;
    for (int64_t head = 0; parts > 1 && head < p.kv_heads; ++head) {
      if (turn++ % team.size != team.rank) continue;
      const float* at = partials + PartialRow(p, small_tokens, seq, head) * (p.dim + 2);
      for (int64_t r = 0; r < rows; ++r) {
        float* y = p.y.as<float>() + (seq.first_row + r / p.group) * p.y.stride[0] +
                   (head * p.group + r % p.group) * p.y.stride[1];
        MergeRow(at + r * (p.dim + 2), rows * (p.dim + 2), parts, p.dim, y);
      }
    }
    small_tokens += seq.tokens;
  }
}

// The size of row blocks and whether to cut sequences; the same on every member.
Totals Plan(Problem* p) {
  int64_t small_tokens = 0;
  for (int64_t s = 0; s < p->sequences; ++s) {
    const Sequence seq = p->At(s);
    if (seq.tokens > 0 && seq.keys > 0 && p->IsSmall(seq)) small_tokens += seq.tokens;
  }
  p->split = small_tokens <= kMaxSplitTokens;
  Totals totals = Measure(*p);
  while (p->row_block > kAttnMaxRows / 4 && totals.items < kItemsPerMember * p->team_size) {
    p->row_block /= 2;
    totals = Measure(*p);
  }
  return totals;
}

}  // namespace

size_t AttnPagedWorkspace(int64_t tokens, int64_t heads, int64_t head_dim, int threads) {
  const int64_t partials = std::min(tokens, kMaxSplitTokens) * heads * kMaxParts * (head_dim + 2);
  return static_cast<size_t>(threads * AttnScratchFloats(head_dim) + partials) * sizeof(float);
}

void AttnPaged(const View& q, const View& k_cache, const View& v_cache, const View& block_table, const View& q_offsets,
               const View& kv_lens, const View& y, const AttnAttr& attr, void* workspace, const Team& team) {
  AttnPagedBy(SmallBf16Product(CurrentIsa()), q, k_cache, v_cache, block_table, q_offsets, kv_lens, y, attr, workspace,
              team);
}

void AttnPagedBy(LinearKernels::Gemm bf16_product, const View& q, const View& k_cache, const View& v_cache,
                 const View& block_table, const View& q_offsets, const View& kv_lens, const View& y,
                 const AttnAttr& attr, void* workspace, const Team& team) {
  if (q.shape[0] == 0 || q.shape[1] == 0) return;
  Problem p{q, k_cache, v_cache, block_table, q_offsets, kv_lens, y, attr, bf16_product, 0, 0, 0, 0, team.size};
  p.kv_heads = k_cache.shape[attr.kv.layout == KvLayout::kHND ? 1 : 2];
  p.group = q.shape[1] / p.kv_heads;
  p.dim = q.shape[2];
  p.sequences = kv_lens.shape[0];
  const int64_t scratch_floats = AttnScratchFloats(p.dim);
  float* scratch = static_cast<float*>(workspace) + team.rank * scratch_floats;
  float* partials = static_cast<float*>(workspace) + team.size * scratch_floats;

  ZeroIdleRows(p, team);
  const Totals totals = Plan(&p);
  const OpsKernels& kernels = CurrentOpsKernels();
  int64_t before = 0;
  ForEachItem(p, [&](const Item& item) {
    // The member whose stretch of the line holds the item's middle.
    const int64_t middle = before + item.cost / 2;
    before += item.cost;
    const int64_t owner = static_cast<int64_t>(static_cast<double>(middle) / totals.cost * team.size);
    if (std::min<int64_t>(owner, team.size - 1) == team.rank) {
      kernels.attend(k_cache.dtype, Bind(p, item, partials, scratch));
    }
  });
  if (!totals.cut) return;
  team.Barrier();
  MergeParts(p, partials, team);
}

}  // namespace assay::cpu
