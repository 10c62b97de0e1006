// SPDX-License-Identifier: Apache-2.0
// The pictures of a result: where it lies below the roofline, and where each claim is lost. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "bench/report/language.h"
#include "bench/result/run_result.h"

namespace assay::bench {

struct Picture {
  std::string name;  // "roofline", "gap-decode", "gap-prefill", "gap-output", ...
  std::string svg;
};
// Only what the result holds: the roofline needs measured limits, a gap a claim.
std::vector<Picture> PicturesOf(const RunResult& result, Language language);

}  // namespace assay::bench
