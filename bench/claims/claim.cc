// SPDX-License-Identifier: Apache-2.0
#include "bench/claims/claim.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <vector>

#include "bench/claims/build_gap.h"
#include "bench/stats/format.h"

namespace assay::bench {
namespace {

struct Unit {
  const char* text;
  double factor;
};
struct Metric {
  const char* key;   // what a user writes
  const char* name;  // Gap::metric
  const char* unit;  // Gap::unit
  std::vector<Unit> units;
};

const std::vector<Metric>& KnownMetrics() {
  static const std::vector<Unit> kSpeed = {{"", 1}, {"tok/s", 1}, {"tokens/s", 1}, {"t/s", 1}};
  static const std::vector<Metric> metrics = {
      {"output_tps", "output_tps", "tok/s", kSpeed},
      {"decode_tps", "decode_tps", "tok/s", kSpeed},
      {"prefill_tps", "prefill_tps", "tok/s", kSpeed},
      {"flops",
       "flops",
       "FLOP/s",
       {{"GFLOPS", 1e9},
        {"GFLOP/s", 1e9},
        {"TFLOPS", 1e12},
        {"TFLOP/s", 1e12},
        {"PFLOPS", 1e15},
        {"PFLOP/s", 1e15},
        {"TOPS", 1e12},
        {"POPS", 1e15},
        {"P", 1e15}}},
      {"bandwidth", "bytes_per_s", "B/s", {{"GB/s", 1e9}, {"TB/s", 1e12}}},
      {"power", "watts", "W", {{"W", 1}, {"kW", 1e3}}},
      {"percent", "output_tps", "tok/s", {{"", 0.01}, {"%", 0.01}}},
  };
  return metrics;
}

Error Wrong(const std::string& text, const std::string& what) {
  return Error("--claim \"" + text + "\": " + what);
}

double ParseValue(const std::string& claim, const Metric& metric, const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || !std::isfinite(value) || value <= 0) {
    throw Wrong(claim, std::string(metric.key) + " needs a number above 0, not \"" + text + "\"");
  }
  const std::string unit(end, text.data() + text.size());
  std::string known;
  for (const Unit& u : metric.units) {
    if (unit == u.text) return value * u.factor;
    if (*u.text) known += (known.empty() ? "" : ", ") + std::string(u.text);
  }
  throw Wrong(claim, "unknown unit \"" + unit + "\" of " + metric.key + "; write one of " + known);
}

// "key=value" words; a value may stand in double quotes.
std::vector<std::pair<std::string, std::string>> Words(const std::string& text) {
  std::vector<std::pair<std::string, std::string>> words;
  size_t at = 0;
  while ((at = text.find_first_not_of(' ', at)) != text.npos) {
    const size_t equals = text.find('=', at);
    if (equals == text.npos || text.substr(at, equals - at).find(' ') != std::string::npos) {
      throw Wrong(text, "\"" + text.substr(at, text.find(' ', at) - at) + "\" is not KEY=VALUE; write " + kClaimHelp);
    }
    const bool quoted = equals + 1 < text.size() && text[equals + 1] == '"';
    const size_t begin = equals + (quoted ? 2 : 1);
    const size_t end = std::min(text.find(quoted ? '"' : ' ', begin), text.size());
    words.emplace_back(text.substr(at, equals - at), text.substr(begin, end - begin));
    at = std::min(end + quoted, text.size());
  }
  return words;
}

void CheckDType(const std::string& claim, const std::string& dtype) {
  static const std::vector<std::string> kKnown = {"f32",     "tf32",    "bf16", "f16",     "fp16", "fp8",
                                                  "fp4",     "int8",    "int4", "q8_0",    "q4_0", "q4_1",
                                                  "f8_b128", "i4_g128", "fp32", "f8_e4m3", "i8"};
  for (const std::string& known : kKnown) {
    if (dtype == known) return;
  }
  throw Wrong(claim, "unknown dtype \"" + dtype +
                         "\"; write one of bf16, fp16, fp8, fp4, int8, int4, f32, tf32, q4_0, "
                         "q4_1, q8_0, f8_b128, f8_e4m3, i8, i4_g128");
}

// The field's names and those of files: fp16 is f16; int8 and int4 weights are held in blocks.
bool SameDType(const std::string& claimed, const std::string& measured) {
  const auto one_of = [&](std::initializer_list<const char*> names) {
    return std::find(names.begin(), names.end(), measured) != names.end();
  };
  if (claimed == "fp16") return one_of({"f16"});
  if (claimed == "fp32") return one_of({"f32"});
  if (claimed == "fp8") return one_of({"f8_e4m3", "f8_e5m2", "f8_b128"});
  if (claimed == "int8") return one_of({"i8", "q8_0"});
  if (claimed == "int4") return one_of({"q4_0", "q4_1", "i4_g128"});
  return claimed == measured;
}

// The stages below the roofline that the run was held against, after the claim's own distance from it.
std::vector<GapTerm> StagesOf(const GapReport& report, const std::string& metric, double claimed) {
  for (const Gap& gap : report.gaps) {
    if (gap.metric != metric || gap.terms.empty()) continue;
    const double log = std::log(gap.claimed / claimed);
    std::vector<GapTerm> terms = {{"promise", {log, log, log}, ""}};
    terms.insert(terms.end(), gap.terms.begin(), gap.terms.end());
    return terms;
  }
  return {};
}

}  // namespace

UserClaim ParseClaim(const std::string& text) {
  UserClaim claim;
  bool sparse = false;
  std::string key_of_metric;
  for (const auto& [key, value] : Words(text)) {
    if (key == "who")
      claim.provenance.who = value;
    else if (key == "date")
      claim.provenance.date = value;
    else if (key == "source")
      claim.provenance.source = value;
    else if (key == "dtype")
      CheckDType(text, claim.dtype = value);
    else if (key == "of")
      claim.of = FindCard(value).id;
    else if (key == "sparse" && (value == "yes" || value == "no"))
      sparse = value == "yes";
    else {
      const auto metric =
          std::find_if(KnownMetrics().begin(), KnownMetrics().end(), [&](const Metric& m) { return key == m.key; });
      if (metric == KnownMetrics().end()) throw Wrong(text, "unknown key \"" + key + "\"; write " + kClaimHelp);
      if (!key_of_metric.empty()) throw Wrong(text, "claims both " + key_of_metric + " and " + key + "; give one each");
      key_of_metric = key;
      claim.metric = metric->name;
      claim.value = ParseValue(text, *metric, value);
    }
  }
  if (key_of_metric.empty()) throw Wrong(text, std::string("claims nothing; write ") + kClaimHelp);
  if ((key_of_metric == "percent") != !claim.of.empty()) {
    throw Wrong(text, "percent= and of=CARD go together, for example percent=85 of=h100-sxm");
  }
  if (claim.provenance.who.empty()) claim.provenance.who = "not said";
  claim.provenance.confidence = "given by the user";
  if (sparse) {
    if (claim.metric != "flops") throw Wrong(text, "sparse=yes is for flops");
    claim.value /= 2;
    claim.provenance.note = "counts 2:4 sparsity: halved here";
  }
  return claim;
}

Gap GapOfClaim(const RunResult& result, const UserClaim& claim) {
  const auto actual = ActualOf(result, claim.metric);
  if (!actual) throw Error("--claim: the result " + result.id + " holds no " + claim.metric);
  Gap gap;
  gap.metric = claim.metric;
  gap.provenance = claim.provenance;
  gap.actual = *actual;
  gap.claimed = claim.value;
  gap.claim = "claim of a user";
  for (const Metric& m : KnownMetrics()) {
    if (claim.metric == m.name) gap.unit = m.unit;
  }
  if (!claim.of.empty()) {
    const Card& other = FindCard(claim.of);
    const auto roof = ClaimedRoof(result, other, claim.metric);
    if (!roof.ok()) throw Error("--claim: " + roof.error());
    gap.claimed = claim.value * roof.value();
    gap.claim = FormatPercent(claim.value) + " of what the claimed peaks of " + other.name + " allow (a roofline)";
  }
  if (!claim.dtype.empty() && !SameDType(claim.dtype, result.model.dtype)) {
    gap.claim += ", for " + claim.dtype + " while " + result.model.dtype + " was measured";
  }
  gap.ratio = Over(*actual, gap.claimed);
  if (result.gap) gap.terms = StagesOf(*result.gap, claim.metric, gap.claimed);
  return gap;
}

}  // namespace assay::bench
