// SPDX-License-Identifier: Apache-2.0
// GPU kernels, all but linear (linear.h) and attention (attention.h). Semantics: backends/api/assay_backend.h;
// specification: kernels/ref/ops.h. Every function enqueues on the queue's stream and returns; it neither allocates nor
// waits. Views point to device memory; arguments are trusted (the backend adapter has checked them).
// Activations are F32, BF16 or F16, one dtype per call; norm weights, logits and sampling parameters F32.
#pragma once

#include <cstddef>

#include "kernels/attributes.h"
#include "kernels/cuda/queue.h"
#include "kernels/view.h"

namespace assay::gpu {

void GatherRows(const View& x, const View& index, const View& y, const Queue& queue);
void Cast(const View& x, const View& y, const Queue& queue);
void AddScale(const View& a, const View& b, const View& y, float alpha, float beta, const Queue& queue);
void Glu(const View& gate_up, const View& y, GluAct act, const Queue& queue);

void RmsNorm(const View& x, const View& w, const View& y, float eps, const Queue& queue);
void AddRmsNorm(const View& x, const View& w, const View& residual, const View& y, float eps, const Queue& queue);

constexpr int kMaxHeadDim = 256;
// What rope turns by, made on the host once per call: inv_freq[i] for i < rotary_dim/2, after scaling
// (ref::RopeInvFreq). In double: rounded to f32 it would turn a pair by some 0.05 rad too much or too little at
// position 1e6.
struct RopeTable {
  double inv_freq[kMaxHeadDim / 2];
};
// freq_factors and k may be empty.
void Rope(const View& positions, const View& freq_factors, const View& q, const View& k, const RopeAttr& attr,
          const RopeTable& table, const Queue& queue);

void KvWritePaged(const View& k, const View& v, const View& slots, const View& k_cache, const View& v_cache,
                  const KvAttr& attr, const Queue& queue);
void KvBlockCopy(const View& pairs, const View& k_cache, const View& v_cache, const KvAttr& attr, const Queue& queue);

// rms_norm of q and of k (where their weights are given), rope of both, and the write of k and v, in one launch. q is
// changed in place; k is read only.
void QkNormRopeKvWrite(const View& q, const View& k, const View& v, const View& positions, const View& slots,
                       const View& q_weight, const View& k_weight, const View& freq_factors, const View& k_cache,
                       const View& v_cache, float eps, const RopeAttr& rope, const RopeTable& table, const KvAttr& kv,
                       const Queue& queue);

// Scratch for logits [S, V].
size_t SampleWorkspace(int64_t sequences, int64_t vocab);
void Sample(const View& logits, const View& temperature, const View& top_k, const View& top_p, const View& min_p,
            const View& seed, const View& step, const View& ids, void* workspace, const Queue& queue);
size_t LogprobsWorkspace(int64_t rows, int64_t vocab, int64_t top);
// top_ids and top_logprobs may be empty (both or neither).
void Logprobs(const View& logits, const View& targets, const View& target_logprob, const View& top_ids,
              const View& top_logprobs, void* workspace, const Queue& queue);

// The end of all_gather: parts [R, rows, part] of R ranks to y [rows, V], rank after rank within a row; what of the
// last rank's part lies beyond V is dropped.
void JoinParts(const float* parts, int64_t rows, int64_t part, const View& y, const Queue& queue);

size_t ProbeReadWorkspace(const Queue& queue);
void ProbeRead(const View& x, const View& sink, void* workspace, const Queue& queue);

}  // namespace assay::gpu
