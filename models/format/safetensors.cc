// SPDX-License-Identifier: Apache-2.0
#include "models/format/safetensors.h"

#include <algorithm>
#include <cstring>

#include "models/format/json_file.h"
#include "models/format/printable.h"
#include "runtime/core/error.h"

namespace assay {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeader = 100'000'000;
constexpr size_t kMaxName = 1024;
constexpr size_t kMaxDims = 8;

struct Type {
  const char* name;
  uint64_t bytes;
  assay_dtype dtype;
};

constexpr Type kTypes[] = {
    {"F32", 4, ASSAY_F32},
    {"F16", 2, ASSAY_F16},
    {"BF16", 2, ASSAY_BF16},
    {"F64", 8, ASSAY_DTYPE_NONE},
    {"I64", 8, ASSAY_DTYPE_NONE},
    {"I32", 4, ASSAY_DTYPE_NONE},
    {"I16", 2, ASSAY_DTYPE_NONE},
    {"I8", 1, ASSAY_I8},
    {"U64", 8, ASSAY_DTYPE_NONE},
    {"U32", 4, ASSAY_DTYPE_NONE},
    {"U16", 2, ASSAY_DTYPE_NONE},
    {"U8", 1, ASSAY_DTYPE_NONE},
    {"BOOL", 1, ASSAY_DTYPE_NONE},
    {"C64", 8, ASSAY_DTYPE_NONE},
    {"F8_E4M3", 1, ASSAY_F8_E4M3},
    {"F8_E5M2", 1, ASSAY_DTYPE_NONE},
    {"F8_E8M0", 1, ASSAY_DTYPE_NONE},
};

// A list of integers that are not negative, as the header writes shapes and offsets.
std::vector<uint64_t> Integers(const json& entry, const char* key, size_t most, const std::string& who) {
  const auto found = entry.find(key);
  if (found == entry.end() || !found->is_array() || found->size() > most) {
    throw Error(who + ": " + key + " must be a list of at most " + std::to_string(most) + " integers");
  }
  std::vector<uint64_t> out;
  for (const json& v : *found) {
    if (!v.is_number_unsigned()) throw Error(who + ": " + key + " must hold integers that are not negative");
    out.push_back(v.get<uint64_t>());
  }
  return out;
}

SafetensorsEntry ParseEntry(const std::string& name, const json& value, uint64_t data_bytes, const std::string& who) {
  if (!value.is_object()) throw Error(who + ": its entry must be an object");
  const auto type = value.find("dtype");
  if (type == value.end() || !type->is_string()) throw Error(who + ": dtype is missing");
  SafetensorsEntry out;
  out.name = name;
  out.type = type->get<std::string>();
  const auto* known =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const Type& t) { return out.type == t.name; });
  if (known == std::end(kTypes)) throw Error(who + ": unknown dtype \"" + Printable(out.type) + "\"");
  out.dtype = known->dtype;
  uint64_t bytes = known->bytes;
  for (const uint64_t dim : Integers(value, "shape", kMaxDims, who)) {
    // Once zero, the product stays so whatever follows: a dimension is bounded by itself.
    if (dim > 1ull << 56 || __builtin_mul_overflow(bytes, dim, &bytes)) throw Error(who + ": its shape is too large");
    out.shape.push_back(static_cast<int64_t>(dim));
  }
  const std::vector<uint64_t> range = Integers(value, "data_offsets", 2, who);
  if (range.size() != 2 || range[0] > range[1]) throw Error(who + ": data_offsets must be [begin, end]");
  if (range[1] > data_bytes) {
    throw Error(who + ": its data ends at byte " + std::to_string(range[1]) + " of a data section of " +
                std::to_string(data_bytes) + " bytes: the file is damaged or was cut short, fetch it again");
  }
  if (range[1] - range[0] != bytes) {
    throw Error(who + ": " + std::to_string(range[1] - range[0]) + " bytes of data, but its dtype and shape need " +
                std::to_string(bytes));
  }
  out.offset = range[0];
  out.bytes = bytes;
  return out;
}

// As the format demands it: the tensors cover the data section, each byte once.
void CheckCoverage(const std::vector<SafetensorsEntry>& entries, uint64_t data_bytes, const std::string& where) {
  uint64_t end = 0;
  for (const SafetensorsEntry& entry : entries) {
    if (entry.offset != end) {
      throw Error(where + ": tensor " + Printable(entry.name) +
                  (entry.offset < end ? " overlaps" : " leaves a hole after") +
                  " the tensor before it (it begins at byte " + std::to_string(entry.offset) +
                  " of the data section, not " + std::to_string(end) + ")");
    }
    end += entry.bytes;
  }
  if (end != data_bytes) {
    throw Error(where + ": the tensors end at byte " + std::to_string(end) + " of a data section of " +
                std::to_string(data_bytes) + " bytes: the file is damaged, fetch it again");
  }
}

}  // namespace

std::vector<SafetensorsEntry> ReadSafetensorsHeader(const MappedFile& file) {
  const std::string& where = file.path();
  uint64_t header = 0;
  if (file.size() < 8) throw Error(where + ": not a safetensors file (it is shorter than 8 bytes)");
  std::memcpy(&header, file.data(), 8);
  if (header > kMaxHeader) {
    throw Error(where + ": byte 0: a header of " + std::to_string(header) +
                " bytes; at most 100 MB are allowed: not a safetensors file, or a damaged one");
  }
  if (header > file.size() - 8) {
    throw Error(where + ": byte 0: a header of " + std::to_string(header) + " bytes in a file of " +
                std::to_string(file.size()) + " bytes: the file was cut short, fetch it again");
  }
  const uint64_t data = 8 + header;
  std::vector<SafetensorsEntry> entries;
  {
    const json object = ParseJsonObject({reinterpret_cast<const char*>(file.data()) + 8, header}, where + ": header");
    for (const auto& [name, value] : object.items()) {
      if (name == "__metadata__") continue;
      if (name.empty() || name.size() > kMaxName) throw Error(where + ": header: a tensor's name is empty or too long");
      entries.push_back(ParseEntry(name, value, file.size() - data, where + ": tensor " + Printable(name)));
    }
  }
  // Empty tensors share their offset with the one that follows.
  std::sort(entries.begin(), entries.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.bytes < b.bytes;
  });
  CheckCoverage(entries, file.size() - data, where);
  for (SafetensorsEntry& entry : entries) entry.offset += data;
  return entries;
}

}  // namespace assay
