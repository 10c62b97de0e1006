// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meter.h"

#include <charconv>
#include <chrono>
#include <cmath>

#include "bench/power/meters/command_meter.h"
#include "bench/power/meters/ipmi.h"
#include "bench/power/meters/nvml.h"
#include "bench/power/meters/rapl.h"
#include "bench/power/meters/redfish.h"
#include "bench/power/meters/telemetry.h"
#include "bench/power/meters/wall.h"

namespace assay::bench {
namespace {

using Opened = Result<std::unique_ptr<Meter>>;

constexpr char kPowercap[] = "/sys/class/powercap";

class ConstantMeter : public Meter {
 public:
  explicit ConstantMeter(double watts) : watts_(watts) {
    info_.source = "constant given by the user";
    info_.constant = true;
  }
  const MeterInfo& info() const override { return info_; }
  Result<std::vector<Reading>> Read() override {
    Reading reading;
    reading.t_s = NowSeconds();
    reading.watts = watts_;
    return std::vector<Reading>{reading};
  }

 private:
  double watts_;
  MeterInfo info_;
};

Opened OpenConstant(const std::string& text) {
  double watts = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), watts);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(watts) || watts <= 0) {
    return Opened::Fail("the watts must be a number above 0, for example const:350");
  }
  return std::unique_ptr<Meter>(std::make_unique<ConstantMeter>(watts));
}

// "auto": what belongs to the device, and nothing else: a meter of another part of the machine would mislead.
MeterChoice BestMeter(const std::shared_ptr<Device>& device) {
  std::string why;
  const auto attempt = [&](Opened opened) {
    if (!opened.ok()) why += (why.empty() ? "" : "; ") + opened.error();
    return opened.ok() ? std::move(opened.value()) : nullptr;
  };
  if (device && device->has_telemetry()) {
    if (auto meter = attempt(OpenTelemetry(device))) return {std::move(meter), ""};
  }
  if (!device || !device->info().is_accelerator) {
    if (auto meter = attempt(OpenRapl(kPowercap))) return {std::move(meter), ""};
  } else if (device->backend().name() == "cuda") {
    if (auto meter = attempt(OpenNvml(device->id()))) return {std::move(meter), ""};
  } else if (why.empty()) {
    why = "the backend of " + device->id() + " has no telemetry; name a meter, for example --power cmd:npu-smi";
  }
  return {nullptr, "no power meter found: " + why};
}

Opened OpenNamed(const std::string& kind, const std::string& rest, const std::shared_ptr<Device>& device) {
  if (kind == "const") return OpenConstant(rest);
  if (kind == "rapl") return OpenRapl(rest.empty() ? kPowercap : rest);
  if (kind == "nvml") return OpenNvml(rest);
  if (kind == "ipmi" && rest.empty()) return OpenIpmi();
  if (kind == "redfish") return OpenRedfish(rest);
  if (kind == "cmd") return OpenCommandMeter(rest);
  if (kind == "wall") return OpenWall(rest);
  if (kind == "telemetry" && rest.empty()) {
    if (!device) return Opened::Fail("telemetry is that of a device; name one with --device");
    return OpenTelemetry(device);
  }
  return Opened::Fail(std::string("there is no such meter; there are ") + kMeterHelp);
}

}  // namespace

double NowSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

MeterChoice MakeMeter(const std::string& spec, const std::shared_ptr<Device>& device) {
  if (spec == "none") return {nullptr, "power was not asked for (--power none)"};
  if (spec == "auto") return BestMeter(device);
  const size_t colon = spec.find(':');
  auto opened = OpenNamed(spec.substr(0, colon), colon == spec.npos ? "" : spec.substr(colon + 1), device);
  if (!opened.ok()) throw Error("power meter " + spec + ": " + opened.error());
  return {std::move(opened.value()), ""};
}

}  // namespace assay::bench
