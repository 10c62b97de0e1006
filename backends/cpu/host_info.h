// SPDX-License-Identifier: Apache-2.0
// What the kernel says about this machine: name, memory and processors that this process may use.
// Reads /proc and /sys; any thread.
#pragma once

#include <cstdint>
#include <string>

namespace assay::backend_cpu {

std::string CpuName();

struct HostMemory {
  uint64_t total = 0;      // bytes; the smaller of the machine's and the control group's limit
  uint64_t available = 0;  // bytes that can still be used
};
HostMemory ReadHostMemory();

// Cores in the affinity mask, at most the control group's quota rounded up; at least 1.
int UsableThreads();

}  // namespace assay::backend_cpu
