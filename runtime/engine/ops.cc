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
    case ASSAY_OP_ALL_REDUCE:
      return "all_reduce";
    case ASSAY_OP_ALL_GATHER:
      return "all_gather";
    case ASSAY_OP_PROBE_READ:
      return "probe_read";
    case ASSAY_OP_QK_NORM_ROPE_KV_WRITE:
      return "qk_norm_rope_kv_write";
    default:
      return "unknown";
  }
}

Ops::Ops(std::shared_ptr<Device> device, Stream* stream, Communicator* comm)
    : device_(device), stream_(stream), comm_(comm), begin_(device), end_(device) {}

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
    case Mode::kProfile:
      return Time(label ? label : OpName(desc->op), [&] { device_->Enqueue(*stream_, call, workspace_, lengths_); });
  }
}

void Ops::Time(const char* label, const std::function<void()>& enqueue) {
  begin_.Record(*stream_);
  enqueue();
  end_.Record(*stream_);
  end_.Synchronize();
  OpTime& t = times_[label];
  t.ns += end_.ElapsedNsSince(begin_);
  ++t.calls;
}

void Ops::SubmitHost(assay_op op, const Tensor& x, HostWork work) {
  const HostWork after_device = [this, work = std::move(work)] {
    stream_->Synchronize();
    work();
  };
  switch (mode_) {
    case Mode::kCheck: {
      const std::string why = comm_->WhyNotOnHost(x);
      if (!why.empty()) throw Error("this model cannot run on several ranks: " + why);
      return;
    }
    case Mode::kRun:
      return recorder_ ? recorder_(after_device) : after_device();
    case Mode::kProfile:
      return Time(OpName(op), after_device);
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

void Ops::Scale(const Tensor& x, float factor) {
  auto d = NewDesc<assay_add_scale_desc>(ASSAY_OP_ADD_SCALE);
  d.alpha = factor;
  Submit(AsOp(d), {&x, nullptr}, {&x});
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

void Ops::QkNormRopeKvWrite(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions,
                            const Tensor& slots, const Tensor* q_weight, const Tensor* k_weight,
                            const Tensor* freq_factors, const Tensor& k_cache, const Tensor& v_cache, float eps,
                            const assay_rope_desc& rope, assay_kv_layout layout, int32_t block_size) {
  auto d = NewDesc<assay_qk_norm_rope_kv_write_desc>(ASSAY_OP_QK_NORM_ROPE_KV_WRITE);
  d.eps = eps;
  d.layout = layout;
  d.block_size = block_size;
  d.rope = rope;
  const std::vector<const assay_tensor*> in = {&q, &k, &v, &positions, &slots, q_weight, k_weight, freq_factors};
  const std::vector<const assay_tensor*> out = {&q, &k_cache, &v_cache};
  if (mode_ == Mode::kCheck) composite_rope_ = device_->WhyUnsupported({AsOp(d), in, out}).empty();
  if (composite_rope_) return Submit(AsOp(d), in, out);
  if (q_weight) RmsNorm(q, *q_weight, q, eps);
  if (k_weight) RmsNorm(k, *k_weight, k, eps);
  Rope(positions, freq_factors, q, k, rope);
  KvWritePaged(k, v, slots, k_cache, v_cache, layout, block_size);
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

void Ops::AllReduce(const Tensor& x) {
  if (!comm_->handle()) return SubmitHost(ASSAY_OP_ALL_REDUCE, x, [this, x] { comm_->AllReduceOnHost(x); });
  auto d = NewDesc<assay_comm_desc>(ASSAY_OP_ALL_REDUCE);
  d.comm = comm_->handle();
  Submit(AsOp(d), {&x}, {&x});
}

void Ops::AllGather(const Tensor& x, const Tensor& y) {
  if (!comm_->handle()) return SubmitHost(ASSAY_OP_ALL_GATHER, x, [this, x, y] { comm_->AllGatherOnHost(x, y); });
  auto d = NewDesc<assay_comm_desc>(ASSAY_OP_ALL_GATHER);
  d.comm = comm_->handle();
  Submit(AsOp(d), {&x}, {&y});
}

}  // namespace assay
