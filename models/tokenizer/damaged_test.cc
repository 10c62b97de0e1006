// SPDX-License-Identifier: Apache-2.0
// Files that are damaged, made to do harm, or of a kind we do not know: one clear line, never a crash or a hang.
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "models/tokenizer/regex.h"
#include "models/tokenizer/test_util.h"
#include "runtime/core/error.h"

namespace assay::tokenizer_test {
namespace {

using Json = nlohmann::json;

// What OpenTokenizer says about a damaged source; "" if it accepts it.
std::string Complaint(const std::filesystem::path& source) {
  std::string why;
  try {
    return OpenTokenizer(source.string(), &why) == nullptr ? "no error, but: " + why : "";
  } catch (const Error& e) {
    return e.what();
  }
}

void ExpectComplaint(const std::filesystem::path& source, const std::string& part) {
  const std::string complaint = Complaint(source);
  EXPECT_NE(complaint.find(part), std::string::npos) << complaint;
  EXPECT_EQ(complaint.find('\n'), std::string::npos) << complaint;
  EXPECT_NE(complaint.find(source.string()), std::string::npos) << complaint;
}

Json Tiny() {
  return Json::parse(R"({
    "added_tokens": [{"id": 4, "content": "<s>", "special": true}],
    "normalizer": null,
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": " "}, "behavior": "Isolated"},
    "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {}}],
                       "special_tokens": {"<s>": {"ids": [4]}}},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "<unk>": 3}, "merges": ["a b"], "unk_token": "<unk>"}
  })");
}

struct Damage {
  const char* name;
  const char* patch;  // JSON patch of Tiny()
  const char* complaint;
};

class DamagedJson : public ::testing::TestWithParam<Damage> {};

TEST_P(DamagedJson, IsNamed) {
  TempDir dir;
  dir.Write("tokenizer.json", Tiny().patch(Json::parse(GetParam().patch)).dump());
  ExpectComplaint(dir.path(), GetParam().complaint);
}

INSTANTIATE_TEST_SUITE_P(
    Tokenizer, DamagedJson,
    ::testing::Values(
        Damage{"NoModel", R"([{"op": "remove", "path": "/model"}])", "lacks 'model'"},
        Damage{"ModelIsText", R"([{"op": "replace", "path": "/model", "value": "BPE"}])", "not supported"},
        Damage{"OtherModel", R"([{"op": "replace", "path": "/model/type", "value": "Unigram"}])", "Unigram"},
        Damage{"VocabIsList", R"([{"op": "replace", "path": "/model/vocab", "value": []}])",
               "model.vocab is not a map"},
        Damage{"NegativeId", R"([{"op": "add", "path": "/model/vocab/x", "value": -1}])", "id -1"},
        Damage{"HugeId", R"([{"op": "add", "path": "/model/vocab/x", "value": 99999999999}])", "id 99999999999"},
        Damage{"HugestId", R"([{"op": "add", "path": "/model/vocab/x", "value": 18446744073709551615}])",
               "smaller number"},
        Damage{"IdIsText", R"([{"op": "add", "path": "/model/vocab/x", "value": "7"}])", "whole number"},
        Damage{"SameIdTwice", R"([{"op": "add", "path": "/model/vocab/x\ny", "value": 1}])", "both"},
        Damage{"MergeOfThree", R"([{"op": "add", "path": "/model/merges/-", "value": "a b c"}])", "merges[1]"},
        Damage{"MergeOfOne", R"([{"op": "add", "path": "/model/merges/-", "value": "ab"}])", "merges[1]"},
        Damage{"MergeEmpty", R"([{"op": "add", "path": "/model/merges/-", "value": ""}])", "merges[1]"},
        Damage{"MergeListOfOne", R"([{"op": "add", "path": "/model/merges/-", "value": ["a"]}])", "merges[1]"},
        Damage{"MergeUnknownPart", R"([{"op": "add", "path": "/model/merges/-", "value": "a z"}])", "'z'"},
        Damage{"MergeUnknownResult", R"([{"op": "add", "path": "/model/merges/-", "value": "b a"}])", "'ba'"},
        Damage{"NoUnknownToken", R"([{"op": "replace", "path": "/model/unk_token", "value": "?"}])", "unk_token"},
        Damage{"AddedIdTaken", R"([{"op": "replace", "path": "/added_tokens/0/id", "value": 1}])", "contradicts"},
        Damage{"AddedIdHuge", R"([{"op": "replace", "path": "/added_tokens/0/id", "value": 2000000000}])", "id"},
        Damage{"AddedEmpty", R"([{"op": "replace", "path": "/added_tokens/0/content", "value": ""}])", "0 bytes"},
        Damage{"TemplateIdUnknown",
               R"([{"op": "replace", "path": "/post_processor/special_tokens/<s>/ids/0", "value": 9}])", "id 9"},
        Damage{"TemplateIdNegative",
               R"([{"op": "replace", "path": "/post_processor/special_tokens/<s>/ids/0", "value": -9}])", "not the id"},
        Damage{"TemplateNameUnknown",
               R"([{"op": "replace", "path": "/post_processor/single/0/SpecialToken/id", "value": "x"}])", "lacks 'x'"},
        Damage{"BadRegex", R"([{"op": "replace", "path": "/pre_tokenizer/pattern/Regex", "value": "(a"}])",
               "does not compile"},
        Damage{"HugeRegex", R"([{"op": "replace", "path": "/pre_tokenizer/pattern/Regex",
                                "value": "(((a{900}){900}){900}){900}"}])",
               "does not compile"},
        Damage{"BadBehavior", R"([{"op": "replace", "path": "/pre_tokenizer/behavior", "value": "x"}])",
               "behavior 'x'"},
        Damage{"OtherSplitter", R"([{"op": "replace", "path": "/pre_tokenizer/type", "value": "X"}])", "not supported"},
        Damage{"OtherNormalizer", R"([{"op": "replace", "path": "/normalizer", "value": {"type": "NFKC"}}])",
               "not supported"},
        Damage{"NoDecoder", R"([{"op": "remove", "path": "/decoder"}])", "no decoder"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(DamagedTokenizer, TinyItselfIsSound) {
  const auto tokenizer = OpenJson(Tiny());
  EXPECT_EQ(tokenizer->Encode("ab?<s>", true, true), (Ids{4, 2, 3, 4}));
}

TEST(DamagedTokenizer, JsonThatIsNone) {
  TempDir dir;
  for (const std::string bytes : {"", "{", "[]", "null", "\xFF\xFE", "{\"model\": \"\xFF\"}"}) {
    dir.Write("tokenizer.json", bytes);
    EXPECT_NE(Complaint(dir.path()), "") << bytes;
  }
  dir.Write("tokenizer.json", std::string(10'000'000, '['));
  ExpectComplaint(dir.path(), "nested too deeply");
  Json nested = {{"type", "NFC"}};
  for (int i = 0; i < 20; ++i) nested = {{"type", "Sequence"}, {"normalizers", Json::array({nested})}};
  Json json = Tiny();
  json["normalizer"] = nested;
  dir.Write("tokenizer.json", json.dump());
  ExpectComplaint(dir.path(), "nested too deeply");
}

TEST(DamagedTokenizer, ConfigBesideIt) {
  TempDir dir;
  dir.Write("tokenizer.json", Tiny().dump());
  dir.Write("tokenizer_config.json", R"({"add_bos_token": "yes"})");
  ExpectComplaint(dir.path(), "tokenizer_config.json");
  dir.Write("tokenizer_config.json", R"({"add_bos_token": true, "bos_token": "<none>"})");
  ExpectComplaint(dir.path(), "<none>");
  dir.Write("tokenizer_config.json",
            R"({"add_bos_token": false, "add_eos_token": true, "eos_token": {"content": "<s>"}})");
  EXPECT_EQ(Open(dir.path())->Encode("a", true, false), (Ids{0, 4}));
}

TEST(DamagedTokenizer, NoneAtAll) {
  std::string why;
  EXPECT_EQ(OpenTokenizer("", &why), nullptr);
  EXPECT_NE(why, "");
  TempDir dir;
  EXPECT_EQ(OpenTokenizer(dir.path().string(), &why), nullptr);
  EXPECT_NE(why.find("neither tokenizer.json nor tokenizer.model"), std::string::npos);
  EXPECT_THROW(OpenTokenizer((dir.path() / "absent.gguf").string(), &why), Error);
  EXPECT_EQ(OpenTokenizer(dir.Write("x.gguf", GgufBuilder().Text("general.name", "x").Bytes()), &why), nullptr);
  EXPECT_NE(why.find("tokenizer.ggml.model 'none'"), std::string::npos) << why;
}

GgufBuilder TinyGguf(const std::string& pre = "gpt-2") {
  return GgufBuilder().Text("tokenizer.ggml.model", "gpt2").Text("tokenizer.ggml.pre", pre);
}

TEST(DamagedTokenizer, Gguf) {
  TempDir dir;
  const auto expect = [&](const GgufBuilder& gguf, const std::string& part) {
    ExpectComplaint(dir.Write("t.gguf", gguf.Bytes()), part);
  };
  const std::string tokens = "tokenizer.ggml.tokens", types = "tokenizer.ggml.token_type",
                    merges = "tokenizer.ggml.merges";
  expect(TinyGguf(), "tokenizer.ggml.tokens is missing");
  expect(TinyGguf("dbrx").Texts(tokens, {"a"}), "tokenizer.ggml.pre 'dbrx' is not supported");
  expect(TinyGguf().Texts(tokens, {"a", "a"}), "there twice");
  expect(TinyGguf().Texts(tokens, {"a", "b"}).I32s(types, {1}), "1 values for 2 tokens");
  expect(TinyGguf().Texts(tokens, {"a", "b"}).I32s(types, {1, 9}), "type 9");
  expect(TinyGguf().Texts(tokens, {"a", ""}).I32s(types, {1, 3}), "0 bytes");
  expect(TinyGguf().Texts(tokens, {"a", "b", "ab"}).Texts(merges, {"ab"}), "two tokens with a space");
  expect(TinyGguf().Texts(tokens, {"a", "b", "ab"}).Texts(merges, {"a "}), "two tokens with a space");
  expect(TinyGguf().Texts(tokens, {"a", "b", "ab"}).Texts(merges, {""}), "two tokens with a space");
  expect(TinyGguf().Texts(tokens, {"a", "b", "ab"}).Texts(merges, {"a c"}), "'c'");
  expect(
      TinyGguf().Texts(tokens, {"a"}).Flag("tokenizer.ggml.add_bos_token", true).U32("tokenizer.ggml.bos_token_id", 1),
      "bos_token_id is 1");
  const auto scored = [&] { return GgufBuilder().Text("tokenizer.ggml.model", "llama").Texts(tokens, {"a", "b"}); };
  expect(scored(), "0 values for 2 tokens");
  expect(scored().F32s("tokenizer.ggml.scores", {0, NAN}), "no number");
  const auto sound = Open(dir.Write("t.gguf", scored().F32s("tokenizer.ggml.scores", {0, 0}).Bytes()));
  EXPECT_EQ(sound->Encode("ab?", true, true), (Ids{0, 1}));  // no unknown token, no bytes: left out
}

// Damage of any kind ends in an Error or in a tokenizer that works.
void ExpectSurvival(const std::string& sound, const std::string& name, bool is_folder, int rounds) {
  TempDir dir;
  std::mt19937 random(5);
  const std::vector<std::string> corpus = Corpus();
  for (int i = 0; i < rounds; ++i) {
    std::string bytes = sound;
    if (i % 3 == 0) bytes.resize(random() % bytes.size());
    for (uint32_t n = i % 3 == 0 ? 0 : 1 + random() % 8; n > 0; --n) {
      bytes[random() % bytes.size()] = static_cast<char>(random() % 4 ? random() : "\"[]{},:09ef\\"[random() % 12]);
    }
    const std::string path = dir.Write(name, bytes);
    std::string why;
    try {
      const auto tokenizer = OpenTokenizer(is_folder ? dir.path().string() : path, &why);
      if (tokenizer == nullptr) continue;
      for (size_t t = 0; t < corpus.size(); t += 7) tokenizer->Decode(tokenizer->Encode(corpus[t], true, true), false);
    } catch (const Error& e) {
      EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
    }
  }
}

TEST(DamagedTokenizer, RandomDamage) {
  ExpectSurvival(Tiny().dump(), "tokenizer.json", true, 1000);
  ExpectSurvival(ReadJson(DataDir() / "synthetic/splits.json").dump(), "tokenizer.json", true, 50);
  ExpectSurvival(ToGguf(Tiny(), "llama-bpe").U32("tokenizer.ggml.bos_token_id", 0).Bytes(), "t.gguf", false, 1000);
}

TEST(DamagedTokenizer, RandomDamageOfSentencePiece) {
  ASSAY_SHARED_OR_SKIP(folder, "stories260K");
  std::ifstream file(folder / "tok512.model", std::ios::binary);
  ExpectSurvival(std::string(std::istreambuf_iterator<char>(file), {}), "tokenizer.model", true, 300);
}

TEST(Regex, BacktrackingEnds) {
  for (const char* pattern : {"(a+)+[bc]", "(a|aa)+[bc]", "((a*)*)*[bc]"}) {
    EXPECT_THROW(Regex(pattern).Cut(std::string(10'000, 'a')), Error) << pattern;
  }
}

TEST(Regex, EmptyMatchesAndClasses) {
  const auto cut = [](const char* pattern, std::string_view text) {
    std::string shown;
    for (const Regex::Span& span : Regex(pattern).Cut(text)) {
      shown += (span.is_match ? "<" : "(") + std::string(text.substr(span.begin, span.end - span.begin)) + "|";
    }
    return shown;
  };
  EXPECT_EQ(cut("x*", "axxb\u00e9"), "(a|<xx|(b\u00e9|");
  EXPECT_EQ(cut("", "ab"), "(ab|");
  // U+180E is white space for PCRE2's \s, but not for Oniguruma's.
  EXPECT_EQ(cut("\\s+", "a\u180e\u00a0b"), "(a\u180e|<\u00a0|(b|");
  EXPECT_EQ(cut("[^\\S\\n]+", "a \n"), "(a|< |(\n|");
  EXPECT_EQ(cut("\\w+", "a\u0301_\u203f\u00b2"), "<a\u0301_\u203f|(\u00b2|");
}

}  // namespace
}  // namespace assay::tokenizer_test
