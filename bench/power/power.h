// SPDX-License-Identifier: Apache-2.0
// From joules to what a result says about power, with its grade:
//   A wall meter within 1 %;  B device counter cross-checked by a second reading within 5 %;  C device counter or
//   sampled board power without gaps;  D few samples;  F a constant;  none.  Only A to C may be called measured.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "bench/power/meter.h"
#include "bench/power/sampler.h"
#include "bench/result/run_result.h"

namespace assay::bench {

struct PowerWork {
  std::span<const Window> windows;  // the measured load, one window per trial, not overlapping
  int64_t output_tokens = 0;        // made inside the windows
  int64_t total_tokens = 0;         // input and output
  std::optional<Window> idle;       // the device at rest, for idle_w
};

// sampler: nullptr where nothing is metered; why_none then says why. Never throws: a meter that failed gives grade none
// and a note. Energies are gross: idle power is beside them, not subtracted.
Power SummarizePower(Sampler* sampler, const std::string& why_none, const PowerWork& work);

bool IsMeasured(const Power& power);  // grades A, B, C

}  // namespace assay::bench
