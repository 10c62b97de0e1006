// SPDX-License-Identifier: Apache-2.0
#include "bench/report/print_result.h"

#include <algorithm>
#include <cmath>
#include <ostream>

#include "bench/report/print_gap.h"
#include "bench/report/table.h"
#include "bench/report/verdict.h"
#include "bench/stats/format.h"

namespace assay::bench {
namespace {

constexpr size_t kWidth = 100;
constexpr size_t kTopOps = 6;
constexpr char kIndent[] = "  ";

std::string Text(const std::optional<std::string>& text) {
  return text ? *text : kUnknown;
}

std::string Bytes(double bytes) {
  if (bytes >= 0x1p30) return FormatNumber(bytes / 0x1p30) + " GiB";
  if (bytes >= 0x1p20) return FormatNumber(bytes / 0x1p20) + " MiB";
  return FormatNumber(bytes / 0x1p10) + " KiB";
}

std::string Count(double count) {
  return FormatScaled(count, "");
}

// "parameters, dtype, size (…)": the parts that are known, joined by commas.
std::string Join(const std::vector<std::string>& parts) {
  std::string joined;
  for (const std::string& part : parts) {
    if (!part.empty()) joined += (joined.empty() ? "" : ", ") + part;
  }
  return joined;
}

std::string DeviceLine(const RunResult& r) {
  const DeviceInfo& d = r.device;
  const char* of = d.threads ? " ranks on " : " x ";  // those of a CPU share it
  return (d.count > 1 ? std::to_string(d.count) + of : "") + d.name + " (" +
         Join({d.backend, d.isa.value_or(""), d.threads ? std::to_string(*d.threads) + " threads" : ""}) + ")" +
         (d.reason ? ": " + *d.reason : "");
}

std::string ModelLine(const RunResult& r) {
  const ModelInfo& m = r.model;
  std::string parameters = m.parameters ? Count(static_cast<double>(*m.parameters)) : kUnknown;
  if (parameters.ends_with(" ")) parameters.pop_back();
  return m.name + " (" +
         Join({m.family, parameters + " parameters", m.dtype, m.bytes ? Bytes(static_cast<double>(*m.bytes)) : "",
               m.weights == "synthetic" ? "synthetic weights" : ""}) +
         ")";
}

std::string WorkloadLine(const RunResult& r) {
  const WorkloadInfo& w = r.workload;
  const auto achieved = [](const std::optional<double>& mean, int64_t asked) {
    const bool differs = mean && std::abs(*mean - static_cast<double>(asked)) > 0.5;
    return std::to_string(asked) + (differs ? " (achieved " + FormatNumber(*mean) + ")" : "");
  };
  return Join({w.scenario, achieved(w.achieved_isl, w.isl) + " tokens in", achieved(w.achieved_osl, w.osl) + " out",
               w.concurrency ? std::to_string(*w.concurrency) + " at a time" : "",
               w.rate ? FormatNumber(*w.rate) + " requests/s" : "",
               std::to_string(r.trials.size()) + " of " + std::to_string(w.trials) + " trials of " +
                   std::to_string(w.requests) + (w.requests == 1 ? " request" : " requests")});
}

void PrintHeader(const RunResult& r, const std::string& result_path, std::ostream& out) {
  Table table({Align::kLeft, Align::kLeft});
  table.AddRow({"device", DeviceLine(r)});
  table.AddRow({"host", Join({Text(r.host.cpu), Text(r.host.os), r.environment.virtualization.value_or("")})});
  table.AddRow({"model", ModelLine(r)});
  table.AddRow({"workload", WorkloadLine(r)});
  if (!result_path.empty()) table.AddRow({"result", result_path});
  out << table.Render("");
}

void PrintRates(const Metrics& m, std::ostream& out) {
  Table table({Align::kLeft, Align::kRight, Align::kLeft, Align::kLeft});
  bool interval = false;
  const auto row = [&](const char* name, const std::optional<Rate>& rate, const char* unit) {
    if (!rate) return;
    interval |= rate->HalfWidth().has_value();
    table.AddRow({name, FormatRate(rate), unit});
  };
  row("prefill", m.prefill_tps, "tok/s");
  row("decode", m.decode_tps, "tok/s");
  row("output", m.output_tps, "tok/s");
  row("input + output", m.total_tps, "tok/s");
  row("requests", m.request_tps, "/s");
  row("goodput", m.goodput, "/s");
  if (table.empty()) return;
  out << "\nspeed" << (interval ? " (± 95 % confidence over the trials; none is left out)" : "") << "\n"
      << table.Render(kIndent);
}

void PrintLatencies(const Metrics& m, std::ostream& out) {
  Table table({Align::kLeft, Align::kRight, Align::kRight, Align::kRight, Align::kRight, Align::kRight, Align::kRight});
  table.AddRow({"latency, ms", "p50", "p90", "p95", "p99", "max", "samples"});
  const auto row = [&](const char* name, const std::optional<Latency>& l) {
    if (!l) return;
    // The p-th percentile of fewer than 1 / (1 - p) samples is their maximum under another name.
    const auto from = [&](int64_t least, double value) { return l->n >= least ? FormatNumber(value) : "-"; };
    table.AddRow({name, FormatInterval(l->p50, l->p50_low, l->p50_high), from(10, l->p90), from(20, l->p95),
                  l->n >= 100 ? FormatInterval(l->p99, l->p99_low, l->p99_high) : "-", FormatNumber(l->max),
                  std::to_string(l->n)});
  };
  row("first token (TTFT)", m.ttft_ms);
  row("per token (TPOT)", m.tpot_ms);
  row("between tokens (ITL)", m.itl_ms);
  row("whole request (E2E)", m.e2e_ms);
  if (m.ttft_ms || m.tpot_ms || m.itl_ms || m.e2e_ms) out << "\n" << table.Render("");
}

void PrintLimits(const Limits& l, std::ostream& out) {
  Table table({Align::kLeft, Align::kRight, Align::kLeft, Align::kRight, Align::kLeft});
  const auto row = [&](const char* phase, const std::optional<double>& did, const std::optional<double>& limit,
                       const std::optional<double>& share, const char* unit, const std::string& name) {
    if (!limit && !did) return;
    table.AddRow({phase, did ? FormatScaled(*did, unit) : kUnknown, "of", limit ? FormatScaled(*limit, unit) : kUnknown,
                  "= " + name + " " + (share ? FormatPercent(*share) : kUnknown)});
  };
  row("prefill", l.prefill_flops_per_s, l.flops, l.mfu, "FLOP/s", "MFU");
  row("decode", l.decode_bytes_per_s, l.bytes_per_s, l.mbu, "B/s", "MBU");
  if (table.empty()) return;
  out << "\nagainst this device's limits, measured in this run" << (l.flops_dtype ? " (" + *l.flops_dtype + ")" : "")
      << "\n"
      << table.Render(kIndent);
  const std::string others =
      Join({l.model_flops ? l.model_matmul.value_or("") + " product " + FormatScaled(*l.model_flops, "FLOP/s") : "",
            l.copy_bytes_per_s ? "copy " + FormatScaled(*l.copy_bytes_per_s, "B/s") : "",
            l.cache_bytes_per_s ? "16 MiB read " + FormatScaled(*l.cache_bytes_per_s, "B/s") : "",
            l.launch_us ? "launch " + FormatNumber(*l.launch_us) + " us" : ""});
  if (!others.empty()) out << kIndent << "also: " << others << "\n";
}

void PrintOps(const std::vector<OpShare>& ops, std::ostream& out) {
  std::vector<std::string> phases;
  for (const OpShare& op : ops) {
    if (std::find(phases.begin(), phases.end(), op.phase) == phases.end()) phases.push_back(op.phase);
  }
  Table table({Align::kLeft, Align::kLeft});
  for (const std::string& phase : phases) {
    std::vector<OpShare> mine;
    for (const OpShare& op : ops) {
      if (op.phase == phase && std::isfinite(op.share)) mine.push_back(op);
    }
    std::stable_sort(mine.begin(), mine.end(), [](const OpShare& a, const OpShare& b) { return a.share > b.share; });
    std::vector<std::string> parts;
    double rest = 0;
    for (size_t i = 0; i < mine.size(); ++i) {
      if (i < kTopOps) parts.push_back(mine[i].op + " " + FormatPercent(mine[i].share));
      if (i >= kTopOps) rest += mine[i].share;
    }
    if (mine.size() > kTopOps) parts.push_back("others " + FormatPercent(rest));
    table.AddRow({phase, Join(parts)});
  }
  if (!table.empty()) out << "\nshare of time per op\n" << table.Render(kIndent);
}

std::string AccuracyLine(const Accuracy& a) {
  std::string line = a.verdict == "not_run" ? "not checked" : a.verdict;
  if (a.tokens) line += ", " + std::to_string(*a.tokens) + " tokens against " + a.reference.value_or("the reference");
  if (a.max_logprob_error) line += ", largest log-probability error " + FormatNumber(*a.max_logprob_error, 2);
  if (a.max_logprob_error && a.tolerance) line += " (allowed " + FormatNumber(*a.tolerance, 2) + ")";
  return a.note ? line + ": " + *a.note : line;
}

std::string PowerLine(const Power& p) {
  if (p.grade == "none") return "not metered: " + (p.notes.empty() ? kUnknown : p.notes[0]);
  const auto with = [](const char* before, const std::optional<double>& x, const char* after) {
    return x ? before + FormatNumber(*x) + after : "";
  };
  const std::string mean = p.mean_w ? FormatInterval(*p.mean_w, p.mean_w_low, p.mean_w_high) + " W" : "";
  const std::string joules = p.j_per_output_token ? FormatInterval(*p.j_per_output_token, p.j_per_output_token_low,
                                                                   p.j_per_output_token_high) +
                                                        " J/output token"
                                                  : "";
  return Join({mean, with("peak ", p.peak_w, " W"), with("idle ", p.idle_w, " W"), joules,
               with("", p.output_tps_per_w, " tok/s/W")}) +
         " (grade " + p.grade + ", " + (IsMeasured(p) ? "measured" : "not a measurement") + "; " +
         Join({p.source.value_or(""), "scope " + Text(p.scope)}) + ")";
}

// What each phase takes alone, and what remains without the power at rest.
std::string EnergyLine(const Power& p) {
  const auto phase = [](const char* name, const std::optional<PhasePower>& x) {
    if (!x || !x->j_per_token) return std::string();
    return name + FormatRate(x->j_per_token) + " J/token at " + FormatRate(x->mean_w) + " W";
  };
  return Join({phase("prefill alone ", p.prefill), phase("decode alone ", p.decode),
               p.net_j_per_output_token ? FormatNumber(*p.net_j_per_output_token) + " J/output token above idle" : ""});
}

void PrintFootnotes(const RunResult& r, std::ostream& out) {
  Table table({Align::kLeft, Align::kLeft});
  table.AddRow({"accuracy", AccuracyLine(r.accuracy)});
  table.AddRow({"power", PowerLine(r.power)});
  if (const std::string energy = EnergyLine(r.power); !energy.empty()) table.AddRow({"energy", energy});
  if (r.memory) {
    const auto bytes = [](int64_t n) { return Bytes(static_cast<double>(n)); };
    table.AddRow({"memory", "weights " + bytes(r.memory->weights_bytes) + ", KV cache " +
                                bytes(r.memory->kv_cache_bytes) +
                                (r.model.kv_dtype ? " (" + *r.model.kv_dtype + ")" : "") + ", activations " +
                                bytes(r.memory->activations_bytes) + ", logits " + bytes(r.memory->logits_bytes) +
                                (r.device.count > 1 ? " on each" : "")});
  }
  if (r.peak_rss_bytes) table.AddRow({"peak memory", Bytes(static_cast<double>(*r.peak_rss_bytes)) + " resident"});
  out << "\n" << table.Render("");
  for (const std::string& warning : r.warnings) {
    const std::string wrapped = Wrap("warning: " + Printable(warning), kWidth, kIndent);
    out << wrapped.substr(sizeof kIndent - 1);
  }
}

}  // namespace

void PrintResult(const RunResult& result, const std::string& result_path, std::ostream& out) {
  PrintHeader(result, result_path, out);
  PrintRates(result.metrics, out);
  PrintLatencies(result.metrics, out);
  PrintLimits(result.limits, out);
  if (result.gap) PrintGaps(*result.gap, GapDetail::kBrief, out);
  PrintOps(result.ops, out);
  PrintFootnotes(result, out);
  out << "\n" << Wrap(Printable(Verdict(result)), kWidth, "");
}

}  // namespace assay::bench
