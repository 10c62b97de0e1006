// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/csv_power_log.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <cmath>

#include "bench/report/table.h"

namespace assay::bench {
namespace {

using Seconds = Result<double>;

// Seconds since 1970 reach the first in the year 5138, milliseconds reached it in 1973. Beyond the second lie
// microseconds, which no log is known to use.
constexpr double kLeastMilliseconds = 1e11, kMostMilliseconds = 1e14;

std::string Shown(std::string_view text) {
  return "\"" + Printable(std::string(text.substr(0, 60))) + "\"";
}

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  return text;
}

char SeparatorOf(std::string_view line) {
  for (const char c : {';', '\t'}) {
    if (line.find(c) != line.npos) return c;
  }
  return ',';
}

// A separator between quotation marks belongs to the cell.
std::vector<std::string> Split(std::string_view line, char separator) {
  std::vector<std::string> cells(1);
  bool quoted = false;
  for (const char c : line) {
    if (c == '"') {
      quoted = !quoted;
    } else if (c == separator && !quoted) {
      cells.emplace_back();
    } else {
      cells.back() += c;
    }
  }
  for (std::string& cell : cells) cell = Trimmed(cell);
  return cells;
}

std::optional<double> Number(std::string text, bool decimal_comma) {
  if (decimal_comma && text.find('.') == text.npos) std::replace(text.begin(), text.end(), ',', '.');
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  double value = 0;
  const auto [end, error] = std::from_chars(begin, text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

// Reads a fixed form from the front of a text.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}
  bool done() const { return rest_.empty(); }
  bool Take(std::string_view any_of) {
    if (rest_.empty() || any_of.find(rest_[0]) == any_of.npos) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool Digits(size_t count, int* value) {
    const std::string_view digits = rest_.substr(0, count);
    const bool all = std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (digits.size() != count || !all) return false;
    std::from_chars(digits.data(), digits.data() + count, *value);
    rest_.remove_prefix(count);
    return true;
  }
  double Fraction() {  // of the digits that follow, as if after a decimal point
    double value = 0, place = 0.1;
    for (int digit = 0; Digits(1, &digit); place /= 10) value += digit * place;
    return value;
  }

 private:
  std::string_view rest_;
};

struct IsoTime {
  double seconds = 0;  // since 1970 UTC
  bool zoned = false;
};

std::optional<IsoTime> ParseIso(std::string_view text) {
  Scanner scan(text);
  int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0;
  const bool date = scan.Digits(4, &year) && scan.Take("-/") && scan.Digits(2, &month) && scan.Take("-/") &&
                    scan.Digits(2, &day) && scan.Take("Tt ");
  if (!date || !scan.Digits(2, &hour) || !scan.Take(":") || !scan.Digits(2, &minute)) return std::nullopt;
  double fraction = 0;
  if (scan.Take(":")) {
    if (!scan.Digits(2, &second)) return std::nullopt;
    if (scan.Take(".,")) fraction = scan.Fraction();
  }
  const std::chrono::year_month_day ymd{std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                                        std::chrono::day(static_cast<unsigned>(day))};
  if (!ymd.ok() || hour > 23 || minute > 59 || second > 60) return std::nullopt;
  IsoTime time;
  scan.Take(" ");
  int zone_hours = 0, zone_minutes = 0;
  bool west = false;
  if (scan.Take("Zz")) {
    time.zoned = true;
  } else if (!scan.done()) {
    west = scan.Take("-");
    if ((!west && !scan.Take("+")) || !scan.Digits(2, &zone_hours)) return std::nullopt;
    scan.Take(":");
    if (!scan.done() && !scan.Digits(2, &zone_minutes)) return std::nullopt;
    time.zoned = true;
  }
  if (!scan.done()) return std::nullopt;
  const int east_minutes = (zone_hours * 60 + zone_minutes) * (west ? -1 : 1);
  const double days = static_cast<double>(std::chrono::sys_days(ymd).time_since_epoch().count());
  time.seconds = days * 86400 + hour * 3600 + (minute - east_minutes) * 60 + second + fraction;
  return time;
}

// "Active Power (W)" -> active, power, W: what lies between signs and spaces.
std::vector<std::string> Words(const std::string& name) {
  std::vector<std::string> words(1);
  for (const char c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) || (c & 0x80) != 0) {
      words.back() += c;
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

std::string Lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

bool OneOf(const std::string& text, std::initializer_list<const char*> list) {
  return std::any_of(list.begin(), list.end(), [&](const char* item) { return text == item; });
}

std::string Joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + Lower(word);
  return text;
}

// What one of a column's units is in watts, if it is a column of power.
std::optional<double> WattsPerUnit(const std::string& name) {
  const std::vector<std::string> words = Words(name);
  if (words.empty()) return std::nullopt;
  const std::string& unit = words.back();
  const std::string lower = Lower(unit);
  if (OneOf(lower, {"w", "watt", "watts"})) return 1;
  if (OneOf(lower, {"kw", "kilowatt", "kilowatts"})) return 1e3;
  // MW, a million of watts or a thousandth in capitals, is not guessed at.
  if (OneOf(unit, {"mW", "mw"}) || OneOf(lower, {"milliwatt", "milliwatts"})) return 1e-3;
  if (OneOf(Joined(words), {"power", "active power", "real power"})) return 1;
  return std::nullopt;
}

struct TimeName {
  std::string name;
  bool milliseconds = false;
};

// The name without the unit or zone at its end.
TimeName TimeNameOf(const std::string& column) {
  std::vector<std::string> words = Words(column);
  TimeName result;
  if (words.size() > 1) {
    const std::string last = Lower(words.back());
    result.milliseconds = OneOf(last, {"ms", "msec", "millis", "milliseconds"});
    if (result.milliseconds || OneOf(last, {"s", "sec", "seconds", "utc"})) words.pop_back();
  }
  result.name = Joined(words);
  return result;
}

bool IsTime(const std::string& name) {
  return OneOf(name, {"time", "timestamp", "time stamp", "datetime", "date time", "elapsed", "elapsed time",
                      "unix time", "epoch"});
}

}  // namespace

std::optional<Result<CsvPowerLog::Header>> CsvPowerLog::ParseHeader(const std::vector<std::string>& cells) {
  Header header;
  std::optional<size_t> time;
  size_t powers = 0;
  std::string power_names;
  for (size_t i = 0; i < cells.size(); ++i) {
    const auto [name, milliseconds] = TimeNameOf(cells[i]);
    if (name == "date") {
      header.date = i;
    } else if (IsTime(name) && !time) {
      time = i;
      header.milliseconds = milliseconds;
    } else if (const auto unit = WattsPerUnit(cells[i])) {
      header.watts = i;
      header.watts_per_unit = *unit;
      power_names += (powers++ > 0 ? ", " : "") + Shown(cells[i]);
    }
  }
  if (!time && !header.date && powers == 0) return std::nullopt;
  if (!time) return Result<Header>::Fail("the header names no column of time (time, timestamp, or date and time)");
  if (powers == 0) return Result<Header>::Fail("the header names no column of power (W, kW, mW, power, active power)");
  if (powers > 1) {
    return Result<Header>::Fail("the header names " + std::to_string(powers) + " columns of power, " + power_names +
                                ": let the logger write only the one that counts");
  }
  header.time = *time;
  return header;
}

Result<double> CsvPowerLog::ParseTime(const std::string& text, bool decimal_comma, bool milliseconds) {
  if (const auto number = Number(text, decimal_comma)) {
    if (milliseconds || (*number >= kLeastMilliseconds && *number < kMostMilliseconds)) return *number / 1e3;
    if (std::abs(*number) < kLeastMilliseconds) return *number;
  } else if (const auto iso = ParseIso(text)) {
    assumed_utc_ |= !iso->zoned;
    return iso->seconds;
  }
  return Seconds::Fail(Shown(text) + " is no time in seconds, milliseconds or ISO 8601 (2026-01-31T12:00:00.5Z)");
}

Result<std::optional<PowerRow>> CsvPowerLog::Parse(std::string_view line) {
  using Row = Result<std::optional<PowerRow>>;
  if (line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);  // a byte order mark, as some loggers begin with
  if (Trimmed(line).empty() || Trimmed(line).starts_with('#') || line.starts_with("assay:")) return Row(std::nullopt);

  const char separator = SeparatorOf(line);
  const std::vector<std::string> cells = Split(line, separator);
  if (auto parsed = ParseHeader(cells)) {
    header_problem_ = parsed->ok() ? "" : parsed->error();
    header_ = parsed->ok() ? std::optional(parsed->value()) : std::nullopt;
    return parsed->ok() ? Row(std::nullopt) : Row::Fail(header_problem_);
  }
  if (!header_problem_.empty()) return Row::Fail(header_problem_);

  const Header columns = header_.value_or(Header());
  if (std::max({columns.time, columns.watts, columns.date.value_or(0)}) >= cells.size()) {
    return Row::Fail(Shown(line) + " has too few cells for a time and a power");
  }
  const bool decimal_comma = separator != ',';
  const std::string time = columns.date ? cells[*columns.date] + " " + cells[columns.time] : cells[columns.time];
  const auto stamp_s = ParseTime(time, decimal_comma, columns.milliseconds);
  if (!stamp_s.ok()) return Row::Fail(stamp_s.error());
  const auto power = Number(cells[columns.watts], decimal_comma);
  if (!power) return Row::Fail(Shown(cells[columns.watts]) + " is no number of watts");
  return Row(PowerRow{stamp_s.value(), *power * columns.watts_per_unit});
}

}  // namespace assay::bench
