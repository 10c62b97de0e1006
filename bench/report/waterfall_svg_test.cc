// SPDX-License-Identifier: Apache-2.0
#include "bench/report/waterfall_svg.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "bench/report/svg_check.h"

namespace assay::bench {
namespace {

Estimate LogOf(double share, double half_width) {
  return {std::log(share), std::log(share - half_width), std::log(share + half_width)};
}

// Figures chosen for the test; they describe no device. The names are Chinese, so that what is left in English in a
// Chinese picture is a phrase that lacks its translation.
Gap Example() {
  Gap gap;
  gap.metric = "decode_tps";
  gap.unit = "tok/s";
  gap.claimed = 1000;
  gap.claim = "声称峰值";
  gap.provenance = {.who = "某厂", .date = "2026-01-02", .source = "网页", .confidence = "高", .note = "减半"};
  gap.actual = {.value = 400, .low = 388, .high = 412};
  gap.ratio = {.value = 0.4, .low = 0.38, .high = 0.42};
  gap.terms = {{"silicon", LogOf(0.8, 0.02), "注一"},
               {"kernels", LogOf(0.71, 0.04), "注二"},
               {"throttling", LogOf(0.9, 0.05), ""},
               {"engine", LogOf(1.25, 0.05), ""},
               {"serving", LogOf(0.4 / (0.8 * 0.71 * 0.9 * 1.25), 0.01), ""}};
  return gap;
}

void ExpectSound(const std::string& svg) {
  EXPECT_EQ(XmlProblem(svg), "");
  EXPECT_EQ(NumberProblem(svg), "");
  EXPECT_EQ(LayoutProblem(svg), "");
}

void ExpectWords(const std::string& svg, std::initializer_list<const char*> words) {
  for (const char* word : words)
    EXPECT_NE(Words(svg).find(word), std::string::npos) << word << " not in\n" << Words(svg);
}

struct Bar {
  double left, right;
};

// The bars of that fill, without the one of the legend.
std::vector<Bar> Bars(const std::string& svg, const std::string& fill) {
  std::vector<Bar> bars;
  for (const std::string& rect : Between(svg, "<rect x=", "/>")) {
    if (rect.find("fill=\"" + fill + "\"") == std::string::npos || rect.find("height=\"26.0\"") == std::string::npos)
      continue;
    const double x = std::stod(rect.substr(1)), width = std::stod(Between(rect, "width=\"", "\"").at(0));
    bars.push_back({x, x + width});
  }
  return bars;
}

TEST(WaterfallSvg, SaysEveryNumberInWords) {
  const std::string svg = WaterfallSvg(Example(), "某模型", Language::kEnglish);
  ExpectSound(svg);
  ExpectWords(
      svg, {"某模型\n", "40.0 % of the claim\n", "95 % interval: 38.0 % to 42.0 %", "claimed 1000 tok/s",
            "silicon keeps 80.0 ± 2.0 %", "kernels keep 71 ± 4 %", "throttling keeps 90 ± 5 %", "engine gains 25 ± 5 %",
            "serving keeps 62.6 ± 1.0 %", "actual 400 ± 12 tok/s", "logarithmic", "注一",
            "Claim by: 某厂; date: 2026-01-02; confidence: 高; dense, no sparsity counted; 减半; 网页"});
}

TEST(WaterfallSvg, SpeaksChinese) {
  const std::string svg = WaterfallSvg(Example(), "某模型", Language::kChinese);
  ExpectSound(svg);
  EXPECT_EQ(UntranslatedWords(svg), "");
  ExpectWords(svg, {"声称值的 40.0 %", "算子：保留 71 ± 4 %", "引擎：增益 25 ± 5 %"});
  Gap unknown;
  unknown.terms = {{"kernels", {std::nan(""), {}, {}}, ""}, {"kernels", {1, {}, {}}, ""}};
  EXPECT_EQ(UntranslatedWords(WaterfallSvg(unknown, "", Language::kChinese)), "");
}

TEST(WaterfallSvg, BarsAddUp) {
  const std::string svg = WaterfallSvg(Example(), "", Language::kEnglish);
  const auto claimed = Bars(svg, "#ffffff"), losses = Bars(svg, "url(#assay-loss)"),
             gains = Bars(svg, "url(#assay-gain)"), actual = Bars(svg, "#8c8c8c");
  ASSERT_EQ(claimed.size(), 1u);
  ASSERT_EQ(losses.size(), 4u);
  ASSERT_EQ(gains.size(), 1u);
  ASSERT_EQ(actual.size(), 1u);
  EXPECT_NEAR(losses[0].right, claimed[0].right, 0.2);
  EXPECT_NEAR(losses[1].right, losses[0].left, 0.2);
  EXPECT_NEAR(losses[2].right, losses[1].left, 0.2);
  EXPECT_NEAR(gains[0].left, losses[2].left, 0.2);
  EXPECT_NEAR(losses[3].right, gains[0].right, 0.2);
  EXPECT_NEAR(losses[3].left, actual[0].right, 0.2);
  // Equal lengths are equal factors.
  const double per_log = (losses[0].right - losses[0].left) / -std::log(0.8);
  EXPECT_NEAR((gains[0].right - gains[0].left) / std::log(1.25), per_log, 1.5);
  EXPECT_NEAR((claimed[0].right - actual[0].right) / -std::log(0.4), per_log, 1.5);
}

TEST(WaterfallSvg, WithoutStagesShowsTwoBarsAndTheRatio) {
  Gap gap = Example();
  gap.terms.clear();
  gap.unit = "W";
  const std::string svg = WaterfallSvg(gap, "", Language::kEnglish);
  ExpectSound(svg);
  EXPECT_EQ(Bars(svg, "#ffffff").size() + Bars(svg, "#8c8c8c").size(), 2u);
  ExpectWords(svg, {"40.0 % of the claim", "claimed 1000 W"});
  for (const char* none : {"dense", "gain", "loss"}) EXPECT_EQ(Words(svg).find(none), std::string::npos) << none;
}

TEST(WaterfallSvg, MissingNumbersAreUnknownNotNan) {
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  ExpectWords(WaterfallSvg({}, "", Language::kEnglish), {"claimed unknown", "share of the claim: unknown",
                                                         "no interval", "100 %\n", "Claim by: unknown; date: unknown"});
  const double values[] = {nan, inf, -inf, 0, -1, 1e-320, 1e308, -1e308, 720, -720};
  for (const double a : values) {
    for (const double b : values) {
      Gap gap = Example();
      gap.claimed = a;
      gap.actual = {b, a, b};
      gap.ratio = {a, b, a};
      gap.terms[0].log = {a, b, a};
      gap.terms[1].log = {b, a, b};
      ExpectSound(WaterfallSvg(gap, "", Language::kEnglish));
    }
  }
  Gap gap = Example();
  gap.terms[1].log.value = nan;
  const std::string svg = WaterfallSvg(gap, "", Language::kEnglish);
  ExpectWords(svg, {"kernels: unknown"});
  EXPECT_EQ(Bars(svg, "url(#assay-loss)").size(), 3u);
}

TEST(WaterfallSvg, TinyAndHugeSharesStayReadable) {
  Gap gap = Example();
  gap.ratio = {1e-7, 0.9e-7, 1.1e-7};
  gap.terms[0].log = LogOf(1e-7, 1e-8);
  gap.terms[1].log = LogOf(5e4, 1e3);
  gap.terms[2].log = {std::log(1e-3), -600, 600};  // no interval can squeeze the bars
  const std::string svg = WaterfallSvg(gap, "", Language::kEnglish);
  ExpectSound(svg);
  ExpectWords(svg,
              {"1e-05 % of the claim", "silicon keeps 1e-05 %", "kernels gain 5e+06 %", "throttling keeps 0.10 %"});
  const auto loss = Bars(svg, "url(#assay-loss)").at(0);
  EXPECT_GT(loss.right - loss.left, 200);
}

TEST(WaterfallSvg, CutsAndEscapesWhatOthersWrote) {
  Gap gap = Example();
  const std::string long_text = std::string(3000, 'w') + "<&\"";
  gap.claim = gap.terms[0].note = gap.terms[0].stage = gap.provenance.who = gap.provenance.note = long_text;
  gap.unit = "<unit>";
  const std::string svg = WaterfallSvg(gap, long_text, Language::kEnglish);
  ExpectSound(svg);
  ExpectWords(svg, {"www…", "&lt;unit&gt;"});
}

}  // namespace
}  // namespace assay::bench
