// SPDX-License-Identifier: Apache-2.0
// assay cards: what is claimed of accelerators, and by whom.
#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <map>

#include "bench/claims/host_peaks.h"
#include "bench/claims/published.h"
#include "bench/cli/commands.h"
#include "bench/report/table.h"
#include "bench/result/write.h"
#include "bench/stats/format.h"

namespace assay::cli {
namespace {

using bench::Card;
using bench::Figure;
using bench::Json;

constexpr size_t kWidth = 108;

struct Shown {
  const char *key, *name, *unit;
  double scale;  // of `unit`
};
constexpr Shown kShown[] = {{"memory_bytes", "memory", "GB", 1024.0 * 1024 * 1024},
                            {"bytes_per_s", "memory bandwidth", "GB/s", 1e9},
                            {"fp32", "FP32", "TFLOPS", 1e12},
                            {"tf32", "TF32", "TFLOPS", 1e12},
                            {"bf16", "BF16", "TFLOPS", 1e12},
                            {"fp16", "FP16", "TFLOPS", 1e12},
                            {"fp8", "FP8", "TFLOPS", 1e12},
                            {"fp4", "FP4", "TFLOPS", 1e12},
                            {"int8", "INT8", "TOPS", 1e12},
                            {"tdp_w", "power (TDP)", "W", 1},
                            {"link_bytes_per_s", "links, both ways", "GB/s", 1e9}};

const Shown& ShownOf(const std::string& key) {
  for (const Shown& shown : kShown) {
    if (key == shown.key) return shown;
  }
  ASSAY_CHECK(false);
  return kShown[0];
}

// "989", "-" (the card has no such precision) or "?" (nobody trustworthy says). Claims are round: no zeros are added.
std::string Value(const Figure* figure, const Shown& shown, int digits) {
  if (figure && figure->unsupported) return "-";
  if (!figure || !figure->value) return "?";
  std::string text = bench::FormatNumber(bench::DenseValue(*figure) / shown.scale, digits);
  if (text.find('.') != std::string::npos) {
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') text.pop_back();
  }
  return text;
}

std::string Confidence(const Card& card) {
  for (const char* key : {"fp16", "bf16", "fp8", "memory_bytes"}) {
    const Figure* figure = card.Find(key);
    if (figure && figure->value) return figure->confidence;
  }
  return "?";
}

void PrintAll() {
  const std::vector<const char*> keys = {"memory_bytes", "bytes_per_s", "bf16", "fp16", "fp8", "int8", "tdp_w"};
  using bench::Align;
  std::vector<Align> columns(keys.size() + 2, Align::kRight);
  columns.front() = columns.back() = Align::kLeft;
  bench::Table table(columns);
  table.AddRow({"card", "GB", "GB/s", "BF16", "FP16", "FP8", "INT8", "W", "confidence"});
  for (const Card& card : bench::Cards()) {
    std::vector<std::string> row = {card.name};
    for (const char* key : keys) row.push_back(Value(card.Find(key), ShownOf(key), 4));
    row.push_back(Confidence(card));
    table.AddRow(row);
  }
  std::cout << table.Render("") << "\n"
            << bench::Wrap(
                   "BF16, FP16, FP8: TFLOPS, INT8: TOPS, all dense, as claimed. ? not known; - not supported. "
                   "Confidence: of the FP16 figure, else of BF16, FP8 or the memory. `assay cards NAME` shows "
                   "every figure with its source, `assay cards host` this machine.",
                   kWidth, "");
}

void PrintList(const char* title, const std::vector<std::string>& texts) {
  if (texts.empty()) return;
  std::cout << "\n" << title << "\n";
  for (const std::string& text : texts) {
    std::string lines = bench::Wrap(text, kWidth, "    ");
    lines[2] = '-';
    std::cout << lines;
  }
}

// A line per figure, with its confidence and the number of its source, and what is to be said of it below; the sources
// follow at the end.
class FigureList {
 public:
  void Print(const char* name, const std::string& value, const std::string& unit, const Figure* figure) {
    std::string line = fmt::format("  {:<17}{:>8} {:<6}", name, value, value == "?" || value == "-" ? "" : unit);
    if (figure && !figure->confidence.empty()) line += fmt::format("  {:<18}", figure->confidence);
    if (figure && !figure->source.empty()) line += fmt::format("  [{}]", Number(*figure));
    line.erase(line.find_last_not_of(' ') + 1);
    std::cout << line << "\n";
    if (figure && !figure->note.empty()) std::cout << bench::Wrap(figure->note, kWidth, "      ");
  }
  void PrintSources() const {
    if (!sources_.empty()) std::cout << "\nsources\n";
    for (size_t i = 0; i < sources_.size(); ++i) {
      std::string lines = bench::Wrap(sources_[i], kWidth, "       ");
      const std::string number = fmt::format("{:>5}", fmt::format("[{}]", i + 1));
      std::cout << lines.replace(0, number.size(), number);
    }
  }

 private:
  size_t Number(const Figure& figure) {
    const std::string text = figure.source + (figure.date.empty() ? "" : " (" + figure.date + ")");
    const auto found = std::find(sources_.begin(), sources_.end(), text);
    if (found != sources_.end()) return static_cast<size_t>(found - sources_.begin()) + 1;
    sources_.push_back(text);
    return sources_.size();
  }

  std::vector<std::string> sources_;
};

void PrintFigures(const Card& card, int digits, FigureList* list) {
  for (const Shown& shown : kShown) {
    const Figure* figure = card.Find(shown.key);
    if (figure || card.id != bench::kHostCardId)
      list->Print(shown.name, Value(figure, shown, digits), shown.unit, figure);
  }
}

void PrintPublished(const Card& card) {
  std::map<std::string, int> metrics;
  for (const bench::Published* result : bench::PublishedOf(card.id)) ++metrics[result->metric];
  std::string text;
  int n = 0;
  for (const auto& [metric, count] : metrics) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, metric);
    n += count;
  }
  std::cout << "\n"
            << bench::Wrap(n == 0 ? "published results of others: none"
                                  : fmt::format("published results of others: {} ({})", n, text),
                           kWidth, "");
}

void PrintCard(const Card& card) {
  std::cout << fmt::format("{} ({})\n", card.name, card.id);
  if (card.devices > 1) {
    std::cout << fmt::format("shows up as {} devices; the figures are those of the whole card\n", card.devices);
  }
  std::cout << "\nclaimed, dense (? not known, - not supported)\n";
  FigureList figures;
  PrintFigures(card, 5, &figures);
  figures.Print("process", card.process.empty() ? "?" : card.process, "", &card.process_origin);
  PrintList("advertised", card.claims);
  PrintList("where sources disagree", card.conflicts);
  PrintList("measured by others", card.measured);
  PrintPublished(card);
  figures.PrintSources();
}

void PrintHost(const bench::HostPeaks& host) {
  std::cout << bench::Printable(host.card.name) << "\n"
            << bench::Wrap(host.scope, kWidth, "") << "\nderived peaks (? not known, - not supported)\n";
  FigureList figures;
  PrintFigures(host.card, 3, &figures);
  figures.PrintSources();
}

Json Text(const std::string& text) {
  return text.empty() ? Json() : Json(text);
}

Json FigureJson(const Figure& figure) {
  return {{"value", figure.value ? Json(*figure.value) : Json()},
          {"supported", figure.unsupported ? Json(false)
                        : figure.value     ? Json(true)
                                           : Json()},
          {"sparse", figure.sparse},
          {"source", Text(figure.source)},
          {"date", Text(figure.date)},
          {"confidence", Text(figure.confidence)},
          {"note", Text(figure.note)}};
}

Json CardJson(const Card& card) {
  Json figures = Json::object();
  for (const auto& [key, figure] : card.figures) figures[key] = FigureJson(figure);
  return {{"id", card.id},
          {"name", card.name},
          {"vendor", card.vendor},
          {"devices", card.devices},
          {"figures", figures},
          {"process", Text(card.process)},
          {"claims", card.claims},
          {"conflicts", card.conflicts},
          {"measured", card.measured},
          {"published_results", bench::PublishedOf(card.id).size()}};
}

int RunCards(const std::string& name, bool json) {
  if (name == bench::kHostCardId) {
    const bench::HostPeaks host = bench::DeriveHostPeaks(bench::ReadHostTopology());
    if (json) {
      Json document = CardJson(host.card);
      document["scope"] = host.scope;
      std::cout << bench::Dump(document) << std::endl;
    } else {
      PrintHost(host);
    }
  } else if (!name.empty()) {
    const Card& card = bench::FindCard(name);
    if (json) {
      std::cout << bench::Dump(CardJson(card)) << std::endl;
    } else {
      PrintCard(card);
    }
  } else if (json) {
    Json list = Json::array();
    for (const Card& card : bench::Cards()) list.push_back(CardJson(card));
    std::cout << bench::Dump({{"cards", list}}) << std::endl;
  } else {
    PrintAll();
  }
  return 0;
}

}  // namespace

void AddCards(CLI::App& app, Run* run) {
  CLI::App* command = app.add_subcommand("cards", "What is claimed of accelerators, by whom, and how sure that is");
  auto name = std::make_shared<std::string>();
  auto json = std::make_shared<bool>(false);
  command->add_option("NAME", *name,
                      "A card by id or name (h100, \"RTX 4090\"), or host: the derived peaks of this CPU");
  command->add_flag("--json", *json, "One JSON document on standard output");
  command->callback([=] { *run = [=] { return RunCards(*name, *json); }; });
}

}  // namespace assay::cli
