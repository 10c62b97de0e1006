// SPDX-License-Identifier: Apache-2.0
#include "bench/claims/cards.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <numeric>
#include <regex>
#include <set>

#include "bench/claims/data_files.h"
#include "runtime/core/error.h"

namespace assay::bench {
namespace {

constexpr double kGiB = 1024.0 * 1024 * 1024;

struct FileKey {
  const char *in_file, *key;
  double scale;      // to SI units
  double low, high;  // what a card of this decade can have, in the file's unit: catches a slipped digit or unit
};
constexpr FileKey kFileKeys[] = {
    {"memory_gib", "memory_bytes", kGiB, 8, 2048},   {"bandwidth_gb_s", "bytes_per_s", 1e9, 50, 50e3},
    {"fp32_tflops", "fp32", 1e12, 1, 5e3},           {"tf32_tflops", "tf32", 1e12, 1, 20e3},
    {"bf16_tflops", "bf16", 1e12, 1, 50e3},          {"fp16_tflops", "fp16", 1e12, 1, 50e3},
    {"fp8_tflops", "fp8", 1e12, 1, 100e3},           {"fp4_tflops", "fp4", 1e12, 1, 200e3},
    {"int8_tops", "int8", 1e12, 1, 100e3},           {"tdp_w", "tdp_w", 1, 20, 5e3},
    {"link_gb_s", "link_bytes_per_s", 1e9, 10, 10e3}};

constexpr const char* kConfidences[] = {"vendor",   "vendor-tool", "vendor-text", "vendor-transcribed",
                                        "captured", "derived",     "secondary",   "vendor-reproduced",
                                        "press",    "estimate",    "low"};

// Reads the tables of one file; every complaint names the file and the place.
class CardReader {
 public:
  explicit CardReader(std::string file) : file_(std::move(file)) {}

  std::vector<Card> Read(const std::string& text) {
    toml::table root;
    try {
      root = toml::parse(text);
    } catch (const toml::parse_error& e) {
      place_ = fmt::format("line {}", e.source().begin.line);
      Complain(std::string(e.description()));
    }
    OnlyKeys(root, {"vendor", "sources", "card"});
    const std::string vendor = Text(root, "vendor");
    const toml::table* sources = root["sources"].as_table();
    const toml::array* list = root["card"].as_array();
    if (!sources || !list) Complain("needs a table [sources] and cards [[card]]");
    sources_ = sources;
    std::vector<Card> cards;
    for (const toml::node& node : *list) {
      if (!node.is_table()) Complain("a card must be a table [[card]]");
      cards.push_back(ReadCard(*node.as_table()));
      cards.back().vendor = vendor;
    }
    for (const auto& [key, value] : *sources_) {
      if (!used_.count(std::string(key.str()))) Complain(fmt::format("no figure uses the source \"{}\"", key.str()));
    }
    return cards;
  }

 private:
  [[noreturn]] void Complain(const std::string& what) const {
    throw Error("card file " + file_ + (place_.empty() ? "" : ", " + place_) + ": " + what);
  }

  void OnlyKeys(const toml::table& table, const std::set<std::string>& known) const {
    for (const auto& [key, value] : table) {
      if (!known.count(std::string(key.str()))) Complain(fmt::format("unknown field \"{}\"", key.str()));
    }
  }

  // "" if it is not there and may be missing.
  std::string Text(const toml::table& table, const char* key, bool optional = false) const {
    if (optional && !table.contains(key)) return "";
    const auto text = table[key].value_exact<std::string>();
    if (!text || text->empty()) Complain(fmt::format("\"{}\" must be a text", key));
    return *text;
  }

  std::vector<std::string> Texts(const toml::table& table, const char* key) const {
    std::vector<std::string> texts;
    if (!table.contains(key)) return texts;
    const toml::array* array = table[key].as_array();
    if (!array) Complain(fmt::format("\"{}\" must be a list of texts", key));
    for (const toml::node& node : *array) {
      const auto text = node.value_exact<std::string>();
      if (!text || text->empty()) Complain(fmt::format("\"{}\" must be a list of texts", key));
      texts.push_back(*text);
    }
    return texts;
  }

  // All but the value.
  Figure Origin(const toml::table& table, bool known) {
    OnlyKeys(table, {"value", "source", "confidence", "note", "sparse"});
    Figure figure;
    figure.note = Text(table, "note", true);
    const std::string source = Text(table, "source", !known);
    if (!source.empty()) {
      const toml::table* entry = (*sources_)[source].as_table();
      if (!entry) Complain("there is no source \"" + source + "\"");
      used_.insert(source);
      OnlyKeys(*entry, {"text", "date"});
      figure.source = Text(*entry, "text");
      figure.date = Text(*entry, "date", true);
    }
    if (!known) return figure;
    figure.confidence = Text(table, "confidence");
    if (!std::count(std::begin(kConfidences), std::end(kConfidences), figure.confidence)) {
      Complain(fmt::format("confidence \"{}\" is none of: {}", figure.confidence, fmt::join(kConfidences, ", ")));
    }
    return figure;
  }

  Figure ReadFigure(const toml::table& table, const FileKey& key) {
    const auto word = table["value"].value_exact<std::string>();
    const auto number = table["value"].value<double>();
    if (word ? *word != "none" && *word != "unknown" : !number) {
      Complain("\"value\" must be a number, \"none\" or \"unknown\"");
    }
    Figure figure = Origin(table, word != "unknown");
    figure.unsupported = word == "none";
    figure.sparse = table["sparse"].value_or(false);
    if (number) {
      if (!(*number >= key.low && *number <= key.high)) {
        Complain(fmt::format("{} is not between {} and {}: a wrong unit?", *number, key.low, key.high));
      }
      figure.value = *number * key.scale;
    }
    return figure;
  }

  Card ReadCard(const toml::table& table) {
    Card card;
    place_ = "";
    card.id = Text(table, "id");
    place_ = "card " + card.id;
    std::set<std::string> known = {"id", "name", "devices", "match", "process", "claims", "conflicts", "measured"};
    for (const FileKey& key : kFileKeys) known.insert(key.in_file);
    OnlyKeys(table, known);
    card.name = Text(table, "name");
    card.devices = table["devices"].value_or(1);
    if (card.devices < 1 || card.devices > 16) Complain("\"devices\" must be between 1 and 16");
    card.match = Texts(table, "match");
    card.claims = Texts(table, "claims");
    card.conflicts = Texts(table, "conflicts");
    card.measured = Texts(table, "measured");
    for (const FileKey& key : kFileKeys) {
      if (!table.contains(key.in_file)) continue;
      place_ = "card " + card.id + ", " + key.in_file;
      if (!table[key.in_file].is_table()) Complain("must be a table { value = ... }");
      card.figures[key.key] = ReadFigure(*table[key.in_file].as_table(), key);
    }
    place_ = "card " + card.id + ", process";
    if (const toml::table* process = table["process"].as_table()) {
      const std::string value = Text(*process, "value");
      if (value != "unknown") card.process = value;
      card.process_origin = Origin(*process, value != "unknown");
    }
    place_ = "";
    return card;
  }

  std::string file_, place_;
  const toml::table* sources_ = nullptr;
  std::set<std::string> used_;
};

std::vector<Card> ReadAll() {
  std::vector<Card> cards;
  for (const DataFile& file : CardFiles()) {
    for (Card& card : ParseCards(file.name, file.text)) cards.push_back(std::move(card));
  }
  std::sort(cards.begin(), cards.end(),
            [](const Card& a, const Card& b) { return std::tie(a.vendor, a.name) < std::tie(b.vendor, b.name); });
  for (size_t i = 0; i < cards.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (cards[i].id == cards[j].id) throw Error("card files: two cards have the id \"" + cards[i].id + "\"");
    }
  }
  return cards;
}

// Words of letters and digits in lower case: "H20-141G (SXM)" -> {"h20", "141g", "sxm"}.
std::vector<std::string> Words(const std::string& text) {
  std::vector<std::string> words(1);
  for (const unsigned char c : text) {
    if (std::isalnum(c)) {
      words.back() += static_cast<char>(std::tolower(c));
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

std::string Joined(const std::string& text) {
  return fmt::format("{}", fmt::join(Words(text), ""));
}

size_t EditDistance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

// How far a card is from what somebody typed: the best of its id, its name and the words of both.
size_t Distance(const Card& card, const std::string& typed) {
  size_t best = std::min(EditDistance(typed, Joined(card.id)), EditDistance(typed, Joined(card.name)));
  for (const std::string& word : Words(card.id + " " + card.name)) best = std::min(best, EditDistance(typed, word));
  return best;
}

std::string Ids(const std::vector<const Card*>& cards) {
  std::vector<std::string> ids;
  for (const Card* card : cards) ids.push_back(card->id);
  return fmt::format("{}", fmt::join(ids, ", "));
}

std::string Gib(double bytes) {
  return fmt::format("{:.0f} GB", bytes / kGiB);
}

// Drivers keep some memory to themselves, and ECC takes up to an eighth of GDDR. A device that shows the whole memory
// of a card of several devices does not fit: the card's figures would be divided among devices that are not there.
bool MemoryFits(const Card& card, uint64_t memory_bytes) {
  const Figure* claimed = card.Find("memory_bytes");
  if (!claimed || !claimed->value || memory_bytes == 0) return true;
  const double share = static_cast<double>(memory_bytes) * card.devices / *claimed->value;
  return share > 0.85 && share < 1.03;
}

bool NameFits(const Card& card, const std::string& name) {
  return std::any_of(card.match.begin(), card.match.end(), [&](const std::string& pattern) {
    return std::regex_search(name, std::regex(pattern, std::regex::icase));
  });
}

}  // namespace

std::vector<Card> ParseCards(const std::string& file, const std::string& text) {
  return CardReader(file).Read(text);
}

double DenseValue(const Figure& figure) {
  ASSAY_CHECK(figure.value);
  return figure.sparse ? *figure.value / 2 : *figure.value;
}

const Figure* Card::Find(const std::string& key) const {
  const auto found = figures.find(key);
  return found == figures.end() ? nullptr : &found->second;
}

const std::vector<Card>& Cards() {
  static const std::vector<Card> cards = ReadAll();
  return cards;
}

const Card& FindCard(const std::string& id_or_name) {
  const std::string typed = Joined(id_or_name);
  const std::vector<std::string> wanted = Words(id_or_name);
  std::vector<const Card*> having;  // every word that was typed
  for (const Card& card : Cards()) {
    if (typed == Joined(card.id) || typed == Joined(card.name)) return card;
    const std::vector<std::string> words = Words(card.id + " " + card.name);
    if (std::all_of(wanted.begin(), wanted.end(),
                    [&](const std::string& w) { return std::count(words.begin(), words.end(), w); })) {
      having.push_back(&card);
    }
  }
  if (wanted.empty()) throw Error("no name of a card was given; `assay cards` lists them");
  if (having.size() == 1) return *having[0];
  if (!having.empty()) {
    throw Error(fmt::format("\"{}\" fits {} cards: {}; give one of these ids", id_or_name, having.size(), Ids(having)));
  }
  std::vector<std::pair<size_t, const Card*>> near;
  for (const Card& card : Cards()) {
    const size_t distance = Distance(card, typed);
    if (distance <= std::max<size_t>(1, typed.size() / 3)) near.emplace_back(distance, &card);
  }
  std::stable_sort(near.begin(), near.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<const Card*> nearest;
  for (size_t i = 0; i < near.size() && i < 5; ++i) nearest.push_back(near[i].second);
  throw Error(fmt::format("no card is called \"{}\"{}; `assay cards` lists them", id_or_name,
                          nearest.empty() ? "" : " (near: " + Ids(nearest) + ")"));
}

CardMatch DetectCard(const std::string& device_name, uint64_t memory_bytes) {
  CardMatch match;
  std::vector<const Card*> named;
  for (const Card& card : Cards()) {
    if (!NameFits(card, device_name)) continue;
    named.push_back(&card);
    if (MemoryFits(card, memory_bytes)) match.candidates.push_back(&card);
  }
  const std::string called = "named '" + device_name + "'";
  const std::string memory = memory_bytes ? " with " + Gib(static_cast<double>(memory_bytes)) : "";
  if (named.empty()) {
    match.why = called + ", which no card of the database is";
    return match;
  }
  if (match.candidates.empty()) {
    match.candidates = named;
    match.why = fmt::format("{}, like {}, but{}: a part of a card, or another variant", called, Ids(named), memory);
    if (named.size() == 1) match.card = named[0];
    return match;
  }
  if (match.candidates.size() > 1) {
    match.why = fmt::format("{}{}, which may be any of {}", called, memory, Ids(match.candidates));
    return match;
  }
  match.card = match.candidates[0];
  const Figure* claimed = match.card->Find("memory_bytes");
  // A card whose memory nobody knows fits any: among several of the name that says nothing.
  match.sure = named.size() == 1 || (memory_bytes != 0 && claimed && claimed->value);
  match.why = called + memory;
  if (match.card->devices > 1) {
    match.why += fmt::format(", one of the {} devices that a card shows up as", match.card->devices);
  }
  if (!claimed || !claimed->value) match.why += "; how much memory the card has is not known";
  return match;
}

std::string PeakKey(const Card& card, assay_dtype weight_dtype) {
  // The first that the card does not rule out.
  const auto first = [&](std::initializer_list<const char*> keys) -> std::string {
    for (const char* key : keys) {
      const Figure* figure = card.Find(key);
      if (!figure || !figure->unsupported) return key;
    }
    return *(keys.end() - 1);
  };
  switch (weight_dtype) {
    case ASSAY_F32:
      return "fp32";
    case ASSAY_F16:
      return first({"fp16", "fp32"});
    case ASSAY_F8_E4M3:
    case ASSAY_F8_E5M2:
    case ASSAY_F8_B128:
      return first({"fp8", "bf16", "fp16", "fp32"});
    case ASSAY_I8:
      return first({"int8", "fp32"});
    case ASSAY_Q8_0:
    case ASSAY_Q4_0:
    case ASSAY_Q4_1:
    case ASSAY_Q5_0:
    case ASSAY_Q5_1:
    case ASSAY_Q4_K:
    case ASSAY_Q5_K:
    case ASSAY_Q6_K:
    case ASSAY_I4_G128: {
      if (card.id == kHostCardId) return first({"int8", "fp32"});
      const Figure *fp16 = card.Find("fp16"), *bf16 = card.Find("bf16");
      return !(fp16 && fp16->value) && bf16 && bf16->value ? "bf16" : "fp16";
    }
    default:
      return first({"bf16", "fp32"});
  }
}

}  // namespace assay::bench
