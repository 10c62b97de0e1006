// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/vendor_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string_view>

#include "bench/power/meters/process.h"

namespace assay::bench {
namespace {

using Json = nlohmann::ordered_json;
using Record = std::vector<Field>;  // one card or chip

// No tool prints longer lines, wider headers or deeper JSON; garbage does, and must not cost time or stack.
constexpr size_t kMaxLine = 1000;
constexpr size_t kMaxHeaderRows = 4;
constexpr int kMaxHeaders = 8;
constexpr int kMaxDepth = 8;
constexpr size_t kMaxCards = 1024;

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == text.npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::vector<std::string_view> Lines(std::string_view text) {
  std::vector<std::string_view> lines = Split(text, '\n');
  std::erase_if(lines, [](std::string_view line) { return line.size() > kMaxLine; });
  return lines;
}

// ---- tables

struct Word {
  std::string_view text;
  int begin, end;  // columns within the cell
};

std::vector<Word> Words(std::string_view cell) {
  std::vector<Word> words;
  int column = 0;
  size_t begin = 0;
  bool inside = false;
  for (size_t i = 0; i < cell.size(); ++i) {
    if ((static_cast<unsigned char>(cell[i]) & 0xc0) != 0x80) ++column;  // one for each UTF-8 character
    const bool space = cell[i] == ' ' || cell[i] == '\t';
    if (!space && !inside) {
      begin = i;
      words.push_back({{}, column - 1, column});
    }
    inside = !space;
    if (!inside) continue;
    words.back().text = cell.substr(begin, i + 1 - begin);
    words.back().end = column;
  }
  return words;
}

char SeparatorOf(std::string_view line) {
  if (line.find('|') != line.npos) return '|';
  return line.find(',') != line.npos ? ',' : '\0';
}

std::vector<std::string_view> Cells(std::string_view line, char separator) {
  if (separator == '\0') return {line};
  std::vector<std::string_view> cells = Split(line, separator);
  if (separator != '|') return cells;
  if (Trim(cells.front()).empty()) cells.erase(cells.begin());  // what lies outside the frame
  if (!cells.empty() && Trim(cells.back()).empty()) cells.pop_back();
  return cells;
}

bool IsRule(std::string_view line) {
  return !Trim(line).empty() && line.find_first_not_of("+-=|* \t") == line.npos;
}

// The lines of text that head a table, and how their cells are told apart. A card has as many lines as the header.
struct Header {
  char separator = '\0';
  size_t cells = 0;
  std::vector<std::vector<std::string_view>> rows;  // [line][cell]
  size_t end = 0;                                   // the line behind it
};

bool HasKey(const Header& header, bool (*is_key)(std::string_view)) {
  for (const auto& row : header.rows) {
    for (const std::string_view cell : row) {
      const auto words = header.separator == ',' ? std::vector<Word>{{cell, 0, 0}} : Words(cell);
      if (std::any_of(words.begin(), words.end(), [&](const Word& word) { return is_key(word.text); })) return true;
    }
  }
  return false;
}

// The header that line `i` belongs to: in a frame, all lines around it with as many cells.
Header HeaderAt(const std::vector<std::string_view>& lines, size_t i) {
  Header header;
  header.separator = SeparatorOf(lines[i]);
  header.cells = Cells(lines[i], header.separator).size();
  size_t begin = i;
  header.end = i + 1;
  if (header.separator == '|') {
    const auto alike = [&](std::string_view line) {
      return !IsRule(line) && SeparatorOf(line) == '|' && Cells(line, '|').size() == header.cells;
    };
    while (begin > 0 && i - begin < kMaxHeaderRows && alike(lines[begin - 1])) --begin;
    while (header.end < lines.size() && header.end - i < kMaxHeaderRows && alike(lines[header.end])) ++header.end;
  }
  for (size_t row = begin; row < header.end; ++row) header.rows.push_back(Cells(lines[row], header.separator));
  return header;
}

// Each word goes to the word of the header that it stands under, or is nearest to. One that stands under none and is
// only a space away from the word before goes where that went: names are longer than their header.
void AddWordsUnder(std::string_view header_cell, std::string_view cell, Record* record) {
  const std::vector<Word> keys = Words(header_cell);
  if (keys.empty()) return;
  std::vector<std::string> values(keys.size());
  size_t key = 0;
  int last_end = INT_MIN;
  for (const Word& word : Words(cell)) {
    size_t best = 0;
    int best_overlap = INT_MIN;  // negative: the gap between them
    for (size_t k = 0; k < keys.size(); ++k) {
      const int overlap = std::min(word.end, keys[k].end) - std::max(word.begin, keys[k].begin);
      if (overlap > best_overlap) best = k, best_overlap = overlap;
    }
    if (best_overlap > 0 || word.begin != last_end + 1) key = best;
    last_end = word.end;
    values[key] += (values[key].empty() ? "" : " ") + std::string(word.text);
  }
  for (size_t k = 0; k < keys.size(); ++k) record->push_back({"", std::string(keys[k].text), values[k]});
}

bool HasIndex(const Record& record) {
  return std::any_of(record.begin(), record.end(),
                     [](const Field& field) { return IsIndexKey(field.key) && ParseIndex(field.value); });
}

std::vector<Record> ReadRows(const Header& header, const std::vector<std::string_view>& lines) {
  std::vector<Record> records;
  size_t row = 0;  // of the card
  for (size_t i = header.end; i < lines.size(); ++i) {
    if (IsRule(lines[i])) {
      if (row != 0) records.pop_back();  // a line of it is missing, and nobody knows which
      row = 0;
      continue;
    }
    const auto cells = Cells(lines[i], header.separator);
    if (cells.size() != header.cells) continue;
    Record fields;
    for (size_t c = 0; c < cells.size(); ++c) {
      const std::string_view head = header.rows[row][c];
      if (header.separator == ',') {
        fields.push_back({"", std::string(head), Trim(cells[c])});
      } else {
        AddWordsUnder(head, cells[c], &fields);
      }
    }
    if (row == 0 && !HasIndex(fields)) continue;
    if (row == 0) records.emplace_back();
    records.back().insert(records.back().end(), fields.begin(), fields.end());
    row = (row + 1) % header.rows.size();
  }
  return records;
}

std::vector<Record> ReadTable(const std::vector<std::string_view>& lines) {
  int headers = 0;
  for (size_t i = 0; i < lines.size() && headers < kMaxHeaders; ++i) {
    if (IsRule(lines[i])) continue;
    const Header header = HeaderAt(lines, i);
    if (header.rows.size() > kMaxHeaderRows || !HasKey(header, IsPowerKey) || !HasKey(header, IsIndexKey)) continue;
    ++headers;
    auto records = ReadRows(header, lines);
    if (!records.empty()) return records;
  }
  return {};
}

// ---- lists

// The card that a heading like "DEV ID 0" or "XPU 00000000:01:00.0" opens.
std::optional<int> HeadingIndex(std::string_view line, size_t place) {
  const auto words = Words(line);
  if (words.size() < 2 || words.size() > 3 || !IsIndexKey(words[0].text)) return std::nullopt;
  const std::string_view last = words.back().text;
  if (last[0] < '0' || last[0] > '9') return std::nullopt;
  return ParseIndex(last).value_or(static_cast<int>(place));
}

std::vector<Record> ReadList(const std::vector<std::string_view>& lines) {
  std::vector<Record> records;
  bool headed = false;
  const auto open = [&](int index) {
    if (!headed) records.clear();  // what stood above the first card
    headed = true;
    records.push_back({{"", "index", std::to_string(index)}});
  };
  for (const std::string_view line : lines) {
    const size_t colon = line.find(": ");
    if (colon == line.npos) {
      if (const auto index = HeadingIndex(line, headed ? records.size() : 0)) open(*index);
      continue;
    }
    const std::string key = Trim(line.substr(0, colon)), value = Trim(line.substr(colon + 2));
    const bool has_id = key == "NPU ID" || key == "GPU ID" || key == "Card ID" || key == "Index";
    if (const auto index = has_id ? ParseIndex(value) : std::nullopt) {
      open(*index);
      continue;
    }
    if (records.empty()) records.emplace_back();
    const auto is_chip = [](const Field& field) { return IsChipKey(field.key); };
    if (is_chip({"", key, ""}) && std::any_of(records.back().begin(), records.back().end(), is_chip)) {
      const Field first = records.back().front();
      records.push_back(first.key == "index" ? Record{first} : Record{});  // the next chip of the same card
    }
    records.back().push_back({"", key, value});
  }
  std::erase_if(records, [](const Record& record) {
    return std::none_of(record.begin(), record.end(), [](const Field& field) { return IsPowerKey(field.key); });
  });
  return records;
}

// ---- rows of bare quantities, as scripts cut them out of tables

std::vector<Record> ReadBareRows(const std::vector<std::string_view>& lines) {
  std::vector<Record> records;
  for (const std::string_view line : lines) {
    Record record = {{"", "index", std::to_string(records.size())}};
    int powers = 0;
    bool bare = true;
    for (const Word& word : Words(line)) {
      const size_t digits = std::min(word.text.find_first_not_of("0123456789.,"), word.text.size());
      const std::string_view unit = word.text.substr(digits);
      bare &= digits > 0 && (unit == "W" || unit == "C" || unit == "%" || unit == "MiB" || unit == "MHz");
      powers += unit == "W";
      if (unit == "W") record.push_back({"", "Power", std::string(word.text)});
      if (unit == "C") record.push_back({"", "Temp", std::string(word.text)});
    }
    if (bare && powers == 1) records.push_back(std::move(record));
  }
  return records;
}

// ---- JSON

// Where a JSON document begins: at a line, behind what a tool warns of.
size_t JsonBegin(std::string_view text) {
  for (size_t i = 0; i != text.npos; i = text.find('\n', i)) {
    i = text.find_first_not_of(" \t\n", i);
    if (i == text.npos || text[i] == '{') return i;
    const size_t next = text.find_first_not_of(" \t\n", i + 1);
    if (text[i] == '[' && next != text.npos && text[next] == '{') return i;
  }
  return text.npos;
}

std::string ValueText(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number()) return value.dump();
  if (value.is_object() && value.contains("value")) {  // {"value": 139, "unit": "W"}
    const Json& number = value["value"];
    const Json unit = value.value("unit", Json());
    if (number.is_primitive()) return ValueText(number) + " " + (unit.is_string() ? ValueText(unit) : "");
  }
  return "";
}

void Flatten(const Json& object, const std::string& group, int depth, Record* record) {
  for (const auto& [key, value] : object.items()) {
    if (value.is_object() && !value.contains("value")) {
      if (depth < kMaxDepth) Flatten(value, key, depth + 1, record);
    } else {
      record->push_back({group, key, Trim(ValueText(value))});
    }
  }
}

// Cards are objects that say their number, or members named after it: "card0".
void ReadJson(const Json& node, int depth, std::vector<Record>* records) {
  if (depth > kMaxDepth) return;
  if (node.is_object()) {
    Record own;
    for (const auto& [key, value] : node.items()) own.push_back({"", key, ValueText(value)});
    if (HasIndex(own)) {
      records->emplace_back();
      Flatten(node, "", 0, &records->back());
      return;
    }
  }
  for (const auto& [key, value] : node.items()) {
    if (value.is_object() && node.is_object() && ParseIndex(key)) {
      records->push_back({{"", "index", key}});
      Flatten(value, "", 0, &records->back());
    } else if (value.is_structured()) {
      ReadJson(value, depth + 1, records);
    }
  }
}

// What to say of an output in which no card shows a power.
std::string NothingFound(const std::string& text, const std::vector<CardPower>& cards) {
  if (Trim(text).empty()) return "it printed nothing";
  if (cards.empty()) return "no card with a power is in its output, which begins \"" + FirstLine(text) + "\"";
  std::set<std::string> names;
  for (const CardPower& card : cards) names.insert(FirstLine(card.name));
  std::string what =
      fmt::format("it lists {} ({}), none with a power",
                  cards.size() == 1 ? "one chip" : fmt::format("{} chips", cards.size()), fmt::join(names, ", "));
  if (cards[0].name.starts_with("310P")) {
    what +=
        "; a 310P does not report the power of its chips: the board's is read from its MCU (`npu-smi info -m` shows "
        "the MCU's chip number, `npu-smi info -t power -i NPU -c CHIP` its power)";
  }
  return what;
}

}  // namespace

Result<std::vector<CardPower>> ParseCardPowers(const std::string& printed) {
  using Answer = Result<std::vector<CardPower>>;
  const std::string text = PlainText(printed);
  const auto lines = Lines(text);
  std::vector<Record> records;
  if (const size_t begin = JsonBegin(text); begin != std::string::npos) {
    const size_t end = text.find_last_of("]}");
    const Json document = Json::parse(text.begin() + static_cast<long>(begin),
                                      text.begin() + static_cast<long>(std::max(begin, end) + 1), nullptr, false);
    if (document.is_discarded()) return Answer::Fail("its JSON is broken or was cut short");
    ReadJson(document, 0, &records);
  } else {
    for (const auto read : {ReadTable, ReadList, ReadBareRows}) {
      if (records.empty()) records = read(lines);
    }
  }
  if (records.size() > kMaxCards) return Answer::Fail(fmt::format("it lists more than {} cards", kMaxCards));
  std::vector<CardPower> cards;
  for (const Record& record : records) cards.push_back(ReadFields(record));
  if (std::none_of(cards.begin(), cards.end(), [](const CardPower& card) { return card.watts.has_value(); })) {
    return Answer::Fail(NothingFound(text, cards));
  }
  return cards;
}

}  // namespace assay::bench
