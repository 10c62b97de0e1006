// SPDX-License-Identifier: Apache-2.0
// Reads a meter in a thread of its own and keeps what it said. A meter that fails, hangs or talks nonsense leaves a
// fault at that moment and never holds up the run.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/power/meter.h"

namespace assay::bench {

struct Window {
  double begin_s = 0, end_s = 0;  // on the clock of NowSeconds()
  double seconds() const { return end_s - begin_s; }
};

// A moment at which the meter did not do its work.
struct Fault {
  double t_s = 0;
  std::string text;  // one line: "npu-smi ended with exit code 1"
};

// All that a meter said, in order of time.
struct MeterRecord {
  MeterInfo info;
  std::vector<Reading> readings;
  std::vector<Fault> faults;
};

// All calls from any thread. The thread starts with the constructor; the destructor waits for it, but not for a meter
// that hangs (it is left behind, with its thread).
class Sampler {
 public:
  explicit Sampler(std::unique_ptr<Meter> meter);  // not null
  ~Sampler();
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;

  MeterInfo info() const;
  // A meter whose call has not returned for longer than max(2 periods, 1 s) is a fault at the end of the record.
  MeterRecord Record() const;
  // Waits until there is a reading at or after t_s, at most `limit_s`, and less where the meter is faulty.
  void WaitFor(double t_s, double limit_s) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace assay::bench
