// SPDX-License-Identifier: Apache-2.0
// Elements of tensors on a GPU: the formats of 16 and 8 bits as raw integers, their conversions to and from float, and
// vectors of 16 bytes. Arithmetic is in float; every conversion from float rounds to nearest, ties to even. Device
// functions: any thread. Host functions: any thread; they own nothing.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/gpu.h"
#include "kernels/view.h"

namespace assay::gpu {

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};
struct E4m3 {  // 1 sign, 4 exponent (bias 7), 3 mantissa; no infinities, 0x7f and 0xff are NaN
  uint8_t bits;
};

__device__ __forceinline__ float ToFloat(float x) {
  return x;
}
__device__ __forceinline__ float ToFloat(Bf16 x) {
  return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
}
__device__ __forceinline__ float ToFloat(F16 x) {
  return HalfBitsToFloat(x.bits);
}
__device__ __forceinline__ float ToFloat(E4m3 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x80u) << 24;
  const uint32_t size = x.bits & 0x7fu;
  if (size == 0x7fu) return __uint_as_float(sign | 0x7fc00000u);
  // In float's fields the exponent is too small by 127 - 7; the product restores it, also for subnormals.
  const float value = __uint_as_float(size << 20) * 0x1p120f;
  return __uint_as_float(__float_as_uint(value) | sign);
}

template <class T>
__device__ __forceinline__ T FromFloat(float x);
template <>
__device__ __forceinline__ float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ Bf16 FromFloat<Bf16>(float x) {
  return {static_cast<uint16_t>(FloatsToBf16Bits(x, 0.0f))};
}
template <>
__device__ __forceinline__ F16 FromFloat<F16>(float x) {
  return {FloatToHalfBits(x)};
}
// Beyond 448 gives 448; NaN stays NaN.
template <>
__device__ __forceinline__ E4m3 FromFloat<E4m3>(float x) {
  const uint32_t bits = __float_as_uint(x), size = bits & 0x7fffffffu;
  uint32_t q;
  if (size < 0x3c800000u) {  // below 2^-6: multiples of 2^-9, which adding 2^14 rounds to
    q = __float_as_uint(__uint_as_float(size) + 16384.0f) - 0x46800000u;
  } else {
    q = ((size + 0x7ffffu + (size >> 20 & 1u)) >> 20) - (120u << 3);
  }
  if (q > 0x7eu) q = size > 0x7f800000u ? 0x7fu : 0x7eu;
  return {static_cast<uint8_t>((bits >> 24 & 0x80u) | q)};
}

// x as it would be after being stored as T.
template <class T>
__device__ __forceinline__ float RoundTo(float x) {
  return ToFloat(FromFloat<T>(x));
}

// ---- 16 bytes at once. A vector stays packed (uint4) until it is used: loads in flight cost 4 registers each.

template <class T>
constexpr int kVector = 16 / static_cast<int>(sizeof(T));  // elements

__device__ __forceinline__ uint4 LoadVector(const void* address) {
  return *static_cast<const uint4*>(address);
}
__device__ __forceinline__ void StoreVector(void* address, uint4 vector) {
  *static_cast<uint4*>(address) = vector;
}

// Elements in the order of their addresses.
__device__ __forceinline__ void Unpack(uint4 v, float (&x)[4], float) {
  x[0] = __uint_as_float(v.x);
  x[1] = __uint_as_float(v.y);
  x[2] = __uint_as_float(v.z);
  x[3] = __uint_as_float(v.w);
}
__device__ __forceinline__ void Unpack(uint4 v, float (&x)[8], Bf16) {
  const uint32_t words[4] = {v.x, v.y, v.z, v.w};
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = __uint_as_float(words[i] << 16);
    x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}
__device__ __forceinline__ void Unpack(uint4 v, float (&x)[8], F16) {
  const uint32_t words[4] = {v.x, v.y, v.z, v.w};
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = HalfBitsToFloat(static_cast<uint16_t>(words[i]));
    x[2 * i + 1] = HalfBitsToFloat(static_cast<uint16_t>(words[i] >> 16));
  }
}
__device__ __forceinline__ void Unpack(uint4 v, float (&x)[16], E4m3) {
  const uint32_t words[4] = {v.x, v.y, v.z, v.w};
  GPU_UNROLL
  for (int i = 0; i < 16; ++i) x[i] = ToFloat(E4m3{static_cast<uint8_t>(words[i / 4] >> 8 * (i % 4))});
}
template <class T>
__device__ __forceinline__ void Unpack(uint4 v, float (&x)[kVector<T>]) {
  Unpack(v, x, T{});
}

__device__ __forceinline__ uint4 Pack(const float (&x)[4], float) {
  return make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]), __float_as_uint(x[3]));
}
__device__ __forceinline__ uint4 Pack(const float (&x)[8], Bf16) {
  return make_uint4(FloatsToBf16Bits(x[0], x[1]), FloatsToBf16Bits(x[2], x[3]), FloatsToBf16Bits(x[4], x[5]),
                    FloatsToBf16Bits(x[6], x[7]));
}
__device__ __forceinline__ uint32_t HalfPair(float low, float high) {
  return FloatToHalfBits(low) | static_cast<uint32_t>(FloatToHalfBits(high)) << 16;
}
__device__ __forceinline__ uint4 Pack(const float (&x)[8], F16) {
  return make_uint4(HalfPair(x[0], x[1]), HalfPair(x[2], x[3]), HalfPair(x[4], x[5]), HalfPair(x[6], x[7]));
}
__device__ __forceinline__ uint4 Pack(const float (&x)[16], E4m3) {
  uint32_t words[4] = {};
  GPU_UNROLL
  for (int i = 0; i < 16; ++i) words[i / 4] |= static_cast<uint32_t>(FromFloat<E4m3>(x[i]).bits) << 8 * (i % 4);
  return make_uint4(words[0], words[1], words[2], words[3]);
}
template <class T>
__device__ __forceinline__ uint4 Pack(const float (&x)[kVector<T>]) {
  return Pack(x, T{});
}

// `count` consecutive elements from or to memory, in as few accesses of at most 16 bytes as there can be; the address
// is aligned to 16 bytes, or to count * sizeof(T) if that is less.
template <class T, int count>
struct PackedElements {  // as they lie in memory
  static constexpr int kBytes = count * static_cast<int>(sizeof(T));
  static_assert(count == 1 || kBytes == 4 || kBytes == 8 || kBytes % 16 == 0,
                "one element, a part of a vector or whole ones");
  using Part = std::conditional_t<kBytes == 4, uint32_t, uint2>;
  using Word = std::conditional_t<count == 1, T, std::conditional_t<kBytes % 16 == 0, uint4, Part>>;
  Word words[kBytes / static_cast<int>(sizeof(Word))];
};
template <class T, int count>
__device__ __forceinline__ void LoadPacked(const T* address, PackedElements<T, count>& packed) {
  using Word = typename PackedElements<T, count>::Word;
  constexpr int kWords = sizeof(packed.words) / sizeof(Word);
  GPU_UNROLL
  for (int i = 0; i < kWords; ++i) packed.words[i] = reinterpret_cast<const Word*>(address)[i];
}
template <class T, int count>
__device__ __forceinline__ void UnpackElements(const PackedElements<T, count>& packed, float (&x)[count]) {
  constexpr int kEach = kVector<T>;
  if constexpr (count == 1) {
    x[0] = ToFloat(packed.words[0]);
  } else if constexpr (2 * count == kEach) {
    float all[kEach];
    Unpack<T>(make_uint4(packed.words[0].x, packed.words[0].y, 0, 0), all);
    GPU_UNROLL
    for (int i = 0; i < count; ++i) x[i] = all[i];
  } else {
    GPU_UNROLL
    for (int i = 0; i < count / kEach; ++i) {
      float part[kEach];
      Unpack<T>(packed.words[i], part);
      GPU_UNROLL
      for (int j = 0; j < kEach; ++j) x[i * kEach + j] = part[j];
    }
  }
}
template <class T, int count>
__device__ __forceinline__ void LoadElements(const T* address, float (&x)[count]) {
  PackedElements<T, count> packed;
  LoadPacked(address, packed);
  UnpackElements(packed, x);
}
template <class T, int count>
__device__ __forceinline__ void StoreElements(T* address, const float (&x)[count]) {
  constexpr int kEach = kVector<T>;
  if constexpr (count == 1) {
    *address = FromFloat<T>(x[0]);
  } else if constexpr (count < kEach) {
    float all[kEach] = {};
    GPU_UNROLL
    for (int i = 0; i < count; ++i) all[i] = x[i];
    const uint4 packed = Pack<T>(all);
    if constexpr (PackedElements<T, count>::kBytes == 4) {
      *reinterpret_cast<uint32_t*>(address) = packed.x;
    } else {
      *reinterpret_cast<uint2*>(address) = make_uint2(packed.x, packed.y);
    }
  } else {
    static_assert(count % kEach == 0, "whole vectors");
    GPU_UNROLL
    for (int i = 0; i < count / kEach; ++i) {
      float part[kEach];
      GPU_UNROLL
      for (int j = 0; j < kEach; ++j) part[j] = x[i * kEach + j];
      StoreVector(address + i * kEach, Pack<T>(part));
    }
  }
}

// ---- On the host

// Calls f with a value of the element type that a dtype of activations names (float, Bf16 or F16).
template <class F>
void WithElement(DType dtype, const F& f) {
  switch (dtype) {
    case DType::kBF16:
      f(Bf16{});
      break;
    case DType::kF16:
      f(F16{});
      break;
    default:
      f(float{});
  }
}

// The same for what a KV cache may hold: these, or E4m3.
template <class F>
void WithCacheElement(DType dtype, const F& f) {
  if (dtype == DType::kF8_E4M3) {
    f(E4m3{});
  } else {
    WithElement(dtype, f);
  }
}

constexpr int64_t ElementBytes(DType dtype) {
  switch (dtype) {
    case DType::kF16:
    case DType::kBF16:
      return 2;
    case DType::kU8:
    case DType::kF8_E4M3:
      return 1;
    case DType::kI64:
      return 8;
    default:
      return 4;
  }
}

// Whether every row (run of the last dimension) of v begins 16-byte aligned and is a whole number of vectors.
inline bool HasVectorRows(const View& v) {
  if (v.data == nullptr) return true;
  const int64_t size = ElementBytes(v.dtype);
  if (reinterpret_cast<uintptr_t>(v.data) % 16 != 0 || v.shape[v.ndim - 1] * size % 16 != 0) return false;
  for (int i = 0; i < v.ndim - 1; ++i) {
    if (v.shape[i] > 1 && v.stride[i] * size % 16 != 0) return false;
  }
  return true;
}

constexpr int64_t CeilDiv(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace assay::gpu
