// SPDX-License-Identifier: Apache-2.0
// IPMI: what a server's management controller (BMC) tells of the power of the whole machine, through the program
// ipmitool and its DCMI command "Get Power Reading" (DCMI 1.5, 6.6.1), in watts.
#pragma once

#include <memory>

#include "bench/power/meter.h"
#include "runtime/core/error.h"

namespace assay::bench {

// Fails with one line that names the remedy: ipmitool is not installed, the BMC cannot be reached (root and /dev/ipmi0
// are needed), it knows no DCMI, or it does not measure power.
Result<std::unique_ptr<Meter>> OpenIpmi();

}  // namespace assay::bench
