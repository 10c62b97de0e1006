// SPDX-License-Identifier: Apache-2.0
// What a device can attain, measured through the same ABI as everything else: read bandwidth and matrix products.
// The best of several repetitions counts: a limit is what the device can do, not what a neighbour left of it.
// One thread; checks for an interrupt between repetitions.
#pragma once

#include <memory>
#include <optional>

#include "runtime/device/device.h"

namespace assay::bench {

struct ProbeResult {
  double best = 0;     // bytes/s or FLOP/s
  double seconds = 0;  // how long the probe ran
  int64_t repetitions = 0;
};

// All of the device's parallelism reads a buffer far larger than its caches (kProbeBytes, less on a small device).
inline constexpr uint64_t kProbeBytes = 256ull << 20;
ProbeResult ProbeReadBandwidth(const std::shared_ptr<Device>& device, double seconds);

// y = x * w^T with M = 1024, N = K = 2048 and weights of `dtype`, computed as the model's products are.
ProbeResult ProbeMatmul(const std::shared_ptr<Device>& device, assay_dtype dtype, assay_dtype compute, assay_dtype act,
                        double seconds);

}  // namespace assay::bench
