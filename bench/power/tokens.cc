// SPDX-License-Identifier: Apache-2.0
#include "bench/power/tokens.h"

#include <algorithm>

namespace assay::bench {

TokenCount TokensWithin(std::span<const RequestSample> requests, double epoch_s, const Window& window) {
  // The share of the time from `begin_s` to `end_s` that lies in the window; of no time at all, its moment.
  const auto share = [&](double begin_s, double end_s) {
    if (end_s <= begin_s) return end_s > window.begin_s && end_s <= window.end_s ? 1.0 : 0.0;
    const double overlap = std::min(end_s, window.end_s) - std::max(begin_s, window.begin_s);
    return std::max(0.0, overlap) / (end_s - begin_s);
  };
  TokenCount count;
  for (const RequestSample& r : requests) {
    if (!r.ttft_ms || r.error) continue;
    const double sent_s = epoch_s + r.sent_s;
    double token_s = sent_s + *r.ttft_ms * 1e-3;
    const double prefill = share(sent_s, token_s);
    count.input += prefill * static_cast<double>(r.input_tokens);
    count.output += prefill;
    for (const double gap_ms : r.itl_ms) {
      count.output += share(token_s, token_s + gap_ms * 1e-3);
      token_s += gap_ms * 1e-3;
    }
  }
  return count;
}

}  // namespace assay::bench
