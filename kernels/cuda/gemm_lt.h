// SPDX-License-Identifier: Apache-2.0
// Matrix products by cuBLASLt, whose library is looked for at run time: a backend works without it. For each product
// the library is asked once for an algorithm (on the host; nothing is allocated on the device); Tune measures its best
// proposals and keeps the fastest, in memory and in a file for the next run.
// One thread at a time, as for everything of a device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/cuda/gpu.h"
#include "kernels/view.h"

namespace assay::gpu {

// y [m, n] = x [m, k] * w [n, k]^T, all row-major.
struct LtProduct {
  // Of x and w: F32 (then nothing is rounded below f32), BF16 or F16; F8_B128: bytes, e4m3, with a scale in f32 for
  // every 128 columns of a row, scales of x as [k / 128, m], of w as [k / 128, n]; m a multiple of 4, n of 16.
  // F8_E4M3, I8: bytes; n, k and their strides multiples of 16.
  DType operands = DType::kNone;
  // F32, or operands where they are of 16 bits; of quants with scales: F32, BF16 or F16; I8: I32.
  DType y = DType::kNone;
  int64_t m = 0, n = 0, k = 0;
  int64_t x_stride = 0, w_stride = 0, y_stride = 0;  // elements, from row to row
  bool row_scales = false;  // F8_E4M3: a scale in f32 for every row, of x [m], of w [n]; false: none
};
// Device addresses, aligned to 16 bytes.
struct LtOperands {
  const void* x = nullptr;
  const void* w = nullptr;
  void* y = nullptr;
  const float* x_scales = nullptr;
  const float* w_scales = nullptr;
  void* workspace = nullptr;  // kLtWorkspaceBytes
};
constexpr size_t kLtWorkspaceBytes = size_t{32} << 20;  // what NVIDIA recommends for Hopper; more than others want

class GemmLt {
 public:
  virtual ~GemmLt() = default;
  // Whether the library has an algorithm.
  virtual bool Has(const LtProduct& product) = 0;
  // Enqueues; false if it could not, and then nothing was enqueued.
  virtual bool Multiply(const LtProduct& product, const LtOperands& operands, gpuStream stream) = 0;
  // Measures the library's proposals for a product unless its fastest is known. Waits for the device. `operands`:
  // scratch of the product's sizes (any contents).
  virtual void Tune(const LtProduct& product, const LtOperands& operands, gpuStream stream) = 0;
};

struct LtOptions {
  std::string device;                        // name of the card: part of the cache file's name
  std::string driver;                        // version of the driver, likewise
  void (*log)(int level, const char* text);  // 1 info, 2 warning; may be null
};
// The library, for the current device; null, and why, where it is missing or too old.
std::unique_ptr<GemmLt> OpenGemmLt(const LtOptions& options, std::string* why);

}  // namespace assay::gpu
