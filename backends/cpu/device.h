// SPDX-License-Identifier: Apache-2.0
// The objects behind the ABI's handles. Streams run at once, on the calling thread's team: when enqueue, a copy or
// plan_launch returns, the work is done. So events are reached when they are recorded, and waiting is trivial.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backends/cpu/operation.h"
#include "kernels/cpu/thread_pool.h"

struct assay_device_s {
  assay_device_s(bool is_reference, int threads);
  const bool reference;
  const uint64_t memory_bytes;  // of the machine, or what its control group allows
  assay::cpu::ThreadPool pool;
};

// Anonymous pages, which take memory only once they are touched.
struct assay_buffer_s : assay::backend::Memory {
  assay_buffer_s(assay_device_s* owner, uint64_t size);
  ~assay_buffer_s();
  assay_buffer_s(const assay_buffer_s&) = delete;
  assay_buffer_s& operator=(const assay_buffer_s&) = delete;

  assay_device_s* const device;

 private:
  void* mapping_ = nullptr;
  uint64_t mapping_bytes_ = 0;
};

struct assay_plan_s {
  std::vector<assay::backend_cpu::Operation> operations;
};

struct assay_stream_s {
  assay_device_s* device;
  std::unique_ptr<assay_plan_s> recording;  // between plan_begin and plan_end
};

struct assay_event_s {
  bool reached = false;
  int64_t time_ns = 0;  // steady clock
};
