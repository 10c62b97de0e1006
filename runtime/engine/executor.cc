// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/executor.h"

#include <algorithm>
#include <cmath>

#include "runtime/core/dtype.h"
#include "runtime/engine/step_inputs.h"

namespace assay {

int64_t DecodeBucket(int64_t sequences, int64_t max_seqs) {
  const int64_t bucket = sequences <= 8 ? sequences : (sequences + 7) / 8 * 8;
  return std::min(bucket, max_seqs);
}

KvPlan PlanKv(const assay_device_info& info, const ExecutorOptions& options, int64_t layers, int64_t kv_heads,
              int64_t head_dim) {
  KvPlan plan{};
  plan.dtype = options.kv_dtype != ASSAY_DTYPE_NONE ? options.kv_dtype : info.kv_dtypes[0];
  plan.layout = info.kv_layouts[0];
  plan.block_size = info.kv_block_sizes[0];
  const auto* end = info.kv_dtypes + ASSAY_MAX_LIST;
  if (std::find(info.kv_dtypes, end, plan.dtype) == end || plan.dtype == ASSAY_DTYPE_NONE) {
    throw Error(std::string("device ") + info.id + " has no KV cache of dtype " + DTypeName(plan.dtype));
  }
  if (plan.block_size <= 0 || plan.layout == 0) {
    throw Error(std::string("device ") + info.id + " declares no KV block size or no KV layout; its backend must");
  }
  plan.blocks_per_seq = (options.max_context + plan.block_size - 1) / plan.block_size;
  int64_t blocks = 0, tensor = 0, bytes = 0;
  const int64_t block_bytes = static_cast<int64_t>(DTypeBytes(plan.dtype, plan.block_size * kv_heads * head_dim));
  const int64_t align = static_cast<int64_t>(std::max<uint64_t>(info.buffer_alignment, 64));
  if (__builtin_mul_overflow(plan.blocks_per_seq, options.max_seqs, &blocks) || blocks > INT32_MAX ||
      __builtin_mul_overflow(blocks, block_bytes, &tensor) || __builtin_add_overflow(tensor, align - 1, &tensor) ||
      __builtin_mul_overflow(tensor / align * align, 2 * layers, &bytes) || blocks * plan.block_size > INT32_MAX) {
    throw Error("a KV cache for " + std::to_string(options.max_seqs) + " sequences of " +
                std::to_string(options.max_context) + " tokens is too large; lower --concurrency, --isl or --osl");
  }
  plan.blocks = static_cast<int32_t>(blocks);
  plan.bytes = static_cast<uint64_t>(bytes);
  plan.tensor_bytes = static_cast<uint64_t>(tensor / align * align);
  return plan;
}

Executor::Executor(std::shared_ptr<Device> device, std::unique_ptr<Model> model, const ExecutorOptions& options,
                   std::shared_ptr<Communicator> comm)
    : device_(device),
      comm_(std::move(comm)),
      stream_(device),
      model_(std::move(model)),
      options_(options),
      kv_plan_(PlanKv(device->info(), options, model_->shape().layers, model_->shape().cache_kv_heads,
                      model_->shape().head_dim)),
      ops_(device, &stream_, comm_.get()),
      max_logits_(options.prompt_logprobs ? options.max_tokens + options.max_seqs : options.max_seqs) {
  ASSAY_CHECK(options.max_seqs > 0 && options.max_tokens >= options.max_seqs);
  const auto* acts_end = device->info().act_dtypes + ASSAY_MAX_LIST;
  const bool moves_words = std::find(device->info().act_dtypes, acts_end, ASSAY_F32) != acts_end;
  looks_ahead_ = device->info().is_accelerator && !comm_ && moves_words;
  const int64_t vocab = model_->shape().vocab;
  logits_buffer_ = Buffer(device, TensorBytes(ASSAY_F32, {max_logits_, vocab}), false);
  logits_ = MakeTensor(logits_buffer_.handle(), 0, ASSAY_F32, {max_logits_, vocab});
  decode_inputs_ = std::make_unique<StepInputs>(
      device, StepCapacity{options.max_seqs, options.max_seqs, max_logits_, kv_plan_.blocks_per_seq});
  prompt_inputs_ = std::make_unique<StepInputs>(
      device, StepCapacity{options.max_tokens, options.max_seqs, max_logits_, kv_plan_.blocks_per_seq});
  outputs_ = PlaceOutputs(false, &output_buffer_);
  outputs_.ids = decode_inputs_->Samples();  // where the next step can take them from
  for (int slot = 0; slot < kFlights; ++slot) {
    results_[slot] = PlaceOutputs(true, &result_buffers_[slot]);
    arrived_[slot] = std::make_unique<Event>(device);
  }
  AllocateKv();
  Check();
}

Executor::Outputs Executor::PlaceOutputs(bool host, Buffer* buffer) const {
  const int64_t n = max_logits_, k = std::max(options_.top_logprobs, 1);
  const uint64_t align = std::max<uint64_t>(device_->info().buffer_alignment, 64);
  uint64_t offset = 0;
  Outputs o;
  const auto place = [&](Tensor* tensor, assay_dtype dtype, std::initializer_list<int64_t> shape) {
    *tensor = MakeTensor(nullptr, offset, dtype, shape);
    offset += (TensorBytes(dtype, shape) + align - 1) / align * align;
  };
  place(&o.ids, ASSAY_I32, {n});
  place(&o.logprob, ASSAY_F32, {n});
  place(&o.top_ids, ASSAY_I32, {n, k});
  place(&o.top_logprobs, ASSAY_F32, {n, k});
  *buffer = Buffer(device_, offset, host);
  for (Tensor* t : {&o.ids, &o.logprob, &o.top_ids, &o.top_logprobs}) t->buffer = buffer->handle();
  return o;
}

Executor::~Executor() = default;

void Executor::AllocateKv() {
  const ModelShape& shape = model_->shape();
  kv_.layout = kv_plan_.layout;
  kv_.block_size = kv_plan_.block_size;
  const int64_t n = kv_plan_.blocks, h = shape.cache_kv_heads, b = kv_.block_size, d = shape.head_dim;
  kv_buffer_ = Buffer(device_, kv_plan_.bytes, false);
  uint64_t offset = 0;
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    for (auto* side : {&kv_.k, &kv_.v}) {
      side->push_back(kv_.layout == ASSAY_KV_HND
                          ? MakeTensor(kv_buffer_.handle(), offset, kv_plan_.dtype, {n, h, b, d})
                          : MakeTensor(kv_buffer_.handle(), offset, kv_plan_.dtype, {n, b, h, d}));
      offset += kv_plan_.tensor_bytes;
    }
  }
}

// One dry pass of every kind of step at its largest size: refuses what the device lacks and sizes the workspace.
void Executor::Check() {
  ops_.SetMode(Ops::Mode::kCheck);
  const int64_t s = options_.max_seqs;
  model_->Forward(ops_, prompt_inputs_->Tensors(options_.max_tokens, s, max_logits_), kv_, logits_);
  Sample(*prompt_inputs_, s);
  ops_.Logprobs(logits_, prompt_inputs_->Targets(0, max_logits_), outputs_.logprob, &outputs_.top_ids,
                &outputs_.top_logprobs);
  ops_.AllocateWorkspace();
  ops_.SetMode(Ops::Mode::kRun);
}

void Executor::Sample(const StepInputs& inputs, int64_t samples) {
  if (samples == 0) return;
  const auto p = inputs.Sampling(samples);
  ops_.Sample(logits_.Rows(0, samples), p.temperature, p.top_k, p.top_p, p.min_p, p.seed, p.step,
              outputs_.ids.Rows(0, samples));
}

Executor::StepSizes Executor::DecodeSizes(int64_t bucket) const {
  // Profiling times each operation, so it cannot use a plan.
  const bool planned = device_->backend().has_plans() && ops_.mode() != Ops::Mode::kProfile;
  return {bucket, bucket, bucket, bucket, 1, planned};
}

void Executor::Enqueue(const StepSizes& s) {
  const StepInputs& inputs = InputsOf(s);
  if (looks_ahead_ && s.decode) {
    const auto t = inputs.Ids(s.tokens);
    ops_.GatherRows(t.words, t.index, t.ids);
  }
  model_->Forward(ops_, inputs.Tensors(s.tokens, s.seqs, s.logits), kv_, logits_.Rows(0, s.logits));
  if (!comm_ || comm_->group().leader()) Sample(inputs, s.samples);
}

RecordedStep& Executor::Recorded(int64_t bucket) {
  auto& plan = plans_[bucket];
  if (!plan) plan = std::make_unique<RecordedStep>(ops_, [&] { Enqueue(DecodeSizes(bucket)); });
  return *plan;
}

void Executor::RecordPlan(int64_t sequences) {
  if (!device_->backend().has_plans()) return;
  const int64_t bucket = DecodeBucket(sequences, options_.max_seqs);
  if (comm_) comm_->group().Send(MessageKind::kRecord, bucket);
  Recorded(bucket);
}

void Executor::RunModel(const StepSizes& sizes, const assay_host_lengths* lengths) {
  InputsOf(sizes).Upload(stream_);
  ops_.SetHostLengths(lengths);
  if (sizes.planned) {
    Recorded(sizes.seqs).Launch(lengths);
  } else {
    Enqueue(sizes);
  }
}

void Executor::Follow(const Message& message) {
  if (message.kind == MessageKind::kRecord) {
    Recorded(message.As<int64_t>());
    return;
  }
  ASSAY_CHECK(message.kind == MessageKind::kStep);
  const auto sizes = message.As<StepSizes>();
  StepInputs& inputs = InputsOf(sizes);
  inputs.Adopt(std::span(message.body).subspan(sizeof(sizes)), sizes.seqs);
  const assay_host_lengths lengths = inputs.HostLengths();
  RunModel(sizes, device_->info().needs_host_lengths ? &lengths : nullptr);
  ops_.SetHostLengths(nullptr);
  stream_.Synchronize();
}

Flight Executor::Launch(std::vector<StepItem> items) {
  ASSAY_CHECK(!items.empty());
  Flight flight;
  bool decode = true, prompt_logprobs = false;
  for (const StepItem& item : items) {
    const Request& r = item.sequence->request;
    decode = decode && item.tokens == 1 && item.decodes();
    prompt_logprobs = prompt_logprobs || (r.prompt_logprobs && !item.decodes());
    flight.top = std::max(flight.top, r.top_logprobs);
  }
  ASSAY_CHECK(!prompt_logprobs || options_.prompt_logprobs);
  ASSAY_CHECK(flight.top <= options_.top_logprobs);

  StepInputs& inputs = decode ? *decode_inputs_ : *prompt_inputs_;
  const int64_t bucket = DecodeBucket(static_cast<int64_t>(items.size()), options_.max_seqs);
  flight.fill = inputs.Stage(items, kv_.block_size, decode ? bucket : 0);
  const StepInputs::Fill& fill = flight.fill;
  const StepSizes sizes = decode
                              ? DecodeSizes(bucket)
                              : StepSizes{fill.tokens, fill.seqs, fill.samples + fill.prompt_rows, fill.samples, 0, 0};
  if (comm_) comm_->group().Send(MessageKind::kStep, {Group::BytesOf(sizes), inputs.host()});
  const assay_host_lengths lengths = inputs.HostLengths();
  RunModel(sizes, device_->info().needs_host_lengths ? &lengths : nullptr);
  RunLogprobs(inputs, flight.top >= 0 ? fill.samples : 0, fill.samples, fill.prompt_rows);
  ops_.SetHostLengths(nullptr);
  for (size_t i = 0; i < items.size(); ++i) items[i].sequence->sample_row = fill.sample_of_item[i];
  flight.items = std::move(items);
  flight.slot = std::exchange(next_slot_, (next_slot_ + 1) % kFlights);
  Fetch(flight);
  return flight;
}

// Tokens and log-probabilities on their way to host memory, behind the step.
void Executor::Fetch(const Flight& flight) {
  const Outputs& to = results_[flight.slot];
  const int64_t samples = flight.fill.samples, rows = samples + flight.fill.prompt_rows;
  const auto fetch = [&](const Tensor& dst, const Tensor& src, int64_t n) {
    if (n > 0) stream_.Copy(dst, src, TensorBytes(dst.dtype, {n * (dst.ndim > 1 ? dst.dim(1) : 1)}));
  };
  fetch(to.ids, outputs_.ids, samples);
  fetch(to.logprob, outputs_.logprob, flight.top >= 0 || flight.fill.prompt_rows > 0 ? rows : 0);
  fetch(to.top_ids, outputs_.top_ids, flight.top > 0 ? samples : 0);
  fetch(to.top_logprobs, outputs_.top_logprobs, flight.top > 0 ? samples : 0);
  arrived_[flight.slot]->Record(stream_);
}

StepResult Executor::Land(const Flight& flight) {
  arrived_[flight.slot]->Synchronize();
  const Outputs& from = results_[flight.slot];
  const auto* sampled = static_cast<const int32_t*>(device_->HostAddress(from.ids));
  const auto* logprob = static_cast<const float*>(device_->HostAddress(from.logprob));
  const auto* top_ids = static_cast<const int32_t*>(device_->HostAddress(from.top_ids));
  const auto* top_logprobs = static_cast<const float*>(device_->HostAddress(from.top_logprobs));
  const int64_t k = from.top_ids.dim(1);
  StepResult result;
  int64_t prompt_row = flight.fill.samples;
  for (size_t i = 0; i < flight.items.size(); ++i) {
    Sequence& seq = *flight.items[i].sequence;
    const int32_t row = flight.fill.sample_of_item[i];
    result.tokens.push_back(row < 0 ? -1 : sampled[row]);
    if (row >= 0 && seq.request.top_logprobs >= 0 && seq.finish == FinishReason::kNone) {
      TokenLogprob t{logprob[row], {}, {}};
      for (int32_t j = 0; j < seq.request.top_logprobs; ++j) {
        t.top_ids.push_back(top_ids[row * k + j]);
        t.top_logprobs.push_back(top_logprobs[row * k + j]);
      }
      seq.logprobs.push_back(std::move(t));
    }
    for (int64_t n = flight.fill.prompt_rows_of_item[i]; n > 0; --n) {
      seq.prompt_logprobs.push_back(logprob[prompt_row++]);
    }
  }
  return result;
}

void Executor::RunLogprobs(const StepInputs& inputs, int64_t sampled, int64_t samples, int64_t prompt_rows) {
  if (sampled > 0) {
    const Tensor ids = outputs_.top_ids.Rows(0, sampled), values = outputs_.top_logprobs.Rows(0, sampled);
    ops_.Logprobs(logits_.Rows(0, sampled), outputs_.ids.Rows(0, sampled), outputs_.logprob.Rows(0, sampled), &ids,
                  &values);
  }
  if (prompt_rows > 0) {
    ops_.Logprobs(logits_.Rows(samples, prompt_rows), inputs.Targets(samples, prompt_rows),
                  outputs_.logprob.Rows(samples, prompt_rows), nullptr, nullptr);
  }
}

}  // namespace assay
