// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/telemetry.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace assay::bench {
namespace {

constexpr uint64_t kUnknownCount = UINT64_MAX;
// Four readings per step of the value see each step soon. The bounds keep a fast device from being asked all the time,
// and a slow one from being seen too rarely; without a word from the backend it is read as often as an NVIDIA counter.
constexpr double kReadingsPerStep = 4, kMinPeriodS = 0.005, kMaxPeriodS = 0.5, kDefaultPeriodS = 0.02;

std::optional<double> Finite(double value) {
  return std::isfinite(value) ? std::optional(value) : std::nullopt;
}

double PeriodS(const assay_telemetry& told) {
  double step_s = INFINITY;
  if (told.energy_uj != kUnknownCount && told.energy_period_us != kUnknownCount && told.energy_period_us > 0) {
    step_s = 1e-6 * static_cast<double>(told.energy_period_us);
  }
  if (std::isfinite(told.power_w) && told.power_period_s > 0) step_s = std::min(step_s, told.power_period_s);
  return std::isfinite(step_s) ? std::clamp(step_s / kReadingsPerStep, kMinPeriodS, kMaxPeriodS) : kDefaultPeriodS;
}

class TelemetryMeter : public Meter {
 public:
  TelemetryMeter(std::shared_ptr<Device> device, const assay_telemetry& first) : device_(std::move(device)) {
    const std::string detail = first.source;
    info_.source = "telemetry of backend " + device_->backend().name() + (detail.empty() ? "" : ": " + detail);
    info_.scope = device_->info().is_accelerator ? "board" : "chip";
    info_.period_s = PeriodS(first);
    info_.notes = {"the backend reports these figures itself, and what they cover is its word"};
  }

  const MeterInfo& info() const override { return info_; }

  Result<std::vector<Reading>> Read() override {
    using Readings = Result<std::vector<Reading>>;
    const double begin_s = NowSeconds();
    const auto telemetry = device_->ReadTelemetry();
    const double end_s = NowSeconds();
    if (!telemetry.ok()) return Readings::Fail(telemetry.error());
    const assay_telemetry& told = telemetry.value();

    Reading reading;
    // The backend knows the moment better than the middle of a call that may take 100 ms, if it lies within that call.
    const double told_s = 1e-9 * static_cast<double>(told.timestamp_ns);
    reading.t_s = begin_s <= told_s && told_s <= end_s ? told_s : (begin_s + end_s) / 2;
    if (told.energy_uj != kUnknownCount) reading.energy_j = 1e-6 * static_cast<double>(told.energy_uj);
    reading.watts = Finite(told.power_w);
    if (!reading.energy_j && !reading.watts) return Readings::Fail(info_.source + ": neither energy nor power");
    reading.clock_mhz = Finite(told.clock_mhz);
    reading.temperature_c = Finite(told.temperature_c);
    reading.throttled_s = ThrottledS(reading.t_s, told.throttle_reasons);
    return std::vector{reading};
  }

 private:
  std::optional<double> ThrottledS(double t_s, uint64_t reasons) {
    if (reasons == kUnknownCount) {
      last_s_.reset();
      return std::nullopt;
    }
    const bool throttled = reasons != 0;
    if (last_s_) throttled_s_ += (t_s - *last_s_) * (int{throttled} + int{was_throttled_}) / 2;
    last_s_ = t_s;
    was_throttled_ = throttled;
    return throttled_s_;
  }

  const std::shared_ptr<Device> device_;
  MeterInfo info_;
  std::optional<double> last_s_;  // the previous reading that knew of throttling
  bool was_throttled_ = false;
  double throttled_s_ = 0;
};

}  // namespace

Result<std::unique_ptr<Meter>> OpenTelemetry(std::shared_ptr<Device> device) {
  using Opened = Result<std::unique_ptr<Meter>>;
  const auto first = device->ReadTelemetry();
  if (!first.ok()) return Opened::Fail(first.error());
  std::unique_ptr<Meter> meter(new TelemetryMeter(std::move(device), first.value()));
  const auto reading = meter->Read();
  if (!reading.ok()) return Opened::Fail(reading.error());
  return meter;
}

}  // namespace assay::bench
