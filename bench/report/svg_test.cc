// SPDX-License-Identifier: Apache-2.0
#include "bench/report/svg.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "bench/report/svg_check.h"

namespace assay::bench {
namespace {

TEST(Svg, IsWellFormedAndSelfContained) {
  Svg svg(900, "Title", "In words", Language::kChinese);
  svg.Define("<pattern id=\"p\"/>");
  svg.Text(10, 20, "label", {.size = 15, .bold = true, .anchor = Anchor::kEnd});
  svg.Line(0, 1, 2, 3.25, {.width = 2, .dash = "4 2"});
  svg.Rect(1, 2, 3, 4, "#ffffff");
  svg.Circle(5, 6, 7, kInk);
  const std::string text = svg.Finish(300);
  EXPECT_EQ(XmlProblem(text), "");
  for (const char* part :
       {"role=\"img\"", "lang=\"zh-CN\"", "<title>Title</title>", "<desc>In words</desc>", "viewBox=\"0 0 900 300\"",
        "<defs><pattern id=\"p\"/></defs>", "<rect width=\"900\" height=\"300\" fill=\"#ffffff\"/>",
        "<text x=\"10.0\" y=\"20.0\" font-size=\"15\" fill=\"#1a1a1a\" text-anchor=\"end\" font-weight=\"bold\">label<",
        "y2=\"3.2\" stroke=\"#1a1a1a\" stroke-width=\"2\" stroke-dasharray=\"4 2\"/>", "<circle cx=\"5.0\""}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
  for (const char* forbidden : {"<script", "href", "@import", "<image"}) {
    EXPECT_EQ(text.find(forbidden), std::string::npos) << forbidden;
  }
}

TEST(Svg, EscapesWhatComesFromFiles) {
  const std::string hostile = "</title><script>a & \"b\"\x01\xFF\xEF\xBF\xBF\xEF\xBF\xBE\n";
  Svg svg(900, hostile, hostile, Language::kEnglish);
  svg.Text(0, 0, hostile);
  const std::string text = svg.Finish(100);
  EXPECT_EQ(XmlProblem(text), "");
  const std::string escaped = "&lt;/title&gt;&lt;script&gt;a &amp; &quot;b&quot;?????";
  EXPECT_EQ(Words(text), escaped + "\n" + escaped + "\n" + escaped + "\n");
}

TEST(Svg, LeavesOutWhatHasNoPlace) {
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  Svg svg(900, "", "", Language::kEnglish);
  const std::string empty = svg.Finish(100);
  svg.Text(nan, 0, "text");
  svg.Line(0, 0, inf, 0);
  svg.Rect(0, 0, -inf, 1, kInk);
  svg.Circle(0, nan, 1, kInk);
  EXPECT_EQ(svg.Finish(100), empty);
}

TEST(Svg, FitsTextIntoLines) {
  const TextStyle style{.size = 10};
  const double ten_columns = TextWidth("0123456789", style);
  EXPECT_EQ(FitLine("0123456789", ten_columns, style), "0123456789");
  EXPECT_EQ(FitLine("0123456789A", ten_columns, style), "012345678…");
  EXPECT_EQ(FitLine("一二三四五六", ten_columns, style), "一二三四…");
  EXPECT_EQ(FitLines("one two three four five", ten_columns, 2, style),
            (std::vector<std::string>{"one two", "three fou…"}));
  EXPECT_EQ(FitLines("one two three", ten_columns, 3, style), (std::vector<std::string>{"one two", "three"}));
  EXPECT_EQ(FitLines("一二三四五六", ten_columns, 3, style), (std::vector<std::string>{"一二三四五", "六"}));
  EXPECT_EQ(FitLines("ab 一二三四五六", ten_columns, 3, style), (std::vector<std::string>{"ab 一二三", "四五六"}));
  EXPECT_EQ(FitLines("0123456789ABC", ten_columns, 3, style), (std::vector<std::string>{"0123456789", "ABC"}));
  EXPECT_EQ(FitLines("", ten_columns, 3, style), (std::vector<std::string>{""}));
  EXPECT_EQ(FitLines("ab", 0, 2, style), (std::vector<std::string>{"a", "…"}));
}

TEST(LogAxis, MapsDecadesToPixelsAndStaysOnTheAxis) {
  const LogAxis axis{.low = 1, .high = 3, .from = 500, .to = 100};
  EXPECT_DOUBLE_EQ(axis.At(1), 500);
  EXPECT_DOUBLE_EQ(axis.At(2), 300);
  EXPECT_DOUBLE_EQ(axis.At(9), 100);
  EXPECT_DOUBLE_EQ(axis.At(-9), 500);
  EXPECT_TRUE(Plottable(1e-300));
  for (const double bad : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()})
    EXPECT_FALSE(Plottable(bad));
}

}  // namespace
}  // namespace assay::bench
