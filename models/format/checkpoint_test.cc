// SPDX-License-Identifier: Apache-2.0
#include "models/format/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "models/format/mapped_file.h"
#include "models/format/sha256.h"
#include "models/format/test_files.h"

namespace assay {
namespace {

using testing::ErrorOf;
using testing::TempFolder;

std::string HashOf(const std::string& text, size_t piece) {
  Sha256 hash;
  for (size_t i = 0; i < text.size(); i += piece) hash.Update(text.data() + i, std::min(piece, text.size() - i));
  return hash.HexDigest();
}

// The examples of FIPS 180-4, and lengths around the padding's edges (expected values from sha256sum).
TEST(Sha256, KnownDigests) {
  EXPECT_EQ(HashOf("", 1), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(HashOf("abc", 1), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const std::string million(1'000'000, 'a');
  for (const size_t piece : {size_t{1}, size_t{63}, size_t{64}, size_t{65}, size_t{4096}, million.size()}) {
    EXPECT_EQ(HashOf(million, piece), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  }
  EXPECT_EQ(HashOf(std::string(55, 'a'), 64), "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
  EXPECT_EQ(HashOf(std::string(56, 'a'), 64), "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a");
  EXPECT_EQ(HashOf(std::string(64, 'a'), 64), "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
}

TEST(MappedFile, DropsPagesAndReadsThemAgain) {
  const TempFolder folder;
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::string bytes(8 * page, 'a');
  bytes[3 * page] = 'b';
  const MappedFile file(folder.Write("f", bytes));
  EXPECT_EQ(std::memcmp(file.data(), bytes.data(), bytes.size()), 0);
  for (const auto& [offset, size] : {std::pair{page + 1, page},
                                     {size_t{0}, bytes.size()},
                                     {bytes.size() - 1, size_t{1}},
                                     {page + 1, page},
                                     {size_t{5}, size_t{0}}}) {
    file.Drop(offset, size);
    EXPECT_EQ(std::memcmp(file.data(), bytes.data(), bytes.size()), 0);
  }
}

TEST(OpenCheckpoint, SaysWhatIsWrongWithAPath) {
  const TempFolder folder;
  const auto complaint = [](const std::string& model) {
    const std::string what = ErrorOf([&] { OpenCheckpoint(model, ASSAY_BF16); });
    EXPECT_EQ(what.find('\n'), std::string::npos);
    return what;
  };
  const auto has = [&](const std::string& model, const std::string& part) {
    const std::string what = complaint(model);
    EXPECT_NE(what.find(part), std::string::npos) << what;
  };
  has(folder.path() + "/nothing", "/nothing: no such file or folder");
  has("", "no such file or folder");
  has(folder.path(), "no config.json in this folder");
  has("hf:" + folder.path(), "no config.json in this folder");
  has("shape:gpt-17", "shape:gpt-17: no such shape; there are smollm2-135m, ");
  const std::string text = folder.Write("notes.txt", "hello");
  has(text, "neither a GGUF file nor a folder");
  has("hf:" + text, "needs a folder");
  has(folder.Write("model.safetensors", "x"), "give the folder that holds this file");
  const std::string gguf = folder.Write("m.gguf", testing::TinyGguf("llama", ASSAY_F32).Build());
  has(folder.path(), "to use the GGUF file in it, give " + gguf);
  EXPECT_EQ(complaint(gguf), "");
  const std::string pipe = folder.path() + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  has(pipe, "it is not a regular file");
  has(text + "/deeper", "/deeper: ");
}

TEST(OpenCheckpoint, HashesTheFile) {
  const TempFolder folder;
  const std::string bytes = testing::TinyGguf("llama", ASSAY_F32).Build();
  const auto c = OpenCheckpoint(folder.Write("m.gguf", bytes), ASSAY_BF16);
  EXPECT_EQ(c->Sha256(), HashOf(bytes, bytes.size()));
  EXPECT_EQ(c->file_bytes(), bytes.size());
  EXPECT_FALSE(c->synthetic());
}

TEST(OpenCheckpoint, TrailingSlashAndPrefix) {
  const TempFolder folder;
  folder.Write("config.json", testing::TinyConfig("LlamaForCausalLM").dump());
  folder.Write("model.safetensors", testing::TinySafetensors("LlamaForCausalLM").Build());
  const std::string name = std::filesystem::path(folder.path()).filename().string();
  for (const std::string& model : {folder.path(), folder.path() + "/", "hf:" + folder.path() + "//"}) {
    const auto c = OpenCheckpoint(model, ASSAY_BF16);
    EXPECT_EQ(c->config().name, name);
    EXPECT_EQ(c->path(), folder.path());
  }
}

// The same real model in two formats: GGUF's rows of q and k are permuted, everything else is the same.
TEST(OpenCheckpoint, ARealModelInBothFormats) {
  const char* shared = std::getenv("ASSAY_SHARED");
  const std::string dir = std::string(shared != nullptr ? shared : "") + "/data/stories260K";
  if (shared == nullptr || !std::filesystem::exists(dir))
    GTEST_SKIP() << "ASSAY_SHARED does not lead to data/stories260K";
  const auto hf = OpenCheckpoint("hf:" + dir + "/hf", ASSAY_BF16);
  const auto gguf = OpenCheckpoint(dir + "/stories260Ktok512.gguf", ASSAY_BF16);
  EXPECT_EQ(hf->config().rope.interleaved, 0);
  EXPECT_EQ(gguf->config().rope.interleaved, 1);
  for (const TensorInfo& t : hf->tensors()) {
    const TensorInfo* other = gguf->Find(t.name);
    ASSERT_NE(other, nullptr) << t.name;
    ASSERT_EQ(t.shape, other->shape) << t.name;
    if (t.name.find("q_proj") != std::string::npos || t.name.find("k_proj") != std::string::npos) continue;
    ASSERT_EQ(t.bytes, other->bytes) << t.name;
    EXPECT_EQ(std::memcmp(hf->Data(t), gguf->Data(*other), t.bytes), 0) << t.name;
  }
}

}  // namespace
}  // namespace assay
