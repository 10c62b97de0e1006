// SPDX-License-Identifier: Apache-2.0
#include "bench/claims/published.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "bench/claims/data_files.h"
#include "runtime/core/error.h"

namespace assay::bench {
namespace {

using Json = nlohmann::json;

struct Metric {
  const char* name;
  std::vector<const char*> units;
  bool of_model;       // depends on a model and its lengths and batch
  bool has_precision;  // depends on what is computed in
};
const std::vector<Metric>& Metrics() {
  static const std::vector<Metric> metrics = {{"output_tps", {"tok/s", "tok/s/card"}, true, true},
                                              {"total_tps", {"tok/s", "tok/s/card"}, true, true},
                                              {"prefill_tps", {"tok/s", "tok/s/card"}, true, true},
                                              {"decode_tps", {"tok/s", "tok/s/card"}, true, true},
                                              {"j_per_output_token", {"J/token"}, true, true},
                                              {"mean_w", {"W/card", "W (wall)"}, true, true},
                                              {"idle_w", {"W/card", "W (wall)"}, false, false},
                                              {"gemm_tflops", {"TFLOPS", "TOPS"}, false, true},
                                              {"copy_gbps", {"GB/s"}, false, false},
                                              {"read_gbps", {"GB/s"}, false, false}};
  return metrics;
}

const Metric* FindMetric(const std::string& name) {
  for (const Metric& metric : Metrics()) {
    if (metric.name == name) return &metric;
  }
  return nullptr;
}

constexpr char kFields[] =
    " id card count metric value unit model precision engine scenario isl osl concurrency_or_batch date source quote "
    "confidence notes ";

Published ReadResult(const Json& json, const std::string& place) {
  const auto complain = [&](const std::string& what) { throw Error(place + ": " + what); };
  if (!json.is_object()) complain("must be an object");
  for (const auto& [key, value] : json.items()) {
    if (std::string(kFields).find(" " + key + " ") == std::string::npos) complain("unknown field \"" + key + "\"");
  }
  const auto text = [&](const char* key, bool required) -> std::string {
    const auto found = json.find(key);
    if (found != json.end() && found->is_string() && (!required || !found->get_ref<const std::string&>().empty())) {
      return *found;
    }
    if (required || (found != json.end() && !found->is_null())) complain(fmt::format("\"{}\" must be a text", key));
    return "";
  };
  const auto number = [&](const char* key) -> std::optional<double> {
    const auto found = json.find(key);
    if (found == json.end() || found->is_null()) return std::nullopt;
    if (!found->is_number() || found->get<double>() <= 0) complain(fmt::format("\"{}\" must be above zero", key));
    return found->get<double>();
  };
  Published r;
  r.id = text("id", true);
  r.card = text("card", true);
  r.count = number("count");
  r.metric = text("metric", true);
  if (!number("value")) complain("has no \"value\"");
  r.value = *number("value");
  r.unit = text("unit", true);
  const Metric* metric = FindMetric(r.metric);
  if (!metric) complain("unknown metric \"" + r.metric + "\"");
  if (std::find(metric->units.begin(), metric->units.end(), r.unit) == metric->units.end()) {
    complain(fmt::format("the unit of {} is {}, not \"{}\"", r.metric, fmt::join(metric->units, " or "), r.unit));
  }
  r.model = text("model", false);
  r.precision = text("precision", false);
  r.engine = text("engine", false);
  r.scenario = text("scenario", false);
  r.isl = number("isl");
  r.osl = number("osl");
  r.concurrency = number("concurrency_or_batch");
  r.date = text("date", false);
  r.source = text("source", true);
  r.quote = text("quote", true);
  r.confidence = text("confidence", true);
  r.notes = text("notes", false);
  return r;
}

std::vector<Published> ReadAll() {
  std::vector<Published> results;
  std::set<std::string> ids;
  for (const DataFile& file : PublishedFiles()) {
    for (Published& result : ParsePublished(file.name, file.text)) {
      if (!ids.insert(result.id).second) throw Error("published results: two entries are called " + result.id);
      results.push_back(std::move(result));
    }
  }
  return results;
}

Comparable Refuse(std::string why) {
  return {false, std::move(why)};
}

bool VariantKnown(const std::string& card) {
  for (const char* mark : {"-unspecified", "-presumed", "-redacted"}) {
    if (card.ends_with(mark)) return false;
  }
  return true;
}

std::string VariantUnknown(const Published& r) {
  return "which variant of the card " + r.id + " ran on is not known (" + r.card + ")";
}

// With a batch that the engine chooses itself, as large as fits, its size is no condition of the run.
bool BatchIsFree(const Published& r) {
  return r.scenario == "offline" && !r.concurrency;
}

// The first condition that the source leaves out, "" if none. For a bound, the length of the prompts may be missing:
// without any prompt the roofline is highest.
std::string Missing(const Published& r, bool for_bound) {
  const Metric* known = FindMetric(r.metric);
  ASSAY_CHECK(known);  // ParsePublished takes no other
  const Metric& metric = *known;
  const bool microbenchmark = r.scenario == "microbenchmark";
  if (r.unit == "tok/s" && !r.count) return "the number of cards";
  // A copy loop has watts and no precision.
  if (metric.has_precision && !(r.metric == "mean_w" && microbenchmark) && r.precision.empty()) return "the precision";
  if (!metric.of_model || microbenchmark) return "";
  if (r.model.empty()) return "the model";
  if (!r.isl && !for_bound) return "the length of the prompts";
  if (!r.osl && r.metric != "prefill_tps") return "the length of the outputs";
  if (!r.concurrency && !BatchIsFree(r)) return "how many requests ran at a time";
  return "";
}

std::string Number(const std::optional<double>& value) {
  return value ? fmt::format("{}", *value) : "as many as fit";
}

}  // namespace

std::vector<Published> ParsePublished(const std::string& file, const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_array()) throw Error("published results " + file + ": not a JSON array");
  std::vector<Published> results;
  for (size_t i = 0; i < json.size(); ++i) {
    results.push_back(ReadResult(json[i], fmt::format("published results {}, entry {}", file, i + 1)));
  }
  return results;
}

const std::vector<Published>& PublishedResults() {
  static const std::vector<Published> results = ReadAll();
  return results;
}

std::vector<const Published*> PublishedOf(const std::string& card_id, const std::string& metric) {
  std::vector<const Published*> found;
  for (const Published& result : PublishedResults()) {
    if (result.card == card_id && (metric.empty() || result.metric == metric)) found.push_back(&result);
  }
  return found;
}

std::optional<double> PerCard(const Published& result) {
  if (result.unit != "tok/s") return result.value;
  return result.count ? std::optional(result.value / *result.count) : std::nullopt;
}

Comparable CanCompare(const Published& a, const Published& b) {
  for (const Published* r : {&a, &b}) {
    if (!VariantKnown(r->card)) return Refuse(VariantUnknown(*r));
  }
  const auto pair = [](const std::string& x, const std::string& y) { return x + " beside " + y; };
  if (a.metric != b.metric) {
    const bool counts_input = a.metric == "total_tps" || b.metric == "total_tps";
    return Refuse(pair(a.metric, b.metric) +
                  (counts_input ? ": total_tps counts the tokens of the prompts as well" : ""));
  }
  if (a.unit != b.unit) return Refuse("different units: " + pair(a.unit, b.unit));
  if (a.model != b.model) return Refuse("different models: " + pair(a.model, b.model));
  if (a.scenario != b.scenario) return Refuse("different scenarios: " + pair(a.scenario, b.scenario));
  for (const Published* r : {&a, &b}) {
    if (const std::string missing = Missing(*r, false); !missing.empty())
      return Refuse(r->id + " does not give " + missing);
  }
  if (a.precision != b.precision) return Refuse("different precisions: " + pair(a.precision, b.precision));
  if (a.isl != b.isl) return Refuse("different lengths of prompts: " + pair(Number(a.isl), Number(b.isl)));
  if (a.osl != b.osl) return Refuse("different lengths of outputs: " + pair(Number(a.osl), Number(b.osl)));
  if (a.concurrency != b.concurrency) {
    return Refuse("different numbers of requests at a time: " + pair(Number(a.concurrency), Number(b.concurrency)));
  }
  return {};
}

Comparable HasConditions(const Published& r) {
  if (!VariantKnown(r.card)) return Refuse(VariantUnknown(r));
  if (r.metric == "idle_w" || r.metric == "j_per_output_token") return Refuse("nobody claims anything of " + r.metric);
  if (r.unit == "W (wall)") return Refuse("a wall meter measures the whole machine, the claim is of the card");
  // TDP bounds what a card draws whatever it runs.
  if (r.metric == "mean_w") return {};
  const std::string missing = Missing(r, r.metric == "output_tps");
  if (!missing.empty()) return Refuse("the source does not give " + missing);
  return {};
}

}  // namespace assay::bench
