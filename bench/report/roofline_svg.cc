// SPDX-License-Identifier: Apache-2.0
#include "bench/report/roofline_svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "bench/report/svg.h"
#include "bench/stats/format.h"

namespace assay::bench {
namespace {

using Roof = RooflinePicture::Roof;
using Point = RooflinePicture::Point;

constexpr double kWidth = 900, kMargin = 24;
constexpr double kLeft = 110, kRight = 876, kTop = 104, kBottom = 520;
constexpr TextStyle kSmall{.size = 11.5, .color = kFaintInk}, kLabel{.size = 12.5, .halo = true},
    kRoofLabel{.size = 12, .bold = true, .halo = true};
constexpr double kMarker = 4.5, kLongestLabel = 260;

struct Axes {
  LogAxis x, y;  // y.from is below y.to, in pixels the greater one
};

struct Segment {
  double x1, y1, x2, y2;
};

struct Box {
  double x1, y1, x2, y2;  // x1 <= x2, y1 <= y2
};

double OverlapArea(const Box& a, const Box& b) {
  const double width = std::min(a.x2, b.x2) - std::max(a.x1, b.x1),
               height = std::min(a.y2, b.y2) - std::max(a.y1, b.y1);
  return width > 0 && height > 0 ? width * height : 0;
}

// Whether a segment meets a box (Liang and Barsky's clipping).
bool Crosses(const Segment& s, const Box& box) {
  double enter = 0, leave = 1;
  const double dx = s.x2 - s.x1, dy = s.y2 - s.y1;
  for (const auto& [step, room] : {std::pair(-dx, s.x1 - box.x1), std::pair(dx, box.x2 - s.x1),
                                   std::pair(-dy, s.y1 - box.y1), std::pair(dy, box.y2 - s.y1)}) {
    if (step == 0 && room < 0) return false;
    if (step < 0) enter = std::max(enter, room / step);
    if (step > 0) leave = std::min(leave, room / step);
  }
  return enter <= leave;
}

// A place for a label: its box, where the text stands in it, and the line that ties it to what it names, if any.
struct Place {
  Box box;
  Anchor anchor = Anchor::kStart;
  std::optional<Segment> leader = {};
};

// Finds room for labels: each goes where it disturbs least of what is there already.
class LabelPlacer {
 public:
  void Avoid(const Box& box) { boxes_.push_back(box); }
  void Avoid(const Segment& segment) { segments_.push_back(segment); }

  // The best of the candidates, which come in order of preference; it is taken from then on.
  Place Take(const std::vector<Place>& candidates) {
    double least = std::numeric_limits<double>::infinity();
    Place best = candidates.front();
    for (size_t i = 0; i < candidates.size(); ++i) {
      const double cost = Cost(candidates[i]) + 0.5 * static_cast<double>(i);
      if (cost < least) {
        least = cost;
        best = candidates[i];
      }
    }
    Avoid(best.box);
    if (best.leader) Avoid(*best.leader);
    return best;
  }

 private:
  // Worst is a label outside the picture or on another one, then a leader or a line through a text; distance, which the
  // order of the candidates stands for, decides between those that are free of it.
  double Cost(const Place& place) const {
    constexpr Box kPlot{kLeft + 2, kTop + 2, kRight - 2, kBottom - 2};
    const Box& box = place.box;
    const bool inside = box.x1 >= kPlot.x1 && box.x2 <= kPlot.x2 && box.y1 >= kPlot.y1 && box.y2 <= kPlot.y2;
    double cost = inside ? 0 : 1e6;
    for (const Box& taken : boxes_) {
      if (const double shared = OverlapArea(box, taken); shared > 0) cost += 1e3 + shared;
      if (place.leader && Crosses(*place.leader, taken)) cost += 250;
    }
    for (const Segment& segment : segments_) cost += Crosses(segment, box) ? 200 : 0;
    return cost;
  }

  std::vector<Box> boxes_;
  std::vector<Segment> segments_;
};

bool Known(const Point& point) {
  return Plottable(point.flops_per_byte) && Plottable(point.flops_per_s);
}

// Whole decades around the values, `room` of a decade beyond them.
LogAxis WholeDecades(const std::vector<double>& log10_values, double room, double from, double to) {
  if (log10_values.empty()) return {0, 3, from, to};
  const auto [low, high] = std::minmax_element(log10_values.begin(), log10_values.end());
  const double first = std::floor(*low - room);
  return {first, std::max(std::ceil(*high + room), first + 2), from, to};
}

Axes AxesFor(const RooflinePicture& picture) {
  std::vector<double> x, y;
  for (const Roof& roof : picture.roofs) {
    if (Plottable(roof.flops)) y.push_back(std::log10(roof.flops));
    if (Plottable(roof.flops) && Plottable(roof.bytes_per_s))
      x.push_back(std::log10(roof.flops) - std::log10(roof.bytes_per_s));
  }
  for (const Point& point : picture.points) {
    if (!Known(point)) continue;
    x.push_back(std::log10(point.flops_per_byte));
    y.push_back(std::log10(point.flops_per_s));
  }
  Axes axes{.x = WholeDecades(x, 0.5, kLeft, kRight), .y = {}};
  // A slope must be seen for at least a decade, be it without any point below it.
  for (const Roof& roof : picture.roofs) {
    if (!Plottable(roof.bytes_per_s)) continue;
    const double at_left = std::log10(roof.bytes_per_s) + axes.x.low;
    y.push_back(at_left + 1);
  }
  axes.y = WholeDecades(y, 0.2, kBottom, kTop);
  return axes;
}

std::string PowerOfTen(double exponent) {
  return std::abs(exponent) > 5 ? fmt::format("1e{:g}", exponent) : fmt::format("{:g}", std::pow(10, exponent));
}

std::string FlopsTick(double exponent) {
  if (exponent < 0 || exponent > 23) return PowerOfTen(exponent) + " FLOP/s";
  std::string text = FormatScaled(std::pow(10, exponent), "FLOP/s");
  if (const size_t dot = text.find('.'); dot != std::string::npos) text.erase(dot, text.find(' ') - dot);  // "1.00 G"
  return text;
}

// Calls draw(exponent, pixel) for each decade of the axis, or for every n-th where there are too many to label.
template <class Draw>
void ForEachDecade(const LogAxis& axis, Draw draw) {
  const double step = std::max(1.0, std::ceil((axis.high - axis.low) / 10));
  for (double exponent = axis.low; exponent <= axis.high; exponent += step) draw(exponent, axis.At(exponent));
}

// Lines at 2, 3 ... 9 times each power of ten, which show that the scale is logarithmic.
void DrawMinorLines(const Axes& axes, Svg* svg) {
  constexpr Stroke kMinor{.color = "#f2f2f2"};
  if (std::max(axes.x.high - axes.x.low, axes.y.high - axes.y.low) > 8) return;  // they would fill the ground
  for (int digit = 2; digit <= 9; ++digit) {
    const double shift = std::log10(digit);
    for (double e = axes.x.low; e < axes.x.high; ++e)
      svg->Line(axes.x.At(e + shift), kTop, axes.x.At(e + shift), kBottom, kMinor);
    for (double e = axes.y.low; e < axes.y.high; ++e)
      svg->Line(kLeft, axes.y.At(e + shift), kRight, axes.y.At(e + shift), kMinor);
  }
}

void DrawAxes(const Axes& axes, Language language, Svg* svg) {
  svg->Rect(kLeft, kTop, kRight - kLeft, kBottom - kTop, "#ffffff");
  DrawMinorLines(axes, svg);
  ForEachDecade(axes.x, [&](double exponent, double x) {
    svg->Line(x, kTop, x, kBottom, {.color = kGridInk});
    svg->Text(x, kBottom + 19, PowerOfTen(exponent), {.anchor = Anchor::kMiddle});
  });
  ForEachDecade(axes.y, [&](double exponent, double y) {
    svg->Line(kLeft, y, kRight, y, {.color = kGridInk});
    svg->Text(kLeft - 8, y + 4, FlopsTick(exponent), {.anchor = Anchor::kEnd});
  });
  svg->Text(kMargin, kTop - 16, Say(language, "performance"), {.bold = true});
  svg->Text((kLeft + kRight) / 2, kBottom + 40, Say(language, "arithmetic intensity, FLOP per byte"),
            {.bold = true, .anchor = Anchor::kMiddle});
}

Stroke RoofStroke(const Roof& roof) {
  return roof.claimed ? Stroke{.width = 1.8, .dash = "8 5"} : Stroke{.width = 2.6};
}

struct RoofLines {
  std::optional<Segment> slope, flat;  // in pixels; from left to right
};

RoofLines LinesOf(const Roof& roof, const Axes& axes) {
  RoofLines lines;
  const bool has_flat = Plottable(roof.flops), has_slope = Plottable(roof.bytes_per_s);
  const double top = has_flat ? std::log10(roof.flops) : axes.y.high;
  double ridge = axes.x.low;
  if (has_slope) {
    const double bandwidth = std::log10(roof.bytes_per_s);
    const double start = std::max(axes.x.low, axes.y.low - bandwidth);
    ridge = std::min(top - bandwidth, axes.x.high);
    if (start < ridge) {
      lines.slope = {axes.x.At(start), axes.y.At(start + bandwidth), axes.x.At(ridge), axes.y.At(ridge + bandwidth)};
    }
  }
  if (has_flat) lines.flat = {axes.x.At(ridge), axes.y.At(top), kRight, axes.y.At(top)};
  return lines;
}

std::vector<Place> PlacesAlongFlat(const Segment& flat, double width) {
  std::vector<Place> places;
  for (double end = kRight - 6; places.empty() || end - width > flat.x1; end -= 30) {
    for (const double top : {flat.y1 - 20, flat.y1 + 5}) {
      places.push_back({{end - width, top, end, top + 15}, Anchor::kEnd, std::nullopt});
    }
  }
  return places;
}

// Upper left of the line first if `above`, else lower right.
std::vector<Place> PlacesAlongSlope(const Segment& slope, double width, bool above) {
  std::vector<Place> places;
  for (const bool upper : {above, !above}) {
    for (const double part : {0.45, 0.3, 0.6, 0.2, 0.75, 0.1, 0.9}) {
      const double x = slope.x1 + part * (slope.x2 - slope.x1), y = slope.y1 + part * (slope.y2 - slope.y1);
      if (upper) places.push_back({{x - 8 - width, y - 19, x - 8, y - 4}, Anchor::kEnd, std::nullopt});
      if (!upper) places.push_back({{x + 8, y + 4, x + 8 + width, y + 19}, Anchor::kStart, std::nullopt});
    }
  }
  return places;
}

// Rings around a point.
std::vector<Place> PlacesAround(double x, double y, double width) {
  constexpr double kHeight = 16;
  constexpr int kAngles[] = {0, 180, -45, 45, -135, 135, -20, 20, -160, 160, -70, 70, -110, 110, -90, 90};
  std::vector<Place> places;
  for (const double radius : {10, 20, 34, 50, 70, 95, 125, 160}) {
    for (const int angle : kAngles) {
      const double dx = std::cos(angle * std::numbers::pi / 180), dy = std::sin(angle * std::numbers::pi / 180);
      const double end_x = x + radius * dx, end_y = y + radius * dy;  // where the label is tied
      // Beside the point, or centred where the direction is steep.
      const int side = std::abs(dx) < 0.5 ? 0 : dx > 0 ? 1 : -1;
      const double left = end_x - width * (1 - side) / 2, top = end_y - kHeight * (1 - dy) / 2;
      Place place{{left, top, left + width, top + kHeight}, Anchor::kMiddle, std::nullopt};
      if (side != 0) place.anchor = side > 0 ? Anchor::kStart : Anchor::kEnd;
      if (radius > 10) place.leader = {x + 7 * dx, y + 7 * dy, end_x, end_y};
      places.push_back(place);
    }
  }
  return places;
}

void DrawLabel(const Place& place, const std::string& text, TextStyle style, Svg* svg) {
  const Box& box = place.box;
  const double xs[] = {box.x1, (box.x1 + box.x2) / 2, box.x2};
  style.anchor = place.anchor;
  svg->Text(xs[static_cast<int>(place.anchor)], box.y2 - 4, text, style);
}

std::vector<RoofLines> DrawRoofs(const RooflinePicture& picture, const Axes& axes, LabelPlacer* placer, Svg* svg) {
  std::vector<RoofLines> all;
  for (const Roof& roof : picture.roofs) {
    all.push_back(LinesOf(roof, axes));
    for (const auto& line : {all.back().slope, all.back().flat}) {
      if (!line) continue;
      svg->Line(line->x1, line->y1, line->x2, line->y2, RoofStroke(roof));
      placer->Avoid(*line);
    }
  }
  return all;
}

void DrawRoofLabels(const RooflinePicture& picture, const std::vector<RoofLines>& lines, Language language,
                    LabelPlacer* placer, Svg* svg) {
  const auto& roofs = picture.roofs;
  for (size_t i = 0; i < lines.size(); ++i) {
    const Roof& roof = roofs[i];
    const auto label = [&](std::string text, auto places) {
      if (roof.claimed) text += std::string(Say(language, ", ")) + Say(language, "claimed");
      text = FitLine(text, kLongestLabel, kRoofLabel);
      DrawLabel(placer->Take(places(TextWidth(text, kRoofLabel))), text, kRoofLabel, svg);
    };
    if (lines[i].flat) {
      label((roof.dtype.empty() ? "" : roof.dtype + " ") + FormatScaled(roof.flops, "FLOP/s"),
            [&](double width) { return PlacesAlongFlat(*lines[i].flat, width); });
    }
    // Roofs of several dtypes share one memory and so one slope, which needs one label.
    const bool again = std::any_of(roofs.begin(), roofs.begin() + static_cast<ptrdiff_t>(i), [&](const Roof& other) {
      return other.bytes_per_s == roof.bytes_per_s && other.claimed == roof.claimed;
    });
    if (lines[i].slope && !again) {
      const bool highest = std::none_of(roofs.begin(), roofs.end(),
                                        [&](const Roof& other) { return other.bytes_per_s > roof.bytes_per_s; });
      label(FormatScaled(roof.bytes_per_s, "B/s"),
            [&](double width) { return PlacesAlongSlope(*lines[i].slope, width, highest); });
    }
  }
}

void DrawMarkers(const std::vector<Point>& points, const Axes& axes, LabelPlacer* placer, Svg* svg) {
  for (const Point& point : points) {
    if (!Known(point)) continue;
    const double x = axes.x.At(std::log10(point.flops_per_byte)), y = axes.y.At(std::log10(point.flops_per_s));
    if (point.low && point.high && Plottable(*point.low) && Plottable(*point.high)) {
      const double y_low = axes.y.At(std::log10(*point.low)), y_high = axes.y.At(std::log10(*point.high));
      if (y_low - y_high > 2 * kMarker) {  // else the marker hides it
        svg->Line(x, y_low, x, y_high, {.width = 1.5});
        for (const double end : {y_low, y_high}) svg->Line(x - 4, end, x + 4, end, {.width = 1.5});
        placer->Avoid(Segment{x, y_low, x, y_high});
      }
    }
    svg->Circle(x, y, kMarker, kInk, {.color = "#ffffff"});
    placer->Avoid(Box{x - kMarker, y - kMarker, x + kMarker, y + kMarker});
  }
}

void DrawPointLabels(const std::vector<Point>& points, const Axes& axes, LabelPlacer* placer, Svg* svg) {
  std::vector<std::pair<Place, std::string>> labels;
  for (const Point& point : points) {
    if (!Known(point)) continue;
    const std::string text = FitLine(point.name, kLongestLabel, kLabel);
    const double x = axes.x.At(std::log10(point.flops_per_byte)), y = axes.y.At(std::log10(point.flops_per_s));
    labels.emplace_back(placer->Take(PlacesAround(x, y, TextWidth(text, kLabel))), text);
    if (const auto& leader = labels.back().first.leader) {
      svg->Line(leader->x1, leader->y1, leader->x2, leader->y2, {.color = kFaintInk, .width = 0.8});
    }
  }
  // After all leaders, so that none runs through a text.
  for (const auto& [place, text] : labels) DrawLabel(place, text, kLabel, svg);
}

std::string RoofText(const Roof& roof, Language language) {
  std::string text = roof.name + Say(language, ": ");
  text += Plottable(roof.flops) ? FormatScaled(roof.flops, "FLOP/s") : Say(language, "compute limit unknown");
  if (Plottable(roof.flops) && !roof.dtype.empty()) text += " (" + roof.dtype + ")";
  text += Say(language, ", ");
  text += Plottable(roof.bytes_per_s) ? FormatScaled(roof.bytes_per_s, "B/s") : Say(language, "bandwidth unknown");
  return text;
}

// Returns where the picture ends.
double DrawLegend(const RooflinePicture& picture, Language language, Svg* svg) {
  double y = kBottom + 70;
  for (const Roof& roof : picture.roofs) {
    svg->Line(kMargin, y - 4, kMargin + 46, y - 4, RoofStroke(roof));
    svg->Text(kMargin + 58, y, FitLine(RoofText(roof, language), kWidth - 2 * kMargin - 58));
    y += 20;
  }
  svg->Text(kMargin, y,
            Say(language,
                "Both scales are logarithmic. The slope is what memory allows, the flat part what compute allows. "
                "Whiskers: 95 % intervals."),
            kSmall);
  return y + 18;
}

// The picture in words.
std::string Description(const RooflinePicture& picture, Language language) {
  const std::string separator = Say(language, "; ");
  std::string text = picture.subtitle;
  for (const Roof& roof : picture.roofs) text += separator + RoofText(roof, language);
  for (const Point& point : picture.points) {
    if (!Known(point)) continue;
    text += separator + fmt::format(fmt::runtime(Say(language, "{}: {} FLOP per byte, {}")), point.name,
                                    FormatNumber(point.flops_per_byte), FormatScaled(point.flops_per_s, "FLOP/s"));
  }
  return text;
}

}  // namespace

std::string RooflineSvg(const RooflinePicture& picture, Language language) {
  const Axes axes = AxesFor(picture);
  Svg svg(kWidth, picture.title, Description(picture, language), language);
  constexpr TextStyle kTitle{.size = 18, .bold = true}, kSubtitle{.size = 13, .color = kFaintInk};
  svg.Text(kMargin, 36, FitLine(picture.title, kWidth - 2 * kMargin, kTitle), kTitle);
  svg.Text(kMargin, 58, FitLine(picture.subtitle, kWidth - 2 * kMargin, kSubtitle), kSubtitle);
  DrawAxes(axes, language, &svg);
  LabelPlacer placer;
  const std::vector<RoofLines> lines = DrawRoofs(picture, axes, &placer, &svg);
  DrawMarkers(picture.points, axes, &placer, &svg);
  DrawRoofLabels(picture, lines, language, &placer, &svg);
  DrawPointLabels(picture.points, axes, &placer, &svg);
  return svg.Finish(DrawLegend(picture, language, &svg));
}

}  // namespace assay::bench
