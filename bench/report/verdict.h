// SPDX-License-Identifier: Apache-2.0
// One sentence for a person who asks "how good is that?". Pure function, any thread.
#pragma once

#include <string>

#include "bench/result/run_result.h"

namespace assay::bench {

// Says, from the result's own numbers, how far decode and prefill are from what the device delivers, and first of all
// what forbids trusting them: a failed accuracy check, an interruption, noise. Always one sentence, never empty.
std::string Verdict(const RunResult& result);

}  // namespace assay::bench
