// SPDX-License-Identifier: Apache-2.0
// A command on several ranks: rank 0 runs it, the others follow until it ends.
#pragma once

#include <functional>

#include "bench/sut/session.h"

namespace assay::bench {

// Joins the ranks that spec->tp asks for: the processes that mpirun started, or a thread per accelerator of this
// process. On rank 0 sets spec->group, runs `lead` and returns its exit code once all ranks have ended; a rank that
// fails ends all. Other processes return 0 when rank 0 says so. Throws Error if --tp does not fit the ranks or devices.
int RunOnRanks(ModelSpec* spec, const std::function<int()>& lead);

}  // namespace assay::bench
