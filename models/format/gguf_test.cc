// SPDX-License-Identifier: Apache-2.0
#include "models/format/gguf.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "models/format/checkpoint.h"
#include "models/format/test_files.h"

namespace assay {
namespace {

using testing::Bytes;
using testing::ErrorOf;
using testing::GgufWriter;
using testing::TempFolder;
using testing::TinyGguf;

class GgufTest : public ::testing::Test {
 protected:
  // What opening the file and reading all of its tensors complains of; "" if nothing.
  std::string Complaint(const std::string& bytes) {
    const std::string path = folder_.Write("model.gguf", bytes);
    const std::string what = ErrorOf([&] {
      const auto checkpoint = OpenCheckpoint(path, ASSAY_BF16);
      for (const TensorInfo& t : checkpoint->tensors()) checkpoint->Data(t);
    });
    EXPECT_EQ(what.find('\n'), std::string::npos) << what;
    EXPECT_TRUE(what.empty() || what.rfind(path, 0) == 0) << what;
    return what;
  }
  void ExpectComplaint(const std::string& bytes, const std::string& part) {
    const std::string what = Complaint(bytes);
    EXPECT_NE(what.find(part), std::string::npos) << "wanted: " << part << "\ngot: " << what;
  }
  std::unique_ptr<Checkpoint> Open(const GgufWriter& w) {
    return OpenCheckpoint(folder_.Write("model.gguf", w.Build()), ASSAY_BF16);
  }

  TempFolder folder_;
};

TEST_F(GgufTest, ReadsMetadataOfEveryType) {
  GgufWriter w;
  w.Raw("u8", GgufWriter::TypeCode(GgufType::kU8) + Bytes<uint8_t>(200));
  w.Raw("i8", GgufWriter::TypeCode(GgufType::kI8) + Bytes<int8_t>(-3));
  w.Raw("u16", GgufWriter::TypeCode(GgufType::kU16) + Bytes<uint16_t>(60000));
  w.Raw("i16", GgufWriter::TypeCode(GgufType::kI16) + Bytes<int16_t>(-300));
  w.Raw("u64", GgufWriter::TypeCode(GgufType::kU64) + Bytes<uint64_t>(1ull << 40));
  w.Raw("huge", GgufWriter::TypeCode(GgufType::kU64) + Bytes<uint64_t>(~0ull));
  w.Raw("i64", GgufWriter::TypeCode(GgufType::kI64) + Bytes<int64_t>(-(1ll << 40)));
  w.Raw("i32", GgufWriter::TypeCode(GgufType::kI32) + Bytes<int32_t>(-7));
  w.Raw("f64", GgufWriter::TypeCode(GgufType::kF64) + Bytes<double>(0.1));
  w.F32("f32", 0.5f);
  w.Bool("yes", true);
  w.Str("text", "caf\xC3\xA9");
  w.Strs("texts", {"a", "", "bcd"});
  w.Array<int8_t>("ints", GgufType::kI8, {-1, 5});
  w.Array<float>("floats", GgufType::kF32, {0.25f, -2.0f});
  w.Array<uint8_t>("bools", GgufType::kBool, {1, 0, 1});
  // An array of arrays, and a key behind it: it must be stepped over exactly.
  w.Raw("nested", GgufWriter::ArrayHead(GgufType::kArray, 2) + GgufWriter::ArrayHead(GgufType::kString, 1).substr(4) +
                      GgufWriter::Text("x") + GgufWriter::ArrayHead(GgufType::kU16, 2).substr(4) + Bytes<uint32_t>(0));
  w.U32("last", 42);
  const GgufFile f(folder_.Write("m.gguf", w.Build()));
  EXPECT_EQ(f.Int("u8"), 200);
  EXPECT_EQ(f.Int("i8"), -3);
  EXPECT_EQ(f.Int("u16"), 60000);
  EXPECT_EQ(f.Int("i16"), -300);
  EXPECT_EQ(f.Int("u64"), 1ll << 40);
  EXPECT_EQ(f.Int("i64"), -(1ll << 40));
  EXPECT_EQ(f.Int("i32"), -7);
  EXPECT_EQ(f.Number("f64"), 0.1);
  EXPECT_EQ(f.Number("f32"), 0.5);
  EXPECT_EQ(f.Number("u8"), 200.0);
  EXPECT_EQ(f.Bool("yes"), true);
  EXPECT_EQ(f.String("text"), "caf\xC3\xA9");
  EXPECT_EQ(f.Strings("texts"), (std::vector<std::string_view>{"a", "", "bcd"}));
  EXPECT_EQ(f.Ints("ints"), (std::vector<int64_t>{-1, 5}));
  EXPECT_EQ(f.Numbers("floats"), (std::vector<double>{0.25, -2.0}));
  EXPECT_EQ(f.Bools("bools"), (std::vector<bool>{true, false, true}));
  EXPECT_EQ(f.Int("last"), 42);
  EXPECT_FALSE(f.Int("absent").has_value());
  EXPECT_FALSE(f.Has("absent"));
  EXPECT_TRUE(f.Strings("absent").empty());
  for (const auto& wrong :
       {ErrorOf([&] { f.Int("text"); }), ErrorOf([&] { f.Int("huge"); }), ErrorOf([&] { f.Bool("u8"); }),
        ErrorOf([&] { f.String("u8"); }), ErrorOf([&] { f.Strings("ints"); }), ErrorOf([&] { f.Ints("texts"); }),
        ErrorOf([&] { f.Numbers("nested"); }), ErrorOf([&] { f.Bools("text"); })}) {
    EXPECT_NE(wrong.find("should be"), std::string::npos) << wrong;
  }
}

TEST_F(GgufTest, OpensEachArchitectureAndType) {
  for (const std::string arch : {"llama", "qwen2", "qwen3", "gemma3"}) {
    for (const assay_dtype dtype :
         {ASSAY_F32, ASSAY_F16, ASSAY_BF16, ASSAY_Q8_0, ASSAY_Q4_0, ASSAY_Q4_1, ASSAY_Q5_0, ASSAY_Q5_1}) {
      for (const uint32_t version : {2u, 3u}) {
        GgufWriter w = TinyGguf(arch, dtype);
        w.version = version;
        const auto c = Open(w);
        EXPECT_EQ(FamilyName(c->config().family), arch);
        EXPECT_EQ(c->config().rope.interleaved, arch == "llama");
        EXPECT_EQ(c->config().qkv_bias, arch == "qwen2");
        EXPECT_EQ(c->config().qk_norm, arch == "qwen3" || arch == "gemma3");
        EXPECT_EQ(c->config().post_norms, arch == "gemma3");
        EXPECT_EQ(c->config().file_dtype, dtype);
        EXPECT_EQ(c->config().name, "tiny");
        EXPECT_EQ(c->tensors().size(), w.tensors.size());
        const TensorInfo* k = c->Find("model.layers.1.self_attn.k_proj.weight");
        ASSERT_NE(k, nullptr);
        EXPECT_EQ(k->shape, (std::vector<int64_t>{32, 64}));
        const std::string& data = w.Find("blk.1.attn_k.weight").data;
        ASSERT_EQ(k->bytes, data.size());
        EXPECT_EQ(std::memcmp(c->Data(*k), data.data(), data.size()), 0);
        c->Release(*k);
        EXPECT_EQ(std::memcmp(c->Data(*k), data.data(), data.size()), 0) << "after Release";
      }
    }
  }
}

TEST_F(GgufTest, ReadsTheConfig) {
  GgufWriter w = TinyGguf("llama", ASSAY_F32);
  w.Add("output.weight", {64, 64}, ASSAY_F32);
  w.Add("blk.0.attn_q.bias", {64}, ASSAY_F32);
  for (const char* b : {"blk.1.attn_q.bias"}) w.Add(b, {64}, ASSAY_F32);
  for (const char* b : {"blk.0.attn_k.bias", "blk.0.attn_v.bias", "blk.1.attn_k.bias", "blk.1.attn_v.bias"}) {
    w.Add(b, {32}, ASSAY_F32);
  }
  w.Add("rope_freqs.weight", {4}, ASSAY_F32);
  for (char& c : w.Find("rope_freqs.weight").data) c = 0;
  w.Find("rope_freqs.weight").data = Bytes(1.0f) + Bytes(2.0f) + Bytes(4.0f) + Bytes(8.0f);
  w.U32("llama.rope.dimension_count", 8);
  w.U32("tokenizer.ggml.eot_token_id", 7);
  w.Str("llama.rope.scaling.type", "yarn");
  w.F32("llama.rope.scaling.factor", 4.0f);
  w.U32("llama.rope.scaling.original_context_length", 64);
  const auto c = Open(w);
  const ModelConfig& config = c->config();
  EXPECT_FALSE(config.tied_embeddings);
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_FALSE(config.o_bias);
  EXPECT_EQ(config.hidden, 64);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.ffn, 96);
  EXPECT_EQ(config.vocab, 64);
  EXPECT_EQ(config.max_positions, 256);
  EXPECT_EQ(config.bos_id, 1);
  EXPECT_EQ(config.eos_ids, (std::vector<int32_t>{2, 7}));
  EXPECT_EQ(config.rope.rotary_dim, 8);
  EXPECT_EQ(config.rope.scaling, ASSAY_ROPE_YARN);
  EXPECT_EQ(config.rope.factor, 4.0f);
  EXPECT_EQ(config.rope.original_context, 64.0f);
  EXPECT_FLOAT_EQ(config.rope.attn_factor, 0.1f * std::log(4.0f) + 1.0f);
  ASSERT_NE(c->Find("lm_head.weight"), nullptr);
  ASSERT_NE(c->Find("rope_freqs.weight"), nullptr);
  EXPECT_EQ(static_cast<const float*>(c->Data(*c->Find("rope_freqs.weight")))[3], 8.0f);
  EXPECT_EQ(c->tokenizer_source(), c->path());

  w.Find("rope_freqs.weight").data = Bytes(1.0f) + Bytes(0.0f) + Bytes(4.0f) + Bytes(8.0f);
  ExpectComplaint(w.Build(), "rope_freqs.weight: element 1 is not a positive number");
  w.Str("llama.rope.scaling.type", "longrope");
  ExpectComplaint(w.Build(), "llama.rope.scaling.type: longrope is not supported");
}

TEST_F(GgufTest, ReadsGemma3) {
  GgufWriter w = TinyGguf("gemma3", ASSAY_F32);
  w.F32("gemma3.rope.freq_base", 1e6f);
  w.F32("gemma3.rope.scaling.factor", 8.0f);
  w.U32("gemma3.attention.sliding_window", 512);
  const auto checkpoint = Open(w);
  const ModelConfig& c = checkpoint->config();
  EXPECT_TRUE(c.gelu && c.post_norms && c.qk_norm && c.tied_embeddings);
  EXPECT_EQ(c.norm_offset, 0.0f);
  EXPECT_EQ(c.embed_scale, 8.0f);
  EXPECT_EQ(c.attn_scale, 0.0f);
  EXPECT_EQ(c.rope.theta, 1e6f);
  EXPECT_EQ(c.rope.factor, 8.0f);
  EXPECT_EQ(c.rope.scaling, ASSAY_ROPE_LINEAR);
  ASSERT_TRUE(c.window_rope);
  EXPECT_EQ(c.window_rope->theta, 1e4f);
  EXPECT_EQ(c.window_rope->scaling, ASSAY_ROPE_NONE);
  for (const int64_t i : {0, 4, 6, 10, 12}) EXPECT_TRUE(c.Windowed(i)) << i;
  for (const int64_t i : {5, 11}) EXPECT_FALSE(c.Windowed(i)) << i;
  const auto data = [&](const std::string& name) { return checkpoint->Data(*checkpoint->Find(name)); };
  const std::string layer = "model.layers.1.";
  for (const auto& [hf, gguf] :
       {std::pair("post_attention_layernorm", "post_attention_norm"),
        std::pair("pre_feedforward_layernorm", "ffn_norm"), std::pair("post_feedforward_layernorm", "post_ffw_norm")}) {
    const std::string& expected = w.Find(std::string("blk.1.") + gguf + ".weight").data;
    EXPECT_EQ(std::memcmp(data(layer + hf + ".weight"), expected.data(), expected.size()), 0) << hf;
  }

  w.U32("gemma3.attention.sliding_window_pattern", 2);
  w.F32("gemma3.rope.freq_base_swa", 500.0f);
  EXPECT_FALSE(Open(w)->config().Windowed(1));
  EXPECT_EQ(Open(w)->config().window_rope->theta, 500.0f);
  w.U32("gemma3.attention.sliding_window", 0);
  EXPECT_FALSE(Open(w)->config().window_rope);
  w.U32("gemma3.attention.key_length", 16);
  w.U32("gemma3.block_count", 62);
  w.U32("gemma3.attention.head_count", 0);
  ExpectComplaint(w.Build(), "number of attention heads is 0");
  w.U32("gemma3.attention.head_count", 4);
  w.F32("gemma3.final_logit_softcapping", 30.0f);
  ExpectComplaint(w.Build(), "gemma3.final_logit_softcapping: soft-capping is not supported");
}

TEST_F(GgufTest, RefusesOtherFilesAndVersions) {
  std::string good = TinyGguf("llama", ASSAY_F32).Build();
  EXPECT_EQ(Complaint(good), "");
  GgufWriter w = TinyGguf("llama", ASSAY_F32);
  w.version = 1;
  ExpectComplaint(w.Build(), "GGUF version 1");
  w.version = 4;
  ExpectComplaint(w.Build(), "GGUF version 4");
  w.version = 0x03000000;
  ExpectComplaint(w.Build(), "big-endian");
  ExpectComplaint("GGUF", "not a GGUF file");
  ExpectComplaint("", "the file is empty");
  ExpectComplaint("hello, world", "neither a GGUF file nor a folder");
}

TEST_F(GgufTest, RefusesEveryTruncation) {
  const std::string good = TinyGguf("llama", ASSAY_Q4_1).Build();
  for (size_t size = 0; size < good.size(); size += size < 3000 ? 7 : 997) {
    EXPECT_NE(Complaint(good.substr(0, size)), "") << size;
  }
  ExpectComplaint(good.substr(0, good.size() - 1), "was cut short");
}

TEST_F(GgufTest, RefusesCountsBeyondTheFile) {
  std::string bytes = TinyGguf("llama", ASSAY_F32).Build();
  const auto with = [&](size_t at, uint64_t value) {
    std::string changed = bytes;
    changed.replace(at, 8, Bytes(value));
    return changed;
  };
  ExpectComplaint(with(8, ~0ull), "tensors are more than the file can hold");
  ExpectComplaint(with(8, 60000), "tensors are more than the file can hold");
  ExpectComplaint(with(16, 1ull << 61), "metadata entries are more than the file can hold");
  ExpectComplaint(with(24, ~0ull - 3), "reaches past the end");  // the first key's length
  GgufWriter w = TinyGguf("llama", ASSAY_F32);
  for (const GgufType element : {GgufType::kU64, GgufType::kString, GgufType::kArray}) {
    w.Raw("x", GgufWriter::ArrayHead(element, 1ull << 61));
    ExpectComplaint(w.Build(), "is larger than the file");
  }
  std::string deep = GgufWriter::TypeCode(GgufType::kArray);
  for (int i = 0; i < 100; ++i) deep += GgufWriter::ArrayHead(GgufType::kArray, 1).substr(4);
  w.Raw("x", deep + GgufWriter::ArrayHead(GgufType::kU8, 0).substr(4));
  ExpectComplaint(w.Build(), "nested more than");
  w.Raw("x", Bytes<uint32_t>(13));
  ExpectComplaint(w.Build(), "unknown metadata type 13");
  w.Raw("x", GgufWriter::TypeCode(GgufType::kBool) + Bytes<uint8_t>(2));
  ExpectComplaint(w.Build(), "is no bool");
}

TEST_F(GgufTest, RefusesDamagedTensors) {
  const GgufWriter good = TinyGguf("llama", ASSAY_Q4_1);
  GgufWriter w = good;
  w.tensors[3].name = w.tensors[2].name;
  ExpectComplaint(w.Build(), "\"blk.0.attn_q.weight\" appears twice");
  w = good;
  w.entries.push_back(w.entries[0]);
  ExpectComplaint(w.Build(), "\"general.architecture\" appears twice");
  w = good;
  w.Find("blk.0.attn_q.weight").dims = {1ull << 40, 1ull << 40};
  ExpectComplaint(w.Build(), "dimension 1 is");
  w.Find("blk.0.attn_q.weight").dims = {64, 0};
  ExpectComplaint(w.Build(), "dimension 1 is 0");
  w.Find("blk.0.attn_q.weight").dims = {64, 1, 1, 1, 1};
  ExpectComplaint(w.Build(), "has 5 dimensions");
  w.Find("blk.0.attn_q.weight").dims = {48, 64};
  ExpectComplaint(w.Build(), "no whole number of Q4_1 blocks");
  w.Find("blk.0.attn_q.weight").dims = {64, 1ull << 30};
  ExpectComplaint(w.Build(), "of a data section of");
  w.Find("blk.0.attn_q.weight").dims = {64, 96};
  ExpectComplaint(w.Build(), "overlaps tensor \"blk.0.attn_q.weight\"");
  w.Find("blk.0.attn_q.weight").dims = {64, 32};
  ExpectComplaint(w.Build(), "blk.0.attn_q.weight has shape [32, 64], but the model's configuration asks for [64, 64]");
  w = good;
  w.Find("blk.0.attn_q.weight").type = 99;
  ExpectComplaint(w.Build(), "\"blk.0.attn_q.weight\" is of the unknown type 99");
  w = good;
  std::erase_if(w.tensors, [](const auto& t) { return t.name == "blk.1.ffn_up.weight"; });
  ExpectComplaint(w.Build(), "tensor blk.1.ffn_up.weight [96, 64] is missing");
}

TEST_F(GgufTest, RefusesTensorOffsets) {
  GgufWriter w;
  w.Add("a", {8}, ASSAY_F32);
  for (const uint64_t offset : {uint64_t{32}, ~uint64_t{31}}) {
    std::string bytes = w.Header() + GgufWriter::TensorHead(w.tensors[0], offset);
    bytes.resize((bytes.size() + 31) / 32 * 32 + 32);
    EXPECT_NE(ErrorOf([&] { GgufFile f(folder_.Write("a.gguf", bytes)); }).find("of a data section of 32 bytes"),
              std::string::npos);
  }
  std::string bytes = w.Header() + GgufWriter::TensorHead(w.tensors[0], 4);
  bytes.resize(bytes.size() + 200);
  EXPECT_NE(ErrorOf([&] { GgufFile f(folder_.Write("a.gguf", bytes)); }).find("not a multiple of the alignment"),
            std::string::npos);
}

TEST_F(GgufTest, HonoursTheAlignment) {
  GgufWriter w = TinyGguf("llama", ASSAY_F32);
  w.alignment = 128;
  w.U32("general.alignment", 128);
  EXPECT_EQ(Complaint(w.Build()), "");
  w.U32("general.alignment", 48);
  ExpectComplaint(w.Build(), "it must be a power of two");
  w.U32("general.alignment", 0);
  ExpectComplaint(w.Build(), "it must be a power of two");
  w.alignment = 1;  // nothing aligned: the data are handed out from an aligned copy
  w.U32("general.alignment", 1);
  w.Find("token_embd.weight").data += "x";
  const auto c = Open(w);
  for (const TensorInfo& t : c->tensors()) EXPECT_EQ(reinterpret_cast<uintptr_t>(c->Data(t)) % 4, 0u) << t.name;
  const TensorInfo* q = c->Find("model.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(std::memcmp(c->Data(*q), w.Find("blk.0.attn_q.weight").data.data(), q->bytes), 0);
}

TEST_F(GgufTest, NamesTypesThatItCannotRead) {
  GgufWriter w = TinyGguf("llama", ASSAY_F32);
  GgufWriter::Tensor& t = w.Find("token_embd.weight");
  t.type = 10;  // Q2_K: 256 elements in 84 bytes
  t.dims = {256, 16};
  t.data.resize(16 * 84);
  ExpectComplaint(w.Build(), "token_embd.weight is of type Q2_K, which is not supported");
  ExpectComplaint(w.Build(), "llama-quantize");
}

TEST_F(GgufTest, RefusesNanAndInfinity) {
  const uint16_t kNan = 0x7E00;
  const uint16_t kInf = 0xFC00;
  const struct {
    assay_dtype dtype;
    size_t block_bytes;
    size_t at;
    uint16_t value;
  } cases[] = {{ASSAY_Q8_0, 34, 0, kNan}, {ASSAY_Q4_0, 18, 0, kInf}, {ASSAY_Q4_1, 20, 0, kNan},
               {ASSAY_Q4_1, 20, 2, kInf}, {ASSAY_Q5_0, 22, 0, kNan}, {ASSAY_Q5_1, 24, 2, kInf}};
  for (const auto& c : cases) {
    GgufWriter w = TinyGguf("llama", c.dtype);
    EXPECT_EQ(Complaint(w.Build()), "");
    w.Find("blk.1.ffn_up.weight").data.replace(5 * c.block_bytes + c.at, 2, Bytes(c.value));
    ExpectComplaint(w.Build(), "blk.1.ffn_up.weight: the scale of block 5 is NaN or infinite");
  }
  GgufWriter w = TinyGguf("llama", ASSAY_F32);
  w.Find("output_norm.weight").data.replace(8, 4, Bytes(std::numeric_limits<float>::quiet_NaN()));
  ExpectComplaint(w.Build(), "output_norm.weight: element 2 is NaN or infinite");
}

TEST_F(GgufTest, RefusesConfigsThatMakeNoSense) {
  const GgufWriter good = TinyGguf("llama", ASSAY_F32);
  const auto with = [&](const std::string& key, uint32_t value) {
    GgufWriter w = good;
    w.U32(key, value);
    return w.Build();
  };
  ExpectComplaint(with("llama.attention.head_count_kv", 3), "4 attention heads are not a multiple of 3");
  ExpectComplaint(with("llama.attention.head_count_kv", 0), "number of key/value heads is 0");
  ExpectComplaint(with("llama.attention.head_count", 0), "is not a multiple of attention.head_count");
  ExpectComplaint(with("llama.block_count", 0xFFFFFFFF), "number of layers is 4294967295");
  ExpectComplaint(with("llama.block_count", 3), "tensor blk.2.attn_norm.weight [64] is missing");
  ExpectComplaint(with("llama.embedding_length", 1u << 31), "hidden size is");
  ExpectComplaint(with("llama.rope.dimension_count", 18), "rope.dimension_count");
  ExpectComplaint(with("llama.rope.dimension_count", 7), "rotary dimension 7 must be even");
  ExpectComplaint(with("llama.attention.value_length", 8), "differs from the length of keys");
  ExpectComplaint(with("llama.expert_count", 8), "mixtures of experts are not supported");
  ExpectComplaint(with("llama.context_length", 0), "number of positions is 0");
  ExpectComplaint(with("llama.rope.freq_base", 0), "rope theta");
  GgufWriter w = good;
  w.Remove("llama.block_count");
  ExpectComplaint(w.Build(), "llama.block_count: is missing");
  w = good;
  w.Str("llama.block_count", "two");
  ExpectComplaint(w.Build(), "llama.block_count should be an integer, not string");
  w = good;
  w.Str("general.architecture", "mamba\n");
  ExpectComplaint(w.Build(), "architecture \"mamba?\" is not supported (supported: llama, qwen2, qwen3, gemma3)");
}

}  // namespace
}  // namespace assay
