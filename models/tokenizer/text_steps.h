// SPDX-License-Identifier: Apache-2.0
// What happens to a text before byte-pair encoding: normalizers rewrite it, splitters cut it into pieces.
// The steps mean what the parts of the same names in a Hugging Face tokenizer.json mean. Immutable: any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/tokenizer/regex.h"

namespace assay {

inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // ▁, SentencePiece's way to write a space

// How GPT-2 splits a text into words.
inline constexpr char kGpt2Words[] = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Where a stretch of text stands in the whole.
struct Place {
  bool at_start = false;       // nothing came before
  bool after_special = false;  // at the start, or the token before is a special one
};

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual std::string Apply(std::string text, Place place) const = 0;
};

class NfcNormalizer : public Normalizer {
 public:
  std::string Apply(std::string text, Place place) const override;
};

class PrependNormalizer : public Normalizer {
 public:
  // after_special_only: SentencePiece's rule; Hugging Face prepends to each stretch between added tokens.
  explicit PrependNormalizer(std::string prefix, bool after_special_only = false)
      : prefix_(std::move(prefix)), after_special_only_(after_special_only) {}
  std::string Apply(std::string text, Place place) const override;

 private:
  std::string prefix_;
  bool after_special_only_;
};

class ReplaceNormalizer : public Normalizer {
 public:
  ReplaceNormalizer(Regex pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  std::string Apply(std::string text, Place place) const override;

 private:
  Regex pattern_;
  std::string content_;
};

// No spaces at either end, one between words: SentencePiece's remove_extra_whitespaces.
class ExtraSpaceNormalizer : public Normalizer {
 public:
  std::string Apply(std::string text, Place place) const override;
};

using PieceSink = std::function<void(std::string_view piece, Place place)>;

class Splitter {
 public:
  virtual ~Splitter() = default;
  // Gives each piece of `text`, in order, to `sink`; the views last for the call.
  virtual void Apply(std::string_view text, Place place, const PieceSink& sink) const = 0;
};

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

class RegexSplitter : public Splitter {
 public:
  RegexSplitter(Regex pattern, SplitBehavior behavior, bool invert = false)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  void Apply(std::string_view text, Place place, const PieceSink& sink) const override;

 private:
  Regex pattern_;
  SplitBehavior behavior_;
  bool invert_;  // the matches are what is kept
};

class AddSpaceSplitter : public Splitter {  // ByteLevel's add_prefix_space
 public:
  void Apply(std::string_view text, Place place, const PieceSink& sink) const override;
};

class ByteLevelSplitter : public Splitter {  // bytes to visible characters; does not split
 public:
  void Apply(std::string_view text, Place place, const PieceSink& sink) const override;
};

class MetaspaceSplitter : public Splitter {
 public:
  enum class Prepend { kNever, kFirst, kAlways };
  MetaspaceSplitter(std::string replacement, Prepend prepend, bool split);
  void Apply(std::string_view text, Place place, const PieceSink& sink) const override;

 private:
  std::string replacement_;
  Prepend prepend_;
  std::vector<RegexSplitter> split_;  // none or one
};

// GPT-2's alphabet: each byte has a visible character.
std::string ToByteLevel(std::string_view bytes);
// The bytes that the text stands for; the text itself if it holds a character of another alphabet.
std::string FromByteLevel(std::string_view text);

// Every occurrence of `from` (not empty) becomes `to`.
std::string ReplaceAll(std::string_view text, std::string_view from, std::string_view to);

}  // namespace assay
