// SPDX-License-Identifier: Apache-2.0
#include "bench/stats/format.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace assay::bench {
namespace {

// The exponent of the first digit: 412 -> 2, 0.05 -> -2.
int Magnitude(double value) {
  return static_cast<int>(std::floor(std::log10(std::abs(value))));
}

// `value` rounded to the decimal place 10^place.
std::string AtPlace(double value, int place) {
  if (place > 0) {
    const double unit = std::pow(10.0, place);
    value = std::round(value / unit) * unit;
  }
  char text[400];  // the largest double has 309 digits
  std::snprintf(text, sizeof text, "%.*f", std::max(0, -place), value);
  return text;
}

int PlaceOfUncertainty(double half_width) {
  const int magnitude = Magnitude(half_width);
  const double leading = half_width / std::pow(10.0, magnitude - 1);  // 10 <= leading < 100
  return leading < 35.5 ? magnitude - 1 : magnitude;
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
  // A spread below the clock's own resolution is not evidence of more than four digits.
  if (*half_width < 1e-4 * std::abs(value)) return FormatNumber(value, 4);
  if (*half_width == 0) return "0";
  const int place = PlaceOfUncertainty(*half_width);
  return AtPlace(value, place) + " ± " + AtPlace(*half_width, place);
}

std::string FormatRate(const std::optional<Rate>& rate) {
  return rate ? FormatUncertain(rate->value, rate->HalfWidth()) : kUnknown;
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

}  // namespace assay::bench
