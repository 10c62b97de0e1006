// SPDX-License-Identifier: Apache-2.0
// Reductions over lanes and blocks, and what partial softmaxes are merged by. Deterministic: the order of every sum is
// fixed. Device functions, called by all lanes of a group, or all threads of a block, together; all of them get the
// result.
#pragma once

#include <cmath>

#include "kernels/cuda/gpu.h"

namespace assay::gpu {

struct Plus {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};
// A NaN loses against a number.
struct Larger {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

// Over groups of `width` neighbouring lanes, a power of two of at most kWarp. op must be commutative.
template <int width = kWarp, class T, class Op>
__device__ __forceinline__ T GroupReduce(T value, Op op) {
  GPU_UNROLL
  for (int mask = width / 2; mask > 0; mask /= 2) value = op(value, ShuffleXor(value, mask, width));
  return value;
}
template <int width = kWarp, class T>
__device__ __forceinline__ T GroupSum(T value) {
  return GroupReduce<width>(value, Plus{});
}
template <int width = kWarp>
__device__ __forceinline__ float GroupMax(float value) {
  return GroupReduce<width>(value, Larger{});
}

// Over a block of kThreads (threadIdx.x alone, whole warps). scratch: kThreads / kWarp values of shared memory, free
// for the next reduction at once; a barrier before and one after it is written also order the block's other shared
// memory.
template <int kThreads, class T, class Op>
__device__ __forceinline__ T BlockReduce(T value, T* scratch, Op op) {
  constexpr int kWarps = kThreads / kWarp;
  static_assert(kThreads % kWarp == 0, "whole warps");
  value = GroupReduce(value, op);
  __syncthreads();  // who still reads the last result
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = scratch[0];
  GPU_UNROLL
  for (int i = 1; i < kWarps; ++i) value = op(value, scratch[i]);
  return value;
}
template <int kThreads, class T>
__device__ __forceinline__ T BlockSum(T value, T* scratch) {
  return BlockReduce<kThreads>(value, scratch, Plus{});
}
template <int kThreads>
__device__ __forceinline__ float BlockMax(float value, float* scratch) {
  return BlockReduce<kThreads>(value, scratch, Larger{});
}

// The softmax of a part: its largest score, and the sum of exp(score - max). A part without scores is {-inf, 0}.
struct SoftmaxPart {
  float max, sum;
};
// What the sums (and weighted sums) of a part are multiplied by when its maximum becomes `max`.
__device__ __forceinline__ float SoftmaxRescale(float part_max, float max) {
  return part_max == max ? 1.0f : expf(part_max - max);  // equal may be -inf twice
}

}  // namespace assay::gpu
