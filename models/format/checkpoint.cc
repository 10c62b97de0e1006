// SPDX-License-Identifier: Apache-2.0
#include "models/format/checkpoint.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "models/format/gguf_checkpoint.h"
#include "models/format/hf_checkpoint.h"
#include "models/format/mapped_file.h"
#include "models/format/synthetic.h"
#include "runtime/core/error.h"

namespace assay {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<Checkpoint> OpenFolder(const std::string& dir) {
  if (fs::exists(dir + "/config.json")) return OpenHfCheckpoint(dir);
  for (const auto& entry : fs::directory_iterator(dir)) {
    if (entry.path().extension() == ".gguf") {
      throw Error(dir + ": no config.json in this folder; to use the GGUF file in it, give " + entry.path().string());
    }
  }
  throw Error(dir + ": no config.json in this folder: it is no Hugging Face model, or the download is incomplete");
}

std::unique_ptr<Checkpoint> OpenFile(const std::string& path) {
  const MappedFile file(path);
  if (file.size() >= 4 && std::memcmp(file.data(), "GGUF", 4) == 0) return OpenGgufCheckpoint(path);
  if (fs::path(path).extension() == ".safetensors") {
    throw Error(path + ": give the folder that holds this file together with its config.json");
  }
  throw Error(path + ": neither a GGUF file nor a folder with config.json and *.safetensors" +
              (file.size() == 0 ? " (the file is empty)" : ""));
}

bool TakePrefix(std::string* text, const std::string& prefix) {
  if (text->compare(0, prefix.size(), prefix) != 0) return false;
  text->erase(0, prefix.size());
  return true;
}

}  // namespace

std::unique_ptr<Checkpoint> OpenCheckpoint(const std::string& model, assay_dtype synthetic_dtype) {
  std::string path = model;
  if (TakePrefix(&path, "shape:")) return OpenSynthetic(path, synthetic_dtype);
  const bool must_be_folder = TakePrefix(&path, "hf:");
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  try {
    const fs::file_status status = fs::status(path);
    if (!fs::exists(status)) {
      throw Error(path + ": no such file or folder; give a .gguf file, a folder with config.json, or shape:NAME");
    }
    if (fs::is_directory(status)) return OpenFolder(path);
    if (must_be_folder) throw Error(path + ": hf: needs a folder with config.json and *.safetensors");
    return OpenFile(path);
  } catch (const fs::filesystem_error& e) {
    throw Error(path + ": cannot be read: " + e.code().message());
  } catch (const std::bad_alloc&) {
    throw Error(path + ": not enough memory to read the model's description");
  }
}

}  // namespace assay
