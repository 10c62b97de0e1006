// SPDX-License-Identifier: Apache-2.0
// Hugging Face's tokenizer.json.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "models/format/printable.h"
#include "models/tokenizer/bpe_tokenizer.h"
#include "runtime/core/error.h"

namespace assay {
namespace {

using Json = nlohmann::json;

constexpr int kMaxNesting = 8;  // of Sequence in Sequence; those in use have 1
constexpr int kMaxDepth = 64;   // of JSON values

// A value of the file and where it stands: "pre_tokenizer.pretokenizers[1]".
class Node {
 public:
  Node(const Json& value, std::string place) : value_(&value), place_(std::move(place)) {}

  const std::string& place() const { return place_; }
  const Json& json() const { return *value_; }
  bool null() const { return value_->is_null(); }
  bool Has(const char* key) const { return value_->is_object() && value_->contains(key) && !(*value_)[key].is_null(); }
  Node At(const char* key) const {
    if (!Has(key)) throw Error((place_.empty() ? "it" : place_) + " lacks '" + Printable(key) + "'");
    return Node((*value_)[key], place_.empty() ? key : place_ + "." + key);
  }
  std::vector<Node> Items() const {
    if (!value_->is_array()) Wrong("a list");
    std::vector<Node> items;
    for (size_t i = 0; i < value_->size(); ++i)
      items.emplace_back((*value_)[i], place_ + "[" + std::to_string(i) + "]");
    return items;
  }
  const std::string& Text() const {
    if (!value_->is_string()) Wrong("a string");
    return value_->get_ref<const std::string&>();
  }
  int64_t Integer() const {
    if (!value_->is_number_integer()) Wrong("a whole number");
    // An unsigned number beyond int64 would wrap to a negative one that might be taken for something else.
    if (value_->is_number_unsigned() && value_->get<uint64_t>() > INT64_MAX) Wrong("a smaller number");
    return value_->get<int64_t>();
  }
  bool Flag(const char* key, bool otherwise) const {
    if (!Has(key)) return otherwise;
    const Node node = At(key);
    if (!node.value_->is_boolean()) node.Wrong("true or false");
    return node.value_->get<bool>();
  }
  std::string TextOr(const char* key, const char* otherwise) const { return Has(key) ? At(key).Text() : otherwise; }

  [[noreturn]] void Wrong(const char* wanted) const { throw Error(Printable(place_) + " is not " + wanted); }
  [[noreturn]] void Unknown() const {
    throw UnknownTokenizerKind(place_ + " of type " + (Has("type") ? Printable((*value_)["type"].dump()) : "none"));
  }

 private:
  const Json* value_;
  std::string place_;
};

// A list of steps: the members of (nested) Sequences, or the one step that `node` is.
template <class Visit>
void ForEachStep(const Node& node, const char* list_name, const Visit& visit, int depth = 0) {
  if (node.null()) return;
  if (node.At("type").Text() != "Sequence") return visit(node);
  if (depth == kMaxNesting) throw Error(node.place() + " is nested too deeply");
  for (const Node& item : node.At(list_name).Items()) ForEachStep(item, list_name, visit, depth + 1);
}

Regex ReadPattern(const Node& node) {
  const Node pattern = node.At("pattern");
  if (pattern.Has("String")) return Regex(pattern.At("String").Text(), /*literal=*/true);
  return Regex(pattern.At("Regex").Text());
}

void ReadNormalizers(const Node& root, TokenizerParts* parts) {
  ForEachStep(root, "normalizers", [&](const Node& node) {
    const std::string& type = node.At("type").Text();
    if (type == "NFC") {
      parts->normalizers.push_back(std::make_unique<NfcNormalizer>());
    } else if (type == "Prepend") {
      parts->normalizers.push_back(std::make_unique<PrependNormalizer>(node.At("prepend").Text()));
    } else if (type == "Replace") {
      parts->normalizers.push_back(std::make_unique<ReplaceNormalizer>(ReadPattern(node), node.At("content").Text()));
    } else {
      node.Unknown();
    }
  });
}

SplitBehavior ReadBehavior(const Node& node) {
  const std::string& name = node.At("behavior").Text();
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  throw Error(node.place() + ".behavior '" + Printable(name) + "' is none that there is");
}

// How Metaspace prepends; files from before prepend_scheme have add_prefix_space.
MetaspaceSplitter::Prepend ReadPrepend(const Node& node) {
  const bool always = node.Flag("add_prefix_space", true);
  const std::string scheme = node.TextOr("prepend_scheme", always ? "always" : "never");
  if (scheme == "always") return MetaspaceSplitter::Prepend::kAlways;
  if (scheme == "first") return MetaspaceSplitter::Prepend::kFirst;
  if (scheme == "never") return MetaspaceSplitter::Prepend::kNever;
  throw Error(node.place() + ".prepend_scheme '" + Printable(scheme) + "' is none that there is");
}

std::string ReadReplacement(const Node& node) {
  std::string replacement = node.At("replacement").Text();
  if (replacement.empty()) throw Error(node.place() + ".replacement is empty");
  return replacement;
}

void ReadSplitters(const Node& root, TokenizerParts* parts) {
  auto& steps = parts->splitters;
  ForEachStep(root, "pretokenizers", [&](const Node& node) {
    const std::string& type = node.At("type").Text();
    if (type == "Split") {
      steps.push_back(
          std::make_unique<RegexSplitter>(ReadPattern(node), ReadBehavior(node), node.Flag("invert", false)));
    } else if (type == "Digits") {
      const char* pattern = node.Flag("individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)";
      steps.push_back(std::make_unique<RegexSplitter>(Regex(pattern), SplitBehavior::kIsolated));
    } else if (type == "ByteLevel") {
      if (node.Flag("add_prefix_space", true)) steps.push_back(std::make_unique<AddSpaceSplitter>());
      if (node.Flag("use_regex", true)) {
        steps.push_back(std::make_unique<RegexSplitter>(Regex(kGpt2Words), SplitBehavior::kIsolated));
      }
      steps.push_back(std::make_unique<ByteLevelSplitter>());
    } else if (type == "Metaspace") {
      steps.push_back(
          std::make_unique<MetaspaceSplitter>(ReadReplacement(node), ReadPrepend(node), node.Flag("split", true)));
    } else {
      node.Unknown();
    }
  });
}

void ReadDecoder(const Node& root, TokenDecoder* decoder) {
  if (root.null()) throw UnknownTokenizerKind("no decoder");
  ForEachStep(root, "decoders", [&](const Node& node) {
    const std::string& type = node.At("type").Text();
    if (!decoder->strip.empty()) node.Unknown();  // stripping works on the whole text, so it must come last
    if (type == "ByteLevel") {
      decoder->byte_level = true;
    } else if (type == "ByteFallback") {
      decoder->byte_tokens = true;
    } else if (type == "Metaspace") {
      const std::string replacement = ReadReplacement(node);
      decoder->replacements.emplace_back(replacement, " ");
      if (ReadPrepend(node) != MetaspaceSplitter::Prepend::kNever) decoder->drop_in_first = replacement;
    } else if (type == "Replace" && node.At("pattern").Has("String")) {
      const std::string& from = node.At("pattern").At("String").Text();
      if (from.empty()) throw Error(node.place() + ".pattern is empty");
      decoder->replacements.emplace_back(from, node.At("content").Text());
    } else if (type == "Strip" && node.At("stop").Integer() == 0) {
      decoder->strip = node.At("content").Text();
      decoder->strip_count = node.At("start").Integer();
    } else if (type != "Fuse") {
      node.Unknown();
    }
  });
}

// The ids that a template puts before and after the text.
void ReadTemplate(const Node& node, TokenizerParts* parts) {
  auto* ids = &parts->before;
  for (const Node& item : node.At("single").Items()) {
    if (item.Has("Sequence")) {
      ids = &parts->after;
      continue;
    }
    const std::string& name = item.At("SpecialToken").At("id").Text();
    for (const Node& id : node.At("special_tokens").At(name.c_str()).At("ids").Items()) {
      const int64_t number = id.Integer();
      if (number < 0 || number >= Vocabulary::kMaxTokens) throw Error(id.place() + " is not the id of a token");
      ids->push_back(static_cast<int32_t>(number));
    }
  }
}

void ReadPostProcessor(const Node& root, TokenizerParts* parts) {
  ForEachStep(root, "processors", [&](const Node& node) {
    const std::string& type = node.At("type").Text();
    if (type == "TemplateProcessing") {
      ReadTemplate(node, parts);
    } else if (type != "ByteLevel") {  // which only moves offsets
      node.Unknown();
    }
  });
}

std::vector<AddedToken> ReadAddedTokens(const Node& list, const Vocabulary& vocabulary) {
  std::vector<AddedToken> added;
  for (const Node& node : list.Items()) {
    AddedToken token;
    token.text = node.At("content").Text();
    const int64_t id = node.At("id").Integer();
    if (id < 0 || id >= Vocabulary::kMaxTokens) throw Error(node.place() + ".id is not the id of a token");
    token.id = static_cast<int32_t>(id);
    const std::string_view there = vocabulary.Text(token.id);
    if (vocabulary.Find(token.text).value_or(token.id) != token.id || (!there.empty() && there != token.text)) {
      throw Error(node.place() + " '" + Printable(token.text) + "' contradicts the vocabulary about id " +
                  std::to_string(id));
    }
    token.special = node.Flag("special", false);
    token.single_word = node.Flag("single_word", false);
    token.strip_left = node.Flag("lstrip", false);
    token.strip_right = node.Flag("rstrip", false);
    token.normalized = node.Flag("normalized", !token.special);
    added.push_back(std::move(token));
  }
  return added;
}

void ReadMerges(const Node& list, Bpe* bpe) {
  for (const Node& node : list.Items()) {
    if (node.json().is_array()) {
      const std::vector<Node> pair = node.Items();
      if (pair.size() != 2) node.Wrong("a pair of tokens");
      bpe->AddMerge(pair[0].Text(), pair[1].Text());
      continue;
    }
    const std::string_view pair = node.Text();
    const size_t space = pair.find(' ');
    if (space == 0 || space >= pair.size() - 1 || pair.find(' ', space + 1) != std::string_view::npos) {
      node.Wrong("two tokens with a space between them");
    }
    bpe->AddMerge(pair.substr(0, space), pair.substr(space + 1));
  }
}

Bpe ReadModel(const Node& model) {
  if (model.Has("type") ? model.At("type").Text() != "BPE" : !model.Has("merges")) model.Unknown();
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model.TextOr(key, "").empty()) throw UnknownTokenizerKind(model.place() + "." + key);
  }
  if (model.Has("dropout") && model.At("dropout").json() != 0) throw UnknownTokenizerKind(model.place() + ".dropout");
  const Node vocab = model.At("vocab");
  if (!vocab.json().is_object()) vocab.Wrong("a map from tokens to ids");
  Vocabulary vocabulary;
  for (const auto& [text, id] : vocab.json().items()) {
    vocabulary.Add(text, Node(id, vocab.place() + "['" + text + "']").Integer());
  }
  Bpe::Options options;
  if (model.Has("unk_token")) {
    options.unknown = vocabulary.Find(model.At("unk_token").Text());
    if (!options.unknown) throw Error(model.place() + ".unk_token is not in the vocabulary");
  }
  options.fuse_unknown = model.Flag("fuse_unk", false);
  options.byte_fallback = model.Flag("byte_fallback", false);
  options.whole_pieces = model.Flag("ignore_merges", false);
  Bpe bpe(std::move(vocabulary), options);
  ReadMerges(model.At("merges"), &bpe);
  return bpe;
}

// Every level of nesting takes much more memory than the character that opens it.
void CheckDepth(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxDepth) throw Error("byte " + std::to_string(i) + ": nested too deeply");
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
}

Json ParseJson(const std::string& path) {
  const std::string text = ReadTokenizerFile(path);
  CheckDepth(text);
  try {
    return Json::parse(text);
  } catch (const Json::exception& e) {
    throw Error("not JSON: " + Printable(e.what()));
  }
}

// A special token in tokenizer_config.json: its text, or an object that holds it.
std::string SpecialText(const Node& config, const char* key) {
  if (!config.Has(key)) return "";
  const Node node = config.At(key);
  return node.json().is_object() ? node.At("content").Text() : node.Text();
}

// As transformers does it: flags in tokenizer_config.json take the place of the template.
void ApplyConfig(const TokenizerConfig& config, TokenizerParts* parts) {
  if (!config.present) return;
  const auto find = [&](bool wanted, const std::string& text) -> std::vector<int32_t> {
    if (!wanted || text.empty()) return {};
    for (const AddedToken& token : parts->added) {
      if (token.text == text) return {token.id};
    }
    if (const auto id = parts->bpe.vocabulary().Find(text)) return {*id};
    throw Error("tokenizer_config.json adds the token '" + Printable(text) + "', which the tokenizer lacks");
  };
  parts->before = find(config.add_bos, config.bos);
  parts->after = find(config.add_eos, config.eos);
}

}  // namespace

TokenizerConfig ReadTokenizerConfig(const std::string& folder) {
  const std::string path = (std::filesystem::path(folder) / "tokenizer_config.json").string();
  TokenizerConfig config;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return config;
  try {
    const Json json = ParseJson(path);
    const Node node(json, "");
    config.present = node.Has("add_bos_token") || node.Has("add_eos_token");
    config.add_bos = node.Flag("add_bos_token", false);
    config.add_eos = node.Flag("add_eos_token", false);
    config.bos = SpecialText(node, "bos_token");
    config.eos = SpecialText(node, "eos_token");
  } catch (const Error& e) {
    throw Error(std::string("tokenizer_config.json beside it: ") + e.what());
  }
  return config;
}

TokenizerParts LoadTokenizerJson(const std::string& path) {
  const Json json = ParseJson(path);
  const Node root(json, "");
  const Json nothing;
  const auto part = [&](const char* key) { return Node(root.Has(key) ? json[key] : nothing, key); };
  TokenizerParts parts(ReadModel(root.At("model")));
  ReadNormalizers(part("normalizer"), &parts);
  ReadSplitters(part("pre_tokenizer"), &parts);
  ReadDecoder(part("decoder"), &parts.decoder);
  ReadPostProcessor(part("post_processor"), &parts);
  if (root.Has("added_tokens")) parts.added = ReadAddedTokens(root.At("added_tokens"), parts.bpe.vocabulary());
  ApplyConfig(ReadTokenizerConfig(std::filesystem::path(path).parent_path().string()), &parts);
  return parts;
}

}  // namespace assay
