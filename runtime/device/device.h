// SPDX-License-Identifier: Apache-2.0
// RAII over the backend ABI (backends/api/assay_backend.h) and the loader that finds backends.
// A Backend outlives its Devices, a Device its Buffers, Streams, Events and Plans (shared ownership sees to it).
// One thread at a time per Device. Every failing call throws Error (or DeviceError) with the backend's own words.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backends/api/assay_backend.h"
#include "runtime/core/error.h"

namespace assay {

// A device failed or is lost, as opposed to bad input.
class DeviceError : public Error {
 public:
  using Error::Error;
};

// Throws what `status` means; does nothing for ASSAY_OK. `what`: the call, for the message.
void CheckStatus(assay_status status, const assay_message& msg, const std::string& what);

// One loaded backend. `path` is empty for the one that is part of this program.
class Backend {
 public:
  // Opens the shared object at `path`, or this program itself if empty, and calls its entry symbol.
  static std::shared_ptr<Backend> Load(const std::string& path);
  ~Backend();
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;

  const assay_backend& table() const { return table_; }
  std::string name() const { return table_.name; }
  const std::string& path() const { return path_; }
  bool has_plans() const { return table_.plan_begin && table_.plan_end && table_.plan_launch && table_.plan_destroy; }

  // The devices present; `reason` says why there are none.
  std::vector<assay_device_info> Devices(std::string* reason) const;

 private:
  Backend() = default;
  void* handle_ = nullptr;
  std::string path_;
  assay_backend table_{};
};

class Device;

class Buffer {
 public:
  Buffer() = default;
  Buffer(std::shared_ptr<Device> device, uint64_t bytes, bool host_visible);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  assay_buffer handle() const { return handle_; }
  uint64_t bytes() const { return bytes_; }
  explicit operator bool() const { return handle_ != nullptr; }

 private:
  std::shared_ptr<Device> device_;
  assay_buffer handle_ = nullptr;
  uint64_t bytes_ = 0;
};

// A tensor's place and shape. A plain value that owns nothing: the Buffer must outlive it.
struct Tensor : assay_tensor {
  Tensor() : assay_tensor{} { struct_size = sizeof(assay_tensor); }
  int64_t dim(int i) const { return shape[i]; }
  // The same memory with the first dimension cut to rows [begin, begin + count).
  Tensor Rows(int64_t begin, int64_t count) const;
  // Columns [begin, begin + count) of a 2-D tensor; rows keep their stride.
  Tensor Columns(int64_t begin, int64_t count) const;
  // A 2-D tensor [T, heads * dim] seen as [T, heads, dim]; rows keep their stride.
  Tensor Heads(int64_t heads, int64_t dim) const;
};
// Contiguous, at `offset` bytes into `buffer` (which may be null for supports/workspace queries).
Tensor MakeTensor(assay_buffer buffer, uint64_t offset, assay_dtype dtype, std::initializer_list<int64_t> shape);
// Bytes that a contiguous tensor of that shape takes.
uint64_t TensorBytes(assay_dtype dtype, std::initializer_list<int64_t> shape);

class Stream {
 public:
  explicit Stream(std::shared_ptr<Device> device);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  assay_stream handle() const { return handle_; }
  Device& device() const { return *device_; }
  void Synchronize();
  void Upload(const Buffer& dst, uint64_t offset, const void* src, uint64_t bytes);
  void Download(void* dst, const Buffer& src, uint64_t offset, uint64_t bytes);  // valid after Synchronize
  void Copy(const Tensor& dst, const Tensor& src, uint64_t bytes);               // from buffer to buffer

 private:
  std::shared_ptr<Device> device_;
  assay_stream handle_ = nullptr;
};

class Event {
 public:
  explicit Event(std::shared_ptr<Device> device);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void Record(Stream& stream);
  void Synchronize();
  // Device time from `begin` to this event; both must have been reached.
  double ElapsedNsSince(const Event& begin) const;

 private:
  std::shared_ptr<Device> device_;
  assay_event handle_ = nullptr;
};

// Work recorded on a stream, to be launched many times (tier 1 of the ABI).
class Plan {
 public:
  // From here to End, what is enqueued on the stream is recorded and does not run.
  explicit Plan(Stream& stream);
  void End();
  ~Plan();  // without End, the stream leaves recording and what was recorded is dropped
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  void Launch(const assay_host_lengths* lengths);

 private:
  Stream* stream_;
  assay_plan handle_ = nullptr;
};

// One operation with its descriptor and tensors, ready for supports/workspace_size/enqueue.
struct OpCall {
  const assay_op_desc* desc = nullptr;
  std::vector<const assay_tensor*> in;  // entries may be null where the operation says "opt"
  std::vector<const assay_tensor*> out;
  assay_args args() const;
};

class Device : public std::enable_shared_from_this<Device> {
 public:
  // index: which of backend->Devices(). threads: for CPU devices, 0 = all usable cores.
  static std::shared_ptr<Device> Open(std::shared_ptr<Backend> backend, int32_t index, int32_t threads);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  assay_device handle() const { return handle_; }
  const assay_device_info& info() const { return info_; }
  const assay_backend& table() const { return backend_->table(); }
  const Backend& backend() const { return *backend_; }
  std::string id() const { return info_.id; }

  // Empty if the device runs this operation, else the reason.
  std::string WhyUnsupported(const OpCall& call) const;
  uint64_t WorkspaceSize(const OpCall& call) const;
  void Enqueue(Stream& stream, const OpCall& call, const Buffer& workspace, const assay_host_lengths* lengths) const;

  // Where the host finds a tensor's first element. Throws Error if it cannot reach the device's memory.
  void* HostAddress(const Tensor& tensor) const;

  uint64_t PackedBytes(const assay_weight_desc& desc) const;
  void PackWeight(const assay_weight_desc& desc, const void* src, const Buffer& dst, uint64_t offset) const;

  // What the device tells of its energy, power, heat and clocks; from any thread, at any time. What it does not know is
  // NaN or UINT64_MAX. Fails, in one line, where the backend has no telemetry (or is older than it) or cannot read it.
  bool has_telemetry() const { return table().telemetry_read != nullptr; }
  Result<assay_telemetry> ReadTelemetry() const;

 private:
  Device(std::shared_ptr<Backend> backend, assay_device_info info);
  std::shared_ptr<Backend> backend_;
  assay_device_info info_{};
  assay_device handle_ = nullptr;
};

// What a user may write after --device, resolved.
struct DeviceChoice {
  std::shared_ptr<Backend> backend;
  int32_t index = 0;
  assay_device_info info{};
  std::string reason;  // why this one, one clause for people: "the only device", "named by --device"
};
// `spec`: "" (the best present: accelerators before CPUs, never a reference device), a device id ("cpu", "ref",
// "cuda:0"), or the path of a plug-in, optionally with ":INDEX". Throws Error listing what exists.
DeviceChoice ChooseDevice(const std::string& spec);

// Every device that this program finds: the built-in backend, and backends beside the program.
struct FoundBackend {
  std::shared_ptr<Backend> backend;  // null if it could not be loaded
  std::string where;                 // "built in" or a path
  std::vector<assay_device_info> devices;
  std::string note;  // why there are no devices
};
std::vector<FoundBackend> FindBackends();

}  // namespace assay
