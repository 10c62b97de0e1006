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
  const double head = static_cast<double>(c.vocab * c.hidden), layers = MultipliedParameters(c) - head;
  const double context = w.isl + w.osl / 2, steps = std::max(0.0, w.osl - 1);
  const double request_flops = 2 * layers * (w.isl + steps) + 2 * head * w.osl + w.isl * AttentionFlops(c, w.isl / 2) +
                               steps * AttentionFlops(c, context);
  const double batch_bytes =
      w.osl * (layers + head) * w.weight_bytes + w.batch * steps * context * KvElementsPerToken(c) * w.kv_bytes;
  return w.batch * w.osl / std::max(w.batch * request_flops / flops, batch_bytes / bytes_per_s);
}

double LargestBatch(const ModelConfig& c, const ServedWork& w, double memory_bytes) {
  const double left = memory_bytes - static_cast<double>(c.Parameters()) * w.weight_bytes;
  const double per_request = (w.isl + w.osl / 2) * KvElementsPerToken(c) * w.kv_bytes;
  return std::max(1.0, std::floor(left / per_request));
}

}  // namespace assay::bench
