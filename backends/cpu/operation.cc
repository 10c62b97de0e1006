// SPDX-License-Identifier: Apache-2.0
#include "backends/cpu/operation.h"

#include "backends/common/failure.h"
#include "backends/cpu/device.h"
#include "kernels/ref/ops.h"

namespace assay::backend_cpu {
namespace {

const backend::Memory& MemoryOf(assay_buffer buffer) {
  return *buffer;
}

void ExecuteReference(const Operation& o) {
  switch (o.op) {
    case ASSAY_OP_EMBED:
      return ref::Embed(o.in[0], o.in[1], o.out[0]);
    case ASSAY_OP_GATHER_ROWS:
      return ref::GatherRows(o.in[0], o.in[1], o.out[0]);
    case ASSAY_OP_CAST:
      return ref::Cast(o.in[0], o.out[0]);
    case ASSAY_OP_KV_BLOCK_COPY:
      return ref::KvBlockCopy(o.in[0], o.out[0], o.out[1], o.kv);
    case ASSAY_OP_RMS_NORM:
      return ref::RmsNorm(o.in[0], o.in[1], o.out[0], o.eps);
    case ASSAY_OP_ADD_RMS_NORM:
      return ref::AddRmsNorm(o.in[0], o.in[1], o.out[0], o.out[1], o.eps);
    case ASSAY_OP_ROPE:
      return ref::Rope(o.in[0], o.in[1], o.out[0], o.out[1], o.rope);
    case ASSAY_OP_GLU:
      return ref::Glu(o.in[0], o.out[0], o.act);
    case ASSAY_OP_ADD_SCALE:
      return ref::AddScale(o.in[0], o.in[1], o.out[0], o.alpha, o.beta);
    case ASSAY_OP_LINEAR:
      return ref::Linear(o.in[0], o.in[1], o.in[2], o.out[0]);
    case ASSAY_OP_KV_WRITE_PAGED:
      return ref::KvWritePaged(o.in[0], o.in[1], o.in[2], o.out[0], o.out[1], o.kv);
    case ASSAY_OP_ATTN_PAGED:
      return ref::AttnPaged(o.in[0], o.in[1], o.in[2], o.in[3], o.in[4], o.in[5], o.out[0], o.attn);
    case ASSAY_OP_SAMPLE:
      return ref::Sample(o.in[0], o.in[1], o.in[2], o.in[3], o.in[4], o.in[5], o.in[6], o.out[0]);
    case ASSAY_OP_LOGPROBS:
      return ref::Logprobs(o.in[0], o.in[1], o.out[0], o.out[1], o.out[2]);
    case ASSAY_OP_PROBE_READ:
      return ref::ProbeRead(o.in[0], o.out[0]);
  }
}

void ExecuteRope(const Operation& o, const cpu::Team& team) {
  const View& factors = o.in[1];
  if (!factors) return cpu::Rope(o.in[0], o.inv_freq, o.out[0], o.out[1], o.rope, team);
  double inv_freq[cpu::kMaxHeadDim / 2];
  for (int i = 0; i < o.rope.rotary_dim / 2; ++i) inv_freq[i] = o.inv_freq[i] / factors.as<float>()[i];
  cpu::Rope(o.in[0], inv_freq, o.out[0], o.out[1], o.rope, team);
}

}  // namespace

const backend::Rules& RulesOf(bool reference) {
  static constexpr auto kF32 = {DType::kF32};
  static constexpr auto kFloats = {DType::kF32, DType::kBF16, DType::kF16};
  static constexpr auto kFast = {DType::kF32,  DType::kF16,     DType::kBF16, DType::kQ8_0, DType::kQ4_0,
                                 DType::kQ4_1, DType::kQ5_0,    DType::kQ5_1, DType::kQ4_K, DType::kQ5_K,
                                 DType::kQ6_K, DType::kI4_G128, DType::kI8};
  static constexpr auto kPlain = {DType::kF32,  DType::kF16,     DType::kBF16,    DType::kQ8_0,    DType::kQ4_0,
                                  DType::kQ4_1, DType::kQ5_0,    DType::kQ5_1,    DType::kQ4_K,    DType::kQ5_K,
                                  DType::kQ6_K, DType::kF8_B128, DType::kI4_G128, DType::kF8_E4M3, DType::kI8};
  static const backend::Rules fast = {kF32, kFast, cpu::kMaxHeadDim, cpu::WeightUnsupported, false, MemoryOf, false};
  static const backend::Rules plain = {kFloats, kPlain, cpu::kMaxHeadDim, nullptr, true, MemoryOf, false};
  return reference ? plain : fast;
}

Operation Bind(const assay_op_desc* desc, const assay_args* args, bool reference, bool resolve) {
  Operation o;
  static_cast<backend::Call&>(o) = backend::ReadCall(RulesOf(reference), desc, args, resolve);
  if (o.op == ASSAY_OP_QK_NORM_ROPE_KV_WRITE) {
    backend::Fail(ASSAY_ERR_UNSUPPORTED, "qk_norm_rope_kv_write: this device runs its parts one by one");
  }
  o.reference = reference;
  // The reference keeps a row's scale behind the row, as weight_pack put it.
  if (reference && IsRowScaled(o.weight.dtype)) o.in[1].stride[0] += static_cast<int64_t>(sizeof(float));
  if (o.op == ASSAY_OP_ROPE && !reference) ref::RopeInvFreq(o.rope, o.inv_freq);
  return o;
}

uint64_t WorkspaceBytes(const Operation& o, int threads) {
  if (o.reference) return 0;
  switch (o.op) {
    case ASSAY_OP_LINEAR:
      return cpu::LinearWorkspace(o.weight, o.in[0].shape[0], threads);
    case ASSAY_OP_ATTN_PAGED:
      return cpu::AttnPagedWorkspace(o.in[0].shape[0], o.in[0].shape[1], o.in[0].shape[2], threads);
    case ASSAY_OP_SAMPLE:
      return cpu::SampleWorkspace(o.in[0].shape[0], o.in[0].shape[1], threads);
    case ASSAY_OP_LOGPROBS:
      return cpu::LogprobsWorkspace(o.in[0].shape[0], o.in[0].shape[1], threads);
    case ASSAY_OP_PROBE_READ:
      return cpu::ProbeReadWorkspace(threads);
    default:
      return 0;
  }
}

void Execute(const Operation& o, const cpu::Team& team) {
  if (o.reference) {
    if (team.rank == 0) ExecuteReference(o);
    return;
  }
  switch (o.op) {
    case ASSAY_OP_EMBED:
      return cpu::Embed(o.weight, o.in[0], o.in[1].data, o.out[0], team);
    case ASSAY_OP_GATHER_ROWS:
      return cpu::GatherRows(o.in[0], o.in[1], o.out[0], team);
    case ASSAY_OP_CAST:
      return cpu::Cast(o.in[0], o.out[0], team);
    case ASSAY_OP_KV_BLOCK_COPY:
      return cpu::KvBlockCopy(o.in[0], o.out[0], o.out[1], o.kv, team);
    case ASSAY_OP_RMS_NORM:
      return cpu::RmsNorm(o.in[0], o.in[1], o.out[0], o.eps, team);
    case ASSAY_OP_ADD_RMS_NORM:
      return cpu::AddRmsNorm(o.in[0], o.in[1], o.out[0], o.out[1], o.eps, team);
    case ASSAY_OP_ROPE:
      return ExecuteRope(o, team);
    case ASSAY_OP_GLU:
      return cpu::Glu(o.in[0], o.out[0], o.act, team);
    case ASSAY_OP_ADD_SCALE:
      return cpu::AddScale(o.in[0], o.in[1], o.out[0], o.alpha, o.beta, team);
    case ASSAY_OP_LINEAR:
      return cpu::Linear(o.weight, o.in[0], o.in[1].data, o.in[2], o.out[0], o.workspace, team);
    case ASSAY_OP_KV_WRITE_PAGED:
      return cpu::KvWritePaged(o.in[0], o.in[1], o.in[2], o.out[0], o.out[1], o.kv, team);
    case ASSAY_OP_ATTN_PAGED:
      return cpu::AttnPaged(o.in[0], o.in[1], o.in[2], o.in[3], o.in[4], o.in[5], o.out[0], o.attn, o.workspace, team);
    case ASSAY_OP_SAMPLE:
      return cpu::Sample(o.in[0], o.in[1], o.in[2], o.in[3], o.in[4], o.in[5], o.in[6], o.out[0], o.workspace, team);
    case ASSAY_OP_LOGPROBS:
      return cpu::Logprobs(o.in[0], o.in[1], o.out[0], o.out[1], o.out[2], o.workspace, team);
    case ASSAY_OP_PROBE_READ:
      return cpu::ProbeRead(o.in[0], o.out[0], o.workspace, team);
  }
}

}  // namespace assay::backend_cpu
