// SPDX-License-Identifier: Apache-2.0
#include "bench/stats/format.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string_view>

namespace assay::bench {
namespace {

// A spread below the clock's own resolution is not evidence of more than four digits.
constexpr double kResolution = 1e-4;  // of the value

// The exponent of the first digit: 412 -> 2, 0.05 -> -2.
int Magnitude(double value) {
  return static_cast<int>(std::floor(std::log10(std::abs(value))));
}

// `value` rounded to the decimal place 10^place; never "-0".
std::string AtPlace(double value, int place) {
  if (place > 0) {
    const double unit = std::pow(10.0, place);
    value = std::round(value / unit) * unit;
  }
  char text[400];  // the largest double has 309 digits
  std::snprintf(text, sizeof text, "%.*f", std::max(0, -place), value);
  const bool zero = std::string_view(text).find_first_of("123456789") == std::string_view::npos;
  return zero && text[0] == '-' ? text + 1 : text;
}

int PlaceOfUncertainty(double half_width) {
  const int magnitude = Magnitude(half_width);
  const double leading = half_width / std::pow(10.0, magnitude - 1);  // 10 <= leading < 100
  return leading < 35.5 ? magnitude - 1 : magnitude;
}

bool IsInterval(const std::optional<double>& low, const std::optional<double>& high) {
  return low && high && std::isfinite(*low) && std::isfinite(*high);
}

// Value and ends of an interval, `unit` (" %" or nothing) where people expect it.
std::string WithInterval(double value, double low, double high, const char* unit) {
  const double below = value - low, above = high - value, larger = std::max(below, above);
  if (larger <= 1.5 * std::min(below, above) || larger < kResolution * std::abs(value)) {
    return FormatUncertain(value, larger) + unit;
  }
  const int place = PlaceOfUncertainty(larger);
  return AtPlace(value, place) + unit + " (" + AtPlace(low, place) + " to " + AtPlace(high, place) + ")";
}

}  // namespace

std::string FormatNumber(double value, int digits) {
  if (!std::isfinite(value)) return kUnknown;
  if (value == 0) return "0";
  int place = Magnitude(value) - digits + 1;
  const double unit = std::pow(10.0, place);
  if (Magnitude(std::round(value / unit) * unit * (1 + 1e-12)) > Magnitude(value)) ++place;  // 9.996 -> 10.0
  return AtPlace(value, place);
}

std::string FormatUncertain(double value, std::optional<double> half_width) {
  if (!std::isfinite(value)) return kUnknown;
  if (!half_width || !std::isfinite(*half_width)) return FormatNumber(value);
  if (*half_width < kResolution * std::abs(value)) return FormatNumber(value, 4);
  if (*half_width == 0) return "0";
  const int place = PlaceOfUncertainty(*half_width);
  return AtPlace(value, place) + " ± " + AtPlace(*half_width, place);
}

std::string FormatInterval(double value, std::optional<double> low, std::optional<double> high) {
  if (!std::isfinite(value) || !IsInterval(low, high)) return FormatNumber(value);
  return WithInterval(value, *low, *high, "");
}

std::string FormatRate(const std::optional<Rate>& rate) {
  return rate ? FormatInterval(rate->value, rate->ci_low, rate->ci_high) : kUnknown;
}

std::string FormatScaled(double value, const std::string& unit) {
  if (!std::isfinite(value)) return kUnknown;
  static constexpr const char* kPrefixes[] = {"", "k", "M", "G", "T", "P", "E"};
  size_t step = 0;
  while (std::abs(value) >= 999.5 && step + 1 < std::size(kPrefixes)) {
    value /= 1000;
    ++step;
  }
  return FormatNumber(value) + " " + kPrefixes[step] + unit;
}

std::string FormatPercent(double fraction) {
  if (!std::isfinite(fraction)) return kUnknown;
  const double percent = 100 * fraction;
  return AtPlace(percent, std::abs(percent) < 9.95 ? -1 : 0) + " %";
}

std::string FormatPercentUncertain(double fraction, std::optional<double> low, std::optional<double> high) {
  if (!std::isfinite(fraction) || !IsInterval(low, high)) return FormatPercent(fraction);
  return WithInterval(100 * fraction, 100 * *low, 100 * *high, " %");
}

}  // namespace assay::bench
