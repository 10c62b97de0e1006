// SPDX-License-Identifier: Apache-2.0
#include "models/format/hf_checkpoint.h"

#include <cstring>
#include <filesystem>
#include <set>
#include <utility>

#include "models/format/hf_config.h"
#include "models/format/json_file.h"
#include "models/format/layout.h"
#include "models/format/mapped_checkpoint.h"
#include "models/format/printable.h"
#include "models/format/safetensors.h"
#include "runtime/core/error.h"

namespace assay {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxShards = 4096;

struct WeightFiles {
  std::vector<std::string> names;   // in the folder
  std::set<std::string> must_have;  // tensors that the index promises
};

WeightFiles ReadIndex(const std::string& path) {
  const nlohmann::json index = ReadJsonObject(path);
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object()) throw Error(path + ": weight_map is missing");
  WeightFiles out;
  std::set<std::string> names;
  for (const auto& [tensor, file] : map->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (name.empty() || name.front() == '.' || name.find('/') != std::string::npos ||
        name.find('\0') != std::string::npos) {
      throw Error(path + ": weight_map: tensor " + Printable(tensor) + " must name a file of the same folder");
    }
    names.insert(name);
    out.must_have.insert(tensor);
  }
  if (names.empty() || names.size() > kMaxShards)
    throw Error(path + ": weight_map names " + std::to_string(names.size()) + " files");
  out.names.assign(names.begin(), names.end());
  return out;
}

WeightFiles FindWeightFiles(const std::string& dir) {
  if (fs::exists(dir + "/model.safetensors")) return {{"model.safetensors"}, {}};
  if (fs::exists(dir + "/model.safetensors.index.json")) return ReadIndex(dir + "/model.safetensors.index.json");
  throw Error(dir + ": no model.safetensors and no model.safetensors.index.json" +
              (fs::exists(dir + "/pytorch_model.bin") || fs::exists(dir + "/pytorch_model.bin.index.json")
                   ? "; pytorch_model.bin is not supported: save the model again with safe_serialization=True"
                   : ": the download is incomplete, or this is not a model's folder"));
}

class HfCheckpoint : public MappedCheckpoint {
 public:
  explicit HfCheckpoint(const std::string& dir) {
    path_ = dir;
    tokenizer_source_ = dir;
    config_ = ReadHfConfig(dir);
    config_.name = fs::canonical(dir).filename().string();
    WeightFiles files = FindWeightFiles(dir);
    for (const std::string& name : files.names) {
      files_.push_back(std::make_unique<MappedFile>(dir + "/" + name));
      AddEntries(*files_.back(), ReadSafetensorsHeader(*files_.back()));
    }
    for (const std::string& tensor : files.must_have) {
      if (places_.count(tensor) == 0) {
        throw Error(dir + "/model.safetensors.index.json: tensor " + Printable(tensor) + " is in none of the files");
      }
    }
    CompleteNames();
    TieEmbeddings();
    CheckTypes();
    Adopt(std::exchange(places_, {}));
  }

 protected:
  std::vector<const MappedFile*> Files() const override {
    std::vector<const MappedFile*> out;
    for (const auto& file : files_) out.push_back(file.get());
    return out;
  }

 private:
  void AddEntries(const MappedFile& file, std::vector<SafetensorsEntry> entries) {
    for (SafetensorsEntry& e : entries) {
      Place place{&file, e.name, e.dtype, std::move(e.shape), e.offset, e.bytes};
      if (e.dtype == ASSAY_DTYPE_NONE) refused_[e.name] = e.type;
      if (!places_.emplace(e.name, std::move(place)).second) {
        throw Error(file.path() + ": tensor " + Printable(e.name) + " is in another file of the folder, too");
      }
    }
  }

  // A model saved without its head has names without the "model." in front.
  void CompleteNames() {
    if (places_.count(kEmbedName) != 0 || places_.count(std::string(kEmbedName).substr(6)) == 0) return;
    std::unordered_map<std::string, Place> renamed;
    for (auto& [name, place] : places_) {
      renamed.emplace(name == kHeadName ? name : "model." + name, std::move(place));
    }
    places_ = std::move(renamed);
  }

  // As transformers does it: a tied model of which the file holds only one of the two takes that for both, and one
  // whose file holds two that differ is not tied.
  void TieEmbeddings() {
    if (!config_.tied_embeddings) return;
    const auto head = places_.find(kHeadName);
    if (head == places_.end()) return;
    const auto embed = places_.find(kEmbedName);
    if (embed == places_.end()) {
      places_.emplace(kEmbedName, head->second);
      return;
    }
    const Place& a = head->second;
    const Place& b = embed->second;
    const bool same = a.dtype == b.dtype && a.shape == b.shape &&
                      std::memcmp(a.file->data() + a.offset, b.file->data() + b.offset, a.bytes) == 0;
    a.file->Drop(a.offset, a.bytes);
    b.file->Drop(b.offset, b.bytes);
    config_.tied_embeddings = same;
  }

  void CheckTypes() const {
    for (const TensorInfo& wanted : LayoutOf(config_)) {
      const auto place = places_.find(wanted.name);
      if (place == places_.end() || place->second.dtype != ASSAY_DTYPE_NONE) continue;
      throw Error(place->second.file->path() + ": tensor " + wanted.name + " is of type " +
                  refused_.at(place->second.file_name) +
                  "; weights must be F32, F16 or BF16, or F8_E4M3 or I8 with scales");
    }
  }

  std::vector<std::unique_ptr<MappedFile>> files_;
  std::unordered_map<std::string, Place> places_;
  std::unordered_map<std::string, std::string> refused_;  // tensors of types that weights cannot have, and the type
};

}  // namespace

std::unique_ptr<Checkpoint> OpenHfCheckpoint(const std::string& dir) {
  return std::make_unique<HfCheckpoint>(dir);
}

}  // namespace assay
