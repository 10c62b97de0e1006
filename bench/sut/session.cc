// SPDX-License-Identifier: Apache-2.0
#include "bench/sut/session.h"

#include <fmt/format.h>

#include "runtime/core/dtype.h"
#include "runtime/core/interrupt.h"

namespace assay::bench {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

DecoderOptions DecoderOptionsFor(const ExecutorOptions& o, bool stream) {
  return {o.max_tokens, o.prompt_logprobs ? o.max_tokens + o.max_seqs : o.max_seqs, stream};
}

}  // namespace

Session::Session(const ModelSpec& spec) : spec_(spec), choice_(ChooseDevice(spec.device)) {
  device_ = Device::Open(choice_.backend, choice_.index, spec.threads);
  dtypes_ = ChooseDTypes(spec.dtype, device_->info());
  // Synthetic weights are made in the dtype that the device is to have, so that nothing is converted twice.
  checkpoint_ = OpenCheckpoint(spec.model, dtypes_.linear == ASSAY_DTYPE_NONE ? ASSAY_BF16 : dtypes_.linear);
  WeightLoader loader(device_, checkpoint_.get(), dtypes_);
  weight_dtype_ = loader.MainDType();
  weight_bytes_ = loader.TotalBytes();
}

MemoryPlan Session::Plan(const ExecutorOptions& options) const {
  const ModelConfig& c = config();
  MemoryPlan plan;
  plan.weights = weight_bytes_;
  plan.kv_cache = PlanKv(device_->info(), options, c.layers, c.kv_heads, c.head_dim).bytes;
  const DecoderOptions d = DecoderOptionsFor(options, false);
  plan.activations = ActivationBytes(c, dtypes_, d);
  plan.logits = TensorBytes(ASSAY_F32, {d.max_logits, c.vocab});
  return plan;
}

void Session::CheckFits(const ExecutorOptions& options) const {
  const int64_t positions = config().max_positions;
  if (positions > 0 && options.max_context > positions) {
    throw Error(
        fmt::format("{}: the model has {} positions, prompt and output together ask for {}; lower their lengths",
                    spec_.model, positions, options.max_context));
  }
  const MemoryPlan plan = Plan(options);
  const uint64_t available = device_->info().memory_free;
  if (available > 0 && plan.total() > available) {
    throw Error(
        fmt::format("{}: needs {:.1f} GiB on {} (weights {:.1f}, KV cache {:.1f}, activations and logits {:.1f}), "
                    "{:.1f} GiB are free; "
                    "use a smaller model, a smaller --dtype, or lower --concurrency, --isl or --osl",
                    spec_.model, plan.total() / kGiB, device_->id(), plan.weights / kGiB, plan.kv_cache / kGiB,
                    (plan.activations + plan.logits) / kGiB, available / kGiB));
  }
}

std::unique_ptr<Engine> Session::Load(const ExecutorOptions& user_options) {
  ExecutorOptions options = user_options;
  options.kv_dtype = dtypes_.kv;
  CheckFits(options);
  auto model = std::make_unique<Decoder>(device_, checkpoint_.get(), dtypes_, DecoderOptionsFor(options, false));
  return std::make_unique<Engine>(device_, std::move(model), options);
}

std::unique_ptr<Engine> Session::LoadReference(const DeviceChoice& reference, const ExecutorOptions& user_options) {
  auto device = Device::Open(reference.backend, reference.index, spec_.threads);
  // The same weights, computed in f32 throughout.
  DTypeChoice dtypes = dtypes_;
  dtypes.act = dtypes.compute = dtypes.kv = ASSAY_F32;
  ExecutorOptions options = user_options;
  options.kv_dtype = ASSAY_F32;
  auto model = std::make_unique<Decoder>(device, checkpoint_.get(), dtypes, DecoderOptionsFor(options, true));
  return std::make_unique<Engine>(device, std::move(model), options);
}

std::unique_ptr<Sequence> RunRequest(Engine& engine, Request request, const std::string& what,
                                     const std::function<void(int32_t)>& on_token) {
  const auto id = engine.Submit(std::move(request));
  if (!id.ok()) throw Error(what + ": " + id.error());
  while (!engine.idle()) {
    ThrowIfInterrupted();
    const auto step = engine.Step();
    if (!step.ok()) throw DeviceError(step.error());
    for (const TokenEvent& t : step.value().tokens) {
      if (on_token) on_token(t.token);
    }
  }
  return std::move(engine.TakeFinished().back());
}

}  // namespace assay::bench
