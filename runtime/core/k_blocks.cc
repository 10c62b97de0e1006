// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/k_blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/core/dtype.h"

namespace assay {
namespace {

float Load16(const uint8_t* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  return F16ToF32(h);
}

// Returns what is stored: the sub-blocks are measured in it.
float Store16(uint8_t* p, float f) {
  const uint16_t h = F32ToF16(f);
  std::memcpy(p, &h, 2);
  return F16ToF32(h);
}

// The comparisons also turn NaN into a number in range.
int Clamp(float v, float low, float high) {
  v = v > low ? v : low;
  return static_cast<int>(v < high ? v : high);
}

int Steps(float v, float step, int most) {
  return step != 0.0f ? Clamp(std::ceil(v / step), 0.0f, static_cast<float>(most)) : 0;
}

// Q4_K and Q5_K: f16 d; f16 m; u8 s[12]: eight scales and minima of 6 bits.
constexpr int kSubBlocks = 8, kSubBlock = 32;
struct Scales {
  uint8_t scale[kSubBlocks], minimum[kSubBlocks];
};

void PackScales(const Scales& s, uint8_t* out) {
  for (int j = 0; j < 4; ++j) {
    out[j] = static_cast<uint8_t>(s.scale[j] | (s.scale[j + 4] >> 4) << 6);
    out[j + 4] = static_cast<uint8_t>(s.minimum[j] | (s.minimum[j + 4] >> 4) << 6);
    out[j + 8] = static_cast<uint8_t>((s.scale[j + 4] & 15) | (s.minimum[j + 4] & 15) << 4);
  }
}

Scales UnpackScales(const uint8_t* in) {
  Scales s;
  for (int j = 0; j < 4; ++j) {
    s.scale[j] = in[j] & 63;
    s.minimum[j] = in[j + 4] & 63;
    s.scale[j + 4] = static_cast<uint8_t>((in[j + 8] & 15) | (in[j] >> 6) << 4);
    s.minimum[j + 4] = static_cast<uint8_t>(in[j + 8] >> 4 | (in[j + 4] >> 6) << 4);
  }
  return s;
}

// q: 256 integers from 0 to `most`. A sub-block's range begins at or below 0, for the minimum is subtracted.
void QuantizeWithMinima(const float* x, int most, uint8_t* block, uint8_t* q) {
  float low[kSubBlocks], high[kSubBlocks], largest = 0.0f, lowest = 0.0f;
  for (int j = 0; j < kSubBlocks; ++j) {
    low[j] = high[j] = 0.0f;
    for (int i = 0; i < kSubBlock; ++i) {
      low[j] = std::min(low[j], x[j * kSubBlock + i]);
      high[j] = std::max(high[j], x[j * kSubBlock + i]);
    }
    lowest = std::min(lowest, low[j]);
    largest = std::max(largest, high[j] - low[j]);
  }
  const float d = Store16(block, largest / static_cast<float>(63 * most));
  const float m = Store16(block + 2, -lowest / 63.0f);
  Scales s;
  for (int j = 0; j < kSubBlocks; ++j) {
    s.minimum[j] = static_cast<uint8_t>(Steps(-low[j], m, 63));
    const float offset = m * s.minimum[j];
    s.scale[j] = static_cast<uint8_t>(Steps((high[j] + offset) / static_cast<float>(most), d, 63));
    const float step = d * s.scale[j];
    const float inverse = step != 0.0f ? 1.0f / step : 0.0f;
    for (int i = j * kSubBlock; i < (j + 1) * kSubBlock; ++i) {
      q[i] = static_cast<uint8_t>(Clamp((x[i] + offset) * inverse + 0.5f, 0.0f, static_cast<float>(most)));
    }
  }
  PackScales(s, block + 4);
}

// Where element i of sub-block j has its low nibble: byte and shift.
constexpr int NibbleAt(int j, int i) {
  return j / 2 * kSubBlock + i;
}
constexpr int NibbleShift(int j) {
  return j % 2 * 4;
}

// high: the bytes with bit 4 of every element, nullptr for none.
void DequantizeWithMinima(const uint8_t* block, const uint8_t* high, const uint8_t* low, float* x) {
  const float d = Load16(block), m = Load16(block + 2);
  const Scales s = UnpackScales(block + 4);
  for (int j = 0; j < kSubBlocks; ++j) {
    const float step = d * s.scale[j], offset = m * s.minimum[j];
    for (int i = 0; i < kSubBlock; ++i) {
      const int bit = high != nullptr ? (high[i] >> j & 1) << 4 : 0;
      const int q = (low[NibbleAt(j, i)] >> NibbleShift(j) & 15) | bit;
      x[j * kSubBlock + i] = step * static_cast<float>(q) - offset;
    }
  }
}

// Q6_K: where the parts of element i lie. q and h as in the ABI's description.
struct Q6Place {
  int low, low_shift, high, high_shift;
};
constexpr Q6Place PlaceOfQ6(int i) {
  const int n = i / 128, t = i % 128 / 32, l = i % 32;
  return {64 * n + 32 * (t % 2) + l, t / 2 * 4, 32 * n + l, 2 * t};
}
constexpr int kQ6High = 128, kQ6Scales = 192, kQ6D = 208, kQ6SubBlock = 16;

}  // namespace

void QuantizeQ4K(const float* x, uint8_t* block) {
  uint8_t q[kKBlock];
  QuantizeWithMinima(x, 15, block, q);
  uint8_t* low = block + 16;
  std::memset(low, 0, 128);
  for (int i = 0; i < kKBlock; ++i) low[NibbleAt(i / 32, i % 32)] |= static_cast<uint8_t>(q[i] << NibbleShift(i / 32));
}

void QuantizeQ5K(const float* x, uint8_t* block) {
  uint8_t q[kKBlock];
  QuantizeWithMinima(x, 31, block, q);
  uint8_t *high = block + 16, *low = block + 48;
  std::memset(high, 0, 32 + 128);
  for (int i = 0; i < kKBlock; ++i) {
    low[NibbleAt(i / 32, i % 32)] |= static_cast<uint8_t>((q[i] & 15) << NibbleShift(i / 32));
    high[i % 32] |= static_cast<uint8_t>((q[i] >> 4) << i / 32);
  }
}

// As in ggml, the value of largest magnitude becomes -32 and so decides the scale's sign, and likewise for the
// scales: both signs occur.
void QuantizeQ6K(const float* x, uint8_t* block) {
  constexpr int kScales = kKBlock / kQ6SubBlock;
  const auto by_magnitude = [](float a, float b) { return std::fabs(a) < std::fabs(b); };
  float extreme[kScales];
  for (int j = 0; j < kScales; ++j) {
    extreme[j] = *std::max_element(x + j * kQ6SubBlock, x + (j + 1) * kQ6SubBlock, by_magnitude) / -32.0f;
  }
  const float d = Store16(block + kQ6D, *std::max_element(extreme, extreme + kScales, by_magnitude) / -128.0f);
  std::memset(block, 0, kQ6Scales);
  for (int j = 0; j < kScales; ++j) {
    const float exact = d != 0.0f ? extreme[j] / d : 0.0f;
    const int scale = Clamp(exact < 0.0f ? std::floor(exact) : std::ceil(exact), -128.0f, 127.0f);
    block[kQ6Scales + j] = static_cast<uint8_t>(scale);
    const float step = d * static_cast<float>(scale);
    const float inverse = step != 0.0f ? 1.0f / step : 0.0f;
    for (int i = j * kQ6SubBlock; i < (j + 1) * kQ6SubBlock; ++i) {
      const int q = Clamp(x[i] * inverse + 32.5f, 0.0f, 63.0f);
      const Q6Place at = PlaceOfQ6(i);
      block[at.low] |= static_cast<uint8_t>((q & 15) << at.low_shift);
      block[kQ6High + at.high] |= static_cast<uint8_t>((q >> 4) << at.high_shift);
    }
  }
}

void DequantizeQ4K(const uint8_t* block, float* x) {
  DequantizeWithMinima(block, nullptr, block + 16, x);
}

void DequantizeQ5K(const uint8_t* block, float* x) {
  DequantizeWithMinima(block, block + 16, block + 48, x);
}

void DequantizeQ6K(const uint8_t* block, float* x) {
  const float d = Load16(block + kQ6D);
  for (int i = 0; i < kKBlock; ++i) {
    const Q6Place at = PlaceOfQ6(i);
    const int q = (block[at.low] >> at.low_shift & 15) | (block[kQ6High + at.high] >> at.high_shift & 3) << 4;
    const float step = d * static_cast<float>(static_cast<int8_t>(block[kQ6Scales + i / kQ6SubBlock]));
    x[i] = step * static_cast<float>(q - 32);
  }
}

}  // namespace assay
