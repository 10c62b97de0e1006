// SPDX-License-Identifier: Apache-2.0
// A plain table for a terminal: columns aligned by the width that the terminal gives each character. One thread.
#pragma once

#include <string>
#include <vector>

namespace assay::bench {

enum class Align { kLeft, kRight };

class Table {
 public:
  explicit Table(std::vector<Align> columns);
  // Missing cells are empty; more cells than columns are a bug.
  void AddRow(std::vector<std::string> cells);
  bool empty() const { return rows_.empty(); }
  // Each line ends with a newline, begins with `indent` and has no space at its end. Columns that are empty in every
  // row are left out.
  std::string Render(const std::string& indent) const;

 private:
  std::vector<Align> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// Columns that a text takes on a terminal. A byte that is not UTF-8 counts as one.
size_t DisplayWidth(const std::string& text);

// The same text without control characters (they become '?'): what came from a file must not drive the terminal.
std::string Printable(const std::string& text);

// Breaks at spaces so that lines fit `width` columns where words allow it; each begins with `indent`, ends with '\n'.
std::string Wrap(const std::string& text, size_t width, const std::string& indent);

}  // namespace assay::bench
