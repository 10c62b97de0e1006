// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <fstream>

#include "models/tokenizer/bpe_tokenizer.h"
#include "runtime/core/error.h"

namespace assay {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{1} << 28;  // the largest in use has 33 MB

// Where `source` keeps its tokenizer, and how to load it; the loader is null if it has none.
struct Found {
  std::string path;
  TokenizerParts (*load)(const std::string&) = nullptr;
};

Found FindTokenizer(const std::string& source) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(source, ignored)) return {source, LoadGgufTokenizer};
  const std::filesystem::path folder(source);
  if (const auto path = folder / "tokenizer.json"; std::filesystem::exists(path, ignored)) {
    return {path.string(), LoadTokenizerJson};
  }
  if (const auto path = folder / "tokenizer.model"; std::filesystem::exists(path, ignored)) {
    return {path.string(), LoadSentencePieceModel};
  }
  return {source, nullptr};
}

}  // namespace

std::string ReadTokenizerFile(const std::string& path) {
  std::error_code error;
  const uint64_t bytes = std::filesystem::file_size(path, error);
  if (error) throw Error("it cannot be read: " + error.message());
  if (bytes > kMaxFileBytes) throw Error("it has " + std::to_string(bytes) + " bytes, more than any tokenizer");
  std::string text(bytes, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(text.data(), static_cast<std::streamsize>(bytes))) throw Error("it cannot be read");
  return text;
}

std::unique_ptr<Tokenizer> OpenTokenizer(const std::string& source, std::string* why) {
  if (source.empty()) {
    *why = "the model has no tokenizer";
    return nullptr;
  }
  const Found found = FindTokenizer(source);
  if (found.load == nullptr) {
    *why = found.path + " has neither tokenizer.json nor tokenizer.model";
    return nullptr;
  }
  try {
    return std::make_unique<BpeTokenizer>(found.load(found.path));
  } catch (const UnknownTokenizerKind& e) {
    *why = found.path + ": " + e.what() + " is not supported";
    return nullptr;
  } catch (const Error& e) {
    const std::string what = e.what();
    if (what.find(found.path) != std::string::npos) throw;  // the GGUF reader has said it all
    throw Error("the tokenizer in " + found.path + " is damaged: " + what +
                "; fetch the file again from where the model is published");
  }
}

}  // namespace assay
