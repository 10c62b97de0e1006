// SPDX-License-Identifier: Apache-2.0
// The peaks that a CPU host may claim: nobody publishes FLOP/s of CPUs per dtype, so they are derived from cores, clock
// and the instructions per cycle of the microarchitecture, and memory bandwidth from channels and speed. Pure
// functions, any thread. The vendors' documents behind each number are named in the figures.
#pragma once

#include <string>

#include "bench/claims/cards.h"
#include "bench/claims/host_topology.h"

namespace assay::bench {

struct HostPeaks {
  Card card;          // id kHostCardId; figures are "derived", or absent where they cannot be
  std::string scope;  // whose peaks these are, for people: a virtual machine has some cores, and shares the memory
};
HostPeaks DeriveHostPeaks(const HostTopology& host);

}  // namespace assay::bench
