// SPDX-License-Identifier: Apache-2.0
// Published results of others beside what is claimed of their cards, as a table for a person. Pure function.
#pragma once

#include <iosfwd>
#include <vector>

#include "bench/claims/published.h"

namespace assay::bench {

// Those that have a ratio with their sources, then why the others have none. At most 120 columns where names allow it.
void PrintPublished(const std::vector<const Published*>& results, std::ostream& out);

}  // namespace assay::bench
