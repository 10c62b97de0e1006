// SPDX-License-Identifier: Apache-2.0
#include "bench/sut/bench_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <thread>

#include "bench/claims/card_of_device.h"
#include "bench/limits/probes.h"
#include "bench/result/provenance.h"
#include "bench/stats/steady.h"
#include "runtime/core/dtype.h"
#include "runtime/core/interrupt.h"

namespace assay::bench {
namespace {

// Frequency governors and matrix units take up to two seconds to reach their clocks.
constexpr double kMinWarmUpS = 2.0;
constexpr double kMaxWarmUpS = 10.0;
constexpr double kProbeS = 0.7;
constexpr double kShortProbeS = 0.3;
constexpr double kLeastIdleS = 1.5, kMostIdleS = 10.0;
// Loads begin at a random moment of the meter's cycle; no meter that is read by the second has a longer one.
constexpr double kMaxPhaseS = 1.0;
// Prompts of the decode loop are this short, so that it is a loop of decode steps.
constexpr int64_t kDecodeLoopPrompt = 16;
constexpr uint64_t kReadAheadBytes = 1ull << 30;
// Tokens per step while prompts are run: large enough for dense products, small enough to keep activations small.
// Tokens of prompts in a step: enough that products are bound by arithmetic, which an accelerator needs more for.
constexpr int64_t kStepTokens = 512, kAcceleratorStepTokens = 8192;
// Which prompts are for what: the same trials measure the same prompts, however long the warm-up took.
constexpr int64_t kGuardPromptIndex = 0;
constexpr int64_t kTrialPrompts = 1;
constexpr int64_t kWarmUpPrompts = int64_t{1} << 40;
constexpr int64_t kProfilePrompts = int64_t{1} << 41;
constexpr int64_t kLoopPrompts = int64_t{1} << 42;

}  // namespace

const char* ScenarioName(Scenario scenario) {
  return scenario == Scenario::kSingleStream ? "single-stream" : "offline";
}

BenchRun::BenchRun(const BenchOptions& options, std::function<void(const std::string&)> progress)
    : options_(options), progress_(std::move(progress)), epoch_(Clock::now()), epoch_s_(NowSeconds()) {
  result_.id = NewRunId();
  result_.started_at = TimestampUtc();
  result_.tool = ThisTool();
  result_.host = ThisHost();
  result_.environment = ReadEnvironment();
  result_.environment.before = ReadMachineState();
}

BenchRun::~BenchRun() = default;

int64_t BenchRun::StepTokens() const {
  return session_->device()->info().is_accelerator ? kAcceleratorStepTokens : kStepTokens;
}

ExecutorOptions BenchRun::EngineOptions() const {
  ExecutorOptions o;
  o.max_seqs = options_.scenario == Scenario::kSingleStream ? 1 : options_.concurrency;
  o.max_tokens = std::max({std::min(StepTokens(), options_.isl * o.max_seqs), o.max_seqs, kGuardPrompt});
  o.max_context = std::max(options_.isl + options_.osl, kGuardPrompt + kGuardTokens);
  if (session_->config().max_positions > 0) {
    o.max_context = std::max(std::min(o.max_context, session_->config().max_positions), options_.isl + options_.osl);
  }
  return o;
}

void BenchRun::Describe() {
  const ModelConfig& c = session_->config();
  const assay_device_info& info = session_->device()->info();
  const std::lock_guard lock(mutex_);
  DeviceInfo& d = result_.device;
  d.backend = session_->device()->backend().name();
  d.name = info.name;
  d.driver = session_->device()->table().version;
  d.isa = std::string(info.detail);
  d.reason = session_->choice().reason;
  accelerator_ = info.is_accelerator != 0;
  {
    // The host's peaks are those of the cores of all ranks, of which this thread has its part.
    const CpuSet own = ThreadCpus();
    if (session_->cpus().any()) SetThreadCpus(session_->cpus());
    card_ = CardOfDevice(info);
    SetThreadCpus(own);
  }
  if (card_.card && card_.sure) d.card_id = card_.card->id;
  d.count = options_.model.tp;
  if (!accelerator_) d.threads = session_->threads();
  if (c.kv_heads > d.count && c.kv_heads % d.count != 0) {
    uneven_ = fmt::format("{} KV heads do not divide by {} ranks: the first ranks have one more, and all wait for them",
                          c.kv_heads, d.count);
  }
  ModelInfo& m = result_.model;
  m.name = c.name;
  m.family = FamilyName(c.family);
  m.parameters = static_cast<int64_t>(c.Parameters());
  m.weights = session_->checkpoint().synthetic() ? "synthetic" : "file";
  m.dtype = DTypeName(session_->weight_dtype());
  m.kv_dtype = DTypeName(session_->dtypes().kv);
  m.bytes = static_cast<int64_t>(session_->weight_bytes());
  WorkloadInfo& w = result_.workload;
  w.scenario = ScenarioName(options_.scenario);
  w.isl = options_.isl;
  w.osl = options_.osl;
  w.concurrency = options_.concurrency;
  w.requests = options_.requests;
  w.trials = options_.trials;
  w.seed = options_.seed;
}

// Before the model is loaded and again after it is gone: the probe's buffer and the weights are never there together,
// and a neighbour who is busy at one end of the run does not lower the limit.
void BenchRun::Probe(bool first) {
  const assay_device_info& info = session_->device()->info();
  const auto& d = session_->dtypes();
  const ModelConfig& c = session_->config();
  Progress("measuring the read bandwidth");
  using Kind = ProbeSpec::Kind;
  const ProbeResult read = session_->Probe({Kind::kRead, kProbeS, ProbeBytes(info), {}});
  Progress("measuring matrix products");
  MatmulProbe product = LargeProduct(info, session_->weight_dtype(), d.compute, d.act);
  const ProbeResult matmul = session_->Probe({Kind::kMatmul, kProbeS, 0, product});
  const auto keep = [](const ProbeResult& probe, std::optional<double>* best, std::optional<double>* half_width) {
    if (probe.best <= 0) return;
    // Two probes that differ by more than their own spread show how far the limit itself is known.
    const double moved = *best ? std::abs(**best - probe.best) / 2 : 0;
    *half_width = std::max({half_width->value_or(0), probe.half_width.value_or(0), moved});
    *best = std::max(best->value_or(0), probe.best);
  };
  {
    const std::lock_guard lock(mutex_);
    Limits& l = result_.limits;
    keep(read, &l.bytes_per_s, &l.bytes_per_s_half_width);
    if (read.median > 0) l.bytes_per_s_median = std::max(l.bytes_per_s_median.value_or(0), read.median);
    keep(matmul, &l.flops, &l.flops_half_width);
    l.flops_dtype = DTypeName(session_->weight_dtype());
  }
  if (!first) return;
  product.m = std::min(StepTokens(), options_.isl * EngineOptions().max_seqs);
  product.n = 2 * c.ffn / options_.model.tp;
  product.k = c.hidden;
  const ProbeResult model = session_->Probe({Kind::kMatmul, kShortProbeS, 0, product});
  const ProbeResult copy = session_->Probe({Kind::kCopy, kShortProbeS, 0, {}});
  const ProbeResult cache = session_->Probe({Kind::kRead, kShortProbeS, kCacheBytes, {}});
  const double launch_s = ProbeLaunch(session_->device(), kShortProbeS);
  const std::lock_guard lock(mutex_);
  Limits& l = result_.limits;
  l.model_flops = model.best;
  l.model_matmul = fmt::format("{} x {} x {}", product.m, product.n, product.k);
  l.copy_bytes_per_s = copy.best;
  l.cache_bytes_per_s = cache.best;
  l.launch_us = launch_s * 1e6;
}

TrialSpec BenchRun::Spec() const {
  return {options_.scenario, options_.isl, options_.osl, options_.requests, options_.concurrency, 0};
}

void BenchRun::WarmUpEngine() {
  engine_->executor().RecordPlan(std::min(options_.concurrency, options_.requests));
  WarmUp warm_up(kMinWarmUpS, kMaxWarmUpS);
  const Clock::time_point start = Clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  TrialSpec spec = Spec();
  spec.requests = options_.scenario == Scenario::kOffline ? std::min(options_.requests, options_.concurrency) : 1;
  int64_t next_warm_up = kWarmUpPrompts;
  // Whole requests, so that the prompt's path is warm too; the time of a decode step decides.
  do {
    RunTrial(*engine_, spec, *prompts_, -1, next_warm_up, epoch_, [&](double s) {
      warm_up.Add(s);
      Progress(fmt::format("warming up: {:.0f} s, {} decode steps", elapsed(), warm_up.steps()));
    });
    next_warm_up += spec.requests;
  } while (!warm_up.Done() && elapsed() < kMaxWarmUpS);
  const std::lock_guard lock(mutex_);
  result_.warm_up = WarmUpInfo{static_cast<int64_t>(warm_up.steps()), elapsed(), warm_up.Steady()};
}

MeteredTrial BenchRun::Metered(const TrialRecord& record) const {
  const double begin_s = epoch_s_ + record.trial.start_s;
  return {{begin_s, begin_s + record.trial.duration_s},
          static_cast<double>(record.trial.input_tokens),
          static_cast<double>(record.trial.output_tokens)};
}

// A meter that samples in a fixed rhythm must not meet every trial at the same point of it.
void BenchRun::PauseForPhase() {
  if (!metered_load_) return;
  static thread_local std::minstd_rand random(std::random_device{}());
  std::this_thread::sleep_for(
      std::chrono::duration<double>(std::uniform_real_distribution<double>(0, kMaxPhaseS)(random)));
}

void BenchRun::RunTrials() {
  TrialSpec spec = Spec();
  if (metered_load_) spec.min_seconds = options_.power_seconds / static_cast<double>(options_.trials);
  for (int64_t i = 0; i < options_.trials; ++i) {
    if (options_.before_trial) options_.before_trial(i + 1);
    PauseForPhase();
    int64_t steps = 0;
    TrialRecord record =
        RunTrial(*engine_, spec, *prompts_, i, kTrialPrompts + i * kPromptsPerTrial, epoch_, [&](double) {
          if (++steps % 8 == 0) Progress(fmt::format("trial {} of {}: decode step {}", i + 1, options_.trials, steps));
        });
    const std::lock_guard lock(mutex_);
    result_.trials.push_back(record.trial);
    samples_.insert(samples_.end(), record.samples.begin(), record.samples.end());
    prefill_.push_back(record.prefill);
    decode_.push_back(record.decode);
    if (sampler_) metered_.push_back(Metered(record));
    if (options_.model.tp == 1) result_.peak_rss_bytes = PeakRssBytes();  // other ranks may be other processes
  }
}

// A steady loop of prompts alone, or of decode steps with next to no prompt, for the power of each.
void BenchRun::RunPhase(bool decode) {
  if (!metered_load_ || (decode && options_.osl < 2)) return;
  TrialSpec spec = Spec();
  if (decode) {
    spec.isl = std::min(kDecodeLoopPrompt, options_.isl);
    spec.osl += options_.isl - spec.isl;
  } else {
    spec.osl = 1;
  }
  spec.min_seconds = options_.power_seconds / 2 / static_cast<double>(options_.trials);
  for (int64_t i = 0; i < options_.trials; ++i) {
    PauseForPhase();
    Progress(fmt::format("metering {} alone: {} of {}", decode ? "decode" : "prefill", i + 1, options_.trials));
    const int64_t prompt = kLoopPrompts + (2 * i + decode) * kPromptsPerTrial;
    const TrialRecord record = RunTrial(*engine_, spec, *prompts_, i, prompt, epoch_, {});
    const std::lock_guard lock(mutex_);
    (decode ? metered_decode_ : metered_prefill_).push_back(Metered(record));
  }
}

void BenchRun::ProfileOps() {
  const double begin_s = NowSeconds();
  Profile profile =
      RunProfile(*engine_, Spec(), *prompts_, kProfilePrompts, [&](const std::string& text) { Progress(text); });
  const std::lock_guard lock(mutex_);
  profile_window_ = {begin_s, NowSeconds()};
  result_.ops = profile.ops;
  profile_ = std::move(profile);
}

// The machine at rest, metered.
void BenchRun::Rest(std::vector<Window>* windows, const std::string& what) {
  if (!metered_load_) return;
  Progress("metering the machine at rest" + what);
  const double begin_s = NowSeconds();
  const double seconds = std::clamp(options_.power_seconds / 6, kLeastIdleS, kMostIdleS);
  while (NowSeconds() - begin_s < seconds) {
    ThrowIfInterrupted();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  const std::lock_guard lock(mutex_);
  windows->push_back({begin_s, NowSeconds()});
}

// What is measured of several ranks must be that of all.
void BenchRun::CheckRanks(MeterChoice* meter) const {
  const ModelSpec& spec = options_.model;
  if (!spec.group) return;
  if (spec.group->local_size() < spec.tp) {
    throw Error(
        fmt::format("--tp {}: limits, power and claims are those of one host, and only {} ranks are on this one",
                    spec.tp, spec.group->local_size()));
  }
  if (!meter->meter || !session_->device()->info().is_accelerator) return;
  const std::string scope = meter->meter->info().scope;
  if (scope != "board" && scope != "chip") return;
  const std::string why = fmt::format("reads one of the {} devices; use a meter of the node or of the wall", spec.tp);
  if (options_.power != "auto") throw Error("--power " + options_.power + ": " + why + ", or --power none");
  *meter = {nullptr, "the meter " + why};
}

void BenchRun::Execute() {
  Progress("opening the model");
  session_ = std::make_unique<Session>(options_.model);
  const ModelConfig& config = session_->config();
  session_->CheckFits(EngineOptions());
  std::vector<int32_t> special = config.eos_ids;
  special.push_back(config.bos_id);
  prompts_ = std::make_unique<Prompts>(options_.seed, config.vocab, special);
  MeterChoice choice = MakeMeter(options_.power, session_->device());
  CheckRanks(&choice);
  {
    const std::lock_guard lock(mutex_);
    no_meter_ = choice.why_none;
    metered_load_ = choice.meter && !choice.meter->info().constant;
    if (choice.meter) sampler_ = std::make_unique<Sampler>(std::move(choice.meter));
  }
  Describe();
  Rest(&idle_before_, "");
  // Damaged values are refused now, not after seconds of probing; to read a larger file would take those seconds.
  Checkpoint& checkpoint = session_->checkpoint();
  if (!checkpoint.synthetic() && checkpoint.file_bytes() <= kReadAheadBytes) {
    for (const TensorInfo& tensor : checkpoint.tensors()) {
      checkpoint.Data(tensor);
      checkpoint.Release(tensor);
    }
  }
  Probe(true);
  Progress("loading " + config.name);
  {
    const MemoryPlan plan = session_->Plan(EngineOptions());
    const std::lock_guard lock(mutex_);
    result_.memory = {static_cast<int64_t>(plan.weights), static_cast<int64_t>(plan.kv_cache),
                      static_cast<int64_t>(plan.activations), static_cast<int64_t>(plan.logits)};
  }
  engine_ = session_->Load(EngineOptions());
  Rest(&idle_loaded_, ", weights loaded");
  WarmUpEngine();
  RunTrials();
  RunPhase(/*decode=*/false);
  RunPhase(/*decode=*/true);
  ProfileOps();
  Rest(&idle_loaded_, ", weights loaded");
  GuardRun guard;
  if (!options_.no_guard) guard = RunGuard(*engine_, prompts_->Prompt(kGuardPromptIndex, kGuardPrompt));
  session_->Unload(std::move(engine_));
  Rest(&idle_after_, "");
  Probe(false);
  Progress("checking the output against the reference");
  Accuracy accuracy;
  if (options_.no_guard) {
    accuracy.note = "left out by --no-guard";
  } else if (session_->device()->info().is_reference) {
    accuracy.note = "the device under test is the reference itself";
  } else {
    accuracy = CheckGuard(*session_, guard);
  }
  Progress("hashing the model file");
  const std::string sha256 = session_->checkpoint().Sha256();
  const std::lock_guard lock(mutex_);
  result_.accuracy = accuracy;
  if (!sha256.empty()) result_.model.sha256 = sha256;
}

}  // namespace assay::bench
