// SPDX-License-Identifier: Apache-2.0
// Which card a device is held against. Any thread.
#pragma once

#include "bench/claims/cards.h"

namespace assay::bench {

// An accelerator by the name and memory that its backend reports (DetectCard), a CPU as this host's derived peaks.
CardMatch CardOfDevice(const assay_device_info& info);

}  // namespace assay::bench
