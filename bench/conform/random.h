// SPDX-License-Identifier: Apache-2.0
// Deterministic pseudo-random numbers for test inputs: the same on every machine, seeded by text.
#pragma once

#include <cmath>
#include <cstdint>
#include <string_view>

namespace assay::bench {

class Random {
 public:
  explicit Random(std::string_view seed) {
    for (const char c : seed) state_ = (state_ ^ static_cast<uint8_t>(c)) * 0x100000001B3ull;  // FNV-1a
  }
  uint64_t Next() {  // splitmix64
    uint64_t z = state_ += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  int64_t Below(int64_t n) { return static_cast<int64_t>(Uniform() * static_cast<double>(n)); }
  // Normal to within what tests need: the sum of twelve uniform numbers of 16 bits; never beyond 6 deviations.
  float Normal() {
    uint32_t sum = 0;
    for (int i = 0; i < 3; ++i) {
      const uint64_t bits = Next();
      sum += static_cast<uint32_t>((bits & 0xffff) + ((bits >> 16) & 0xffff) + ((bits >> 32) & 0xffff) + (bits >> 48));
    }
    return static_cast<float>(sum) * 0x1p-16f - 6.0f;
  }

 private:
  uint64_t state_ = 0xCBF29CE484222325ull;
};

}  // namespace assay::bench
