// SPDX-License-Identifier: Apache-2.0
// Gaps as tables for a person: each claim, what is left of it after each stage, and the actual. Pure functions.
#pragma once

#include <iosfwd>

#include "bench/result/gap.h"

namespace assay::bench {

enum class GapDetail { kBrief, kSources };  // the table alone, or with where each claim comes from

// At most 120 columns. Nothing where there is neither a gap nor a note.
void PrintGaps(const GapReport& report, GapDetail detail, std::ostream& out);

}  // namespace assay::bench
