// SPDX-License-Identifier: Apache-2.0
// What holds for any text: nothing is lost, bytes that are no UTF-8 are accepted, and size costs no more than size.
#include <gtest/gtest.h>

#include <random>

#include "models/tokenizer/stream_decoder.h"
#include "models/tokenizer/test_util.h"
#include "models/tokenizer/utf8.h"

namespace assay::tokenizer_test {
namespace {

nlohmann::json Synthetic(const std::string& name) {
  return ReadJson(DataDir() / "synthetic" / (name + ".json"));
}

// Valid UTF-8: pieces of the corpus, single characters of all planes, runs.
std::string RandomText(const std::vector<std::string>& corpus, std::mt19937& random) {
  std::string text;
  for (uint32_t parts = random() % 12; parts > 0; --parts) {
    const uint32_t kind = random() % 4;
    if (kind == 0) {
      text += corpus[random() % corpus.size()];
    } else if (kind == 1) {
      text.append(random() % 20, " \t\na0."[random() % 6]);
    } else {
      const char32_t code = random() % (kind == 2 ? 0x500 : 0x110000);
      if (code < 0xD800 || code > 0xDFFF) AppendUtf8(code, &text);
    }
  }
  return text;
}

TEST(TokenizerProperty, ByteLevelLosesNothing) {
  nlohmann::json json = Synthetic("llama3");
  json.erase("added_tokens");  // one of them eats white space
  const auto tokenizer =
      OpenJson(json.patch(nlohmann::json::parse(R"([{"op": "remove", "path": "/post_processor"}])")));
  const std::vector<std::string> corpus = Corpus();
  std::mt19937 random(1);
  for (int i = 0; i < 2000; ++i) {
    const std::string text = RandomText(corpus, random);
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text, false, i % 2 == 0), false), text);
  }
}

TEST(TokenizerProperty, SentencePieceLosesNothing) {
  ASSAY_SHARED_OR_SKIP(folder, "stories260K");
  const auto tokenizer = Open(folder / "stories260Ktok512.gguf");
  const std::vector<std::string> corpus = Corpus();
  std::mt19937 random(2);
  for (int i = 0; i < 2000; ++i) {
    const std::string text = RandomText(corpus, random);
    if (text.find("\xE2\x96\x81") != std::string::npos) continue;  // a written-out space mark comes back as a space
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text, false, false), false), text);
  }
}

TEST(TokenizerProperty, InvalidUtf8IsReplaced) {
  std::mt19937 random(3);
  const auto byte_level = OpenJson(Synthetic("splits")), spaced = OpenJson(Synthetic("metaspace_first"));
  const auto lossless = OpenJson(Synthetic("llama3"));
  EXPECT_EQ(lossless->Encode("a\xFFz", false, false), lossless->Encode("a\xEF\xBF\xBDz", false, false));
  // A cut character is one replacement, as in Python's errors="replace"; impossible bytes are one each.
  EXPECT_EQ(lossless->Encode("\xE6\x88\xF0\x9F\x98z", false, false),
            lossless->Encode("\xEF\xBF\xBD\xEF\xBF\xBDz", false, false));
  EXPECT_EQ(lossless->Encode("\xC0\x80\xED\xA0\x80", false, false),
            lossless->Encode("\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD", false, false));
  for (int i = 0; i < 2000; ++i) {
    std::string bytes;
    for (uint32_t n = random() % 40; n > 0; --n)
      bytes += static_cast<char>(random() % 3 ? random() : 0xE0 + random() % 32);
    const std::string mended = Utf8Lossy(bytes);
    EXPECT_TRUE(IsUtf8(mended));
    for (const Tokenizer* tokenizer : {byte_level.get(), spaced.get(), lossless.get()}) {
      EXPECT_EQ(tokenizer->Encode(bytes, false, true), tokenizer->Encode(mended, false, true));
    }
  }
}

TEST(TokenizerProperty, AnyIdsDecode) {
  std::mt19937 random(4);
  for (const char* name : {"llama3", "metaspace_first", "metaspace_always"}) {
    const auto tokenizer = OpenJson(Synthetic(name));
    for (int i = 0; i < 2000; ++i) {
      Ids ids;
      for (uint32_t n = random() % 20; n > 0; --n) {
        ids.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(tokenizer->vocab_size())));
      }
      const bool skip = i % 2 == 0;
      const std::string text = tokenizer->Decode(ids, skip);
      EXPECT_TRUE(IsUtf8(text));
      StreamDecoder stream(*tokenizer, skip);
      std::string streamed;
      for (const int32_t id : ids) {
        const std::string part = stream.Push(id);
        EXPECT_TRUE(IsUtf8(part));
        streamed += part;
      }
      EXPECT_EQ(streamed + stream.Finish(), text);
    }
    for (const int32_t id : {-1, tokenizer->vocab_size(), INT32_MIN, INT32_MAX}) {
      EXPECT_EQ(tokenizer->TokenBytes(id), "");
      EXPECT_FALSE(tokenizer->IsSpecial(id));
      EXPECT_EQ(tokenizer->Decode(std::vector{id}, false), "");
    }
  }
}

TEST(StreamDecoder, HoldsBackUnfinishedCharacters) {
  const auto tokenizer = OpenJson(Synthetic("llama3"));
  const Ids ids = tokenizer->Encode("\U0001F98E", false, false);  // in no training text: more than one token
  ASSERT_GT(ids.size(), 1u);
  StreamDecoder decoder(*tokenizer, true);
  for (size_t i = 0; i + 1 < ids.size(); ++i) EXPECT_EQ(decoder.Push(ids[i]), "");
  EXPECT_EQ(decoder.Push(ids.back()), "\U0001F98E");
  EXPECT_EQ(decoder.Push(ids[0]), "");
  EXPECT_EQ(decoder.Finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(decoder.Finish(), "");
}

// A megabyte without a place to split. Quadratic work would take hours, so that it shows as a test that times out.
TEST(TokenizerProperty, LongRuns) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr size_t kBytes = 200'000;  // quadratic work would still take many minutes
#else
  constexpr size_t kBytes = 1'000'000;
#endif
  std::string marks = "a";
  while (marks.size() < kBytes) marks += marks.size() % 4 == 1 ? "\xCC\x81" : "\xCC\x96";  // out of canonical order
  const std::string texts[] = {
      std::string(kBytes, 'a'), std::string(kBytes, ' '),    std::string(kBytes, '0'),       std::string(kBytes, '\n'),
      std::string(kBytes, '<'), std::string(kBytes, '\xE2'), std::string(kBytes, ' ') + "a", marks};
  for (const char* name : {"llama3", "nfc", "metaspace_first"}) {
    const auto tokenizer = OpenJson(Synthetic(name));
    for (const std::string& text : texts) EXPECT_FALSE(tokenizer->Encode(text, false, true).empty()) << name;
  }
}

TEST(Utf8, Nfc) {
  EXPECT_EQ(ToNfc("plain"), "plain");
  EXPECT_EQ(ToNfc("e\u0301"), "\u00e9");
  EXPECT_EQ(ToNfc("q\u0307\u0323"), "q\u0323\u0307");
  EXPECT_EQ(ToNfc("o\u0302\u0323"), "\u1ed9");
  EXPECT_EQ(ToNfc("\u1100\u1161\u11a8"), "\uac01");
  EXPECT_EQ(ToNfc("\u0958"), "\u0915\u093c");  // excluded from composition
  EXPECT_EQ(ToNfc("\u2126\u212b"), "\u03a9\u00c5");
}

}  // namespace
}  // namespace assay::tokenizer_test
