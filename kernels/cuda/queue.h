// SPDX-License-Identifier: Apache-2.0
// Where a kernel is launched: the stream, and what launchers plan by. Owns nothing.
#pragma once

#include "kernels/cuda/gpu.h"

namespace assay::gpu {

struct Queue {
  gpuStream stream = nullptr;
  int processors = 1;  // streaming multiprocessors, compute units
  int capability = 0;  // NVIDIA: 10 * major + minor (80, 89, 90, 100); the emulator says 90; others 0: no leaf kernels
};

// Bytes of shared memory that a block may have at most, by capability.
constexpr int kLeastSharedLimit = 99 << 10;
inline int SharedLimit(const Queue& queue) {
  switch (queue.capability) {
    case 80:
    case 87:
      return 163 << 10;
    case 90:
    case 100:
    case 103:
      return 227 << 10;
    default:  // 8.6, 8.9, 12.0
      return kLeastSharedLimit;
  }
}

}  // namespace assay::gpu
