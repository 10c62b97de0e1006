// SPDX-License-Identifier: Apache-2.0
// One device's part in a group: through the backend's own collectives where it has them, else through host memory.
// Used by the thread that drives the device; the group's ranks make theirs at the same time.
#pragma once

#include <memory>
#include <vector>

#include "runtime/comm/group.h"
#include "runtime/device/device.h"

namespace assay {

class Communicator {
 public:
  // Collective. Throws Error if the backend's collectives cannot be set up.
  Communicator(std::shared_ptr<Device> device, std::shared_ptr<Group> group);
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  Group& group() const { return *group_; }
  // Null: the device has no collectives of its own.
  assay_comm handle() const { return handle_; }

  // The same through host memory; the device has finished what writes the tensors. f32, contiguous.
  // x [R, C]: the sum over ranks, in place.
  void AllReduceOnHost(const Tensor& x);
  // x [M, N], y [M, V]: rank r's column c becomes column r * N + c of y, those from V on are dropped.
  void AllGatherOnHost(const Tensor& x, const Tensor& y);
  // Empty if those two can serve tensors like this one, else the reason.
  std::string WhyNotOnHost(const Tensor& x) const;

 private:
  std::shared_ptr<Device> device_;
  std::shared_ptr<Group> group_;
  assay_comm handle_ = nullptr;
  std::vector<float> gathered_;
};

}  // namespace assay
