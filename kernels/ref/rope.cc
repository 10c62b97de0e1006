// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding and its frequency scalings.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/ref/convert.h"
#include "kernels/ref/ops.h"

namespace assay::ref {
namespace {

constexpr double kTwoPi = 2 * std::numbers::pi;

// Llama 3.1: long wavelengths are divided by factor, short ones kept, those between blended.
double Llama3Frequency(const RopeAttr& a, double frequency) {
  const double turns = a.original_context * frequency / kTwoPi;  // within the trained context
  if (turns < a.low_freq_factor) return frequency / a.factor;
  if (turns > a.high_freq_factor) return frequency;
  const double smooth = (turns - a.low_freq_factor) / (static_cast<double>(a.high_freq_factor) - a.low_freq_factor);
  return (1 - smooth) * frequency / a.factor + smooth * frequency;
}

// YaRN: the pair index at which a frequency makes `rotations` turns within the trained context.
double YarnPair(const RopeAttr& a, double rotations) {
  return a.rotary_dim * std::log(a.original_context / (rotations * kTwoPi)) /
         (2 * std::log(static_cast<double>(a.theta)));
}

// YaRN (arXiv 2309.00071), with the ramp's ends on whole pairs as in its authors' code.
double YarnFrequency(const RopeAttr& a, int pair, double frequency) {
  const double low = std::max(std::floor(YarnPair(a, a.beta_fast)), 0.0);
  double high = std::min(std::ceil(YarnPair(a, a.beta_slow)), a.rotary_dim - 1.0);
  if (low == high) high += 0.001;
  const double interpolated = std::clamp((pair - low) / (high - low), 0.0, 1.0);
  return frequency / a.factor * interpolated + frequency * (1 - interpolated);
}

void Rotate(const View& x, int64_t token, int pair, double cos, double sin, const RopeAttr& attr) {
  const int64_t first = attr.interleaved ? 2 * pair : pair;
  const int64_t second = attr.interleaved ? 2 * pair + 1 : pair + attr.rotary_dim / 2;
  for (int64_t h = 0; h < x.shape[1]; ++h) {
    const double a = Load(x, At(x, token, h, first));
    const double b = Load(x, At(x, token, h, second));
    Store(x, At(x, token, h, first), a * cos - b * sin);
    Store(x, At(x, token, h, second), b * cos + a * sin);
  }
}

}  // namespace

void RopeInvFreq(const RopeAttr& attr, double* inv_freq) {
  for (int i = 0; i < attr.rotary_dim / 2; ++i) {
    const double frequency = std::pow(static_cast<double>(attr.theta), -2.0 * i / attr.rotary_dim);
    switch (attr.scaling) {
      case RopeScaling::kNone:
        inv_freq[i] = frequency;
        break;
      case RopeScaling::kLinear:
        inv_freq[i] = frequency / attr.factor;
        break;
      case RopeScaling::kLlama3:
        inv_freq[i] = Llama3Frequency(attr, frequency);
        break;
      case RopeScaling::kYarn:
        inv_freq[i] = YarnFrequency(attr, i, frequency);
        break;
    }
  }
}

void Rope(const View& positions, const View& freq_factors, const View& q, const View& k, const RopeAttr& attr) {
  const double magnitude = attr.scaling == RopeScaling::kYarn ? attr.attn_factor : 1.0;
  std::vector<double> inv_freq(static_cast<size_t>(attr.rotary_dim / 2));
  RopeInvFreq(attr, inv_freq.data());
  for (int64_t t = 0; t < q.shape[0]; ++t) {
    const double position = positions.as<const int32_t>()[t * positions.stride[0]];
    for (int i = 0; i < attr.rotary_dim / 2; ++i) {
      const double factor = freq_factors ? Load(freq_factors, i) : 1.0;
      const double angle = position * inv_freq[static_cast<size_t>(i)] / factor;
      const double cos = std::cos(angle) * magnitude;
      const double sin = std::sin(angle) * magnitude;
      Rotate(q, t, i, cos, sin, attr);
      if (k) Rotate(k, t, i, cos, sin, attr);
    }
  }
}

}  // namespace assay::ref
