// SPDX-License-Identifier: Apache-2.0
#include "bench/report/roofline_svg.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "bench/report/svg_check.h"

namespace assay::bench {
namespace {

// Figures chosen for the test; they describe no device.
RooflinePicture Example() {
  return {.title = "某模型",
          .subtitle = "某设备",
          .roofs = {{.name = "本次", .flops = 6e11, .bytes_per_s = 6e10, .claimed = false, .dtype = "q4"},
                    {.name = "厂商", .flops = 1e12, .bytes_per_s = 8e10, .claimed = true, .dtype = "q4"}},
          .points = {{.name = "解码 48 %", .flops_per_byte = 4, .flops_per_s = 1.1e11, .low = 5e10, .high = 2e11},
                     {.name = "预填充 63 %", .flops_per_byte = 800, .flops_per_s = 3.7e11, .low = {}, .high = {}}}};
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

struct Line {
  double x1, y1, x2, y2;
};

// Those of that width, in order: 2.6 is a measured roof, 1.8 a claimed one, 1.5 a whisker.
std::vector<Line> Lines(const std::string& svg, const std::string& width) {
  std::vector<Line> lines;
  for (const std::string& line : Between(svg, "<line ", "/>")) {
    if (line.find("stroke-width=\"" + width + "\"") == std::string::npos) continue;
    const auto at = [&](const char* name) { return std::stod(Between(line, std::string(name) + "=\"", "\"").at(0)); };
    lines.push_back({at("x1"), at("y1"), at("x2"), at("y2")});
  }
  return lines;
}

TEST(RooflineSvg, NamesRoofsPointsAndAxes) {
  const std::string svg = RooflineSvg(Example(), Language::kEnglish);
  ExpectSound(svg);
  ExpectWords(svg, {"某模型\n", "某设备\n", "本次: 600 GFLOP/s (q4), 60.0 GB/s", "厂商: 1.00 TFLOP/s (q4), 80.0 GB/s",
                    "q4 600 GFLOP/s\n", "q4 1.00 TFLOP/s, claimed\n", "60.0 GB/s\n", "80.0 GB/s, claimed\n",
                    "解码 48 %\n", "预填充 63 %\n", "FLOP per byte", "10 GFLOP/s\n", "100 GFLOP/s\n", "1 TFLOP/s\n",
                    "1\n10\n100\n1000\n", "解码 48 %: 4.00 FLOP per byte, 110 GFLOP/s"});
}

TEST(RooflineSvg, SpeaksChinese) {
  RooflinePicture picture = Example();
  picture.roofs.push_back({.name = "空"});
  const std::string svg = RooflineSvg(picture, Language::kChinese);
  ExpectSound(svg);
  EXPECT_EQ(UntranslatedWords(svg), "");
  ExpectWords(svg, {"算力上限未知，带宽未知", "GB/s，声称"});
}

TEST(RooflineSvg, DrawsToScale) {
  const std::string svg = RooflineSvg(Example(), Language::kEnglish);
  const auto measured = Lines(svg, "2.6"), claimed = Lines(svg, "1.8");
  ASSERT_EQ(measured.size(), 3u);  // slope, flat, legend
  ASSERT_EQ(claimed.size(), 3u);
  EXPECT_EQ(Between(svg, "stroke-dasharray=\"8 5", "\"").size(), 3u);
  EXPECT_NEAR(measured[0].x2, measured[1].x1, 0.2);  // they meet at the ridge
  EXPECT_NEAR(measured[0].y2, measured[1].y1, 0.2);
  EXPECT_DOUBLE_EQ(measured[1].y1, measured[1].y2);
  EXPECT_LT(claimed[1].y1, measured[1].y1);  // 1e12 lies above 6e11
  // Pixels of a decade, from the slope: it is 1 in decades.
  const double ridge_at_10 = measured[0].x2;
  const auto circles = Between(svg, "<circle cx=\"", "\"");
  ASSERT_EQ(circles.size(), 2u);
  const double decade_x = (std::stod(circles[1]) - std::stod(circles[0])) / std::log10(800.0 / 4);
  EXPECT_NEAR(std::stod(circles[0]), ridge_at_10 + decade_x * std::log10(4.0 / 10), 0.5);
  const double decade_y = (measured[1].y1 - claimed[1].y1) / std::log10(1e12 / 6e11);
  const double point_y = std::stod(Between(svg, "cy=\"", "\"").at(0));
  EXPECT_NEAR(point_y, measured[1].y1 + decade_y * std::log10(6e11 / 1.1e11), 0.7);
  const auto whisker = Lines(svg, "1.5").at(0);
  EXPECT_NEAR(whisker.y1 - whisker.y2, decade_y * std::log10(2e11 / 5e10), 0.7);
}

TEST(RooflineSvg, PartsOfARoofMayBeUnknown) {
  RooflinePicture picture = Example();
  picture.roofs = {{.name = "平", .flops = 1e12, .bytes_per_s = 0, .claimed = true, .dtype = ""}};
  const std::string flat = RooflineSvg(picture, Language::kEnglish);
  ExpectSound(flat);
  ASSERT_EQ(Lines(flat, "1.8").size(), 2u);
  EXPECT_NEAR(Lines(flat, "1.8")[0].x1, 110, 0.1);
  ExpectWords(flat, {"平: 1.00 TFLOP/s, bandwidth unknown"});
  picture.roofs = {{.name = "斜", .flops = std::nan(""), .bytes_per_s = 1e11, .claimed = false, .dtype = ""}};
  const std::string slope = RooflineSvg(picture, Language::kEnglish);
  ExpectSound(slope);
  EXPECT_EQ(Lines(slope, "2.6").size(), 2u);
  ExpectWords(slope, {"斜: compute limit unknown, 100 GB/s"});
  ExpectSound(RooflineSvg({}, Language::kEnglish));
  picture = Example();
  picture.roofs.clear();
  ExpectSound(RooflineSvg(picture, Language::kEnglish));
}

TEST(RooflineSvg, LabelsOfNeighboursStayApart) {
  RooflinePicture picture = Example();
  for (int i = 0; i < 8; ++i) {
    picture.points.push_back({.name = "linear gate_up " + std::to_string(i) + ", 71 %",
                              .flops_per_byte = 4 * (1 + 0.01 * i),
                              .flops_per_s = 1e11 * (1 + 0.01 * (i % 3)),
                              .low = {},
                              .high = {}});
  }
  const std::string svg = RooflineSvg(picture, Language::kEnglish);
  ExpectSound(svg);
  for (int i = 0; i < 8; ++i) ExpectWords(svg, {("linear gate_up " + std::to_string(i) + ", 71 %\n").c_str()});
}

TEST(RooflineSvg, NoInputGivesNan) {
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  const double values[] = {nan, inf, -inf, 0, -1, 1e-320, 1e308, 1};
  for (const double a : values) {
    for (const double b : values) {
      RooflinePicture picture = Example();
      picture.roofs[0].flops = picture.points[0].flops_per_byte = a;
      picture.roofs[0].bytes_per_s = picture.points[0].flops_per_s = b;
      picture.points[0].low = b;
      picture.points[1].low = a;
      picture.points[1].high = b;
      const std::string svg = RooflineSvg(picture, Language::kEnglish);
      EXPECT_EQ(XmlProblem(svg), "");
      EXPECT_EQ(NumberProblem(svg), "") << a << " " << b;
      EXPECT_LT(svg.size(), 100'000u);
    }
  }
  EXPECT_EQ(Between(RooflineSvg({.points = {{"x", nan, 1}, {"y", 1, 0}}}, Language::kEnglish), "<circle", ">").size(),
            0u);
}

TEST(RooflineSvg, CutsAndEscapesWhatOthersWrote) {
  RooflinePicture picture = Example();
  const std::string long_text = std::string(3000, 'w') + "<&\"";
  picture.title = picture.subtitle = picture.roofs[0].name = picture.roofs[0].dtype = picture.points[0].name =
      long_text;
  const std::string svg = RooflineSvg(picture, Language::kEnglish);
  ExpectSound(svg);
  ExpectWords(svg, {"www…"});
}

}  // namespace
}  // namespace assay::bench
