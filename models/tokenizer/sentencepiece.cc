// SPDX-License-Identifier: Apache-2.0
#include "models/tokenizer/sentencepiece.h"

#include <bit>
#include <cmath>
#include <filesystem>

#include "runtime/core/error.h"

namespace assay {
namespace {

// Reads the wire format of protocol buffers. The bytes must outlive it.
class WireReader {
 public:
  enum Type { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

  explicit WireReader(std::string_view bytes) : rest_(bytes) {}

  // Goes to the next field; false at the end.
  bool Next() {
    if (rest_.empty()) return false;
    const uint64_t tag = Varint();
    field_ = tag >> 3;
    type_ = static_cast<int>(tag & 7);
    switch (type_) {
      case kVarint:
        number_ = Varint();
        break;
      case kFixed64:
        bytes_ = Take(8);
        break;
      case kBytes:
        bytes_ = Take(Varint());
        break;
      case kFixed32:
        bytes_ = Take(4);
        break;
      default:
        throw Error("it is no SentencePiece model, or a damaged one: wire type " + std::to_string(type_));
    }
    return true;
  }
  bool Is(uint64_t field, Type type) const { return field_ == field && type_ == type; }
  uint64_t number() const { return number_; }
  std::string_view bytes() const { return bytes_; }
  float Float() const {
    uint32_t bits = 0;
    for (size_t i = 4; i-- > 0;) bits = bits << 8 | static_cast<unsigned char>(bytes_[i]);
    return std::bit_cast<float>(bits);
  }

 private:
  std::string_view Take(uint64_t count) {
    if (count > rest_.size()) throw Error("it is no SentencePiece model, or it is cut short");
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }
  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(Take(1)[0]);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    throw Error("it is no SentencePiece model, or a damaged one: a number of more than 64 bits");
  }

  std::string_view rest_;
  uint64_t field_ = 0;
  int type_ = 0;
  uint64_t number_ = 0;
  std::string_view bytes_;
};

// The fields of sentencepiece_model.proto that matter here, with its defaults.
struct Model {
  ScoredPieces pieces;
  int64_t type = 1;  // unigram
  int64_t bos = 1;
  int64_t eos = 2;
  bool whitespace_as_suffix = false;
  bool escape_whitespaces = true;
  bool has_character_map = false;
};

void ReadPiece(WireReader reader, ScoredPieces* pieces) {
  std::string_view text;
  float score = 0;
  auto type = static_cast<int64_t>(PieceType::kNormal);
  while (reader.Next()) {
    if (reader.Is(1, WireReader::kBytes)) text = reader.bytes();
    if (reader.Is(2, WireReader::kFixed32)) score = reader.Float();
    if (reader.Is(3, WireReader::kVarint)) type = static_cast<int64_t>(reader.number());
  }
  pieces->types.push_back(ToPieceType(type, pieces->texts.size()));
  pieces->texts.push_back(text);
  pieces->scores.push_back(score);
}

void ReadTrainerSpec(WireReader reader, Model* model) {
  while (reader.Next()) {
    if (reader.Is(3, WireReader::kVarint)) model->type = static_cast<int64_t>(reader.number());
    if (reader.Is(24, WireReader::kVarint)) model->whitespace_as_suffix = reader.number() != 0;
    if (reader.Is(41, WireReader::kVarint)) model->bos = static_cast<int32_t>(reader.number());
    if (reader.Is(42, WireReader::kVarint)) model->eos = static_cast<int32_t>(reader.number());
  }
}

void ReadNormalizerSpec(WireReader reader, Model* model) {
  model->pieces.remove_extra_whitespaces = true;
  while (reader.Next()) {
    if (reader.Is(2, WireReader::kBytes)) model->has_character_map = !reader.bytes().empty();
    if (reader.Is(3, WireReader::kVarint)) model->pieces.add_dummy_prefix = reader.number() != 0;
    if (reader.Is(4, WireReader::kVarint)) model->pieces.remove_extra_whitespaces = reader.number() != 0;
    if (reader.Is(5, WireReader::kVarint)) model->escape_whitespaces = reader.number() != 0;
  }
}

Model ReadModel(std::string_view bytes) {
  Model model;
  for (WireReader reader(bytes); reader.Next();) {
    if (reader.Is(1, WireReader::kBytes)) ReadPiece(WireReader(reader.bytes()), &model.pieces);
    if (reader.Is(2, WireReader::kBytes)) ReadTrainerSpec(WireReader(reader.bytes()), &model);
    if (reader.Is(3, WireReader::kBytes)) ReadNormalizerSpec(WireReader(reader.bytes()), &model);
  }
  return model;
}

AddedToken ToAddedToken(std::string_view text, size_t id, PieceType type) {
  AddedToken token;
  token.id = static_cast<int32_t>(id);
  token.special = type != PieceType::kUserDefined;
  token.text = ReplaceAll(text, kSpaceMark, " ");  // it is looked for in the text before spaces are marked
  return token;
}

}  // namespace

PieceType ToPieceType(int64_t number, size_t id) {
  if (number < 1 || number > 6) {
    throw Error("token " + std::to_string(id) + " has type " + std::to_string(number) + ", not one of 1..6");
  }
  return static_cast<PieceType>(number);
}

TokenizerParts MakeSentencePiece(const ScoredPieces& pieces) {
  Vocabulary vocabulary;
  Bpe::Options options;
  options.fuse_unknown = true;
  std::vector<bool> mergeable;
  std::vector<AddedToken> added;
  for (size_t id = 0; id < pieces.texts.size(); ++id) {
    const PieceType type = pieces.types[id];
    if (!std::isfinite(pieces.scores[id])) throw Error("the score of token " + std::to_string(id) + " is no number");
    if (pieces.texts[id].empty()) throw Error("token " + std::to_string(id) + " is empty");
    vocabulary.Add(pieces.texts[id], static_cast<int64_t>(id));
    mergeable.push_back(type == PieceType::kNormal || type == PieceType::kUserDefined);
    if (type == PieceType::kUnknown) options.unknown = static_cast<int32_t>(id);
    if (type == PieceType::kByte) options.byte_fallback = true;
    if (type == PieceType::kControl || type == PieceType::kUnknown || type == PieceType::kUserDefined) {
      added.push_back(ToAddedToken(pieces.texts[id], id, type));
    }
  }
  TokenizerParts parts(Bpe(std::move(vocabulary), options));
  parts.bpe.SetScores(pieces.scores, mergeable);
  parts.added = std::move(added);
  if (pieces.remove_extra_whitespaces) parts.normalizers.push_back(std::make_unique<ExtraSpaceNormalizer>());
  if (pieces.add_dummy_prefix) {
    parts.normalizers.push_back(
        std::make_unique<PrependNormalizer>(std::string(kSpaceMark), !pieces.prefix_after_any_token));
    parts.decoder.strip = " ";
    parts.decoder.strip_count = pieces.remove_extra_whitespaces ? INT64_MAX : 1;
  }
  parts.normalizers.push_back(
      std::make_unique<ReplaceNormalizer>(Regex(" ", /*literal=*/true), std::string(kSpaceMark)));
  parts.decoder.replacements.emplace_back(kSpaceMark, " ");
  parts.decoder.byte_tokens = true;
  return parts;
}

TokenizerParts LoadSentencePieceModel(const std::string& path) {
  const std::string bytes = ReadTokenizerFile(path);
  const Model model = ReadModel(bytes);
  if (model.pieces.texts.empty()) throw Error("it is no SentencePiece model: it has no pieces");
  if (model.type != 2) throw UnknownTokenizerKind("a SentencePiece model other than BPE");
  if (model.has_character_map) throw UnknownTokenizerKind("SentencePiece with a character map");
  if (model.whitespace_as_suffix || !model.escape_whitespaces) {
    throw UnknownTokenizerKind("SentencePiece with spaces written in another way than before words");
  }
  TokenizerParts parts = MakeSentencePiece(model.pieces);
  const TokenizerConfig config = ReadTokenizerConfig(std::filesystem::path(path).parent_path().string());
  // Llama and Mistral put BOS before the text and nothing behind it.
  if ((!config.present || config.add_bos) && model.bos >= 0) parts.before.push_back(static_cast<int32_t>(model.bos));
  if (config.add_eos && model.eos >= 0) parts.after.push_back(static_cast<int32_t>(model.eos));
  return parts;
}

}  // namespace assay
