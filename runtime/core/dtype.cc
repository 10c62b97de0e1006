// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/dtype.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>

#include "runtime/core/error.h"
#include "runtime/core/k_blocks.h"

namespace assay {
namespace {

struct Entry {
  assay_dtype dtype;
  DTypeInfo info;
};

constexpr Entry kTypes[] = {
    {ASSAY_F32, {"f32", 1, 4}},
    {ASSAY_F16, {"f16", 1, 2}},
    {ASSAY_BF16, {"bf16", 1, 2}},
    {ASSAY_F8_E4M3, {"f8_e4m3", 1, 1}},
    {ASSAY_F8_E5M2, {"f8_e5m2", 1, 1}},
    {ASSAY_I8, {"i8", 1, 1}},
    {ASSAY_U8, {"u8", 1, 1}},
    {ASSAY_I32, {"i32", 1, 4}},
    {ASSAY_I64, {"i64", 1, 8}},
    {ASSAY_Q8_0, {"q8_0", 32, 34}},
    {ASSAY_Q4_0, {"q4_0", 32, 18}},
    {ASSAY_Q4_1, {"q4_1", 32, 20}},
    {ASSAY_Q5_0, {"q5_0", 32, 22}},
    {ASSAY_Q5_1, {"q5_1", 32, 24}},
    {ASSAY_Q4_K, {"q4_k", 256, 144}},
    {ASSAY_Q5_K, {"q5_k", 256, 176}},
    {ASSAY_Q6_K, {"q6_k", 256, 210}},
    {ASSAY_F8_B128, {"f8_b128", 128, 132}},
    {ASSAY_I4_G128, {"i4_g128", 128, 68}},
};

constexpr int kBlock = 32;
constexpr int kLargeBlock = 128;

float Load16(const uint8_t* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  return F16ToF32(h);
}

void Store16(uint8_t* p, float f) {
  const uint16_t h = F32ToF16(f);
  std::memcpy(p, &h, 2);
}

// The quantisers of GGUF's types of 32 elements repeat ggml's reference step by step, so that files agree with its bit
// by bit. What is compared with `>` or `<` below also turns NaN, which a legal quantity cannot be, into a number in
// range.
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

// The value of a block that is farthest from zero, the first of several.
float Farthest(const float* x) {
  float farthest = 0.0f;
  for (int i = 0; i < kBlock; ++i) {
    if (std::fabs(x[i]) > std::fabs(farthest)) farthest = x[i];
  }
  return farthest;
}

void QuantizeQ4_0(const float* x, uint8_t* block) {
  const float d = Farthest(x) / -8.0f;
  const float id = Inverse(d);
  Store16(block, d);
  for (int i = 0; i < kBlock / 2; ++i) {
    const float low = x[i] * id;
    const float high = x[i + kBlock / 2] * id;
    block[2 + i] = static_cast<uint8_t>(Clamp(low + 8.5f, 0.0f, 15.0f) | Clamp(high + 8.5f, 0.0f, 15.0f) << 4);
  }
}

template <int elements>  // Q4_1, I4_G128
void Quantize4BitsWithMin(const float* x, uint8_t* block) {
  float min = x[0];
  float max = x[0];
  for (int i = 1; i < elements; ++i) {
    min = std::min(min, x[i]);
    max = std::max(max, x[i]);
  }
  const float d = (max - min) / 15.0f;
  const float id = Inverse(d);
  Store16(block, d);
  Store16(block + 2, min);
  for (int i = 0; i < elements / 2; ++i) {
    const float low = (x[i] - min) * id;
    const float high = (x[i + elements / 2] - min) * id;
    block[4 + i] = static_cast<uint8_t>(Clamp(low + 0.5f, 0.0f, 15.0f) | Clamp(high + 0.5f, 0.0f, 15.0f) << 4);
  }
}

// The fifth bits and then the low nibbles of 32 integers from 0 to 31.
void Pack5Bits(const int32_t* q, uint8_t* out) {
  uint32_t high = 0;
  for (int i = 0; i < kBlock; ++i) high |= static_cast<uint32_t>(q[i] >> 4) << i;
  std::memcpy(out, &high, 4);
  for (int i = 0; i < kBlock / 2; ++i) out[4 + i] = static_cast<uint8_t>((q[i] & 15) | (q[i + kBlock / 2] & 15) << 4);
}

void QuantizeQ5_0(const float* x, uint8_t* block) {
  const float d = Farthest(x) / -16.0f;
  const float id = Inverse(d);
  Store16(block, d);
  int32_t q[kBlock];
  for (int i = 0; i < kBlock; ++i) q[i] = Clamp(x[i] * id + 16.5f, 0.0f, 31.0f);
  Pack5Bits(q, block + 2);
}

void QuantizeQ5_1(const float* x, uint8_t* block) {
  const auto [min, max] = std::minmax_element(x, x + kBlock);
  const float d = (*max - *min) / 31.0f;
  const float id = Inverse(d);
  Store16(block, d);
  Store16(block + 2, *min);
  int32_t q[kBlock];
  for (int i = 0; i < kBlock; ++i) q[i] = Clamp((x[i] - *min) * id + 0.5f, 0.0f, 31.0f);
  Pack5Bits(q, block + 4);
}

void QuantizeF8B128(const float* x, uint8_t* block) {
  float amax = 0.0f;
  for (int i = 0; i < kLargeBlock; ++i) amax = std::max(amax, std::fabs(x[i]));
  const float d = amax / 448.0f;
  std::memcpy(block, &d, sizeof(d));
  // Division: the inverse of a subnormal d would be infinite. Where d is 0, amax was below what it can hold.
  for (int i = 0; i < kLargeBlock; ++i) block[4 + i] = d != 0.0f ? F32ToE4M3(x[i] / d) : 0;
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

template <int elements>
void Dequantize4BitsWithMin(const uint8_t* block, float* x) {
  const float d = Load16(block);
  const float m = Load16(block + 2);
  for (int i = 0; i < elements / 2; ++i) {
    const float low = d * static_cast<float>(block[4 + i] & 15);
    const float high = d * static_cast<float>(block[4 + i] >> 4);
    x[i] = low + m;
    x[i + elements / 2] = high + m;
  }
}

int32_t Load5Bits(const uint8_t* bits, int i) {
  const int nibble = i < kBlock / 2 ? bits[4 + i] & 15 : bits[4 + i - kBlock / 2] >> 4;
  return nibble | (bits[i / 8] >> i % 8 & 1) << 4;
}

void DequantizeQ5_0(const uint8_t* block, float* x) {
  const float d = Load16(block);
  for (int i = 0; i < kBlock; ++i) x[i] = d * static_cast<float>(Load5Bits(block + 2, i) - 16);
}

void DequantizeQ5_1(const uint8_t* block, float* x) {
  const float d = Load16(block);
  const float m = Load16(block + 2);
  for (int i = 0; i < kBlock; ++i) {
    const float product = d * static_cast<float>(Load5Bits(block + 4, i));
    x[i] = product + m;
  }
}

void DequantizeF8B128(const uint8_t* block, float* x) {
  float d;
  std::memcpy(&d, block, sizeof(d));
  for (int i = 0; i < kLargeBlock; ++i) x[i] = d * E4M3ToF32(block[4 + i]);
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

template <int elements, int bytes, void (*Quantize)(const float*, uint8_t*)>
void Pack(const float* x, uint8_t* dst, uint64_t n) {
  for (uint64_t b = 0; b < n / elements; ++b) Quantize(x + b * elements, dst + b * bytes);
}

template <int elements, int bytes, void (*Dequantize)(const uint8_t*, float*)>
void Unpack(const uint8_t* src, float* x, uint64_t n) {
  for (uint64_t b = 0; b < n / elements; ++b) Dequantize(src + b * bytes, x + b * elements);
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
    case ASSAY_F8_E4M3:
      std::transform(src, src + n, x, E4M3ToF32);
      return;
    case ASSAY_Q8_0:
      Unpack<kBlock, 34, DequantizeQ8_0>(src, x, n);
      return;
    case ASSAY_Q4_0:
      Unpack<kBlock, 18, DequantizeQ4_0>(src, x, n);
      return;
    case ASSAY_Q4_1:
      Unpack<kBlock, 20, Dequantize4BitsWithMin<kBlock>>(src, x, n);
      return;
    case ASSAY_Q5_0:
      Unpack<kBlock, 22, DequantizeQ5_0>(src, x, n);
      return;
    case ASSAY_Q5_1:
      Unpack<kBlock, 24, DequantizeQ5_1>(src, x, n);
      return;
    case ASSAY_Q4_K:
      Unpack<kKBlock, 144, DequantizeQ4K>(src, x, n);
      return;
    case ASSAY_Q5_K:
      Unpack<kKBlock, 176, DequantizeQ5K>(src, x, n);
      return;
    case ASSAY_Q6_K:
      Unpack<kKBlock, 210, DequantizeQ6K>(src, x, n);
      return;
    case ASSAY_F8_B128:
      Unpack<kLargeBlock, 132, DequantizeF8B128>(src, x, n);
      return;
    case ASSAY_I4_G128:
      Unpack<kLargeBlock, 68, Dequantize4BitsWithMin<kLargeBlock>>(src, x, n);
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
    case ASSAY_F8_E4M3:
      std::transform(x, x + n, dst, F32ToE4M3);
      return;
    case ASSAY_Q8_0:
      Pack<kBlock, 34, QuantizeQ8_0>(x, dst, n);
      return;
    case ASSAY_Q4_0:
      Pack<kBlock, 18, QuantizeQ4_0>(x, dst, n);
      return;
    case ASSAY_Q4_1:
      Pack<kBlock, 20, Quantize4BitsWithMin<kBlock>>(x, dst, n);
      return;
    case ASSAY_Q5_0:
      Pack<kBlock, 22, QuantizeQ5_0>(x, dst, n);
      return;
    case ASSAY_Q5_1:
      Pack<kBlock, 24, QuantizeQ5_1>(x, dst, n);
      return;
    case ASSAY_Q4_K:
      Pack<kKBlock, 144, QuantizeQ4K>(x, dst, n);
      return;
    case ASSAY_Q5_K:
      Pack<kKBlock, 176, QuantizeQ5K>(x, dst, n);
      return;
    case ASSAY_Q6_K:
      Pack<kKBlock, 210, QuantizeQ6K>(x, dst, n);
      return;
    case ASSAY_F8_B128:
      Pack<kLargeBlock, 132, QuantizeF8B128>(x, dst, n);
      return;
    case ASSAY_I4_G128:
      Pack<kLargeBlock, 68, Quantize4BitsWithMin<kLargeBlock>>(x, dst, n);
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

assay_dtype DTypeOfName(std::string_view name) {
  const auto* found =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const Entry& e) { return name == e.info.name; });
  return found == std::end(kTypes) ? ASSAY_DTYPE_NONE : found->dtype;
}

bool IsRowScaled(assay_dtype dtype) {
  return dtype == ASSAY_F8_E4M3 || dtype == ASSAY_I8;
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

float E4M3ToF32(uint8_t q) {
  const uint32_t shifted = (q & 0x7Fu) << 20;
  const float normal = std::bit_cast<float>(shifted + (120u << 23));
  const float subnormal = std::bit_cast<float>(shifted | (121u << 23)) - 0x1.0p-6f;
  const uint32_t bits = std::bit_cast<uint32_t>((q & 0x78) == 0 ? subnormal : normal);
  const uint32_t sign = (q & 0x80u) << 24;
  return std::bit_cast<float>(sign | ((q & 0x7F) == 0x7F ? 0x7FC00000u : bits));
}

uint8_t F32ToE4M3(float f) {
  const uint32_t sign = std::bit_cast<uint32_t>(f) >> 24 & 0x80u;
  const float magnitude = std::min(std::fabs(f), 448.0f);
  const uint32_t u = std::bit_cast<uint32_t>(magnitude);
  const uint32_t normal = ((u + 0x7FFFFu + ((u >> 20) & 1u)) >> 20) - (120u << 3);
  // The step of 2^14 is that of the subnormals: the sum is rounded to it.
  const uint32_t subnormal = std::bit_cast<uint32_t>(magnitude + 0x1.0p+14f) - std::bit_cast<uint32_t>(0x1.0p+14f);
  const uint32_t rounded = magnitude < 0x1.0p-6f ? subnormal : normal;
  return static_cast<uint8_t>(sign | (std::isnan(f) ? 0x7Fu : rounded));
}

float ScaleFor(assay_dtype to, const float* x, uint64_t elements) {
  ASSAY_CHECK(IsRowScaled(to));
  float amax = 0.0f;
  for (uint64_t i = 0; i < elements; ++i) amax = std::max(amax, std::fabs(x[i]));
  return amax / (to == ASSAY_I8 ? 127.0f : 448.0f);
}

void Quantize(assay_dtype to, const float* x, float scale, uint8_t* quants, uint64_t elements) {
  ASSAY_CHECK(IsRowScaled(to));
  for (uint64_t i = 0; i < elements; ++i) {
    const float v = scale != 0.0f ? x[i] / scale : 0.0f;
    quants[i] = to == ASSAY_I8 ? static_cast<uint8_t>(Clamp(std::nearbyint(v), -127.0f, 127.0f)) : F32ToE4M3(v);
  }
}

void Dequantize(assay_dtype from, const uint8_t* quants, float scale, float* x, uint64_t elements) {
  ASSAY_CHECK(IsRowScaled(from));
  for (uint64_t i = 0; i < elements; ++i) {
    x[i] = scale * (from == ASSAY_I8 ? static_cast<float>(static_cast<int8_t>(quants[i])) : E4M3ToF32(quants[i]));
  }
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
