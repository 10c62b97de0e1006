// SPDX-License-Identifier: Apache-2.0
// The operations as a model writes them down. The same code of a model serves four purposes, by mode:
//   kCheck    asks the device whether it runs each operation, and how much workspace; nothing runs
//   kRun      enqueues
//   kProfile  enqueues and times each operation with events (slower: the device waits after each)
// Semantics of the operations: backends/api/assay_backend.h. One thread; owns its workspace.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "runtime/comm/communicator.h"
#include "runtime/device/device.h"

namespace assay {

const char* OpName(assay_op op);

struct OpTime {
  double ns = 0;
  int64_t calls = 0;
};

class Ops {
 public:
  enum class Mode { kCheck, kRun, kProfile };

  // comm: of a model that runs on several ranks; it outlives the Ops.
  Ops(std::shared_ptr<Device> device, Stream* stream, Communicator* comm = nullptr);

  void SetMode(Mode mode) { mode_ = mode; }
  Mode mode() const { return mode_; }
  Device& device() const { return *device_; }
  Stream& stream() const { return *stream_; }
  // Host copies of the step's lengths; the engine sets them before each step if the device needs them.
  void SetHostLengths(const assay_host_lengths* lengths) { lengths_ = lengths; }
  // While a plan is recorded: what only the host can do, in its place among the operations; null otherwise.
  using HostWork = std::function<void()>;
  void SetRecorder(std::function<void(HostWork)> recorder) { recorder_ = std::move(recorder); }
  // After a kCheck pass: makes the workspace as large as the largest that was asked for.
  void AllocateWorkspace();
  // Times since the last reset, by label (the operation's name, or what Label was given).
  std::map<std::string, OpTime> TakeTimes();

  void Embed(const Tensor& ids, const Tensor& table, const Tensor& y);
  void GatherRows(const Tensor& x, const Tensor& index, const Tensor& y);
  void RmsNorm(const Tensor& x, const Tensor& w, const Tensor& y, float eps);
  void AddRmsNorm(const Tensor& x, const Tensor& w, const Tensor& residual, const Tensor& y, float eps);
  void Rope(const Tensor& positions, const Tensor* freq_factors, const Tensor& q, const Tensor& k,
            const assay_rope_desc& rope);
  void Scale(const Tensor& x, float factor);  // add_scale in place, of x alone
  void Glu(const Tensor& gate_up, const Tensor& y, assay_glu_act act);
  // label: what this product is in the model ("linear qkv"), for the table of times.
  void Linear(const Tensor& x, const Tensor& w, const Tensor* bias, const Tensor& y, assay_dtype compute,
              const char* label);
  void KvWritePaged(const Tensor& k, const Tensor& v, const Tensor& slots, const Tensor& k_cache, const Tensor& v_cache,
                    assay_kv_layout layout, int32_t block_size);
  // What stands between the qkv product and attention: rms_norm of q and k where their weights are given, rope of both,
  // k and v into the cache. One composite where the device claims it, else its parts; k is undefined afterwards.
  void QkNormRopeKvWrite(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions,
                         const Tensor& slots, const Tensor* q_weight, const Tensor* k_weight,
                         const Tensor* freq_factors, const Tensor& k_cache, const Tensor& v_cache, float eps,
                         const assay_rope_desc& rope, assay_kv_layout layout, int32_t block_size);
  void AttnPaged(const Tensor& q, const Tensor& k_cache, const Tensor& v_cache, const Tensor& block_table,
                 const Tensor& q_offsets, const Tensor& kv_lens, const Tensor& y, const assay_attn_desc& attn);
  void Sample(const Tensor& logits, const Tensor& temperature, const Tensor& top_k, const Tensor& top_p,
              const Tensor& min_p, const Tensor& seed, const Tensor& step, const Tensor& ids);
  void Logprobs(const Tensor& logits, const Tensor& targets, const Tensor& target_logprob, const Tensor* top_ids,
                const Tensor* top_logprobs);
  void ProbeRead(const Tensor& x, const Tensor& sink);
  // Over the communicator's ranks.
  void AllReduce(const Tensor& x);
  void AllGather(const Tensor& x, const Tensor& y);

 private:
  void Submit(const assay_op_desc* desc, std::vector<const assay_tensor*> in, std::vector<const assay_tensor*> out,
              const char* label = nullptr);

  bool composite_rope_ = false;  // the device claims qk_norm_rope_kv_write; known after a kCheck pass

  void SubmitHost(assay_op op, const Tensor& x, HostWork work);
  // Runs `enqueue` between two events and books the time.
  void Time(const char* label, const std::function<void()>& enqueue);

  std::shared_ptr<Device> device_;
  Stream* stream_;
  Communicator* comm_;
  std::function<void(HostWork)> recorder_;
  Mode mode_ = Mode::kRun;
  const assay_host_lengths* lengths_ = nullptr;
  uint64_t workspace_bytes_ = 0;
  Buffer workspace_;
  Event begin_, end_;
  std::map<std::string, OpTime> times_;
};

}  // namespace assay
