// SPDX-License-Identifier: Apache-2.0
// Opens damaged model files, each made from a valid one by a mutation that its number alone determines. Whatever the
// damage: no crash, no hang, nothing thrown but Error, and no more memory than the file's size and 64 MB.
// ASSAY_FUZZ_RUNS=N sets the number of files; ASSAY_FUZZ_FIRST=N the number of the first (to repeat a failure).
#include <gtest/gtest.h>
#include <malloc.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>
#include <random>

#include "models/format/checkpoint.h"
#include "models/format/gguf.h"
#include "models/format/test_files.h"

namespace {
std::atomic<int64_t> g_live_bytes{0};
std::atomic<int64_t> g_peak_bytes{0};
}  // namespace

// Replaced for the whole program, to see the most memory that was held at once.
void* operator new(size_t size) {
  void* p = std::malloc(size);
  if (p == nullptr) throw std::bad_alloc();
  const int64_t live = g_live_bytes += static_cast<int64_t>(malloc_usable_size(p));
  int64_t peak = g_peak_bytes;
  while (live > peak && !g_peak_bytes.compare_exchange_weak(peak, live)) {
  }
  return p;
}
void operator delete(void* p) noexcept {
  if (p != nullptr) g_live_bytes -= static_cast<int64_t>(malloc_usable_size(p));
  std::free(p);
}
void operator delete(void* p, size_t) noexcept {
  operator delete(p);
}

namespace assay {
namespace {

using nlohmann::json;
using testing::Bytes;
using testing::GgufWriter;
using testing::SafetensorsWriter;
using testing::TempFolder;
using Random = std::mt19937_64;

constexpr uint64_t kSlack = 64u << 20;
constexpr unsigned kHangSeconds = 120;

size_t Below(Random& random, size_t n) {
  return n == 0 ? 0 : random() % n;
}

// What a size or an offset should not be.
uint64_t HostileNumber(Random& random, uint64_t file_size) {
  const uint64_t values[] = {0,
                             1,
                             2,
                             31,
                             255,
                             65535,
                             65536,
                             1u << 20,
                             0x7FFFFFFF,
                             0x80000000,
                             0xFFFFFFFF,
                             1ull << 32,
                             1ull << 40,
                             1ull << 61,
                             1ull << 62,
                             INT64_MAX,
                             1ull << 63,
                             ~0ull,
                             ~0ull - 7,
                             ~0ull - file_size,
                             file_size,
                             file_size - 1,
                             file_size / 2,
                             file_size * 2};
  return values[Below(random, std::size(values))];
}

// One blind change of bytes; most of them in the first `head` bytes, where the structure is.
void MutateBytes(Random& random, size_t head, std::string* bytes) {
  const auto place = [&] { return Below(random, random() % 4 == 0 ? bytes->size() : std::min(head, bytes->size())); };
  if (bytes->empty()) return;
  switch (random() % 7) {
    case 0:
      for (size_t n = 1 + random() % 8; n > 0; --n) (*bytes)[place()] ^= static_cast<char>(1 << random() % 8);
      break;
    case 1:
      bytes->resize(place());
      break;
    case 2:
    case 3: {
      const std::string number = Bytes(HostileNumber(random, bytes->size())).substr(0, random() % 2 == 0 ? 4 : 8);
      const size_t at = place();
      bytes->replace(at, std::min(number.size(), bytes->size() - at), number);
      break;
    }
    case 4:
      bytes->erase(place(), 1 + random() % 64);
      break;
    case 5:
      bytes->insert(place(), bytes->substr(place(), 1 + random() % 64));
      break;
    default:
      (*bytes)[place()] = static_cast<char>(random());
      break;
  }
}

json HostileValue(Random& random, const json& old, uint64_t file_size) {
  switch (random() % 12) {
    case 0:
      return nullptr;
    case 1:
      return -1;
    case 2:
      return 0.5;
    case 3:
      return 1e300;
    case 4:
      return "text";
    case 5:
      return json::array();
    case 6:
      return json::object();
    case 7:
      return json::array({old, old});
    case 8:
      return json::array({HostileNumber(random, file_size), HostileNumber(random, file_size)});
    case 9:
      return json{{"x", old}};
    case 10:
      return true;
    default:
      return HostileNumber(random, file_size);
  }
}

// Replaces, removes or copies one value somewhere below `node`.
void MutateJson(Random& random, uint64_t file_size, json* node) {
  while (node->is_structured() && !node->empty()) {
    const auto child = std::next(node->begin(), static_cast<std::ptrdiff_t>(Below(random, node->size())));
    if (!child->is_structured() || child->empty() || random() % 8 == 0) {
      const uint64_t what = random() % 8;
      if (what == 0 && node->is_object()) {
        node->erase(child);
      } else if (what == 1 && node->is_object()) {
        const json copy = *child;
        (*node)["copy"] = copy;
      } else {
        *child = HostileValue(random, *child, file_size);
      }
      return;
    }
    node = &*child;
  }
}

struct Model {
  bool is_gguf = false;
  GgufWriter gguf;
  SafetensorsWriter weights;
  json config;
};

std::vector<Model> ValidModels() {
  std::vector<Model> models;
  const std::pair<const char*, assay_dtype> ggufs[] = {{"llama", ASSAY_Q4_1},
                                                       {"qwen2", ASSAY_Q8_0},
                                                       {"qwen3", ASSAY_Q4_0},
                                                       {"gemma3", ASSAY_Q5_1},
                                                       {"llama", ASSAY_F16}};
  for (const auto& [arch, dtype] : ggufs) {
    Model m;
    m.is_gguf = true;
    m.gguf = testing::TinyGguf(arch, dtype);
    models.push_back(m);
  }
  for (const char* architecture :
       {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Gemma3ForCausalLM"}) {
    Model m;
    m.config = testing::TinyConfig(architecture);
    m.config["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 64}};
    m.weights = testing::TinySafetensors(architecture);
    models.push_back(m);
  }
  return models;
}

class Fuzzer {
 public:
  // Writes the file of this number; returns the path to open, and the bytes that the model's files take.
  std::string Write(const Model& model, uint64_t number, bool mutate, uint64_t* size) {
    Random random(number);
    if (model.is_gguf) {
      std::string bytes = model.gguf.Build();
      const size_t head = bytes.size() - DataBytes(model.gguf);
      if (mutate) Repeat(random, [&] { MutateBytes(random, head, &bytes); });
      *size = bytes.size();
      return folder_.Write("model.gguf", bytes);
    }
    json config = model.config;
    json header = model.weights.Header();
    const uint64_t kind = mutate ? random() % 4 : 4;
    if (kind == 0) Repeat(random, [&] { MutateJson(random, 1 << 16, &config); });
    if (kind == 1) Repeat(random, [&] { MutateJson(random, 1 << 16, &header); });
    std::string config_text = config.dump();
    std::string bytes = model.weights.BuildWith(header.dump());
    if (kind == 2) Repeat(random, [&] { MutateBytes(random, 8 + header.dump().size(), &bytes); });
    if (kind == 3) MutateBytes(random, config_text.size(), &config_text);
    folder_.Write("config.json", config_text);
    folder_.Write("model.safetensors", bytes);
    *size = bytes.size() + config_text.size();
    return folder_.path();
  }

  // True if the model opens and all of it can be read; false if it was refused with an Error.
  bool Open(const std::string& path) {
    try {
      const auto checkpoint = OpenCheckpoint(path, ASSAY_BF16);
      for (const TensorInfo& t : checkpoint->tensors()) {
        const auto* bytes = static_cast<const uint8_t*>(checkpoint->Data(t));
        for (uint64_t i = 0; i < t.bytes; ++i) sum_ += bytes[i];
        checkpoint->Release(t);
      }
      return true;
    } catch (const Error& e) {
      EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
      return false;
    }
  }

  // The metadata that a tokenizer is made of, whatever its type turned out to be.
  void ReadTokens(const std::string& path) {
    const auto attempt = [](const auto& read) {
      try {
        read();
      } catch (const Error&) {
      }
    };
    attempt([&] {
      const GgufFile file(path);
      for (const char* key : {"tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.scores"}) {
        attempt([&] { file.Ints(key); });
        attempt([&] { file.Numbers(key); });
        attempt([&] { file.Bools(key); });
        attempt([&] {
          for (const std::string_view token : file.Strings(key)) {
            for (const char c : token) sum_ += static_cast<uint8_t>(c);
          }
        });
      }
    });
  }

 private:
  static size_t DataBytes(const GgufWriter& w) {
    size_t sum = 0;
    for (const auto& t : w.tensors) sum += t.data.size();
    return sum;
  }
  template <class F>
  static void Repeat(Random& random, F change) {
    for (size_t n = 1 + random() % 3; n > 0; --n) change();
  }

  TempFolder folder_;
  uint64_t sum_ = 0;
};

void OnAlarm(int) {
  const char text[] = "mutate_models_test: a file took too long to open\n";
  [[maybe_unused]] const ssize_t n = write(STDERR_FILENO, text, sizeof(text) - 1);
  _exit(1);
}

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

TEST(MutateModels, ValidOnesOpen) {
  Fuzzer fuzzer;
  for (const Model& model : ValidModels()) {
    uint64_t size = 0;
    EXPECT_TRUE(fuzzer.Open(fuzzer.Write(model, 0, false, &size)));
  }
}

TEST(MutateModels, DamagedOnesAreRefusedOrRead) {
  const std::vector<Model> models = ValidModels();
  const uint64_t runs = FromEnvironment("ASSAY_FUZZ_RUNS", 1000);
  const uint64_t first = FromEnvironment("ASSAY_FUZZ_FIRST", 0);
  Fuzzer fuzzer;
  uint64_t opened = 0;
  signal(SIGALRM, OnAlarm);
  for (uint64_t number = first; number < first + runs; ++number) {
    SCOPED_TRACE("repeat with ASSAY_FUZZ_RUNS=1 ASSAY_FUZZ_FIRST=" + std::to_string(number));
    uint64_t size = 0;
    const Model& model = models[number % models.size()];
    const std::string path = fuzzer.Write(model, number, true, &size);
    alarm(kHangSeconds);
    const int64_t before = g_live_bytes;
    g_peak_bytes = before;
    ASSERT_NO_THROW(opened += fuzzer.Open(path));
    if (model.is_gguf) {
      ASSERT_NO_THROW(fuzzer.ReadTokens(path));
    }
    ASSERT_LE(static_cast<uint64_t>(g_peak_bytes - before), size + kSlack);
    ASSERT_EQ(g_live_bytes, before) << "memory was left behind";
  }
  alarm(0);
  if (runs < 100) return;
  // Otherwise the mutations would be too harsh, or too tame, to test anything.
  EXPECT_GT(opened, runs / 20);
  EXPECT_LT(opened, runs * 19 / 20);
}

}  // namespace
}  // namespace assay
