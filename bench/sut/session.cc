// SPDX-License-Identifier: Apache-2.0
#include "bench/sut/session.h"

#include <fmt/format.h>

#include <numeric>

#include "runtime/core/dtype.h"
#include "runtime/core/interrupt.h"

namespace assay::bench {
namespace {

// "14.9 GiB" or "14.9 MiB".
std::string Size(uint64_t bytes) {
  constexpr double kMiB = 1 << 20, kGiB = 1 << 30;
  const auto value = static_cast<double>(bytes);
  return value < kGiB ? fmt::format("{:.1f} MiB", value / kMiB) : fmt::format("{:.1f} GiB", value / kGiB);
}

DecoderOptions DecoderOptionsFor(const ExecutorOptions& o) {
  DecoderOptions d;
  d.max_tokens = o.max_tokens;
  d.max_logits = o.prompt_logprobs ? o.max_tokens + o.max_seqs : o.max_seqs;
  return d;
}

// The one of several ranks' devices that is this rank's: those of accelerators lie in a row from the one that was
// named.
DeviceChoice DeviceOf(const ModelSpec& spec) {
  DeviceChoice choice = ChooseDevice(spec.device);
  if (!spec.group || !choice.info.is_accelerator) return choice;
  const auto devices = choice.backend->Devices(nullptr);
  const auto last = static_cast<size_t>(choice.index + spec.group->local_size() - 1);
  if (last >= devices.size()) {
    throw Error(fmt::format("--tp {}: needs {} devices from {} on, and backend {} has {} in all", spec.tp,
                            spec.group->local_size(), choice.info.id, choice.backend->name(), devices.size()));
  }
  choice.index += spec.group->local_rank();
  choice.info = devices[static_cast<size_t>(choice.index)];
  return choice;
}

}  // namespace

Session::Session(const ModelSpec& spec) : spec_(spec) {
  if (spec_.group && spec_.group->leader()) spec_.group->Send(MessageKind::kOpen);
  Together([&] { choice_ = DeviceOf(spec_); });
  ShareHost();
  Together([&] { Open(); });
  threads_ = spec_.threads > 0 ? spec_.threads : device_->info().compute_units;
  if (!spec_.group) return;
  std::vector<int64_t> threads(static_cast<size_t>(spec_.tp));
  spec_.group->AllGather(&threads_, sizeof(threads_), threads.data(), Patience::kLoad);
  threads_ = std::accumulate(threads.begin(), threads.end(), int64_t{0});
  comm_ = std::make_shared<Communicator>(device_, spec_.group);
}

void Session::Together(const std::function<void()>& work) {
  if (spec_.group) {
    spec_.group->Agree(work);
  } else {
    work();
  }
}

// Each rank of a CPU gets its part of the cores, and of the CPU time that a control group allows. The threads that this
// one starts inherit its affinity.
void Session::ShareHost() {
  if (!spec_.group || choice_.info.is_accelerator) return;
  const CpuShare share = ShareCpus(*spec_.group);
  cpus_ = share.all;
  SetThreadCpus(share.mine);
  if (spec_.threads == 0) spec_.threads = std::max(1, choice_.info.compute_units / share.sharers);
}

void Session::Open() {
  device_ = Device::Open(choice_.backend, choice_.index, spec_.threads);
  dtypes_ = ChooseDTypes(spec_.dtype, spec_.kv_dtype, device_->info());
  // Synthetic weights are made in the dtype that the device is to have, so that nothing is converted twice.
  checkpoint_ = OpenCheckpoint(spec_.model, dtypes_.linear == ASSAY_DTYPE_NONE ? ASSAY_BF16 : dtypes_.linear);
  for (int r = 0; r < spec_.tp; ++r) {
    WeightLoader loader(device_, checkpoint_.get(), dtypes_, ShardOf(config(), r, spec_.tp));
    const uint64_t bytes = loader.TotalBytes();
    weight_bytes_ += bytes;
    if (r == (spec_.group ? spec_.group->rank() : 0)) own_weight_bytes_ = bytes;
    weight_dtype_ = loader.MainDType();
  }
}

ExecutorOptions Session::Cached(ExecutorOptions options) const {
  options.kv_dtype = dtypes_.kv;
  return options;
}

MemoryPlan Session::Plan(const ExecutorOptions& options) const {
  const int rank = spec_.group ? spec_.group->rank() : 0;
  const ModelConfig c = ConfigOf(config(), ShardOf(config(), rank, spec_.tp));
  MemoryPlan plan;
  plan.weights = own_weight_bytes_;
  plan.kv_cache = PlanKv(device_->info(), Cached(options), c.layers, c.kv_heads, c.head_dim).bytes;
  DecoderOptions d = DecoderOptionsFor(options);
  d.rank = rank;
  d.ranks = spec_.tp;
  plan.activations = ActivationBytes(config(), dtypes_, d);
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
  uint64_t available = device_->info().memory_free;
  // Ranks of a CPU share the host's memory; the leader's part of a model is no smaller than another's.
  if (spec_.group && !device_->info().is_accelerator) available /= static_cast<uint64_t>(spec_.group->local_size());
  if (available > 0 && plan.total() > available) {
    throw Error(fmt::format(
        "{}: needs {} on {} (weights {}, KV cache {}, activations and logits {}), {} are free: {} are missing; "
        "use a smaller model, a smaller --dtype or --kv-dtype, or lower --concurrency, --isl or --osl",
        spec_.model, Size(plan.total()), device_->id(), Size(plan.weights), Size(plan.kv_cache),
        Size(plan.activations + plan.logits), Size(available), Size(plan.total() - available)));
  }
}

std::unique_ptr<Decoder> Session::MakeModel(const ExecutorOptions& options) {
  DecoderOptions d = DecoderOptionsFor(options);
  d.rank = spec_.group ? spec_.group->rank() : 0;
  d.ranks = spec_.tp;
  return std::make_unique<Decoder>(device_, checkpoint_.get(), dtypes_, d);
}

std::unique_ptr<Engine> Session::Load(const ExecutorOptions& user_options) {
  const ExecutorOptions options = Cached(user_options);
  CheckFits(options);
  if (spec_.group) spec_.group->Send(MessageKind::kLoad, options);
  std::unique_ptr<Engine> engine;
  Together([&] { engine = std::make_unique<Engine>(device_, MakeModel(options), options, comm_); });
  return engine;
}

void Session::Unload(std::unique_ptr<Engine> engine) {
  if (spec_.group) spec_.group->Send(MessageKind::kUnload);
  engine.reset();
}

std::unique_ptr<Executor> Session::LoadToFollow(const ExecutorOptions& options) {
  std::unique_ptr<Executor> executor;
  Together([&] { executor = std::make_unique<Executor>(device_, MakeModel(options), options, comm_); });
  return executor;
}

ProbeResult Session::Probe(const ProbeSpec& spec) const {
  if (spec_.group) spec_.group->Send(MessageKind::kProbe, spec);
  return bench::Probe(device_, spec, spec_.group.get());
}

std::unique_ptr<Engine> Session::LoadReference(const DeviceChoice& reference, const ExecutorOptions& user_options) {
  auto device = Device::Open(reference.backend, reference.index, spec_.threads);
  // The same weights, computed in f32 throughout.
  DTypeChoice dtypes = dtypes_;
  dtypes.act = dtypes.compute = dtypes.kv = ASSAY_F32;
  ExecutorOptions options = user_options;
  options.kv_dtype = ASSAY_F32;
  DecoderOptions d = DecoderOptionsFor(options);
  d.stream_layers = true;
  auto model = std::make_unique<Decoder>(device, checkpoint_.get(), dtypes, d);
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
