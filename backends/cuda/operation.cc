// SPDX-License-Identifier: Apache-2.0
#include "backends/cuda/operation.h"

#include "backends/common/failure.h"
#include "backends/cuda/comm.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/ops.h"
#include "kernels/ref/ops.h"

namespace assay::backend_cuda {
namespace {

using backend::Call;
using backend::Fail;

const backend::Memory& MemoryOf(assay_buffer buffer) {
  return *buffer;
}

gpu::RopeTable TableOf(const RopeAttr& attr) {
  gpu::RopeTable table{};
  ref::RopeInvFreq(attr, table.inv_freq);
  return table;
}

int64_t KvHeads(const Call& c) {
  return c.in[1].shape[c.attn.kv.layout == KvLayout::kHND ? 1 : 2];
}

}  // namespace

const backend::Rules& GpuRules() {
  static constexpr auto kAct = {DType::kBF16, DType::kF16, DType::kF32};
  static constexpr auto kWeights = {DType::kF32,  DType::kF16,     DType::kBF16,    DType::kQ8_0,    DType::kQ4_0,
                                    DType::kQ4_1, DType::kF8_B128, DType::kI4_G128, DType::kF8_E4M3, DType::kI8};
  static const backend::Rules rules = {kAct, kWeights, gpu::kMaxHeadDim, gpu::WeightUnsupported, false, MemoryOf, true};
  return rules;
}

void CheckSupported(const Call& c) {
  constexpr int kBlock = 16;  // rows of a tile of keys lie in one cache block
  constexpr int kDim = 8;     // 16 bytes of a 16-bit format
  if (c.op != ASSAY_OP_ATTN_PAGED) return;
  if (c.attn.kv.block_size % kBlock != 0) {
    Fail(ASSAY_ERR_UNSUPPORTED, "attn_paged: block size %d is not a multiple of %d", c.attn.kv.block_size, kBlock);
  }
  if (c.in[0].shape[2] % kDim != 0) {
    Fail(ASSAY_ERR_UNSUPPORTED, "attn_paged: head size %lld is not a multiple of %d",
         static_cast<long long>(c.in[0].shape[2]), kDim);
  }
}

uint64_t WorkspaceBytes(const Call& c, const gpu::Queue& queue) {
  switch (c.op) {
    case ASSAY_OP_LINEAR:
      return gpu::LinearWorkspace(c.weight, c.in[0].shape[0], c.in[0].dtype, queue);
    case ASSAY_OP_ATTN_PAGED:
      return gpu::AttnPagedWorkspace(c.in[0].shape[0], c.in[3].shape[0], c.in[3].shape[1], c.in[0].shape[1], KvHeads(c),
                                     c.in[0].shape[2], c.attn, queue);
    case ASSAY_OP_SAMPLE:
      return gpu::SampleWorkspace(c.in[0].shape[0], c.in[0].shape[1]);
    case ASSAY_OP_LOGPROBS:
      return gpu::LogprobsWorkspace(c.in[0].shape[0], c.in[0].shape[1], c.out[1].ndim > 0 ? c.out[1].shape[1] : 0);
    case ASSAY_OP_PROBE_READ:
      return gpu::ProbeReadWorkspace(queue);
    case ASSAY_OP_ALL_GATHER:
      return AllGatherWorkspace(c);
    default:
      return 0;
  }
}

void Run(const Call& c, void* workspace, gpu::GemmLt* lt, const gpu::Queue& queue) {
  switch (c.op) {
    case ASSAY_OP_EMBED:
      return gpu::Embed(c.weight, c.in[0], c.in[1].data, c.out[0], queue);
    case ASSAY_OP_GATHER_ROWS:
      return gpu::GatherRows(c.in[0], c.in[1], c.out[0], queue);
    case ASSAY_OP_CAST:
      return gpu::Cast(c.in[0], c.out[0], queue);
    case ASSAY_OP_KV_BLOCK_COPY:
      return gpu::KvBlockCopy(c.in[0], c.out[0], c.out[1], c.kv, queue);
    case ASSAY_OP_RMS_NORM:
      return gpu::RmsNorm(c.in[0], c.in[1], c.out[0], c.eps, queue);
    case ASSAY_OP_ADD_RMS_NORM:
      return gpu::AddRmsNorm(c.in[0], c.in[1], c.out[0], c.out[1], c.eps, queue);
    case ASSAY_OP_ROPE:
      return gpu::Rope(c.in[0], c.in[1], c.out[0], c.out[1], c.rope, TableOf(c.rope), queue);
    case ASSAY_OP_GLU:
      return gpu::Glu(c.in[0], c.out[0], c.act, queue);
    case ASSAY_OP_ADD_SCALE:
      return gpu::AddScale(c.in[0], c.in[1], c.out[0], c.alpha, c.beta, queue);
    case ASSAY_OP_LINEAR:
      return gpu::Linear(c.weight, c.in[0], c.in[1].data, c.in[2], c.out[0], workspace, lt, queue);
    case ASSAY_OP_KV_WRITE_PAGED:
      return gpu::KvWritePaged(c.in[0], c.in[1], c.in[2], c.out[0], c.out[1], c.kv, queue);
    case ASSAY_OP_ATTN_PAGED:
      return gpu::AttnPaged(c.in[0], c.in[1], c.in[2], c.in[3], c.in[4], c.in[5], c.out[0], c.attn, workspace, queue);
    case ASSAY_OP_SAMPLE:
      return gpu::Sample(c.in[0], c.in[1], c.in[2], c.in[3], c.in[4], c.in[5], c.in[6], c.out[0], workspace, queue);
    case ASSAY_OP_LOGPROBS:
      return gpu::Logprobs(c.in[0], c.in[1], c.out[0], c.out[1], c.out[2], workspace, queue);
    case ASSAY_OP_PROBE_READ:
      return gpu::ProbeRead(c.in[0], c.out[0], workspace, queue);
    case ASSAY_OP_ALL_REDUCE:
      return AllReduce(c, queue);
    case ASSAY_OP_ALL_GATHER:
      return AllGather(c, workspace, queue);
    case ASSAY_OP_QK_NORM_ROPE_KV_WRITE:
      return gpu::QkNormRopeKvWrite(c.in[0], c.in[1], c.in[2], c.in[3], c.in[4], c.in[5], c.in[6], c.in[7], c.out[1],
                                    c.out[2], c.eps, c.rope, TableOf(c.rope), c.kv, queue);
  }
}

}  // namespace assay::backend_cuda
