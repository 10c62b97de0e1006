// SPDX-License-Identifier: Apache-2.0
// The order of a row's logits (value descending, index ascending, NaN as -inf) as one integer per element, and what a
// block does with it: sort a short list, find the element at which a count or a mass is reached. Masses are integers,
// so that sums do not depend on who adds first. Device functions, called by all threads of a block of kRankThreads.
#pragma once

#include "kernels/cuda/numeric.h"
#include "kernels/cuda/reduce.h"

namespace assay::gpu {

constexpr int kRankThreads = 256;

using Wide = unsigned long long;  // what 64-bit atomics take

// The greater comes first: the value's bits, made monotone, above the index's complement. 0 is below every element.
using Rank = Wide;
__device__ __forceinline__ Rank RankOf(float x, int index) {
  if (!(x == x)) x = -__int_as_float(0x7f800000);
  const uint32_t bits = __float_as_uint(x + 0.0f);  // -0 equals 0
  const uint32_t key = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<Rank>(key) << 32 | (UINT32_MAX - static_cast<uint32_t>(index));
}
__device__ __forceinline__ float ValueOf(Rank rank) {
  const auto key = static_cast<uint32_t>(rank >> 32);
  return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}
__device__ __forceinline__ int IndexOf(Rank rank) {
  return static_cast<int>(UINT32_MAX - static_cast<uint32_t>(rank));
}

struct Greater {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};
struct Less {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a < b ? a : b;
  }
};

// The sum of the values of this thread and those before it. scratch: as BlockReduce's.
template <class T>
__device__ __forceinline__ T BlockScan(T value, T* scratch) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  for (int delta = 1; delta < kWarp; delta *= 2) {
    const T before = ShuffleUp(value, delta);
    if (lane >= delta) value += before;
  }
  __syncthreads();
  if (lane == kWarp - 1) scratch[warp] = value;
  __syncthreads();
  for (int i = 0; i < warp; ++i) value += scratch[i];
  return value;
}

// Calls f(value, index) for this thread's elements of row[begin, end), kLoads loads at a time. f must hold no barrier.
template <int kLoads, class F>
__device__ __forceinline__ void ForEachLogit(const float* row, int begin, int end, const F& f) {
  for (int base = begin; base < end; base += kLoads * kRankThreads) {
    float x[kLoads];
    GPU_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      const int at = base + i * kRankThreads + static_cast<int>(threadIdx.x);
      x[i] = at < end ? row[at] : 0.0f;
    }
    GPU_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      const int at = base + i * kRankThreads + static_cast<int>(threadIdx.x);
      if (at < end) f(x[i], at);
    }
  }
}

// Sorts list[0, size), size a power of two, the greatest first.
__device__ __forceinline__ void BlockSort(Rank* list, int size) {
  for (int run = 2; run <= size; run *= 2) {
    for (int distance = run / 2; distance > 0; distance /= 2) {
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < size; i += kRankThreads) {
        const int other = i ^ distance;
        if (other < i) continue;
        const Rank a = list[i], b = list[other];
        if ((a < b) == ((i & run) == 0)) {
          list[i] = b;
          list[other] = a;
        }
      }
    }
  }
  __syncthreads();
}

// 64-bit sums in two 32-bit words: shared memory adds those natively.
__device__ __forceinline__ void AddMass(uint32_t* low, uint32_t* high, Wide mass) {
  const auto part = static_cast<uint32_t>(mass);
  const uint32_t before = atomicAdd(low, part);
  const uint32_t carried = static_cast<uint32_t>(mass >> 32) + (before + part < before ? 1u : 0u);
  if (carried != 0) atomicAdd(high, carried);
}

struct SelectScratch {
  uint32_t count[256], low[256], high[256];  // by digit
  Wide wide[kRankThreads / kWarp];
  uint32_t narrow[kRankThreads / kWarp];
  uint32_t digit, found;
  Wide before, mass_before;
  Rank rank;
  Wide mass;
};

struct Place {
  Rank rank;
  Wide mass;  // of the element and of all before it
};

// The first element, in order, with which the count (or the mass) of a set reaches `goal`, which must be between 1 and
// the set's own. set.ForEach(f) calls f(rank, mass) for this thread's share of the set; ranks differ, masses that are
// to be reached are not 0. Digit by digit from the first in which the ranks differ, 8 bits at a time, until one is
// left.
template <class Set>
__device__ __forceinline__ Place Select(const Set& set, bool by_mass, Wide goal, SelectScratch* s) {
  const int thread = static_cast<int>(threadIdx.x);
  Rank least = ~0ull, most = 0;
  set.ForEach([&](Rank rank, Wide) {
    least = Less{}(least, rank);
    most = Greater{}(most, rank);
  });
  least = BlockReduce<kRankThreads>(least, s->wide, Less{});
  most = BlockReduce<kRankThreads>(most, s->wide, Greater{});

  int bits = 64 - __clzll(static_cast<long long>(least ^ most));  // that are still open
  Rank prefix = bits < 64 ? most >> bits : 0;                     // the others
  const auto matches = [&](Rank rank) { return bits >= 64 || rank >> bits == prefix; };
  Wide before = 0, mass_before = 0;  // of what lies before the prefix; `before` in the measure of the goal
  uint32_t left = 2;
  while (bits > 0 && left > 1) {
    const int width = bits < 8 ? bits : 8, shift = bits - width;
    const uint32_t digits = 1u << width;
    s->count[thread] = s->low[thread] = s->high[thread] = 0;
    __syncthreads();
    set.ForEach([&](Rank rank, Wide mass) {
      if (!matches(rank)) return;
      const uint32_t digit = static_cast<uint32_t>(rank >> shift) & (digits - 1);
      atomicAdd(&s->count[digit], 1u);
      if (mass != 0) AddMass(&s->low[digit], &s->high[digit], mass);
    });
    __syncthreads();
    const uint32_t digit = 255u - static_cast<uint32_t>(thread);  // the greatest first
    const uint32_t count = s->count[digit];
    const Wide mass = static_cast<Wide>(s->high[digit]) << 32 | s->low[digit];
    const Wide mass_through = mass_before + BlockScan(mass, s->wide);
    const Wide through = by_mass ? mass_through : before + BlockScan(count, s->narrow);
    const Wide own = by_mass ? mass : count;
    if (through >= goal && through - own < goal) {  // one thread
      s->digit = digit;
      s->found = count;
      s->before = through - own;
      s->mass_before = mass_through - mass;
    }
    __syncthreads();
    prefix = prefix << width | s->digit;
    bits = shift;
    left = s->found;
    before = s->before;
    mass_before = s->mass_before;
  }
  set.ForEach([&](Rank rank, Wide mass) {
    if (!matches(rank)) return;
    s->rank = rank;
    s->mass = mass;
  });
  __syncthreads();
  const Place place = {s->rank, mass_before + s->mass};
  __syncthreads();  // before the next one writes
  return place;
}

}  // namespace assay::gpu
