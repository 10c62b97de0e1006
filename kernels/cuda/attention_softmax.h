// SPDX-License-Identifier: Apache-2.0
// The online softmax of the tensor-core kernels, in the registers of mma's fragments: of a tile of 16 rows a warp's
// lane 4 * g + t has rows g and g + 8, of every eight keys columns 2t and 2t + 1. wgmma's accumulators are laid out the
// same.
#pragma once

#include "kernels/cuda/attention_device.h"
#include "kernels/cuda/mma_sm80.h"
#include "kernels/cuda/reduce.h"

namespace assay::gpu {

__device__ __forceinline__ uint32_t PackPair(float low, float high, Bf16) {
  return PackBf16(low, high);
}
__device__ __forceinline__ uint32_t PackPair(float low, float high, F16) {
  return PackF16(low, high);
}

struct SoftmaxRows {
  float max[2], total[2];  // total: of this lane's columns; see Total
  int seat[2];             // positions of the rows' queries; -1: no such row

  __device__ __forceinline__ void Begin(const AttnCall& c, const Sequence& s, int first, int lane) {
    GPU_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int row = first + lane / 4 + 8 * i;
      seat[i] = row < s.queries * c.group ? s.Position(row / c.group) : -1;
      max[i] = -INFINITY;
      total[i] = 0;
    }
  }

  // Products q . k with keys from `first` on become weights; keys outside `keys`, behind a row's seat or beyond its
  // window weigh nothing. rescale: what the rows' sums so far must be multiplied by. all_visible: no key of the tile is
  // masked for any row.
  template <int kKeys>
  __device__ __forceinline__ void Weigh(const AttnCall& c, int lane, int first, KeyRange keys, bool all_visible,
                                        float (&score)[kKeys / 8][4], float (&rescale)[2]) {
    float factor = c.scale * kLog2E;
    if (c.softcap > 0) {
      factor = 1;
      GPU_UNROLL
      for (int j = 0; j < kKeys / 2; ++j) score[j / 4][j % 4] = Score(c, score[j / 4][j % 4]);
    }
    if (!all_visible) Mask<kKeys>(c, lane, first, keys, score);
    GPU_UNROLL
    for (int i = 0; i < 2; ++i) {
      float largest = -INFINITY;
      GPU_UNROLL
      for (int j = 0; j < kKeys / 8; ++j) largest = fmaxf(largest, fmaxf(score[j][2 * i], score[j][2 * i + 1]));
      largest = fmaxf(max[i], GroupMax<4>(largest) * factor);
      const float subtrahend = Subtrahend(largest);
      rescale[i] = Exp2(max[i] - subtrahend);
      max[i] = largest;
      float sum = 0;
      GPU_UNROLL
      for (int j = 0; j < kKeys / 4; ++j) {
        float& p = score[j / 2][2 * i + j % 2];
        p = Exp2(fmaf(p, factor, -subtrahend));
        sum += p;
      }
      total[i] = fmaf(total[i], rescale[i], sum);
    }
  }

  // The sum of a row's weights, once all keys have been weighed; in all four lanes of the row.
  __device__ __forceinline__ float Total(int i) const { return GroupSum<4>(total[i]); }

 private:
  template <int kKeys>
  __device__ __forceinline__ void Mask(const AttnCall& c, int lane, int first, KeyRange keys,
                                       float (&score)[kKeys / 8][4]) const {
    GPU_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int after = c.window > 0 ? seat[i] - c.window : -1;
      const int begin = (keys.begin > after + 1 ? keys.begin : after + 1) - first - lane % 4 * 2;
      const int end = (keys.end < seat[i] + 1 ? keys.end : seat[i] + 1) - first - lane % 4 * 2;
      GPU_UNROLL
      for (int j = 0; j < kKeys / 4; ++j) {
        const int key = j / 2 * 8 + j % 2;
        if (key < begin || key >= end) score[j / 2][2 * i + j % 2] = -INFINITY;
      }
    }
  }
};

// Weights of eight keys a tile as mma's A for sixteen.
template <class T, int kTiles>
__device__ __forceinline__ void PackWeights(const float (&p)[kTiles][4], uint32_t (&weight)[kTiles / 2][4]) {
  GPU_UNROLL
  for (int i = 0; i < kTiles * 2; ++i)
    weight[i / 4][i % 4] = PackPair(p[i / 2][i % 2 * 2], p[i / 2][i % 2 * 2 + 1], T{});
}

template <int kTiles>
__device__ __forceinline__ void Rescale(float (&sum)[kTiles][4], const float (&rescale)[2]) {
  GPU_UNROLL
  for (int i = 0; i < kTiles * 4; ++i) sum[i / 4][i % 4] *= rescale[i % 4 / 2];
}

// Two neighbouring elements of a result, as T or as the call's f32.
template <class T>
__device__ __forceinline__ void StorePair(const AttnCall& c, int64_t at, float x0, float x1) {
  if (c.q_dtype == DType::kF32) {
    *reinterpret_cast<float2*>(static_cast<float*>(c.y) + at) = make_float2(x0, x1);
  } else {
    *reinterpret_cast<uint32_t*>(static_cast<T*>(c.y) + at) = PackPair(x0, x1, T{});
  }
}

// Whether queries of a call can meet keys in a dtype of 16 bits, and lie so that pairs can be loaded at once.
inline bool SixteenBits(const AttnCall& c, DType keys) {
  const bool dtypes =
      (keys == DType::kBF16 || keys == DType::kF16) &&
      (c.q_dtype == keys || (c.q_dtype == DType::kF32 && keys == DType::kBF16));  // f16 has not f32's range
  const uintptr_t pair = 2 * static_cast<uintptr_t>(ElementBytes(c.q_dtype));
  const bool pairs = (c.q_row | c.q_head | c.y_row | c.y_head) % 2 == 0 &&
                     (reinterpret_cast<uintptr_t>(c.q) | reinterpret_cast<uintptr_t>(c.y)) % pair == 0;
  return dtypes && pairs && c.scale > 0;
}

}  // namespace assay::gpu
