// SPDX-License-Identifier: Apache-2.0
// The lines of a power analyser's CSV log: when, and how many watts. One thread at a time.
//
// Cells are separated by semicolons, tabs or commas, whichever of them a line has first in this list; beside the first
// two a number may have a decimal comma. A header is optional and may come again; without one a line is `time,watts`.
// Of a header are used
//   the time: a column "time", "timestamp", "datetime", "elapsed" or the like, or the two columns "date" and "time";
//   the power: the one column named "power", "active power" or "real power", or whose name ends with the unit W, kW or
//     mW ("P(W)", "power_kw", "Watts").
// A time is in seconds (since 1970, or since any other moment), in milliseconds (where it is too large for seconds, or
// the header says ms), or a date and time as in ISO 8601, with or without a zone. Lines that begin with # or with
// "assay:" are comments.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/core/error.h"

namespace assay::bench {

struct PowerRow {
  double stamp_s = 0;  // on the log's own clock
  double watts = 0;
};

class CsvPowerLog {
 public:
  // Of one line, without its end: the row, or nothing where it holds none (blank, comment, header). Fails with one line
  // that says what is wrong with it, or with the header above it.
  Result<std::optional<PowerRow>> Parse(std::string_view line);
  // A time without a zone was met, and read as UTC.
  bool assumed_utc() const { return assumed_utc_; }

 private:
  struct Header {
    size_t time = 0, watts = 1;
    std::optional<size_t> date;
    bool milliseconds = false;
    double watts_per_unit = 1;
  };
  // Nothing where the cells are not those of a header.
  static std::optional<Result<Header>> ParseHeader(const std::vector<std::string>& cells);
  Result<double> ParseTime(const std::string& text, bool decimal_comma, bool milliseconds);

  std::optional<Header> header_;
  std::string header_problem_;  // not empty: no row can be read until a better header comes
  bool assumed_utc_ = false;
};

}  // namespace assay::bench
