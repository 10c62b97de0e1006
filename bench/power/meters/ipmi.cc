// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/ipmi.h"

#include <charconv>

#include "bench/power/meters/process.h"
#include "bench/stats/format.h"

namespace assay::bench {
namespace {

constexpr double kPeriodS = 1;  // a BMC measures no faster, and is slow to answer
// What a BMC calls instantaneous is a mean, as a rule over about a second; no command tells over how long.
constexpr double kAveragingS = 1;
constexpr double kLimitS = 1.8;  // within the two periods that a meter may take

// Errors come with the output, since it takes them all to tell what is wrong. One of them is none: Debian's ipmitool
// misses a list of manufacturers, at each call.
constexpr char kCommand[] = "ipmitool dcmi power reading 2>&1 | sed '/^IANA PEN registry/d'";

// The number in "    KEY:    230 Watts".
std::optional<double> Number(const std::string& text, const std::string& key) {
  const size_t at = text.find(key + ":");
  if (at == std::string::npos) return std::nullopt;
  const size_t begin = text.find_first_not_of(" \t", at + key.size() + 1);
  if (begin == std::string::npos) return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(text.data() + begin, text.data() + text.size(), value);
  return error == std::errc() ? std::optional(value) : std::nullopt;
}

std::string WhyNoPower(const std::string& text) {
  const auto says = [&](const char* words) { return text.find(words) != std::string::npos; };
  if (says("not found")) return "ipmitool is not installed: install the package ipmitool";
  if (says("Could not open device")) {
    return "ipmitool does not reach a BMC: run as root; where /dev/ipmi0 is missing, `sudo modprobe -a ipmi_si "
           "ipmi_devintf` makes it if this machine has a BMC (a virtual machine has none)";
  }
  if (says("DCMI request failed") || says("Invalid command")) {
    return "the BMC knows no DCMI power reading (" + FirstLine(text) + "); it may tell its power with redfish:URL";
  }
  return "ipmitool tells no power: " + (text.empty() ? "it printed nothing" : FirstLine(text));
}

// What ipmitool prints for a BMC that measures power.
Result<std::string> ReadBmc() {
  using Text = Result<std::string>;
  auto output = RunShell(kCommand, kLimitS);
  if (!output.ok()) return Text::Fail(output.error());
  std::string& text = output.value().out;
  const auto watts = Number(text, "Instantaneous power reading");
  if (!watts) return Text::Fail(WhyNoPower(text));
  if (*watts <= 0 || text.find("deactivated") != std::string::npos) {
    return Text::Fail("the BMC does not measure power now (it tells " + FormatNumber(*watts) +
                      " W): switch its power monitoring on in its own set-up");
  }
  return std::move(text);
}

class IpmiMeter : public Meter {
 public:
  explicit IpmiMeter(const std::string& first) {
    info_.source = "ipmi: DCMI power reading of the BMC";
    info_.scope = "node";
    info_.period_s = kPeriodS;
    info_.averaging_s = kAveragingS;
    info_.notes = {"the whole machine as its BMC measures it, with power supplies and fans; a BMC averages and lags"};
    const auto mean_w = Number(first, "Average power reading over sample period");
    const auto sampled_s = Number(first, "Sampling period");
    if (mean_w && sampled_s) {
      info_.notes.push_back("before, the BMC saw a mean of " + FormatNumber(*mean_w) + " W in a sampling period of " +
                            FormatNumber(*sampled_s) + " s");
    }
  }

  const MeterInfo& info() const override { return info_; }

  Result<std::vector<Reading>> Read() override {
    const double begin_s = NowSeconds();
    const auto text = ReadBmc();
    if (!text.ok()) return Result<std::vector<Reading>>::Fail(text.error());
    Reading reading;
    reading.t_s = (begin_s + NowSeconds()) / 2;
    reading.watts = Number(text.value(), "Instantaneous power reading");
    return std::vector{reading};
  }

 private:
  MeterInfo info_;
};

}  // namespace

Result<std::unique_ptr<Meter>> OpenIpmi() {
  const auto first = ReadBmc();
  if (!first.ok()) return Result<std::unique_ptr<Meter>>::Fail(first.error());
  return std::unique_ptr<Meter>(new IpmiMeter(first.value()));
}

}  // namespace assay::bench
