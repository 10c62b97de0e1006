// SPDX-License-Identifier: Apache-2.0
// Numbers for people: no more digits than the measurement carries, and a unit on each. Pure functions, any thread.
#pragma once

#include <optional>
#include <string>

#include "bench/stats/summary.h"

namespace assay::bench {

inline constexpr char kUnknown[] = "unknown";  // never 0, never blank

// `digits` significant digits, without an exponent: 1234.5 -> "1230", 0.01234 -> "0.0123". kUnknown if not finite.
std::string FormatNumber(double value, int digits = 3);

// "412 ± 6": the uncertainty with one significant digit (two if they are 10..35, the Particle Data Group's rule), the
// value rounded to the same decimal place. Without an uncertainty: three digits.
std::string FormatUncertain(double value, std::optional<double> half_width);

// The same for an interval with two ends: "58 ± 4", or "58 (51 to 70)" where one half is more than 1.5 times the other.
std::string FormatInterval(double value, std::optional<double> low, std::optional<double> high);
std::string FormatRate(const std::optional<Rate>& rate);

// Decimal prefixes, three digits: FormatScaled(34.1e9, "B/s") -> "34.1 GB/s". kUnknown if not finite.
std::string FormatScaled(double value, const std::string& unit);

// 0.714 -> "71 %"; below 10 % one decimal: "4.2 %".
std::string FormatPercent(double fraction);
// With its interval: "58 ± 4 %", "58 % (51 to 70)". Without one: as FormatPercent.
std::string FormatPercentUncertain(double fraction, std::optional<double> low, std::optional<double> high);

}  // namespace assay::bench
