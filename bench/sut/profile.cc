// SPDX-License-Identifier: Apache-2.0
#include "bench/sut/profile.h"

#include <algorithm>
#include <map>

#include "runtime/core/interrupt.h"

namespace assay::bench {
namespace {

// Decode steps per repetition; each waits for the device after every operation, so few suffice.
constexpr int64_t kSteps = 8;

class Profiler {
 public:
  Profiler(Engine& engine, const Prompts& prompts, int64_t first_prompt)
      : engine_(engine), prompts_(prompts), next_prompt_(first_prompt) {
    engine_.executor().ops().SetMode(Ops::Mode::kProfile);
  }
  ~Profiler() { engine_.executor().ops().SetMode(Ops::Mode::kRun); }

  void Submit(int64_t isl, int64_t osl) {
    Request r;
    r.prompt = prompts_.Prompt(next_prompt_++, isl);
    r.max_new_tokens = osl;
    const auto id = engine_.Submit(std::move(r));
    if (!id.ok()) throw Error("profiling: " + id.error());
  }

  // Runs until idle. Prompt steps count where `prefill`, decode steps where not; the others only lead up to them.
  // Returns the seconds of all operations of each step that counts.
  std::vector<double> Run(bool prefill) {
    std::vector<double> steps_s;
    while (!engine_.idle()) {
      ThrowIfInterrupted();
      const auto step = engine_.Step();
      if (!step.ok()) throw DeviceError(step.error());
      double ns = 0;
      for (const auto& [label, time] : engine_.executor().ops().TakeTimes()) {
        if (step.value().decode == prefill) continue;
        OpTime& t = times_[label];
        t.ns += time.ns;
        t.calls += time.calls;
        ns += time.ns;
      }
      if (step.value().decode != prefill) steps_s.push_back(ns * 1e-9);
    }
    engine_.TakeFinished();
    return steps_s;
  }

  void TakeOps(const char* phase, std::vector<OpShare>* ops) {
    double total = 0;
    for (const auto& [label, time] : times_) total += time.ns;
    for (const auto& [label, time] : times_) {
      ops->push_back({label, phase, total > 0 ? time.ns / total : 0, time.calls});
    }
    times_.clear();
  }

 private:
  Engine& engine_;
  const Prompts& prompts_;
  int64_t next_prompt_;
  std::map<std::string, OpTime> times_;
};

double Sum(const std::vector<double>& values, size_t begin, size_t end) {
  double sum = 0;
  for (size_t i = begin; i < end; ++i) sum += values[i];
  return sum;
}

}  // namespace

Profile RunProfile(Engine& engine, const TrialSpec& spec, const Prompts& prompts, int64_t first_prompt,
                   const std::function<void(const std::string&)>& progress) {
  const int64_t sequences = std::min(spec.concurrency, spec.requests);
  Profiler profiler(engine, prompts, first_prompt);
  Profile profile;
  for (int64_t i = 0; i < kProfileRepetitions; ++i) {
    progress("timing each operation: prompt " + std::to_string(i + 1) + " of " + std::to_string(kProfileRepetitions));
    for (int64_t s = 0; s < sequences; ++s) profiler.Submit(spec.isl, 1);
    const std::vector<double> steps_s = profiler.Run(true);
    profile.prefill_s.push_back(Sum(steps_s, 0, steps_s.size()) / static_cast<double>(sequences));
  }
  profiler.TakeOps("prefill", &profile.ops);
  // The first token comes with the prompt, so osl - 1 steps at most; they lie around the middle of the trials'.
  const int64_t steps = std::min(kProfileRepetitions * kSteps, spec.osl - 1);
  if (steps > 0) {
    progress("timing each operation: decode steps");
    for (int64_t s = 0; s < sequences; ++s) profiler.Submit(spec.isl + (spec.osl - 1 - steps) / 2, steps + 1);
    const std::vector<double> steps_s = profiler.Run(false);
    const size_t blocks = std::min<size_t>(kProfileRepetitions, steps_s.size());
    for (size_t b = 0; b < blocks; ++b) {
      const size_t begin = b * steps_s.size() / blocks, end = (b + 1) * steps_s.size() / blocks;
      profile.decode_s.push_back(Sum(steps_s, begin, end) / static_cast<double>(end - begin));
    }
    profiler.TakeOps("decode", &profile.ops);
  }
  std::stable_sort(profile.ops.begin(), profile.ops.end(),
                   [](const OpShare& a, const OpShare& b) { return a.share > b.share; });
  return profile;
}

}  // namespace assay::bench
