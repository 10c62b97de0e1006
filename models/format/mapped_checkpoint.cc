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
  return dtype == ASSAY_F32 ? 4 : IsRowScaled(dtype) ? 1 : 2;
}

constexpr int64_t kBlock = 128;  // rows and columns that share a scale

int64_t CountOf(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  return count;
}

std::vector<float> ReadFloats(assay_dtype dtype, const uint8_t* p, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  ConvertElements(dtype, p, ASSAY_F32, values.data(), values.size());
  return values;
}

// The dtype of a matrix with such scales.
assay_dtype ScaledDType(const std::string& who, assay_dtype quants, const std::vector<int64_t>& matrix,
                        assay_dtype scale, const std::vector<int64_t>& shape) {
  if (scale != ASSAY_F32 && scale != ASSAY_BF16 && scale != ASSAY_F16) {
    throw Error(who + ": its scales must be F32, F16 or BF16");
  }
  const int64_t count = CountOf(shape);
  if (count == 1 || (count == matrix[0] && shape[0] == count)) return quants;
  const std::vector<int64_t> blocks = {(matrix[0] + kBlock - 1) / kBlock, matrix[1] / kBlock};
  if (quants == ASSAY_F8_E4M3 && shape == blocks && matrix[1] % kBlock == 0) return ASSAY_F8_B128;
  throw Error(who + " " + ShapeText(matrix) + " has scales of shape " + ShapeText(shape) +
              "; there must be one for the whole, for each row, or, of FP8, for each block of 128 by 128 with rows "
              "that are whole blocks");
}

}  // namespace

const TensorInfo* Checkpoint::Find(const std::string& name) const {
  const auto found =
      std::find_if(tensors_.begin(), tensors_.end(), [&](const TensorInfo& t) { return t.name == name; });
  return found == tensors_.end() ? nullptr : &*found;
}

void MappedCheckpoint::AdoptTensor(TensorInfo info, Place place, std::optional<Place> scale) {
  const std::string who = place.file->path() + ": tensor " + place.file_name;
  if (place.shape != info.shape) {
    throw Error(who + " has shape " + ShapeText(place.shape) + ", but the model's configuration asks for " +
                ShapeText(info.shape) + ": the weights and the configuration are not of the same model");
  }
  if ((IsBlockType(place.dtype) || IsRowScaled(place.dtype)) && info.shape.size() == 1) {
    throw Error(who + " is a vector of type " + DTypeName(place.dtype) + "; norms and biases must be f32, f16 or bf16");
  }
  info.dtype = place.dtype;
  info.bytes = place.bytes;
  if (scale) {
    info.dtype = ScaledDType(who, place.dtype, info.shape, scale->dtype, scale->shape);
    info.bytes = DTypeBytes(info.dtype, static_cast<uint64_t>(CountOf(info.shape)));
  }
  Loaded& loaded = loaded_[info.name];
  loaded.place = std::move(place);
  loaded.scale = std::move(scale);
  tensors_.push_back(std::move(info));
}

void MappedCheckpoint::Adopt(std::unordered_map<std::string, Place> places) {
  for (TensorInfo& wanted : LayoutOf(config_)) {
    const auto found = places.find(wanted.name);
    if (found == places.end()) {
      throw Error(path_ + ": tensor " + wanted.name + " " + ShapeText(wanted.shape) +
                  " is missing: the download is incomplete, or the configuration belongs to another model");
    }
    std::optional<Place> scale;
    if (IsRowScaled(found->second.dtype) && wanted.shape.size() == 2) {
      auto at = places.find(wanted.name + "_scale");
      if (at == places.end()) at = places.find(wanted.name + "_scale_inv");
      if (at == places.end() || places.count(wanted.name + "_zero_point") != 0) {
        throw Error(found->second.file->path() + ": tensor " + found->second.file_name + " is of type " +
                    DTypeName(found->second.dtype) + " and " +
                    (at == places.end() ? "has no scales: there is no tensor " + wanted.name + "_scale"
                                        : "has zero points, which are not supported"));
      }
      scale = at->second;
    }
    AdoptTensor(std::move(wanted), std::move(found->second), std::move(scale));
  }
  if (const auto found = places.find(kRopeFreqsName); found != places.end()) {
    if (found->second.dtype != ASSAY_F32) throw Error(path_ + ": tensor " + kRopeFreqsName + " must be f32");
    AdoptTensor({kRopeFreqsName, ASSAY_F32, {config_.rope.rotary_dim / 2}, 0}, std::move(found->second), std::nullopt);
  }
  std::map<assay_dtype, uint64_t> bytes_of;
  for (const TensorInfo& t : tensors_) bytes_of[t.dtype] += t.bytes;
  const auto most = std::max_element(bytes_of.begin(), bytes_of.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  config_.file_dtype = most->first;
}

void MappedCheckpoint::CheckValues(const TensorInfo& info, const Loaded& loaded) const {
  const Place& place = loaded.place;
  const uint8_t* p = place.file->data() + place.offset;
  const std::string who = place.file->path() + ": tensor " + place.file_name + ": ";
  const char* mend = ": the file is damaged or was badly converted, fetch or convert it again";
  if (loaded.scale) {
    const Place& scale = *loaded.scale;
    const auto n = static_cast<uint64_t>(CountOf(scale.shape));
    const uint64_t bad = FirstBadElement(scale.dtype, scale.file->data() + scale.offset, n, false);
    if (bad < n) throw Error(who + "scale " + std::to_string(bad) + " is NaN or infinite" + mend);
  } else if (IsBlockType(info.dtype)) {
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
  if (!loaded.checked) CheckValues(info, loaded);
  loaded.checked = true;
  if (info.dtype != loaded.place.dtype) {
    if (!loaded.copy) loaded.copy = JoinBlocks(info, loaded);
    return loaded.copy.get();
  }
  const uint8_t* p = loaded.place.file->data() + loaded.place.offset;
  if (reinterpret_cast<uintptr_t>(p) % AlignmentOf(info.dtype) == 0) return p;
  if (!loaded.copy) {
    loaded.copy = std::make_unique_for_overwrite<uint8_t[]>(info.bytes);
    std::memcpy(loaded.copy.get(), p, info.bytes);
  }
  return loaded.copy.get();
}

// Quants and scales of blocks as F8_B128 has them.
std::unique_ptr<uint8_t[]> MappedCheckpoint::JoinBlocks(const TensorInfo& info, const Loaded& loaded) const {
  const Place& scale = *loaded.scale;
  const uint8_t* quants = loaded.place.file->data() + loaded.place.offset;
  const std::vector<float> scales = ReadFloats(scale.dtype, scale.file->data() + scale.offset, CountOf(scale.shape));
  const int64_t blocks = info.shape[1] / kBlock;
  auto joined = std::make_unique_for_overwrite<uint8_t[]>(info.bytes);
  uint8_t* to = joined.get();
  for (int64_t row = 0; row < info.shape[0]; ++row) {
    for (int64_t b = 0; b < blocks; ++b, quants += kBlock) {
      std::memcpy(to, &scales[static_cast<size_t>(row / kBlock * blocks + b)], sizeof(float));
      std::memcpy(to + sizeof(float), quants, kBlock);
      to += sizeof(float) + kBlock;
    }
  }
  return joined;
}

std::vector<float> MappedCheckpoint::Scales(const TensorInfo& info) {
  const Place& scale = *loaded_.at(info.name).scale;
  std::vector<float> values = ReadFloats(scale.dtype, scale.file->data() + scale.offset, CountOf(scale.shape));
  values.resize(static_cast<size_t>(info.shape[0]), values[0]);
  return values;
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
