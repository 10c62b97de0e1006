// SPDX-License-Identifier: Apache-2.0
// How many tokens a stretch of time made of the requests around it. Pure function, any thread.
#pragma once

#include <span>

#include "bench/power/sampler.h"
#include "bench/result/write.h"

namespace assay::bench {

struct TokenCount {
  double input = 0, output = 0;
  double total() const { return input + output; }
};

// The first output token and the prompt belong to the time from sending to the first token, each other token to the
// time since the token before it; what of that time lies in the window counts. Fractions, because a window may cut
// requests and steps anywhere, and rounding would bias short windows. Failed requests do not count.
// epoch_s: the moment of RequestSample::sent_s = 0 on the clock of the window.
TokenCount TokensWithin(std::span<const RequestSample> requests, double epoch_s, const Window& window);

}  // namespace assay::bench
