// SPDX-License-Identifier: Apache-2.0
#include "models/format/gguf.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>
#include <unordered_set>

#include "models/format/printable.h"
#include "runtime/core/error.h"

namespace assay {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF is read in place");

// Bounds that no real file comes near; they cap the memory that a hostile one can claim.
constexpr uint64_t kMaxEntries = 1u << 16;  // of metadata, and of tensors
constexpr int kMaxNesting = 8;              // of arrays
constexpr uint64_t kMaxName = 65535;
constexpr uint64_t kMaxAlignment = 1u << 16;

// Bytes of a scalar; 0 for strings, arrays and unknown types.
uint64_t ScalarBytes(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    default:
      return 0;
  }
}

template <class T>
T Load(const uint8_t* p) {
  T v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

// nullopt if the type is no integer, or the value does not fit.
std::optional<int64_t> LoadInt(GgufType type, const uint8_t* p) {
  switch (type) {
    case GgufType::kU8:
      return Load<uint8_t>(p);
    case GgufType::kI8:
      return Load<int8_t>(p);
    case GgufType::kU16:
      return Load<uint16_t>(p);
    case GgufType::kI16:
      return Load<int16_t>(p);
    case GgufType::kU32:
      return Load<uint32_t>(p);
    case GgufType::kI32:
      return Load<int32_t>(p);
    case GgufType::kI64:
      return Load<int64_t>(p);
    case GgufType::kU64: {
      const auto v = Load<uint64_t>(p);
      if (v > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
      return static_cast<int64_t>(v);
    }
    default:
      return std::nullopt;
  }
}

std::optional<double> LoadNumber(GgufType type, const uint8_t* p) {
  if (type == GgufType::kF32) return Load<float>(p);
  if (type == GgufType::kF64) return Load<double>(p);
  const std::optional<int64_t> v = LoadInt(type, p);
  if (!v) return std::nullopt;
  return static_cast<double>(*v);
}

const char* TypeName(GgufType type) {
  static constexpr const char* kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                           "bool", "string", "array", "u64", "i64", "f64"};
  return static_cast<uint32_t>(type) < std::size(kNames) ? kNames[static_cast<uint32_t>(type)] : "unknown";
}

std::string Quoted(std::string_view text) {
  return '"' + Printable(text) + '"';
}

constexpr GgufTensorType kTensorTypes[] = {
    {0, "F32", 1, 4, ASSAY_F32},
    {1, "F16", 1, 2, ASSAY_F16},
    {30, "BF16", 1, 2, ASSAY_BF16},
    {2, "Q4_0", 32, 18, ASSAY_Q4_0},
    {3, "Q4_1", 32, 20, ASSAY_Q4_1},
    {8, "Q8_0", 32, 34, ASSAY_Q8_0},
    {6, "Q5_0", 32, 22, ASSAY_Q5_0},
    {7, "Q5_1", 32, 24, ASSAY_Q5_1},
    {9, "Q8_1", 32, 40, 0},
    {10, "Q2_K", 256, 84, 0},
    {11, "Q3_K", 256, 110, 0},
    {12, "Q4_K", 256, 144, ASSAY_Q4_K},
    {13, "Q5_K", 256, 176, ASSAY_Q5_K},
    {14, "Q6_K", 256, 210, ASSAY_Q6_K},
    {15, "Q8_K", 256, 292, 0},
    {16, "IQ2_XXS", 256, 66, 0},
    {17, "IQ2_XS", 256, 74, 0},
    {18, "IQ3_XXS", 256, 98, 0},
    {19, "IQ1_S", 256, 50, 0},
    {20, "IQ4_NL", 32, 18, 0},
    {21, "IQ3_S", 256, 110, 0},
    {22, "IQ2_S", 256, 82, 0},
    {23, "IQ4_XS", 256, 136, 0},
    {24, "I8", 1, 1, 0},
    {25, "I16", 1, 2, 0},
    {26, "I32", 1, 4, 0},
    {27, "I64", 1, 8, 0},
    {28, "F64", 1, 8, 0},
    {29, "IQ1_M", 256, 56, 0},
    {34, "TQ1_0", 256, 54, 0},
    {35, "TQ2_0", 256, 66, 0},
    {39, "MXFP4", 32, 17, 0},
    {40, "NVFP4", 64, 36, 0},
    {41, "Q1_0", 128, 18, 0},
};

}  // namespace

const GgufTensorType* FindGgufTensorType(uint32_t id) {
  const auto* found = std::find_if(std::begin(kTensorTypes), std::end(kTensorTypes),
                                   [&](const GgufTensorType& t) { return t.id == id; });
  return found == std::end(kTensorTypes) ? nullptr : found;
}

// Reads on from a place in the file; every step is checked against the file's end.
class GgufFile::Cursor {
 public:
  explicit Cursor(const MappedFile& file) : file_(file) {}

  uint64_t at() const { return at_; }
  uint64_t left() const { return file_.size() - at_; }

  [[noreturn]] void Fail(const std::string& what) const {
    throw Error(file_.path() + ": byte " + std::to_string(at_) + ": " + what);
  }
  const uint8_t* Take(uint64_t bytes, const char* what) {
    if (bytes > left()) {
      Fail(std::string(what) + " of " + std::to_string(bytes) + " bytes reaches past the end of the file (" +
           std::to_string(file_.size()) + " bytes): the file is damaged or was cut short, fetch it again");
    }
    const uint8_t* p = file_.data() + at_;
    at_ += bytes;
    return p;
  }
  template <class T>
  T Read(const char* what) {
    return Load<T>(Take(sizeof(T), what));
  }
  std::string_view Text(const char* what) {
    const uint64_t size = Read<uint64_t>(what);
    return {reinterpret_cast<const char*>(Take(size, what)), size};
  }
  GgufType Type() {
    const auto type = Read<uint32_t>("a type");
    if (type > static_cast<uint32_t>(GgufType::kF64)) Fail("unknown metadata type " + std::to_string(type));
    return static_cast<GgufType>(type);
  }
  // Steps over `count` elements of an array.
  void Skip(GgufType element, uint64_t count, int depth) {
    if (const uint64_t bytes = ScalarBytes(element); bytes != 0) {
      if (count > left() / bytes) Fail("an array of " + std::to_string(count) + " elements is larger than the file");
      Take(count * bytes, "an array");
      return;
    }
    const uint64_t least = element == GgufType::kString ? 8 : 12;
    if (count > left() / least) Fail("an array of " + std::to_string(count) + " elements is larger than the file");
    if (depth >= kMaxNesting) Fail("arrays are nested more than " + std::to_string(kMaxNesting) + " deep");
    for (uint64_t i = 0; i < count; ++i) {
      if (element == GgufType::kString) {
        Text("a string of an array");
      } else {
        const GgufType inner = Type();
        const auto inner_count = Read<uint64_t>("an array's length");
        Skip(inner, inner_count, depth + 1);
      }
    }
  }

 private:
  const MappedFile& file_;
  uint64_t at_ = 0;
};

GgufFile::GgufFile(const std::string& path) : file_(path) {
  Cursor cursor(file_);
  if (file_.size() < 24 || std::memcmp(file_.data(), "GGUF", 4) != 0) {
    throw Error(path + ": not a GGUF file (it does not begin with \"GGUF\" and a header of 24 bytes)");
  }
  cursor.Take(4, "the magic");
  version_ = cursor.Read<uint32_t>("the version");
  if (version_ != 0 && (version_ & 0xFFFF) == 0) {
    throw Error(path + ": byte 4: a big-endian GGUF file; convert the model again without --bigendian");
  }
  if (version_ != 2 && version_ != 3) {
    throw Error(path + ": byte 4: GGUF version " + std::to_string(version_) +
                "; only 2 and 3 are supported: convert the model again with a current converter");
  }
  const auto tensors = cursor.Read<uint64_t>("the number of tensors");
  const auto entries = cursor.Read<uint64_t>("the number of metadata entries");
  if (tensors > kMaxEntries || tensors > cursor.left() / 24) {
    throw Error(path + ": byte 8: " + std::to_string(tensors) + " tensors are more than the file can hold");
  }
  if (entries > kMaxEntries || entries > cursor.left() / 13) {
    throw Error(path + ": byte 16: " + std::to_string(entries) + " metadata entries are more than the file can hold");
  }
  ReadMetadata(cursor, entries);
  if (const auto alignment = Int("general.alignment")) {
    if (*alignment < 1 || *alignment > static_cast<int64_t>(kMaxAlignment) ||
        !std::has_single_bit(static_cast<uint64_t>(*alignment))) {
      throw Error(path + ": metadata general.alignment is " + std::to_string(*alignment) +
                  "; it must be a power of two of at most " + std::to_string(kMaxAlignment));
    }
    alignment_ = static_cast<uint64_t>(*alignment);
  }
  ReadTensors(cursor, tensors);
  data_offset_ = (cursor.at() + alignment_ - 1) / alignment_ * alignment_;
  CheckExtents();
}

void GgufFile::CheckExtents() const {
  const uint64_t data = file_.size() < data_offset_ ? 0 : file_.size() - data_offset_;
  std::vector<const GgufTensor*> sorted;
  for (const GgufTensor& t : tensors_) {
    if (t.offset > data || t.bytes > data - t.offset) {
      throw Error(path() + ": tensor " + Quoted(t.name) + ": " + std::to_string(t.bytes) + " bytes at offset " +
                  std::to_string(t.offset) + " of a data section of " + std::to_string(data) +
                  " bytes: the file is damaged or was cut short, fetch it again");
    }
    sorted.push_back(&t);
  }
  std::sort(sorted.begin(), sorted.end(), [](const auto* a, const auto* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i]->offset < sorted[i - 1]->offset + sorted[i - 1]->bytes) {
      throw Error(path() + ": tensor " + Quoted(sorted[i]->name) + " overlaps tensor " + Quoted(sorted[i - 1]->name) +
                  ": the file is damaged, fetch it again");
    }
  }
}

GgufFile::Value GgufFile::ReadValue(Cursor& cursor, std::string_view key) const {
  Value value{};
  value.type = cursor.Type();
  if (value.type == GgufType::kString) {
    const std::string_view text = cursor.Text("a string");
    value.count = text.size();
    value.bytes = reinterpret_cast<const uint8_t*>(text.data());
  } else if (value.type == GgufType::kArray) {
    value.element = cursor.Type();
    value.count = cursor.Read<uint64_t>("an array's length");
    value.bytes = file_.data() + cursor.at();
    cursor.Skip(value.element, value.count, 0);
  } else {
    value.bytes = cursor.Take(ScalarBytes(value.type), "a value");
    if (value.type == GgufType::kBool && *value.bytes > 1) cursor.Fail("metadata " + Quoted(key) + " is no bool");
  }
  return value;
}

void GgufFile::ReadMetadata(Cursor& cursor, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    const std::string_view key = cursor.Text("a metadata key");
    if (key.empty() || key.size() > kMaxName) cursor.Fail("a metadata key is empty or longer than 65535 bytes");
    const Value value = ReadValue(cursor, key);
    if (!values_.emplace(key, value).second) cursor.Fail("metadata key " + Quoted(key) + " appears twice");
  }
}

void GgufFile::ReadTensors(Cursor& cursor, uint64_t count) {
  std::unordered_set<std::string_view> names;
  for (uint64_t i = 0; i < count; ++i) {
    GgufTensor tensor;
    tensor.name = cursor.Text("a tensor's name");
    const std::string who = "tensor " + Quoted(tensor.name);
    if (tensor.name.empty() || tensor.name.size() > kMaxName) cursor.Fail("a tensor's name is empty or too long");
    if (!names.insert(tensor.name).second) cursor.Fail(who + " appears twice");
    tensor.ndim = cursor.Read<uint32_t>("a tensor's rank");
    if (tensor.ndim < 1 || tensor.ndim > 4) cursor.Fail(who + " has " + std::to_string(tensor.ndim) + " dimensions");
    uint64_t elements = 1;
    for (uint32_t d = 0; d < tensor.ndim; ++d) {
      tensor.dims[d] = cursor.Read<uint64_t>("a tensor's dimension");
      if (tensor.dims[d] == 0 || __builtin_mul_overflow(elements, tensor.dims[d], &elements) || elements > 1ull << 56) {
        cursor.Fail(who + ": dimension " + std::to_string(d) + " is " + std::to_string(tensor.dims[d]));
      }
    }
    const auto type = cursor.Read<uint32_t>("a tensor's type");
    tensor.type = FindGgufTensorType(type);
    if (tensor.type == nullptr) cursor.Fail(who + " is of the unknown type " + std::to_string(type));
    if (tensor.dims[0] % tensor.type->block_elems != 0) {
      cursor.Fail(who + ": a row of " + std::to_string(tensor.dims[0]) + " elements is no whole number of " +
                  tensor.type->name + " blocks");
    }
    tensor.bytes = elements / tensor.type->block_elems * tensor.type->block_bytes;
    tensor.offset = cursor.Read<uint64_t>("a tensor's offset");
    if (tensor.offset % alignment_ != 0) {
      cursor.Fail(who + ": offset " + std::to_string(tensor.offset) + " is not a multiple of the alignment " +
                  std::to_string(alignment_));
    }
    tensors_.push_back(tensor);
  }
}

const GgufFile::Value* GgufFile::Find(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

bool GgufFile::Has(std::string_view key) const {
  return Find(key) != nullptr;
}

void GgufFile::WrongType(std::string_view key, const Value& value, const char* wanted) const {
  std::string held = TypeName(value.type);
  if (value.type == GgufType::kArray) held += std::string(" of ") + TypeName(value.element);
  throw Error(path() + ": metadata " + std::string(key) + " should be " + wanted + ", not " + held +
              " (or its value does not fit)");
}

std::optional<std::string_view> GgufFile::String(std::string_view key) const {
  const Value* v = Find(key);
  if (v == nullptr) return std::nullopt;
  if (v->type != GgufType::kString) WrongType(key, *v, "a string");
  return std::string_view(reinterpret_cast<const char*>(v->bytes), v->count);
}

std::optional<int64_t> GgufFile::Int(std::string_view key) const {
  const Value* v = Find(key);
  if (v == nullptr) return std::nullopt;
  const std::optional<int64_t> value = LoadInt(v->type, v->bytes);
  if (!value) WrongType(key, *v, "an integer");
  return value;
}

std::optional<double> GgufFile::Number(std::string_view key) const {
  const Value* v = Find(key);
  if (v == nullptr) return std::nullopt;
  const std::optional<double> value = LoadNumber(v->type, v->bytes);
  if (!value) WrongType(key, *v, "a number");
  return value;
}

std::optional<bool> GgufFile::Bool(std::string_view key) const {
  const Value* v = Find(key);
  if (v == nullptr) return std::nullopt;
  if (v->type != GgufType::kBool) WrongType(key, *v, "a bool");
  return *v->bytes != 0;
}

const GgufFile::Value* GgufFile::FindArray(std::string_view key, const char* wanted) const {
  const Value* v = Find(key);
  if (v == nullptr) return nullptr;
  if (v->type != GgufType::kArray) WrongType(key, *v, wanted);
  if (v->count > kMaxArray) {
    throw Error(path() + ": metadata " + std::string(key) + " has " + std::to_string(v->count) + " elements; at most " +
                std::to_string(kMaxArray) + " are supported");
  }
  return v;
}

std::vector<std::string_view> GgufFile::Strings(std::string_view key) const {
  std::vector<std::string_view> out;
  const Value* v = FindArray(key, "an array of strings");
  if (v == nullptr) return out;
  if (v->element != GgufType::kString && v->count > 0) WrongType(key, *v, "an array of strings");
  out.reserve(v->count);
  const uint8_t* p = v->bytes;  // the lengths were checked when the file was opened
  for (uint64_t i = 0; i < v->count; ++i) {
    const auto size = Load<uint64_t>(p);
    out.emplace_back(reinterpret_cast<const char*>(p + 8), size);
    p += 8 + size;
  }
  return out;
}

std::vector<int64_t> GgufFile::Ints(std::string_view key) const {
  std::vector<int64_t> out;
  const Value* v = FindArray(key, "an array of integers");
  if (v == nullptr) return out;
  out.reserve(v->count);
  for (uint64_t i = 0; i < v->count; ++i) {
    const std::optional<int64_t> value = LoadInt(v->element, v->bytes + i * ScalarBytes(v->element));
    if (!value) WrongType(key, *v, "an array of integers");
    out.push_back(*value);
  }
  return out;
}

std::vector<double> GgufFile::Numbers(std::string_view key) const {
  std::vector<double> out;
  const Value* v = FindArray(key, "an array of numbers");
  if (v == nullptr) return out;
  out.reserve(v->count);
  for (uint64_t i = 0; i < v->count; ++i) {
    const std::optional<double> value = LoadNumber(v->element, v->bytes + i * ScalarBytes(v->element));
    if (!value) WrongType(key, *v, "an array of numbers");
    out.push_back(*value);
  }
  return out;
}

std::vector<bool> GgufFile::Bools(std::string_view key) const {
  const Value* v = FindArray(key, "an array of bools");
  if (v == nullptr) return {};
  if (v->element != GgufType::kBool && v->count > 0) WrongType(key, *v, "an array of bools");
  std::vector<bool> out(v->count);
  for (uint64_t i = 0; i < v->count; ++i) out[i] = v->bytes[i] != 0;
  return out;
}

}  // namespace assay
