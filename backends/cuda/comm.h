// SPDX-License-Identifier: Apache-2.0
// The collectives of a group of cards, through NCCL, which is opened at run time: a machine with one card needs none.
#pragma once

#include <cstdint>

#include "backends/common/call.h"
#include "backends/cuda/device.h"
#include "kernels/cuda/queue.h"

struct assay_comm_s {
  assay_device_s* device;
  void* handle;  // ncclComm_t
  int size;
};

namespace assay::backend_cuda {

// Throw a Failure where NCCL is not to be had or refuses. Create returns when all ranks have called it.
void MakeCommId(assay_comm_id* id);
assay_comm CreateComm(assay_device device, const assay_comm_id& id, int rank, int size);
void DestroyComm(assay_comm comm);

// Scratch of all_gather: the ranks' parts one after the other.
uint64_t AllGatherWorkspace(const backend::Call& call);
void AllReduce(const backend::Call& call, const gpu::Queue& queue);
void AllGather(const backend::Call& call, void* workspace, const gpu::Queue& queue);

}  // namespace assay::backend_cuda
