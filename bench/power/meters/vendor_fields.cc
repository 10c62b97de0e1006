// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/vendor_fields.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <span>

namespace assay::bench {
namespace {

// Names as Plain() leaves them. Where a tool prints several, the first is taken.
constexpr std::string_view kIndexKeys[] = {"index",  "idx", "gpu", "npu",  "xpu",   "dcu",   "hcu",
                                           "device", "dev", "id",  "card", "board", "npuid", "gpuid"};
constexpr std::string_view kChipKeys[] = {"chip", "chipid"};
constexpr std::string_view kNameKeys[] = {"name", "productname", "devname", "marketname", "cardseries"};
constexpr std::string_view kPowerKeys[] = {"powerdrawinstant",
                                           "instantaneouspowerdraw",
                                           "powerdraw",
                                           "gpupowerdraw",
                                           "averagepowerdraw",
                                           "npurealtimepower",
                                           "currentsocketgraphicspackagepower",
                                           "averagegraphicspackagepower",
                                           "socketpower",
                                           "currentsocketpower",
                                           "averagesocketpower",
                                           "curpower",
                                           "pwrusagecap",
                                           "pwr",
                                           "avgpwr",
                                           "power",
                                           "powerdissipation"};
constexpr std::string_view kLimitKeys[] = {
    "powerlimit", "enforcedpowerlimit", "currentpowerlimit", "gpupowerlimit",
    "pwrcap",     "powercapa",          "powercap",          "maxgraphicspackagepower"};
constexpr std::string_view kClockKeys[] = {"clockssm", "clockscurrentsm", "clocksm", "aicorecurfreq", "sclkclockspeed",
                                           "sclk",     "cluster",         "graphics"};
// Temperatures that are bounds, not readings.
constexpr std::string_view kBounds[] = {"limit", "max", "shutdown", "slowdown", "target", "threshold"};

struct Unit {
  std::string_view name;
  double factor;
};
constexpr Unit kWattUnits[] = {{"", 1}, {"W", 1}, {"w", 1}, {"Watts", 1}, {"mW", 1e-3}, {"kW", 1e3}, {"KW", 1e3}};
constexpr Unit kCelsiusUnits[] = {{"", 1}, {"C", 1}, {"c", 1}};
constexpr Unit kMegahertzUnits[] = {{"", 1}, {"MHz", 1}, {"Mhz", 1}, {"MHZ", 1}, {"GHz", 1e3}};

const Unit* FindUnit(std::span<const Unit> units, std::string_view name) {
  const auto found = std::find_if(units.begin(), units.end(), [&](const Unit& unit) { return unit.name == name; });
  return found == units.end() ? nullptr : &*found;
}

bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}
bool IsLetter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// "Power(W)" -> "power", "*Dev" -> "dev", "power.draw [W]" -> "powerdraw".
std::string Plain(std::string_view key) {
  std::string plain;
  for (const char c : key.substr(0, key.find_first_of("(["))) {
    if (IsLetter(c) || IsDigit(c)) plain += static_cast<char>(IsLetter(c) ? c | 0x20 : c);
  }
  return plain;
}

// "Power(W)" -> "W", "Temperature (Sensor junction) (C)" -> "C"
std::string_view UnitOfKey(std::string_view key) {
  const size_t open = key.find_last_of("(["), close = key.find_last_of(")]");
  if (open == key.npos || close == key.npos || close < open) return {};
  return key.substr(open + 1, close - open - 1);
}

bool Contains(std::span<const std::string_view> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string_view SkipSpace(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  return text;
}

// Digits with a decimal point or comma. With three digits behind it a comma may as well separate thousands.
std::optional<double> ParseNumber(std::string digits) {
  if (const size_t comma = digits.find(','); comma != digits.npos) {
    if (digits.find_first_of(".,", comma + 1) != digits.npos || digits.find('.') < comma) return std::nullopt;
    if (digits.size() - comma - 1 == 3) return std::nullopt;
    digits[comma] = '.';
  }
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

// Takes the number and the unit off the beginning of `text`; a number without a unit is in `unit_of_key` if that is
// one.
std::optional<double> TakeQuantity(std::string_view& text, std::span<const Unit> units, std::string_view unit_of_key) {
  text = SkipSpace(text);
  size_t size = 0;
  while (size < text.size() && (IsDigit(text[size]) || text[size] == '.' || text[size] == ',')) ++size;
  const auto number = ParseNumber(std::string(text.substr(0, size)));
  text = SkipSpace(text.substr(size));
  size = 0;
  while (size < text.size() && (IsLetter(text[size]) || text[size] == '%')) ++size;
  const Unit* unit = FindUnit(units, text.substr(0, size));
  if (size == 0 && FindUnit(units, unit_of_key)) unit = FindUnit(units, unit_of_key);
  text = SkipSpace(text.substr(size));
  if (!number || !unit) return std::nullopt;
  return *number * unit->factor;
}

// A value that is a quantity and nothing else, perhaps in brackets.
std::optional<double> ParseQuantity(std::string_view value, std::span<const Unit> units, std::string_view key) {
  value = SkipSpace(value);
  if (value.starts_with('(')) value.remove_prefix(1);
  const auto quantity = TakeQuantity(value, units, UnitOfKey(key));
  if (value.starts_with(')')) value.remove_prefix(1);
  return SkipSpace(value).empty() ? quantity : std::nullopt;
}

// "106 W/ 250 W", "105W  300W", "NA / 350W", "98.9"
void ReadPower(const Field& field, CardPower* card) {
  std::string_view rest = SkipSpace(field.value);
  if (rest.starts_with("NA")) {
    rest = SkipSpace(rest.substr(2));
  } else {
    const auto watts = TakeQuantity(rest, kWattUnits, UnitOfKey(field.key));
    if (!rest.empty() && field.key.find("Cap") == std::string::npos) return;
    card->watts = watts;
  }
  if (rest.starts_with('/')) rest.remove_prefix(1);
  if (!rest.empty()) card->limit_w = ParseQuantity(rest, kWattUnits, field.key);
}

std::optional<double> FirstQuantity(const std::vector<Field>& fields, std::span<const std::string_view> keys,
                                    std::span<const Unit> units) {
  for (const std::string_view key : keys) {
    for (const Field& field : fields) {
      if (Plain(field.key) != key) continue;
      if (const auto quantity = ParseQuantity(field.value, units, field.key)) return quantity;
    }
  }
  return std::nullopt;
}

std::optional<double> HottestSensor(const std::vector<Field>& fields) {
  std::optional<double> hottest;
  for (const Field& field : fields) {
    const std::string name = Plain(field.group) + Plain(field.key);
    const auto has = [&](std::string_view word) { return name.find(word) != std::string::npos; };
    if (!has("temp") || std::any_of(std::begin(kBounds), std::end(kBounds), has)) continue;
    const auto celsius = ParseQuantity(field.value, kCelsiusUnits, field.key);
    if (celsius) hottest = std::max(hottest.value_or(*celsius), *celsius);
  }
  return hottest;
}

}  // namespace

std::string Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\n");
  if (begin == text.npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(" \t\n") - begin + 1));
}

std::string PlainText(const std::string& text) {
  struct Change {
    std::string_view from, to;
  };
  static constexpr Change kChanges[] = {{"\u00a0", " "}, {"\u202f", " "}, {"\u2103", "C"}, {"\u00b0", ""},
                                        {"\u00ba", ""},  {"N/A", "NA "},  {"n/a", "NA "},  {"\r", ""}};
  std::string plain;
  for (std::string_view rest = text; !rest.empty();) {
    const auto change = std::find_if(std::begin(kChanges), std::end(kChanges),
                                     [&](const Change& one) { return rest.starts_with(one.from); });
    const bool found = change != std::end(kChanges);
    plain += found ? change->to : rest.substr(0, 1);
    rest.remove_prefix(found ? change->from.size() : 1);
  }
  return plain;
}

bool IsIndexKey(std::string_view key) {
  return Contains(kIndexKeys, Plain(key));
}
bool IsChipKey(std::string_view key) {
  return Contains(kChipKeys, Plain(key));
}
bool IsPowerKey(std::string_view key) {
  return Contains(kPowerKeys, Plain(key));
}

std::optional<int> ParseIndex(std::string_view value) {
  value = SkipSpace(value);
  for (const std::string_view prefix : {"card", "gpu", "GPU"}) {
    if (value.starts_with(prefix)) value.remove_prefix(prefix.size());
  }
  value = value.substr(0, value.find_first_of(" \t"));
  int index = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), index);
  if (error != std::errc() || end != value.data() + value.size() || index < 0) return std::nullopt;
  return index;
}

std::optional<double> ParseWatts(std::string_view value) {
  return ParseQuantity(value, kWattUnits, {});
}

CardPower ReadFields(const std::vector<Field>& fields) {
  CardPower card;
  std::optional<int> index, chip;
  for (const Field& field : fields) {
    if (!index && IsIndexKey(field.key)) index = ParseIndex(field.value);
    if (!chip && IsChipKey(field.key)) chip = ParseIndex(field.value);
    if (card.name.empty() && Contains(kNameKeys, Plain(field.key))) card.name = field.value;
  }
  card.index = index.value_or(0);
  card.chip = chip.value_or(0);
  for (const std::string_view key : kPowerKeys) {
    for (const Field& field : fields) {
      if (!card.watts && Plain(field.key) == key) ReadPower(field, &card);
    }
  }
  if (!card.limit_w) card.limit_w = FirstQuantity(fields, kLimitKeys, kWattUnits);
  card.clock_mhz = FirstQuantity(fields, kClockKeys, kMegahertzUnits);
  card.temperature_c = HottestSensor(fields);
  return card;
}

}  // namespace assay::bench
