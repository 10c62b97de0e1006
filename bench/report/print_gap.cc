// SPDX-License-Identifier: Apache-2.0
#include "bench/report/print_gap.h"

#include <algorithm>
#include <cmath>
#include <ostream>

#include "bench/report/table.h"
#include "bench/stats/format.h"

namespace assay::bench {
namespace {

constexpr size_t kWidth = 100;
constexpr char kIndent[] = "  ";

std::string NameOf(const std::string& metric) {
  if (metric == "decode_tps") return "decode";
  if (metric == "prefill_tps") return "prefill";
  if (metric == "output_tps") return "output";
  if (metric == "flops") return "matrix product";
  if (metric == "bytes_per_s") return "read bandwidth";
  if (metric == "watts") return "power";
  return metric;
}

std::string Amount(const Estimate& e, const std::string& unit) {
  if (unit == "tok/s" || unit == "W") {
    const auto half = e.low && e.high ? std::optional(std::max(e.value - *e.low, *e.high - e.value)) : std::nullopt;
    return FormatUncertain(e.value, half) + " " + unit;
  }
  return FormatScaled(e.value, unit);
}

std::string Share(const Estimate& e) {
  return FormatPercentUncertain(e.value, e.low, e.high);
}

// What the stage keeps, "71 ± 2 %".
std::string Kept(const Estimate& log) {
  const auto exp = [](const std::optional<double>& x) { return x ? std::optional(std::exp(*x)) : std::nullopt; };
  return Share({std::exp(log.value), exp(log.low), exp(log.high)});
}

// The stages that any of the gaps has, in the order in which they follow one another.
std::vector<std::string> Stages(const std::vector<Gap>& gaps) {
  std::vector<std::string> stages;
  for (const char* stage : {"promise", "silicon", "kernels", "throttling", "engine", "serving"}) {
    for (const Gap& gap : gaps) {
      const bool has =
          std::any_of(gap.terms.begin(), gap.terms.end(), [&](const GapTerm& t) { return t.stage == stage; });
      if (has && (stages.empty() || stages.back() != stage)) stages.push_back(stage);
    }
  }
  return stages;
}

void PrintTable(const std::vector<Gap>& gaps, std::ostream& out) {
  const std::vector<std::string> stages = Stages(gaps);
  std::vector<Align> align(4 + stages.size(), Align::kRight);
  align[0] = Align::kLeft;
  Table table(align);
  std::vector<std::string> header = {"", "claimed"};
  header.insert(header.end(), stages.begin(), stages.end());
  header.insert(header.end(), {"actual", "of the claim"});
  table.AddRow(header);
  for (const Gap& gap : gaps) {
    std::vector<std::string> row = {NameOf(gap.metric), Amount({gap.claimed, {}, {}}, gap.unit)};
    for (const std::string& stage : stages) {
      const auto term =
          std::find_if(gap.terms.begin(), gap.terms.end(), [&](const GapTerm& t) { return t.stage == stage; });
      row.push_back(term == gap.terms.end() ? "" : Kept(term->log));
    }
    row.insert(row.end(), {Amount(gap.actual, gap.unit), Share(gap.ratio)});
    table.AddRow(row);
  }
  out << table.Render(kIndent);
}

// What the claim is and who makes it.
std::string Source(const Gap& gap) {
  const Provenance& p = gap.provenance;
  std::string text = gap.claim;
  const auto add = [&](const std::string& name, const std::string& value) {
    if (!value.empty()) text += "; " + name + value;
  };
  add("claimed by ", p.who);
  add("", p.date);
  add("", p.confidence);
  add("source: ", p.source);
  add("", p.note);
  return text;
}

// One line per claim; metrics that rest on the same claim share one.
std::vector<std::string> Sources(const std::vector<Gap>& gaps) {
  std::vector<std::pair<std::string, std::string>> named;  // names, source
  for (const Gap& gap : gaps) {
    const std::string source = Source(gap);
    const auto same = std::find_if(named.begin(), named.end(), [&](const auto& n) { return n.second == source; });
    if (same == named.end()) {
      named.emplace_back(NameOf(gap.metric), source);
    } else {
      same->first += ", " + NameOf(gap.metric);
    }
  }
  std::vector<std::string> lines;
  for (const auto& [names, source] : named) lines.push_back(names + ": " + source);
  return lines;
}

}  // namespace

void PrintGaps(const GapReport& report, GapDetail detail, std::ostream& out) {
  if (report.gaps.empty() && report.notes.empty()) return;
  out << "\nclaimed and actual";
  if (report.card_name) out << ": " << Printable(*report.card_name) << (report.card_sure ? "" : ", not sure");
  out << "\n";
  if (!report.gaps.empty()) PrintTable(report.gaps, out);
  std::vector<std::string> lines;
  if (report.card_name && !report.card_why.empty()) lines.push_back(report.card_why);
  if (detail == GapDetail::kSources) {
    for (std::string& source : Sources(report.gaps)) lines.push_back(std::move(source));
  }
  lines.insert(lines.end(), report.notes.begin(), report.notes.end());
  for (const std::string& line : lines) {
    const std::string wrapped = Wrap("- " + Printable(line), kWidth, std::string(kIndent) + kIndent);
    out << wrapped.substr(sizeof kIndent - 1);
  }
}

}  // namespace assay::bench
