// SPDX-License-Identifier: Apache-2.0
// One operation of the ABI, checked and resolved to pointers: what enqueue runs and what a plan records.
// Bind may throw Failure; a bound operation cannot fail. It owns nothing.
#pragma once

#include "backends/common/call.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/ops.h"

namespace assay::backend_cpu {

struct Operation : backend::Call {
  bool reference = false;
  void* workspace = nullptr;
  double inv_freq[cpu::kMaxHeadDim / 2];  // rope, when run by the fast kernels
};

// What the device "ref" or "cpu" takes.
const backend::Rules& RulesOf(bool reference);

// As backend::ReadCall.
Operation Bind(const assay_op_desc* desc, const assay_args* args, bool reference, bool resolve);

uint64_t WorkspaceBytes(const Operation& operation, int threads);

// Every member of the team calls it.
void Execute(const Operation& operation, const cpu::Team& team);

}  // namespace assay::backend_cpu
