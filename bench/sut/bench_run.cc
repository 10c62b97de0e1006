// SPDX-License-Identifier: Apache-2.0
#include "bench/sut/bench_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "bench/limits/probes.h"
#include "bench/power/power.h"
#include "bench/result/provenance.h"
#include "bench/stats/format.h"
#include "bench/stats/steady.h"
#include "runtime/core/dtype.h"
#include "runtime/core/interrupt.h"

namespace assay::bench {
namespace {

// Frequency governors and matrix units take up to two seconds to reach their clocks.
constexpr double kMinWarmUpS = 2.0;
constexpr double kMaxWarmUpS = 20.0;
constexpr double kProbeS = 0.7;
constexpr double kIdleS = 2.0;
constexpr uint64_t kReadAheadBytes = 1ull << 30;
// Tokens per step while prompts are run: large enough for dense products, small enough to keep activations small.
constexpr int64_t kStepTokens = 512;
// Decode steps in the profiled run; each waits for the device after every operation, so few suffice.
constexpr int64_t kProfileSteps = 16;
// Which prompts are for what: the same trials measure the same prompts, however long the warm-up took.
constexpr int64_t kGuardPromptIndex = 0;
constexpr int64_t kTrialPrompts = 1;
constexpr int64_t kWarmUpPrompts = int64_t{1} << 40;

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

ExecutorOptions BenchRun::EngineOptions() const {
  ExecutorOptions o;
  o.max_seqs = options_.scenario == Scenario::kSingleStream ? 1 : options_.concurrency;
  o.max_tokens = std::max({std::min(kStepTokens, options_.isl * o.max_seqs), o.max_seqs, kGuardPrompt});
  o.max_context = std::max(options_.isl + std::max(options_.osl, kProfileSteps), kGuardPrompt + kGuardTokens);
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
  if (!info.is_accelerator) d.threads = options_.model.threads > 0 ? options_.model.threads : info.compute_units;
  ModelInfo& m = result_.model;
  m.name = c.name;
  m.family = FamilyName(c.family);
  m.parameters = static_cast<int64_t>(c.Parameters());
  m.weights = session_->checkpoint().synthetic() ? "synthetic" : "file";
  m.dtype = DTypeName(session_->weight_dtype());
  m.bytes = static_cast<int64_t>(session_->Plan(EngineOptions()).weights);
  WorkloadInfo& w = result_.workload;
  w.scenario = ScenarioName(options_.scenario);
  w.isl = options_.isl;
  w.osl = options_.osl;
  w.concurrency = options_.concurrency;
  w.requests = options_.requests;
  w.trials = options_.trials;
  w.seed = options_.seed;
}

void BenchRun::Probe() {
  const auto& device = session_->device();
  const auto& d = session_->dtypes();
  Progress("measuring the read bandwidth");
  const ProbeResult read = ProbeReadBandwidth(device, kProbeS);
  Progress("measuring matrix products");
  const ProbeResult matmul = ProbeMatmul(device, session_->weight_dtype(), d.compute, d.act, kProbeS);
  const std::lock_guard lock(mutex_);
  Limits& l = result_.limits;
  l.bytes_per_s = std::max(l.bytes_per_s.value_or(0), read.best);
  l.flops = std::max(l.flops.value_or(0), matmul.best);
  l.flops_dtype = DTypeName(session_->weight_dtype());
}

void BenchRun::WarmUpEngine() {
  engine_->executor().RecordPlan(std::min(options_.concurrency, options_.requests));
  WarmUp warm_up(kMinWarmUpS, kMaxWarmUpS);
  const Clock::time_point start = Clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  TrialSpec spec{options_.scenario, options_.isl, options_.osl, 1, options_.concurrency};
  if (options_.scenario == Scenario::kOffline) spec.requests = std::min(options_.requests, options_.concurrency);
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

void BenchRun::RunTrials() {
  const TrialSpec spec{options_.scenario, options_.isl, options_.osl, options_.requests, options_.concurrency};
  for (int64_t i = 0; i < options_.trials; ++i) {
    int64_t steps = 0;
    TrialRecord record = RunTrial(*engine_, spec, *prompts_, i, kTrialPrompts + i * spec.requests, epoch_, [&](double) {
      if (++steps % 8 == 0) Progress(fmt::format("trial {} of {}: decode step {}", i + 1, options_.trials, steps));
    });
    const std::lock_guard lock(mutex_);
    result_.trials.push_back(record.trial);
    samples_.insert(samples_.end(), record.samples.begin(), record.samples.end());
    totals_ += record.totals;
    result_.peak_rss_bytes = PeakRssBytes();
  }
}

void BenchRun::Profile() {
  Progress("timing each operation");
  Executor& executor = engine_->executor();
  Ops& ops = executor.ops();
  const int64_t sequences = std::min(options_.concurrency, options_.requests);
  for (int64_t i = 0; i < sequences; ++i) {
    Request r;
    r.prompt = prompts_->Prompt(kWarmUpPrompts + i, options_.isl);
    r.max_new_tokens = std::min(kProfileSteps, executor.options().max_context - options_.isl);
    const auto id = engine_->Submit(std::move(r));
    if (!id.ok()) throw Error("profiling: " + id.error());
  }
  std::map<std::string, OpTime> phases[2];
  ops.SetMode(Ops::Mode::kProfile);
  while (!engine_->idle()) {
    ThrowIfInterrupted();
    const auto step = engine_->Step();
    if (!step.ok()) throw DeviceError(step.error());
    for (const auto& [label, time] : ops.TakeTimes()) {
      OpTime& t = phases[step.value().decode][label];
      t.ns += time.ns;
      t.calls += time.calls;
    }
  }
  ops.SetMode(Ops::Mode::kRun);
  engine_->TakeFinished();

  const std::lock_guard lock(mutex_);
  for (int decode = 0; decode < 2; ++decode) {
    double total = 0;
    for (const auto& [label, time] : phases[decode]) total += time.ns;
    for (const auto& [label, time] : phases[decode]) {
      result_.ops.push_back({label, decode ? "decode" : "prefill", total > 0 ? time.ns / total : 0, time.calls});
    }
  }
  std::stable_sort(result_.ops.begin(), result_.ops.end(),
                   [](const OpShare& a, const OpShare& b) { return a.share > b.share; });
}

void BenchRun::Execute() {
  Progress("opening the model");
  session_ = std::make_unique<Session>(options_.model);
  const ModelConfig& config = session_->config();
  session_->CheckFits(EngineOptions());
  std::vector<int32_t> special = config.eos_ids;
  special.push_back(config.bos_id);
  prompts_ = std::make_unique<Prompts>(options_.seed, config.vocab, special);
  MeterChoice choice = MakeMeter(options_.power);
  no_meter_ = choice.why_none;
  if (choice.meter) sampler_ = std::make_unique<Sampler>(std::move(choice.meter));
  Describe();
  if (sampler_) {
    Progress("metering the machine at rest");
    const double begin = NowSeconds();
    for (int i = 0; i < 20; ++i) {
      ThrowIfInterrupted();
      std::this_thread::sleep_for(std::chrono::duration<double>(kIdleS / 20));
    }
    idle_ = Window{begin, NowSeconds()};
  }
  // Damaged values are refused now, not after seconds of probing; to read a larger file would take those seconds.
  Checkpoint& checkpoint = session_->checkpoint();
  if (!checkpoint.synthetic() && checkpoint.file_bytes() <= kReadAheadBytes) {
    for (const TensorInfo& tensor : checkpoint.tensors()) {
      checkpoint.Data(tensor);
      checkpoint.Release(tensor);
    }
  }
  // Before the model is loaded and again after it is gone: the probe's buffer and the weights are never there together,
  // and a neighbour who is busy at one end of the run does not lower the limit.
  Probe();
  Progress("loading " + config.name);
  engine_ = session_->Load(EngineOptions());
  WarmUpEngine();
  RunTrials();
  Profile();
  const GuardRun guard = RunGuard(*engine_, prompts_->Prompt(kGuardPromptIndex, kGuardPrompt));
  engine_.reset();
  Probe();
  Progress("checking the output against the reference");
  Accuracy accuracy;
  if (session_->device()->info().is_reference) {
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

void BenchRun::SummarizeLocked() {
  RunResult& r = result_;
  r.duration_s = std::chrono::duration<double>(Clock::now() - epoch_).count();
  r.metrics = Summarize(r.trials, samples_);
  r.environment.after = ReadMachineState();
  int64_t input = 0, output = 0;
  std::vector<Window> windows;
  for (const Trial& t : r.trials) {
    input += t.input_tokens;
    output += t.output_tokens;
    windows.push_back({epoch_s_ + t.start_s, epoch_s_ + t.start_s + t.duration_s});
  }
  if (!samples_.empty()) {
    const double n = static_cast<double>(samples_.size());
    r.workload.achieved_isl = static_cast<double>(input) / n;
    r.workload.achieved_osl = static_cast<double>(output) / n;
  }
  r.power = SummarizePower(sampler_.get(), no_meter_, {windows, output, input + output, idle_});

  Limits& l = r.limits;
  if (totals_.prefill_s > 0) l.prefill_flops_per_s = totals_.prefill_flops / totals_.prefill_s;
  if (totals_.decode_s > 0) l.decode_bytes_per_s = totals_.decode_bytes / totals_.decode_s;
  if (l.flops && l.prefill_flops_per_s) l.mfu = *l.prefill_flops_per_s / *l.flops;
  if (l.bytes_per_s && l.decode_bytes_per_s) l.mbu = *l.decode_bytes_per_s / *l.bytes_per_s;

  r.warnings.clear();
  const auto add = [&](std::vector<std::string> more) {
    r.warnings.insert(r.warnings.end(), more.begin(), more.end());
  };
  std::vector<double> decode, prefill;
  for (const Trial& t : r.trials) {
    if (t.decode_tps) decode.push_back(*t.decode_tps);
    if (t.prefill_tps) prefill.push_back(*t.prefill_tps);
  }
  if (!decode.empty()) add(TrialWarnings("decode speed", decode));
  if (!prefill.empty()) add(TrialWarnings("prefill speed", prefill));
  add(EnvironmentWarnings(r.environment, r.duration_s));
  if (r.warm_up && !r.warm_up->steady) {
    r.warnings.push_back("warm-up ended by its time limit, not because the step time was steady");
  }
  if (r.model.weights == "synthetic") {
    r.warnings.push_back("synthetic weights: speeds are those of a model of this shape, the text means nothing");
  }
}

BenchSnapshot BenchRun::Snapshot() {
  const std::lock_guard lock(mutex_);
  SummarizeLocked();
  return {result_, samples_};
}

}  // namespace assay::bench
