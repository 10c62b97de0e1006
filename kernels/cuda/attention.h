// SPDX-License-Identifier: Apache-2.0
// attn_paged on a GPU. Semantics: backends/api/assay_backend.h; specification: kernels/ref/attention.cc. Enqueues and
// returns; the lengths of sequences are device tensors, so a launch is planned by upper bounds (tokens, sequences,
// blocks) and each block of threads finds its work on the device.
// q, y: F32, BF16 or F16, rows and heads may be strided. Caches: F32, BF16, F16 or F8_E4M3, HND or NHD, any block size
// that is a multiple of 16; keys begin on 16 bytes (of one byte an element: on 8). Head sizes: multiples of 8 up to
// 256; the tensor-core kernels take 64, 96 and 128, and q in the caches' 16-bit dtype (or f32 with bf16 caches; bf16 or
// f32 with F8_E4M3 caches). q_offsets must not decrease.
#pragma once

#include <cstddef>

#include "kernels/attributes.h"
#include "kernels/cuda/queue.h"
#include "kernels/view.h"

namespace assay::gpu {

// Scratch for a call with at most these sizes: q [tokens, heads, head_dim], block_table [sequences, blocks].
size_t AttnPagedWorkspace(int64_t tokens, int64_t sequences, int64_t blocks, int64_t heads, int64_t kv_heads,
                          int64_t head_dim, const AttnAttr& attr, const Queue& queue);
void AttnPaged(const View& q, const View& k_cache, const View& v_cache, const View& block_table, const View& q_offsets,
               const View& kv_lens, const View& y, const AttnAttr& attr, void* workspace, const Queue& queue);

}  // namespace assay::gpu
