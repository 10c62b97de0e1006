// SPDX-License-Identifier: Apache-2.0
// What can tell joules or watts: a meter, and the choice of one.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/device/device.h"

namespace assay::bench {

double NowSeconds();  // the steady clock on which readings and windows lie; any thread

// What a meter said at one moment. At least one of energy_j and watts is there.
struct Reading {
  double t_s = 0;                       // NowSeconds() at the middle of the reading
  std::optional<double> energy_j;       // a counter: since some moment in the past, never falling
  std::optional<double> watts;          // a power; beside a counter it serves as the cross-check
  std::optional<double> clock_mhz;      // of the compute units
  std::optional<double> temperature_c;  // the hottest sensor that the meter knows
  std::optional<double> throttled_s;    // a counter: time in which a power or heat limit held the clock down
  bool broken = false;                  // what was used since the previous reading is not known
};

// How a meter knows. Nothing here grades it: grades follow from what its readings did.
struct MeterInfo {
  std::string source;              // "rapl: package-0, dram", "npu-smi: NPU 0, 1"
  std::string scope;               // "chip", "board", "node", "wall"; empty where nobody knows
  double period_s = 0.1;           // it is read this often
  double averaging_s = 0;          // its watts are means over up to so long before the reading; 0: not known to be
  std::optional<double> limit_w;   // the power limit in force
  bool constant = false;           // nobody measured: a figure from a person or a nameplate
  std::vector<std::string> notes;  // what a reader of its figures must know
};

// One thread at a time.
class Meter {
 public:
  virtual ~Meter() = default;
  virtual const MeterInfo& info() const = 0;
  // What is new since the last call, in order of time: one reading for most meters; an analyser's log may hold several
  // or none. Fails with one line that says what could not be read; later calls may be made. Must return within
  // max(2 * period_s, 1 s) even where the thing that it reads hangs, unless that cannot be interrupted (a driver call).
  virtual Result<std::vector<Reading>> Read() = 0;
};

struct MeterChoice {
  std::unique_ptr<Meter> meter;  // nullptr: nothing is metered
  std::string why_none;          // then: one line on why
};

// What a user may write after --power and --meter.
inline constexpr char kMeterHelp[] =
    "auto, none, telemetry (the backend's own), nvml[:GPU], rapl[:PATH], ipmi, redfish:URL, cmd:TOOL[:CARDS] or "
    "cmd:'SHELL COMMAND', wall:FILE, wall:tcp:HOST:PORT, const:WATTS";

// spec: one of the above; "auto" is the best that can be read for `device`: its own telemetry, NVML for an NVIDIA GPU,
// RAPL for a CPU. device: may be null (no telemetry then). Throws Error for any other spec, and where a meter that was
// asked for by name cannot be read.
MeterChoice MakeMeter(const std::string& spec, const std::shared_ptr<Device>& device);

}  // namespace assay::bench
