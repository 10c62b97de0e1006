// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/communicator.h"

#include <algorithm>

#include "runtime/core/dtype.h"

namespace assay {
namespace {

bool Contiguous(const Tensor& t) {
  return t.ndim == 2 && t.stride[0] == t.shape[1];
}

}  // namespace

Communicator::Communicator(std::shared_ptr<Device> device, std::shared_ptr<Group> group)
    : device_(std::move(device)), group_(std::move(group)) {
  const assay_backend& table = device_->table();
  if (!table.comm_unique_id || !table.comm_create || !table.comm_destroy) return;
  assay_comm_id id{};
  id.struct_size = sizeof(id);
  assay_message msg{};
  msg.struct_size = sizeof(msg);
  group_->Agree([&] {
    if (!group_->leader()) return;
    CheckStatus(table.comm_unique_id(&id, &msg), msg, "naming a group of devices");
  });
  std::vector<assay_comm_id> ids(static_cast<size_t>(group_->size()));
  group_->AllGather(&id, sizeof(id), ids.data(), Patience::kLoad);
  group_->Agree([&] {
    CheckStatus(table.comm_create(device_->handle(), ids.data(), group_->rank(), group_->size(), &handle_, &msg), msg,
                "joining " + device_->id() + " to the other ranks' devices");
  });
}

Communicator::~Communicator() {
  if (handle_) device_->table().comm_destroy(handle_);
}

std::string Communicator::WhyNotOnHost(const Tensor& x) const {
  const std::string device = "device " + device_->id() + " has no collectives of its own, and ";
  if (x.dtype != ASSAY_F32) return device + "through the host only f32 is summed, not " + DTypeName(x.dtype);
  void* address = nullptr;
  if (device_->table().buffer_map(x.buffer, &address, nullptr) != ASSAY_OK)
    return device + "the host cannot reach its memory";
  ASSAY_CHECK(Contiguous(x));
  return "";
}

void Communicator::AllReduceOnHost(const Tensor& x) {
  group_->AllReduceSum(static_cast<float*>(device_->HostAddress(x)), x.dim(0) * x.dim(1));
}

void Communicator::AllGatherOnHost(const Tensor& x, const Tensor& y) {
  const int64_t rows = x.dim(0), part = x.dim(1), columns = y.dim(1);
  gathered_.resize(static_cast<size_t>(group_->size() * rows * part));
  group_->AllGather(device_->HostAddress(x), sizeof(float) * static_cast<uint64_t>(rows * part), gathered_.data(),
                    Patience::kStep);
  const float* from = gathered_.data();
  auto* to = static_cast<float*>(device_->HostAddress(y));
  for (int64_t begin = 0; begin < group_->size() * part; begin += part) {
    const int64_t count = std::clamp<int64_t>(columns - begin, 0, part);
    for (int64_t row = 0; row < rows; ++row, from += part) std::copy_n(from, count, to + row * columns + begin);
  }
}

}  // namespace assay
