// SPDX-License-Identifier: Apache-2.0
#include "bench/report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "bench/report/table.h"

namespace assay::bench {
namespace {

// Wide for DejaVu Sans, the widest of the usual fonts; a Chinese character is two columns and one em.
constexpr double kEmPerColumn = 0.58, kEmPerBoldColumn = 0.66;

// Text for XML: neither markup nor a character that XML forbids.
std::string Escape(const std::string& text) {
  std::string escaped;
  const std::string printable = Printable(text);
  for (size_t i = 0; i < printable.size(); ++i) {
    const char c = printable[i];
    if (printable.compare(i, 2, "\xEF\xBF") == 0 && static_cast<unsigned char>(printable[i + 2]) >= 0xBE) {
      escaped += '?';  // U+FFFE and U+FFFF
      i += 2;
    } else if (c == '&') {
      escaped += "&amp;";
    } else if (c == '<') {
      escaped += "&lt;";
    } else if (c == '>') {
      escaped += "&gt;";
    } else if (c == '"') {
      escaped += "&quot;";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

bool AllFinite(std::initializer_list<double> numbers) {
  return std::all_of(numbers.begin(), numbers.end(), [](double n) { return std::isfinite(n); });
}

std::string StrokeAttributes(const Stroke& stroke) {
  std::string text = fmt::format("stroke=\"{}\" stroke-width=\"{:g}\"", stroke.color, stroke.width);
  text += *stroke.dash ? fmt::format(" stroke-dasharray=\"{}\"", stroke.dash) : " stroke-linecap=\"round\"";
  return text;
}

// The bytes of the character at `at`, in valid UTF-8.
size_t CharacterSize(const std::string& text, size_t at) {
  size_t size = 1;
  while (at + size < text.size() && (static_cast<unsigned char>(text[at + size]) & 0xC0) == 0x80) ++size;
  return size;
}

struct Prefix {
  size_t fits = 0;      // bytes that the width holds
  size_t break_at = 0;  // of those, bytes up to the last place for a line break; 0: none
};

Prefix LongestPrefix(const std::string& text, double width, const TextStyle& style) {
  Prefix prefix;
  double used = 0;
  while (prefix.fits < text.size()) {
    const std::string character = text.substr(prefix.fits, CharacterSize(text, prefix.fits));
    if (character == " ") prefix.break_at = prefix.fits;
    used += TextWidth(character, style);
    if (used > width + 1e-6) break;  // sums of columns round
    prefix.fits += character.size();
    if (DisplayWidth(character) == 2) prefix.break_at = prefix.fits;
  }
  return prefix;
}

}  // namespace

Svg::Svg(double width, const std::string& title, const std::string& description, Language language)
    : width_(width),
      language_(language == Language::kChinese ? "zh-CN" : "en"),
      title_(Escape(title)),
      description_(Escape(description)) {}

void Svg::Text(double x, double y, const std::string& text, const TextStyle& style) {
  if (!AllFinite({x, y})) return;
  static constexpr const char* kAnchors[] = {"", " text-anchor=\"middle\"", " text-anchor=\"end\""};
  static constexpr char kHalo[] =
      " stroke=\"#ffffff\" stroke-width=\"3\" stroke-linejoin=\"round\" paint-order=\"stroke\"";
  elements_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" font-size=\"{:g}\" fill=\"{}\"{}{}{}>{}</text>\n", x, y,
                           style.size, style.color, kAnchors[static_cast<int>(style.anchor)],
                           style.bold ? " font-weight=\"bold\"" : "", style.halo ? kHalo : "", Escape(text));
}

void Svg::Line(double x1, double y1, double x2, double y2, const Stroke& stroke) {
  if (!AllFinite({x1, y1, x2, y2})) return;
  elements_ += fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}/>\n", x1, y1, x2, y2,
                           StrokeAttributes(stroke));
}

void Svg::Rect(double x, double y, double width, double height, const std::string& fill, const Stroke& stroke) {
  if (!AllFinite({x, y, width, height})) return;
  elements_ += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\" {}/>\n", x,
                           y, std::max(0.0, width), std::max(0.0, height), fill, StrokeAttributes(stroke));
}

void Svg::Circle(double x, double y, double radius, const std::string& fill, const Stroke& stroke) {
  if (!AllFinite({x, y, radius})) return;
  elements_ += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:g}\" fill=\"{}\" {}/>\n", x, y, radius, fill,
                           StrokeAttributes(stroke));
}

std::string Svg::Finish(double height) const {
  static constexpr char kFonts[] =
      "'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', 'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', "
      "'Source Han Sans SC', 'WenQuanYi Zen Hei', sans-serif";
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:g}\" height=\"{1:g}\" viewBox=\"0 0 {0:g} {1:g}\" "
      "style=\"max-width:100%;height:auto\" role=\"img\" xml:lang=\"{2}\" lang=\"{2}\" font-family=\"{3}\">\n"
      "<title>{4}</title>\n<desc>{5}</desc>\n<defs>{6}</defs>\n"
      "<rect width=\"{0:g}\" height=\"{1:g}\" fill=\"#ffffff\"/>\n{7}</svg>\n",
      width_, height, language_, kFonts, title_, description_, definitions_, elements_);
}

double TextWidth(const std::string& text, const TextStyle& style) {
  return static_cast<double>(DisplayWidth(text)) * style.size * (style.bold ? kEmPerBoldColumn : kEmPerColumn);
}

std::vector<std::string> FitLines(const std::string& text, double width, size_t max_lines, const TextStyle& style) {
  std::vector<std::string> lines;
  std::string rest = Printable(text);
  while (true) {
    const Prefix prefix = LongestPrefix(rest, width, style);
    if (prefix.fits == rest.size()) {
      lines.push_back(rest);
      return lines;
    }
    if (lines.size() + 1 >= max_lines) {
      lines.push_back(rest.substr(0, LongestPrefix(rest, width - TextWidth("…", style), style).fits) + "…");
      return lines;
    }
    // Never an empty line, not even where a single character is too wide.
    const size_t end = std::max(prefix.break_at > 0 ? prefix.break_at : prefix.fits, CharacterSize(rest, 0));
    lines.push_back(rest.substr(0, end));
    rest.erase(0, std::min(rest.find_first_not_of(' ', end), rest.size()));
  }
}

std::string FitLine(const std::string& text, double width, const TextStyle& style) {
  return FitLines(text, width, 1, style).front();
}

bool Plottable(double value) {
  return std::isfinite(value) && value > 0;
}

double LogAxis::At(double log10_value) const {
  return from + (std::clamp(log10_value, low, high) - low) / (high - low) * (to - from);
}

}  // namespace assay::bench
