// SPDX-License-Identifier: Apache-2.0
// Requests to measure with: prompts of random token ids, the same for the same seed on every machine. Plain values.
#pragma once

#include <cstdint>
#include <vector>

namespace assay::bench {

// Any thread: Prompt() is const and pure.
class Prompts {
 public:
  // vocab: ids are drawn from [0, vocab) without `special` (ids outside are ignored), because a special token can end a
  // text or change what the model does. Throws Error where nothing is left to draw from.
  Prompts(uint64_t seed, int64_t vocab, const std::vector<int32_t>& special);

  // Prompt number `index`, `isl` ids long; independent of how many others are asked for. Prompts differ from their
  // first tokens on, so that no prefix cache can answer for one with another. isl >= 1.
  std::vector<int32_t> Prompt(int64_t index, int64_t isl) const;

 private:
  uint64_t seed_;
  std::vector<int32_t> allowed_;  // ascending
};

}  // namespace assay::bench
