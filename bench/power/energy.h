// SPDX-License-Identifier: Apache-2.0
// From a meter's record to the energy of a window. Pure functions, any thread.
//
// A counter is only known to have moved when it is seen to have moved (a tick), so a window begins at the first tick
// inside it and ends at the last: no energy is interpolated over a window's edge, and the load runs through both edges
// because the window that was asked for lies within the load. A power is integrated by the trapezoid rule between
// readings, from one period after the window's begin on. Where the meter averages over the past, its means are laid end
// to end. Readings outside the window are not looked at. bench/power/energy_simulation_test.cc says how near to the
// truth that comes.
#pragma once

#include <optional>
#include <string>

#include "bench/power/sampler.h"

namespace assay::bench {

struct WindowEnergy {
  Window window;                         // that the energy covers, between ticks, readings or means
  double energy_j = 0;                   // in that window
  double peak_w = 0;                     // the highest power seen, or mean between ticks of a meter without powers
  int64_t updates = 0;                   // times at which the meter had something new to say
  double period_s = 0;                   // median time between those
  std::optional<double> cross_energy_j;  // the integral of the powers of a meter that counts: the second opinion
  std::optional<double> min_clock_mhz, mean_clock_mhz, max_temperature_c, throttled_s;
  double mean_w() const { return energy_j / window.seconds(); }
};

// Fails, with one line on why, where a fault, a broken reading, a gap, a counter that fell, jumped or stood still, a
// power that is not above zero or not a number lies in the window, or fewer than two updates do. What lies outside does
// not matter.
Result<WindowEnergy> EnergyWithin(const MeterRecord& record, const Window& window);

// Median time between changes of what the meter reports in the window: how often it is really updated, however often it
// is read. Absent below two changes.
std::optional<double> ChangePeriod(const MeterRecord& record, const Window& window);

}  // namespace assay::bench
