// SPDX-License-Identifier: Apache-2.0
// What a run has measured so far, as a result.
#include <algorithm>

#include "bench/claims/build_gap.h"
#include "bench/result/provenance.h"
#include "bench/stats/format.h"
#include "bench/stats/steady.h"
#include "bench/sut/bench_run.h"

namespace assay::bench {
namespace {

// Above, what lies between the engine's steps is a part of the result.
constexpr double kClientShare = 0.05;
// Of the best read, in the median: repetitions on a quiet machine lie within a few per cent.
constexpr double kSteadyMemory = 0.8;

}  // namespace

void BenchRun::AddPhases() {
  const auto unit = [](const std::vector<PhaseTotals>& trials, const std::vector<double>& kernels_s, double tokens) {
    PhaseTotals sum;
    std::vector<double> steps_s;
    for (const PhaseTotals& t : trials) {
      sum += t;
      if (t.units > 0) steps_s.push_back(t.seconds / static_cast<double>(t.units));
    }
    if (sum.units == 0) return std::optional<PhaseTimes>();
    const auto n = static_cast<double>(sum.units);
    return std::optional(PhaseTimes{tokens > 0 ? tokens : static_cast<double>(sum.tokens) / n, sum.flops / n,
                                    sum.bytes / n, SummarizeRate(kernels_s), SummarizeRate(steps_s)});
  };
  // A last batch that is smaller takes another time per step than the batch whose operations were timed.
  const bool even = options_.requests % std::min(options_.concurrency, options_.requests) == 0;
  const std::vector<double> none;
  result_.phases.prefill = unit(prefill_, even ? profile_.prefill_s : none, static_cast<double>(options_.isl));
  result_.phases.decode = unit(decode_, even ? profile_.decode_s : none, 0);
}

void BenchRun::AddShares() {
  Limits& l = result_.limits;
  const auto share = [](const std::optional<double>& did, const std::optional<double>& limit) {
    return did && limit && *limit > 0 ? std::optional(*did / *limit) : std::nullopt;
  };
  const auto rates = [](const std::vector<PhaseTotals>& trials, std::optional<double>* flops_per_s,
                        std::optional<double>* bytes_per_s, std::optional<double>* flops_per_byte) {
    PhaseTotals sum;
    for (const PhaseTotals& t : trials) sum += t;
    if (sum.seconds <= 0) return;
    *flops_per_s = sum.flops / sum.seconds;
    *bytes_per_s = sum.bytes / sum.seconds;
    if (sum.bytes > 0) *flops_per_byte = sum.flops / sum.bytes;
  };
  std::optional<double> prefill_bytes_per_s, decode_flops_per_s;
  rates(prefill_, &l.prefill_flops_per_s, &prefill_bytes_per_s, &l.prefill_flops_per_byte);
  rates(decode_, &decode_flops_per_s, &l.decode_bytes_per_s, &l.decode_flops_per_byte);
  l.mfu = share(l.prefill_flops_per_s, l.flops);
  l.mbu = share(l.decode_bytes_per_s, l.bytes_per_s);
  l.prefill_mbu = share(prefill_bytes_per_s, l.bytes_per_s);
  l.decode_mfu = share(decode_flops_per_s, l.flops);
}

void BenchRun::AddPower() {
  PowerWork work{metered_, metered_prefill_, metered_decode_, idle_before_, idle_after_, idle_loaded_, std::nullopt};
  if (result_.metrics.output_tps) work.output_tps = result_.metrics.output_tps->value;
  if (!sampler_) {
    result_.power = SummarizePower(nullptr, no_meter_, work);
    AddEnvironment(nullptr);
    return;
  }
  const MeterRecord record = sampler_->Record();
  result_.power = SummarizePower(&record, "", work);
  AddEnvironment(&record);
}

// Clocks and throttling: the meter's word on the device, or on a CPU the kernel's.
void BenchRun::AddEnvironment(const MeterRecord* meter) {
  Environment& e = result_.environment;
  e.after = ReadMachineState();
  if (!accelerator_) {
    if (e.before.throttle_events && e.after.throttle_events) {
      e.throttled = *e.after.throttle_events > *e.before.throttle_events;
    }
  }
  if (result_.power.throttled_share) e.throttled = *result_.power.throttled_share > 0;
  if (!meter || !result_.power.mean_clock_mhz) return;
  e.trial_clock_mhz = result_.power.mean_clock_mhz;
  double sum = 0, n = 0;
  for (const Reading& r : meter->readings) {
    if (!r.clock_mhz || r.t_s < profile_window_.begin_s || r.t_s > profile_window_.end_s) continue;
    sum += *r.clock_mhz;
    ++n;
  }
  if (n > 0) e.profile_clock_mhz = sum / n;
}

void BenchRun::AddWarnings() {
  RunResult& r = result_;
  r.warnings.clear();
  const auto add = [&](std::vector<std::string> more) {
    r.warnings.insert(r.warnings.end(), more.begin(), more.end());
  };
  std::vector<double> decode, prefill;
  double client = 0;
  for (const Trial& t : r.trials) {
    if (t.decode_tps) decode.push_back(*t.decode_tps);
    if (t.prefill_tps) prefill.push_back(*t.prefill_tps);
    client = std::max(client, t.client_share.value_or(0));
  }
  if (!decode.empty()) add(TrialWarnings("decode speed", decode));
  if (!prefill.empty()) add(TrialWarnings("prefill speed", prefill));
  if (client > kClientShare) {
    r.warnings.push_back("up to " + FormatPercent(client) +
                         " of a trial passed outside the engine's steps: the client, not the device, limited this run");
  }
  add(EnvironmentWarnings(r.environment, r.duration_s));
  if (sampler_ && r.power.grade == "none" && !r.trials.empty()) {
    r.warnings.push_back("the energy is not valid: " + (r.power.notes.empty() ? kUnknown : r.power.notes[0]));
  }
  if (r.warm_up && !r.warm_up->steady) {
    r.warnings.push_back("warm-up ended by its time limit, not because the step time was steady");
  }
  const Limits& l = r.limits;
  if (l.bytes_per_s && l.bytes_per_s_median && *l.bytes_per_s_median < kSteadyMemory * *l.bytes_per_s) {
    r.warnings.push_back(
        "the memory was read at " + FormatScaled(*l.bytes_per_s, "B/s") + " at best, but at " +
        FormatScaled(*l.bytes_per_s_median, "B/s") +
        " in the median repetition: something held it down (a neighbour, a quota, clocks), and perhaps "
        "decode too");
  }
  if (!uneven_.empty()) r.warnings.push_back(uneven_);
  if (r.model.weights == "synthetic") {
    r.warnings.push_back("synthetic weights: speeds are those of a model of this shape, the text means nothing");
  }
}

void BenchRun::SummarizeLocked() {
  RunResult& r = result_;
  r.duration_s = std::chrono::duration<double>(Clock::now() - epoch_).count();
  r.metrics = Summarize(r.trials, samples_);
  int64_t input = 0, output = 0;
  for (const Trial& t : r.trials) {
    input += t.input_tokens;
    output += t.output_tokens;
  }
  if (!samples_.empty()) {
    const double n = static_cast<double>(samples_.size());
    r.workload.achieved_isl = static_cast<double>(input) / n;
    r.workload.achieved_osl = static_cast<double>(output) / n;
  }
  AddPower();
  AddPhases();
  AddShares();
  AddWarnings();
  if (!r.trials.empty()) r.gap = BuildGapReport(r, card_);
}

BenchSnapshot BenchRun::Snapshot() {
  const std::lock_guard lock(mutex_);
  SummarizeLocked();
  return {result_, samples_};
}

}  // namespace assay::bench
