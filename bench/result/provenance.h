// SPDX-License-Identifier: Apache-2.0
// Where a result comes from: this build, this machine, and the machine's state around the run. What cannot be found
// out stays absent. Reads /proc, /sys and /etc only; any thread.
//
// The build passes three compile definitions, each a string literal: ASSAY_VERSION ("0.1.0"), ASSAY_COMMIT (the
// commit, with "-dirty" after it where the tree had changes; empty outside a git checkout) and ASSAY_BUILD ("GNU
// 12.2.0 Release").
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bench/result/run_result.h"

namespace assay::bench {

Tool ThisTool();
Host ThisHost();

// The static part of the environment; before and after are two calls of ReadMachineState.
Environment ReadEnvironment();
MachineState ReadMachineState();

// What in the environment makes the numbers hard to trust: a busy machine before the run, stolen CPU time or throttling
// during it, a power-saving governor. `duration_s` is the time between the two states.
std::vector<std::string> EnvironmentWarnings(const Environment& environment, double duration_s);

std::string NewRunId();      // sorts by time: "20261123T061500Z-3f9a1c27"
std::string TimestampUtc();  // "2026-11-23T06:15:00Z"

std::optional<int64_t> PeakRssBytes();
std::optional<int64_t> CurrentRssBytes();

}  // namespace assay::bench
