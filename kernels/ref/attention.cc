// SPDX-License-Identifier: Apache-2.0
// attn_paged: causal attention of a ragged batch over a paged KV cache.
#include <algorithm>
#include <cmath>

#include "kernels/ref/convert.h"
#include "kernels/ref/ops.h"

namespace assay::ref {
namespace {

// Where the vector of KV head `head` at `position` of sequence `s` begins.
int64_t CacheAt(const View& cache, const View& block_table, int64_t s, int64_t position, int64_t head,
                const KvAttr& attr) {
  const int64_t block = block_table.as<const int32_t>()[At(block_table, s, position / attr.block_size)];
  const int64_t offset = position % attr.block_size;
  return attr.layout == KvLayout::kHND ? At(cache, block, head, offset) : At(cache, block, offset, head);
}

// One query head at `position`: softmax(scale * q.k) * v over the positions that it may see.
void AttendHead(const View& q, const View& k_cache, const View& v_cache, const View& block_table, const View& y,
                int64_t s, int64_t row, int64_t head, int64_t position, const AttnAttr& attr) {
  const int64_t dim = q.shape[2];
  const int64_t kv_heads = k_cache.shape[attr.kv.layout == KvLayout::kHND ? 1 : 2];
  const int64_t kv_head = head / (q.shape[1] / kv_heads);
  const int64_t first = attr.window > 0 ? std::max<int64_t>(0, position - attr.window + 1) : 0;
  const std::vector<double> query = LoadRow(q, At(q, row, head), dim);

  std::vector<double> weight;
  for (int64_t p = first; p <= position; ++p) {
    const int64_t at = CacheAt(k_cache, block_table, s, p, kv_head, attr.kv);
    double score = 0;
    for (int64_t d = 0; d < dim; ++d) score += query[static_cast<size_t>(d)] * Load(k_cache, at + d);
    score *= attr.scale;
    if (attr.softcap > 0) score = attr.softcap * std::tanh(score / attr.softcap);
    weight.push_back(score);
  }
  const double largest = *std::max_element(weight.begin(), weight.end());
  double total = 0;
  for (double& w : weight) total += w = std::exp(w - largest);

  std::vector<double> sum(static_cast<size_t>(dim), 0.0);
  for (int64_t p = first; p <= position; ++p) {
    const int64_t at = CacheAt(v_cache, block_table, s, p, kv_head, attr.kv);
    const double w = weight[static_cast<size_t>(p - first)] / total;
    for (int64_t d = 0; d < dim; ++d) sum[static_cast<size_t>(d)] += w * Load(v_cache, at + d);
  }
  for (int64_t d = 0; d < dim; ++d) Store(y, At(y, row, head, d), sum[static_cast<size_t>(d)]);
}

}  // namespace

void AttnPaged(const View& q, const View& k_cache, const View& v_cache, const View& block_table, const View& q_offsets,
               const View& kv_lens, const View& y, const AttnAttr& attr) {
  for (int64_t t = 0; t < y.shape[0]; ++t) {
    for (int64_t h = 0; h < y.shape[1]; ++h) {
      for (int64_t d = 0; d < y.shape[2]; ++d) Store(y, At(y, t, h, d), 0.0);
    }
  }
  for (int64_t s = 0; s < kv_lens.shape[0]; ++s) {
    const int64_t begin = q_offsets.as<const int32_t>()[s * q_offsets.stride[0]];
    const int64_t end = q_offsets.as<const int32_t>()[(s + 1) * q_offsets.stride[0]];
    const int64_t kv_len = kv_lens.as<const int32_t>()[s * kv_lens.stride[0]];
    for (int64_t row = begin; row < end; ++row) {
      const int64_t position = kv_len - (end - row);
      if (position < 0) continue;  // padding
      for (int64_t h = 0; h < q.shape[1]; ++h) {
        AttendHead(q, k_cache, v_cache, block_table, y, s, row, h, position, attr);
      }
    }
  }
}

}  // namespace assay::ref
