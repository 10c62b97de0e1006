// SPDX-License-Identifier: Apache-2.0
// The objects behind the ABI's handles. A device has its own stream for packing weights; everything else is ordered by
// the caller's streams. Host memory reaches the device through pinned staging blocks, so that no copy waits for the
// device while there is a free block, and a copy's source belongs to the caller again at once.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "backends/common/call.h"
#include "backends/cuda/platform.h"
#include "kernels/cuda/gemm_lt.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/queue.h"

namespace assay::backend_cuda {

// Pinned blocks that uploads go through, in turn. One stream, one thread.
class Uploader {
 public:
  Uploader(int blocks, uint64_t block_bytes);
  ~Uploader();
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;
  void Copy(void* to, const void* from, uint64_t bytes, gpuStream stream);

 private:
  struct Block {
    void* memory = nullptr;
    gpuEvent free = nullptr;  // reached when the device has read the block
  };
  const uint64_t block_bytes_;
  std::vector<Block> blocks_;
  size_t next_ = 0;
};

// Downloads land in pinned memory and are handed over when the stream is synchronised; what has no room goes directly,
// which makes the caller wait. One stream, one thread.
class Downloader {
 public:
  explicit Downloader(uint64_t bytes);
  ~Downloader();
  Downloader(const Downloader&) = delete;
  Downloader& operator=(const Downloader&) = delete;
  void Copy(void* to, const void* from, uint64_t bytes, gpuStream stream);
  void HandOver();  // after the stream was synchronised

 private:
  struct Pending {
    void* to;
    uint64_t offset, bytes;
  };
  const uint64_t bytes_;
  char* memory_ = nullptr;
  uint64_t used_ = 0;
  std::vector<Pending> pending_;
};

// A stream with its staging.
struct Lane {
  Lane(int blocks, uint64_t block_bytes, uint64_t download_bytes);
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;
  gpuStream stream;
  Uploader uploads;
  Downloader downloads;
};

}  // namespace assay::backend_cuda

struct assay_device_s {
  using Log = void (*)(int32_t level, const char* text);
  // log: may be null.
  assay_device_s(int index, Log log);
  ~assay_device_s();
  assay_device_s(const assay_device_s&) = delete;
  assay_device_s& operator=(const assay_device_s&) = delete;

  // Lets the matrix library find its fastest algorithm for linear with `rows` rows of x of this dtype; scratch for it
  // is taken and given back. Waits for the device. Without room or library nothing happens.
  void TuneLinear(const assay::WeightSpec& spec, int64_t rows, assay::DType x);

  const int index;
  assay::backend_cuda::DeviceFacts facts;
  std::set<std::array<int64_t, 4>> tuned;  // m, n, k, dtype
  assay::gpu::Queue queue;                 // without a stream
  // For packing; made with the first weight.
  std::unique_ptr<assay::gpu::GemmLt> gemm;  // null: own kernels serve everything
  std::unique_ptr<assay::backend_cuda::Lane> packing;
  void* scratch = nullptr;  // device memory, kScratchBytes: the source form of rows that are being packed
};

struct assay_buffer_s : assay::backend::Memory {
  assay_buffer_s(assay_device_s* owner, uint64_t size, bool host_visible);
  ~assay_buffer_s();
  assay_buffer_s(const assay_buffer_s&) = delete;
  assay_buffer_s& operator=(const assay_buffer_s&) = delete;
  assay_device_s* const device;
  const bool pinned;  // host memory that the device reaches
};

struct assay_stream_s {
  explicit assay_stream_s(assay_device_s* owner);
  assay_device_s* const device;
  assay::backend_cuda::Lane lane;
  bool recording = false;
};

struct assay_event_s {
  explicit assay_event_s(assay_device_s* owner);
  ~assay_event_s();
  assay_event_s(const assay_event_s&) = delete;
  assay_event_s& operator=(const assay_event_s&) = delete;
  assay_device_s* const device;
  gpuEvent event = nullptr;
  bool recorded = false;
};

struct assay_plan_s {
  assay_device_s* device;
  gpuGraphExec graph;
};
