// SPDX-License-Identifier: Apache-2.0
#include "bench/workload/prompts.h"

#include <algorithm>
#include <random>
#include <string>

#include "runtime/core/error.h"

namespace assay::bench {

Prompts::Prompts(uint64_t seed, int64_t vocab, const std::vector<int32_t>& special) : seed_(seed) {
  std::vector<int32_t> excluded = special;
  std::sort(excluded.begin(), excluded.end());
  for (int64_t id = 0; id < vocab; ++id) {
    if (!std::binary_search(excluded.begin(), excluded.end(), id)) allowed_.push_back(static_cast<int32_t>(id));
  }
  if (allowed_.empty()) {
    throw Error("the model's vocabulary of " + std::to_string(vocab) +
                " tokens has none that is not special: no prompt can be made of it");
  }
}

std::vector<int32_t> Prompts::Prompt(int64_t index, int64_t isl) const {
  ASSAY_CHECK(index >= 0 && isl >= 1);
  // The standard fixes what seed_seq and mt19937_64 give, but not what its distributions do with it.
  std::seed_seq seeds{static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32), static_cast<uint32_t>(index),
                      static_cast<uint32_t>(index >> 32)};
  std::mt19937_64 random(seeds);
  std::vector<int32_t> prompt(static_cast<size_t>(isl));
  for (int32_t& id : prompt) {
    // The high half of a 32x32-bit product maps to [0, n) with a bias below n / 2^32.
    id = allowed_[((random() >> 32) * allowed_.size()) >> 32];
  }
  return prompt;
}

}  // namespace assay::bench
