// SPDX-License-Identifier: Apache-2.0
#include "bench/report/table.h"

#include <utf8proc.h>

#include <algorithm>
#include <sstream>

#include "runtime/core/error.h"

namespace assay::bench {
namespace {

// The character at the front of `text` and its bytes; a byte that is not UTF-8 is {-1, 1}.
std::pair<utf8proc_int32_t, size_t> NextCharacter(std::string_view text) {
  utf8proc_int32_t character = -1;
  const auto size = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                     static_cast<utf8proc_ssize_t>(text.size()), &character);
  if (size <= 0) return {-1, 1};
  return {character, static_cast<size_t>(size)};
}

}  // namespace

size_t DisplayWidth(const std::string& text) {
  size_t width = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const auto [character, size] = NextCharacter(rest);
    width += character < 0 ? 1 : static_cast<size_t>(std::max(0, utf8proc_charwidth(character)));
    rest.remove_prefix(size);
  }
  return width;
}

std::string Printable(const std::string& text) {
  std::string printable;
  for (std::string_view rest = text; !rest.empty();) {
    const auto [character, size] = NextCharacter(rest);
    const bool control = character < 0 || utf8proc_category(character) == UTF8PROC_CATEGORY_CC ||
                         utf8proc_category(character) == UTF8PROC_CATEGORY_CF;
    printable += control ? "?" : std::string(rest.substr(0, size));
    rest.remove_prefix(size);
  }
  return printable;
}

Table::Table(std::vector<Align> columns) : columns_(std::move(columns)) {}

void Table::AddRow(std::vector<std::string> cells) {
  ASSAY_CHECK(cells.size() <= columns_.size());
  cells.resize(columns_.size());
  for (std::string& cell : cells) cell = Printable(cell);
  rows_.push_back(std::move(cells));
}

std::string Table::Render(const std::string& indent) const {
  std::vector<size_t> widths(columns_.size(), 0);
  for (const auto& row : rows_) {
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], DisplayWidth(row[c]));
  }
  std::string text;
  for (const auto& row : rows_) {
    std::string line = indent, gap;
    for (size_t c = 0; c < row.size(); ++c) {
      if (widths[c] == 0) continue;
      const std::string padding(widths[c] - DisplayWidth(row[c]), ' ');
      line += gap + (columns_[c] == Align::kLeft ? row[c] + padding : padding + row[c]);
      gap = "  ";
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string Wrap(const std::string& text, size_t width, const std::string& indent) {
  std::istringstream words(text);
  std::string wrapped, line;
  for (std::string word; words >> word;) {
    if (!line.empty() && DisplayWidth(indent + line + " " + word) > width) {
      wrapped += indent + line + "\n";
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
  }
  return line.empty() ? wrapped : wrapped + indent + line + "\n";
}

}  // namespace assay::bench
