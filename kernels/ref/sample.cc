// SPDX-License-Identifier: Apache-2.0
// sample and logprobs: from logits to a token, and to the logarithms of probabilities.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/ref/convert.h"
#include "kernels/ref/ops.h"

namespace assay::ref {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A NaN logit counts as -inf: it is never chosen while there is another.
std::vector<double> LogitsRow(const View& logits, int64_t row) {
  std::vector<double> values = LoadRow(logits, At(logits, row), logits.shape[1]);
  for (double& value : values) {
    if (std::isnan(value)) value = -kInfinity;
  }
  return values;
}

// Indices by (value descending, index ascending).
std::vector<int32_t> Ranked(const std::vector<double>& values) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)];
  });
  return order;
}

struct SampleParams {
  double temperature;
  int32_t top_k;
  double top_p;
  double min_p;
  float uniform;
};

int32_t SampleRow(const std::vector<double>& logits, const SampleParams& params) {
  const std::vector<int32_t> order = Ranked(logits);
  const double largest = logits[static_cast<size_t>(order[0])];
  if (!(params.temperature > 0) || largest == -kInfinity) return order[0];

  // Unnormalised probabilities of the candidates, the largest being 1.
  std::vector<double> p;
  for (const int32_t i : order) {
    const double logit = logits[static_cast<size_t>(i)];
    p.push_back(logit == largest ? 1.0 : std::exp((logit - largest) / params.temperature));
  }
  if (params.top_k > 0 && params.top_k < static_cast<int64_t>(p.size())) p.resize(static_cast<size_t>(params.top_k));
  if (params.top_p < 1) {
    const double reach = params.top_p * std::accumulate(p.begin(), p.end(), 0.0);
    size_t kept = 1;
    for (double sum = p[0]; sum < reach && kept < p.size(); ++kept) sum += p[kept];
    p.resize(kept);
  }
  if (params.min_p > 0) {
    while (p.size() > 1 && p.back() < params.min_p * p[0]) p.pop_back();
  }

  const double target = params.uniform * std::accumulate(p.begin(), p.end(), 0.0);
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    sum += p[i];
    if (sum > target) return order[i];
  }
  return order[p.size() - 1];
}

}  // namespace

void Sample(const View& logits, const View& temperature, const View& top_k, const View& top_p, const View& min_p,
            const View& seed, const View& step, const View& ids) {
  for (int64_t s = 0; s < logits.shape[0]; ++s) {
    const SampleParams params = {
        .temperature = temperature.as<const float>()[s * temperature.stride[0]],
        .top_k = top_k.as<const int32_t>()[s * top_k.stride[0]],
        .top_p = top_p.as<const float>()[s * top_p.stride[0]],
        .min_p = min_p.as<const float>()[s * min_p.stride[0]],
        .uniform = Uniform(static_cast<uint64_t>(seed.as<const int64_t>()[s * seed.stride[0]]),
                           static_cast<uint32_t>(step.as<const int32_t>()[s * step.stride[0]])),
    };
    ids.as<int32_t>()[s * ids.stride[0]] = SampleRow(LogitsRow(logits, s), params);
  }
}

void Logprobs(const View& logits, const View& targets, const View& target_logprob, const View& top_ids,
              const View& top_logprobs) {
  for (int64_t m = 0; m < logits.shape[0]; ++m) {
    const std::vector<double> row = LoadRow(logits, At(logits, m), logits.shape[1]);
    const std::vector<double> ranked = LogitsRow(logits, m);
    const double largest = *std::max_element(ranked.begin(), ranked.end());
    double sum = 0;  // a NaN among the logits makes every logprob of the row NaN
    for (const double value : row) sum += std::exp(value - largest);
    const double normalizer = largest + std::log(sum);

    const int32_t target = targets.as<const int32_t>()[m * targets.stride[0]];
    const bool inside = target >= 0 && target < logits.shape[1];
    Store(target_logprob, m * target_logprob.stride[0],
          inside ? row[static_cast<size_t>(target)] - normalizer : std::numeric_limits<double>::quiet_NaN());
    if (!top_ids) continue;
    const std::vector<int32_t> order = Ranked(ranked);
    for (int64_t k = 0; k < top_ids.shape[1]; ++k) {
      const int32_t id = order[static_cast<size_t>(k)];
      top_ids.as<int32_t>()[At(top_ids, m, k)] = id;
      Store(top_logprobs, At(top_logprobs, m, k), row[static_cast<size_t>(id)] - normalizer);
    }
  }
}

}  // namespace assay::ref
