// SPDX-License-Identifier: Apache-2.0
// The tokenizer in a GGUF file's metadata: tokenizer.ggml.*.
#include <algorithm>

#include "models/format/gguf.h"
#include "models/format/printable.h"
#include "models/tokenizer/bpe_tokenizer.h"
#include "models/tokenizer/sentencepiece.h"
#include "runtime/core/error.h"

namespace assay {
namespace {

// GGUF names a byte-level tokenizer's text steps (tokenizer.ggml.pre) instead of writing them down.
struct TextSteps {
  std::vector<std::string_view> names;
  std::vector<std::string> patterns;  // each splits the pieces of the one before
  bool nfc = false;
  bool whole_pieces = false;  // Bpe::Options::whole_pieces
  bool add_bos = false;       // unless the file says
};

// Llama 3's and Qwen's, which differ only in how many digits go together.
std::string WordsWithDigits(const std::string& digits) {
  return R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)" + digits +
         R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
}

const std::vector<TextSteps>& KnownTextSteps() {
  static const std::vector<TextSteps> steps = {
      {.names = {"gpt-2"}, .patterns = {kGpt2Words}},
      {.names = {"smollm"}, .patterns = {R"(\p{N})", kGpt2Words}},
      {.names = {"llama-bpe", "llama3", "llama-v3"},
       .patterns = {WordsWithDigits(R"(\p{N}{1,3})")},
       .whole_pieces = true,
       .add_bos = true},
      {.names = {"qwen2", "deepseek-r1-qwen"}, .patterns = {WordsWithDigits(R"(\p{N})")}, .nfc = true},
      {.names = {"tekken"},
       .patterns = {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
                    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
                    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
       .whole_pieces = true,
       .add_bos = true},
      {.names = {"deepseek-v3"},
       .patterns = {R"(\p{N}{1,3})", R"([一-龥぀-ゟ゠-ヿ]+)",
                    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
                    R"(| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
      {.names = {"deepseek-coder"},
       .patterns = {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", R"([一-龥ࠀ-一가-퟿]+)", R"(\p{N})"}},
      // What llama.cpp takes for files that name no steps.
      {.names = {"default", ""},
       .patterns = {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2Words, R"(\p{N}+)", R"([0-9][0-9][0-9])"}},
  };
  return steps;
}

const TextSteps& FindTextSteps(std::string_view name) {
  for (const TextSteps& steps : KnownTextSteps()) {
    if (std::find(steps.names.begin(), steps.names.end(), name) != steps.names.end()) return steps;
  }
  throw UnknownTokenizerKind("tokenizer.ggml.pre '" + Printable(name) + "'");
}

std::vector<PieceType> ReadTypes(const GgufFile& file, size_t count) {
  const std::vector<int64_t> numbers = file.Ints("tokenizer.ggml.token_type");
  if (numbers.empty()) return std::vector<PieceType>(count, PieceType::kNormal);
  if (numbers.size() != count) {
    throw Error("tokenizer.ggml.token_type has " + std::to_string(numbers.size()) + " values for " +
                std::to_string(count) + " tokens");
  }
  std::vector<PieceType> types;
  for (const int64_t number : numbers) types.push_back(ToPieceType(number, types.size()));
  return types;
}

// Appends the id that `key` holds; files write -1 for "none".
void AppendId(const GgufFile& file, const char* key, const Vocabulary& vocabulary, std::vector<int32_t>* ids) {
  const std::optional<int64_t> id = file.Int(key);
  if (!id || *id == UINT32_MAX || *id == -1) return;
  if (*id < 0 || *id >= vocabulary.size()) {
    throw Error(std::string(key) + " is " + std::to_string(*id) + ", but there are " +
                std::to_string(vocabulary.size()) + " tokens");
  }
  ids->push_back(static_cast<int32_t>(*id));
}

TokenizerParts MakeByteLevel(const GgufFile& file, const std::vector<std::string_view>& texts,
                             const std::vector<PieceType>& types, const TextSteps& steps) {
  Vocabulary vocabulary;
  std::vector<AddedToken> added;
  for (size_t id = 0; id < texts.size(); ++id) {
    vocabulary.Add(texts[id], static_cast<int64_t>(id));
    if (types[id] == PieceType::kNormal || types[id] == PieceType::kUnused || types[id] == PieceType::kByte) continue;
    AddedToken token;
    token.id = static_cast<int32_t>(id);
    token.text = texts[id];
    token.special = types[id] != PieceType::kUserDefined;
    added.push_back(std::move(token));
  }
  Bpe::Options options;
  options.whole_pieces = steps.whole_pieces;
  TokenizerParts parts(Bpe(std::move(vocabulary), options));
  for (const std::string_view merge : file.Strings("tokenizer.ggml.merges")) {
    const size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos || space + 1 == merge.size()) {
      throw Error("tokenizer.ggml.merges holds '" + Printable(merge) + "', not two tokens with a space between them");
    }
    parts.bpe.AddMerge(merge.substr(0, space), merge.substr(space + 1));
  }
  parts.added = std::move(added);
  if (steps.nfc) parts.normalizers.push_back(std::make_unique<NfcNormalizer>());
  if (file.Bool("tokenizer.ggml.add_space_prefix").value_or(false)) {
    parts.splitters.push_back(std::make_unique<AddSpaceSplitter>());
  }
  for (const std::string& pattern : steps.patterns) {
    parts.splitters.push_back(std::make_unique<RegexSplitter>(Regex(pattern), SplitBehavior::kIsolated));
  }
  parts.splitters.push_back(std::make_unique<ByteLevelSplitter>());
  parts.decoder.byte_level = true;
  return parts;
}

TokenizerParts MakeScored(const GgufFile& file, std::vector<std::string_view> texts, std::vector<PieceType> types) {
  ScoredPieces pieces;
  pieces.texts = std::move(texts);
  pieces.types = std::move(types);
  for (const double score : file.Numbers("tokenizer.ggml.scores")) pieces.scores.push_back(static_cast<float>(score));
  if (pieces.scores.size() != pieces.texts.size()) {
    throw Error("tokenizer.ggml.scores has " + std::to_string(pieces.scores.size()) + " values for " +
                std::to_string(pieces.texts.size()) + " tokens");
  }
  pieces.add_dummy_prefix = file.Bool("tokenizer.ggml.add_space_prefix").value_or(true);
  pieces.prefix_after_any_token = true;
  return MakeSentencePiece(pieces);
}

}  // namespace

TokenizerParts LoadGgufTokenizer(const std::string& path) {
  const GgufFile file(path);
  const std::string_view model = file.String("tokenizer.ggml.model").value_or("none");
  if (model != "gpt2" && model != "llama") {
    throw UnknownTokenizerKind("tokenizer.ggml.model '" + Printable(model) + "'");
  }
  std::vector<std::string_view> texts = file.Strings("tokenizer.ggml.tokens");
  if (texts.empty()) throw Error("tokenizer.ggml.tokens is missing or empty");
  std::vector<PieceType> types = ReadTypes(file, texts.size());
  const bool scored = model == "llama";
  const TextSteps none{.names = {}, .patterns = {}, .add_bos = true};
  const TextSteps& steps = scored ? none : FindTextSteps(file.String("tokenizer.ggml.pre").value_or(""));
  TokenizerParts parts =
      scored ? MakeScored(file, std::move(texts), std::move(types)) : MakeByteLevel(file, texts, types, steps);
  if (file.Bool("tokenizer.ggml.add_bos_token").value_or(steps.add_bos)) {
    AppendId(file, "tokenizer.ggml.bos_token_id", parts.bpe.vocabulary(), &parts.before);
  }
  if (file.Bool("tokenizer.ggml.add_eos_token").value_or(false)) {
    AppendId(file, "tokenizer.ggml.eos_token_id", parts.bpe.vocabulary(), &parts.after);
  }
  return parts;
}

}  // namespace assay
