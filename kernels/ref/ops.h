// SPDX-License-Identifier: Apache-2.0
// Every operation in plain scalar C++: the specification that fast kernels are tested against.
// Shapes and semantics: backends/api/assay_backend.h. Weights are plain row-major (block types as the ABI lays them
// out). Sums run in double. Arguments are trusted: the backend adapter has checked shapes and dtypes. Any thread;
// nothing is shared.
#pragma once

#include "kernels/attributes.h"
#include "kernels/view.h"

namespace assay::ref {

void Embed(const View& ids, const View& table, const View& y);
void GatherRows(const View& x, const View& index, const View& y);
void Cast(const View& x, const View& y);
void KvBlockCopy(const View& pairs, const View& k_cache, const View& v_cache, const KvAttr& attr);
void RmsNorm(const View& x, const View& w, const View& y, float eps);
void AddRmsNorm(const View& x, const View& w, const View& residual, const View& y, float eps);
// freq_factors and k may be empty.
void Rope(const View& positions, const View& freq_factors, const View& q, const View& k, const RopeAttr& attr);
void Glu(const View& gate_up, const View& y, GluAct act);
// b may be empty.
void AddScale(const View& a, const View& b, const View& y, float alpha, float beta);
// bias may be empty.
void Linear(const View& x, const View& w, const View& bias, const View& y);
void KvWritePaged(const View& k, const View& v, const View& slots, const View& k_cache, const View& v_cache,
                  const KvAttr& attr);
void AttnPaged(const View& q, const View& k_cache, const View& v_cache, const View& block_table, const View& q_offsets,
               const View& kv_lens, const View& y, const AttnAttr& attr);
void Sample(const View& logits, const View& temperature, const View& top_k, const View& top_p, const View& min_p,
            const View& seed, const View& step, const View& ids);
// top_ids and top_logprobs may be empty (both or neither).
void Logprobs(const View& logits, const View& targets, const View& target_logprob, const View& top_ids,
              const View& top_logprobs);
void ProbeRead(const View& x, const View& sink);

// inv_freq[i] for i < rotary_dim/2 after scaling (not divided by freq_factors); shared with the fast kernels.
void RopeInvFreq(const RopeAttr& attr, double* inv_freq);

}  // namespace assay::ref
