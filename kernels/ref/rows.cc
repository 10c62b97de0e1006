// SPDX-License-Identifier: Apache-2.0
// Operations that move or convert whole rows: embed, gather_rows, cast, kv_block_copy, kv_write_paged, probe_read.
#include "kernels/ref/convert.h"
#include "kernels/ref/ops.h"

namespace assay::ref {
namespace {

// Row r of y becomes row index[r] of x, or zeros where there is none.
void TakeRows(const View& index, const View& x, const View& y) {
  for (int64_t r = 0; r < y.shape[0]; ++r) {
    const int64_t from = index.as<const int32_t>()[r * index.stride[0]];
    const bool inside = from >= 0 && from < x.shape[0];
    const double scale = inside ? RowScale(x, from) : 0;
    for (int64_t c = 0; c < y.shape[1]; ++c) Store(y, At(y, r, c), inside ? scale * Load(x, At(x, from, c)) : 0.0);
  }
}

}  // namespace

void Embed(const View& ids, const View& table, const View& y) {
  TakeRows(ids, table, y);
}

void GatherRows(const View& x, const View& index, const View& y) {
  TakeRows(index, x, y);
}

void Cast(const View& x, const View& y) {
  for (int64_t r = 0; r < x.shape[0]; ++r) {
    for (int64_t c = 0; c < x.shape[1]; ++c) Store(y, At(y, r, c), Load(x, At(x, r, c)));
  }
}

void KvBlockCopy(const View& pairs, const View& k_cache, const View& v_cache, const KvAttr&) {
  for (int64_t n = 0; n < pairs.shape[0]; ++n) {
    const int64_t from = pairs.as<const int32_t>()[At(pairs, n, 0)];
    const int64_t to = pairs.as<const int32_t>()[At(pairs, n, 1)];
    if (from < 0 || to < 0) continue;
    for (const View* cache : {&k_cache, &v_cache}) {
      for (int64_t i = 0; i < cache->shape[1]; ++i) {
        for (int64_t j = 0; j < cache->shape[2]; ++j) {
          for (int64_t d = 0; d < cache->shape[3]; ++d) {
            Store(*cache, At(*cache, to, i, j, d), Load(*cache, At(*cache, from, i, j, d)));
          }
        }
      }
    }
  }
}

void KvWritePaged(const View& k, const View& v, const View& slots, const View& k_cache, const View& v_cache,
                  const KvAttr& attr) {
  for (int64_t t = 0; t < slots.shape[0]; ++t) {
    const int64_t slot = slots.as<const int32_t>()[t * slots.stride[0]];
    if (slot < 0) continue;  // padding
    const int64_t block = slot / attr.block_size;
    const int64_t offset = slot % attr.block_size;
    for (int64_t h = 0; h < k.shape[1]; ++h) {
      const int64_t at = attr.layout == KvLayout::kHND ? At(k_cache, block, h, offset) : At(k_cache, block, offset, h);
      const int64_t v_at =
          attr.layout == KvLayout::kHND ? At(v_cache, block, h, offset) : At(v_cache, block, offset, h);
      for (int64_t d = 0; d < k.shape[2]; ++d) {
        Store(k_cache, at + d, Load(k, At(k, t, h, d)));
        Store(v_cache, v_at + d, Load(v, At(v, t, h, d)));
      }
    }
  }
}

void ProbeRead(const View& x, const View& sink) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < x.shape[0]; ++i) sum += x.as<const uint8_t>()[i];
  *sink.as<float>() = static_cast<float>(sum);
}

}  // namespace assay::ref
