// SPDX-License-Identifier: Apache-2.0
// Sharing out of the row-wise operations: rows, or spans of rows where there are few, go to the members of the team.
#include "kernels/cpu/ops.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/ops_kernels.h"

namespace assay::cpu {
namespace {

static_assert(kMaxHeadDim == kAttnMaxDim);

constexpr int64_t kGrain = 256;  // f32 elements: 1 KiB, so that members do not share cache lines

int64_t ElementBytes(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kI64:
      return 8;
    case DType::kU8:
    case DType::kF8_E4M3:
      return 1;
    default:
      return 2;
  }
}

// A tensor as rows of its last dimension.
int64_t RowCount(const View& v) {
  int64_t rows = 1;
  for (int d = 0; d + 1 < v.ndim; ++d) rows *= v.shape[d];
  return rows;
}
int64_t RowLength(const View& v) {
  return v.ndim == 0 ? 1 : v.shape[v.ndim - 1];
}
char* Row(const View& v, int64_t row) {
  int64_t offset = 0;
  for (int d = v.ndim - 2; d >= 0; --d) {
    offset += row % v.shape[d] * v.stride[d];
    row /= v.shape[d];
  }
  return v.as<char>() + offset * ElementBytes(v.dtype);
}
float* RowF32(const View& v, int64_t row) {
  return reinterpret_cast<float*>(Row(v, row));
}

// Calls body(row, begin, count) for this member's share of rows x columns, cut at multiples of kGrain columns.
template <class Body>
void ForEachSpan(int64_t rows, int64_t columns, const Team& team, Body body) {
  if (rows <= 0 || columns <= 0) return;
  const int64_t grains = (columns + kGrain - 1) / kGrain;
  const Share share = Split(rows * grains, 1, team);
  for (int64_t g = share.begin; g < share.end;) {
    const int64_t row = g / grains;
    const int64_t first = g % grains;
    const int64_t last = std::min<int64_t>(grains, first + share.end - g);
    const int64_t begin = first * kGrain;
    body(row, begin, std::min(last * kGrain, columns) - begin);
    g += last - first;
  }
}

struct CacheView {  // strides in elements
  char* data;
  DType dtype;
  int64_t heads, block_stride, head_stride, token_stride;
};
CacheView OpenCache(const View& v, KvLayout layout) {
  const int head = layout == KvLayout::kHND ? 1 : 2;
  const int token = 3 - head;
  return {v.as<char>(), v.dtype, v.shape[head], v.stride[0], v.stride[head], v.stride[token]};
}

}  // namespace

const OpsKernels& CurrentOpsKernels() {
#if defined(__x86_64__)
  static const OpsKernels& kernels = CurrentIsa().avx512 ? avx512::kOpsKernels
                                     : CurrentIsa().avx2 ? avx2::kOpsKernels
                                                         : generic::kOpsKernels;
  return kernels;
#else
  return generic::kOpsKernels;
#endif
}

void GatherRows(const View& x, const View& index, const View& y, const Team& team) {
  const int64_t bytes = ElementBytes(x.dtype);
  ForEachSpan(y.shape[0], y.shape[1], team, [&](int64_t row, int64_t begin, int64_t count) {
    const int64_t source = index.as<int32_t>()[row];
    char* to = Row(y, row) + begin * bytes;
    if (source < 0 || source >= x.shape[0]) {
      std::memset(to, 0, count * bytes);
    } else {
      std::memcpy(to, Row(x, source) + begin * bytes, count * bytes);
    }
  });
}

void Cast(const View& x, const View& y, const Team& team) {
  const OpsKernels& kernels = CurrentOpsKernels();
  ForEachSpan(RowCount(x), RowLength(x), team, [&](int64_t row, int64_t begin, int64_t count) {
    kernels.convert(x.dtype, Row(x, row) + begin * ElementBytes(x.dtype), y.dtype,
                    Row(y, row) + begin * ElementBytes(y.dtype), count);
  });
}

void KvBlockCopy(const View& pairs, const View& k_cache, const View& v_cache, const KvAttr& /*attr*/,
                 const Team& team) {
  const int64_t rows = k_cache.shape[1] * k_cache.shape[2];  // of a block, of head_dim elements each
  const Share share = Split(pairs.shape[0] * rows, 1, team);
  for (int64_t i = share.begin; i < share.end; ++i) {
    const int32_t* pair = pairs.as<int32_t>() + i / rows * pairs.stride[0];
    if (pair[0] < 0 || pair[1] < 0) continue;
    for (const View* cache : {&k_cache, &v_cache}) {
      std::memcpy(Row(*cache, pair[1] * rows + i % rows), Row(*cache, pair[0] * rows + i % rows),
                  cache->shape[3] * ElementBytes(cache->dtype));
    }
  }
}

void RmsNorm(const View& x, const View& w, const View& y, float eps, const Team& team) {
  const OpsKernels& kernels = CurrentOpsKernels();
  const Share share = Split(RowCount(x), 1, team);
  for (int64_t r = share.begin; r < share.end; ++r) {
    kernels.rms_norm(RowF32(x, r), w.as<float>(), RowF32(y, r), RowLength(x), eps);
  }
}

void AddRmsNorm(const View& x, const View& w, const View& residual, const View& y, float eps, const Team& team) {
  const OpsKernels& kernels = CurrentOpsKernels();
  const Share share = Split(RowCount(x), 1, team);
  for (int64_t r = share.begin; r < share.end; ++r) {
    kernels.add_rms_norm(RowF32(x, r), w.as<float>(), RowF32(residual, r), RowF32(y, r), RowLength(x), eps);
  }
}

void Rope(const View& positions, const double* inv_freq, const View& q, const View& k, const RopeAttr& attr,
          const Team& team) {
  const OpsKernels& kernels = CurrentOpsKernels();
  const int64_t pairs = attr.rotary_dim / 2;
  const int64_t q_heads = q.shape[1];
  const int64_t heads = q_heads + (k ? k.shape[1] : 0);
  if (heads == 0) return;
  float cos[kMaxHeadDim / 2];
  float sin[kMaxHeadDim / 2];
  const float magnitude = attr.scaling == RopeScaling::kYarn ? attr.attn_factor : 1.0f;
  int64_t token = -1;
  const Share share = Split(q.shape[0] * heads, 1, team);
  for (int64_t i = share.begin; i < share.end; ++i) {
    if (i / heads != token) {
      token = i / heads;
      kernels.rope_angles(positions.as<int32_t>()[token], inv_freq, pairs, magnitude, cos, sin);
    }
    const int64_t head = i % heads;
    float* at = head < q_heads ? q.as<float>() + token * q.stride[0] + head * q.stride[1]
                               : k.as<float>() + token * k.stride[0] + (head - q_heads) * k.stride[1];
    kernels.rotate(cos, sin, pairs, attr.interleaved, at);
  }
}

void Glu(const View& gate_up, const View& y, GluAct act, const Team& team) {
  const OpsKernels& kernels = CurrentOpsKernels();
  const auto apply = act == GluAct::kSilu ? kernels.silu_mul : kernels.gelu_mul;
  const int64_t width = y.shape[1];
  ForEachSpan(y.shape[0], width, team, [&](int64_t row, int64_t begin, int64_t count) {
    const float* gate = RowF32(gate_up, row) + begin;
    apply(gate, gate + width, RowF32(y, row) + begin, count);
  });
}

void AddScale(const View& a, const View& b, const View& y, float alpha, float beta, const Team& team) {
  const OpsKernels& kernels = CurrentOpsKernels();
  ForEachSpan(RowCount(a), RowLength(a), team, [&](int64_t row, int64_t begin, int64_t count) {
    kernels.add_scale(RowF32(a, row) + begin, b ? RowF32(b, row) + begin : nullptr, RowF32(y, row) + begin, count,
                      alpha, beta);
  });
}

void KvWritePaged(const View& k, const View& v, const View& slots, const View& k_cache, const View& v_cache,
                  const KvAttr& attr, const Team& team) {
  const OpsKernels& kernels = CurrentOpsKernels();
  const int64_t heads = k.shape[1];
  const int64_t dim = k.shape[2];
  const View* sources[2] = {&k, &v};
  const CacheView caches[2] = {OpenCache(k_cache, attr.layout), OpenCache(v_cache, attr.layout)};
  const Share share = Split(k.shape[0] * heads, 1, team);
  for (int64_t i = share.begin; i < share.end; ++i) {
    const int64_t token = i / heads;
    const int64_t head = i % heads;
    const int64_t slot = slots.as<int32_t>()[token];
    if (slot < 0) continue;
    for (int c = 0; c < 2; ++c) {
      const CacheView& cache = caches[c];
      const int64_t at = slot / attr.block_size * cache.block_stride + head * cache.head_stride +
                         slot % attr.block_size * cache.token_stride;
      kernels.convert(DType::kF32,
                      sources[c]->as<float>() + token * sources[c]->stride[0] + head * sources[c]->stride[1],
                      cache.dtype, cache.data + at * ElementBytes(cache.dtype), dim);
    }
  }
}

size_t ProbeReadWorkspace(int threads) {
  return static_cast<size_t>(threads) * 64;
}

void ProbeRead(const View& x, const View& sink, void* workspace, const Team& team) {
  // One cache line per member.
  uint64_t* folds = static_cast<uint64_t*>(workspace);
  const Share share = Split(x.shape[0], 4096, team);
  folds[team.rank * 8] = CurrentOpsKernels().fold_bytes(x.as<char>() + share.begin, share.end - share.begin);
  team.Barrier();
  if (team.rank != 0) return;
  uint64_t all = 0;
  for (int rank = 0; rank < team.size; ++rank) all ^= folds[rank * 8];
  *sink.as<float>() = static_cast<float>((all ^ all >> 24 ^ all >> 48) & 0xffffff);  // all bits, exactly
}

}  // namespace assay::cpu
