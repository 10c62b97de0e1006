// SPDX-License-Identifier: Apache-2.0
#include "models/tokenizer/text_steps.h"

#include <array>

#include "models/tokenizer/utf8.h"

namespace assay {

std::string NfcNormalizer::Apply(std::string text, Place) const {
  return ToNfc(text);
}

std::string PrependNormalizer::Apply(std::string text, Place place) const {
  if (text.empty() || (after_special_only_ && !place.after_special)) return text;
  return prefix_ + text;
}

std::string ReplaceNormalizer::Apply(std::string text, Place) const {
  std::string out;
  out.reserve(text.size());
  for (const Regex::Span& span : pattern_.Cut(text)) {
    out +=
        span.is_match ? std::string_view(content_) : std::string_view(text).substr(span.begin, span.end - span.begin);
  }
  return out;
}

std::string ExtraSpaceNormalizer::Apply(std::string text, Place) const {
  std::string out;
  for (const char c : text) {
    if (c != ' ' || (!out.empty() && out.back() != ' ')) out += c;
  }
  for (;;) {  // a space mark written out in the text counts as a space at the end
    if (out.ends_with(' ')) {
      out.pop_back();
    } else if (out.ends_with(kSpaceMark)) {
      out.erase(out.size() - kSpaceMark.size());
    } else {
      return out;
    }
  }
}

void RegexSplitter::Apply(std::string_view text, Place place, const PieceSink& sink) const {
  std::vector<Regex::Span> spans = pattern_.Cut(text);
  bool last_was_match = false;
  size_t pending_begin = 0;  // start of the piece that is being put together
  const auto give = [&](size_t begin, size_t end) {
    if (begin < end)
      sink(text.substr(begin, end - begin), {place.at_start && begin == 0, place.after_special && begin == 0});
  };
  for (const Regex::Span& span : spans) {
    const bool match = span.is_match != invert_;
    bool joins = false;  // this span belongs to the piece before it
    switch (behavior_) {
      case SplitBehavior::kRemoved:
        if (!match) give(span.begin, span.end);
        break;
      case SplitBehavior::kIsolated:
        break;
      case SplitBehavior::kMergedWithPrevious:
        joins = match && !last_was_match;
        break;
      case SplitBehavior::kMergedWithNext:
        joins = last_was_match && !match;
        break;
      case SplitBehavior::kContiguous:
        joins = last_was_match == match;
        break;
    }
    if (behavior_ != SplitBehavior::kRemoved && !joins) {
      give(pending_begin, span.begin);
      pending_begin = span.begin;
    }
    last_was_match = match;
  }
  if (behavior_ != SplitBehavior::kRemoved) give(pending_begin, text.size());
}

void AddSpaceSplitter::Apply(std::string_view text, Place place, const PieceSink& sink) const {
  if (text.starts_with(' ')) return sink(text, place);
  sink(' ' + std::string(text), place);
}

void ByteLevelSplitter::Apply(std::string_view text, Place place, const PieceSink& sink) const {
  sink(ToByteLevel(text), place);
}

MetaspaceSplitter::MetaspaceSplitter(std::string replacement, Prepend prepend, bool split)
    : replacement_(std::move(replacement)), prepend_(prepend) {
  if (split) split_.emplace_back(Regex(replacement_, /*literal=*/true), SplitBehavior::kMergedWithNext);
}

void MetaspaceSplitter::Apply(std::string_view text, Place place, const PieceSink& sink) const {
  std::string spaced = ReplaceAll(text, " ", replacement_);
  const bool wanted = prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && place.at_start);
  if (wanted && !spaced.starts_with(replacement_)) spaced.insert(0, replacement_);
  if (split_.empty()) return sink(spaced, place);
  split_.front().Apply(spaced, place, sink);
}

namespace {

// Printable bytes of Latin-1 stand for themselves, the others for U+0100, U+0101...
struct ByteAlphabet {
  std::array<char32_t, 256> character;
  std::array<int, 0x180> byte;  // -1: not of the alphabet
  ByteAlphabet() {
    byte.fill(-1);
    char32_t next = 0x100;
    for (char32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      character[b] = printable ? b : next++;
      byte[character[b]] = static_cast<int>(b);
    }
  }
};

const ByteAlphabet& Alphabet() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

}  // namespace

std::string ToByteLevel(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) AppendUtf8(Alphabet().character[static_cast<unsigned char>(c)], &out);
  return out;
}

std::string FromByteLevel(std::string_view text) {
  std::string out;
  for (std::string_view rest = text; !rest.empty();) {
    const Utf8Step step = NextUtf8(rest);
    if (!step.valid || step.code >= Alphabet().byte.size() || Alphabet().byte[step.code] < 0) return std::string(text);
    out += static_cast<char>(Alphabet().byte[step.code]);
    rest.remove_prefix(step.bytes);
  }
  return out;
}

std::string ReplaceAll(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (;;) {
    const size_t found = text.find(from);
    out += text.substr(0, found);
    if (found == std::string_view::npos) return out;
    out += to;
    text.remove_prefix(found + from.size());
  }
}

}  // namespace assay
