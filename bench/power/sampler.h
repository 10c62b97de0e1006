// SPDX-License-Identifier: Apache-2.0
// Reads a meter in a thread of its own, and tells the energy between two moments from the readings around them.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "bench/power/meter.h"

namespace assay::bench {

struct Window {
  double begin_s = 0, end_s = 0;  // on the clock of NowSeconds()
};

struct WindowEnergy {
  double energy_j = 0;
  double peak_w = 0;    // the highest mean between two neighbouring readings
  int64_t updates = 0;  // readings inside the window at which the counter had moved (a power: all of them)
};

// All calls from any thread. The thread starts with the constructor and ends with the destructor.
class Sampler {
 public:
  explicit Sampler(std::unique_ptr<Meter> meter);  // not null
  ~Sampler();
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;

  const MeterInfo& info() const { return meter_->info(); }

  // Interpolates linearly between the readings around each end of the window, never across a gap. Fails, with one line
  // on why, where the meter failed before the window's end, readings are missing around it, or one inside is broken.
  // Takes a reading when the last one is older than the window's end.
  Result<WindowEnergy> Energy(const Window& window);

 private:
  struct Point {
    double t_s, energy_j;  // cumulative since the first
    bool broken;           // the energy since the point before is not known
  };

  void Run();
  void Poll();  // with mutex_ held
  Result<double> EnergyAt(double t_s) const;

  std::unique_ptr<Meter> meter_;
  double longest_gap_s_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  std::vector<Point> points_;
  std::optional<Reading> last_;
  std::string failure_;  // empty: the meter lives
  std::thread thread_;   // last: it uses what stands above
};

}  // namespace assay::bench
