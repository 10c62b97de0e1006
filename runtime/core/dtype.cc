// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/dtype.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>

#include "runtime/core/error.h"

namespace assay {
namespace {

struct Entry {
  assay_dtype dtype;
  DTypeInfo info;
};

constexpr Entry kTypes[] = {
    {ASSAY_F32, {"f32", 1, 4}},         {ASSAY_F16, {"f16", 1, 2}},         {ASSAY_BF16, {"bf16", 1, 2}},
    {ASSAY_F8_E4M3, {"f8_e4m3", 1, 1}}, {ASSAY_F8_E5M2, {"f8_e5m2", 1, 1}}, {ASSAY_I8, {"i8", 1, 1}},
    {ASSAY_U8, {"u8", 1, 1}},           {ASSAY_I32, {"i32", 1, 4}},         {ASSAY_I64, {"i64", 1, 8}},
    {ASSAY_Q8_0, {"q8_0", 32, 34}},     {ASSAY_Q4_0, {"q4_0", 32, 18}},     {ASSAY_Q4_1, {"q4_1", 32, 20}},
};

constexpr int kBlock = 32;

float Load16(const uint8_t* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  return F16ToF32(h);
}

void Store16(uint8_t* p, float f) {
  const uint16_t h = F32ToF16(f);
  std::memcpy(p, &h, 2);
}

// The quantisers repeat ggml's reference step by step, so that files agree with its bit by bit. What is compared with
// `>` or `<` below also turns NaN, which a legal quantity cannot be, into a number in range.
int32_t Clamp(float v, float low, float high) {
  v = v > low ? v : low;
  return static_cast<int32_t>(v < high ? v : high);
}

float Inverse(float d) {
  return d != 0.0f ? 1.0f / d : 0.0f;
}

void QuantizeQ8_0(const float* x, uint8_t* block) {
  float amax = 0.0f;
  for (int i = 0; i < kBlock; ++i) amax = std::max(amax, std::fabs(x[i]));
  const float d = amax / 127.0f;
  const float id = Inverse(d);
  Store16(block, d);
  for (int i = 0; i < kBlock; ++i) {
    const float v = x[i] * id;
    const int32_t whole = Clamp(v, -127.0f, 127.0f);
    const float rest = v - static_cast<float>(whole);
    const int32_t up = rest >= 0.5f;
    const int32_t down = rest <= -0.5f;
    block[2 + i] = static_cast<uint8_t>(std::clamp(whole + up - down, -127, 127));  // roundf: halves away from zero
  }
}

void QuantizeQ4_0(const float* x, uint8_t* block) {
  float amax = 0.0f;
  float max = 0.0f;
  for (int i = 0; i < kBlock; ++i) {
    if (std::fabs(x[i]) > amax) {
      amax = std::fabs(x[i]);
      max = x[i];
    }
  }
  const float d = max / -8.0f;
  const float id = Inverse(d);
  Store16(block, d);
  for (int i = 0; i < kBlock / 2; ++i) {
    const float low = x[i] * id;
    const float high = x[i + kBlock / 2] * id;
    block[2 + i] = static_cast<uint8_t>(Clamp(low + 8.5f, 0.0f, 15.0f) | Clamp(high + 8.5f, 0.0f, 15.0f) << 4);
  }
}

void QuantizeQ4_1(const float* x, uint8_t* block) {
  float min = x[0];
  float max = x[0];
  for (int i = 1; i < kBlock; ++i) {
    min = std::min(min, x[i]);
    max = std::max(max, x[i]);
  }
  const float d = (max - min) / 15.0f;
  const float id = Inverse(d);
  Store16(block, d);
  Store16(block + 2, min);
  for (int i = 0; i < kBlock / 2; ++i) {
    const float low = (x[i] - min) * id;
    const float high = (x[i + kBlock / 2] - min) * id;
    block[4 + i] = static_cast<uint8_t>(Clamp(low + 0.5f, 0.0f, 15.0f) | Clamp(high + 0.5f, 0.0f, 15.0f) << 4);
  }
}

void DequantizeQ8_0(const uint8_t* block, float* x) {
  const float d = Load16(block);
  for (int i = 0; i < kBlock; ++i) x[i] = d * static_cast<float>(static_cast<int8_t>(block[2 + i]));
}

void DequantizeQ4_0(const uint8_t* block, float* x) {
  const float d = Load16(block);
  for (int i = 0; i < kBlock / 2; ++i) {
    x[i] = d * static_cast<float>((block[2 + i] & 15) - 8);
    x[i + kBlock / 2] = d * static_cast<float>((block[2 + i] >> 4) - 8);
  }
}

void DequantizeQ4_1(const uint8_t* block, float* x) {
  const float d = Load16(block);
  const float m = Load16(block + 2);
  for (int i = 0; i < kBlock / 2; ++i) {
    const float low = d * static_cast<float>(block[4 + i] & 15);
    const float high = d * static_cast<float>(block[4 + i] >> 4);
    x[i] = low + m;
    x[i + kBlock / 2] = high + m;
  }
}

template <uint16_t (*Convert)(float)>
void Narrow(const float* x, uint8_t* dst, uint64_t n) {
  for (uint64_t i = 0; i < n; ++i) {
    const uint16_t h = Convert(x[i]);
    std::memcpy(dst + 2 * i, &h, 2);
  }
}

template <float (*Convert)(uint16_t)>
void Widen(const uint8_t* src, float* x, uint64_t n) {
  for (uint64_t i = 0; i < n; ++i) {
    uint16_t h;
    std::memcpy(&h, src + 2 * i, 2);
    x[i] = Convert(h);
  }
}

template <int bytes, void (*Quantize)(const float*, uint8_t*)>
void Pack(const float* x, uint8_t* dst, uint64_t n) {
  for (uint64_t b = 0; b < n / kBlock; ++b) Quantize(x + b * kBlock, dst + b * bytes);
}

template <int bytes, void (*Dequantize)(const uint8_t*, float*)>
void Unpack(const uint8_t* src, float* x, uint64_t n) {
  for (uint64_t b = 0; b < n / kBlock; ++b) Dequantize(src + b * bytes, x + b * kBlock);
}

void ToF32(assay_dtype from, const uint8_t* src, float* x, uint64_t n) {
  switch (from) {
    case ASSAY_F32:
      std::memcpy(x, src, n * 4);
      return;
    case ASSAY_F16:
      Widen<F16ToF32>(src, x, n);
      return;
    case ASSAY_BF16:
      Widen<BF16ToF32>(src, x, n);
      return;
    case ASSAY_Q8_0:
      Unpack<34, DequantizeQ8_0>(src, x, n);
      return;
    case ASSAY_Q4_0:
      Unpack<18, DequantizeQ4_0>(src, x, n);
      return;
    case ASSAY_Q4_1:
      Unpack<20, DequantizeQ4_1>(src, x, n);
      return;
    default:
      ASSAY_CHECK(false);
  }
}

void FromF32(assay_dtype to, const float* x, uint8_t* dst, uint64_t n) {
  switch (to) {
    case ASSAY_F32:
      std::memcpy(dst, x, n * 4);
      return;
    case ASSAY_F16:
      Narrow<F32ToF16>(x, dst, n);
      return;
    case ASSAY_BF16:
      Narrow<F32ToBF16>(x, dst, n);
      return;
    case ASSAY_Q8_0:
      Pack<34, QuantizeQ8_0>(x, dst, n);
      return;
    case ASSAY_Q4_0:
      Pack<18, QuantizeQ4_0>(x, dst, n);
      return;
    case ASSAY_Q4_1:
      Pack<20, QuantizeQ4_1>(x, dst, n);
      return;
    default:
      ASSAY_CHECK(false);
  }
}

}  // namespace

const DTypeInfo* FindDType(assay_dtype dtype) {
  const auto* found =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const Entry& e) { return e.dtype == dtype; });
  return found == std::end(kTypes) ? nullptr : &found->info;
}

const char* DTypeName(assay_dtype dtype) {
  const DTypeInfo* info = FindDType(dtype);
  return info != nullptr ? info->name : "unknown";
}

bool IsBlockType(assay_dtype dtype) {
  const DTypeInfo* info = FindDType(dtype);
  return info != nullptr && info->block_elems > 1;
}

uint64_t DTypeBytes(assay_dtype dtype, uint64_t elements) {
  const DTypeInfo* info = FindDType(dtype);
  ASSAY_CHECK(info != nullptr);
  const uint64_t block = static_cast<uint64_t>(info->block_elems);
  ASSAY_CHECK(elements % block == 0);
  return elements / block * static_cast<uint64_t>(info->block_bytes);
}

// Both directions without branches, so that loops over them vectorise: powers of two move the value to where the
// float unit itself rounds it (the method of Marat Dukhan's FP16 library).
float F16ToF32(uint16_t h) {
  const uint32_t w = static_cast<uint32_t>(h) << 16;
  const uint32_t sign = w & 0x80000000u;
  const uint32_t two_w = w + w;
  const float normal = std::bit_cast<float>((two_w >> 4) + (0xE0u << 23)) * 0x1.0p-112f;
  const float subnormal = std::bit_cast<float>((two_w >> 17) | (126u << 23)) - 0.5f;
  const uint32_t bits = two_w < (1u << 27) ? std::bit_cast<uint32_t>(subnormal) : std::bit_cast<uint32_t>(normal);
  return std::bit_cast<float>(sign | bits);
}

uint16_t F32ToF16(float f) {
  const uint32_t w = std::bit_cast<uint32_t>(f);
  const uint32_t two_w = w + w;
  const uint32_t sign = w & 0x80000000u;
  const uint32_t exponent = std::max(two_w & 0xFF000000u, 0x71000000u);
  const float scaled = (std::fabs(f) * 0x1.0p+112f) * 0x1.0p-110f;
  const uint32_t bits = std::bit_cast<uint32_t>(std::bit_cast<float>((exponent >> 1) + 0x07800000u) + scaled);
  const uint32_t rounded = ((bits >> 13) & 0x7C00u) + (bits & 0x0FFFu);
  return static_cast<uint16_t>((sign >> 16) | (two_w > 0xFF000000u ? 0x7E00u : rounded));
}

uint16_t F32ToBF16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  const bool nan = (u & 0x7FFFFFFFu) > 0x7F800000u;
  const uint32_t rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>(nan ? (u >> 16) | 0x40u : rounded);
}

void ConvertElements(assay_dtype from, const void* src, assay_dtype to, void* dst, uint64_t elements) {
  if (elements == 0) return;
  if (from == to) {
    std::memcpy(dst, src, DTypeBytes(from, elements));
    return;
  }
  const auto* in = static_cast<const uint8_t*>(src);
  auto* out = static_cast<uint8_t*>(dst);
  float chunk[32 * kBlock];
  for (uint64_t done = 0; done < elements;) {
    const uint64_t n = std::min<uint64_t>(elements - done, std::size(chunk));
    ToF32(from, in + DTypeBytes(from, done), chunk, n);
    FromF32(to, chunk, out + DTypeBytes(to, done), n);
    done += n;
  }
}

}  // namespace assay
