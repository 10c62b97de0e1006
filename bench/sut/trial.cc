// SPDX-License-Identifier: Apache-2.0
#include "bench/sut/trial.h"

#include <map>

#include "bench/stats/summary.h"
#include "runtime/core/dtype.h"
#include "runtime/core/interrupt.h"

namespace assay::bench {
namespace {

double Seconds(Clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

// A request under way: when it was sent and when each of its tokens arrived.
struct Live {
  int64_t request = 0;
  Clock::time_point sent;
  std::vector<Clock::time_point> tokens;
};

class TrialRunner {
 public:
  TrialRunner(Engine& engine, const TrialSpec& spec, Clock::time_point epoch, int64_t trial)
      : engine_(engine), spec_(spec), epoch_(epoch), trial_(trial) {}

  void Submit(int64_t request, std::vector<int32_t> prompt) {
    Request r;
    r.prompt = std::move(prompt);
    r.max_new_tokens = spec_.osl;  // no stop ids: every request makes exactly osl tokens
    const Clock::time_point sent = Clock::now();
    const auto id = engine_.Submit(std::move(r));
    if (!id.ok()) throw Error("a benchmark request was refused: " + id.error());
    live_[id.value()] = {request, sent, {}};
  }

  void RunUntilIdle(const std::function<void(double)>& on_step, TrialRecord* record) {
    while (!engine_.idle()) {
      ThrowIfInterrupted();
      const auto step = engine_.Step();
      if (!step.ok()) throw DeviceError(step.error());
      Count(step.value(), &record->totals);
      for (const TokenEvent& t : step.value().tokens) live_.at(t.sequence).tokens.push_back(step.value().end);
      if (step.value().decode && on_step) on_step(Seconds(step.value().end - step.value().begin));
      for (const auto& sequence : engine_.TakeFinished()) Finish(*sequence, record);
    }
  }

 private:
  void Count(const StepReport& step, StepTotals* totals) const {
    const ModelShape& shape = engine_.executor().model().shape();
    const double s = Seconds(step.end - step.begin);
    if (step.decode) {
      const KvPlan& kv = engine_.executor().kv_plan();
      const int64_t mean_context = step.sequences > 0 ? step.context_tokens / step.sequences : 0;
      const double kv_position = 2.0 * static_cast<double>(DTypeBytes(kv.dtype, shape.kv_heads * shape.head_dim));
      totals->decode_s += s;
      totals->decode_bytes += static_cast<double>(shape.step_weight_bytes) +
                              kv_position * static_cast<double>(step.sequences * shape.AttendedPositions(mean_context));
      return;
    }
    totals->prefill_s += s;
    totals->prefill_flops +=
        static_cast<double>(step.prompt_tokens) * static_cast<double>(shape.flops_per_token - shape.head_flops) +
        static_cast<double>(step.tokens.size()) * static_cast<double>(shape.head_flops);
  }

  void Finish(const Sequence& sequence, TrialRecord* record) {
    const Live live = live_.at(sequence.id);
    live_.erase(sequence.id);
    RequestSample sample;
    sample.trial = trial_;
    sample.request = live.request;
    sample.sent_s = Seconds(live.sent - epoch_);
    sample.input_tokens = static_cast<int64_t>(sequence.request.prompt.size());
    sample.output_tokens = sequence.generated();
    sample.ttft_ms = 1e3 * Seconds(live.tokens.front() - live.sent);
    sample.e2e_ms = 1e3 * Seconds(live.tokens.back() - live.sent);
    for (size_t i = 1; i < live.tokens.size(); ++i) {
      sample.itl_ms.push_back(1e3 * Seconds(live.tokens[i] - live.tokens[i - 1]));
    }
    // The causal attention of a prompt reads n(n+1)/2 positions; half of its last query's work, n times.
    const ModelShape& shape = engine_.executor().model().shape();
    record->totals.prefill_flops +=
        0.5 * static_cast<double>(sample.input_tokens) * static_cast<double>(shape.AttentionFlops(sample.input_tokens));
    record->samples.push_back(std::move(sample));
  }

  Engine& engine_;
  const TrialSpec& spec_;
  Clock::time_point epoch_;
  int64_t trial_;
  std::map<int64_t, Live> live_;
};

// (E2E - TTFT) / (n_out - 1), absent for a single token (vLLM's definition).
std::optional<double> Tpot(const RequestSample& s) {
  if (s.output_tokens <= 1 || !s.ttft_ms || !s.e2e_ms) return std::nullopt;
  return (*s.e2e_ms - *s.ttft_ms) / static_cast<double>(s.output_tokens - 1);
}

void FillTrial(const TrialSpec& spec, TrialRecord* record) {
  Trial& t = record->trial;
  std::vector<double> ttft, tpot;
  for (const RequestSample& s : record->samples) {
    ++t.requests;
    t.input_tokens += s.input_tokens;
    t.output_tokens += s.output_tokens;
    if (s.ttft_ms) ttft.push_back(*s.ttft_ms);
    if (const auto v = Tpot(s)) tpot.push_back(*v);
  }
  t.output_tps = static_cast<double>(t.output_tokens) / t.duration_s;
  if (!ttft.empty()) t.prefill_tps = 1e3 * static_cast<double>(spec.isl) / Median(ttft);
  if (!tpot.empty()) t.decode_tps = 1e3 * static_cast<double>(std::min(spec.concurrency, spec.requests)) / Median(tpot);
}

}  // namespace

void StepTotals::operator+=(const StepTotals& o) {
  prefill_s += o.prefill_s;
  decode_s += o.decode_s;
  prefill_flops += o.prefill_flops;
  decode_bytes += o.decode_bytes;
}

TrialRecord RunTrial(Engine& engine, const TrialSpec& spec, const Prompts& prompts, int64_t trial, int64_t first_prompt,
                     Clock::time_point epoch, const std::function<void(double)>& on_step) {
  TrialRecord record;
  TrialRunner runner(engine, spec, epoch, trial);
  const Clock::time_point start = Clock::now();
  for (int64_t i = 0; i < spec.requests; ++i) {
    runner.Submit(i, prompts.Prompt(first_prompt + i, spec.isl));
    if (spec.scenario == Scenario::kSingleStream) runner.RunUntilIdle(on_step, &record);
  }
  runner.RunUntilIdle(on_step, &record);
  record.trial.start_s = Seconds(start - epoch);
  record.trial.duration_s = Seconds(Clock::now() - start);
  FillTrial(spec, &record);
  return record;
}

Metrics Summarize(const std::vector<Trial>& trials, const std::vector<RequestSample>& samples) {
  Metrics m;
  const auto rate = [&](auto value) {
    std::vector<double> values;
    for (const Trial& t : trials) {
      if (const std::optional<double> v = value(t)) values.push_back(*v);
    }
    return SummarizeRate(values);
  };
  const auto per_s = [](double count, const Trial& t) { return std::optional<double>(count / t.duration_s); };
  m.output_tps = rate([&](const Trial& t) { return per_s(static_cast<double>(t.output_tokens), t); });
  m.input_tps = rate([&](const Trial& t) { return per_s(static_cast<double>(t.input_tokens), t); });
  m.total_tps = rate([&](const Trial& t) { return per_s(static_cast<double>(t.input_tokens + t.output_tokens), t); });
  m.request_tps = rate([&](const Trial& t) { return per_s(static_cast<double>(t.requests), t); });
  m.prefill_tps = rate([](const Trial& t) { return t.prefill_tps; });
  m.decode_tps = rate([](const Trial& t) { return t.decode_tps; });

  std::vector<double> ttft, tpot, itl, e2e;
  for (const RequestSample& s : samples) {
    if (s.ttft_ms) ttft.push_back(*s.ttft_ms);
    if (s.e2e_ms) e2e.push_back(*s.e2e_ms);
    if (const auto v = Tpot(s)) tpot.push_back(*v);
    itl.insert(itl.end(), s.itl_ms.begin(), s.itl_ms.end());
  }
  m.ttft_ms = SummarizeLatency(std::move(ttft));
  m.tpot_ms = SummarizeLatency(std::move(tpot));
  m.itl_ms = SummarizeLatency(std::move(itl));
  m.e2e_ms = SummarizeLatency(std::move(e2e));
  return m;
}

}  // namespace assay::bench
