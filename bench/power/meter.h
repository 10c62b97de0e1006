// SPDX-License-Identifier: Apache-2.0
// What can tell joules: a meter, and the choice of one.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "runtime/core/error.h"

namespace assay::bench {

double NowSeconds();  // the steady clock on which readings and windows lie; any thread

struct Reading {
  double t_s = 0;                  // NowSeconds() at the middle of the reading
  std::optional<double> energy_j;  // a counter: since some moment in the past, never falling
  std::optional<double> watts;     // or a power, for a meter without a counter
  bool broken = false;             // what was used since the previous reading is not known
};

// How a meter knows; it bounds the grade of what it measured.
enum class MeterKind {
  kConstant,  // nobody measured: a figure from a person or a nameplate
  kCounter,   // the device integrates by itself
};

struct MeterInfo {
  MeterKind kind;
  std::string source;     // "rapl: package-0, dram"
  std::string scope;      // "chip", "board", "node", "wall"; empty where nobody knows
  double period_s = 0.1;  // read it at least this often
  std::string note;       // what a reader of its figures must know; may be empty
};

// One thread at a time.
class Meter {
 public:
  virtual ~Meter() = default;
  virtual const MeterInfo& info() const = 0;
  // Fails with one line that says what could not be read; later calls may be made.
  virtual Result<Reading> Read() = 0;
};

struct MeterChoice {
  std::unique_ptr<Meter> meter;  // nullptr: nothing is metered
  std::string why_none;          // then: one line on why
};

// spec: "auto" (RAPL where it can be read, else none), "none", "const:WATTS", "rapl" or "rapl:PATH". The default PATH
// is /sys/class/powercap. Throws Error for any other spec, and where a meter that was asked for by name cannot be read.
MeterChoice MakeMeter(const std::string& spec);

}  // namespace assay::bench
