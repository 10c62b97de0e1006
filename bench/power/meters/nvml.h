// SPDX-License-Identifier: Apache-2.0
// NVML: what the driver of an NVIDIA GPU tells of its energy and power. The library is opened at run time, so this
// builds and runs where there is no NVIDIA software.
//
// Field numbers, units and layouts: nvml.h as it is up to CUDA 13.3. The energy counter (field 83, mJ, Volta and later)
// moves every 20 to 100 ms; the instantaneous power (field 186) beside it is the cross-check. Where either is missing,
// the power averaged over one second (field 185, or nvmlDeviceGetPowerUsage) takes its place. The throttled time adds
// up the counters of the power, thermal and board limits (fields 74, 75 and 77, ns): where two of them hold at once,
// the time counts twice. The finer counters of CUDA 12.9 and later are not used: their field numbers changed in 13.1,
// and mean other things to older drivers.
#pragma once

#include <memory>
#include <string>

#include "bench/power/meter.h"
#include "runtime/core/error.h"

namespace assay::bench {

// gpu: an index of NVML, a UUID (or its beginning, "GPU-8932f9"), a PCI bus id ("0000:3b:00.0"), "cuda:N" (that entry
// of CUDA_VISIBLE_DEVICES where it is set, else index N), or "" (as cuda:0). library: another than the driver's, for
// tests. Fails with one line: no driver, driver and library of two versions, no permission, no such GPU (and which
// there are), neither energy nor power. A GPU that is lost during the run fails each Read with NVML's own words.
Result<std::unique_ptr<Meter>> OpenNvml(const std::string& gpu, const char* library = "libnvidia-ml.so.1");

}  // namespace assay::bench
