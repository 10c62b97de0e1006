// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/command_meter.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "bench/power/meters/process.h"
#include "bench/power/meters/vendor_output.h"
#include "bench/power/meters/vendor_tools.h"

namespace assay::bench {
namespace {

constexpr double kPeriodS = 0.5;     // each reading costs the host a process
constexpr double kOpenLimitS = 5.0;  // tools that wake or list many cards take seconds

constexpr char kOtherMeters[] = "or use another meter (ipmi, redfish:URL, wall:FILE)";

// Some cards, read at one moment. t_s of the reading is not set.
struct Total {
  Reading reading;
  std::optional<double> limit_w;
  long parts = 0;  // chips that showed a power
};

using Call = std::function<Result<Total>(double limit_s)>;

class CommandMeter : public Meter {
 public:
  CommandMeter(MeterInfo info, Call call) : info_(std::move(info)), call_(std::move(call)) {}
  const MeterInfo& info() const override { return info_; }
  Result<std::vector<Reading>> Read() override {
    const double begin_s = NowSeconds();
    auto total = call_(std::max(2 * info_.period_s, 1.0));
    if (!total.ok()) return Result<std::vector<Reading>>::Fail(total.error());
    total.value().reading.t_s = (begin_s + NowSeconds()) / 2;
    return std::vector<Reading>{total.value().reading};
  }

 private:
  MeterInfo info_;
  Call call_;
};

// A tool that is slower than the usual period is read as often as it can.
void SetPeriod(const std::string& name, double call_s, MeterInfo* info) {
  info->period_s = std::max(kPeriodS, call_s);
  info->notes.push_back(
      fmt::format("each reading starts {} on the host (the first took {:.2g} s), so it is read only "
                  "every {:.2g} s",
                  name, call_s, info->period_s));
}

// ---- a vendor's tool

// Cards with the same number here are counted once. Below zero lie pairs, apart from the cards that count by
// themselves.
int BoardOf(const CardPower& card) {
  return SharesPowerWithNeighbour(card) ? -1 - card.index / 2 : card.index;
}

// A card whose chips are listed one by one shows its power with one of them, or a part of it with each. (An optional
// without a value is below any value, so std::max takes what is there.)
Result<CardPower> WholeCard(const std::vector<CardPower>& cards, int index) {
  using Answer = Result<CardPower>;
  std::optional<CardPower> found;
  for (const CardPower& chip : cards) {
    if (chip.index != index) continue;
    if (!found) {
      found = chip;
      continue;
    }
    if (chip.watts) found->watts = found->watts.value_or(0) + *chip.watts;
    if (chip.limit_w) found->limit_w = found->limit_w.value_or(0) + *chip.limit_w;
    found->temperature_c = std::max(found->temperature_c, chip.temperature_c);
  }
  if (!found) return Answer::Fail(fmt::format("card {} is not in its output", index));
  if (!found->watts) return Answer::Fail(fmt::format("card {} shows no power", index));
  if (*found->watts <= 0) return Answer::Fail(fmt::format("card {} shows 0 W, which no card draws", index));
  return *found;
}

Result<Total> AddUp(const std::vector<CardPower>& cards, const std::set<int>& chosen) {
  std::map<int, CardPower> boards;
  Reading reading;
  double clocks_mhz = 0;
  size_t clocks = 0;
  for (const int index : chosen) {
    const auto card = WholeCard(cards, index);
    if (!card.ok()) return Result<Total>::Fail(card.error());
    CardPower& board = boards.emplace(BoardOf(card.value()), card.value()).first->second;
    board.watts = std::max(board.watts, card.value().watts);
    reading.temperature_c = std::max(reading.temperature_c, card.value().temperature_c);
    if (card.value().clock_mhz) {
      ++clocks;
      clocks_mhz += *card.value().clock_mhz;
    }
  }
  if (clocks > 0) reading.clock_mhz = clocks_mhz / static_cast<double>(clocks);
  reading.watts = 0;
  std::optional<double> limit_w = 0;
  for (const auto& [number, board] : boards) {
    *reading.watts += *board.watts;
    limit_w = limit_w && board.limit_w ? std::optional(*limit_w + *board.limit_w) : std::nullopt;
  }
  const long parts = std::count_if(cards.begin(), cards.end(),
                                   [&](const CardPower& card) { return card.watts && chosen.contains(card.index); });
  return Total{reading, limit_w, parts};
}

std::set<int> CardsWithPower(const std::vector<CardPower>& cards) {
  std::set<int> found;
  for (const CardPower& card : cards) {
    if (card.watts) found.insert(card.index);
  }
  return found;
}

// "0,2"
Result<std::set<int>> ParseCards(const std::string& tool, const std::string& text) {
  std::set<int> cards;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string number = text.substr(begin, end - begin);
    const bool digits = !number.empty() && number.size() < 6 && number.find_first_not_of("0123456789") == number.npos;
    if (!digits) {
      return Result<std::set<int>>::Fail(
          fmt::format("cards are the numbers that {0} prints, separated by commas, for example {0}:0,2; \"{1}\" is not",
                      tool, text));
    }
    cards.insert(std::stoi(number));
    begin = end + 1;
  }
  return cards;
}

Result<std::vector<CardPower>> CallTool(const std::vector<std::string>& argv, double limit_s) {
  using Answer = Result<std::vector<CardPower>>;
  const auto output = RunProcess(argv, limit_s);
  if (!output.ok()) return Answer::Fail(output.error());
  auto cards = ParseCardPowers(output.value().out);
  if (cards.ok()) return cards;
  const std::string complaint = FirstLine(output.value().err);
  return Answer::Fail(argv[0] + ": " + cards.error() + (complaint.empty() ? "" : "; it says: " + complaint));
}

void DescribeCards(const std::string& tool, const std::vector<CardPower>& cards, const std::set<int>& chosen,
                   bool named, MeterInfo* info) {
  info->source = fmt::format("{}: card {}", tool, fmt::join(chosen, ", "));
  info->scope = "board";
  if (!named && chosen.size() > 1) {
    info->notes.push_back(fmt::format(
        "the watts are the sum of all {0} cards that show a power; where fewer did the work, name those, for "
        "example cmd:{1}:{2}",
        chosen.size(), tool, *chosen.begin()));
  }
  std::set<int> silent;
  for (const CardPower& card : cards) {
    if (!named && !chosen.contains(card.index)) silent.insert(card.index);
  }
  if (!silent.empty()) {
    info->notes.push_back(
        fmt::format("not in the sum, because no power is shown for it: card {}", fmt::join(silent, ", ")));
  }
  const bool shared = std::any_of(cards.begin(), cards.end(), [&](const CardPower& card) {
    return chosen.contains(card.index) && SharesPowerWithNeighbour(card);
  });
  if (shared) {
    info->notes.push_back(
        fmt::format("{} shows the same power for both devices of an MLU370-X8 and it is not documented "
                    "whether that is the card's or one device's: it is counted once per card, so the "
                    "card may draw up to twice as much",
                    tool));
  }
}

// One call, tried: the meter, or why this call does not serve.
Result<std::unique_ptr<Meter>> TryCall(const VendorTool& tool, const ToolCall& call, std::set<int> chosen) {
  using Answer = Result<std::unique_ptr<Meter>>;
  std::vector<std::string> argv = {tool.name};
  argv.insert(argv.end(), call.args.begin(), call.args.end());
  const double begin_s = NowSeconds();
  const auto cards = CallTool(argv, kOpenLimitS);
  const double call_s = NowSeconds() - begin_s;
  if (!cards.ok()) return Answer::Fail(cards.error());
  const std::set<int> shown = CardsWithPower(cards.value());
  const bool named = !chosen.empty();
  if (!named) chosen = shown;
  const auto total = AddUp(cards.value(), chosen);
  if (!total.ok()) {
    return Answer::Fail(
        fmt::format("{}: {}; cards that show one: {}", tool.name, total.error(), fmt::join(shown, ", ")));
  }
  MeterInfo info;
  info.averaging_s = call.averaging_s;
  info.limit_w = total.value().limit_w;
  DescribeCards(tool.name, cards.value(), chosen, named, &info);
  SetPeriod(tool.name, call_s, &info);
  const auto read = [argv, chosen, parts = total.value().parts](double limit_s) {
    const auto now = CallTool(argv, limit_s);
    if (!now.ok()) return Result<Total>::Fail(now.error());
    auto sum = AddUp(now.value(), chosen);
    if (!sum.ok()) return Result<Total>::Fail(argv[0] + ": " + sum.error());
    if (sum.value().parts == parts) return sum;
    return Result<Total>::Fail(
        fmt::format("{}: {} chips show a power where {} did at first", argv[0], sum.value().parts, parts));
  };
  return std::unique_ptr<Meter>(std::make_unique<CommandMeter>(std::move(info), read));
}

Result<std::unique_ptr<Meter>> OpenTool(const VendorTool& tool, const std::set<int>& chosen) {
  using Answer = Result<std::unique_ptr<Meter>>;
  const double begin_s = NowSeconds();
  std::string why;
  for (const ToolCall& call : tool.calls) {
    auto meter = TryCall(tool, call, chosen);
    if (meter.ok()) return meter;
    why = meter.error();
    if (NowSeconds() - begin_s >= kOpenLimitS) break;  // it hangs; another way to call it would, too
  }
  return Answer::Fail(fmt::format("{}; run {} by hand to see what it says, {}", why, tool.name, kOtherMeters));
}

// ---- a shell command

Result<Total> CallShell(const std::string& text, double limit_s) {
  using Answer = Result<Total>;
  const auto output = RunShell(text, limit_s);
  if (!output.ok()) return Answer::Fail(output.error());
  const std::string printed = Trim(PlainText(output.value().out));
  const auto watts = ParseWatts(printed);
  if (!watts || *watts <= 0) {
    const std::string line = FirstLine(printed);
    return Answer::Fail(fmt::format("`{}` must print one number of watts above 0 and nothing else, but it printed {}",
                                    FirstLine(text), line.empty() ? "nothing" : "\"" + line + "\""));
  }
  Total total;
  total.reading.watts = watts;
  return total;
}

Result<std::unique_ptr<Meter>> OpenShell(const std::string& text) {
  using Answer = Result<std::unique_ptr<Meter>>;
  const double begin_s = NowSeconds();
  const auto total = CallShell(text, kOpenLimitS);
  if (!total.ok()) {
    return Answer::Fail(fmt::format("{} (tools known by name: {})", total.error(), VendorToolNames()));
  }
  MeterInfo info;
  info.source = "command: " + FirstLine(text);
  info.notes.push_back("the watts are what a command of the user printed; what they cover is the user's word");
  SetPeriod("the command", NowSeconds() - begin_s, &info);
  return std::unique_ptr<Meter>(
      std::make_unique<CommandMeter>(std::move(info), [text](double limit_s) { return CallShell(text, limit_s); }));
}

}  // namespace

Result<std::unique_ptr<Meter>> OpenCommandMeter(const std::string& text) {
  using Answer = Result<std::unique_ptr<Meter>>;
  if (FirstLine(text).empty()) {
    return Answer::Fail("a tool or a shell command is missing; tools known by name: " + VendorToolNames());
  }
  const size_t colon = text.find(':');
  const VendorTool* tool = FindVendorTool(text.substr(0, colon));
  if (!tool) return OpenShell(text);
  if (colon == text.npos) return OpenTool(*tool, {});
  const auto chosen = ParseCards(tool->name, text.substr(colon + 1));
  if (!chosen.ok()) return Answer::Fail(chosen.error());
  return OpenTool(*tool, chosen.value());
}

}  // namespace assay::bench
