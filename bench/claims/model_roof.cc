// SPDX-License-Identifier: Apache-2.0
#include "bench/claims/model_roof.h"

#include <algorithm>
#include <cmath>

namespace assay::bench {
namespace {

// Parameters that a token is multiplied with: all but the embedding look-up.
double MultipliedParameters(const ModelConfig& c) {
  const double all = static_cast<double>(c.Parameters());
  return c.tied_embeddings ? all : all - static_cast<double>(c.vocab * c.hidden);
}

double KvElementsPerToken(const ModelConfig& c) {
  return 2.0 * static_cast<double>(c.layers * c.kv_heads * c.head_dim);
}

// Scores and weighted sum over a context.
double AttentionFlops(const ModelConfig& c, double context) {
  return 4.0 * static_cast<double>(c.layers * c.heads * c.head_dim) * context;
}

}  // namespace

double OutputRoof(const ModelConfig& c, const ServedWork& w, double flops, double bytes_per_s) {
  const double parameters = MultipliedParameters(c), weights = parameters * w.weight_bytes;
  const double prompt_flops = w.batch * w.isl * (2 * parameters + AttentionFlops(c, w.isl / 2));
  const double prompt_s = w.isl > 0 ? std::max(prompt_flops / flops, weights / bytes_per_s) : 0;
  const double context = w.isl + w.osl / 2;
  const double step_flops = w.batch * (2 * parameters + AttentionFlops(c, context));
  const double step_bytes = weights + w.batch * context * KvElementsPerToken(c) * w.kv_bytes;
  const double step_s = std::max(step_flops / flops, step_bytes / bytes_per_s);
  return w.batch * w.osl / (prompt_s + w.osl * step_s);
}

double LargestBatch(const ModelConfig& c, const ServedWork& w, double memory_bytes) {
  const double left = memory_bytes - static_cast<double>(c.Parameters()) * w.weight_bytes;
  const double per_request = (w.isl + w.osl) * KvElementsPerToken(c) * w.kv_bytes;
  return std::max(1.0, std::floor(left / per_request));
}

}  // namespace assay::bench
