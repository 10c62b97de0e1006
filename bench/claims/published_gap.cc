// SPDX-License-Identifier: Apache-2.0
#include "bench/claims/published_gap.h"

#include <algorithm>
#include <cctype>

#include "bench/claims/build_gap.h"
#include "bench/claims/cards.h"
#include "bench/claims/model_roof.h"
#include "bench/stats/format.h"
#include "models/format/checkpoint.h"
#include "models/format/synthetic.h"

namespace assay::bench {
namespace {

PublishedGap Refuse(const std::string& why) {
  return {std::nullopt, why, false};
}

// "Qwen3-8B" and "Llama-3.1-8B-Instruct" are known shapes; instruction tuning changes no size.
std::optional<ModelConfig> ShapeOf(std::string model) {
  for (char& c : model) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const char* suffix : {"-instruct", "-chat"}) {
    if (model.ends_with(suffix)) model.resize(model.size() - std::string(suffix).size());
  }
  // Llama 3.3 70B has the sizes of Llama 3.1 70B, Llama 3 those of Llama 3.1.
  if (model == "llama-3.3-70b" || model == "llama-3-70b") model = "llama-3.1-70b";
  if (model == "llama-3-8b") model = "llama-3.1-8b";
  const auto names = SyntheticShapeNames();
  if (std::find(names.begin(), names.end(), model) == names.end()) return std::nullopt;
  return SyntheticConfig(model);
}

struct Precision {
  double weight_bytes, kv_bytes;
  const char* peak;  // the card's figure
};

// "FP8/BF16": weights / activations. Products run in the activations' precision; a KV cache takes at least a byte.
std::optional<Precision> PrecisionOf(const std::string& text) {
  const size_t slash = text.find('/');
  if (slash == text.npos) return std::nullopt;
  const auto bytes = [](const std::string& name) {
    if (name == "FP32") return 4.0;
    if (name == "BF16" || name == "FP16") return 2.0;
    if (name == "FP8" || name == "INT8") return 1.0;
    return 0.0;
  };
  const std::string weights = text.substr(0, slash), activations = text.substr(slash + 1);
  const double weight_bytes = weights == "INT4" || weights == "FP4" ? 0.5 : bytes(weights);
  const char* peak = activations == "BF16"   ? "bf16"
                     : activations == "FP16" ? "fp16"
                     : activations == "FP8"  ? "fp8"
                     : activations == "INT8" ? "int8"
                     : activations == "FP32" ? "fp32"
                     : activations == "TF32" ? "tf32"
                                             : nullptr;
  if (!peak) return std::nullopt;
  return Precision{weight_bytes, std::min(2.0, std::max(1.0, bytes(activations))), peak};
}

const Figure* Known(const Card& card, const char* key) {
  const Figure* figure = card.Find(key);
  return figure && figure->value ? figure : nullptr;
}

PublishedGap Against(const Published& r, double actual, const std::string& unit, double claimed, std::string claim,
                     const Provenance& provenance) {
  Gap gap;
  gap.metric = r.metric;
  gap.unit = unit;
  gap.claimed = claimed;
  gap.claim = std::move(claim);
  gap.provenance = provenance;
  gap.actual = {actual, std::nullopt, std::nullopt};
  gap.ratio = Over(gap.actual, claimed);
  return {std::move(gap), "", false};
}

PublishedGap AgainstFigure(const Published& r, const Card& card, const char* key, double scale, const std::string& unit,
                           const std::string& what) {
  const Figure* figure = Known(card, key);
  if (!figure) return Refuse("no public " + what + " of " + card.name);
  return Against(r, *PerCard(r) * scale, unit, DenseValue(*figure), "claimed " + what, ProvenanceOf(card, *figure));
}

PublishedGap AgainstRoof(const Published& r, const Card& card) {
  if (r.metric != "output_tps") return Refuse("only output tokens have a roofline here, not " + r.metric);
  const auto config = ShapeOf(r.model);
  if (!config) return Refuse("the sizes of " + r.model + " are not known here");
  const auto precision = PrecisionOf(r.precision);
  if (!precision || precision->weight_bytes == 0)
    return Refuse("the bytes per weight of " + r.precision + " are not known");
  const Figure *flops = Known(card, precision->peak), *bytes = Known(card, "bytes_per_s");
  if (!flops) return Refuse("no public " + std::string(precision->peak) + " peak of " + card.name);
  if (!bytes) return Refuse("no public memory bandwidth of " + card.name);
  const double cards = r.count.value_or(1);
  ServedWork work{r.isl.value_or(0), *r.osl, r.concurrency.value_or(0), precision->weight_bytes, precision->kv_bytes};
  std::string bound;
  if (!r.isl) bound = "prompts of unknown length counted as none";
  if (!r.concurrency) {
    const Figure* memory = Known(card, "memory_bytes");
    if (!memory) return Refuse("neither the batch nor the card's memory is known");
    work.batch = LargestBatch(*config, work, cards * *memory->value);
    bound +=
        (bound.empty() ? "" : ", ") + ("a batch of " + FormatNumber(work.batch) + ", the most that the memory holds");
  }
  const double roof = OutputRoof(*config, work, cards * DenseValue(*flops), cards * DenseValue(*bytes)) / cards;
  PublishedGap answer =
      Against(r, *PerCard(r), "tok/s", roof,
              "roofline at the claimed peaks (" + std::string(precision->peak) + " " +
                  FormatScaled(DenseValue(*flops), "FLOP/s") + ", " + FormatScaled(DenseValue(*bytes), "B/s") + ")" +
                  (bound.empty() ? "" : ", an upper bound: " + bound),
              ProvenanceOf(card, *flops, *bytes));
  answer.at_least = !bound.empty();
  return answer;
}

}  // namespace

PublishedGap GapOfPublished(const Published& r) {
  if (const Comparable conditions = HasConditions(r); !conditions.ok) return Refuse(conditions.why_not);
  const auto card = std::find_if(Cards().begin(), Cards().end(), [&](const Card& c) { return c.id == r.card; });
  if (card == Cards().end()) return Refuse("the card " + r.card + " is not in the database");
  if (r.metric == "gemm_tflops") {
    const auto precision = PrecisionOf(r.precision);
    if (!precision) return Refuse("the precision " + r.precision + " is not known");
    return AgainstFigure(r, *card, precision->peak, 1e12, "FLOP/s", "dense " + std::string(precision->peak) + " peak");
  }
  if (r.metric == "copy_gbps" || r.metric == "read_gbps") {
    return AgainstFigure(r, *card, "bytes_per_s", 1e9, "B/s", "memory bandwidth");
  }
  if (r.metric == "mean_w") return AgainstFigure(r, *card, "tdp_w", 1, "W", "TDP");
  return AgainstRoof(r, *card);
}

}  // namespace assay::bench
