// SPDX-License-Identifier: Apache-2.0
// A claim that a user brings, as `--claim "output_tps=12000 who=vendor date=2026-05 dtype=fp8"`, and what a result says
// of it. Pure functions, any thread.
#pragma once

#include <string>

#include "bench/claims/cards.h"
#include "bench/result/gap.h"
#include "bench/result/run_result.h"

namespace assay::bench {

inline constexpr char kClaimHelp[] =
    "METRIC=VALUE[UNIT] with METRIC one of output_tps, decode_tps, prefill_tps (tok/s), flops (TFLOPS ...), bandwidth "
    "(GB/s ...), power (W), or percent=N of=CARD; and who=, date=, dtype=, source=, sparse=yes, where known";

struct UserClaim {
  std::string metric;  // as Gap::metric: "output_tps", ..., "flops", "bytes_per_s", "watts"
  double value = 0;    // SI; dense: a sparse figure is halved when it is read
  std::string dtype;   // "" not said
  std::string of;      // id of a card: value is a fraction of what that card's claimed peaks allow
  Provenance provenance;
};

// Throws Error, one line, for an unknown key, metric, unit, dtype or card, or a value that is not above zero.
UserClaim ParseClaim(const std::string& text);

// The claim against the result; where the result holds a roofline gap of that metric, with its stages after a first
// one, "promise", from the claim to that roofline. Throws Error where the result does not hold the metric.
Gap GapOfClaim(const RunResult& result, const UserClaim& claim);

}  // namespace assay::bench
