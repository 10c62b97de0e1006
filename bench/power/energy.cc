// SPDX-License-Identifier: Apache-2.0
#include "bench/power/energy.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "bench/stats/format.h"
#include "bench/stats/summary.h"

namespace assay::bench {
namespace {

using Answer = Result<WindowEnergy>;

// No card, node or rack that one run loads takes more; a counter that moves faster has jumped.
constexpr double kMaxWatts = 1e6;

// Without a reading for so long the power may have been anything.
double LongestGap(const MeterInfo& info) {
  return std::max(1.0, 2.5 * info.period_s);
}

std::string Span(double seconds) {
  return FormatNumber(seconds, 2) + " s";
}

// A moment at which the meter had something new to say.
struct Update {
  double t_s;
  double energy_j;  // of a counter
};

// What was said outside the window does not matter, not even to where the counter stood when it began.
std::span<const Reading> Inside(const MeterRecord& record, const Window& window) {
  const auto before = [](const Reading& r, double t) { return r.t_s < t; };
  const auto after = [](double t, const Reading& r) { return t < r.t_s; };
  const auto first = std::lower_bound(record.readings.begin(), record.readings.end(), window.begin_s, before);
  return {first, std::upper_bound(first, record.readings.end(), window.end_s, after)};
}

std::optional<std::string> FaultIn(const MeterRecord& record, const Window& window) {
  // Where it fell silent before the window's end, the fault that followed tells why.
  const double last_s = record.readings.empty() ? -HUGE_VAL : record.readings.back().t_s;
  const bool silent = last_s < window.end_s - LongestGap(record.info);
  for (const Fault& fault : record.faults) {
    const bool inside = fault.t_s >= window.begin_s && fault.t_s <= window.end_s;
    if (inside || (silent && fault.t_s >= last_s)) return "the meter failed during the measurement: " + fault.text;
  }
  return std::nullopt;
}

// What a reading itself says that cannot be.
std::optional<std::string> Nonsense(const Reading& reading) {
  if (reading.energy_j && !std::isfinite(*reading.energy_j)) return "the meter reported an energy that is not a number";
  if (!reading.watts) return std::nullopt;
  if (!std::isfinite(*reading.watts)) return "the meter reported a power that is not a number";
  if (*reading.watts <= 0) return "the meter reported " + FormatNumber(*reading.watts) + " W while the machine was on";
  if (*reading.watts > kMaxWatts) return "the meter reported " + FormatNumber(*reading.watts) + " W";
  return std::nullopt;
}

// Of a counter: when it was seen to have moved. Fails where it fell or jumped.
Result<std::vector<Update>> Ticks(std::span<const Reading> readings) {
  using Failure = Result<std::vector<Update>>;
  std::vector<Update> ticks;
  for (size_t i = 0; i < readings.size(); ++i) {
    if (!readings[i].energy_j) return Failure::Fail("the meter's counter was not readable");
    if (i == 0) continue;
    const double from_j = *readings[i - 1].energy_j, to_j = *readings[i].energy_j;
    if (to_j < from_j) {
      return Failure::Fail("the meter's counter fell by " + FormatNumber(from_j - to_j) + " J during the measurement");
    }
    if (to_j == from_j) continue;
    const double since_s = readings[i].t_s - (ticks.empty() ? readings[0].t_s : ticks.back().t_s);
    if (to_j - from_j > kMaxWatts * std::max(since_s, 0.1)) {
      return Failure::Fail("the meter's counter jumped by " + FormatNumber(to_j - from_j) + " J in " + Span(since_s));
    }
    ticks.push_back({(readings[i - 1].t_s + readings[i].t_s) / 2, to_j});
  }
  // One that moves at every reading moves far more often than it is read: what it said is true of the reading's moment.
  if (ticks.size() + 1 == readings.size()) {
    for (size_t i = 0; i < ticks.size(); ++i) ticks[i].t_s = readings[i + 1].t_s;
  }
  return ticks;
}

// Of a meter without a counter: its readings from `begin_s` on.
std::vector<Update> Powers(std::span<const Reading> readings, double begin_s) {
  std::vector<Update> updates;
  for (const Reading& r : readings) {
    if (r.t_s >= begin_s) updates.push_back({r.t_s, 0});
  }
  return updates;
}

// The power at a moment, linear between readings, all of which tell one.
double PowerAt(std::span<const Reading> readings, double t_s) {
  const auto after =
      std::lower_bound(readings.begin(), readings.end(), t_s, [](const Reading& r, double t) { return r.t_s < t; });
  if (after == readings.begin()) return *readings.front().watts;
  if (after == readings.end()) return *readings.back().watts;
  const auto before = after - 1;
  return std::lerp(*before->watts, *after->watts, (t_s - before->t_s) / (after->t_s - before->t_s));
}

// The integral of the powers over the window; absent where a reading tells none.
std::optional<double> Integral(std::span<const Reading> readings, const Window& window) {
  for (const Reading& r : readings) {
    if (!r.watts) return std::nullopt;
  }
  double energy_j = 0, last_s = window.begin_s, last_w = PowerAt(readings, last_s);
  const auto add = [&](double t_s, double watts) {
    energy_j += (last_w + watts) / 2 * (t_s - last_s);
    last_s = t_s;
    last_w = watts;
  };
  for (const Reading& r : readings) {
    if (r.t_s > window.begin_s && r.t_s < window.end_s) add(r.t_s, *r.watts);
  }
  add(window.end_s, PowerAt(readings, window.end_s));
  return energy_j;
}

// The same for powers that are means over the past `averaging_s`. A mean holds the whole energy of the time that it
// covers, so they are laid end to end, and the last one stands in for a rest that is shorter. Their integral would give
// the first of the load, often a prompt, next to no weight.
double SumOfMeans(std::span<const Reading> readings, const Window& window, double averaging_s) {
  double energy_j = 0;
  for (double t_s = window.begin_s; t_s < window.end_s;) {
    const double step_s = std::min(averaging_s, window.end_s - t_s);
    t_s += step_s;
    energy_j += step_s * PowerAt(readings, t_s);
  }
  return energy_j;
}

double MedianStep(const std::vector<Update>& updates) {
  std::vector<double> steps;
  for (size_t i = 1; i < updates.size(); ++i) steps.push_back(updates[i].t_s - updates[i - 1].t_s);
  return Median(std::move(steps));
}

// Silence at either end, or in between: of readings, or of updates.
template <class Moments>
std::optional<std::string> GapIn(const Moments& moments, const Window& window, double longest_s,
                                 const std::string& what) {
  double last_s = window.begin_s;
  const auto too_long = [&](double t_s) -> std::optional<std::string> {
    if (t_s - last_s <= longest_s) return std::nullopt;
    return what + " for " + Span(t_s - last_s) + " during the measurement";
  };
  for (const auto& moment : moments) {
    if (auto gap = too_long(moment.t_s)) return gap;
    last_s = moment.t_s;
  }
  return too_long(window.end_s);
}

void AddSensors(std::span<const Reading> readings, WindowEnergy* energy) {
  double clock_sum = 0;
  int64_t clocks = 0;
  std::optional<double> first_throttled_s;
  for (const Reading& r : readings) {
    if (r.t_s < energy->window.begin_s || r.t_s > energy->window.end_s) continue;
    if (r.clock_mhz) {
      clock_sum += *r.clock_mhz;
      ++clocks;
      energy->min_clock_mhz = std::min(energy->min_clock_mhz.value_or(*r.clock_mhz), *r.clock_mhz);
    }
    if (r.temperature_c) {
      energy->max_temperature_c = std::max(energy->max_temperature_c.value_or(*r.temperature_c), *r.temperature_c);
    }
    if (!r.throttled_s) continue;
    if (!first_throttled_s) first_throttled_s = r.throttled_s;
    energy->throttled_s = *r.throttled_s - *first_throttled_s;
  }
  if (clocks > 0) energy->mean_clock_mhz = clock_sum / static_cast<double>(clocks);
}

double Peak(std::span<const Reading> readings, const std::vector<Update>& ticks, bool counts, const Window& window) {
  double peak_w = 0;
  bool powers = false;
  for (const Reading& r : readings) {
    if (!r.watts || r.t_s < window.begin_s || r.t_s > window.end_s) continue;
    powers = true;
    peak_w = std::max(peak_w, *r.watts);
  }
  if (powers || !counts) return peak_w;
  // Between ticks that lie closer, the counter's own step would pass for a peak.
  const double least_step_s = MedianStep(ticks) / 2;
  for (size_t i = 1; i < ticks.size(); ++i) {
    const double step_s = ticks[i].t_s - ticks[i - 1].t_s;
    if (step_s >= least_step_s) peak_w = std::max(peak_w, (ticks[i].energy_j - ticks[i - 1].energy_j) / step_s);
  }
  return peak_w;
}

// What nobody measured needs no readings inside the window.
Answer Constant(const MeterRecord& record, const Window& asked) {
  if (record.readings.empty()) return Answer::Fail(record.info.source + ": no reading");
  WindowEnergy energy;
  energy.window = asked;
  energy.peak_w = *record.readings[0].watts;
  energy.energy_j = energy.peak_w * asked.seconds();
  return energy;
}

}  // namespace

Result<WindowEnergy> EnergyWithin(const MeterRecord& record, const Window& asked) {
  if (record.info.constant) return Constant(record, asked);
  if (const auto fault = FaultIn(record, asked)) return Answer::Fail(*fault);
  const auto fail = [&](const std::string& why) { return Answer::Fail(record.info.source + ": " + why); };
  const std::span<const Reading> readings = Inside(record, asked);
  for (const Reading& r : readings) {
    if (const auto nonsense = Nonsense(r)) return fail(*nonsense);
    // What the first one lost lies before it.
    if (r.broken && &r != &readings[0]) {
      return fail("the meter's counter was set back, or not read in time, during the measurement");
    }
  }
  if (const auto gap = GapIn(readings, asked, LongestGap(record.info), "the meter was silent")) return fail(*gap);
  const bool counts =
      std::any_of(readings.begin(), readings.end(), [](const Reading& r) { return r.energy_j.has_value(); });
  // Means that do not overlap are powers like any others.
  const bool overlaps = !counts && record.info.averaging_s >= record.info.period_s;
  const double averaging_s = overlaps ? record.info.averaging_s : 0;
  // A power may still be that of a period ago, when there was no load.
  const double begin_s = asked.begin_s + record.info.period_s;
  const auto found = counts ? Ticks(readings) : Powers(readings, begin_s + averaging_s);
  if (!found.ok()) return fail(found.error());
  const std::vector<Update>& updates = found.value();
  if (updates.size() < 2) {
    return fail("it had something new to say only " + std::to_string(updates.size()) + " times in " +
                Span(asked.seconds()) +
                (overlaps ? ", without the first " + Span(averaging_s) + " over which it averages" : "") +
                ", and two are the least");
  }
  WindowEnergy energy;
  energy.period_s = MedianStep(updates);
  if (counts) {
    const auto gap = GapIn(updates, asked, std::max(2.0, 4 * energy.period_s), "the meter's counter stood still");
    if (gap) return fail(*gap);
  }
  energy.updates = static_cast<int64_t>(updates.size());
  energy.window = {updates.front().t_s, updates.back().t_s};
  if (counts) {
    energy.energy_j = updates.back().energy_j - updates.front().energy_j;
    // Powers that are means over the past still hold what was before the window.
    if (record.info.averaging_s < asked.seconds() / 10) energy.cross_energy_j = Integral(readings, energy.window);
  } else if (overlaps) {
    energy.window.begin_s = begin_s;
    energy.energy_j = SumOfMeans(readings, energy.window, averaging_s);
  } else {
    energy.energy_j = Integral(readings, energy.window).value_or(0);
  }
  energy.peak_w = Peak(readings, updates, counts, energy.window);
  AddSensors(readings, &energy);
  return energy;
}

std::optional<double> ChangePeriod(const MeterRecord& record, const Window& window) {
  std::vector<double> steps_s;
  const Reading *last = nullptr, *changed = nullptr;
  for (const Reading& r : record.readings) {
    if (r.t_s < window.begin_s || r.t_s > window.end_s) continue;
    if (last && (r.energy_j != last->energy_j || (!r.energy_j && r.watts != last->watts))) {
      if (changed) steps_s.push_back(r.t_s - changed->t_s);
      changed = &r;
    }
    last = &r;
  }
  return steps_s.size() < 2 ? std::nullopt : std::optional(Median(std::move(steps_s)));
}

}  // namespace assay::bench
