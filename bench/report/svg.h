// SPDX-License-Identifier: Apache-2.0
// A tiny writer of self-contained SVG for charts: no script, no font, nothing fetched. It paints its own white ground,
// so that it reads the same on a dark page and on paper. Lengths are pixels, y grows downwards. One thread.
#pragma once

#include <string>
#include <vector>

#include "bench/report/language.h"

namespace assay::bench {

inline constexpr char kInk[] = "#1a1a1a";
inline constexpr char kFaintInk[] = "#555555";
inline constexpr char kGridInk[] = "#dddddd";

enum class Anchor { kStart, kMiddle, kEnd };

struct TextStyle {
  double size = 12;
  bool bold = false;
  const char* color = kInk;
  Anchor anchor = Anchor::kStart;
  bool halo = false;  // white around each letter, to be read across lines
};

struct Stroke {
  const char* color = kInk;
  double width = 1;
  const char* dash = "";  // lengths of dashes and gaps; "" is solid
};

class Svg {
 public:
  // `title` and `description` are for those who cannot see the picture.
  Svg(double width, const std::string& title, const std::string& description, Language language);

  // `y` is the baseline. An element whose place is not a finite number is left out: a viewer would refuse the whole
  // picture for it.
  void Text(double x, double y, const std::string& text, const TextStyle& style = {});
  void Line(double x1, double y1, double x2, double y2, const Stroke& stroke = {});
  void Rect(double x, double y, double width, double height, const std::string& fill, const Stroke& stroke = {});
  void Circle(double x, double y, double radius, const std::string& fill, const Stroke& stroke = {});
  // Markup of ours for <defs>, such as a pattern.
  void Define(const std::string& markup) { definitions_ += markup; }

  std::string Finish(double height) const;

 private:
  double width_;
  std::string language_, title_, description_, definitions_, elements_;
};

// How wide a text is, from above: fonts differ, the widest usual one counts.
double TextWidth(const std::string& text, const TextStyle& style = {});

// The text in at most `max_lines` lines of `width`, broken at spaces or beside Chinese characters; what is left over
// becomes an ellipsis. At least one line.
std::vector<std::string> FitLines(const std::string& text, double width, size_t max_lines, const TextStyle& style = {});
std::string FitLine(const std::string& text, double width, const TextStyle& style = {});

// A number that a logarithmic axis can show.
bool Plottable(double value);

// Maps decimal logarithms to pixels; what is off the axis goes to its nearer end.
struct LogAxis {
  double low = 0, high = 1;  // decimal logarithms, low < high
  double from = 0, to = 1;   // pixels
  double At(double log10_value) const;
};

}  // namespace assay::bench
