// SPDX-License-Identifier: Apache-2.0
// Places the rows of a power log, stamped by another machine's clock, on the clock of NowSeconds(). One thread.
//
// A row cannot arrive before it is stamped, so the smallest (arrival - stamp) seen so far is nearest to the offset
// between the two clocks: rows that a buffer held back do not disturb it. A clock that is set during the run by more
// than two seconds shows in one of two ways: a row seems to come from the future, or stamps run backwards. Either
// begins a new segment with an offset of its own. A mark (the next row was stamped at a known moment) gives the offset
// itself, and arrivals do not count from then on. Where the clock is then set, its first row is taken to follow the
// last as that one followed the row before. A log that begins anew with other stamps has lost its mark.
#pragma once

#include <optional>
#include <vector>

#include "bench/power/meter.h"
#include "bench/power/meters/csv_power_log.h"

namespace assay::bench {

class LogClock {
 public:
  void Mark(double now_s) { mark_s_ = now_s; }
  // What follows comes from a new file or connection.
  void Restart() { restarted_ = true; }
  // Rows in the order of the log. One whose stamp lies behind its predecessor's, though no clock was set, is dropped.
  void Add(const PowerRow& row, double arrival_s);
  // The rows since the last call, strictly in order of time, by the offsets known now.
  std::vector<Reading> Take();

  bool marked() const { return marked_; }
  // The usual time between rows, once a few are known.
  std::optional<double> interval_s() const;

 private:
  bool IsSet(double stamp_s, double arrival_s) const;
  void Place();

  std::vector<PowerRow> rows_;     // of the current segment, not placed yet
  std::vector<Reading> readings_;  // placed, not taken yet
  double offset_s_ = 0;            // of the current segment: placed time - stamp
  struct Last {
    double stamp_s, arrival_s;
    double step_s = 0;  // from the stamp before
  };
  std::optional<Last> last_;
  std::optional<double> last_placed_s_, mark_s_;
  bool marked_ = false, restarted_ = false;
  std::vector<double> steps_s_;
};

}  // namespace assay::bench
