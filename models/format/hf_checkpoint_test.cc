// SPDX-License-Identifier: Apache-2.0
#include "models/format/hf_checkpoint.h"

#include <gtest/gtest.h>

#include <limits>

#include "models/format/safetensors.h"
#include "models/format/test_files.h"

namespace assay {
namespace {

using nlohmann::json;
using testing::Bytes;
using testing::ErrorOf;
using testing::SafetensorsWriter;
using testing::TempFolder;
using testing::TinyConfig;
using testing::TinySafetensors;

constexpr char kLlama[] = "LlamaForCausalLM";

class HfCheckpointTest : public ::testing::Test {
 protected:
  void WriteConfig(const json& config) { folder_.Write("config.json", config.dump()); }
  std::unique_ptr<Checkpoint> Open(const SafetensorsWriter& w) {
    folder_.Write("model.safetensors", w.Build());
    return OpenHfCheckpoint(folder_.path());
  }
  std::string Complaint(const std::string& bytes) {
    folder_.Write("model.safetensors", bytes);
    const std::string what = ErrorOf([&] {
      const auto checkpoint = OpenHfCheckpoint(folder_.path());
      for (const TensorInfo& t : checkpoint->tensors()) checkpoint->Data(t);
    });
    EXPECT_EQ(what.find('\n'), std::string::npos) << what;
    return what;
  }
  void ExpectComplaint(const std::string& bytes, const std::string& part) {
    const std::string what = Complaint(bytes);
    EXPECT_NE(what.find(part), std::string::npos) << "wanted: " << part << "\ngot: " << what;
  }
  // `change` edits the header of a good file.
  template <class F>
  void ExpectHeaderComplaint(F change, const std::string& part) {
    const SafetensorsWriter w = TinySafetensors(kLlama);
    json header = w.Header();
    change(header);
    ExpectComplaint(w.BuildWith(header.dump()), part);
  }

  TempFolder folder_;
};

// The tensor in 8 bits, its bytes 0, 1, 2, ... with these scales.
void Quantize(SafetensorsWriter* w, const std::string& name, const std::string& type, const std::string& scale_name,
              const std::vector<int64_t>& scale_shape, const std::vector<float>& scales) {
  for (SafetensorsWriter::Tensor& t : w->tensors) {
    if (t.name != name) continue;
    t.type = type;
    t.data.resize(static_cast<size_t>(t.shape[0] * t.shape[1]));
    for (size_t i = 0; i < t.data.size(); ++i) t.data[i] = static_cast<char>(i % 126);
  }
  std::string bytes;
  for (const float s : scales) bytes += Bytes(s);
  w->tensors.push_back({scale_name, "F32", scale_shape, bytes});
}

const std::string kGate = "model.layers.1.mlp.gate_proj.weight";  // [96, 64]

TEST_F(HfCheckpointTest, ReadsQuantsWithScales) {
  WriteConfig(TinyConfig(kLlama));
  std::vector<float> rows(96);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = 0.5f + static_cast<float>(i);
  SafetensorsWriter w = TinySafetensors(kLlama);
  Quantize(&w, kGate, "I8", kGate + "_scale", {96, 1}, rows);
  const std::string up = "model.layers.1.mlp.up_proj.weight", down = "model.layers.1.mlp.down_proj.weight";
  Quantize(&w, up, "F8_E4M3", up + "_scale", {}, {2.5f});
  Quantize(&w, down, "F8_E4M3", down + "_scale", {1}, {3.5f});
  const auto c = Open(w);
  EXPECT_EQ(c->Find(kGate)->dtype, ASSAY_I8);
  EXPECT_EQ(c->Find(kGate)->bytes, 96u * 64);
  EXPECT_EQ(c->Scales(*c->Find(kGate)), rows);
  EXPECT_EQ(static_cast<const uint8_t*>(c->Data(*c->Find(kGate)))[130], 4);
  EXPECT_EQ(c->Find(up)->dtype, ASSAY_F8_E4M3);
  EXPECT_EQ(c->Scales(*c->Find(up)), std::vector<float>(96, 2.5f));
  EXPECT_EQ(c->Scales(*c->Find(down)), std::vector<float>(64, 3.5f));
}

TEST_F(HfCheckpointTest, BlocksOf128By128AreJoinedWithTheirScales) {
  json config = TinyConfig(kLlama);
  config["intermediate_size"] = 256;
  WriteConfig(config);
  const std::string down = "model.layers.1.mlp.down_proj.weight";  // [64, 256]
  SafetensorsWriter w = TinySafetensors(kLlama);
  for (SafetensorsWriter::Tensor& t : w.tensors) {
    if (t.name.find("mlp.") == std::string::npos) continue;
    t.shape = t.name.find("down") == std::string::npos ? std::vector<int64_t>{256, 64} : std::vector<int64_t>{64, 256};
    t.data = testing::Weights(ASSAY_BF16, 256 * 64, 1);
  }
  Quantize(&w, down, "F8_E4M3", down + "_scale_inv", {1, 2}, {2.0f, 4.0f});
  const auto c = Open(w);
  const TensorInfo& info = *c->Find(down);
  ASSERT_EQ(info.dtype, ASSAY_F8_B128);
  ASSERT_EQ(info.bytes, 64u * 2 * 132);
  const auto* blocks = static_cast<const uint8_t*>(c->Data(info));
  for (const auto& [block, scale] : {std::pair(0, 2.0f), {1, 4.0f}, {127, 4.0f}}) {
    EXPECT_EQ(std::memcmp(blocks + block * 132, &scale, sizeof scale), 0) << block;
    EXPECT_EQ(blocks[block * 132 + 4 + 3], (block * 128 + 3) % 126) << block;
  }
}

TEST_F(HfCheckpointTest, RefusesQuantsWithoutTheirScales) {
  WriteConfig(TinyConfig(kLlama));
  const auto expect = [&](const std::string& type, const std::string& name, const std::vector<int64_t>& shape,
                          const std::vector<float>& scales, const std::string& part) {
    SafetensorsWriter w = TinySafetensors(kLlama);
    Quantize(&w, kGate, type, name, shape, scales);
    ExpectComplaint(w.Build(), part);
  };
  expect("I8", "other", {1}, {1}, "has no scales: there is no tensor " + kGate + "_scale");
  expect("I8", kGate + "_scale", {64}, std::vector<float>(64, 1), "has scales of shape [64]");
  expect("F8_E4M3", kGate + "_scale_inv", {1, 2}, {1, 1}, "has scales of shape [1, 2]");
  expect("I8", kGate + "_scale", {1}, {std::numeric_limits<float>::infinity()}, "scale 0 is NaN or infinite");
  SafetensorsWriter w = TinySafetensors(kLlama);
  Quantize(&w, kGate, "I8", kGate + "_scale", {1}, {1});
  w.tensors.push_back({kGate + "_zero_point", "I8", {1}, "x"});
  ExpectComplaint(w.Build(), "has zero points, which are not supported");
}

TEST_F(HfCheckpointTest, OpensEachFamily) {
  for (const std::string architecture :
       {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}) {
    WriteConfig(TinyConfig(architecture));
    const SafetensorsWriter w = TinySafetensors(architecture);
    const auto c = Open(w);
    EXPECT_EQ(c->config().architecture, architecture);
    EXPECT_EQ(c->tensors().size(), w.tensors.size());
    EXPECT_EQ(c->config().file_dtype, ASSAY_BF16);
    EXPECT_EQ(c->tokenizer_source(), folder_.path());
    for (const SafetensorsWriter::Tensor& t : w.tensors) {
      const TensorInfo* info = c->Find(t.name);
      ASSERT_NE(info, nullptr) << t.name;
      EXPECT_EQ(info->shape, t.shape);
      ASSERT_EQ(info->bytes, t.data.size());
      EXPECT_EQ(std::memcmp(c->Data(*info), t.data.data(), t.data.size()), 0);
      c->Release(*info);
    }
  }
}

TEST_F(HfCheckpointTest, MixedTypesExtraTensorsAndOtherOrders) {
  WriteConfig(TinyConfig(kLlama));
  SafetensorsWriter w = TinySafetensors(kLlama);
  std::reverse(w.tensors.begin(), w.tensors.end());
  w.Add("model.layers.0.self_attn.rotary_emb.inv_freq", {8}, ASSAY_F32);
  w.tensors.push_back({"step", "I64", {}, Bytes<int64_t>(3)});
  w.tensors.push_back({"nothing", "F32", {0, 4}, ""});
  const auto c = Open(w);
  EXPECT_EQ(c->Find("step"), nullptr);
  EXPECT_EQ(c->Find("model.layers.0.self_attn.rotary_emb.inv_freq"), nullptr);
  EXPECT_EQ(c->tensors().size(), w.tensors.size() - 3);
  EXPECT_EQ(c->tensors().front().name, "model.embed_tokens.weight");
}

TEST_F(HfCheckpointTest, AcceptsAModelSavedWithoutItsHead) {
  json config = TinyConfig("LlamaModel");
  WriteConfig(config);
  const auto c = Open(TinySafetensors(kLlama, ""));
  EXPECT_NE(c->Find("model.layers.1.mlp.down_proj.weight"), nullptr);
  config["tie_word_embeddings"] = false;
  WriteConfig(config);
  ExpectComplaint(TinySafetensors(kLlama, "").Build(), "tensor lm_head.weight [64, 64] is missing");
}

TEST_F(HfCheckpointTest, TiesAsTransformersDoes) {
  WriteConfig(TinyConfig(kLlama));
  SafetensorsWriter w = TinySafetensors(kLlama);
  EXPECT_TRUE(Open(w)->config().tied_embeddings);
  w.Add("lm_head.weight", {64, 64});
  EXPECT_FALSE(Open(w)->config().tied_embeddings) << "both are there and differ";
  EXPECT_NE(Open(w)->Find("lm_head.weight"), nullptr);
  w.tensors.back().data = w.tensors.front().data;
  EXPECT_TRUE(Open(w)->config().tied_embeddings) << "both are there and equal";
  EXPECT_EQ(Open(w)->Find("lm_head.weight"), nullptr);
  w.tensors.erase(w.tensors.begin());
  EXPECT_TRUE(Open(w)->config().tied_embeddings) << "only the head is there";
  EXPECT_NE(Open(w)->Find("model.embed_tokens.weight"), nullptr);
}

TEST_F(HfCheckpointTest, Shards) {
  WriteConfig(TinyConfig(kLlama));
  SafetensorsWriter parts[2];
  json map;
  for (const auto& t : TinySafetensors(kLlama).tensors) {
    const int i = t.name.find("layers.1.") != std::string::npos;
    parts[i].tensors.push_back(t);
    map[t.name] = i == 0 ? "a.safetensors" : "b.safetensors";
  }
  const auto complaint = [&](const json& index) {
    folder_.Write("model.safetensors.index.json", index.dump());
    return ErrorOf([&] { OpenHfCheckpoint(folder_.path()); });
  };
  const std::string a = folder_.Write("a.safetensors", parts[0].Build());
  EXPECT_NE(complaint({{"weight_map", map}}).find("b.safetensors: cannot be opened"), std::string::npos);
  const std::string b = folder_.Write("b.safetensors", parts[1].Build());
  EXPECT_EQ(complaint({{"weight_map", map}}), "");
  const auto c = OpenHfCheckpoint(folder_.path());
  EXPECT_EQ(c->file_bytes(), std::filesystem::file_size(a) + std::filesystem::file_size(b));
  const TensorInfo* up = c->Find("model.layers.1.mlp.up_proj.weight");
  ASSERT_NE(up, nullptr);
  for (const auto& t : parts[1].tensors) {
    EXPECT_TRUE(t.name != up->name || std::memcmp(c->Data(*up), t.data.data(), up->bytes) == 0);
  }
  map["lm_head.weight"] = "b.safetensors";
  EXPECT_NE(complaint({{"weight_map", map}}).find("tensor lm_head.weight is in none of the files"), std::string::npos);
  map["lm_head.weight"] = "../b.safetensors";
  EXPECT_NE(complaint({{"weight_map", map}}).find("must name a file of the same folder"), std::string::npos);
  map["lm_head.weight"] = 7;
  EXPECT_NE(complaint({{"weight_map", map}}).find("must name a file of the same folder"), std::string::npos);
  EXPECT_NE(complaint(json::object()).find("weight_map is missing"), std::string::npos);
  map.erase("lm_head.weight");
  parts[1].tensors.push_back(parts[0].tensors[0]);
  folder_.Write("b.safetensors", parts[1].Build());
  EXPECT_NE(complaint({{"weight_map", map}}).find("is in another file of the folder, too"), std::string::npos);
}

TEST_F(HfCheckpointTest, RefusesFoldersWithoutWeights) {
  WriteConfig(TinyConfig(kLlama));
  EXPECT_NE(ErrorOf([&] { OpenHfCheckpoint(folder_.path()); }).find("no model.safetensors"), std::string::npos);
  folder_.Write("pytorch_model.bin", "");
  EXPECT_NE(ErrorOf([&] { OpenHfCheckpoint(folder_.path()); }).find("safe_serialization"), std::string::npos);
}

TEST_F(HfCheckpointTest, RefusesDamagedHeaders) {
  WriteConfig(TinyConfig(kLlama));
  const std::string good = TinySafetensors(kLlama).Build();
  EXPECT_EQ(Complaint(good), "");
  ExpectComplaint("", "shorter than 8 bytes");
  ExpectComplaint(Bytes<uint64_t>(~0ull) + good.substr(8), "at most 100 MB");
  ExpectComplaint(Bytes<uint64_t>(99'000'000) + good.substr(8), "the file was cut short");
  ExpectComplaint(Bytes<uint64_t>(100) + good.substr(8), "not valid JSON");
  ExpectComplaint(good.substr(0, good.size() - 1), "the file is damaged or was cut short");
  ExpectComplaint(good + "x", "the file is damaged");
  const SafetensorsWriter w = TinySafetensors(kLlama);
  ExpectComplaint(w.BuildWith("[]"), "a JSON object was expected");
  ExpectComplaint(w.BuildWith("{}"), "the tensors end at byte 0");
  const std::string header = w.Header().dump();
  ExpectComplaint(w.BuildWith("{\"model.norm.weight\":1," + header.substr(1)), "\"model.norm.weight\" appears twice");
  for (size_t size = 0; size < good.size(); size += size < 3000 ? 13 : 1999) {
    EXPECT_NE(Complaint(good.substr(0, size)), "") << size;
  }
}

TEST_F(HfCheckpointTest, RefusesDamagedEntries) {
  WriteConfig(TinyConfig(kLlama));
  const std::string norm = "model.norm.weight";
  const std::string embed = "model.embed_tokens.weight";
  ExpectHeaderComplaint([&](json& h) { h[norm]["dtype"] = "F7"; }, "unknown dtype \"F7\"");
  ExpectHeaderComplaint([&](json& h) { h[norm].erase("dtype"); }, "dtype is missing");
  ExpectHeaderComplaint([&](json& h) { h[norm] = 3; }, "its entry must be an object");
  ExpectHeaderComplaint([&](json& h) { h[norm]["shape"] = {65}; },
                        "128 bytes of data, but its dtype and shape need 130");
  ExpectHeaderComplaint([&](json& h) { h[norm]["shape"] = {-64}; }, "shape must hold integers that are not negative");
  ExpectHeaderComplaint([&](json& h) { h[norm]["shape"] = {64.0}; }, "shape must hold integers");
  ExpectHeaderComplaint([&](json& h) { h[norm]["shape"] = {1ull << 40, 1ull << 40}; }, "its shape is too large");
  ExpectHeaderComplaint([&](json& h) { h[norm]["shape"] = {0, 1ull << 60}; }, "its shape is too large");
  ExpectHeaderComplaint([&](json& h) { h[norm]["shape"] = json(std::vector<int>(9, 1)); }, "a list of at most 8");
  ExpectHeaderComplaint([&](json& h) { h[norm]["data_offsets"] = {128, 0}; }, "must be [begin, end]");
  ExpectHeaderComplaint([&](json& h) { h[norm]["data_offsets"] = {128}; }, "must be [begin, end]");
  ExpectHeaderComplaint(
      [&](json& h) {
        h[norm]["data_offsets"] = {0, ~0ull};
      },
      "its data ends at byte 18446744073709551615");
  ExpectHeaderComplaint([&](json& h) { h[norm]["data_offsets"] = {0, 128}; }, "overlaps the tensor before it");
  ExpectHeaderComplaint([&](json& h) { h.erase("model.layers.0.mlp.up_proj.weight"); }, "leaves a hole after");
  ExpectHeaderComplaint([&](json& h) { h[""] = h[norm]; }, "name is empty or too long");
  ExpectHeaderComplaint([&](json& h) { h["two\nlines"] = 5; }, "two?lines");
  ExpectHeaderComplaint(
      [&](json& h) {
        h[embed]["shape"] = {32, 128};
      },
      "has shape [32, 128], but the model's configuration asks for [64, 64]");
  ExpectHeaderComplaint([&](json& h) { h[embed]["dtype"] = "I16"; },
                        "is of type I16; weights must be F32, F16 or BF16, or F8_E4M3 or I8 with scales");
}

TEST_F(HfCheckpointTest, RefusesHostileJson) {
  WriteConfig(TinyConfig(kLlama));
  const SafetensorsWriter w = TinySafetensors(kLlama);
  ExpectComplaint(w.BuildWith("{\"a\":" + std::string(1'000'000, '[')), "nested more than");
  ExpectComplaint(w.BuildWith("{\"a\":[" + std::string(1'000'000, ',')), "more than 400000 values");
  ExpectComplaint(w.BuildWith("{\"" + std::string(3'000'000, 'a') + "\":1}"), "a string or number of more than 2 MB");
  ExpectComplaint(w.BuildWith("{\"a\":" + std::string(3'000'000, '1') + "}"), "a string or number of more than 2 MB");
  std::string spaces = "{";
  for (int i = 0; i < 5; ++i) spaces += std::string(1'000'000, ' ') + "\"" + std::to_string(i) + "\":1,";
  ExpectComplaint(w.BuildWith(spaces + "}"), "white space");
  std::string objects = "{\"a\":[{}";  // took time that grows with the square of their number
  for (int i = 0; i < 130'000; ++i) objects += ",{}";
  ExpectComplaint(w.BuildWith(objects + "]}"), "tensor a: its entry must be an object");
  ExpectComplaint(w.BuildWith("{\"a\":\"\xFF\"}"), "not valid JSON");
  folder_.Write("config.json", std::string(2'000'000, '['));
  ExpectComplaint(w.Build(), "config.json: byte 32: values are nested");
  folder_.Write("config.json", "");
  ExpectComplaint(w.Build(), "config.json: not valid JSON");
}

TEST_F(HfCheckpointTest, RefusesNanInNorms) {
  WriteConfig(TinyConfig(kLlama));
  SafetensorsWriter w = TinySafetensors(kLlama);
  w.tensors.back().data.replace(6, 2, Bytes<uint16_t>(0x7FC0));
  ExpectComplaint(w.Build(), "model.norm.weight: element 3 is NaN or infinite");
}

TEST_F(HfCheckpointTest, HandsOutAlignedData) {
  WriteConfig(TinyConfig(kLlama));
  SafetensorsWriter w = TinySafetensors(kLlama);
  w.tensors.insert(w.tensors.begin(), {"odd", "U8", {1}, "x"});  // shifts all the others by one byte
  const auto c = Open(w);
  for (const TensorInfo& t : c->tensors()) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(c->Data(t)) % 2, 0u);
  }
  const TensorInfo& embed = c->tensors().front();
  EXPECT_EQ(std::memcmp(c->Data(embed), w.tensors[1].data.data(), embed.bytes), 0);
}

}  // namespace
}  // namespace assay
