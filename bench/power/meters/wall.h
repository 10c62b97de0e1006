// SPDX-License-Identifier: Apache-2.0
// A meter over the CSV log of a wall-power analyser: a file that grows during the run, or a TCP connection.
//
// The log's stamps come from a clock that is not ours. There are two ways to place them on ours:
// - By arrival, without any help: the row that came soonest after its stamp tells the offset
// (bench/power/meters/log_clock.h).
//   Good to the 0.1 s between two looks at the file, if the logger writes each row at once.
// - By a marker. When the meter is opened it writes one line to stderr, `assay: wall meter marker: 1767225600.123`.
//   Copied into the log the moment it appears, it ties the row after it to that moment. It works for a logger that
//   writes in blocks or only at the end, and is good to the time between two rows. For example:
//     assay bench ... --power wall:log.csv 2> >(grep --line-buffered 'wall meter marker' >> log.csv)
// Rows that are in the file when it is opened are not part of the run.
#pragma once

#include <memory>
#include <string>

#include "bench/power/meter.h"

namespace assay::bench {

// place: FILE or tcp:HOST:PORT; the format is that of bench/power/meters/csv_power_log.h. A file may come into being
// later. The notes and the period of its info() (the time between rows, where that is longer than between looks) become
// more exact as the log is read.
Result<std::unique_ptr<Meter>> OpenWall(const std::string& place);

}  // namespace assay::bench
