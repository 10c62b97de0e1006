// SPDX-License-Identifier: Apache-2.0
// A problem's tensors on a device, each in a buffer of its own between guard zones. Owns the buffers. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/conform/problem.h"
#include "runtime/device/device.h"

namespace assay::bench {

class Placement {
 public:
  // Allocates, and packs the weights. Offsets are multiples of what the device asks for and of nothing larger.
  Placement(const std::shared_ptr<Device>& device, Stream& stream, const Problem& problem);

  // Writes inputs, and `poison` everywhere else: outputs, guard zones, gaps between rows, workspace.
  void Fill(uint8_t poison);
  // Frees the host's copies of the contents, which only Fetch needs.
  void ForgetContents();
  // Enqueues; returns after the work was submitted.
  void Enqueue(const ProblemCall& call);
  // Through a recorded plan, if the device has them.
  void RunAsPlan(const ProblemCall& call);
  // Waits for the device and fetches all tensors. `violation`: the first place that was written and must not be
  // (guard zones, inputs, gaps between rows, packed weights, beyond the workspace); empty if there is none.
  Outcome Fetch(const ProblemCall& call, std::string* violation);

  // Empty if the device takes this call, else its reason; makes room for the workspace that it asks for.
  std::string Prepare(const ProblemCall& call);

 private:
  struct Place {
    Buffer buffer;
    Tensor view;
    uint64_t bytes = 0;           // of the tensor, gaps included
    std::vector<uint8_t> image;   // what the buffer held before the run
    std::vector<uint8_t> packed;  // of a weight: what packing wrote
  };
  void Allocate(Place& place, uint64_t bytes, uint64_t alignment);
  void PackWeight(const ProblemTensor& t, Place& place);
  OpCall MakeCall(const ProblemCall& call) const;
  std::string CheckUntouched(size_t i, const std::vector<uint8_t>& now, bool output) const;
  const assay_host_lengths* Lengths();

  std::shared_ptr<Device> device_;
  Stream& stream_;
  const Problem& problem_;
  std::vector<Place> places_;
  Place workspace_;
  uint8_t poison_ = 0;
  assay_host_lengths lengths_{};
};

}  // namespace assay::bench
