// SPDX-License-Identifier: Apache-2.0
// A GGUF file (version 2 or 3, little-endian): typed metadata and the list of tensors.
// Owns the mapping; views that it hands out live as long as it does. Immutable once open: any thread.
// Errors: throws Error naming the file and the place in it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backends/api/assay_backend.h"
#include "models/format/mapped_file.h"

namespace assay {

enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12
};

// One of ggml's tensor types.
struct GgufTensorType {
  uint32_t id;
  const char* name;
  uint32_t block_elems;
  uint32_t block_bytes;
  assay_dtype dtype;  // ASSAY_DTYPE_NONE if there is none for it
};
const GgufTensorType* FindGgufTensorType(uint32_t id);  // nullptr if unknown

struct GgufTensor {
  std::string_view name;  // as in the file: "blk.0.attn_q.weight"
  const GgufTensorType* type = nullptr;
  uint32_t ndim = 0;
  uint64_t dims[4] = {1, 1, 1, 1};  // the contiguous one first, as in the file
  uint64_t offset = 0;              // from the start of the data section
  uint64_t bytes = 0;
};

class GgufFile {
 public:
  // Maps the file and checks its metadata and list of tensors against the file's size.
  explicit GgufFile(const std::string& path);

  bool Has(std::string_view key) const;
  // One value. nullopt if the key is absent; throws if it holds another type or a value that does not fit.
  std::optional<std::string_view> String(std::string_view key) const;
  std::optional<int64_t> Int(std::string_view key) const;    // any integer type
  std::optional<double> Number(std::string_view key) const;  // any integer or float type
  std::optional<bool> Bool(std::string_view key) const;
  // A whole array (at most kMaxArray elements). Empty if the key is absent; throws as above.
  std::vector<std::string_view> Strings(std::string_view key) const;
  std::vector<int64_t> Ints(std::string_view key) const;
  std::vector<double> Numbers(std::string_view key) const;
  std::vector<bool> Bools(std::string_view key) const;
  static constexpr uint64_t kMaxArray = 1u << 21;

  uint32_t version() const { return version_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  uint64_t data_offset() const { return data_offset_; }  // of the data section in the file
  uint64_t alignment() const { return alignment_; }
  const MappedFile& file() const { return file_; }
  const std::string& path() const { return file_.path(); }

 private:
  // A value where it lies in the file: a scalar, a string's text, or an array's elements.
  struct Value {
    GgufType type;
    GgufType element;  // of arrays
    uint64_t count;    // elements of an array, bytes of a string
    const uint8_t* bytes;
  };
  class Cursor;

  Value ReadValue(Cursor& cursor, std::string_view key) const;
  void ReadMetadata(Cursor& cursor, uint64_t count);
  void ReadTensors(Cursor& cursor, uint64_t count);
  void CheckExtents() const;
  const Value* Find(std::string_view key) const;
  const Value* FindArray(std::string_view key, const char* wanted) const;
  [[noreturn]] void WrongType(std::string_view key, const Value& value, const char* wanted) const;

  MappedFile file_;
  uint32_t version_ = 0;
  uint64_t data_offset_ = 0;
  uint64_t alignment_ = 32;
  std::unordered_map<std::string_view, Value> values_;
  std::vector<GgufTensor> tensors_;
};

}  // namespace assay
