// SPDX-License-Identifier: Apache-2.0
#include "bench/power/power.h"

#include <algorithm>
#include <cmath>

#include "bench/stats/format.h"

namespace assay::bench {
namespace {

constexpr int64_t kFewUpdates = 10;  // below, one update more or less is above a tenth of the energy
constexpr double kShortS = 5;        // below, the ends of the windows dominate
constexpr double kGoodS = 30;
constexpr double kSlowPeriodS = 0.25;  // what a decode loop does between slower updates stays unseen
constexpr double kCrossCheck = 0.05;
constexpr double kWallSpread = 0.01;

Power NotMetered(const std::string& why) {
  Power power;
  power.notes.push_back(why);
  return power;
}

// What a set of trials used and made. Sums over the trials; per-trial figures give the intervals.
struct Totals {
  double energy_j = 0, seconds = 0, peak_w = 0;
  double load_j = 0;  // of the loads from end to end
  double input_tokens = 0, output_tokens = 0;
  double cross_j = 0, crossed_j = 0;  // the second reading, and the counter where there was one
  double clock_s = 0, clock_mhz_s = 0, throttled_s = 0;
  bool throttle_known = false;
  int64_t updates = 0;
  std::vector<double> periods_s, watts, j_per_input, j_per_output;
  std::optional<double> min_clock_mhz, max_temperature_c;

  // Tokens are those of the whole load. A meter's window cuts its ends, and so more of the first prompt than of the
  // tokens that the prompt was for: the tokens within the window would seem too cheap. Its mean power misses next to
  // nothing.
  void Add(const WindowEnergy& e, const MeteredTrial& trial) {
    const double s = e.window.seconds();
    const double whole_j = e.mean_w() * trial.load.seconds();
    energy_j += e.energy_j;
    load_j += whole_j;
    seconds += s;
    peak_w = std::max(peak_w, e.peak_w);
    updates += e.updates;
    periods_s.push_back(e.period_s);
    watts.push_back(e.mean_w());
    input_tokens += trial.input_tokens;
    output_tokens += trial.output_tokens;
    if (trial.input_tokens > 0) j_per_input.push_back(whole_j / trial.input_tokens);
    if (trial.output_tokens > 0) j_per_output.push_back(whole_j / trial.output_tokens);
    if (e.cross_energy_j) cross_j += *e.cross_energy_j, crossed_j += e.energy_j;
    if (e.mean_clock_mhz) clock_s += s, clock_mhz_s += s * *e.mean_clock_mhz;
    if (e.min_clock_mhz) min_clock_mhz = std::min(min_clock_mhz.value_or(*e.min_clock_mhz), *e.min_clock_mhz);
    if (e.max_temperature_c) {
      max_temperature_c = std::max(max_temperature_c.value_or(*e.max_temperature_c), *e.max_temperature_c);
    }
    if (e.throttled_s) throttle_known = true, throttled_s += *e.throttled_s;
  }
  std::optional<double> CrossRatio() const { return crossed_j > 0 ? std::optional(cross_j / crossed_j) : std::nullopt; }
};

Result<Totals> Measure(const MeterRecord& record, std::span<const MeteredTrial> trials) {
  Totals totals;
  for (const MeteredTrial& trial : trials) {
    const auto energy = EnergyWithin(record, trial.load);
    if (!energy.ok()) return Result<Totals>::Fail(energy.error());
    totals.Add(energy.value(), trial);
  }
  if (totals.seconds <= 0) return Result<Totals>::Fail("nothing ran long enough to be metered");
  return totals;
}

// The ratio of the sums, with the interval of the trials' own ratios.
std::optional<Rate> PerToken(double energy_j, double tokens, const std::vector<double>& per_trial) {
  auto rate = SummarizeRate(per_trial);
  if (!rate || tokens <= 0) return std::nullopt;
  const double shift = energy_j / tokens - rate->value;
  rate->value += shift;
  if (rate->ci_low) *rate->ci_low = std::max(0.0, *rate->ci_low + shift);
  if (rate->ci_high) *rate->ci_high += shift;
  return rate;
}

std::optional<PhasePower> Phase(const MeterRecord& record, const PowerWork& work, bool decode,
                                std::vector<std::string>* notes) {
  const auto trials = decode ? work.decode : work.prefill;
  if (trials.empty()) return std::nullopt;
  const auto totals = Measure(record, trials);
  if (!totals.ok()) {
    notes->push_back(std::string(decode ? "decode" : "prefill") + " alone was not metered: " + totals.error());
    return std::nullopt;
  }
  const Totals& t = totals.value();
  const double tokens = decode ? t.output_tokens : t.input_tokens;
  PhasePower phase;
  phase.seconds = t.seconds;
  phase.mean_w = PerToken(t.energy_j, t.seconds, t.watts);
  phase.j_per_token = PerToken(t.load_j, tokens, decode ? t.j_per_output : t.j_per_input);
  if (tokens > 0) phase.tps_per_w = tokens / t.load_j;
  return phase;
}

std::optional<double> MeanPower(const MeterRecord& record, const std::vector<Window>& windows, const std::string& what,
                                std::vector<std::string>* notes) {
  double energy_j = 0, seconds = 0;
  for (const Window& window : windows) {
    const auto energy = EnergyWithin(record, window);
    if (!energy.ok()) {
      notes->push_back("the power " + what + " is unknown: " + energy.error());
      return std::nullopt;
    }
    energy_j += energy.value().energy_j;
    seconds += energy.value().window.seconds();
  }
  return seconds > 0 ? std::optional(energy_j / seconds) : std::nullopt;
}

void AddIdle(const MeterRecord& record, const PowerWork& work, Power* power) {
  std::vector<Window> bare = work.idle_before;
  bare.insert(bare.end(), work.idle_after.begin(), work.idle_after.end());
  power->idle_w = MeanPower(record, bare, "at rest", &power->notes);
  power->idle_loaded_w = MeanPower(record, work.idle_loaded, "at rest with weights loaded", &power->notes);
  if (power->idle_w && power->mean_w && *power->mean_w > 0 && power->j_per_output_token) {
    power->net_j_per_output_token = *power->j_per_output_token * (1 - *power->idle_w / *power->mean_w);
  }
}

void AddSensors(const Totals& t, Power* power) {
  if (t.clock_s > 0) power->mean_clock_mhz = t.clock_mhz_s / t.clock_s;
  power->min_clock_mhz = t.min_clock_mhz;
  power->max_temperature_c = t.max_temperature_c;
  if (t.throttle_known) power->throttled_share = std::clamp(t.throttled_s / t.seconds, 0.0, 1.0);
}

void AddEnergy(const Totals& t, const std::optional<double>& output_tps, Power* power) {
  const auto watts = PerToken(t.energy_j, t.seconds, t.watts);
  power->mean_w = watts->value;
  power->mean_w_low = watts->ci_low;
  power->mean_w_high = watts->ci_high;
  power->peak_w = t.peak_w;
  power->energy_j = t.energy_j;
  power->metered_s = t.seconds;
  if (const auto j = PerToken(t.load_j, t.output_tokens, t.j_per_output)) {
    power->j_per_output_token = j->value;
    power->j_per_output_token_low = j->ci_low;
    power->j_per_output_token_high = j->ci_high;
    power->output_tps_per_w = 1 / j->value;
    if (output_tps && *output_tps > 0) power->energy_delay_js = j->value / *output_tps;
  }
  const double tokens = t.input_tokens + t.output_tokens;
  if (tokens > 0) power->j_per_total_token = t.load_j / tokens;
}

}  // namespace

GradeReason GradeOf(const MeterBehaviour& b) {
  if (b.constant) return {"F", {"the watts are a figure that somebody gave, not a measurement"}};
  if (b.cross_ratio && std::abs(*b.cross_ratio - 1) > kCrossCheck) {
    return {"none",
            {"the integral of the powers is " + FormatPercent(*b.cross_ratio) +
             " of what the counter counted; more than 5 % apart, neither can be believed"}};
  }
  if (b.scope == "wall" && b.seconds >= kGoodS && b.updates >= kFewUpdates && b.spread && *b.spread <= kWallSpread) {
    return {"A", {"at the wall, without gaps, trials within 1 %"}};
  }
  GradeReason reason{"D", {}};
  if (b.updates < kFewUpdates) reason.why.push_back("only " + std::to_string(b.updates) + " updates of the meter");
  if (b.seconds < kShortS) reason.why.push_back("metered for only " + FormatNumber(b.seconds, 2) + " s");
  if (b.period_s > kSlowPeriodS) {
    reason.why.push_back("slow: the meter is read or moves every " + FormatNumber(b.period_s, 2) + " s");
  }
  if (!reason.why.empty()) return reason;
  if (b.cross_ratio) {
    return {"B", {"a counter, confirmed by the integral of powers (" + FormatPercent(*b.cross_ratio) + " of it)"}};
  }
  return {"C", {"without gaps, but not confirmed by a second reading"}};
}

Power SummarizePower(const MeterRecord* record, const std::string& why_none, const PowerWork& work) {
  if (!record) return NotMetered(why_none);
  const auto measured = Measure(*record, work.trials);
  if (!measured.ok()) return NotMetered(measured.error());
  const Totals& t = measured.value();
  Power power;
  AddEnergy(t, work.output_tps, &power);
  const double half_width = power.mean_w_high.value_or(HUGE_VAL) - *power.mean_w;
  const GradeReason grade =
      GradeOf({.constant = record->info.constant,
               .scope = record->info.scope,
               .seconds = t.seconds,
               .updates = t.updates,
               .period_s = Median(t.periods_s),
               .cross_ratio = t.CrossRatio(),
               .spread = std::isfinite(half_width) ? std::optional(half_width / *power.mean_w) : std::nullopt});
  if (grade.grade == "none") power = NotMetered(grade.why[0]);
  power.grade = grade.grade;
  power.source = record->info.source;
  if (!record->info.scope.empty()) power.scope = record->info.scope;
  power.limit_w = record->info.limit_w;
  power.cross_check = t.CrossRatio();
  power.update_period_s = Median(t.periods_s);
  AddSensors(t, &power);
  if (grade.grade == "none") return power;
  power.notes = grade.why;
  power.notes.insert(power.notes.end(), record->info.notes.begin(), record->info.notes.end());
  if (!record->info.constant && t.seconds >= kShortS && t.seconds < kGoodS) {
    power.notes.push_back("metered for " + FormatNumber(t.seconds, 2) + " s; 30 s or more are better");
  }
  power.prefill = Phase(*record, work, false, &power.notes);
  power.decode = Phase(*record, work, true, &power.notes);
  AddIdle(*record, work, &power);
  return power;
}

}  // namespace assay::bench
