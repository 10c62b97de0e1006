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

}  // namespace assay::gpu
