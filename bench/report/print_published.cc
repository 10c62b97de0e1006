// SPDX-License-Identifier: Apache-2.0
#include "bench/report/print_published.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <ostream>

#include "bench/claims/published_gap.h"
#include "bench/report/table.h"
#include "bench/stats/format.h"

namespace assay::bench {
namespace {

constexpr size_t kWidth = 110;
constexpr char kIndent[] = "  ";

std::string Whole(double value) {
  return fmt::format("{:.0f}", value);
}

const char* NameOf(const std::string& metric) {
  if (metric == "mean_w") return "power";
  if (metric == "gemm_tflops") return "matrix product";
  if (metric == "copy_gbps") return "copy";
  if (metric == "read_gbps") return "read";
  return "output";
}

// "output, Llama-3.1-8B FP8/FP8, 128 + 2048 tokens, batch 8".
std::string Label(const Published& r) {
  std::string text = NameOf(r.metric);
  if (!r.model.empty()) text += ", " + r.model;
  if (!r.precision.empty()) text += (r.model.empty() ? ", " : " ") + r.precision;
  if (r.osl) text += ", " + (r.isl ? Whole(*r.isl) : "?") + " + " + Whole(*r.osl);
  if (r.concurrency) text += ", batch " + Whole(*r.concurrency);
  if (r.count && *r.count != 1) text += fmt::format(", {:g} cards", *r.count);
  return text;
}

std::string Amount(double value, const std::string& unit) {
  return unit == "tok/s" || unit == "W" ? FormatNumber(value, 3) + " " + unit : FormatScaled(value, unit);
}

void PrintLine(const std::string& text, std::ostream& out) {
  const std::string wrapped = Wrap(Printable(text), kWidth, std::string(kIndent) + kIndent);
  out << wrapped.substr(sizeof kIndent - 1);
}

// Texts that several rows share, numbered in the order of their first use.
class Footnotes {
 public:
  std::string Mark(const std::string& text) {
    const auto at = std::find(texts_.begin(), texts_.end(), text);
    const auto number = at - texts_.begin() + 1;
    if (at == texts_.end()) texts_.push_back(text);
    return fmt::format("[{}]", number);
  }
  void Print(std::ostream& out) const {
    for (size_t i = 0; i < texts_.size(); ++i) PrintLine(fmt::format("[{}] {}", i + 1, texts_[i]), out);
  }

 private:
  std::vector<std::string> texts_;
};

}  // namespace

void PrintPublished(const std::vector<const Published*>& results, std::ostream& out) {
  Table table({Align::kLeft, Align::kRight, Align::kRight, Align::kRight, Align::kLeft, Align::kLeft});
  Footnotes notes;
  const std::vector<std::string> header = {"per card", "published", "claimed", "of the claim", "confidence", "sources"};
  std::map<std::string, std::vector<std::string>> refused;  // why, which
  for (const Published* r : results) {
    const PublishedGap answer = GapOfPublished(*r);
    if (!answer.gap) {
      refused[answer.why_not].push_back(r->id);
      continue;
    }
    if (table.empty()) table.AddRow(header);
    const Gap& gap = *answer.gap;
    const std::string published = notes.Mark("published: " + r->engine + (r->engine.empty() ? "" : ", ") + r->source +
                                             (r->date.empty() ? "" : ", ") + r->date);
    const std::string claimed =
        notes.Mark("claim: " + gap.claim + "; " + gap.provenance.confidence + "; " + gap.provenance.source);
    table.AddRow({Label(*r), Amount(gap.actual.value, gap.unit),
                  (answer.at_least ? "<= " : "") + Amount(gap.claimed, gap.unit),
                  (answer.at_least ? ">= " : "") + FormatPercent(gap.ratio.value), r->confidence, published + claimed});
  }
  out << (results.empty() ? "" : results[0]->card) << ": published by others, not reproduced here\n";
  if (!table.empty()) out << table.Render(kIndent);
  notes.Print(out);
  for (const auto& [why, ids] : refused) {
    PrintLine(fmt::format("- no ratio for {} {} ({}{}): {}", ids.size(), ids.size() == 1 ? "result" : "results", ids[0],
                          ids.size() > 1 ? ", ..." : "", why),
              out);
  }
}

}  // namespace assay::bench
