// SPDX-License-Identifier: Apache-2.0
// One operation of the ABI, checked and resolved to pointers: what enqueue runs and what a plan records.
// Bind may throw Failure; a bound operation cannot fail. It owns nothing.
#pragma once

#include "backends/api/assay_backend.h"
#include "kernels/attributes.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/ops.h"
#include "kernels/view.h"

namespace assay::backend_cpu {

struct Operation {
  assay_op op = ASSAY_OP_NONE;
  bool reference = false;
  View in[7];
  View out[3];
  void* workspace = nullptr;
  float eps = 0;
  float alpha = 0, beta = 0;
  GluAct act = GluAct::kSilu;
  KvAttr kv;
  AttnAttr attn;
  RopeAttr rope;
  cpu::WeightSpec weight;                 // linear, embed
  double inv_freq[cpu::kMaxHeadDim / 2];  // rope, when run by the fast kernels
};

// `resolve`: the tensors have buffers (enqueue); otherwise only dtypes and shapes are looked at (supports).
Operation Bind(const assay_op_desc* desc, const assay_args* args, bool reference, bool resolve);

uint64_t WorkspaceBytes(const Operation& operation, int threads);

// Every member of the team calls it.
void Execute(const Operation& operation, const cpu::Team& team);

// Row-major bytes of a weight, as the reference keeps it; 0 if its dtype or row length has no reference.
uint64_t PlainWeightBytes(const cpu::WeightSpec& spec);

const char* NameOf(DType dtype);

}  // namespace assay::backend_cpu
