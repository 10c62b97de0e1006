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

// The causal attention of a prompt reads n(n+1)/2 positions: half of its last query's work, n times.
double PromptAttentionFlops(const ModelShape& shape, int64_t tokens) {
  return 0.5 * static_cast<double>(tokens) * static_cast<double>(shape.AttentionFlops(tokens));
}

// What one step did, added to the totals of its phase; how many prompts were finished is for the caller to count.
void CountStep(const Executor& executor, const StepReport& step, PhaseTotals* prefill, PhaseTotals* decode) {
  const ModelShape& shape = executor.model().shape();
  const double s = Seconds(step.end - step.begin);
  const double kv_position =
      2.0 * static_cast<double>(DTypeBytes(executor.kv_plan().dtype, shape.kv_heads * shape.head_dim));
  const auto sequences = static_cast<double>(step.sequences);
  PhaseTotals* phase = step.decode ? decode : prefill;
  phase->seconds += s;
  phase->bytes += static_cast<double>(shape.step_weight_bytes);
  if (step.decode) {
    const int64_t mean_context = step.sequences > 0 ? step.context_tokens / step.sequences : 0;
    ++phase->units;
    phase->tokens += step.sequences;
    phase->bytes += kv_position * sequences * static_cast<double>(shape.AttendedPositions(mean_context));
    phase->flops += sequences * static_cast<double>(shape.flops_per_token + shape.AttentionFlops(mean_context));
    return;
  }
  const auto tokens = static_cast<double>(step.prompt_tokens);
  phase->tokens += step.prompt_tokens;
  phase->bytes += kv_position * tokens * static_cast<double>(shape.layers);
  phase->flops += tokens * static_cast<double>(shape.flops_per_token - shape.head_flops) +
                  static_cast<double>(step.tokens.size()) * static_cast<double>(shape.head_flops);
}

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
      step_s_ += Seconds(step.value().end - step.value().begin);
      CountStep(engine_.executor(), step.value(), &record->prefill, &record->decode);
      for (const TokenEvent& t : step.value().tokens) live_.at(t.sequence).tokens.push_back(step.value().end);
      if (step.value().decode && on_step) on_step(Seconds(step.value().end - step.value().begin));
      for (const auto& sequence : engine_.TakeFinished()) Finish(*sequence, record);
    }
  }

  double step_s() const { return step_s_; }

 private:
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
    // A prompt may take several steps; it is a unit of work only as a whole.
    ++record->prefill.units;
    record->prefill.flops += PromptAttentionFlops(engine_.executor().model().shape(), sample.input_tokens);
    record->samples.push_back(std::move(sample));
  }

  Engine& engine_;
  const TrialSpec& spec_;
  Clock::time_point epoch_;
  int64_t trial_;
  double step_s_ = 0;
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

void PhaseTotals::operator+=(const PhaseTotals& o) {
  seconds += o.seconds;
  units += o.units;
  tokens += o.tokens;
  flops += o.flops;
  bytes += o.bytes;
}

TrialRecord RunTrial(Engine& engine, const TrialSpec& spec, const Prompts& prompts, int64_t trial, int64_t first_prompt,
                     Clock::time_point epoch, const std::function<void(double)>& on_step) {
  TrialRecord record;
  TrialRunner runner(engine, spec, epoch, trial);
  const Clock::time_point start = Clock::now();
  int64_t sent = 0;
  do {
    for (int64_t i = 0; i < spec.requests; ++i, ++sent) {
      runner.Submit(sent, prompts.Prompt(first_prompt + sent, spec.isl));
      if (spec.scenario == Scenario::kSingleStream) runner.RunUntilIdle(on_step, &record);
    }
    runner.RunUntilIdle(on_step, &record);
  } while (Seconds(Clock::now() - start) < spec.min_seconds && sent + spec.requests <= kPromptsPerTrial);
  record.trial.start_s = Seconds(start - epoch);
  record.trial.duration_s = Seconds(Clock::now() - start);
  record.trial.client_share = std::max(0.0, 1 - runner.step_s() / record.trial.duration_s);
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

  using PerTrial = std::vector<std::vector<double>>;
  PerTrial ttft(trials.size()), tpot(trials.size()), itl(trials.size()), e2e(trials.size());
  for (const RequestSample& s : samples) {
    const auto t = static_cast<size_t>(s.trial);
    if (s.ttft_ms) ttft[t].push_back(*s.ttft_ms);
    if (s.e2e_ms) e2e[t].push_back(*s.e2e_ms);
    if (const auto v = Tpot(s)) tpot[t].push_back(*v);
    itl[t].insert(itl[t].end(), s.itl_ms.begin(), s.itl_ms.end());
  }
  m.ttft_ms = SummarizeLatencyOfTrials(ttft);
  m.tpot_ms = SummarizeLatencyOfTrials(tpot);
  m.itl_ms = SummarizeLatencyOfTrials(itl);
  m.e2e_ms = SummarizeLatencyOfTrials(e2e);
  return m;
}

}  // namespace assay::bench
