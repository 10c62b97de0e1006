// SPDX-License-Identifier: Apache-2.0
// The function table of the CPU backend: two devices, "cpu" (fast kernels, a team of threads) and "ref" (the scalar
// specification, one thread). Nothing is asynchronous: see device.h.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <string>

#include "backends/common/table.h"
#include "backends/cpu/device.h"
#include "backends/cpu/host_info.h"
#include "backends/cpu/operation.h"
#include "kernels/cpu/isa.h"

namespace assay::backend_cpu {
namespace {

using backend::Fail;
using backend::Fill;
using backend::Guard;
using backend::NotNull;
using backend::ReadStruct;
using backend::WriteStruct;

constexpr int32_t kCpu = 0;
constexpr int32_t kRef = 1;
constexpr int32_t kDevices = 2;
constexpr int kMaxThreads = 4096;
constexpr uint64_t kAlignment = 64;  // a cache line, and the widest vector

void CheckIndex(int32_t index) {
  if (index < 0 || index >= kDevices) Fail(ASSAY_ERR_INVALID, "there is no device %d", index);
}

template <size_t kRoom>
void FillText(char (&text)[kRoom], const std::string& value) {
  std::snprintf(text, kRoom, "%s", value.c_str());
}

// --- Devices

assay_status DeviceCount(int32_t* count, const char** reason, assay_message* msg) {
  return Guard(msg, [&] {
    *NotNull(count, "count") = kDevices;
    if (reason != nullptr) *reason = nullptr;
  });
}

assay_device_info Describe(int32_t index) {
  const bool reference = index == kRef;
  const int threads = reference ? 1 : UsableThreads();
  const HostMemory memory = ReadHostMemory();
  assay_device_info info{};
  info.is_reference = reference;
  FillText(info.id, reference ? "ref" : "cpu");
  FillText(info.name, reference ? CpuName() + " (scalar reference)" : CpuName());
  FillText(info.detail, reference ? "plain C++, sums in double" : cpu::IsaName(cpu::CurrentIsa()));
  info.memory_bytes = memory.total;
  info.memory_free = memory.available;
  info.compute_units = threads;
  if (reference) {
    Fill(info.act_dtypes, {ASSAY_F32, ASSAY_BF16, ASSAY_F16});
    Fill(info.kv_dtypes, {ASSAY_F32, ASSAY_BF16, ASSAY_F16, ASSAY_F8_E4M3});
    Fill(info.weight_dtypes,
         {ASSAY_F32, ASSAY_F16, ASSAY_BF16, ASSAY_Q8_0, ASSAY_Q4_0, ASSAY_Q4_1, ASSAY_Q5_0, ASSAY_Q5_1, ASSAY_Q4_K,
          ASSAY_Q5_K, ASSAY_Q6_K, ASSAY_F8_B128, ASSAY_I4_G128, ASSAY_F8_E4M3, ASSAY_I8});
  } else {
    Fill(info.act_dtypes, {ASSAY_F32});
    Fill(info.kv_dtypes, {ASSAY_BF16, ASSAY_F16, ASSAY_F32, ASSAY_F8_E4M3});
    Fill(info.weight_dtypes, {ASSAY_F32, ASSAY_F16, ASSAY_BF16, ASSAY_Q8_0, ASSAY_Q4_0, ASSAY_Q4_1, ASSAY_Q5_0,
                              ASSAY_Q5_1, ASSAY_Q4_K, ASSAY_Q5_K, ASSAY_Q6_K, ASSAY_I4_G128, ASSAY_I8});
  }
  Fill(info.kv_block_sizes, {32, 16, 64, 128});
  Fill(info.kv_layouts, {ASSAY_KV_HND, ASSAY_KV_NHD});
  info.max_head_dim = cpu::kMaxHeadDim;
  info.buffer_alignment = kAlignment;
  info.weight_alignment = cpu::kWeightAlignment;
  return info;
}

assay_status DeviceInfo(int32_t index, assay_device_info* info, assay_message* msg) {
  return Guard(msg, [&] {
    CheckIndex(index);
    WriteStruct(Describe(index), info, "info");
  });
}

assay_status DeviceCreate(int32_t index, const assay_device_options* options, assay_device* device,
                          assay_message* msg) {
  return Guard(msg, [&] {
    CheckIndex(index);
    NotNull(device, "device");
    int threads = 1;
    if (index == kCpu) {
      cpu::CurrentIsa();  // refuses a malformed ASSAY_ISA here, not in a kernel
      if (!cpu::TilesAgree()) {
        Fail(ASSAY_ERR_DEVICE,
             "the AMX tiles of this processor do not compute what its vectors do; "
             "--isa avx512_bf16 leaves them alone");
      }
      const int32_t asked = options == nullptr ? 0 : ReadStruct<assay_device_options>(options, "options").threads;
      if (asked < 0 || asked > kMaxThreads) {
        Fail(ASSAY_ERR_INVALID, "%d threads were asked for; 0 (one per core) to %d are possible", asked, kMaxThreads);
      }
      threads = asked > 0 ? asked : UsableThreads();
    }
    *device = new assay_device_s(index == kRef, threads);
  });
}

void DeviceDestroy(assay_device device) {
  delete device;
}

// --- Buffers

assay_status BufferCreate(assay_device device, uint64_t bytes, int32_t /*host_visible*/, assay_buffer* buffer,
                          assay_message* msg) {
  return Guard(msg, [&] {
    NotNull(buffer, "buffer");
    *buffer = new assay_buffer_s(NotNull(device, "device"), bytes);
  });
}

void BufferDestroy(assay_buffer buffer) {
  delete buffer;
}

assay_status BufferMap(assay_buffer buffer, void** address, assay_message* msg) {
  return Guard(msg, [&] { *NotNull(address, "address") = NotNull(buffer, "buffer")->data; });
}

char* Range(assay_buffer buffer, uint64_t offset, uint64_t bytes) {
  return backend::Range(*NotNull(buffer, "buffer"), offset, bytes);
}

// --- Streams and events

assay_status StreamCreate(assay_device device, assay_stream* stream, assay_message* msg) {
  return Guard(msg, [&] {
    NotNull(stream, "stream");
    *stream = new assay_stream_s{NotNull(device, "device"), nullptr};
  });
}

void StreamDestroy(assay_stream stream) {
  delete stream;
}

void RefuseWhileRecording(assay_stream stream) {
  if (NotNull(stream, "stream")->recording) Fail(ASSAY_ERR_INVALID, "a plan is being recorded on this stream");
}

assay_status StreamSynchronize(assay_stream stream, assay_message* msg) {
  return Guard(msg, [&] { RefuseWhileRecording(stream); });
}

assay_status EventCreate(assay_device device, assay_event* event, assay_message* msg) {
  return Guard(msg, [&] {
    NotNull(device, "device");
    NotNull(event, "event");
    *event = new assay_event_s;
  });
}

void EventDestroy(assay_event event) {
  delete event;
}

assay_status EventRecord(assay_event event, assay_stream stream, assay_message* msg) {
  return Guard(msg, [&] {
    RefuseWhileRecording(stream);
    NotNull(event, "event")->reached = true;
    event->time_ns = std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
  });
}

void CheckReached(assay_event event) {
  if (!NotNull(event, "event")->reached) Fail(ASSAY_ERR_INVALID, "the event was never recorded");
}

assay_status EventWait(assay_stream stream, assay_event event, assay_message* msg) {
  return Guard(msg, [&] {
    RefuseWhileRecording(stream);
    CheckReached(event);
  });
}

assay_status EventSynchronize(assay_event event, assay_message* msg) {
  return Guard(msg, [&] { CheckReached(event); });
}

assay_status EventElapsedNs(assay_event begin, assay_event end, double* ns, assay_message* msg) {
  return Guard(msg, [&] {
    CheckReached(begin);
    CheckReached(end);
    *NotNull(ns, "ns") = static_cast<double>(end->time_ns - begin->time_ns);
  });
}

// --- Copies

assay_status CopyToDevice(assay_stream stream, assay_buffer dst, uint64_t dst_offset, const void* src, uint64_t bytes,
                          assay_message* msg) {
  return Guard(msg, [&] {
    RefuseWhileRecording(stream);
    char* to = Range(dst, dst_offset, bytes);
    if (bytes > 0) std::memcpy(to, NotNull(src, "src"), bytes);
  });
}

assay_status CopyToHost(assay_stream stream, void* dst, assay_buffer src, uint64_t src_offset, uint64_t bytes,
                        assay_message* msg) {
  return Guard(msg, [&] {
    RefuseWhileRecording(stream);
    const char* from = Range(src, src_offset, bytes);
    if (bytes > 0) std::memcpy(NotNull(dst, "dst"), from, bytes);
  });
}

assay_status CopyOnDevice(assay_stream stream, assay_buffer dst, uint64_t dst_offset, assay_buffer src,
                          uint64_t src_offset, uint64_t bytes, assay_message* msg) {
  return Guard(msg, [&] {
    RefuseWhileRecording(stream);
    char* to = Range(dst, dst_offset, bytes);
    std::memmove(to, Range(src, src_offset, bytes), bytes);
  });
}

// --- Weights

// The reference keeps weights as they come; a row's scale behind the row.
uint64_t ReferenceRowBytes(const WeightSpec& spec) {
  return backend::PlainBytes(spec.dtype, 1, spec.cols) + (IsRowScaled(spec.dtype) ? sizeof(float) : 0);
}

void PackReference(const WeightSpec& spec, const void* src, const float* scales, char* to) {
  const uint64_t row_bytes = backend::PlainBytes(spec.dtype, 1, spec.cols), pitch = ReferenceRowBytes(spec);
  for (int64_t row = 0; row < spec.rows; ++row, to += pitch) {
    std::memcpy(to, static_cast<const char*>(src) + static_cast<uint64_t>(row) * row_bytes, row_bytes);
    if (scales != nullptr) std::memcpy(to + row_bytes, scales + row, sizeof(float));
  }
}

WeightSpec ReadWeight(assay_device device, const assay_weight_desc* desc, uint64_t* bytes) {
  const bool reference = NotNull(device, "device")->reference;
  const WeightSpec spec = backend::ReadWeight(RulesOf(reference), desc);
  *bytes = reference ? static_cast<uint64_t>(spec.rows) * ReferenceRowBytes(spec) : cpu::PackedWeightBytes(spec);
  return spec;
}

assay_status WeightPackedSize(assay_device device, const assay_weight_desc* desc, uint64_t* bytes, assay_message* msg) {
  return Guard(msg, [&] { ReadWeight(device, desc, NotNull(bytes, "bytes")); });
}

assay_status WeightPack(assay_device device, const assay_weight_desc* desc, const void* src, assay_buffer dst,
                        uint64_t offset, assay_message* msg) {
  return Guard(msg, [&] {
    uint64_t bytes = 0;
    const WeightSpec spec = ReadWeight(device, desc, &bytes);
    NotNull(src, "src");
    char* to = Range(dst, offset, bytes);
    if (offset % cpu::kWeightAlignment != 0) {
      Fail(ASSAY_ERR_INVALID, "weight: offset %llu is not a multiple of %zu", static_cast<unsigned long long>(offset),
           cpu::kWeightAlignment);
    }
    const float* const scales = backend::ReadScales(spec, desc);
    if (device->reference) {
      PackReference(spec, src, scales, to);
    } else {
      device->pool.Run([&](const cpu::Team& team) { cpu::PackWeight(spec, src, scales, to, team); });
    }
    dst->weights[offset] = spec;
  });
}

// --- Operations

assay_status Supports(assay_device device, const assay_op_desc* desc, const assay_args* args, assay_message* msg) {
  return Guard(msg, [&] { Bind(desc, args, NotNull(device, "device")->reference, /*resolve=*/false); });
}

assay_status WorkspaceSize(assay_device device, const assay_op_desc* desc, const assay_args* args, uint64_t* bytes,
                           assay_message* msg) {
  return Guard(msg, [&] {
    const Operation operation = Bind(desc, args, NotNull(device, "device")->reference, /*resolve=*/false);
    *NotNull(bytes, "bytes") = WorkspaceBytes(operation, device->pool.size());
  });
}

assay_status Enqueue(assay_stream stream, const assay_op_desc* desc, const assay_args* args, assay_buffer workspace,
                     uint64_t workspace_offset, uint64_t workspace_bytes, const assay_host_lengths* /*lengths*/,
                     assay_message* msg) {
  return Guard(msg, [&] {
    assay_device_s* device = NotNull(stream, "stream")->device;
    Operation operation = Bind(desc, args, device->reference, /*resolve=*/true);
    const uint64_t needed = WorkspaceBytes(operation, device->pool.size());
    operation.workspace =
        backend::Scratch(operation.op, needed, workspace, workspace_offset, workspace_bytes, kAlignment);
    if (stream->recording) {
      stream->recording->operations.push_back(operation);
    } else {
      device->pool.Run([&](const cpu::Team& team) { Execute(operation, team); });
    }
  });
}

// --- Plans

assay_status PlanBegin(assay_stream stream, assay_message* msg) {
  return Guard(msg, [&] {
    RefuseWhileRecording(stream);
    stream->recording = std::make_unique<assay_plan_s>();
  });
}

assay_status PlanEnd(assay_stream stream, assay_plan* plan, assay_message* msg) {
  return Guard(msg, [&] {
    NotNull(plan, "plan");
    if (!NotNull(stream, "stream")->recording) Fail(ASSAY_ERR_INVALID, "no plan is being recorded on this stream");
    stream->recording->operations.shrink_to_fit();
    *plan = stream->recording.release();
  });
}

bool IsFastLinear(const Operation& operation) {
  return operation.op == ASSAY_OP_LINEAR && !operation.reference;
}

// Between two products of a decode step lie small operations that leave the memory idle: there the beginning of the
// next weight is asked for. Few rows of x: with many, products are bound by arithmetic.
void PrefetchNextWeight(const std::vector<Operation>& operations, size_t from, const cpu::Team& team) {
  constexpr int64_t kRows = 8;
  constexpr int64_t kBytes = 64 << 10;  // what memory delivers in the microseconds that those operations take
  const size_t end = std::min(operations.size(), from + 4);
  for (size_t i = from; i < end; ++i) {
    const Operation& o = operations[i];
    if (!IsFastLinear(o)) continue;
    if (o.in[0].shape[0] <= kRows) cpu::PrefetchWeight(o.weight, o.in[0].shape[0], o.in[1].data, kBytes, team);
    return;
  }
}

assay_status PlanLaunch(assay_stream stream, assay_plan plan, const assay_host_lengths* /*lengths*/,
                        assay_message* msg) {
  return Guard(msg, [&] {
    RefuseWhileRecording(stream);
    const std::vector<Operation>& operations = NotNull(plan, "plan")->operations;
    stream->device->pool.Run([&](const cpu::Team& team) {
      for (size_t i = 0; i < operations.size(); ++i) {
        if (i > 0) team.Barrier();
        Execute(operations[i], team);
        if (!IsFastLinear(operations[i]) && (i == 0 || IsFastLinear(operations[i - 1]))) {
          PrefetchNextWeight(operations, i + 1, team);
        }
      }
    });
  });
}

void PlanDestroy(assay_plan plan) {
  delete plan;
}

void FillTable(const assay_host* host, assay_backend* table_of_host) {
  backend::CheckHost(host, table_of_host);
  assay_backend table{};
  table.abi_version = ASSAY_ABI_VERSION;
  table.name = "cpu";
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
  table.telemetry_read = nullptr;  // the host meters CPUs itself (RAPL)
  WriteStruct(table, table_of_host, "backend");
}

}  // namespace
}  // namespace assay::backend_cpu

extern "C" assay_status assay_backend_entry(const assay_host* host, assay_backend* backend, assay_message* msg) {
  return assay::backend::Guard(msg, [&] { assay::backend_cpu::FillTable(host, backend); });
}
