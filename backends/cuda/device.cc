// SPDX-License-Identifier: Apache-2.0
#include "backends/cuda/device.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace assay::backend_cuda {

using backend::Fail;

Uploader::Uploader(int blocks, uint64_t block_bytes) : block_bytes_(block_bytes) {
  for (int i = 0; i < blocks; ++i) {
    Block& block = blocks_.emplace_back();
    block.memory = AllocatePinned(block_bytes);
    Check(GPU_API(EventCreate)(&block.free), "making an event");
  }
}

Uploader::~Uploader() {
  for (const Block& block : blocks_) {
    static_cast<void>(GPU_API(EventDestroy)(block.free));
    FreePinned(block.memory);
  }
}

void Uploader::Copy(void* to, const void* from, uint64_t bytes, gpuStream stream) {
  for (uint64_t done = 0; done < bytes;) {
    Block& block = blocks_[next_++ % blocks_.size()];
    const uint64_t part = std::min(block_bytes_, bytes - done);
    Check(GPU_API(EventSynchronize)(block.free), "waiting for a copy to the device");
    std::memcpy(block.memory, static_cast<const char*>(from) + done, part);
    CopyAsync(static_cast<char*>(to) + done, block.memory, part, Direction::kToDevice, stream);
    Check(GPU_API(EventRecord)(block.free, stream), "recording an event");
    done += part;
  }
}

Downloader::Downloader(uint64_t bytes) : bytes_(bytes), memory_(static_cast<char*>(AllocatePinned(bytes))) {}

Downloader::~Downloader() {
  FreePinned(memory_);
}

void Downloader::Copy(void* to, const void* from, uint64_t bytes, gpuStream stream) {
  if (bytes > bytes_ - used_) return CopyAsync(to, from, bytes, Direction::kToHost, stream);
  CopyAsync(memory_ + used_, from, bytes, Direction::kToHost, stream);
  pending_.push_back({to, used_, bytes});
  used_ += bytes;
}

void Downloader::HandOver() {
  for (const Pending& p : pending_) std::memcpy(p.to, memory_ + p.offset, p.bytes);
  pending_.clear();
  used_ = 0;
}

Lane::Lane(int blocks, uint64_t block_bytes, uint64_t download_bytes)
    : stream(CreateStream()), uploads(blocks, block_bytes), downloads(download_bytes) {}

Lane::~Lane() {
  static_cast<void>(GPU_API(StreamSynchronize)(stream));
  static_cast<void>(GPU_API(StreamDestroy)(stream));
}

}  // namespace assay::backend_cuda

using assay::backend::Fail;
using assay::backend_cuda::Check;

assay_device_s::assay_device_s(int device_index, Log log) : index(device_index) {
  assay::backend_cuda::UseDevice(index);
  facts = assay::backend_cuda::ReadFacts(index, /*in_use=*/true);
  if (!facts.too_old.empty()) Fail(ASSAY_ERR_UNSUPPORTED, "%s", facts.too_old.c_str());
  queue.processors = facts.processors;
  queue.capability = facts.capability;
#if defined(ASSAY_GPU_CUDA)
  constexpr int kHopper = 90;  // programmatic dependent launch
  assay::gpu::OverlappedLaunch() = queue.capability >= kHopper;
#endif
#if GPU_HAS_BLASLT
  std::string why;
  gemm = assay::gpu::OpenGemmLt({facts.name, facts.driver, log}, &why);
  if (!gemm && log != nullptr) {
    log(2, (facts.name + ": matrix products run on kernels of our own, which are slower for long prompts: " + why)
               .c_str());
  }
#else
  static_cast<void>(log);
#endif
}

assay_device_s::~assay_device_s() {
  packing.reset();
  if (scratch != nullptr) static_cast<void>(GPU_API(Free)(scratch));
}

void assay_device_s::TuneLinear(const assay::WeightSpec& spec, int64_t rows, assay::DType x) {
  using assay::DType;
  const bool wide = spec.dtype == DType::kBF16 || spec.dtype == DType::kF16;
  constexpr int64_t kFewRows = 16;  // below, the weight is streamed by kernels of our own
  if (!gemm || !wide || spec.dtype != x || spec.compute == DType::kF32 || rows <= kFewRows) return;
  constexpr int64_t kAligned = 8;  // elements, as the library wants rows
  if (spec.cols % kAligned != 0 || spec.rows % kAligned != 0) return;
  if (!tuned.insert({rows, spec.rows, spec.cols, static_cast<int64_t>(x)}).second) return;
  const uint64_t n = static_cast<uint64_t>(spec.rows), k = static_cast<uint64_t>(spec.cols);
  const uint64_t m = static_cast<uint64_t>(rows);
  constexpr uint64_t kBytes = 2, kAlign = 256;
  const uint64_t w_at = (m * k * kBytes + kAlign - 1) / kAlign * kAlign;
  const uint64_t y_at = w_at + (n * k * kBytes + kAlign - 1) / kAlign * kAlign;
  const uint64_t workspace_at = y_at + (m * n * kBytes + kAlign - 1) / kAlign * kAlign;
  void* memory = nullptr;
  if (GPU_API(Malloc)(&memory, workspace_at + assay::gpu::kLtWorkspaceBytes) != assay::gpu::kGpuSuccess) {
    static_cast<void>(GPU_API(GetLastError)());
    return;
  }
  char* bytes = static_cast<char*>(memory);
  assay::gpu::LtOperands operands;
  operands.x = bytes;
  operands.w = bytes + w_at;
  operands.y = bytes + y_at;
  operands.workspace = bytes + workspace_at;
  const gpuStream stream = assay::backend_cuda::CreateStream();
  gemm->Tune({x, x, rows, spec.rows, spec.cols, spec.cols, spec.cols, spec.rows}, operands, stream);
  static_cast<void>(GPU_API(StreamDestroy)(stream));
  static_cast<void>(GPU_API(Free)(memory));
}

namespace {

// "3.2 GiB" or "3.2 MiB".
std::string Size(uint64_t bytes) {
  constexpr double kMiB = 1 << 20, kGiB = 1 << 30;
  const double value = static_cast<double>(bytes);
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %s", value / (value < kGiB ? kMiB : kGiB), value < kGiB ? "MiB" : "GiB");
  return text;
}

}  // namespace

assay_buffer_s::assay_buffer_s(assay_device_s* owner, uint64_t size, bool host_visible)
    : device(owner), pinned(host_visible) {
  bytes = size;
  void* address = nullptr;
  if (pinned) {
    address = assay::backend_cuda::AllocatePinned(std::max<uint64_t>(size, 1));
  } else {
    size_t free = 0, total = 0;
    Check(GPU_API(MemGetInfo)(&free, &total), "reading the free memory");
    if (size > free || GPU_API(Malloc)(&address, std::max<uint64_t>(size, 1)) != assay::gpu::kGpuSuccess) {
      static_cast<void>(GPU_API(GetLastError)());  // told here; not to be told again by the next call
      const std::string advice =
          size > free
              ? Size(size - free) + " are missing: a shorter context, fewer sequences or smaller weights would fit"
              : "not in one piece: end what else uses the device";
      Fail(ASSAY_ERR_NO_MEMORY, "%s: %s were asked for, %s of %s are free; %s", owner->facts.name.c_str(),
           Size(size).c_str(), Size(free).c_str(), Size(total).c_str(), advice.c_str());
    }
  }
  data = static_cast<char*>(address);
}

assay_buffer_s::~assay_buffer_s() {
  assay::backend_cuda::UseDeviceToFree(device->index);
  if (pinned) {
    assay::backend_cuda::FreePinned(data);
  } else {
    static_cast<void>(GPU_API(Free)(data));
  }
}

namespace {
constexpr int kBlocks = 8;                      // a step's inputs take one; so many may be on their way
constexpr uint64_t kBlockBytes = 512 << 10;     // inputs of a step with 256 sequences of 8k context: 140 KiB
constexpr uint64_t kDownloadBytes = 512 << 10;  // sampled tokens and log-probabilities of a step
}  // namespace

assay_stream_s::assay_stream_s(assay_device_s* owner) : device(owner), lane(kBlocks, kBlockBytes, kDownloadBytes) {}

assay_event_s::assay_event_s(assay_device_s* owner) : device(owner) {
  Check(GPU_API(EventCreate)(&event), "making an event");
}

assay_event_s::~assay_event_s() {
  static_cast<void>(GPU_API(EventDestroy)(event));
}
