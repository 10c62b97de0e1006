// SPDX-License-Identifier: Apache-2.0
// From a meter's record and the loads that ran to what a result says about power, with its grade.
// Pure functions, any thread.
//
// The grade follows from what happened, never from the meter's name:
//   A     at the wall, without gaps, 30 s or more, 10 updates or more, the trials' 95 % interval within 1 % of the mean
//   B     a counter whose energy a second reading (the integral of powers) confirms within 5 %
//   C     a counter or powers without gaps, not confirmed
//   D     slow (updates more than 0.25 s apart), few updates (under 10) or short (under 5 s)
//   F     a constant that somebody gave
//   none  nothing that can be used; a note says why
// Tokens are those of whole loads, and their energy is the metered mean power for as long as the loads ran.
// Only A to C may be called measured. A second reading that is off by more than 5 % makes the energy invalid.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bench/power/energy.h"
#include "bench/result/run_result.h"

namespace assay::bench {

// One stretch of load, and all tokens that it took and made.
struct MeteredTrial {
  Window load;  // the load ran through all of it
  double input_tokens = 0, output_tokens = 0;
};

struct PowerWork {
  std::span<const MeteredTrial> trials;           // the workload itself
  std::span<const MeteredTrial> prefill, decode;  // the steady loops of one phase each; may be empty
  std::vector<Window> idle_before, idle_after;    // the machine at rest, without weights
  std::vector<Window> idle_loaded;                // at rest with weights resident
  std::optional<double> output_tps;               // of the workload, for the energy-delay product
};

// record: nullptr where nothing is metered; why_none then says why.
Power SummarizePower(const MeterRecord* record, const std::string& why_none, const PowerWork& work);

// What `assay power` and SummarizePower judge by.
struct MeterBehaviour {
  bool constant = false;
  std::string scope;
  double seconds = 0;                 // metered
  int64_t updates = 0;                // in them
  double period_s = 0;                // median time between updates
  std::optional<double> cross_ratio;  // integral of powers / counter
  std::optional<double> spread;       // half-width of the trials' 95 % interval / mean
};
struct GradeReason {
  std::string grade;
  std::vector<std::string> why;
};
GradeReason GradeOf(const MeterBehaviour& behaviour);

}  // namespace assay::bench
