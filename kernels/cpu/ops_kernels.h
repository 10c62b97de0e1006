// SPDX-License-Identifier: Apache-2.0
// The inner loops of ops.h, compiled once per instruction set (ops_generic.cc, ops_avx2.cc, ops_avx512.cc) from the
// same templates (row_kernels.inc, attention_kernels.inc) over a thin vector type (simd_*.inc).
// They know nothing of teams: callers in ops.cc, attention.cc and sample.cc share the work out. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/linear_kernels.h"
#include "kernels/view.h"

namespace assay::cpu {

// Elements of types of 16 and 8 bits, distinct so that loads and stores can be chosen by overload.
struct BF16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};
struct PairBF16 {
  BF16 first, second;
};
struct E4M3 {  // of KV caches only; loads make 480 of NaN
  uint8_t bits;
};

struct MaxAt {
  float value;    // -inf if there is nothing but NaN
  int64_t index;  // the lowest one that holds value; 0 if value is -inf
};

// What attention does at a time: one KV head of one sequence, some of its query rows, some of its keys.
// Rows are (token, head of the group), head fastest, counted from the sequence's first query token.
struct AttnItem {
  const float* q;                                                        // token 0, first head of the group
  float* y;                                                              // likewise
  int64_t q_token_stride, q_head_stride, y_token_stride, y_head_stride;  // elements
  int64_t row_begin, row_end;
  bool few;                    // of the sequence's rows, not of these: results must not depend on how they are cut
  int64_t group;               // query heads per KV head
  int64_t first_position;      // of the sequence's token 0
  int64_t key_begin, key_end;  // positions to visit; key_begin is a multiple of kAttnTile
  const void* k_cache;         // the KV head in block 0
  const void* v_cache;
  int64_t k_block_stride, k_token_stride, v_block_stride, v_token_stride;  // elements
  const int32_t* blocks;                                                   // the sequence's block table
  int64_t block_size;
  int64_t dim;
  float scale;
  int64_t window;  // 0: none
  float softcap;   // 0: none
  float* partial;  // null: rows are finished and go to y. Else [rows, dim + 2]: sums, their maximum, their weight
  float* scratch;  // AttnScratchFloats(dim)
  // Products of bf16 with packed panels; null: f32's. Caches of f32 and f16 always take f32's.
  LinearKernels::Gemm bf16_product;
};

constexpr int64_t kAttnTile = 64;          // keys scored at a time: the scores of a row stay in registers and L1
constexpr int64_t kAttnMaxRows = 192;      // query rows that share a transposed tile of keys
constexpr int64_t kAttnFewRows = 16;       // up to here a dot product per key beats transposing the keys in f32 ...
constexpr int64_t kAttnFewRowsToBf16 = 4;  // ... or packing them in bf16
constexpr int64_t kAttnMaxDim = 512;       // elements of a head
constexpr int64_t kAttnPad = 64;  // rows in scratch are padded to the widest vector, and to a panel of products
inline int64_t AttnPadded(int64_t dim) {
  return (dim + kAttnPad - 1) / kAttnPad * kAttnPad;
}
inline int64_t AttnScratchFloats(int64_t dim) {
  const int64_t padded = AttnPadded(dim);
  return 2 * kAttnMaxRows * padded   // queries, sums
         + kAttnMaxRows * kAttnTile  // scores
         + 2 * kAttnTile * padded    // keys (transposed), values
         + (1 + 16) * kAttnMaxRows;  // maximum of each row, and weight of each, perhaps per lane of a vector
}

struct OpsKernels {
  void (*rms_norm)(const float* x, const float* w, float* y, int64_t n, float eps);
  // residual += x, y = rms_norm(residual)
  void (*add_rms_norm)(const float* x, const float* w, float* residual, float* y, int64_t n, float eps);
  // cos and sin of position * inv_freq, times scale
  void (*rope_angles)(int32_t position, const double* inv_freq, int64_t pairs, float scale, float* cos, float* sin);
  void (*rotate)(const float* cos, const float* sin, int64_t pairs, bool interleaved, float* head);
  void (*silu_mul)(const float* gate, const float* up, float* y, int64_t n);
  void (*gelu_mul)(const float* gate, const float* up, float* y, int64_t n);
  void (*add_scale)(const float* a, const float* b, float* y, int64_t n, float alpha, float beta);  // b may be null
  void (*convert)(DType from, const void* x, DType to, void* y, int64_t n);
  MaxAt (*max_at)(const float* x, int64_t n);  // NaN counts as -inf
  double (*sum_exp)(const float* x, int64_t n, float max,
                    float inverse);  // sum of exp((x - max) * inverse), NaN if any is
  // Indices of the elements that are at least limit, ascending; returns how many.
  int64_t (*find_at_least)(const float* x, int64_t n, float limit, int32_t* indices);
  uint64_t (*fold_bytes)(const void* x, int64_t bytes);  // reads all, at full bandwidth
  void (*attend)(DType kv, const AttnItem& item);
};

// AttnPaged with these products (AttnItem::bf16_product).
void AttnPagedBy(LinearKernels::Gemm bf16_product, const View& q, const View& k_cache, const View& v_cache,
                 const View& block_table, const View& q_offsets, const View& kv_lens, const View& y,
                 const AttnAttr& attr, void* workspace, const Team& team);

// Of the instruction set that isa.h reports.
const OpsKernels& CurrentOpsKernels();

namespace generic {
extern const OpsKernels kOpsKernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const OpsKernels kOpsKernels;
}
namespace avx512 {
extern const OpsKernels kOpsKernels;
}
#endif

}  // namespace assay::cpu
