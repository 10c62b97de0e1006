// SPDX-License-Identifier: Apache-2.0
#include "backends/cuda/comm.h"

#include <dlfcn.h>

#include <cstring>

#include "kernels/cuda/ops.h"

namespace assay::backend_cuda {

using backend::Fail;

namespace {

// NCCL's interface as far as it is used, version 2 (RCCL has the same).
struct UniqueId {
  char bytes[128];
};
static_assert(sizeof(UniqueId) <= sizeof(assay_comm_id::bytes));
using NcclComm = void*;
constexpr int kSum = 0;
constexpr int kHalf = 6, kFloat = 7, kBfloat16 = 9;

struct Nccl {
  int (*get_unique_id)(UniqueId*);
  int (*init_rank)(NcclComm*, int, UniqueId, int);
  int (*abort)(NcclComm);
  int (*all_reduce)(const void*, void*, size_t, int, int, NcclComm, gpuStream);
  int (*all_gather)(const void*, void*, size_t, int, NcclComm, gpuStream);
  const char* (*error_string)(int);
};

const Nccl& Library() {
  static const Nccl nccl = [] {
#if defined(ASSAY_GPU_HIP)
    constexpr char kName[] = "librccl.so.1";
#else
    constexpr char kName[] = "libnccl.so.2";
#endif
    void* library = dlopen(kName, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      Fail(ASSAY_ERR_UNSUPPORTED,
           "several cards need %s, which cannot be loaded (install it, or add its folder to "
           "LD_LIBRARY_PATH): %s",
           kName, dlerror());
    }
    Nccl n{};
    const auto find = [&](auto* member, const char* name) {
      *reinterpret_cast<void**>(member) = dlsym(library, name);
      if (*member == nullptr) Fail(ASSAY_ERR_UNSUPPORTED, "%s has no function %s: it is too old", kName, name);
    };
    find(&n.get_unique_id, "ncclGetUniqueId");
    find(&n.init_rank, "ncclCommInitRank");
    find(&n.abort, "ncclCommAbort");
    find(&n.all_reduce, "ncclAllReduce");
    find(&n.all_gather, "ncclAllGather");
    find(&n.error_string, "ncclGetErrorString");
    return n;
  }();
  return nccl;
}

void CheckNccl(int error, const char* what) {
  if (error == 0) return;
  Fail(ASSAY_ERR_DEVICE, "%s: %s (NCCL error %d); NCCL_DEBUG=INFO says more", what, Library().error_string(error),
       error);
}

int TypeOf(DType dtype) {
  return dtype == DType::kF32 ? kFloat : dtype == DType::kBF16 ? kBfloat16 : kHalf;
}

assay_comm CommOf(const backend::Call& c) {
  if (c.comm == nullptr) Fail(ASSAY_ERR_INVALID, "a collective without a communicator");
  return c.comm;
}

}  // namespace

void MakeCommId(assay_comm_id* id) {
  UniqueId unique{};
  CheckNccl(Library().get_unique_id(&unique), "naming a group of cards");
  std::memcpy(id->bytes, unique.bytes, sizeof unique.bytes);
}

assay_comm CreateComm(assay_device device, const assay_comm_id& id, int rank, int size) {
  UniqueId unique{};
  std::memcpy(unique.bytes, id.bytes, sizeof unique.bytes);
  NcclComm handle = nullptr;
  CheckNccl(Library().init_rank(&handle, size, unique, rank), "joining a group of cards");
  return new assay_comm_s{device, handle, size};
}

void DestroyComm(assay_comm comm) {
  Library().abort(comm->handle);  // what destroys without waiting for the other ranks
  delete comm;
}

uint64_t AllGatherWorkspace(const backend::Call& c) {
  return static_cast<uint64_t>(CommOf(c)->size * c.in[0].shape[0] * c.in[0].shape[1]) * sizeof(float);
}

void AllReduce(const backend::Call& c, const gpu::Queue& queue) {
  const View& x = c.out[0];
  const size_t count = static_cast<size_t>(x.shape[0] * x.shape[1]);
  if (count == 0) return;
  CheckNccl(Library().all_reduce(x.data, x.data, count, TypeOf(x.dtype), kSum, CommOf(c)->handle, queue.stream),
            "all_reduce");
}

void AllGather(const backend::Call& c, void* workspace, const gpu::Queue& queue) {
  const View& x = c.in[0];
  const size_t count = static_cast<size_t>(x.shape[0] * x.shape[1]);
  if (count == 0) return;
  CheckNccl(Library().all_gather(x.data, workspace, count, kFloat, CommOf(c)->handle, queue.stream), "all_gather");
  gpu::JoinParts(static_cast<const float*>(workspace), x.shape[0], x.shape[1], c.out[0], queue);
}

}  // namespace assay::backend_cuda
