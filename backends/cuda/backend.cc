// SPDX-License-Identifier: Apache-2.0
// The function table of the GPU backend. Work runs on the device's streams; a plan is a captured graph.
#include <algorithm>
#include <array>
#include <atomic>
#include <string>

#include "backends/common/table.h"
#include "backends/cuda/comm.h"
#include "backends/cuda/device.h"
#include "backends/cuda/operation.h"
#include "backends/cuda/platform.h"

namespace assay::backend_cuda {
namespace {

using backend::Fail;
using backend::Fill;
using backend::Guard;
using backend::NotNull;
using backend::WriteStruct;

constexpr uint64_t kAlignment = 256;  // what cudaMalloc gives, and more than any vector load asks for

assay_device_s::Log host_log = nullptr;  // the host gives it once, before anything else

// --- Devices

constexpr int kMostDevices = 64;

// How many open devices there are of each index.
std::array<std::atomic<int>, kMostDevices>& InUse() {
  static std::array<std::atomic<int>, kMostDevices> counts{};
  return counts;
}

assay_status DeviceCount(int32_t* count, const char** reason, assay_message* msg) {
  return Guard(msg, [&] {
    static std::string why;
    *NotNull(count, "count") = std::min(CountDevices(&why), kMostDevices);
    if (reason != nullptr) *reason = *count == 0 ? why.c_str() : nullptr;
  });
}

void CheckIndex(int32_t index) {
  std::string why;
  const int count = CountDevices(&why);
  if (index < 0 || index >= std::min(count, kMostDevices)) Fail(ASSAY_ERR_INVALID, "there is no device %d", index);
}

assay_device_info Describe(int32_t index) {
  const DeviceFacts facts = ReadFacts(index, InUse()[static_cast<size_t>(index)] > 0);
  assay_device_info info{};
  info.is_accelerator = 1;
  std::snprintf(info.id, sizeof info.id, "%s:%d", PlatformName(), index);
  std::snprintf(info.name, sizeof info.name, "%s", facts.name.c_str());
  std::snprintf(info.detail, sizeof info.detail, "%s", facts.detail.c_str());
  info.memory_bytes = facts.memory_bytes;
  info.memory_free = facts.memory_free;
  info.compute_units = facts.processors;
  Fill(info.act_dtypes, {ASSAY_BF16, ASSAY_F16, ASSAY_F32});
  Fill(info.kv_dtypes, {ASSAY_BF16, ASSAY_F16, ASSAY_F32, ASSAY_F8_E4M3});
  Fill(info.weight_dtypes, {ASSAY_BF16, ASSAY_F16, ASSAY_F32, ASSAY_F8_B128, ASSAY_F8_E4M3, ASSAY_I8, ASSAY_I4_G128,
                            ASSAY_Q8_0, ASSAY_Q4_0, ASSAY_Q4_1});
  Fill(info.kv_block_sizes, {64, 32, 16, 128});
  Fill(info.kv_layouts, {ASSAY_KV_HND, ASSAY_KV_NHD});
  info.max_head_dim = static_cast<int32_t>(GpuRules().max_head_dim);
  info.buffer_alignment = kAlignment;
  info.weight_alignment = gpu::kWeightAlignment;
  return info;
}

assay_status DeviceInfo(int32_t index, assay_device_info* info, assay_message* msg) {
  return Guard(msg, [&] {
    CheckIndex(index);
    WriteStruct(Describe(index), info, "info");
  });
}

assay_status DeviceCreate(int32_t index, const assay_device_options*, assay_device* device, assay_message* msg) {
  return Guard(msg, [&] {
    CheckIndex(index);
    *NotNull(device, "device") = new assay_device_s(index, host_log);
    ++InUse()[static_cast<size_t>(index)];
  });
}

void DeviceDestroy(assay_device device) {
  if (device == nullptr) return;
  UseDeviceToFree(device->index);
  --InUse()[static_cast<size_t>(device->index)];
  delete device;
}

// The device of a call becomes the calling thread's.
assay_device Use(assay_device device) {
  UseDevice(NotNull(device, "device")->index);
  return device;
}

// --- Buffers

assay_status BufferCreate(assay_device device, uint64_t bytes, int32_t host_visible, assay_buffer* buffer,
                          assay_message* msg) {
  return Guard(msg, [&] {
    NotNull(buffer, "buffer");
    *buffer = new assay_buffer_s(Use(device), bytes, host_visible != 0);
  });
}

void BufferDestroy(assay_buffer buffer) {
  delete buffer;
}

assay_status BufferMap(assay_buffer buffer, void** address, assay_message* msg) {
  return Guard(msg, [&] {
    if (!NotNull(buffer, "buffer")->pinned) Fail(ASSAY_ERR_UNSUPPORTED, "this buffer lies on the device");
    *NotNull(address, "address") = buffer->data;
  });
}

char* Range(assay_buffer buffer, uint64_t offset, uint64_t bytes) {
  return backend::Range(*NotNull(buffer, "buffer"), offset, bytes);
}

// --- Streams and events

assay_status StreamCreate(assay_device device, assay_stream* stream, assay_message* msg) {
  return Guard(msg, [&] {
    NotNull(stream, "stream");
    *stream = new assay_stream_s(Use(device));
  });
}

void StreamDestroy(assay_stream stream) {
  if (stream != nullptr) UseDeviceToFree(stream->device->index);
  delete stream;
}

// The stream's device becomes the calling thread's. Nothing but operations can be recorded.
assay_stream UseToRun(assay_stream stream) {
  Use(NotNull(stream, "stream")->device);
  if (stream->recording) Fail(ASSAY_ERR_INVALID, "a plan is being recorded on this stream");
  return stream;
}

assay_status StreamSynchronize(assay_stream stream, assay_message* msg) {
  return Guard(msg, [&] {
    UseToRun(stream);
    Check(GPU_API(StreamSynchronize)(stream->lane.stream), "waiting for the device");
    stream->lane.downloads.HandOver();
  });
}

assay_status EventCreate(assay_device device, assay_event* event, assay_message* msg) {
  return Guard(msg, [&] {
    NotNull(event, "event");
    *event = new assay_event_s(Use(device));
  });
}

void EventDestroy(assay_event event) {
  if (event != nullptr) UseDeviceToFree(event->device->index);
  delete event;
}

assay_status EventRecord(assay_event event, assay_stream stream, assay_message* msg) {
  return Guard(msg, [&] {
    UseToRun(stream);
    Check(GPU_API(EventRecord)(NotNull(event, "event")->event, stream->lane.stream), "recording an event");
    event->recorded = true;
  });
}

gpuEvent Recorded(assay_event event) {
  if (!NotNull(event, "event")->recorded) Fail(ASSAY_ERR_INVALID, "the event was never recorded");
  Use(event->device);
  return event->event;
}

assay_status EventWait(assay_stream stream, assay_event event, assay_message* msg) {
  return Guard(msg, [&] {
    const gpuEvent reached = Recorded(event);
    Check(GPU_API(StreamWaitEvent)(UseToRun(stream)->lane.stream, reached, 0), "waiting for an event");
  });
}

assay_status EventSynchronize(assay_event event, assay_message* msg) {
  return Guard(msg, [&] { Check(GPU_API(EventSynchronize)(Recorded(event)), "waiting for an event"); });
}

assay_status EventElapsedNs(assay_event begin, assay_event end, double* ns, assay_message* msg) {
  return Guard(msg, [&] {
    float ms = 0;
    Check(GPU_API(EventElapsedTime)(&ms, Recorded(begin), Recorded(end)), "reading the time between two events");
    *NotNull(ns, "ns") = static_cast<double>(ms) * 1e6;
  });
}

// --- Copies

assay_status CopyToDevice(assay_stream stream, assay_buffer dst, uint64_t dst_offset, const void* src, uint64_t bytes,
                          assay_message* msg) {
  return Guard(msg, [&] {
    char* to = Range(dst, dst_offset, bytes);
    UseToRun(stream);
    if (bytes > 0) stream->lane.uploads.Copy(to, NotNull(src, "src"), bytes, stream->lane.stream);
  });
}

assay_status CopyToHost(assay_stream stream, void* dst, assay_buffer src, uint64_t src_offset, uint64_t bytes,
                        assay_message* msg) {
  return Guard(msg, [&] {
    const char* from = Range(src, src_offset, bytes);
    UseToRun(stream);
    if (bytes > 0) stream->lane.downloads.Copy(NotNull(dst, "dst"), from, bytes, stream->lane.stream);
  });
}

assay_status CopyOnDevice(assay_stream stream, assay_buffer dst, uint64_t dst_offset, assay_buffer src,
                          uint64_t src_offset, uint64_t bytes, assay_message* msg) {
  return Guard(msg, [&] {
    char* to = Range(dst, dst_offset, bytes);
    const char* from = Range(src, src_offset, bytes);
    CopyAsync(to, from, bytes, Direction::kOnDevice, UseToRun(stream)->lane.stream);
  });
}

// --- Weights

assay_status WeightPackedSize(assay_device device, const assay_weight_desc* desc, uint64_t* bytes, assay_message* msg) {
  return Guard(msg, [&] {
    NotNull(device, "device");
    *NotNull(bytes, "bytes") = gpu::PackedWeightBytes(backend::ReadWeight(GpuRules(), desc));
  });
}

// Rows go up in pieces and are laid out by a kernel.
void PackPieces(assay_device device, const WeightSpec& spec, const void* src, void* packed, const gpu::Queue& queue) {
  constexpr uint64_t kScratchBytes = 64 << 20;
  const uint64_t row_bytes = backend::PlainBytes(spec.dtype, 1, spec.cols);
  const int64_t piece = static_cast<int64_t>(kScratchBytes / row_bytes);
  if (piece == 0)
    Fail(ASSAY_ERR_UNSUPPORTED, "weight: a row of %lld columns is too long", static_cast<long long>(spec.cols));
  if (device->scratch == nullptr) Check(GPU_API(Malloc)(&device->scratch, kScratchBytes), "allocating scratch memory");
  for (int64_t begin = 0; begin < spec.rows; begin += piece) {
    const int64_t count = std::min(piece, spec.rows - begin);
    const char* rows = static_cast<const char*>(src) + static_cast<uint64_t>(begin) * row_bytes;
    device->packing->uploads.Copy(device->scratch, rows, static_cast<uint64_t>(count) * row_bytes, queue.stream);
    gpu::PackRows(spec, device->scratch, begin, count, packed, queue);
    CheckLaunches("packing a weight");
  }
}

assay_status WeightPack(assay_device device, const assay_weight_desc* desc, const void* src, assay_buffer dst,
                        uint64_t offset, assay_message* msg) {
  return Guard(msg, [&] {
    const WeightSpec spec = backend::ReadWeight(GpuRules(), desc);
    NotNull(src, "src");
    const float* scales = backend::ReadScales(spec, desc);
    const uint64_t bytes = gpu::PackedWeightBytes(spec);
    char* to = Range(dst, offset, bytes);
    if (offset % gpu::kWeightAlignment != 0) {
      Fail(ASSAY_ERR_INVALID, "weight: offset %llu is not a multiple of %zu", static_cast<unsigned long long>(offset),
           gpu::kWeightAlignment);
    }
    Use(device);
    constexpr int kBlocks = 4;
    constexpr uint64_t kBlockBytes = 8 << 20;  // large enough for the bus, small enough for the host's cache
    if (!device->packing) device->packing = std::make_unique<Lane>(kBlocks, kBlockBytes, 1);
    gpu::Queue queue = device->queue;
    queue.stream = device->packing->stream;
    if (scales != nullptr) {
      device->packing->uploads.Copy(gpu::RowScales(spec, to), scales, static_cast<uint64_t>(spec.rows) * sizeof(float),
                                    queue.stream);
    }
    const bool plain = spec.dtype == DType::kF32 || spec.dtype == DType::kF16 || spec.dtype == DType::kBF16;
    if (plain && bytes == backend::PlainBytes(spec.dtype, spec.rows, spec.cols)) {  // rows without padding
      device->packing->uploads.Copy(to, src, bytes, queue.stream);
    } else {
      PackPieces(device, spec, src, to, queue);
    }
    Check(GPU_API(StreamSynchronize)(queue.stream), "packing a weight");  // whoever reads it is on another stream
    dst->weights[offset] = spec;
  });
}

// --- Operations

backend::Call Read(const assay_op_desc* desc, const assay_args* args, bool resolve) {
  const backend::Call call = backend::ReadCall(GpuRules(), desc, args, resolve);
  CheckSupported(call);
  return call;
}

assay_status Supports(assay_device device, const assay_op_desc* desc, const assay_args* args, assay_message* msg) {
  return Guard(msg, [&] {
    NotNull(device, "device");
    Read(desc, args, /*resolve=*/false);
  });
}

assay_status WorkspaceSize(assay_device device, const assay_op_desc* desc, const assay_args* args, uint64_t* bytes,
                           assay_message* msg) {
  return Guard(msg, [&] {
    const backend::Call call = Read(desc, args, /*resolve=*/false);
    // Asked at model load, with the largest sizes: the moment to look for the best algorithm.
    if (call.op == ASSAY_OP_LINEAR) Use(device)->TuneLinear(call.weight, call.in[0].shape[0], call.in[0].dtype);
    *NotNull(bytes, "bytes") = WorkspaceBytes(call, NotNull(device, "device")->queue);
  });
}

assay_status Enqueue(assay_stream stream, const assay_op_desc* desc, const assay_args* args, assay_buffer workspace,
                     uint64_t workspace_offset, uint64_t workspace_bytes, const assay_host_lengths* /*lengths*/,
                     assay_message* msg) {
  return Guard(msg, [&] {
    const assay_device device = Use(NotNull(stream, "stream")->device);
    const backend::Call call = Read(desc, args, /*resolve=*/true);
    gpu::Queue queue = device->queue;
    queue.stream = stream->lane.stream;
    const uint64_t needed = WorkspaceBytes(call, queue);
    void* scratch = backend::Scratch(call.op, needed, workspace, workspace_offset, workspace_bytes, kAlignment);
    Run(call, scratch, device->gemm.get(), queue);
    CheckLaunches("launching a kernel");
  });
}

// --- Plans

assay_status PlanBegin(assay_stream stream, assay_message* msg) {
  return Guard(msg, [&] {
    BeginCapture(UseToRun(stream)->lane.stream);
    stream->recording = true;
  });
}

assay_status PlanEnd(assay_stream stream, assay_plan* plan, assay_message* msg) {
  return Guard(msg, [&] {
    NotNull(plan, "plan");
    Use(NotNull(stream, "stream")->device);
    if (!stream->recording) Fail(ASSAY_ERR_INVALID, "no plan is being recorded on this stream");
    stream->recording = false;
    *plan = new assay_plan_s{stream->device, EndCapture(stream->lane.stream)};
  });
}

assay_status PlanLaunch(assay_stream stream, assay_plan plan, const assay_host_lengths* /*lengths*/,
                        assay_message* msg) {
  return Guard(msg, [&] {
    UseToRun(stream);
    Check(GPU_API(GraphLaunch)(NotNull(plan, "plan")->graph, stream->lane.stream), "launching a plan");
  });
}

void PlanDestroy(assay_plan plan) {
  if (plan == nullptr) return;
  UseDeviceToFree(plan->device->index);
  DestroyGraph(plan->graph);
  delete plan;
}

// --- Collectives

#if !defined(ASSAY_GPU_EMULATED)

assay_status CommUniqueId(assay_comm_id* id, assay_message* msg) {
  return Guard(msg, [&] { MakeCommId(NotNull(id, "id")); });
}

assay_status CommCreate(assay_device device, const assay_comm_id* id, int32_t rank, int32_t size, assay_comm* comm,
                        assay_message* msg) {
  return Guard(msg, [&] {
    const auto name = backend::ReadStruct<assay_comm_id>(id, "id");
    *NotNull(comm, "comm") = CreateComm(Use(device), name, rank, size);
  });
}

void CommDestroy(assay_comm comm) {
  if (comm == nullptr) return;
  UseDeviceToFree(comm->device->index);
  DestroyComm(comm);
}

#endif

void FillTable(const assay_host* host, assay_backend* table_of_host) {
  backend::CheckHost(host, table_of_host);
  host_log = host->log;
  assay_backend table{};
  table.abi_version = ASSAY_ABI_VERSION;
  table.name = PlatformName();
  table.version = "0.1.0";
  table.device_count = DeviceCount;
  table.device_info = DeviceInfo;
  table.device_create = DeviceCreate;
  table.device_destroy = DeviceDestroy;
  table.buffer_create = BufferCreate;
  table.buffer_destroy = BufferDestroy;
  table.buffer_map = BufferMap;
  table.stream_create = StreamCreate;
  table.stream_destroy = StreamDestroy;
  table.stream_synchronize = StreamSynchronize;
  table.event_create = EventCreate;
  table.event_destroy = EventDestroy;
  table.event_record = EventRecord;
  table.event_wait = EventWait;
  table.event_synchronize = EventSynchronize;
  table.event_elapsed_ns = EventElapsedNs;
  table.copy_to_device = CopyToDevice;
  table.copy_to_host = CopyToHost;
  table.copy_on_device = CopyOnDevice;
  table.weight_packed_size = WeightPackedSize;
  table.weight_pack = WeightPack;
  table.supports = Supports;
  table.workspace_size = WorkspaceSize;
  table.enqueue = Enqueue;
  table.plan_begin = PlanBegin;
  table.plan_end = PlanEnd;
  table.plan_launch = PlanLaunch;
  table.plan_destroy = PlanDestroy;
  table.telemetry_read = nullptr;  // the host meters cards itself (NVML, the vendors' command lines)
#if !defined(ASSAY_GPU_EMULATED)   // its ranks meet through host memory
  table.comm_unique_id = CommUniqueId;
  table.comm_create = CommCreate;
  table.comm_destroy = CommDestroy;
#endif
  WriteStruct(table, table_of_host, "backend");
}

}  // namespace
}  // namespace assay::backend_cuda

extern "C" assay_status assay_backend_entry(const assay_host* host, assay_backend* backend, assay_message* msg) {
  return assay::backend::Guard(msg, [&] { assay::backend_cuda::FillTable(host, backend); });
}
