// SPDX-License-Identifier: Apache-2.0
// Whether this machine's tiles compute what its vectors do.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cpu/linear_kernels.h"

namespace assay::cpu {

bool AmxAgrees(const Isa& isa, const AmxKernels& amx) {
  constexpr int64_t kM = 65, kN = 100, kK = 392;  // tails in all directions, two blocks of columns
  const WeightSpec spec{DType::kBF16, DType::kNone, kN, kK};
  uint32_t state = 1;
  const auto next = [&] { return static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-24f - 0.5f; };
  std::vector<float> x(kM * kK);
  std::generate(x.begin(), x.end(), next);
  std::vector<uint16_t> w(kN * kK);
  for (uint16_t& v : w) {
    const float f = next();
    uint32_t bits;
    std::memcpy(&bits, &f, sizeof(bits));
    v = static_cast<uint16_t>(bits >> 16);
  }
  struct alignas(kWeightAlignment) Line {
    char bytes[kWeightAlignment];
  };
  const auto lines = [](size_t bytes) { return std::vector<Line>(bytes / sizeof(Line) + 1); };
  std::vector<Line> packed = lines(PackedWeightBytes(spec));
  PackWeight(spec, w.data(), nullptr, packed.data(), {});
  const auto matrix = [](float* data, int64_t cols) {
    return View{data, DType::kF32, 2, {kM, cols, 1, 1}, {cols, 1, 0, 0}};
  };
  const auto product = [&](bool tiles) {
    Isa level = isa;
    level.amx_bf16 = tiles;
    std::vector<Line> workspace = lines(LinearWorkspaceFor(level, spec, kM, 1));
    std::vector<float> y(kM * kN);
    LinearFor(level, spec, matrix(x.data(), kK), packed.data(), {}, matrix(y.data(), kN), workspace.data(), {}, amx);
    return y;
  };
  const std::vector<float> own = product(true), expected = product(false);
  // Both round x to bf16 where the vectors do so; else their difference is that rounding's: 2^-9 of terms up to 1/4.
  const float allowed = std::sqrt(static_cast<float>(kK)) * 0x1p-9f;
  for (size_t i = 0; i < own.size(); ++i) {
    if (!(std::abs(own[i] - expected[i]) <= allowed)) return false;
  }
  return true;
}

bool TilesAgree() {
  static const bool agree = !CurrentIsa().amx_bf16 || AmxAgrees(CurrentIsa());
  return agree;
}

}  // namespace assay::cpu
