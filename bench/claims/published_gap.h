// SPDX-License-Identifier: Apache-2.0
// What others published of a card against what is claimed of it. Pure functions, any thread.
#pragma once

#include <optional>
#include <string>

#include "bench/claims/published.h"
#include "bench/result/gap.h"

namespace assay::bench {

struct PublishedGap {
  std::optional<Gap> gap;
  std::string why_not;    // where there is none: one clause
  bool at_least = false;  // the claim is an upper bound, so the ratio is a lower one; gap->claim says why
};

// FLOP/s, bandwidth and watts against the card's figures; tokens per second against the roofline of a known dense model
// at the claimed peaks of all its cards. A length or batch that the source leaves out is replaced by the one that
// allows the most, so that the ratio is a lower bound, where such a one exists; everything else that is not known
// refuses.
PublishedGap GapOfPublished(const Published& result);

}  // namespace assay::bench
