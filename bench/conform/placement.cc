// SPDX-License-Identifier: Apache-2.0
#include "bench/conform/placement.h"

#include <algorithm>

#include "runtime/core/dtype.h"

namespace assay::bench {
namespace {

// Bytes watched on either side of a tensor: a few cache lines, which is where off-by-one and full-vector stores land.
constexpr uint64_t kGuard = 256;

uint64_t RoundUp(uint64_t n, uint64_t multiple) {
  multiple = std::max<uint64_t>(multiple, 1);
  return (n + multiple - 1) / multiple * multiple;
}

// Rows of dimension 0 as they lie in the buffer.
struct Rows {
  int64_t count;
  uint64_t bytes, stride;
};

Rows RowsOf(const ProblemTensor& t) {
  const int64_t rows = t.shape[0];
  int64_t elements = 1;
  for (size_t d = 1; d < t.shape.size(); ++d) elements *= t.shape[d];
  return {rows, DTypeBytes(t.dtype, static_cast<uint64_t>(elements)),
          DTypeBytes(t.dtype, static_cast<uint64_t>(elements + t.row_gap))};
}

}  // namespace

Placement::Placement(const std::shared_ptr<Device>& device, Stream& stream, const Problem& problem)
    : device_(device), stream_(stream), problem_(problem), places_(problem.tensors.size()) {
  for (size_t i = 0; i < places_.size(); ++i) {
    const ProblemTensor& t = problem.tensors[i];
    Place& place = places_[i];
    if (t.packed) {
      PackWeight(t, place);
    } else {
      const Rows rows = RowsOf(t);
      Allocate(place, static_cast<uint64_t>(rows.count) * rows.stride, device->info().buffer_alignment);
    }
    Tensor& view = place.view;
    view.dtype = t.dtype;
    view.ndim = static_cast<int32_t>(t.shape.size());
    view.flags = t.packed ? ASSAY_TENSOR_PACKED : 0;
    view.buffer = place.buffer.handle();
    int64_t stride = 1;
    for (int d = ASSAY_MAX_DIMS - 1; d >= 0; --d) {
      const bool used = d < view.ndim;
      view.shape[d] = used ? t.shape[static_cast<size_t>(d)] : 1;
      if (d == 0 && view.ndim > 1) stride += t.row_gap;
      view.stride[d] = used ? stride : 0;
      stride *= view.shape[d];
    }
  }
  lengths_.struct_size = sizeof(lengths_);
  lengths_.sequences = static_cast<int32_t>(problem.kv_lens.size());
  lengths_.q_offsets = problem.q_offsets.data();
  lengths_.kv_lens = problem.kv_lens.data();
}

void Placement::Allocate(Place& place, uint64_t bytes, uint64_t alignment) {
  // One alignment further than a round place, so that no larger alignment comes for free.
  place.view.offset = RoundUp(kGuard, std::max<uint64_t>(2 * alignment, 1)) + alignment;
  place.bytes = bytes;
  place.image.assign(place.view.offset + bytes + kGuard, 0);
  place.buffer = Buffer(device_, place.image.size(), false);
}

void Placement::PackWeight(const ProblemTensor& t, Place& place) {
  Allocate(place, device_->PackedBytes(t.weight), device_->info().weight_alignment);
  std::fill(place.image.begin(), place.image.end(), 0xA5);
  stream_.Upload(place.buffer, 0, place.image.data(), place.image.size());
  stream_.Synchronize();
  assay_weight_desc desc = t.weight;
  desc.scales = t.scales.data();
  device_->PackWeight(desc, t.elements.data(), place.buffer, place.view.offset);
  std::vector<uint8_t> now(place.image.size());
  stream_.Download(now.data(), place.buffer, 0, now.size());
  stream_.Synchronize();
  const auto begin = static_cast<int64_t>(place.view.offset), end = begin + static_cast<int64_t>(place.bytes);
  if (!std::equal(now.begin(), now.begin() + begin, place.image.begin()) ||
      !std::equal(now.begin() + end, now.end(), place.image.begin() + end)) {
    throw Error("weight_pack wrote outside the " + std::to_string(place.bytes) +
                " bytes that weight_packed_size asked for");
  }
  place.packed = std::move(now);
}

void Placement::Fill(uint8_t poison) {
  poison_ = poison;
  for (size_t i = 0; i < places_.size(); ++i) {
    const ProblemTensor& t = problem_.tensors[i];
    Place& place = places_[i];
    if (t.packed) {
      place.image = place.packed;
    } else {
      std::fill(place.image.begin(), place.image.end(), poison);
      const Rows rows = RowsOf(t);
      for (int64_t r = 0; r < rows.count && !t.elements.empty(); ++r) {
        std::copy_n(
            t.elements.begin() + r * static_cast<int64_t>(rows.bytes), rows.bytes,
            place.image.begin() + static_cast<int64_t>(place.view.offset + static_cast<uint64_t>(r) * rows.stride));
      }
    }
    stream_.Upload(place.buffer, 0, place.image.data(), place.image.size());
  }
  if (workspace_.buffer) {
    std::fill(workspace_.image.begin(), workspace_.image.end(), poison);
    stream_.Upload(workspace_.buffer, 0, workspace_.image.data(), workspace_.image.size());
  }
}

void Placement::ForgetContents() {
  stream_.Synchronize();
  for (Place& place : places_) place.image = place.packed = {};
}

OpCall Placement::MakeCall(const ProblemCall& call) const {
  const auto view = [&](int i) -> const assay_tensor* {
    return i < 0 ? nullptr : &places_[static_cast<size_t>(i)].view;
  };
  OpCall made;
  made.desc = call.desc();
  for (const int i : call.in) made.in.push_back(view(i));
  for (const int i : call.out) made.out.push_back(view(i));
  return made;
}

std::string Placement::Prepare(const ProblemCall& call) {
  const OpCall made = MakeCall(call);
  const std::string why = device_->WhyUnsupported(made);
  if (!why.empty()) return why;
  const uint64_t bytes = device_->WorkspaceSize(made);
  if (bytes > workspace_.bytes) Allocate(workspace_, bytes, device_->info().buffer_alignment);
  return "";
}

const assay_host_lengths* Placement::Lengths() {
  return device_->info().needs_host_lengths && !problem_.q_offsets.empty() ? &lengths_ : nullptr;
}

void Placement::Enqueue(const ProblemCall& call) {
  const OpCall made = MakeCall(call);
  const assay_args args = made.args();
  assay_message msg{};
  msg.struct_size = sizeof(msg);
  CheckStatus(device_->table().enqueue(stream_.handle(), made.desc, &args, workspace_.buffer.handle(),
                                       workspace_.view.offset, workspace_.bytes, Lengths(), &msg),
              msg, "enqueue");
}

void Placement::RunAsPlan(const ProblemCall& call) {
  Plan plan(stream_);
  Enqueue(call);
  plan.End();
  plan.Launch(Lengths());
  stream_.Synchronize();
}

std::string Placement::CheckUntouched(size_t i, const std::vector<uint8_t>& now, bool output) const {
  const ProblemTensor& t = problem_.tensors[i];
  const Place& place = places_[i];
  // Bytes that may have changed: the elements of outputs.
  const bool free = (output || t.undefined_after) && !t.packed;
  const Rows rows = t.packed ? Rows{0, 0, 1} : RowsOf(t);
  for (uint64_t at = 0; at < now.size(); ++at) {
    if (now[at] == place.image[at]) continue;
    if (at < place.view.offset) {
      return t.name + ": written " + std::to_string(place.view.offset - at) + " bytes before its begin";
    }
    const uint64_t inside = at - place.view.offset;
    if (inside >= place.bytes)
      return t.name + ": written " + std::to_string(inside - place.bytes) + " bytes after its end";
    if (!free) return t.name + ": an input was modified, at byte " + std::to_string(inside);
    if (inside % rows.stride >= rows.bytes) {
      return t.name + ": written between its rows, after row " + std::to_string(inside / rows.stride);
    }
  }
  return "";
}

Outcome Placement::Fetch(const ProblemCall& call, std::string* violation) {
  violation->clear();
  Outcome outcome(places_.size());
  for (size_t i = 0; i < places_.size(); ++i) {
    const ProblemTensor& t = problem_.tensors[i];
    std::vector<uint8_t> now(places_[i].image.size());
    stream_.Download(now.data(), places_[i].buffer, 0, now.size());
    stream_.Synchronize();
    const bool output = std::find(call.out.begin(), call.out.end(), static_cast<int>(i)) != call.out.end();
    if (violation->empty()) *violation = CheckUntouched(i, now, output);
    if (!output) continue;
    const Rows rows = RowsOf(t);
    for (int64_t r = 0; r < rows.count; ++r) {
      const auto begin =
          now.begin() + static_cast<int64_t>(places_[i].view.offset + static_cast<uint64_t>(r) * rows.stride);
      outcome[i].insert(outcome[i].end(), begin, begin + static_cast<int64_t>(rows.bytes));
    }
  }
  if (workspace_.buffer) {
    std::vector<uint8_t> now(workspace_.image.size());
    stream_.Download(now.data(), workspace_.buffer, 0, now.size());
    stream_.Synchronize();
    const auto begin = static_cast<int64_t>(workspace_.view.offset),
               end = begin + static_cast<int64_t>(workspace_.bytes);
    const auto clean = [&](uint8_t byte) { return byte == poison_; };
    if (violation->empty() &&
        !(std::all_of(now.begin(), now.begin() + begin, clean) && std::all_of(now.begin() + end, now.end(), clean))) {
      *violation = "written outside the workspace of " + std::to_string(workspace_.bytes) + " bytes";
    }
  }
  return outcome;
}

}  // namespace assay::bench
