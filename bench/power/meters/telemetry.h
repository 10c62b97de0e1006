// SPDX-License-Identifier: Apache-2.0
// A backend's own telemetry (assay_telemetry of backends/api/assay_backend.h) as a meter.
#pragma once

#include <memory>

#include "bench/power/meter.h"
#include "runtime/core/error.h"
#include "runtime/device/device.h"

namespace assay::bench {

// Keeps the device alive. Its time under a throttle reason is summed between the meter's own readings, half of a step
// in which a reason came or went. Fails with one line where the backend has no telemetry, cannot read it, or tells
// neither energy nor power.
Result<std::unique_ptr<Meter>> OpenTelemetry(std::shared_ptr<Device> device);

}  // namespace assay::bench
