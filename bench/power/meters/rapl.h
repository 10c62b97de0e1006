// SPDX-License-Identifier: Apache-2.0
// RAPL: the energy counters of Intel and AMD processors, as Linux's powercap shows them (intel-rapl:N/energy_uj).
#pragma once

#include <memory>
#include <string>

#include "bench/power/meter.h"
#include "runtime/core/error.h"

namespace assay::bench {

// `root`: a folder that holds intel-rapl:N zones, with their sub-zones inside or beside them, or one such zone.
// Adds up the packages and their DRAM zones, which the packages do not contain. The whole-system zone (psys) contains
// both, so it counts only where there is no package. Fails with what was looked at, why it cannot serve and the remedy.
Result<std::unique_ptr<Meter>> OpenRapl(const std::string& root);

}  // namespace assay::bench
