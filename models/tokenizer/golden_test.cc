// SPDX-License-Identifier: Apache-2.0
// Token ids and texts against those of independent implementations (tests/data/tokenizer/make_golden.py).
#include <gtest/gtest.h>

#include "models/tokenizer/stream_decoder.h"
#include "models/tokenizer/test_util.h"

namespace assay::tokenizer_test {
namespace {

std::string Stream(const Tokenizer& tokenizer, const Ids& ids, bool skip_special) {
  StreamDecoder decoder(tokenizer, skip_special);
  std::string text;
  for (const int32_t id : ids) {
    const std::string part = decoder.Push(id);
    text += part;
  }
  return text + decoder.Finish();
}

// special: the golden ids know special tokens in a text.
void ExpectGolden(const Tokenizer& tokenizer, const std::string& golden_name, bool special = true) {
  const nlohmann::json golden = ReadJson(DataDir() / "golden" / (golden_name + ".json"));
  const std::vector<std::string> corpus = Corpus();
  ASSERT_EQ(corpus.size(), golden["cases"].size());
  const Ids before = golden["before"], after = golden["after"];
  for (size_t i = 0; i < corpus.size(); ++i) {
    SCOPED_TRACE(golden_name + " text " + std::to_string(i) + ": " + nlohmann::json(corpus[i]).dump());
    const nlohmann::json& expected = golden["cases"][i];
    const Ids ids = expected[0];
    const Ids plain = expected[1].is_null() ? ids : expected[1].get<Ids>();
    EXPECT_EQ(tokenizer.Encode(corpus[i], false, false), plain);
    if (special) {
      EXPECT_EQ(tokenizer.Encode(corpus[i], false, true), ids);
    }
    Ids around = before;
    around.insert(around.end(), plain.begin(), plain.end());
    around.insert(around.end(), after.begin(), after.end());
    EXPECT_EQ(tokenizer.Encode(corpus[i], true, false), around);

    const std::string text = expected[2].is_null() ? corpus[i] : expected[2].get<std::string>();
    EXPECT_EQ(tokenizer.Decode(ids, true), text);
    EXPECT_EQ(tokenizer.Decode(ids, false), expected[3].is_null() ? text : expected[3].get<std::string>());
    EXPECT_EQ(Stream(tokenizer, ids, true), text);
    EXPECT_EQ(Stream(tokenizer, ids, false), tokenizer.Decode(ids, false));
  }
}

class SyntheticGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(SyntheticGolden, MatchesHuggingFace) {
  ExpectGolden(*OpenJson(ReadJson(DataDir() / "synthetic" / (std::string(GetParam()) + ".json"))), GetParam());
}

INSTANTIATE_TEST_SUITE_P(Tokenizer, SyntheticGolden,
                         ::testing::Values("llama3", "nfc", "metaspace_first", "metaspace_always", "splits"),
                         [](const auto& info) { return std::string(info.param); });

struct RealCase {
  const char* golden;
  const char* folder;
  const char* pre;  // what GGUF calls its text steps; "" if it is not byte-level
};

class RealGolden : public ::testing::TestWithParam<RealCase> {};

TEST_P(RealGolden, MatchesHuggingFace) {
  ASSAY_SHARED_OR_SKIP(folder, std::string("tokenizers/") + GetParam().folder);
  ExpectGolden(*Open(folder), GetParam().golden);
}

TEST_P(RealGolden, SameFromGguf) {
  if (GetParam().pre[0] == '\0') GTEST_SKIP() << "not a byte-level tokenizer";
  ASSAY_SHARED_OR_SKIP(folder, std::string("tokenizers/") + GetParam().folder);
  const nlohmann::json golden = ReadJson(DataDir() / "golden" / (std::string(GetParam().golden) + ".json"));
  GgufBuilder gguf = ToGguf(ReadJson(folder / "tokenizer.json"), GetParam().pre);
  gguf.Flag("tokenizer.ggml.add_bos_token", !golden["before"].empty()).U32("tokenizer.ggml.bos_token_id", 0);
  TempDir dir;
  ExpectGolden(*Open(dir.Write("t.gguf", gguf.Bytes())), GetParam().golden);
}

INSTANTIATE_TEST_SUITE_P(Tokenizer, RealGolden,
                         ::testing::Values(RealCase{"smollm2", "smollm2", "smollm"}, RealCase{"gpt2", "gpt2", "gpt-2"},
                                           RealCase{"qwen3", "qwen3-npm", "qwen2"},
                                           RealCase{"deepseek_v3", "deepseek_v3-npm", "deepseek-v3"},
                                           RealCase{"phi3", "phi3", ""}),
                         [](const auto& info) { return std::string(info.param.golden); });

TEST(TokenizerGolden, Llama3FromGguf) {
  nlohmann::json json = ReadJson(DataDir() / "synthetic/llama3.json");
  // GGUF does not carry the flags of added tokens.
  auto& added = json["added_tokens"];
  added.erase(std::remove_if(added.begin(), added.end(), [](const auto& token) { return !token["special"]; }),
              added.end());
  GgufBuilder gguf = ToGguf(json, "llama-bpe");
  gguf.U32("tokenizer.ggml.bos_token_id", 0).U32("tokenizer.ggml.eos_token_id", 1);
  TempDir dir;
  const auto from_gguf = Open(dir.Write("t.gguf", gguf.Bytes())), from_json = OpenJson(json);
  for (const std::string& text : Corpus()) {
    EXPECT_EQ(from_gguf->Encode(text, false, true), from_json->Encode(text, false, true)) << text;
  }
  EXPECT_EQ(from_gguf->Encode("", true, false), Ids{0});
  gguf.Flag("tokenizer.ggml.add_bos_token", false).Flag("tokenizer.ggml.add_eos_token", true);
  EXPECT_EQ(Open(dir.Write("t.gguf", gguf.Bytes()))->Encode("", true, false), Ids{1});
}

TEST(TokenizerGolden, MistralSentencePiece) {
  ASSAY_SHARED_OR_SKIP(folder, "tokenizers/mistral-v3");
  const auto tokenizer = Open(folder);
  ExpectGolden(*tokenizer, "mistral_v3", false);
  // Control tokens in a text: each is followed by a text of its own, as mistral-common does it.
  const Ids inst = tokenizer->Encode("[INST] a[/INST]", false, true);
  EXPECT_EQ(inst, (Ids{3, tokenizer->Encode(" a", false, false)[0], tokenizer->Encode(" a", false, false)[1], 4}));
  EXPECT_EQ(tokenizer->Decode(inst, true), " a");
  EXPECT_TRUE(tokenizer->IsSpecial(3));
}

TEST(TokenizerGolden, StoriesSentencePiece) {
  ASSAY_SHARED_OR_SKIP(folder, "stories260K");
  TempDir dir;
  std::filesystem::copy_file(folder / "tok512.model", dir.path() / "tokenizer.model");
  ExpectGolden(*Open(dir.path()), "stories260k", false);
}

TEST(TokenizerGolden, StoriesGguf) {
  ASSAY_SHARED_OR_SKIP(folder, "stories260K");
  ExpectGolden(*Open(folder / "stories260Ktok512.gguf"), "stories260k_gguf", false);
}

TEST(TokenizerGolden, SmolLm2Gguf) {
  const char* model = std::getenv("ASSAY_MODEL");
  if (model == nullptr || !std::string_view(model).ends_with(".gguf")) {
    GTEST_SKIP() << "set ASSAY_MODEL to the SmolLM2 GGUF file";
  }
  ExpectGolden(*Open(model), "smollm2");
}

struct LlamaCppCase {
  const char* name;
  const char* folder;  // a tokenizer with the same vocabulary
};

class LlamaCpp : public ::testing::TestWithParam<LlamaCppCase> {};

TEST_P(LlamaCpp, MatchesItsCases) {
  ASSAY_SHARED_OR_SKIP(folder, std::string("tokenizers/") + GetParam().folder);
  ASSAY_SHARED_OR_SKIP(cases, "llama.cpp-tokenizer-cases");
  const auto tokenizer = Open(folder);
  std::ifstream input(cases / ("ggml-vocab-" + std::string(GetParam().name) + ".gguf.inp"));
  std::ifstream output(cases / ("ggml-vocab-" + std::string(GetParam().name) + ".gguf.out"));
  std::string all((std::istreambuf_iterator<char>(input)), {});
  const std::string separator = "\n__ggml_vocab_test__\n";
  std::string line;
  int count = 0;
  for (size_t at = all.find(separator); at != std::string::npos; at = all.find(separator)) {
    const std::string text = all.substr(0, at);
    all.erase(0, at + separator.size());
    ASSERT_TRUE(std::getline(output, line));
    std::istringstream numbers(line);
    const Ids expected{std::istream_iterator<int32_t>(numbers), {}};
    EXPECT_EQ(tokenizer->Encode(text, false, false), expected) << text;
    ++count;
  }
  EXPECT_GT(count, 40);
}

INSTANTIATE_TEST_SUITE_P(Tokenizer, LlamaCpp,
                         ::testing::Values(LlamaCppCase{"gpt-2", "gpt2"}, LlamaCppCase{"qwen2", "qwen3-npm"},
                                           LlamaCppCase{"deepseek-r1-qwen", "qwen3-npm"}, LlamaCppCase{"phi-3", "phi3"},
                                           LlamaCppCase{"llama-spm", "phi3"}),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace assay::tokenizer_test
