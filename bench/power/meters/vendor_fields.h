// SPDX-License-Identifier: Apache-2.0
// What the words mean that vendors' tools print about a card: names of columns and keys, numbers with units. Pure
// functions, any thread. Text must have passed through PlainText.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace assay::bench {

// What a tool says about one card, or about one of the chips on it.
struct CardPower {
  int index = 0;  // the card's number as the tool prints it; its place in the output where none is printed
  int chip = 0;   // the die within the card
  std::string name;
  std::optional<double> watts, limit_w, temperature_c, clock_mhz;  // absent: not shown, N/A, or not readable
};

// One thing that is said about a card: {"Temperature", "GPU Current Temp", "27C"}.
struct Field {
  std::string group, key, value;
};

// Number formats made equal: no-break spaces are spaces, degree signs go, N/A becomes NA of the same width.
std::string PlainText(const std::string& text);

std::string Trim(std::string_view text);  // without the blanks and line ends around it

bool IsIndexKey(std::string_view key);                  // "NPU", "*Dev", "index"
bool IsChipKey(std::string_view key);                   // "Chip", "Chip ID"
bool IsPowerKey(std::string_view key);                  // "Pwr:Usage/Cap", "power.draw [W]": what is drawn, not a limit
std::optional<int> ParseIndex(std::string_view value);  // "0", "card0"; words after the first do not matter
std::optional<double> ParseWatts(std::string_view value);  // a number alone, or followed by W, mW or kW

CardPower ReadFields(const std::vector<Field>& fields);

}  // namespace assay::bench
