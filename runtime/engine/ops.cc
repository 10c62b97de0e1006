// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/ops.h"

#include <algorithm>

namespace assay {
namespace {

template <class Desc>
Desc NewDesc(assay_op op) {
  Desc d{};
  d.struct_size = sizeof(d);
  d.op = op;
  return d;
}

template <class Desc>
const assay_op_desc* AsOp(const Desc& d) {
  return reinterpret_cast<const assay_op_desc*>(&d);
}

}  // namespace

const char* OpName(assay_op op) {
  switch (op) {
    case ASSAY_OP_EMBED:
      return "embed";
    case ASSAY_OP_GATHER_ROWS:
      return "gather_rows";
    case ASSAY_OP_CAST:
      return "cast";
    case ASSAY_OP_KV_BLOCK_COPY:
      return "kv_block_copy";
    case ASSAY_OP_RMS_NORM:
      return "rms_norm";
    case ASSAY_OP_ADD_RMS_NORM:
      return "add_rms_norm";
    case ASSAY_OP_ROPE:
      return "rope";
    case ASSAY_OP_GLU:
      return "glu";
    case ASSAY_OP_ADD_SCALE:
      return "add_scale";
    case ASSAY_OP_LINEAR:
      return "linear";
    case ASSAY_OP_KV_WRITE_PAGED:
      return "kv_write_paged";
    case ASSAY_OP_ATTN_PAGED:
      return "attn_paged";
    case ASSAY_OP_SAMPLE:
      return "sample";
    case ASSAY_OP_LOGPROBS:
      return "logprobs";
    case ASSAY_OP_PROBE_READ:
      return "probe_read";
    case ASSAY_OP_QK_NORM_ROPE_KV_WRITE:
      return "qk_norm_rope_kv_write";
    default:
      return "unknown";
  }
}

Ops::Ops(std::shared_ptr<Device> device, Stream* stream)
    : device_(device), stream_(stream), begin_(device), end_(device) {}

void Ops::AllocateWorkspace() {
  if (workspace_bytes_ > workspace_.bytes()) workspace_ = Buffer(device_, workspace_bytes_, false);
}

std::map<std::string, OpTime> Ops::TakeTimes() {
  return std::exchange(times_, {});
}

void Ops::Submit(const assay_op_desc* desc, std::vector<const assay_tensor*> in, std::vector<const assay_tensor*> out,
                 const char* label) {
  OpCall call{desc, std::move(in), std::move(out)};
  switch (mode_) {
    case Mode::kCheck: {
      const std::string why = device_->WhyUnsupported(call);
      if (!why.empty()) {
        throw Error("device " + device_->id() + " (backend " + device_->backend().name() +
                    ") cannot run this model: operation '" + OpName(desc->op) + "': " + why);
      }
      workspace_bytes_ = std::max(workspace_bytes_, device_->WorkspaceSize(call));
      return;
    }
    case Mode::kRun:
      device_->Enqueue(*stream_, call, workspace_, lengths_);
      return;
    case Mode::kProfile: {
      begin_.Record(*stream_);
      device_->Enqueue(*stream_, call, workspace_, lengths_);
      end_.Record(*stream_);
      end_.Synchronize();
      OpTime& t = times_[label ? label : OpName(desc->op)];
      t.ns += end_.ElapsedNsSince(begin_);
      ++t.calls;
      return;
    }
  }
}

void Ops::Embed(const Tensor& ids, const Tensor& table, const Tensor& y) {
  const auto d = NewDesc<assay_op_desc>(ASSAY_OP_EMBED);
  Submit(&d, {&ids, &table}, {&y});
}

void Ops::GatherRows(const Tensor& x, const Tensor& index, const Tensor& y) {
  const auto d = NewDesc<assay_op_desc>(ASSAY_OP_GATHER_ROWS);
  Submit(&d, {&x, &index}, {&y});
}

void Ops::RmsNorm(const Tensor& x, const Tensor& w, const Tensor& y, float eps) {
  auto d = NewDesc<assay_norm_desc>(ASSAY_OP_RMS_NORM);
  d.eps = eps;
  Submit(AsOp(d), {&x, &w}, {&y});
}

void Ops::AddRmsNorm(const Tensor& x, const Tensor& w, const Tensor& residual, const Tensor& y, float eps) {
  auto d = NewDesc<assay_norm_desc>(ASSAY_OP_ADD_RMS_NORM);
  d.eps = eps;
  Submit(AsOp(d), {&x, &w}, {&residual, &y});
}

void Ops::Rope(const Tensor& positions, const Tensor* freq_factors, const Tensor& q, const Tensor& k,
               const assay_rope_desc& rope) {
  Submit(AsOp(rope), {&positions, freq_factors}, {&q, &k});
}

void Ops::Glu(const Tensor& gate_up, const Tensor& y, assay_glu_act act) {
  auto d = NewDesc<assay_glu_desc>(ASSAY_OP_GLU);
  d.act = act;
  Submit(AsOp(d), {&gate_up}, {&y});
}

void Ops::Linear(const Tensor& x, const Tensor& w, const Tensor* bias, const Tensor& y, assay_dtype compute,
                 const char* label) {
  auto d = NewDesc<assay_linear_desc>(ASSAY_OP_LINEAR);
  d.compute = compute;
  Submit(AsOp(d), {&x, &w, bias}, {&y}, label);
}

void Ops::KvWritePaged(const Tensor& k, const Tensor& v, const Tensor& slots, const Tensor& k_cache,
                       const Tensor& v_cache, assay_kv_layout layout, int32_t block_size) {
  auto d = NewDesc<assay_kv_desc>(ASSAY_OP_KV_WRITE_PAGED);
  d.layout = layout;
  d.block_size = block_size;
  Submit(AsOp(d), {&k, &v, &slots}, {&k_cache, &v_cache});
}

void Ops::AttnPaged(const Tensor& q, const Tensor& k_cache, const Tensor& v_cache, const Tensor& block_table,
                    const Tensor& q_offsets, const Tensor& kv_lens, const Tensor& y, const assay_attn_desc& attn) {
  Submit(AsOp(attn), {&q, &k_cache, &v_cache, &block_table, &q_offsets, &kv_lens}, {&y});
}

void Ops::Sample(const Tensor& logits, const Tensor& temperature, const Tensor& top_k, const Tensor& top_p,
                 const Tensor& min_p, const Tensor& seed, const Tensor& step, const Tensor& ids) {
  const auto d = NewDesc<assay_op_desc>(ASSAY_OP_SAMPLE);
  Submit(&d, {&logits, &temperature, &top_k, &top_p, &min_p, &seed, &step}, {&ids});
}

void Ops::Logprobs(const Tensor& logits, const Tensor& targets, const Tensor& target_logprob, const Tensor* top_ids,
                   const Tensor* top_logprobs) {
  const auto d = NewDesc<assay_op_desc>(ASSAY_OP_LOGPROBS);
  Submit(&d, {&logits, &targets}, {&target_logprob, top_ids, top_logprobs});
}

void Ops::ProbeRead(const Tensor& x, const Tensor& sink) {
  const auto d = NewDesc<assay_op_desc>(ASSAY_OP_PROBE_READ);
  Submit(&d, {&x}, {&sink});
}

}  // namespace assay
