// SPDX-License-Identifier: Apache-2.0
// The built-in backend behind a table with telemetry and a pace of its own, by environment variables:
//   SCRIPTED_WATTS=W    telemetry: an energy counter of W watts that moves every 20 ms, and a power of W
//   SCRIPTED_CROSS=X    the power reads X times that
//   SCRIPTED_HEAD=MS    a pretended H100 on which the product that measures the limit takes 20 ms and reading 256 MiB
//                       10 ms (neither is computed), and a model's head MS milliseconds more, slept
//   SCRIPTED_STEP=MS    then also: so long for bringing a step's inputs over, which is no operation's time
//   SCRIPTED_DEVICES=N   N accelerators, each the built-in CPU
//   SCRIPTED_DEAD=I      and the one of index I fails when it launches a plan
//   SCRIPTED_COMM=1      and they have collectives of their own, no plans, and memory that the host cannot reach
// Sleeping, unlike computing, takes hardly longer on a busy machine.
#include <dlfcn.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "backends/api/assay_backend.h"

struct assay_comm_s {
  int32_t rank, size;
};

namespace {

constexpr int64_t kVocabulary = 171;  // of the checkpoint that the tests run

assay_backend real;

double Number(const char* name, double otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atof(text) : otherwise;
}

void SleepMs(double ms) {
  std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(ms));
}

assay_status Telemetry(assay_device, assay_telemetry* t, assay_message*) {
  constexpr double kTickS = 0.02;
  const double now_s = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  const double watts = Number("SCRIPTED_WATTS", 0);
  t->timestamp_ns = static_cast<uint64_t>(now_s * 1e9);
  t->energy_uj = static_cast<uint64_t>(std::floor(now_s / kTickS) * kTickS * watts * 1e6);
  t->energy_period_us = static_cast<uint64_t>(kTickS * 1e6);
  t->power_w = watts * Number("SCRIPTED_CROSS", 1);
  t->power_period_s = kTickS;
  t->temperature_c = 55;
  t->clock_mhz = 2000;
  t->memory_clock_mhz = NAN;
  t->throttle_reasons = 0;
  t->memory_used = t->error_count = UINT64_MAX;
  std::strcpy(t->source, "a script");
  return ASSAY_OK;
}

assay_status DeviceInfo(int32_t index, assay_device_info* info, assay_message* msg) {
  const assay_status status = real.device_info(index, info, msg);
  if (status != ASSAY_OK || info->is_reference) return status;
  info->is_accelerator = 1;
  std::strcpy(info->name, "NVIDIA H100 80GB HBM3");
  info->memory_bytes = 80ull << 30;
  return status;
}

// Each rank of one process drives its device from a thread of its own.
thread_local int32_t created = 0;

assay_status DeviceCount(int32_t* count, const char** reason, assay_message*) {
  *count = static_cast<int32_t>(Number("SCRIPTED_DEVICES", 1));
  if (reason) *reason = nullptr;
  return ASSAY_OK;
}

assay_status DeviceInfoOfMany(int32_t index, assay_device_info* info, assay_message* msg) {
  const assay_status status = real.device_info(0, info, msg);
  info->is_accelerator = 1;
  std::snprintf(info->id, sizeof(info->id), "scripted:%d", index);
  return status;
}

assay_status DeviceCreateOfMany(int32_t index, const assay_device_options* options, assay_device* device,
                                assay_message* msg) {
  created = index;
  return real.device_create(0, options, device, msg);
}

assay_status PlanLaunchOfMany(assay_stream stream, assay_plan plan, const assay_host_lengths* lengths,
                              assay_message* msg) {
  if (created != Number("SCRIPTED_DEAD", -1)) return real.plan_launch(stream, plan, lengths, msg);
  std::snprintf(msg->text, sizeof(msg->text), "scripted:%d fell off the bus", created);
  return ASSAY_ERR_DEVICE;
}

// --- Collectives: the ranks show each other where their tensors are.

constexpr char kCommId[] = "scripted";
std::mutex meeting_mutex;
std::unique_ptr<std::barrier<>> meeting;
std::vector<float*> shown;

float* Address(const assay_tensor& tensor) {
  void* base = nullptr;
  real.buffer_map(tensor.buffer, &base, nullptr);
  return reinterpret_cast<float*>(static_cast<char*>(base) + tensor.offset);
}

assay_status CommId(assay_comm_id* id, assay_message*) {
  std::memcpy(id->bytes, kCommId, sizeof(kCommId));
  return ASSAY_OK;
}

assay_status CommCreate(assay_device, const assay_comm_id* id, int32_t rank, int32_t size, assay_comm* comm,
                        assay_message*) {
  if (std::memcmp(id->bytes, kCommId, sizeof(kCommId)) != 0 || rank != created) return ASSAY_ERR_INVALID;
  {
    const std::lock_guard lock(meeting_mutex);
    if (!meeting) meeting = std::make_unique<std::barrier<>>(size);
    shown.resize(static_cast<size_t>(size));
  }
  meeting->arrive_and_wait();
  *comm = new assay_comm_s{rank, size};
  return ASSAY_OK;
}

void CommDestroy(assay_comm comm) {
  delete comm;
}

bool IsCollective(const assay_op_desc* desc) {
  return desc->op == ASSAY_OP_ALL_REDUCE || desc->op == ASSAY_OP_ALL_GATHER;
}

assay_status EnqueueOrExchange(assay_stream stream, const assay_op_desc* desc, const assay_args* args,
                               assay_buffer workspace, uint64_t offset, uint64_t bytes,
                               const assay_host_lengths* lengths, assay_message* msg) {
  if (!IsCollective(desc)) return real.enqueue(stream, desc, args, workspace, offset, bytes, lengths, msg);
  const assay_comm comm = reinterpret_cast<const assay_comm_desc*>(desc)->comm;
  const assay_tensor &x = *args->in[0], &y = *args->out[0];
  const int64_t rows = x.shape[0], part = x.shape[1], columns = y.shape[1];
  shown[static_cast<size_t>(comm->rank)] = Address(x);
  meeting->arrive_and_wait();
  std::vector<float> result(static_cast<size_t>(rows * columns));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t c = 0; c < columns; ++c) {
      float& value = result[static_cast<size_t>(row * columns + c)];
      if (desc->op == ASSAY_OP_ALL_GATHER) value = shown[static_cast<size_t>(c / part)][row * part + c % part];
      if (desc->op != ASSAY_OP_ALL_REDUCE) continue;
      for (const float* other : shown) value += other[row * part + c];
    }
  }
  meeting->arrive_and_wait();
  std::copy(result.begin(), result.end(), Address(y));
  return ASSAY_OK;
}

assay_status Supports(assay_device device, const assay_op_desc* desc, const assay_args* args, assay_message* msg) {
  return IsCollective(desc) ? ASSAY_OK : real.supports(device, desc, args, msg);
}

assay_status WorkspaceSize(assay_device device, const assay_op_desc* desc, const assay_args* args, uint64_t* bytes,
                           assay_message* msg) {
  *bytes = 0;
  return IsCollective(desc) ? ASSAY_OK : real.workspace_size(device, desc, args, bytes, msg);
}

std::set<assay_buffer> visible;  // to the host
std::mutex visible_mutex;

assay_status BufferCreate(assay_device device, uint64_t bytes, int32_t host_visible, assay_buffer* buffer,
                          assay_message* msg) {
  const assay_status status = real.buffer_create(device, bytes, host_visible, buffer, msg);
  const std::lock_guard lock(visible_mutex);
  if (status == ASSAY_OK && host_visible) visible.insert(*buffer);
  if (status == ASSAY_OK && !host_visible) visible.erase(*buffer);  // a handle may come again
  return status;
}

assay_status BufferMap(assay_buffer buffer, void** address, assay_message* msg) {
  const std::lock_guard lock(visible_mutex);
  return visible.contains(buffer) ? real.buffer_map(buffer, address, msg) : ASSAY_ERR_UNSUPPORTED;
}

void DropPlans(assay_backend* table) {
  table->plan_begin = nullptr;
  table->plan_end = nullptr;
  table->plan_launch = nullptr;
  table->plan_destroy = nullptr;
}

assay_status Enqueue(assay_stream stream, const assay_op_desc* desc, const assay_args* args, assay_buffer workspace,
                     uint64_t offset, uint64_t bytes, const assay_host_lengths* lengths, assay_message* msg) {
  if (desc->op == ASSAY_OP_PROBE_READ) {
    SleepMs(10.0 * static_cast<double>(args->in[0]->shape[0]) / (256 << 20));
    return ASSAY_OK;
  }
  if (desc->op == ASSAY_OP_LINEAR) {
    const int64_t columns = args->out[0]->shape[1];
    if (args->in[0]->shape[0] == 1024 && columns == 2048) {
      SleepMs(20);
      return ASSAY_OK;
    }
    if (columns == kVocabulary) SleepMs(Number("SCRIPTED_HEAD", 0));
  }
  return real.enqueue(stream, desc, args, workspace, offset, bytes, lengths, msg);
}

assay_status CopyToDevice(assay_stream stream, assay_buffer dst, uint64_t dst_offset, const void* src, uint64_t bytes,
                          assay_message* msg) {
  constexpr uint64_t kStepInputs = 64 << 10;  // what a step brings over is smaller, weights and probes are larger
  if (bytes < kStepInputs) SleepMs(Number("SCRIPTED_STEP", 0));
  return real.copy_to_device(stream, dst, dst_offset, src, bytes, msg);
}

}  // namespace

assay_status assay_backend_entry(const assay_host* host, assay_backend* backend, assay_message* msg) {
  // The program's own entry, not this one: a plug-in is loaded with local symbols.
  auto* entry = reinterpret_cast<assay_backend_entry_fn>(dlsym(dlopen(nullptr, RTLD_NOW), ASSAY_BACKEND_ENTRY_SYMBOL));
  real.struct_size = sizeof(real);
  const assay_status status = entry(host, &real, msg);
  if (status != ASSAY_OK) return status;
  const uint32_t size = std::min(backend->struct_size, real.struct_size);
  assay_backend table = real;
  table.struct_size = size;
  table.name = "scripted";
  if (std::getenv("SCRIPTED_WATTS")) table.telemetry_read = Telemetry;
  if (std::getenv("SCRIPTED_DEVICES")) {
    table.device_count = DeviceCount;
    table.device_info = DeviceInfoOfMany;
    table.device_create = DeviceCreateOfMany;
    table.plan_launch = PlanLaunchOfMany;
  }
  if (std::getenv("SCRIPTED_HEAD")) {
    table.device_info = DeviceInfo;
    table.enqueue = Enqueue;
    table.copy_to_device = CopyToDevice;
    DropPlans(&table);  // what is recorded would sleep once, and not when it is launched
  }
  if (std::getenv("SCRIPTED_COMM")) {
    table.buffer_create = BufferCreate;
    table.buffer_map = BufferMap;
    table.supports = Supports;
    table.workspace_size = WorkspaceSize;
    table.enqueue = EnqueueOrExchange;
    table.comm_unique_id = CommId;
    table.comm_create = CommCreate;
    table.comm_destroy = CommDestroy;
    DropPlans(&table);
  }
  std::memcpy(backend, &table, size);
  return ASSAY_OK;
}
