// SPDX-License-Identifier: Apache-2.0
// The runtime's calls that differ between toolkits, and what a device tells of itself. Check turns a failing call into
// a Failure with words for people. Any thread.
#pragma once

#include <cstdint>
#include <string>

#include "backends/common/failure.h"
#include "kernels/cuda/gpu.h"

namespace assay::backend_cuda {

// The name under which the loader and results know this backend.
const char* PlatformName();

// How many devices there are; with none, `reason` says why in one line.
int CountDevices(std::string* reason);

struct DeviceFacts {
  std::string name;     // as the driver gives it
  std::string detail;   // one line: capability, driver, PCI address
  std::string too_old;  // why this backend cannot use the device; empty if it can
  std::string driver;   // its version, "" where unknown
  int processors = 1;
  int capability = 0;  // as gpu::Queue's
  uint64_t memory_bytes = 0, memory_free = 0;
};
// in_use: the calling thread may use the device; then its free memory is told, too. (Asking puts a context of some 500
// MB on a device, so a mere listing does not.)
DeviceFacts ReadFacts(int index, bool in_use);

// Makes the device the calling thread's.
void UseDevice(int index);
// The same before something of it is given back: of a lost device there is nothing more to say, and destructors do not
// throw.
void UseDeviceToFree(int index);

// Throws a Failure that says what could not be done and why; out of memory, lost and failing devices have their own
// status.
void Check(gpuError error, const char* what);
// Of what was launched since the last look.
void CheckLaunches(const char* what);

void* AllocatePinned(uint64_t bytes);
void FreePinned(void* address);
gpuStream CreateStream();
void BeginCapture(gpuStream stream);
gpuGraphExec EndCapture(gpuStream stream);
void DestroyGraph(gpuGraphExec graph);

enum class Direction { kToDevice, kToHost, kOnDevice };
void CopyAsync(void* to, const void* from, uint64_t bytes, Direction direction, gpuStream stream);

}  // namespace assay::backend_cuda
