// SPDX-License-Identifier: Apache-2.0
// rope, and qk_norm_rope_kv_write: one kernel, since rope is that composite without norms and cache.
// Shapes: q [T, Hq, D], k, v [T, Hkv, D], tokens and heads strided; caches as in the ABI. Bytes: every head is read
// once and written once, cosines and sines never leave the chip; memory bandwidth is the limit of a prompt, the latency
// of one load, one double-precision angle and one barrier that of a decode step. A block has one token and some of its
// heads: it makes cos and sin of every pair once, in shared memory, while its heads' loads are on their way. A head
// belongs to a group of neighbouring lanes; a lane holds one vector of the first half and its partner in the second, so
// that norm and rotation need no exchange but the sum of squares. Heads that are rotated in part, by neighbouring
// elements (interleaved), or not aligned take a plain path: a head per warp, through shared memory. Not yet measured on
// a card.
#include <initializer_list>

#include "kernels/cuda/numeric.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/reduce.h"

namespace assay::gpu {
namespace {

constexpr int kThreads = 128;

struct Heads {
  void* data = nullptr;
  int64_t token_stride = 0, head_stride = 0;
  int heads = 0;

  template <class T>
  __device__ __forceinline__ T* At(int64_t token, int head) const {
    return static_cast<T*>(data) + token * token_stride + head * head_stride;
  }
};
struct Cache {
  void* data = nullptr;
  int64_t block_stride = 0, head_stride = 0, slot_stride = 0;

  template <class T>
  __device__ __forceinline__ T* At(int64_t block, int64_t offset, int head) const {
    return static_cast<T*>(data) + block * block_stride + offset * slot_stride + head * head_stride;
  }
};

struct RopeArgs {
  Heads q, k, v;
  const int32_t* positions;
  const int32_t* slots;  // null: k is rotated in place, and there is no cache
  int64_t position_stride, slot_stride;
  Cache k_cache, v_cache;
  int block_size;
  const float *q_weight, *k_weight, *freq_factors;  // may be null
  int dim, rotary_dim;
  bool interleaved;
  float magnitude;  // of cos and sin
  float eps;
  RopeTable table;
};

// cos and sin of every pair at a token's position, by all threads of the block; the caller's barrier follows.
__device__ __forceinline__ void MakeTurns(const RopeArgs& a, int64_t token, float2* turns) {
  const double position = a.positions[token * a.position_stride];
  for (int i = static_cast<int>(threadIdx.x); i < a.rotary_dim / 2; i += static_cast<int>(blockDim.x)) {
    double angle = position * a.table.inv_freq[i];
    if (a.freq_factors != nullptr) angle /= static_cast<double>(a.freq_factors[i]);
    // In units of pi, less whole turns: what is left, in [-1, 1], is as accurate in float as any small angle.
    const double turn = angle * 0.31830988618379067154;
    float sine, cosine;
    sincospif(static_cast<float>(turn - 2.0 * rint(0.5 * turn)), &sine, &cosine);
    turns[i] = make_float2(cosine * a.magnitude, sine * a.magnitude);
  }
}

// What a group of lanes works on: a head of q, k or v, and where it goes. No pointer is ever null here that was not
// null in the arguments: so the compiler knows that all of them point to global memory.
template <class T, class Kv>
struct Job {
  T* x;
  Kv* y;
  const float* weight;
  bool present;  // false: nothing (but its lanes must not leave before the last shuffle)
  bool cached;   // to y, else back to x
  bool normed, rotates;
};
template <class T, class Kv>
__device__ __forceinline__ Job<T, Kv> FindJob(const RopeArgs& a, int64_t token, int unit) {
  const bool is_q = unit < a.q.heads, is_k = !is_q && unit < a.q.heads + a.k.heads;
  const bool has_cache = a.slots != nullptr;
  const int slot = has_cache ? a.slots[token * a.slot_stride] : 0;
  const int block = has_cache ? slot / a.block_size : 0, offset = has_cache ? slot % a.block_size : 0;
  const int head = is_q ? unit : is_k ? unit - a.q.heads : unit - a.q.heads - a.k.heads;
  Job<T, Kv> job;
  job.x = is_q ? a.q.At<T>(token, head) : is_k ? a.k.At<T>(token, head) : a.v.At<T>(token, head);
  job.y = is_k ? a.k_cache.At<Kv>(block, offset, head) : a.v_cache.At<Kv>(block, offset, head);
  job.weight = is_q ? a.q_weight : a.k_weight;
  job.rotates = is_q || is_k;
  job.normed = job.rotates && job.weight != nullptr;
  job.cached = has_cache && !is_q;
  job.present = unit < a.q.heads + a.k.heads + a.v.heads && (!job.cached || slot >= 0);  // a negative slot is padding
  return job;
}

// Whole heads, pairs (i, i + D/2), vectors everywhere. width: lanes of a head, a power of two.
template <class T, class Kv>
__global__ void __launch_bounds__(kThreads) RopeVectors(RopeArgs a, int width) {
  constexpr int kEach = kVector<T>;
  __shared__ float2 turns[kMaxHeadDim / 2];
  WaitForPrevious();
  StartNext();
  const int64_t token = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x) % width, half = a.dim / 2;
  const int unit = static_cast<int>(blockIdx.y * kThreads + threadIdx.x) / width;
  const Job<T, Kv> job = FindJob<T, Kv>(a, token, unit);
  const int begin = lane * kEach;
  const bool active = job.present && begin < half;

  float first[kEach] = {}, second[kEach] = {}, first_weight[kEach] = {}, second_weight[kEach] = {};
  if (active) {
    LoadElements<T>(job.x + begin, first);
    LoadElements<T>(job.x + half + begin, second);
  }
  if (active && job.normed) {
    LoadElements(job.weight + begin, first_weight);
    LoadElements(job.weight + half + begin, second_weight);
  }
  MakeTurns(a, token, turns);

  float squares = 0;
  GPU_UNROLL
  for (int i = 0; i < kEach; ++i) squares += first[i] * first[i] + second[i] * second[i];
  for (int mask = width / 2; mask > 0; mask /= 2) squares += ShuffleXor(squares, mask);
  __syncthreads();      // turns
  if (!active) return;  // no barrier and no shuffle follows

  if (job.normed) {
    const float scale = 1.0f / sqrtf(squares / static_cast<float>(a.dim) + a.eps);
    GPU_UNROLL
    for (int i = 0; i < kEach; ++i) {
      first[i] = RoundTo<T>(first[i] * (scale * first_weight[i]));
      second[i] = RoundTo<T>(second[i] * (scale * second_weight[i]));
    }
  }
  if (job.rotates) {
    GPU_UNROLL
    for (int i = 0; i < kEach; ++i) {
      const float2 turn = turns[begin + i];
      const float x0 = first[i], x1 = second[i];
      first[i] = RoundTo<T>(x0 * turn.x - x1 * turn.y);
      second[i] = RoundTo<T>(x1 * turn.x + x0 * turn.y);
    }
  }
  if (job.cached) {
    StoreElements(job.y + begin, first);
    StoreElements(job.y + half + begin, second);
  } else {
    StoreElements(job.x + begin, first);
    StoreElements(job.x + half + begin, second);
  }
}

// Any head, a warp each.
template <class T, class Kv>
__global__ void __launch_bounds__(kThreads) RopePlain(RopeArgs a) {
  __shared__ float2 turns[kMaxHeadDim / 2];
  __shared__ float heads[kThreads / kWarp][kMaxHeadDim];
  WaitForPrevious();
  StartNext();
  const int64_t token = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int unit = static_cast<int>(blockIdx.y) * (kThreads / kWarp) + warp;
  const Job<T, Kv> job = FindJob<T, Kv>(a, token, unit);
  const int dim = job.present ? a.dim : 0;
  MakeTurns(a, token, turns);

  float* const head = heads[warp];
  float squares = 0;
  for (int i = lane; i < dim; i += kWarp) {
    head[i] = ToFloat(job.x[i]);
    squares += head[i] * head[i];
  }
  squares = GroupSum(squares);
  if (job.normed) {
    const float scale = 1.0f / sqrtf(squares / static_cast<float>(a.dim) + a.eps);
    for (int i = lane; i < dim; i += kWarp) head[i] = RoundTo<T>(head[i] * (scale * job.weight[i]));
  }
  __syncthreads();  // turns and heads
  for (int i = lane; i < dim; i += kWarp) {
    float value = head[i];
    if (job.rotates && i < a.rotary_dim) {
      const int half = a.rotary_dim / 2;
      const int pair = a.interleaved ? i / 2 : i % half;
      const bool is_first = a.interleaved ? i % 2 == 0 : i < half;
      const int distance = a.interleaved ? 1 : half;
      const float sine = is_first ? -turns[pair].y : turns[pair].y;
      value = RoundTo<T>(value * turns[pair].x + head[is_first ? i + distance : i - distance] * sine);
    }
    if (job.cached) {
      job.y[i] = FromFloat<Kv>(value);
    } else {
      job.x[i] = FromFloat<T>(value);
    }
  }
}

template <class T, class Kv>
void LaunchRope(const RopeArgs& a, bool vectors, int64_t tokens, const Queue& queue) {
  const int units = a.q.heads + a.k.heads + a.v.heads;
  if (tokens == 0 || units == 0) return;
  const int half = a.dim / 2;
  vectors = vectors && a.rotary_dim == a.dim && !a.interleaved && half % kVector<T> == 0;
  int width = vectors ? 1 : kWarp;
  while (width * kVector<T> < half && width < kWarp) width *= 2;
  const dim3 grid(static_cast<unsigned>(tokens), static_cast<unsigned>(CeilDiv(units, kThreads / width)));
  if (vectors) {
    Launch(RopeVectors<T, Kv>, grid, kThreads, 0, queue.stream, a, width);
  } else {
    Launch(RopePlain<T, Kv>, grid, kThreads, 0, queue.stream, a);
  }
}

Heads HeadsOf(const View& v) {
  return v ? Heads{v.data, v.stride[0], v.stride[1], static_cast<int>(v.shape[1])} : Heads{};
}
Cache CacheOf(const View& v, KvLayout layout) {
  const bool heads_first = layout == KvLayout::kHND;
  return {v.data, v.stride[0], v.stride[heads_first ? 1 : 2], v.stride[heads_first ? 2 : 1]};
}

RopeArgs Args(const View& positions, const View& freq_factors, const View& q, const View& k, const RopeAttr& attr,
              const RopeTable& table) {
  RopeArgs a{};
  a.q = HeadsOf(q);
  a.k = HeadsOf(k);
  a.positions = positions.as<const int32_t>();
  a.position_stride = positions.stride[0];
  a.freq_factors = freq_factors.as<const float>();
  a.dim = static_cast<int>(q.shape[2]);
  a.rotary_dim = attr.rotary_dim;
  a.interleaved = attr.interleaved;
  a.magnitude = attr.scaling == RopeScaling::kYarn ? attr.attn_factor : 1.0f;
  a.table = table;
  return a;
}

}  // namespace

void Rope(const View& positions, const View& freq_factors, const View& q, const View& k, const RopeAttr& attr,
          const RopeTable& table, const Queue& queue) {
  const RopeArgs args = Args(positions, freq_factors, q, k, attr, table);
  const bool vectors = HasVectorRows(q) && HasVectorRows(k);
  WithElement(q.dtype, [&](auto element) {
    using T = decltype(element);
    LaunchRope<T, T>(args, vectors, q.shape[0], queue);
  });
}

void QkNormRopeKvWrite(const View& q, const View& k, const View& v, const View& positions, const View& slots,
                       const View& q_weight, const View& k_weight, const View& freq_factors, const View& k_cache,
                       const View& v_cache, float eps, const RopeAttr& rope, const RopeTable& table, const KvAttr& kv,
                       const Queue& queue) {
  RopeArgs args = Args(positions, freq_factors, q, k, rope, table);
  args.v = HeadsOf(v);
  args.slots = slots.as<const int32_t>();
  args.slot_stride = slots.stride[0];
  args.k_cache = CacheOf(k_cache, kv.layout);
  args.v_cache = CacheOf(v_cache, kv.layout);
  args.block_size = kv.block_size;
  args.q_weight = q_weight.as<const float>();
  args.k_weight = k_weight.as<const float>();
  args.eps = eps;
  bool vectors = true;
  for (const View* view : {&q, &k, &v, &q_weight, &k_weight, &k_cache, &v_cache}) {
    vectors = vectors && HasVectorRows(*view);
  }
  WithElement(q.dtype, [&](auto element) {
    WithCacheElement(k_cache.dtype, [&](auto cached) {
      LaunchRope<decltype(element), decltype(cached)>(args, vectors, q.shape[0], queue);
    });
  });
}

}  // namespace assay::gpu
