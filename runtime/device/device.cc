// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/device.h"

#include <spdlog/spdlog.h>

#include <limits>

#include "runtime/core/dtype.h"

namespace assay {
namespace {

assay_message NewMessage() {
  assay_message msg{};
  msg.struct_size = sizeof(msg);
  return msg;
}

}  // namespace

void CheckStatus(assay_status status, const assay_message& msg, const std::string& what) {
  if (status == ASSAY_OK) return;
  const std::string text(msg.text, strnlen(msg.text, sizeof(msg.text)));
  const std::string line = what + ": " + (text.empty() ? "failed with status " + std::to_string(status) : text);
  if (status == ASSAY_ERR_DEVICE) throw DeviceError(line);
  throw Error(line);
}

// ---------------------------------------------------------------------------------------------- Device

Device::Device(std::shared_ptr<Backend> backend, assay_device_info info) : backend_(std::move(backend)), info_(info) {}

std::shared_ptr<Device> Device::Open(std::shared_ptr<Backend> backend, int32_t index, int32_t threads) {
  assay_message msg = NewMessage();
  assay_device_info info{};
  info.struct_size = sizeof(info);
  CheckStatus(backend->table().device_info(index, &info, &msg), msg, backend->name() + " device info");
  std::shared_ptr<Device> device(new Device(std::move(backend), info));
  assay_device_options options{};
  options.struct_size = sizeof(options);
  options.threads = threads;
  CheckStatus(device->table().device_create(index, &options, &device->handle_, &msg), msg,
              "opening device " + std::string(info.id));
  // Again: what is free is known for sure only of a device that is open.
  CheckStatus(device->table().device_info(index, &device->info_, &msg), msg, device->backend().name() + " device info");
  return device;
}

Device::~Device() {
  if (handle_) table().device_destroy(handle_);
}

assay_args OpCall::args() const {
  assay_args a{};
  a.struct_size = sizeof(a);
  a.n_in = static_cast<uint32_t>(in.size());
  a.n_out = static_cast<uint32_t>(out.size());
  a.in = in.data();
  a.out = out.data();
  return a;
}

std::string Device::WhyUnsupported(const OpCall& call) const {
  assay_message msg = NewMessage();
  const assay_args args = call.args();
  const assay_status status = table().supports(handle_, call.desc, &args, &msg);
  if (status == ASSAY_OK) return "";
  return msg.text[0] ? msg.text : "refused with status " + std::to_string(status);
}

uint64_t Device::WorkspaceSize(const OpCall& call) const {
  assay_message msg = NewMessage();
  const assay_args args = call.args();
  uint64_t bytes = 0;
  CheckStatus(table().workspace_size(handle_, call.desc, &args, &bytes, &msg), msg, "workspace_size");
  return bytes;
}

void Device::Enqueue(Stream& stream, const OpCall& call, const Buffer& workspace,
                     const assay_host_lengths* lengths) const {
  assay_message msg = NewMessage();
  const assay_args args = call.args();
  const assay_status status =
      table().enqueue(stream.handle(), call.desc, &args, workspace.handle(), 0, workspace.bytes(), lengths, &msg);
  if (status != ASSAY_OK) CheckStatus(status, msg, "enqueue");
}

void* Device::HostAddress(const Tensor& tensor) const {
  assay_message msg = NewMessage();
  void* base = nullptr;
  CheckStatus(table().buffer_map(tensor.buffer, &base, &msg), msg, "reaching the memory of " + id());
  return static_cast<uint8_t*>(base) + tensor.offset;
}

uint64_t Device::PackedBytes(const assay_weight_desc& desc) const {
  assay_message msg = NewMessage();
  uint64_t bytes = 0;
  CheckStatus(table().weight_packed_size(handle_, &desc, &bytes, &msg), msg, "weight_packed_size");
  return bytes;
}

void Device::PackWeight(const assay_weight_desc& desc, const void* src, const Buffer& dst, uint64_t offset) const {
  assay_message msg = NewMessage();
  CheckStatus(table().weight_pack(handle_, &desc, src, dst.handle(), offset, &msg), msg, "weight_pack");
}

Result<assay_telemetry> Device::ReadTelemetry() const {
  using Told = Result<assay_telemetry>;
  if (!has_telemetry()) return Told::Fail("backend " + backend_->name() + " has no telemetry");
  // Set beforehand, so that what an older backend does not know of reads as unknown.
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  assay_telemetry told{};
  told.struct_size = sizeof(told);
  told.timestamp_ns = told.energy_uj = told.energy_period_us = UINT64_MAX;
  told.power_w = told.power_period_s = told.temperature_c = told.clock_mhz = told.memory_clock_mhz = kNaN;
  told.throttle_reasons = told.memory_used = told.error_count = UINT64_MAX;
  assay_message msg = NewMessage();
  try {
    CheckStatus(table().telemetry_read(handle_, &told, &msg), msg, "telemetry of " + id());
  } catch (const Error& error) {
    return Told::Fail(error.what());
  }
  told.source[sizeof(told.source) - 1] = '\0';
  return told;
}

// ---------------------------------------------------------------------------------------------- Buffer

Buffer::Buffer(std::shared_ptr<Device> device, uint64_t bytes, bool host_visible)
    : device_(std::move(device)), bytes_(bytes) {
  assay_message msg = NewMessage();
  CheckStatus(device_->table().buffer_create(device_->handle(), bytes, host_visible, &handle_, &msg), msg,
              "allocating " + std::to_string(bytes) + " bytes on " + device_->id());
}

Buffer::~Buffer() {
  if (handle_) device_->table().buffer_destroy(handle_);
}

Buffer::Buffer(Buffer&& other) noexcept
    : device_(std::move(other.device_)),
      handle_(std::exchange(other.handle_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(handle_, other.handle_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

// ---------------------------------------------------------------------------------------------- Tensor

Tensor MakeTensor(assay_buffer buffer, uint64_t offset, assay_dtype dtype, std::initializer_list<int64_t> shape) {
  ASSAY_CHECK(shape.size() >= 1 && shape.size() <= ASSAY_MAX_DIMS);
  Tensor t;
  t.dtype = dtype;
  t.ndim = static_cast<int32_t>(shape.size());
  t.buffer = buffer;
  t.offset = offset;
  for (int i = 0; i < ASSAY_MAX_DIMS; ++i) t.shape[i] = i < t.ndim ? shape.begin()[i] : 1;
  int64_t stride = 1;
  for (int i = t.ndim - 1; i >= 0; --i) {
    t.stride[i] = stride;
    stride *= t.shape[i];
  }
  return t;
}

uint64_t TensorBytes(assay_dtype dtype, std::initializer_list<int64_t> shape) {
  uint64_t elements = 1;
  for (const int64_t n : shape) {
    if (__builtin_mul_overflow(elements, static_cast<uint64_t>(n), &elements)) {
      throw Error("a tensor has more elements than 64 bits can count");
    }
  }
  return DTypeBytes(dtype, elements);
}

Tensor Tensor::Rows(int64_t begin, int64_t count) const {
  Tensor t = *this;
  t.offset += DTypeBytes(dtype, static_cast<uint64_t>(begin * stride[0]));
  t.shape[0] = count;
  return t;
}

Tensor Tensor::Columns(int64_t begin, int64_t count) const {
  Tensor t = *this;
  t.offset += DTypeBytes(dtype, static_cast<uint64_t>(begin));
  t.shape[1] = count;
  return t;
}

Tensor Tensor::Heads(int64_t heads, int64_t dim) const {
  ASSAY_CHECK(ndim == 2 && shape[1] == heads * dim);
  Tensor t = *this;
  t.ndim = 3;
  t.shape[1] = heads;
  t.stride[1] = dim;
  t.shape[2] = dim;
  t.stride[2] = 1;
  return t;
}

// ---------------------------------------------------------------------------------------------- Stream, Event

Stream::Stream(std::shared_ptr<Device> device) : device_(std::move(device)) {
  assay_message msg = NewMessage();
  CheckStatus(device_->table().stream_create(device_->handle(), &handle_, &msg), msg, "creating a stream");
}

Stream::~Stream() {
  device_->table().stream_destroy(handle_);
}

void Stream::Synchronize() {
  assay_message msg = NewMessage();
  CheckStatus(device_->table().stream_synchronize(handle_, &msg), msg, "waiting for " + device_->id());
}

void Stream::Upload(const Buffer& dst, uint64_t offset, const void* src, uint64_t bytes) {
  assay_message msg = NewMessage();
  CheckStatus(device_->table().copy_to_device(handle_, dst.handle(), offset, src, bytes, &msg), msg,
              "copying to " + device_->id());
}

void Stream::Download(void* dst, const Buffer& src, uint64_t offset, uint64_t bytes) {
  assay_message msg = NewMessage();
  CheckStatus(device_->table().copy_to_host(handle_, dst, src.handle(), offset, bytes, &msg), msg,
              "copying from " + device_->id());
}

void Stream::Copy(const Tensor& dst, const Tensor& src, uint64_t bytes) {
  assay_message msg = NewMessage();
  CheckStatus(device_->table().copy_on_device(handle_, dst.buffer, dst.offset, src.buffer, src.offset, bytes, &msg),
              msg, "copying on " + device_->id());
}

Event::Event(std::shared_ptr<Device> device) : device_(std::move(device)) {
  assay_message msg = NewMessage();
  CheckStatus(device_->table().event_create(device_->handle(), &handle_, &msg), msg, "creating an event");
}

Event::~Event() {
  device_->table().event_destroy(handle_);
}

void Event::Record(Stream& stream) {
  assay_message msg = NewMessage();
  CheckStatus(device_->table().event_record(handle_, stream.handle(), &msg), msg, "recording an event");
}

void Event::Synchronize() {
  assay_message msg = NewMessage();
  CheckStatus(device_->table().event_synchronize(handle_, &msg), msg, "waiting for an event");
}

double Event::ElapsedNsSince(const Event& begin) const {
  assay_message msg = NewMessage();
  double ns = 0;
  CheckStatus(device_->table().event_elapsed_ns(begin.handle_, handle_, &ns, &msg), msg, "reading an event");
  return ns;
}

// ---------------------------------------------------------------------------------------------- Plan

Plan::Plan(Stream& stream) : stream_(&stream) {
  assay_message msg = NewMessage();
  CheckStatus(stream.device().table().plan_begin(stream.handle(), &msg), msg, "beginning a plan");
}

void Plan::End() {
  assay_message msg = NewMessage();
  CheckStatus(stream_->device().table().plan_end(stream_->handle(), &handle_, &msg), msg, "ending a plan");
}

Plan::~Plan() {
  const assay_backend& table = stream_->device().table();
  if (handle_ || table.plan_end(stream_->handle(), &handle_, nullptr) == ASSAY_OK) table.plan_destroy(handle_);
}

void Plan::Launch(const assay_host_lengths* lengths) {
  assay_message msg = NewMessage();
  CheckStatus(stream_->device().table().plan_launch(stream_->handle(), handle_, lengths, &msg), msg,
              "launching a plan");
}

}  // namespace assay
