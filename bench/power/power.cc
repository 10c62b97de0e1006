// SPDX-License-Identifier: Apache-2.0
#include "bench/power/power.h"

#include <algorithm>

#include "bench/stats/format.h"

namespace assay::bench {
namespace {

constexpr int64_t kFewUpdates = 10;  // below, the counter's step is above a tenth of the energy
constexpr double kShortWindowS = 5;  // below, the ends of the window dominate
constexpr double kGoodWindowS = 30;

Power NotMetered(const std::string& why) {
  Power power;
  power.notes.push_back(why);
  return power;
}

std::string Grade(MeterKind kind, int64_t updates, double seconds) {
  if (kind == MeterKind::kConstant) return "F";
  return updates < kFewUpdates || seconds < kShortWindowS ? "D" : "C";
}

void AddNotes(const MeterInfo& info, int64_t updates, double seconds, Power& power) {
  if (!info.note.empty()) power.notes.push_back(info.note);
  if (info.kind == MeterKind::kConstant) return;
  power.notes.push_back("not cross-checked against a second meter");
  if (updates < kFewUpdates) {
    power.notes.push_back("the counter moved only " + std::to_string(updates) + " times while it was watched");
  }
  if (seconds < kGoodWindowS) {
    power.notes.push_back("measured for " + FormatNumber(seconds, 2) + " s; 30 s or more are better");
  }
}

void AddIdle(Sampler& sampler, const std::optional<Window>& idle, Power& power) {
  if (!idle || idle->end_s <= idle->begin_s) return;
  const auto energy = sampler.Energy(*idle);
  if (energy.ok()) {
    power.idle_w = energy.value().energy_j / (idle->end_s - idle->begin_s);
  } else {
    power.notes.push_back("idle power is unknown: " + energy.error());
  }
}

}  // namespace

Power SummarizePower(Sampler* sampler, const std::string& why_none, const PowerWork& work) {
  if (!sampler) return NotMetered(why_none);
  double energy_j = 0, seconds = 0, peak_w = 0;
  int64_t updates = 0;
  for (const Window& window : work.windows) {
    const auto energy = sampler->Energy(window);
    if (!energy.ok()) return NotMetered(energy.error());
    energy_j += energy.value().energy_j;
    peak_w = std::max(peak_w, energy.value().peak_w);
    updates += energy.value().updates;
    seconds += window.end_s - window.begin_s;
  }
  if (seconds <= 0) return NotMetered("nothing ran long enough to be metered");
  if (energy_j <= 0) return NotMetered(sampler->info().source + ": the counter did not move during the measurement");
  Power power;
  power.grade = Grade(sampler->info().kind, updates, seconds);
  power.source = sampler->info().source;
  if (!sampler->info().scope.empty()) power.scope = sampler->info().scope;
  power.mean_w = energy_j / seconds;
  power.peak_w = peak_w;
  power.energy_j = energy_j;
  if (work.output_tokens > 0) {
    power.j_per_output_token = energy_j / static_cast<double>(work.output_tokens);
    power.output_tps_per_w = static_cast<double>(work.output_tokens) / energy_j;
  }
  if (work.total_tokens > 0) power.j_per_total_token = energy_j / static_cast<double>(work.total_tokens);
  AddNotes(sampler->info(), updates, seconds, power);
  AddIdle(*sampler, work.idle, power);
  return power;
}

bool IsMeasured(const Power& power) {
  return power.grade == "A" || power.grade == "B" || power.grade == "C";
}

}  // namespace assay::bench
