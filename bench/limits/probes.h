// SPDX-License-Identifier: Apache-2.0
// What a device can attain, measured through the same ABI as everything else: read and copy bandwidth, matrix products,
// the cost of starting an operation. The best of several repetitions counts: a limit is what the device can do, not
// what a neighbour left of it. One thread; checks for an interrupt between repetitions.
// With a group, its ranks repeat together and the limit is that of all: the work of all in the time of the slowest. So
// devices add up, and ranks that share a memory share its bandwidth.
#pragma once

#include <memory>
#include <optional>

#include "runtime/comm/group.h"
#include "runtime/device/device.h"

namespace assay::bench {

struct ProbeResult {
  double best = 0;                   // bytes/s or FLOP/s
  double median = 0;                 // of the repetitions: what is left where a neighbour or a quota takes its share
  std::optional<double> half_width;  // half of the range of the bests of five blocks of repetitions
};

// All of the device's parallelism reads a buffer of `bytes`. ProbeBytes is far larger than any cache of the device
// (less is taken where memory is small), kCacheBytes is what the last cache of most devices holds.
uint64_t ProbeBytes(const assay_device_info& info);
inline constexpr uint64_t kCacheBytes = 16ull << 20;
ProbeResult ProbeReadBandwidth(const std::shared_ptr<Device>& device, uint64_t bytes, double seconds,
                               Group* group = nullptr);

// Copies half of ProbeBytes to the other half; bytes read and bytes written both count.
ProbeResult ProbeCopyBandwidth(const std::shared_ptr<Device>& device, double seconds, Group* group = nullptr);

// y [m, n] = x [m, k] * w^T with weights of `dtype`, computed as a model's products are.
struct MatmulProbe {
  assay_dtype dtype = ASSAY_DTYPE_NONE;
  assay_dtype compute = ASSAY_DTYPE_NONE;  // as in assay_linear_desc
  assay_dtype act = ASSAY_F32;
  int64_t m = 0, n = 0, k = 0;
};
// Of a size that keeps all of the device busy for a good while.
MatmulProbe LargeProduct(const assay_device_info& info, assay_dtype dtype, assay_dtype compute, assay_dtype act);
ProbeResult ProbeMatmul(const std::shared_ptr<Device>& device, const MatmulProbe& probe, double seconds,
                        Group* group = nullptr);

// One of the three, as every rank of a group is told it.
struct ProbeSpec {
  enum class Kind : int32_t { kRead, kCopy, kMatmul } kind = Kind::kRead;
  double seconds = 0;
  uint64_t bytes = 0;   // kRead
  MatmulProbe product;  // kMatmul
};
ProbeResult Probe(const std::shared_ptr<Device>& device, const ProbeSpec& spec, Group* group);

// Median time from the host's call to its knowing of the end of an operation that does nothing to speak of; seconds.
double ProbeLaunch(const std::shared_ptr<Device>& device, double seconds);

}  // namespace assay::bench
