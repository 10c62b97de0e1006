// SPDX-License-Identifier: Apache-2.0
// For tests of pictures: is it well-formed, is every place a number, do texts lie inside and apart? Each check returns
// "" or what is wrong. It knows the markup that Svg writes, not all of XML. One thread.
#pragma once

#include <algorithm>
#include <cctype>
#include <string>
#include <vector>

#include "bench/report/svg.h"

namespace assay::bench {

// Tags nest, attributes are quoted, and what is special in XML is escaped.
inline std::string XmlProblem(const std::string& xml) {
  std::vector<std::string> open;
  for (size_t at = 0; at < xml.size(); ++at) {
    if (xml[at] == '&') {
      const std::string entity = xml.substr(at, xml.find(';', at) - at + 1);
      if (entity != "&amp;" && entity != "&lt;" && entity != "&gt;" && entity != "&quot;") return "bare & in " + entity;
    }
    if (xml[at] != '<') continue;
    const size_t end = xml.find('>', at);
    if (end == std::string::npos) return "a tag without end";
    const std::string tag = xml.substr(at + 1, end - at - 1);
    if (tag.find('<') != std::string::npos) return "bare < in " + tag;
    if (std::count(tag.begin(), tag.end(), '"') % 2 != 0) return "a bare quote in " + tag;
    at = end;
    if (tag.back() == '/') continue;
    if (tag[0] != '/') {
      open.push_back(tag.substr(0, tag.find(' ')));
      continue;
    }
    if (open.empty() || "/" + open.back() != tag) return "unexpected " + tag;
    open.pop_back();
  }
  return open.empty() ? "" : open.back() + " is never closed";
}

inline std::string NumberProblem(const std::string& svg) {
  for (const char* bad :
       {"\"nan", "\"-nan", "\"inf", "\"-inf", ">nan", ">-nan", ">inf", " nan ", " inf ", "-nan", "±inf"}) {
    if (svg.find(bad) != std::string::npos) return std::string("found ") + bad;
  }
  return "";
}

// What stands between `from` and `to` in each place where both are found, in order.
inline std::vector<std::string> Between(const std::string& text, const std::string& from, const std::string& to) {
  std::vector<std::string> found;
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at)) {
    at += from.size();
    found.push_back(text.substr(at, text.find(to, at) - at));
  }
  return found;
}

// All that a reader sees or hears, one text a line.
inline std::string Words(const std::string& svg) {
  std::string words;
  for (const std::string& element : Between(svg, "<text ", "</text>"))
    words += element.substr(element.find('>') + 1) + "\n";
  for (const char* name : {"title", "desc"}) {
    for (const std::string& text : Between(svg, std::string("<") + name + ">", "<")) words += text + "\n";
  }
  return words;
}

// Texts that overlap, or that leave the picture.
inline std::string LayoutProblem(const std::string& svg) {
  struct Placed {
    std::string text;
    double x1, y1, x2, y2;
  };
  const auto number = [](const std::string& in, const std::string& name) {
    return std::stod(Between(in, name + "=\"", "\"").at(0));
  };
  const double width = number(svg, "width"), height = number(svg, "height");
  std::vector<Placed> all;
  for (const std::string& element : Between(svg, "<text ", "</text>")) {
    const TextStyle style{.size = number(element, "font-size"), .bold = element.find("bold") != std::string::npos};
    std::string text = element.substr(element.find('>') + 1);
    if (text.empty()) continue;
    const double wide = TextWidth(text, style), y = number(element, " y");
    double x = number(element, "x");
    if (element.find("\"middle\"") != std::string::npos) x -= wide / 2;
    if (element.find("\"end\"") != std::string::npos) x -= wide;
    const Placed placed{text, x, y - 0.75 * style.size, x + wide, y + 0.2 * style.size};
    if (x < -1 || placed.x2 > width + 1 || placed.y1 < 0 || placed.y2 > height) return "outside: " + text;
    for (const Placed& other : all) {
      const bool apart =
          placed.x1 >= other.x2 || placed.x2 <= other.x1 || placed.y1 >= other.y2 || placed.y2 <= other.y1;
      if (!apart) return "overlap: " + text + " | " + other.text;
    }
    all.push_back(placed);
  }
  return all.empty() ? "no text" : "";
}

// Words of a Chinese picture that nobody translated; units are the same in both languages.
inline std::string UntranslatedWords(const std::string& svg) {
  std::string word, found;
  for (const char c : Words(svg) + "\n") {
    if (std::isalpha(static_cast<unsigned char>(c))) {
      word += c;
      continue;
    }
    const bool unit = word.size() < 3 || word == "tok" || (word.size() <= 5 && word.find("FLOP") != std::string::npos);
    if (!unit) found += word + " ";
    word.clear();
  }
  return found;
}

}  // namespace assay::bench
