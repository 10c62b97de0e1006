// SPDX-License-Identifier: Apache-2.0
// The inner kernels of linear, written once in GCC vector extensions and compiled once per instruction set: each
// linear_<isa>.cc defines ASSAY_LINEAR_ISA (a namespace of its own) and includes this file under its own -m flags.
// Nothing inline may be used here that another file could also instantiate (std::min, View::as...): the linker
// would keep one copy, perhaps the one whose instructions this machine lacks.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernels/cpu/linear_kernels.h"

#define ASSAY_INLINE [[gnu::always_inline]] inline

namespace assay::cpu::ASSAY_LINEAR_ISA {

#if defined(__AVX512BW__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
constexpr int kLanes = kVectorBytes / 4;

typedef float VF __attribute__((vector_size(kVectorBytes)));
typedef int32_t VI __attribute__((vector_size(kVectorBytes)));
typedef uint32_t VU __attribute__((vector_size(kVectorBytes)));
typedef int16_t VS __attribute__((vector_size(kVectorBytes)));
typedef uint16_t VHalf __attribute__((vector_size(kVectorBytes / 2)));
typedef int8_t VQuarter __attribute__((vector_size(kVectorBytes / 4)));

template <class V>
ASSAY_INLINE V Load(const void* p) {
  V v;
  std::memcpy(&v, p, sizeof(V));
  return v;
}
template <class V>
ASSAY_INLINE void Store(void* p, V v) {
  std::memcpy(p, &v, sizeof(V));
}
ASSAY_INLINE int32_t LoadI32(const int8_t* p) {
  int32_t v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

ASSAY_INLINE VF Broadcast(float f) {
  const VI bits = VI{} + __builtin_bit_cast(int32_t, f);  // in integers: 0.0f + f would not fold away
  return (VF)bits;
}
ASSAY_INLINE VF LoadF16(const void* p) {
#if defined(__AVX512BW__)
  // maskz: the plain intrinsic warns of an uninitialised value in g++ 12 (GCC bug 105593), here and below.
  return (VF)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(static_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
  return (VF)_mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)));
#else
  const VU h = __builtin_convertvector(Load<VHalf>(p), VU);
  const VU bits = (h & 0x7fff) << 13;
  const VU finite = (VU)((VF)bits * 0x1p112f);  // moves the exponent's bias; right for subnormals too
  const VU special = bits | 0x7f800000;
  return (VF)(((bits >= 0x0f800000) ? special : finite) | ((h & 0x8000) << 16));
#endif
}

// acc + the dot products of 4 unsigned bytes of w with 4 signed bytes of x, per lane; |x| <= 127.
// With kSignedDot, Q8_0's w is taken as w - 128 instead, so that no correction is needed.
#if defined(__AVX512VNNI__)
constexpr bool kSignedDot = false;
ASSAY_INLINE VI Dot4(VI acc, VI w, VI x) {
  return (VI)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)w, (__m512i)x);
}
ASSAY_INLINE VI DotQ8(VI acc, VI w, VI x) {
  return Dot4(acc, w, x);
}
#elif defined(__AVX512BW__)
constexpr bool kSignedDot = true;
ASSAY_INLINE VI Dot4(VI acc, VI w, VI x) {
  const __m512i pairs = _mm512_maddubs_epi16((__m512i)w, (__m512i)x);
  return acc + (VI)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
}
ASSAY_INLINE VI DotQ8(VI acc, VI w, VI x) {  // maddubs would saturate with bytes above 128: move the sign to x
  const __m512i s = (__m512i)(w ^ (int32_t)0x80808080);
  const __m512i sx = _mm512_mask_sub_epi8((__m512i)x, _mm512_movepi8_mask(s), _mm512_setzero_si512(), (__m512i)x);
  return Dot4(acc, (VI)_mm512_maskz_abs_epi8(~__mmask64{0}, s), (VI)sx);
}
#elif defined(__AVX2__)
constexpr bool kSignedDot = true;
ASSAY_INLINE VI Dot4(VI acc, VI w, VI x) {
  const __m256i pairs = _mm256_maddubs_epi16((__m256i)w, (__m256i)x);
  return acc + (VI)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
ASSAY_INLINE VI DotQ8(VI acc, VI w, VI x) {
  const __m256i s = (__m256i)(w ^ (int32_t)0x80808080);
  return Dot4(acc, (VI)_mm256_abs_epi8(s), (VI)_mm256_sign_epi8((__m256i)x, s));
}
#else
constexpr bool kSignedDot = false;
ASSAY_INLINE VI Dot4(VI acc, VI w, VI x) {
  const VS even = (VS)(w & 0x00ff00ff) * (((VS)x << 8) >> 8);  // |product| <= 255 * 127 fits
  const VS odd = (VS)((VU)(w >> 8) & 0x00ff00ff) * ((VS)x >> 8);
  return acc + (((VI)even << 16) >> 16) + ((VI)even >> 16) + (((VI)odd << 16) >> 16) + ((VI)odd >> 16);
}
ASSAY_INLINE VI DotQ8(VI acc, VI w, VI x) {
  return Dot4(acc, w, x);
}
#endif

// ---- F32, F16, BF16 -------------------------------------------------------------------------------------------
// A format says how NV vectors of rows x kCols columns are read and multiplied with MR rows of x.

// Forced inline, like all that handles accumulators: one reference to them that escapes moves them to memory.
template <int MR, int NV>
ASSAY_INLINE void MultiplyAdd(const VF (&w)[NV], const float* x, int64_t ldx, VF (&acc)[MR][NV]) {
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m) {
    const VF xv = Broadcast(x[m * ldx]);
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) acc[m][v] += w[v] * xv;
  }
}

struct F32Format {
  using X = float;
  static constexpr int kCols = 1, kRowBytes = 4;  // kRowBytes: of one row in kCols columns
  template <bool kTail, int MR, int NV>
  ASSAY_INLINE static void Step(const std::byte* w, const X* x, int64_t ldx, VF (&acc)[MR][NV]) {
    VF wv[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) wv[v] = Load<VF>(w + v * kVectorBytes);
    MultiplyAdd(wv, x, ldx, acc);
  }
};

struct F16Format {
  using X = float;
  static constexpr int kCols = 1, kRowBytes = 2;
  template <bool kTail, int MR, int NV>
  ASSAY_INLINE static void Step(const std::byte* w, const X* x, int64_t ldx, VF (&acc)[MR][NV]) {
    VF wv[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) wv[v] = LoadF16(w + v * kVectorBytes / 2);
    MultiplyAdd(wv, x, ldx, acc);
  }
};

struct Bf16Format {
  using X = float;
  static constexpr int kCols = 2, kRowBytes = 4;
  template <bool kTail, int MR, int NV>
  ASSAY_INLINE static void Step(const std::byte* w, const X* x, int64_t ldx, VF (&acc)[MR][NV]) {
    VF even[NV], odd[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      const VU pair = Load<VU>(w + v * kVectorBytes);
      even[v] = (VF)(pair << 16);
      odd[v] = (VF)(pair & 0xffff0000);
    }
    MultiplyAdd(even, x, ldx, acc);
    if constexpr (!kTail) MultiplyAdd(odd, x + 1, ldx, acc);  // with an odd K, x ends before
  }
};

#if defined(__AVX512BF16__)
struct Bf16DotFormat {  // x in bf16, two columns at a time
  using X = uint16_t;
  static constexpr int kCols = 2, kRowBytes = 4;
  template <bool kTail, int MR, int NV>
  ASSAY_INLINE static void Step(const std::byte* w, const X* x, int64_t ldx, VF (&acc)[MR][NV]) {
    VI wv[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) wv[v] = Load<VI>(w + v * kVectorBytes);
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
      int32_t pair;
      std::memcpy(&pair, x + m * ldx, sizeof(pair));
      const __m512bh xv = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) acc[m][v] = (VF)_mm512_dpbf16_ps((__m512)acc[m][v], (__m512bh)wv[v], xv);
    }
  }
};
#endif

// y rows [m, m + MR), columns n .. n + NV * kLanes, of which those below a.n1 exist.
template <int MR, int NV>
ASSAY_INLINE void Finish(const GemmArgs& a, int64_t m, int64_t n, bool accumulate, const VF (&acc)[MR][NV]) {
  const float* const bias = accumulate ? nullptr : a.bias;
  if (n + NV * kLanes <= a.n1) {
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      float* const y = a.y + (m + i) * a.ldy + n;
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) {
        VF sum = acc[i][v];
        if (accumulate) sum += Load<VF>(y + v * kLanes);
        if (bias != nullptr) sum += Load<VF>(bias + n + v * kLanes);
        Store(y + v * kLanes, sum);
      }
    }
    return;
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i) {
    float* const y = a.y + (m + i) * a.ldy + n;
    float sums[NV * kLanes];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) Store(sums + v * kLanes, acc[i][v]);
    for (int64_t j = 0; j < a.n1 - n; ++j) {
      y[j] = sums[j] + (accumulate ? y[j] : 0.0f) + (bias != nullptr ? bias[n + j] : 0.0f);
    }
  }
}

template <class Format, int MR, int NV>
void Tile(const GemmArgs& a, const std::byte* w, int64_t m, int64_t n, int64_t k0, int64_t k1, bool accumulate) {
  constexpr int kStepBytes = kPanelRows * Format::kRowBytes;
  VF acc[MR][NV] = {};
  const typename Format::X* x = static_cast<const typename Format::X*>(a.x) + m * a.ldx + k0;
  w += k0 / Format::kCols * kStepBytes;
  int64_t k = k0;
  for (; k + Format::kCols <= k1; k += Format::kCols, x += Format::kCols, w += kStepBytes) {
    Format::template Step<false>(w, x, a.ldx, acc);
  }
  if constexpr (Format::kCols > 1) {
    if (k < k1) Format::template Step<true>(w, x, a.ldx, acc);
  }
  Finish(a, m, n, accumulate, acc);
}

// Rows of x per tile, and vectors of weight rows: as many accumulators as the registers hold.
constexpr int kMaxTile = kVectorBytes == 64 ? 6 : 4;
constexpr int TileVectors(int mr) {
  return kVectorBytes == 64 ? 4 : mr == 1 ? 8 : mr == 2 ? 4 : 2;
}

template <class Format, int MR>
void TileRow(const GemmArgs& a, const std::byte* w, int64_t m, int64_t n, int64_t k0, int64_t k1, bool accumulate) {
  constexpr int kNv = TileVectors(MR);
  for (int done = 0; done < kPanelRows && n + done < a.n1; done += kNv * kLanes) {
    Tile<Format, MR, kNv>(a, w + done * Format::kRowBytes, m, n + done, k0, k1, accumulate);
  }
}

template <class Format, int MR = kMaxTile>
void TileRows(int64_t mr, const GemmArgs& a, const std::byte* w, int64_t m, int64_t n, int64_t k0, int64_t k1,
              bool accumulate) {
  if (mr == MR) {
    TileRow<Format, MR>(a, w, m, n, k0, k1, accumulate);
  } else if constexpr (MR > 1) {
    TileRows<Format, MR - 1>(mr, a, w, m, n, k0, k1, accumulate);
  }
}

template <class Format>
void Gemm(const GemmArgs& a) {
  // With several tiles of x the weights are read again for each: keep what is read again inside the L2 cache.
  constexpr int64_t kChunkCols = 256 * 1024 / (kPanelRows * Format::kRowBytes / Format::kCols);
  // Chunks for a single tile as well: sums must not depend on how many rows a member of the team has.
  const int64_t rows = a.m1 - a.m0, tiles = (rows + kMaxTile - 1) / kMaxTile, chunk = kChunkCols;
  for (int64_t n = a.n0; n < a.n1; n += kPanelRows) {
    const std::byte* const w = a.w + n / kPanelRows * a.panel_bytes;
    int64_t k0 = 0;
    do {
      const int64_t k1 = k0 + chunk < a.k ? k0 + chunk : a.k;
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t m = rows * t / tiles, end = rows * (t + 1) / tiles;
        TileRows<Format>(end - m, a, w, a.m0 + m, n, k0, k1, a.accumulate || k0 > 0);
      }
      k0 = k1;
    } while (k0 < a.k);
  }
}

#include "kernels/cpu/linear_blocks.inc"

// ---- Conversion -----------------------------------------------------------------------------------------------

ASSAY_INLINE VU Bf16Bits(VF x) {  // in the upper half; round to nearest even
  const VU bits = (VU)x;
  const VU rounded = bits + 0x7fff + ((bits >> 16) & 1);
  return ((bits & 0x7fffffff) > 0x7f800000 ? (bits | 0x400000) : rounded) & 0xffff0000;
}

void ToBf16(const ConvertArgs& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const int64_t row = i / a.pieces_per_row, k = i % a.pieces_per_row * 32;
    uint16_t* const out = static_cast<uint16_t*>(a.out) + i * 32;
    const int64_t left = row < a.rows ? a.k - k : 0;
    float padded[32] = {};
    const float* x = padded;
    if (left >= 32) {
      x = a.x + row * a.ldx + k;
    } else if (left > 0) {
      std::memcpy(padded, a.x + row * a.ldx + k, left * sizeof(float));
    }
    for (int j = 0; j < 32; j += kLanes) {
      Store(out + j, __builtin_convertvector(Bf16Bits(Load<VF>(x + j)) >> 16, VHalf));
    }
  }
}

// x = scale * q with |q| <= 127, per piece of 32. A NaN among them makes the scale, and so the result, NaN: as
// integers, magnitudes compare as the floats do, with NaN above all. (Integers also let the compiler reduce in trees.)
void QuantizePiece(const float* x, const ConvertArgs& a, int8_t* q, BlockScale* s) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the lowest bits
  VI largest = {};
  for (int j = 0; j < 32; j += kLanes) {
    const VI magnitude = Load<VI>(x + j) & 0x7fffffff;
    largest = magnitude > largest ? magnitude : largest;
  }
  int32_t lanes[kLanes], most_bits = 0;
  std::memcpy(lanes, &largest, sizeof(lanes));
  for (const int32_t lane : lanes) most_bits = lane > most_bits ? lane : most_bits;
  const float most = __builtin_bit_cast(float, most_bits);
  const bool tiny = most < 1e-30f;  // the inverse would overflow
  const float inverse = tiny ? 0.0f : 127.0f / most;
  VU totals[2] = {};  // of the first and the last 16; unsigned: a NaN's digits may overflow
  for (int j = 0; j < 32; j += kLanes) {
    const VU i = (VU)(Load<VF>(x + j) * inverse + kMagic) - 0x4b400000u;
    totals[j / 16] += i;
    Store(q + j, __builtin_convertvector((VI)i, VQuarter));
  }
  uint32_t sums[2] = {}, terms[2 * kLanes];
  std::memcpy(terms, totals, sizeof(terms));
  for (int i = 0; i < 2 * kLanes; ++i) sums[i / kLanes] += terms[i];
  s->scale = tiny ? 0.0f : most / 127.0f;
  s->sum = s->scale * static_cast<float>(static_cast<int32_t>(sums[0] + sums[1]));
  if (!a.halves) sums[0] += sums[1];
  for (int h = 0; h < 2; ++h) s->correct[h] = static_cast<int32_t>(-static_cast<uint32_t>(a.offset) * sums[h]);
}

void Quantize(const ConvertArgs& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const int64_t row = i / a.pieces_per_row, piece = i % a.pieces_per_row, k = piece * 32, left = a.k - k;
    // [chunk][row][pieces of the chunk]
    constexpr int64_t kMost = kExpandedCols / kPieceCols;
    const int64_t before = piece / kMost * kMost, rest = a.pieces_per_row - before,
                  pieces = rest < kMost ? rest : kMost;
    const int64_t at = before * a.rows + row * pieces + piece - before;
    int8_t* const q = static_cast<int8_t*>(a.out) + at * 32;
    if (left >= 32) {
      QuantizePiece(a.x + row * a.ldx + k, a, q, a.scales + at);
    } else {
      float padded[32] = {};
      if (left > 0) std::memcpy(padded, a.x + row * a.ldx + k, left * sizeof(float));
      QuantizePiece(padded, a, q, a.scales + at);
    }
  }
}

void PanelToBf16(const float* panel, int64_t count, void* out) {
  auto* to = static_cast<uint32_t*>(out);
#if defined(__AVX512BF16__)
  VHalf low;
  for (int i = 0; i < kLanes; ++i) low[i] = static_cast<uint16_t>(i);
  const VU order = __builtin_convertvector(low, VU) | ((__builtin_convertvector(low, VU) + kLanes) << 16);
#endif
  for (int64_t k = 0; k < count; k += 2, panel += 2 * kPanelRows, to += kPanelRows) {
    for (int n = 0; n < kPanelRows; n += kLanes) {
#if defined(__AVX512BF16__)
      const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(Load<VF>(panel + kPanelRows + n), Load<VF>(panel + n));
      Store(to + n, _mm512_permutexvar_epi16((__m512i)order, both));
#else
      const VU even = Bf16Bits(Load<VF>(panel + n)), odd = Bf16Bits(Load<VF>(panel + kPanelRows + n));
      Store(to + n, (even >> 16) | odd);
#endif
    }
  }
}

extern const LinearKernels kKernels;
const LinearKernels kKernels = {
    Gemm<F32Format>,
    Gemm<F16Format>,
    Gemm<Bf16Format>,
#if defined(__AVX512BF16__)
    Gemm<Bf16DotFormat>,
#else
    nullptr,
#endif
    kBlocks,
    sizeof(kBlocks) / sizeof(kBlocks[0]),
    ToBf16,
    Quantize,
    PanelToBf16,
};

}  // namespace assay::cpu::ASSAY_LINEAR_ISA
