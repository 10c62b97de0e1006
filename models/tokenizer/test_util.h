// SPDX-License-Identifier: Apache-2.0
// What the tokenizer tests share: golden files, and GGUF files made from a tokenizer.json.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "models/tokenizer/tokenizer.h"

namespace assay::tokenizer_test {

using Ids = std::vector<int32_t>;

inline std::filesystem::path DataDir() {
  return std::filesystem::path(ASSAY_SOURCE_DIR) / "tests/data/tokenizer";
}

// The folder of data that is not in the repository; empty if it is not there.
inline std::filesystem::path SharedDir(const std::string& inside) {
  const char* shared = std::getenv("ASSAY_SHARED");
  if (shared == nullptr) return {};
  const auto path = std::filesystem::path(shared) / "data" / inside;
  return std::filesystem::exists(path) ? path : std::filesystem::path();
}

#define ASSAY_SHARED_OR_SKIP(variable, inside)                                       \
  const std::filesystem::path variable = ::assay::tokenizer_test::SharedDir(inside); \
  if (variable.empty()) GTEST_SKIP() << "set ASSAY_SHARED to a folder that has data/" << (inside)

inline nlohmann::json ReadJson(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path.string());
  return nlohmann::json::parse(file);
}

inline std::vector<std::string> Corpus() {
  return ReadJson(DataDir() / "corpus.json").get<std::vector<std::string>>();
}

// A folder of its own that goes away with the object.
class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "assay_tokenizer_XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = pattern;
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::filesystem::path& path() const { return path_; }
  // Writes a file into it and gives its path.
  std::string Write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ / name, std::ios::binary) << bytes;
    return (path_ / name).string();
  }

 private:
  std::filesystem::path path_;
};

inline std::unique_ptr<Tokenizer> Open(const std::filesystem::path& source) {
  std::string why;
  auto tokenizer = OpenTokenizer(source.string(), &why);
  if (tokenizer == nullptr) throw std::runtime_error(why);
  return tokenizer;
}

// A tokenizer.json in a folder of its own, as OpenTokenizer wants it.
inline std::unique_ptr<Tokenizer> OpenJson(const nlohmann::json& json) {
  TempDir dir;
  dir.Write("tokenizer.json", json.dump());
  return Open(dir.path());
}

// The metadata of a GGUF file without tensors.
class GgufBuilder {
 public:
  GgufBuilder& Text(const std::string& key, const std::string& value) { return Put(key, 8, String(value)); }
  GgufBuilder& Flag(const std::string& key, bool value) { return Put(key, 7, std::string(1, value ? '\1' : '\0')); }
  GgufBuilder& U32(const std::string& key, uint32_t value) { return Put(key, 4, Little(value)); }
  GgufBuilder& Texts(const std::string& key, const std::vector<std::string>& values) {
    std::string bytes = Little(uint32_t{8}) + Little(uint64_t{values.size()});
    for (const std::string& value : values) bytes += String(value);
    return Put(key, 9, bytes);
  }
  GgufBuilder& I32s(const std::string& key, const std::vector<int32_t>& values) {
    std::string bytes = Little(uint32_t{5}) + Little(uint64_t{values.size()});
    for (const int32_t value : values) bytes += Little(static_cast<uint32_t>(value));
    return Put(key, 9, bytes);
  }
  GgufBuilder& F32s(const std::string& key, const std::vector<float>& values) {
    std::string bytes = Little(uint32_t{6}) + Little(uint64_t{values.size()});
    for (const float value : values) bytes += Little(std::bit_cast<uint32_t>(value));
    return Put(key, 9, bytes);
  }
  std::string Bytes() const {
    std::string bytes = "GGUF" + Little(uint32_t{3}) + Little(uint64_t{0}) + Little(count_) + metadata_;
    bytes.resize((bytes.size() + 31) / 32 * 32);
    return bytes;
  }

 private:
  template <class T>
  static std::string Little(T value) {
    std::string bytes;
    for (size_t i = 0; i < sizeof value; ++i) bytes += static_cast<char>(value >> (8 * i));
    return bytes;
  }
  static std::string String(const std::string& text) { return Little(uint64_t{text.size()}) + text; }
  GgufBuilder& Put(const std::string& key, uint32_t type, const std::string& value) {
    metadata_ += String(key) + Little(type) + value;
    ++count_;
    return *this;
  }

  std::string metadata_;
  uint64_t count_ = 0;
};

// The byte-level tokenizer of a tokenizer.json as converters write it into a GGUF file.
inline GgufBuilder ToGguf(const nlohmann::json& json, const std::string& pre) {
  std::vector<std::pair<int32_t, std::string>> tokens;
  for (const auto& [text, id] : json["model"]["vocab"].items()) tokens.emplace_back(id, text);
  for (const auto& token : json["added_tokens"]) tokens.emplace_back(token["id"], token["content"]);
  int32_t size = 0;
  for (const auto& [id, text] : tokens) size = std::max(size, id + 1);
  std::vector<std::string> texts;
  for (int32_t id = 0; id < size; ++id) texts.push_back("[PAD" + std::to_string(id) + "]");  // of holes
  std::vector<int32_t> types(texts.size(), 5);
  for (const auto& [id, text] : tokens) texts[id] = text, types[id] = 1;
  for (const auto& token : json["added_tokens"]) types[token["id"].get<size_t>()] = token["special"] ? 3 : 4;
  std::vector<std::string> merges;
  for (const auto& merge : json["model"]["merges"]) {
    merges.push_back(merge.is_array() ? merge[0].get<std::string>() + " " + merge[1].get<std::string>()
                                      : merge.get<std::string>());
  }
  GgufBuilder gguf;
  gguf.Text("general.architecture", "llama").Text("tokenizer.ggml.model", "gpt2").Text("tokenizer.ggml.pre", pre);
  gguf.Texts("tokenizer.ggml.tokens", texts).I32s("tokenizer.ggml.token_type", types);
  gguf.Texts("tokenizer.ggml.merges", merges);
  return gguf;
}

}  // namespace assay::tokenizer_test
