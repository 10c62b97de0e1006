// SPDX-License-Identifier: Apache-2.0
#include "bench/claims/build_gap.h"

#include <algorithm>
#include <cmath>

#include "bench/stats/format.h"
#include "runtime/core/dtype.h"

namespace assay::bench {
namespace {

// A time with the half-width of its 95 % interval.
struct Timed {
  double s = 0;
  double half_width = 0;
  double Relative() const { return s > 0 ? half_width / s : 0; }
};

Timed operator*(double factor, const Timed& t) {
  return {factor * t.s, factor * t.half_width};
}
Timed operator+(const Timed& a, const Timed& b) {  // independent
  return {a.s + b.s, std::hypot(a.half_width, b.half_width)};
}

struct Peaks {
  double flops = 0, bytes_per_s = 0;
};

// Time of a unit at these peaks: whichever of compute and memory takes longer.
double RoofSeconds(const PhaseTimes& unit, const Peaks& peaks) {
  return std::max(unit.flops / peaks.flops, unit.bytes / peaks.bytes_per_s);
}

const Figure* PeakFlops(const RunResult& r, const Card& card, std::string* key) {
  *key = PeakKey(card, DTypeOfName(r.model.dtype));
  return card.Find(*key);
}

Result<Peaks> ClaimedPeaks(const RunResult& r, const Card& card) {
  using Failure = Result<Peaks>;
  std::string key;
  const Figure* flops = PeakFlops(r, card, &key);
  const Figure* bytes = card.Find("bytes_per_s");
  if (!flops || !flops->value) return Failure::Fail("no public peak of " + card.name + " for " + r.model.dtype);
  if (!bytes || !bytes->value) return Failure::Fail("no public memory bandwidth of " + card.name);
  return Peaks{DenseValue(*flops), DenseValue(*bytes)};
}

// A workload as so many units of each phase, and the tokens that it is counted in.
struct Work {
  double prefills = 0, decodes = 0, tokens = 0;
};

// Fails where the phases that the metric needs were not measured.
Result<Work> WorkOf(const RunResult& r, const std::string& metric) {
  using Failure = Result<Work>;
  const auto& [prefill, decode] = r.phases;
  const bool needs_prefill = metric != "decode_tps";
  const bool needs_decode = metric == "decode_tps" || (metric == "output_tps" && r.workload.osl > 1);
  if ((needs_prefill && !prefill) || (needs_decode && !decode)) {
    return Failure::Fail("the result does not hold the times of its phases");
  }
  if (metric == "prefill_tps") return Work{1, 0, prefill->tokens};
  if (metric == "decode_tps") return Work{0, 1, decode->tokens};
  if (metric != "output_tps") return Failure::Fail("there is no roofline for " + metric);
  const double sequences = needs_decode ? decode->tokens : 1;
  const auto osl = static_cast<double>(r.workload.osl);
  return Work{sequences, osl - 1, sequences * osl};
}

double RoofSeconds(const RunResult& r, const Work& work, const Peaks& peaks) {
  double s = 0;
  if (work.prefills > 0) s += work.prefills * RoofSeconds(*r.phases.prefill, peaks);
  if (work.decodes > 0) s += work.decodes * RoofSeconds(*r.phases.decode, peaks);
  return s;
}

std::optional<Timed> Sum(const RunResult& r, const Work& work, std::optional<Rate> PhaseTimes::*which) {
  Timed sum;
  const auto add = [&](double count, const std::optional<PhaseTimes>& unit) {
    if (count <= 0) return true;
    const std::optional<Rate>& rate = (*unit).*which;
    if (!rate || rate->value <= 0) return false;
    sum = sum + count * Timed{rate->value, rate->HalfWidth().value_or(0)};
    return true;
  };
  if (!add(work.prefills, r.phases.prefill) || !add(work.decodes, r.phases.decode)) return std::nullopt;
  return sum;
}

// The attainable roofline. Where prefill and decode are bound by the same limit, its spread is common to both.
std::optional<Timed> Attained(const RunResult& r, const Work& work) {
  const Limits& l = r.limits;
  if (!l.flops || !l.bytes_per_s || *l.flops <= 0 || *l.bytes_per_s <= 0) return std::nullopt;
  double compute_s = 0, memory_s = 0;
  const auto add = [&](double count, const std::optional<PhaseTimes>& unit) {
    if (count <= 0) return;
    const double by_compute_s = count * unit->flops / *l.flops, by_memory_s = count * unit->bytes / *l.bytes_per_s;
    (by_compute_s > by_memory_s ? compute_s : memory_s) += std::max(by_compute_s, by_memory_s);
  };
  add(work.prefills, r.phases.prefill);
  add(work.decodes, r.phases.decode);
  return Timed{compute_s + memory_s, std::hypot(compute_s * l.flops_half_width.value_or(0) / *l.flops,
                                                memory_s * l.bytes_per_s_half_width.value_or(0) / *l.bytes_per_s)};
}

GapTerm Term(const std::string& stage, double from_s, double to_s, double half_width, const std::string& note) {
  const double log = std::log(from_s / to_s);
  return {stage, {log, log - half_width, log + half_width}, note};
}

const std::optional<Rate>* RateOf(const RunResult& r, const std::string& metric) {
  if (metric == "prefill_tps") return &r.metrics.prefill_tps;
  if (metric == "decode_tps") return &r.metrics.decode_tps;
  if (metric == "output_tps") return &r.metrics.output_tps;
  return nullptr;
}

// Half of the interval of the logarithm.
double Relative(const Estimate& e) {
  return e.low && e.high && e.value > 0 ? std::max(e.value - *e.low, *e.high - e.value) / e.value : 0;
}

// The clock's share, where throttling was seen and both clocks are known; zero where none was recorded.
std::optional<GapTerm> Throttling(const Environment& e) {
  if (!e.throttled) return std::nullopt;
  if (!*e.throttled) return GapTerm{"throttling", {0, 0, 0}, "none was recorded"};
  if (!e.trial_clock_mhz || !e.profile_clock_mhz || *e.profile_clock_mhz <= 0) return std::nullopt;
  const double log = std::log(*e.trial_clock_mhz / *e.profile_clock_mhz);
  return GapTerm{"throttling",
                 {log, log, log},
                 "clock " + FormatNumber(*e.trial_clock_mhz, 4) + " MHz in the trials, " +
                     FormatNumber(*e.profile_clock_mhz, 4) + " MHz while operations were timed"};
}

// From the roofline at the claimed peaks to the actual. Empty where a stage's times are not known.
std::vector<GapTerm> Decompose(const RunResult& r, const Work& work, const Peaks& claimed, const Estimate& actual) {
  const auto attained = Attained(r, work);
  const auto kernels = Sum(r, work, &PhaseTimes::kernels_s), steps = Sum(r, work, &PhaseTimes::steps_s);
  if (!attained || !kernels || !steps) return {};
  std::vector<GapTerm> terms;
  terms.push_back(Term("silicon", RoofSeconds(r, work, claimed), attained->s, attained->Relative(), ""));
  terms.push_back(Term("kernels", attained->s, kernels->s, std::hypot(attained->Relative(), kernels->Relative()), ""));
  double throttled = 0;
  if (auto term = Throttling(r.environment)) {
    throttled = term->log.value;
    terms.push_back(std::move(*term));
  }
  GapTerm engine = Term("engine", kernels->s, steps->s, std::hypot(kernels->Relative(), steps->Relative()), "");
  engine.log = {engine.log.value - throttled, *engine.log.low - throttled, *engine.log.high - throttled};
  terms.push_back(std::move(engine));
  terms.push_back(
      Term("serving", steps->s, work.tokens / actual.value, std::hypot(steps->Relative(), Relative(actual)), ""));
  return terms;
}

// A figure of the card against a figure of the run.
void AddSpecGap(const RunResult& r, const Card& card, const std::string& metric, const std::string& unit,
                const Figure* figure, const std::string& what, GapReport* report) {
  const auto actual = ActualOf(r, metric);
  if (!actual) {
    if (metric == "watts" && r.power.mean_w) {
      report->notes.push_back("power is not held against the TDP of the card: it is of scope " +
                              r.power.scope.value_or(kUnknown) + ", grade " + r.power.grade);
    }
    return;
  }
  if (!figure || !figure->value) {
    report->notes.push_back("no public " + what + " of " + card.name + ": no ratio");
    return;
  }
  const std::string doubt = metric == "watts" && r.power.grade == "D" ? ", against power of grade D" : "";
  Gap gap{metric, unit, DenseValue(*figure), "claimed " + what + doubt, ProvenanceOf(card, *figure), *actual, {}, {}};
  gap.ratio = Over(*actual, gap.claimed);
  report->gaps.push_back(std::move(gap));
}

void AddSpeedGap(const RunResult& r, const Card& card, const std::string& metric, GapReport* report) {
  const auto actual = ActualOf(r, metric);
  const auto work = WorkOf(r, metric);
  if (!actual || actual->value <= 0 || !work.ok()) return;
  const auto peaks = ClaimedPeaks(r, card);
  if (!peaks.ok()) {
    report->notes.push_back(peaks.error() + ": no roofline");
    return;
  }
  std::string key;
  const Figure& flops = *PeakFlops(r, card, &key);
  const Figure& bytes = *card.Find("bytes_per_s");
  Gap gap{metric,
          "tok/s",
          work.value().tokens / RoofSeconds(r, work.value(), peaks.value()),
          "roofline at the claimed peaks (" + key + " " + FormatScaled(DenseValue(flops), "FLOP/s") + ", " +
              FormatScaled(DenseValue(bytes), "B/s") + ")",
          ProvenanceOf(card, flops, bytes),
          *actual,
          {},
          Decompose(r, work.value(), peaks.value(), *actual)};
  gap.ratio = Over(*actual, gap.claimed);
  if (gap.terms.empty()) {
    report->notes.push_back("no stages: the operations were not timed, or not at the only batch size of the trials");
  }
  report->gaps.push_back(std::move(gap));
}

}  // namespace

Provenance ProvenanceOf(const Card& card, const Figure& figure) {
  // Who says so is the vendor only where the figure comes from it; else the source tells.
  const std::string who = figure.confidence == "derived"            ? "assay"
                          : figure.confidence.starts_with("vendor") ? card.vendor
                                                                    : "";
  return {who, figure.date, figure.source, figure.confidence,
          figure.sparse ? figure.note + (figure.note.empty() ? "" : "; ") + "counts 2:4 sparsity: halved here"
                        : figure.note};
}

// Of a roofline: both figures stand behind it.
Provenance ProvenanceOf(const Card& card, const Figure& flops, const Figure& bytes) {
  Provenance p = ProvenanceOf(card, flops);
  const Provenance other = ProvenanceOf(card, bytes);
  const auto join = [](std::string* a, const std::string& b) {
    if (!b.empty() && b != *a) *a += (a->empty() ? "" : "; ") + ("bandwidth: " + b);
  };
  join(&p.date, other.date);
  join(&p.source, other.source);
  join(&p.confidence, other.confidence);
  join(&p.note, other.note);
  return p;
}

Estimate Over(const Estimate& e, double denominator) {
  Estimate ratio{e.value / denominator, std::nullopt, std::nullopt};
  if (e.low) ratio.low = *e.low / denominator;
  if (e.high) ratio.high = *e.high / denominator;
  return ratio;
}

Result<double> ClaimedRoof(const RunResult& r, const Card& card, const std::string& metric) {
  const auto work = WorkOf(r, metric);
  if (!work.ok()) return Result<double>::Fail(work.error());
  const auto peaks = ClaimedPeaks(r, card);
  if (!peaks.ok()) return Result<double>::Fail(peaks.error());
  return work.value().tokens / RoofSeconds(r, work.value(), peaks.value());
}

std::optional<Estimate> ActualOf(const RunResult& r, const std::string& metric) {
  const auto limit = [](const std::optional<double>& value, const std::optional<double>& half) {
    if (!value) return std::optional<Estimate>();
    Estimate e{*value, std::nullopt, std::nullopt};
    if (half) e.low = *value - *half, e.high = *value + *half;
    return std::optional(e);
  };
  if (metric == "flops") return limit(r.limits.flops, r.limits.flops_half_width);
  if (metric == "bytes_per_s") return limit(r.limits.bytes_per_s, r.limits.bytes_per_s_half_width);
  if (metric == "watts") {
    // Of a whole node or at the wall it is not the card's, and a constant is nobody's measurement.
    const bool of_card = r.power.scope == "board" || r.power.scope == "chip";
    if (!r.power.mean_w || !of_card || r.power.grade == "F") return std::nullopt;
    return Estimate{*r.power.mean_w, r.power.mean_w_low, r.power.mean_w_high};
  }
  const std::optional<Rate>* rate = RateOf(r, metric);
  if (!rate || !*rate) return std::nullopt;
  return Estimate{(*rate)->value, (*rate)->ci_low, (*rate)->ci_high};
}

Card DevicesOf(const Card& card, int64_t devices) {
  Card share = card;
  const auto n = static_cast<double>(devices);
  const double boards = std::ceil(n / card.devices);
  for (auto& [key, figure] : share.figures) {
    if (figure.value) *figure.value *= key == "tdp_w" ? boards : n / card.devices;  // a meter reads the board
  }
  share.devices = 1;
  return share;
}

GapReport BuildGapReport(const RunResult& r, const CardMatch& match) {
  GapReport report;
  report.card_why = match.why;
  report.card_sure = match.sure;
  if (!match.card) {
    report.notes.push_back("no claim to hold this device against: " + match.why);
    return report;
  }
  // Ranks on a CPU share it.
  const int64_t devices = match.card->id == kHostCardId ? 1 : r.device.count;
  const Card card = DevicesOf(*match.card, devices);
  report.card_id = card.id;
  report.card_name = card.name;
  if (match.card->devices > 1) {
    report.notes.push_back("a card shows up as " + std::to_string(match.card->devices) + " devices; " +
                           std::to_string(devices) + " of them held against as much of the card's figures");
  } else if (devices > 1) {
    report.notes.push_back(std::to_string(devices) + " devices are held against " + std::to_string(devices) +
                           " times a card's figures");
  }
  for (const char* metric : {"decode_tps", "prefill_tps", "output_tps"}) AddSpeedGap(r, card, metric, &report);
  std::string key;
  const Figure* flops = PeakFlops(r, card, &key);
  AddSpecGap(r, card, "flops", "FLOP/s", flops, "dense " + key + " peak", &report);
  AddSpecGap(r, card, "bytes_per_s", "B/s", card.Find("bytes_per_s"), "memory bandwidth", &report);
  AddSpecGap(r, card, "watts", "W", card.Find("tdp_w"), "TDP", &report);
  const auto cores = r.host.cores;
  if (card.id == kHostCardId && r.device.threads && cores && *r.device.threads < *cores) {
    report.notes.push_back(std::to_string(*r.device.threads) + " of " + std::to_string(*cores) +
                           " cores computed; the claim is that of all");
  }
  if (!r.environment.throttled) {
    report.notes.push_back("throttling is not told apart: this device reports none, so its share is inside 'engine'");
  } else if (*r.environment.throttled && !Throttling(r.environment)) {
    report.notes.push_back("throttling was recorded, but not the clocks, so its share is inside 'engine'");
  }
  // The same sentence for three metrics is said once.
  std::sort(report.notes.begin(), report.notes.end());
  report.notes.erase(std::unique(report.notes.begin(), report.notes.end()), report.notes.end());
  return report;
}

}  // namespace assay::bench
