// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meter.h"

#include <charconv>
#include <chrono>
#include <cmath>

#include "bench/power/rapl.h"

namespace assay::bench {
namespace {

constexpr char kPowercap[] = "/sys/class/powercap";

class ConstantMeter : public Meter {
 public:
  explicit ConstantMeter(double watts) : watts_(watts) {
    info_.kind = MeterKind::kConstant;
    info_.source = "constant given by the user";
    info_.note = "the watts are a figure that the user gave, not a measurement";
  }
  const MeterInfo& info() const override { return info_; }
  Result<Reading> Read() override {
    Reading reading;
    reading.t_s = NowSeconds();
    reading.watts = watts_;
    return reading;
  }

 private:
  double watts_;
  MeterInfo info_;
};

double ParseWatts(const std::string& text) {
  double watts = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), watts);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(watts) || watts <= 0) {
    throw Error("--power const:" + text + ": the watts must be a number above 0, for example const:350");
  }
  return watts;
}

}  // namespace

double NowSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

MeterChoice MakeMeter(const std::string& spec) {
  if (spec == "none") return {nullptr, "power was not asked for (--power none)"};
  if (spec.starts_with("const:")) return {std::make_unique<ConstantMeter>(ParseWatts(spec.substr(6))), ""};
  if (spec == "auto") {
    auto rapl = OpenRapl(kPowercap);
    if (!rapl.ok()) return {nullptr, "no power meter found: " + rapl.error()};
    return {std::move(rapl.value()), ""};
  }
  if (spec == "rapl" || (spec.starts_with("rapl:") && spec.size() > 5)) {
    auto rapl = OpenRapl(spec == "rapl" ? kPowercap : spec.substr(5));
    if (!rapl.ok()) throw Error("--power " + spec + ": " + rapl.error());
    return {std::move(rapl.value()), ""};
  }
  throw Error("--power " + spec + ": there is no such meter; there are auto, none, rapl[:PATH] and const:WATTS");
}

}  // namespace assay::bench
