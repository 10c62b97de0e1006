// SPDX-License-Identifier: Apache-2.0
#include "bench/report/waterfall_svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "bench/report/svg.h"
#include "bench/stats/format.h"

namespace assay::bench {
namespace {

constexpr double kWidth = 900, kMargin = 24;
constexpr double kPlotLeft = 390, kPlotRight = 860;
constexpr double kTextWidth = kPlotLeft - kMargin - 12;  // of the words left of the bars
constexpr double kTop = 150, kRowHeight = 62, kBarHeight = 26;
constexpr TextStyle kWords{.size = 15, .bold = true}, kSmall{.size = 11.5, .color = kFaintInk};
// Colour is not the only difference: a loss is hatched, a gain is dotted, a claim is empty and an actual figure full.
constexpr char kLossFill[] = "url(#assay-loss)", kGainFill[] = "url(#assay-gain)";
constexpr char kPatterns[] =
    "<pattern id=\"assay-loss\" width=\"7\" height=\"7\" patternUnits=\"userSpaceOnUse\" "
    "patternTransform=\"rotate(45)\"><rect width=\"7\" height=\"7\" fill=\"#fbe3df\"/>"
    "<rect width=\"2.5\" height=\"7\" fill=\"#b3261e\"/></pattern>"
    "<pattern id=\"assay-gain\" width=\"7\" height=\"7\" patternUnits=\"userSpaceOnUse\">"
    "<rect width=\"7\" height=\"7\" fill=\"#dff3e3\"/><circle cx=\"3.5\" cy=\"3.5\" r=\"1.8\" fill=\"#1b6e35\"/>"
    "</pattern>";
// Of a position, in decades: an axis from end to end, with its margins, still has shares that are doubles.
constexpr double kFarthest = 200;

// One line of the picture. Positions are decimal logarithms of shares of the claim.
struct Row {
  std::string words = {};                    // what it says
  std::vector<std::string> small = {};       // in small print below
  std::optional<double> from = {}, to = {};  // no `to`: no bar; no `from`: from the edge of the plot
  std::optional<double> low = {}, high = {};
  std::string fill = {};
};

double Clamped(double position) {
  return std::clamp(position, -kFarthest, kFarthest);
}

std::optional<double> Log10(const std::optional<double>& share) {
  if (!share || !Plottable(*share)) return std::nullopt;
  return Clamped(std::log10(*share));
}

std::optional<double> HalfWidth(const Estimate& e) {
  if (!e.low || !e.high || !std::isfinite(*e.low) || !std::isfinite(*e.high)) return std::nullopt;
  return std::max({*e.high - e.value, e.value - *e.low, 0.0});
}

// A share in percent, "1.2e-07 %" where plain digits would be a row of zeros.
std::string PercentText(const Estimate& share, Language language) {
  const double percent = 100 * share.value;
  if (!std::isfinite(percent)) return Say(language, kUnknown);
  if (percent != 0 && (std::abs(percent) < 0.01 || std::abs(percent) >= 1e5)) return fmt::format("{:.2g} %", percent);
  // An interval that dwarfs the value would only print a row of zeros; its whisker shows it.
  if (const auto half = HalfWidth(share); half && *half < 10 * std::abs(share.value))
    return FormatUncertain(percent, 100 * *half) + " %";
  return std::abs(percent) < 1 ? FormatNumber(percent, 2) + " %" : FormatPercent(share.value);
}

// `share` alone, to the decimal place that `half_width` allows.
std::string RoundedPercent(double share, double half_width, Language language) {
  std::string text = PercentText({share, share - half_width, share + half_width}, language);
  const size_t spread = text.find(" ±");
  return spread == std::string::npos ? text : text.substr(0, spread) + " %";
}

template <class... Words>
std::string Sentence(Language language, const char* english, const Words&... words) {
  return fmt::format(fmt::runtime(Say(language, english)), words...);
}

std::string FigureText(const Estimate& figure, const std::string& unit, Language language) {
  if (!std::isfinite(figure.value)) return Say(language, kUnknown);
  if (unit == "FLOP/s" || unit == "B/s") return FormatScaled(figure.value, unit);
  return FormatUncertain(figure.value, HalfWidth(figure)) + " " + unit;
}

Row ClaimedRow(const Gap& gap, Language language) {
  const std::string figure =
      Plottable(gap.claimed) ? FigureText({gap.claimed, {}, {}}, gap.unit, language) : Say(language, kUnknown);
  Row row{.words = Sentence(language, "claimed {}", figure),
          .small = FitLines(gap.claim, kTextWidth, 2, kSmall),
          .fill = "#ffffff"};
  if (Plottable(gap.claimed)) row.to = 0;
  return row;
}

const char* StageMeaning(const std::string& stage) {
  if (stage == "promise") return "from the claim to a roofline at the claimed peaks";
  if (stage == "silicon") return "from the claimed peaks to what the device attains";
  if (stage == "kernels") return "from there to operations of the model's shapes";
  if (stage == "throttling") return "clock in the run, against that in kernel timing";
  if (stage == "engine") return "from there to the engine's whole step";
  if (stage == "serving") return "from there to what a client sees";
  return "";
}

// `before` is where the stages above have come to; the stage moves it on.
Row StageRow(const GapTerm& term, double* before, Language language) {
  const auto share_of = [](const std::optional<double>& log) { return log ? std::optional(std::exp(*log)) : log; };
  const Estimate share{std::exp(term.log.value), share_of(term.log.low), share_of(term.log.high)};
  const std::string stage = Say(language, term.stage.c_str());
  Row row{.small = {Say(language, StageMeaning(term.stage)), FitLine(term.note, kTextWidth, kSmall)}};
  const auto change = Log10(share.value);
  if (!change) {
    row.words = stage + Say(language, ": ") + Say(language, kUnknown);
    row.from = *before;
    return row;
  }
  const bool gain = share.value > 1, kernels = term.stage == "kernels";
  const auto above_one = [](const std::optional<double>& s) { return s ? std::optional(*s - 1) : s; };
  const Estimate extra{share.value - 1, above_one(share.low), above_one(share.high)};
  row.words = gain ? Sentence(language, kernels ? "{} gain {}" : "{} gains {}", stage, PercentText(extra, language))
                   : Sentence(language, kernels ? "{} keep {}" : "{} keeps {}", stage, PercentText(share, language));
  row.fill = gain ? kGainFill : kLossFill;
  const auto moved = [&](const std::optional<double>& by) { return by ? std::optional(Clamped(*before + *by)) : by; };
  row.from = *before;
  row.to = moved(change);
  row.low = moved(Log10(share.low));
  row.high = moved(Log10(share.high));
  *before = *row.to;
  return row;
}

Row ActualRow(const Gap& gap, Language language) {
  return {.words = Sentence(language, "actual {}", FigureText(gap.actual, gap.unit, language)),
          .to = Log10(gap.ratio.value),
          .low = Log10(gap.ratio.low),
          .high = Log10(gap.ratio.high),
          .fill = "#8c8c8c"};
}

std::vector<Row> Rows(const Gap& gap, Language language) {
  std::vector<Row> rows{ClaimedRow(gap, language)};
  double reached = 0;
  for (const GapTerm& term : gap.terms) rows.push_back(StageRow(term, &reached, language));
  rows.push_back(ActualRow(gap, language));
  return rows;
}

LogAxis AxisFor(const std::vector<Row>& rows) {
  double low = 0, high = 0;  // the claim itself
  for (const Row& row : rows) {
    low = std::min(low, row.to.value_or(low));
    high = std::max(high, row.to.value_or(high));
  }
  // One wild interval must not squeeze the bars: whiskers count for at most a factor of three.
  const double lowest = low - 0.5, highest = high + 0.5;
  for (const Row& row : rows) {
    low = std::min(low, std::max(lowest, row.low.value_or(low)));
    high = std::max(high, std::min(highest, row.high.value_or(high)));
  }
  const double span = std::max(high - low, 0.1);
  return {low - 0.15 * span, high + 0.05 * span, kPlotLeft, kPlotRight};
}

// Round shares, in percent, that the axis has room for.
std::vector<double> Ticks(const LogAxis& axis) {
  const double low = 100 * std::pow(10, axis.low), high = 100 * std::pow(10, axis.high);
  const double decades = axis.high - axis.low;
  std::vector<double> ticks;
  if (decades > 1) {
    const double step = std::max(1.0, std::ceil(decades / 7));
    for (double e = std::floor((axis.low + 2) / step) * step; e <= axis.high + 2; e += step) {
      for (const double digit : {1, 2, 5}) {
        const double tick = digit * std::pow(10, e);
        if (tick >= low && tick <= high && (digit == 1 || decades < 2.2)) ticks.push_back(tick);
      }
    }
    return ticks;
  }
  const double rough = (high - low) / 6, unit = std::pow(10, std::floor(std::log10(rough)));
  const double step = unit * (rough < 2 * unit ? 2 : rough < 5 * unit ? 5 : 10);
  for (double n = std::ceil(low / step); n * step <= high; ++n) ticks.push_back(n * step);
  return ticks;
}

void DrawAxis(const LogAxis& axis, double bottom, Svg* svg) {
  for (const double tick : Ticks(axis)) {
    const double x = axis.At(std::log10(tick / 100));
    svg->Line(x, kTop, x, bottom, {.color = kGridInk});
    svg->Line(x, bottom, x, bottom + 5);
    svg->Text(x, bottom + 19, fmt::format("{:.6g} %", tick), {.size = 11.5, .anchor = Anchor::kMiddle});
  }
  svg->Line(axis.from, bottom, axis.to, bottom);
}

// A whisker has a cap at each end that lies on the axis: one without goes on beyond it.
void DrawWhisker(const LogAxis& axis, double low, double high, double y, Svg* svg) {
  const double x1 = axis.At(low), x2 = axis.At(high);
  for (const Stroke& stroke : {Stroke{.color = "#ffffff", .width = 4}, Stroke{.width = 1.6}}) {
    svg->Line(x1, y, x2, y, stroke);
    if (low >= axis.low) svg->Line(x1, y - 6, x1, y + 6, stroke);
    if (high <= axis.high) svg->Line(x2, y - 6, x2, y + 6, stroke);
  }
}

void DrawRow(const Row& row, const LogAxis& axis, double top, bool last, Svg* svg) {
  svg->Text(kMargin, top + 18, FitLine(row.words, kTextWidth, kWords), kWords);
  double baseline = top + 34;
  for (const std::string& line : row.small) {
    if (line.empty()) continue;
    svg->Text(kMargin, baseline, line, kSmall);
    baseline += 15;
  }
  constexpr Stroke kConnector{.dash = "2 3"};
  if (!row.to) {
    if (row.from) svg->Line(axis.At(*row.from), top, axis.At(*row.from), top + kRowHeight, kConnector);
    return;
  }
  const double from = axis.At(row.from.value_or(axis.low)), to = axis.At(*row.to);
  svg->Rect(std::min(from, to), top, std::abs(to - from), kBarHeight, row.fill, {.width = 1.2});
  if (!last) svg->Line(to, top + kBarHeight, to, top + kRowHeight, kConnector);
  if (row.low && row.high) DrawWhisker(axis, *row.low, *row.high, top + kBarHeight / 2, svg);
}

bool RatioKnown(const Gap& gap) {
  return Plottable(gap.claimed) && std::isfinite(gap.ratio.value);
}

std::string RatioText(const Gap& gap, Language language) {
  if (!RatioKnown(gap)) return Say(language, "share of the claim: unknown");
  const auto half = HalfWidth(gap.ratio);
  return Sentence(language, "{} of the claim",
                  half ? RoundedPercent(gap.ratio.value, *half, language) : PercentText(gap.ratio, language));
}

std::string IntervalText(const Gap& gap, Language language) {
  const auto half = HalfWidth(gap.ratio);
  if (!RatioKnown(gap) || !half) return Say(language, "no interval is known");
  return Sentence(language, "95 % interval: {} to {}", RoundedPercent(*gap.ratio.low, *half, language),
                  RoundedPercent(*gap.ratio.high, *half, language));
}

std::string ProvenanceText(const Gap& gap, Language language) {
  const auto known = [&](const std::string& text) {
    return text.empty() ? std::string(Say(language, kUnknown)) : text;
  };
  const Provenance& p = gap.provenance;
  const std::string separator = Say(language, "; ");
  std::string text =
      Sentence(language, "Claim by: {}; date: {}; confidence: {}", known(p.who), known(p.date), known(p.confidence));
  const bool computes = gap.unit == "FLOP/s" || gap.unit == "tok/s";
  if (computes) text += separator + Say(language, "dense, no sparsity counted");
  for (const std::string& more : {p.note, p.source}) text += more.empty() ? "" : separator + more;
  return text;
}

// Returns where the picture ends.
double DrawFooter(const Gap& gap, double top, Language language, Svg* svg) {
  const double width = kWidth - 2 * kMargin;
  double x = kPlotLeft, y = top;
  for (const auto& [fill, name] : {std::pair(kLossFill, "loss"), std::pair(kGainFill, "gain")}) {
    if (gap.terms.empty()) break;
    svg->Rect(x, y - 11, 28, 14, fill);
    svg->Text(x + 35, y, Say(language, name));
    x += 110;
  }
  svg->Text(kMargin, y, Say(language, "share of the claim, logarithmic scale"));
  y += 26;
  svg->Text(
      kMargin, y,
      Say(language, "Equal lengths are equal factors, so the stages add up to the ratio. Whiskers: 95 % intervals."),
      kSmall);
  for (const std::string& line : FitLines(ProvenanceText(gap, language), width, 4, kSmall)) {
    svg->Text(kMargin, y += 17, line, kSmall);
  }
  return y + 18;
}

// The picture in words.
std::string Description(const Gap& gap, const std::vector<Row>& rows, Language language) {
  const std::string separator = Say(language, "; ");
  std::string text = RatioText(gap, language) + separator + IntervalText(gap, language);
  for (const Row& row : rows) text += separator + row.words;
  return text;
}

}  // namespace

std::string WaterfallSvg(const Gap& gap, const std::string& title, Language language) {
  const std::vector<Row> rows = Rows(gap, language);
  const LogAxis axis = AxisFor(rows);
  Svg svg(kWidth, title, Description(gap, rows, language), language);
  svg.Define(kPatterns);
  constexpr TextStyle kTitle{.size = 18, .bold = true};
  svg.Text(kMargin, 36, FitLine(title, kWidth - 2 * kMargin, kTitle), kTitle);
  constexpr TextStyle kRatio{.size = 38, .bold = true}, kInterval{.size = 14, .color = kFaintInk};
  svg.Text(kMargin, 88, FitLine(RatioText(gap, language), kWidth - 2 * kMargin, kRatio), kRatio);
  svg.Text(kMargin, 114, FitLine(IntervalText(gap, language), kWidth - 2 * kMargin, kInterval), kInterval);
  const double bottom = kTop + kRowHeight * static_cast<double>(rows.size());
  DrawAxis(axis, bottom, &svg);
  double top = kTop + 6;
  for (const Row& row : rows) {
    DrawRow(row, axis, top, &row == &rows.back(), &svg);
    top += kRowHeight;
  }
  return svg.Finish(DrawFooter(gap, bottom + 46, language, &svg));
}

}  // namespace assay::bench
