// SPDX-License-Identifier: Apache-2.0
#include "models/format/mapped_checkpoint.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>

#include "models/format/layout.h"
#include "models/format/sha256.h"
#include "runtime/core/dtype.h"
#include "runtime/core/error.h"

namespace assay {
namespace {

uint16_t Load16(const uint8_t* p) {
  uint16_t v;
  std::memcpy(&v, p, 2);
  return v;
}

bool FiniteF16(uint16_t h) {
  return (h & 0x7C00) != 0x7C00;
}

// The first block whose scale (or minimum) is NaN or infinite; `blocks` if there is none.
uint64_t FirstBadBlock(assay_dtype dtype, const uint8_t* p, uint64_t blocks) {
  const uint64_t stride = static_cast<uint64_t>(FindDType(dtype)->block_bytes);
  const bool has_minimum = dtype == ASSAY_Q4_1 || dtype == ASSAY_Q5_1 || dtype == ASSAY_Q4_K || dtype == ASSAY_Q5_K;
  const uint64_t scale_at = dtype == ASSAY_Q6_K ? 208 : 0;
  for (uint64_t b = 0; b < blocks; ++b) {
    const uint8_t* block = p + b * stride;
    if (!FiniteF16(Load16(block + scale_at)) || (has_minimum && !FiniteF16(Load16(block + 2)))) return b;
  }
  return blocks;
}

// The first element that is NaN or infinite, or, if so asked, not above zero; `n` if there is none.
uint64_t FirstBadElement(assay_dtype dtype, const uint8_t* p, uint64_t n, bool positive) {
  std::vector<float> values(n);
  ConvertElements(dtype, p, ASSAY_F32, values.data(), n);
  for (uint64_t i = 0; i < n; ++i) {
    if (!std::isfinite(values[i]) || (positive && values[i] <= 0.0f)) return i;
  }
  return n;
}

uint64_t AlignmentOf(assay_dtype dtype) {
  return dtype == ASSAY_F32 ? 4 : 2;
}

}  // namespace

const TensorInfo* Checkpoint::Find(const std::string& name) const {
  const auto found =
      std::find_if(tensors_.begin(), tensors_.end(), [&](const TensorInfo& t) { return t.name == name; });
  return found == tensors_.end() ? nullptr : &*found;
}

void MappedCheckpoint::AdoptTensor(TensorInfo info, Place place) {
  const std::string who = place.file->path() + ": tensor " + place.file_name;
  if (place.shape != info.shape) {
    throw Error(who + " has shape " + ShapeText(place.shape) + ", but the model's configuration asks for " +
                ShapeText(info.shape) + ": the weights and the configuration are not of the same model");
  }
  if (IsBlockType(place.dtype) && info.shape.size() == 1) {
    throw Error(who + " is a vector of type " + DTypeName(place.dtype) + "; norms and biases must be f32, f16 or bf16");
  }
  info.dtype = place.dtype;
  info.bytes = place.bytes;
  loaded_[info.name].place = std::move(place);
  tensors_.push_back(std::move(info));
}

void MappedCheckpoint::Adopt(std::unordered_map<std::string, Place> places) {
  std::map<assay_dtype, uint64_t> bytes_of;
  for (TensorInfo& wanted : LayoutOf(config_)) {
    const auto found = places.find(wanted.name);
    if (found == places.end()) {
      throw Error(path_ + ": tensor " + wanted.name + " " + ShapeText(wanted.shape) +
                  " is missing: the download is incomplete, or the configuration belongs to another model");
    }
    bytes_of[found->second.dtype] += found->second.bytes;
    AdoptTensor(std::move(wanted), std::move(found->second));
  }
  if (const auto found = places.find(kRopeFreqsName); found != places.end()) {
    if (found->second.dtype != ASSAY_F32) throw Error(path_ + ": tensor " + kRopeFreqsName + " must be f32");
    AdoptTensor({kRopeFreqsName, ASSAY_F32, {config_.rope.rotary_dim / 2}, 0}, std::move(found->second));
  }
  const auto most = std::max_element(bytes_of.begin(), bytes_of.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  config_.file_dtype = most->first;
}

void MappedCheckpoint::CheckValues(const TensorInfo& info, const Place& place) const {
  const uint8_t* p = place.file->data() + place.offset;
  const std::string who = place.file->path() + ": tensor " + place.file_name + ": ";
  const char* mend = ": the file is damaged or was badly converted, fetch or convert it again";
  if (IsBlockType(info.dtype)) {
    const uint64_t blocks = info.bytes / static_cast<uint64_t>(FindDType(info.dtype)->block_bytes);
    const uint64_t bad = FirstBadBlock(info.dtype, p, blocks);
    if (bad < blocks) throw Error(who + "the scale of block " + std::to_string(bad) + " is NaN or infinite" + mend);
  } else if (info.shape.size() == 1) {
    const uint64_t n = static_cast<uint64_t>(info.shape[0]);
    const bool positive = info.name == kRopeFreqsName;  // they are divided by
    const uint64_t bad = FirstBadElement(info.dtype, p, n, positive);
    if (bad < n) {
      throw Error(who + "element " + std::to_string(bad) + " is " +
                  (positive ? "not a positive number" : "NaN or infinite") + mend);
    }
  }
}

const void* MappedCheckpoint::Data(const TensorInfo& info) {
  Loaded& loaded = loaded_.at(info.name);
  if (!loaded.checked) CheckValues(info, loaded.place);
  loaded.checked = true;
  const uint8_t* p = loaded.place.file->data() + loaded.place.offset;
  if (reinterpret_cast<uintptr_t>(p) % AlignmentOf(info.dtype) == 0) return p;
  if (!loaded.copy) {
    loaded.copy = std::make_unique_for_overwrite<uint8_t[]>(info.bytes);
    std::memcpy(loaded.copy.get(), p, info.bytes);
  }
  return loaded.copy.get();
}

void MappedCheckpoint::Release(const TensorInfo& info) {
  Loaded& loaded = loaded_.at(info.name);
  loaded.copy.reset();
  loaded.place.file->Drop(loaded.place.offset, loaded.place.bytes);
}

uint64_t MappedCheckpoint::file_bytes() const {
  uint64_t sum = 0;
  for (const MappedFile* file : Files()) sum += file->size();
  return sum;
}

std::string MappedCheckpoint::Sha256() {
  assay::Sha256 hash;
  for (const MappedFile* file : Files()) file->HashInto(hash);
  return hash.HexDigest();
}

}  // namespace assay
