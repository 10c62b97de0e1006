// SPDX-License-Identifier: Apache-2.0
// From a checked call to the kernel that runs it.
#pragma once

#include "backends/common/call.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/queue.h"

namespace assay::backend_cuda {

// What a GPU takes.
const backend::Rules& GpuRules();

// Throws Failure where a kernel sets a limit of its own that the ABI does not.
void CheckSupported(const backend::Call& call);

uint64_t WorkspaceBytes(const backend::Call& call, const gpu::Queue& queue);

// Enqueues the kernels of a resolved call on the queue's stream. lt: may be null.
void Run(const backend::Call& call, void* workspace, gpu::GemmLt* lt, const gpu::Queue& queue);

}  // namespace assay::backend_cuda
