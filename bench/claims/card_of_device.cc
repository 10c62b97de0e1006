// SPDX-License-Identifier: Apache-2.0
#include "bench/claims/card_of_device.h"

#include "bench/claims/host_peaks.h"

namespace assay::bench {

CardMatch CardOfDevice(const assay_device_info& info) {
  if (info.is_accelerator) return DetectCard(info.name, info.memory_bytes);
  static const HostPeaks host = DeriveHostPeaks(ReadHostTopology());
  return {&host.card, true, host.scope, {}};
}

}  // namespace assay::bench
