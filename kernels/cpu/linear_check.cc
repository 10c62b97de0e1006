// SPDX-License-Identifier: Apache-2.0
// Whether this machine's tiles compute what its vectors do.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cpu/linear_kernels.h"

namespace assay::cpu {
namespace {

// Of whole numbers, which sums hold exactly.
bool SmallProductAgrees(const AmxKernels& amx) {
  constexpr int64_t kM = 55, kRows = 64, kN = 128, kK = 64;
  const auto number = [](int64_t i) { return static_cast<float>((i * 37 + i / 64 * 11) % 15 - 7); };
  const auto bits = [](float v) {
    uint32_t u;
    std::memcpy(&u, &v, sizeof(u));
    return static_cast<uint16_t>(u >> 16);
  };
  std::vector<uint16_t> x(kRows * kK), w(kN * kK);
  for (int64_t i = 0; i < kRows * kK; ++i) x[i] = bits(number(i));
  for (int64_t n = 0; n < kN; ++n) {
    for (int64_t k = 0; k < kK; ++k) {
      w[n / 64 * 64 * kK + (k / 2 * 64 + n % 64) * 2 + k % 2] = bits(number(kRows * kK + n * kK + k));
    }
  }
  std::vector<float> y(kM * kN, 1.0f);
  GemmArgs a;
  a.x = x.data();
  a.w = reinterpret_cast<const std::byte*>(w.data());
  a.y = y.data();
  a.ldx = a.k = kK;
  a.panel_bytes = kPanelRows * kK * 2;
  a.m1 = kM;
  a.ldy = a.n1 = kN;
  for (const bool accumulate : {false, true}) {
    a.accumulate = accumulate;
    amx.small(a);
  }
  for (int64_t m = 0; m < kM; ++m) {
    for (int64_t n = 0; n < kN; ++n) {
      float want = 0;
      for (int64_t k = 0; k < kK; ++k) want += number(m * kK + k) * number(kRows * kK + n * kK + k);
      if (y[m * kN + n] != 2 * want) return false;
    }
  }
  return true;
}

bool GemmAgrees(const Isa& isa, const AmxKernels& amx) {
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

}  // namespace

bool AmxAgrees(const Isa& isa, const AmxKernels& amx) {
  return SmallProductAgrees(amx) && GemmAgrees(isa, amx);
}

bool TilesAgree() {
  static const bool agree = !CurrentIsa().amx_bf16 || AmxAgrees(CurrentIsa());
  return agree;
}

}  // namespace assay::cpu
