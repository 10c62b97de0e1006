// SPDX-License-Identifier: Apache-2.0
// Fast CPU kernels, all but linear (linear.h). The instruction set is chosen at run time (isa.h).
// Semantics: backends/api/assay_backend.h; specification: kernels/ref/ops.h. SPMD: see team.h.
// Activations are f32; arguments are trusted (the backend adapter has checked them).
#pragma once

#include <cstddef>

#include "kernels/attributes.h"
#include "kernels/cpu/team.h"
#include "kernels/view.h"

namespace assay::cpu {

void GatherRows(const View& x, const View& index, const View& y, const Team& team);
void Cast(const View& x, const View& y, const Team& team);
void KvBlockCopy(const View& pairs, const View& k_cache, const View& v_cache, const KvAttr& attr, const Team& team);
void RmsNorm(const View& x, const View& w, const View& y, float eps, const Team& team);
void AddRmsNorm(const View& x, const View& w, const View& residual, const View& y, float eps, const Team& team);
// inv_freq: [rotary_dim/2] from ref::RopeInvFreq, divided by freq_factors where there are any. In double: rounded to
// f32 it would turn a pair by some 0.05 rad too much or too little at position 1e6.
void Rope(const View& positions, const double* inv_freq, const View& q, const View& k, const RopeAttr& attr,
          const Team& team);
void Glu(const View& gate_up, const View& y, GluAct act, const Team& team);
void AddScale(const View& a, const View& b, const View& y, float alpha, float beta, const Team& team);
void KvWritePaged(const View& k, const View& v, const View& slots, const View& k_cache, const View& v_cache,
                  const KvAttr& attr, const Team& team);
constexpr int64_t kMaxHeadDim = 512;  // of attn_paged, and of rope's rotary_dim
// Scratch for AttnPaged: for teams of `threads` members, at most `tokens` query rows.
size_t AttnPagedWorkspace(int64_t tokens, int64_t heads, int64_t head_dim, int threads);
void AttnPaged(const View& q, const View& k_cache, const View& v_cache, const View& block_table, const View& q_offsets,
               const View& kv_lens, const View& y, const AttnAttr& attr, void* workspace, const Team& team);
// Scratch for Sample: [S, V] logits.
size_t SampleWorkspace(int64_t sequences, int64_t vocab, int threads);
void Sample(const View& logits, const View& temperature, const View& top_k, const View& top_p, const View& min_p,
            const View& seed, const View& step, const View& ids, void* workspace, const Team& team);
size_t LogprobsWorkspace(int64_t rows, int64_t vocab, int threads);
void Logprobs(const View& logits, const View& targets, const View& target_logprob, const View& top_ids,
              const View& top_logprobs, void* workspace, const Team& team);
void ProbeRead(const View& x, const View& sink, void* workspace, const Team& team);
size_t ProbeReadWorkspace(int threads);

}  // namespace assay::cpu
