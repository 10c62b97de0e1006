// SPDX-License-Identifier: Apache-2.0
// kv_write_paged and kv_block_copy.
// Shapes: k, v [T, Hkv, D], strided in all but the last dimension; caches as in the ABI. Bytes: what is written is read
// once and written once; memory bandwidth is the limit. A block takes part of one token (of one pair of blocks); k and
// v go side by side, so that each thread has two (a copy: four) independent loads on their way. Not yet measured on a
// card.
#include "kernels/cuda/numeric.h"
#include "kernels/cuda/ops.h"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kWide = 8;   // elements that a thread writes
constexpr int kUnits = 4;  // units that a thread copies

struct Side {  // of k or of v
  const void* x;
  void* cache;
  int64_t token_stride, x_head_stride, block_stride, slot_stride, head_stride;
};
struct WriteArgs {
  Side k, v;
  const int32_t* slots;
  int64_t slot_stride;
  int units, units_per_head, block_size;
};

template <class T, class Kv, int count>
__global__ void __launch_bounds__(kThreads) WriteKernel(WriteArgs a) {
  WaitForPrevious();
  StartNext();
  const int64_t token = blockIdx.x;
  const int unit = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  const int slot = a.slots[token * a.slot_stride];
  if (slot < 0 || unit >= a.units) return;
  const int64_t block = slot / a.block_size, offset = slot % a.block_size;
  const int head = unit / a.units_per_head, at = unit % a.units_per_head * count;
  float k[count], v[count];
  LoadElements(static_cast<const T*>(a.k.x) + token * a.k.token_stride + head * a.k.x_head_stride + at, k);
  LoadElements(static_cast<const T*>(a.v.x) + token * a.v.token_stride + head * a.v.x_head_stride + at, v);
  const int64_t k_at = block * a.k.block_stride + offset * a.k.slot_stride + head * a.k.head_stride + at;
  const int64_t v_at = block * a.v.block_stride + offset * a.v.slot_stride + head * a.v.head_stride + at;
  StoreElements(static_cast<Kv*>(a.k.cache) + k_at, k);
  StoreElements(static_cast<Kv*>(a.v.cache) + v_at, v);
}

Side SideOf(const View& x, const View& cache, KvLayout layout) {
  const bool heads_first = layout == KvLayout::kHND;
  return {x.data,
          cache.data,
          x.stride[0],
          x.stride[1],
          cache.stride[0],
          cache.stride[heads_first ? 2 : 1],
          cache.stride[heads_first ? 1 : 2]};
}

// One cache of a block copy; strides in units of Raw.
struct CopySide {
  void* cache;
  int64_t block_stride, row_stride, inner_stride;
};
struct CopyArgs {
  CopySide sides[2];
  const int32_t* pairs;
  int64_t pair_stride;
  int units, units_per_inner, inner;  // a block is [units / (inner * units_per_inner), inner, units_per_inner]
};

template <class Raw>
__global__ void __launch_bounds__(kThreads) CopyKernel(CopyArgs a) {
  WaitForPrevious();
  StartNext();
  const CopySide side = blockIdx.z == 0 ? a.sides[0] : a.sides[1];
  const int64_t from = a.pairs[blockIdx.x * a.pair_stride], to = a.pairs[blockIdx.x * a.pair_stride + 1];
  if (from < 0 || to < 0) return;
  const int first = static_cast<int>(blockIdx.y * kThreads * kUnits + threadIdx.x);
  Raw value[kUnits];
  int64_t at[kUnits];
  GPU_UNROLL
  for (int i = 0; i < kUnits; ++i) {
    const int unit = first + i * kThreads, vector = unit / a.units_per_inner;
    at[i] = vector / a.inner * side.row_stride + vector % a.inner * side.inner_stride + unit % a.units_per_inner;
    if (unit < a.units) value[i] = static_cast<const Raw*>(side.cache)[from * side.block_stride + at[i]];
  }
  GPU_UNROLL
  for (int i = 0; i < kUnits; ++i) {
    if (first + i * kThreads < a.units) static_cast<Raw*>(side.cache)[to * side.block_stride + at[i]] = value[i];
  }
}

template <class Raw>
void CopyBlocks(const View& pairs, const View& k_cache, const View& v_cache, const Queue& queue) {
  const int ratio = static_cast<int>(sizeof(Raw)) / static_cast<int>(ElementBytes(k_cache.dtype));
  const auto side = [&](const View& c) {
    return CopySide{c.data, c.stride[0] / ratio, c.stride[1] / ratio, c.stride[2] / ratio};
  };
  const int units = static_cast<int>(k_cache.shape[1] * k_cache.shape[2] * k_cache.shape[3] / ratio);
  if (pairs.shape[0] == 0 || units == 0) return;
  const CopyArgs args = {{side(k_cache), side(v_cache)},
                         pairs.as<const int32_t>(),
                         pairs.stride[0],
                         units,
                         static_cast<int>(k_cache.shape[3]) / ratio,
                         static_cast<int>(k_cache.shape[2])};
  const dim3 grid(static_cast<unsigned>(pairs.shape[0]), static_cast<unsigned>(CeilDiv(units, kThreads * kUnits)), 2);
  Launch(CopyKernel<Raw>, grid, kThreads, 0, queue.stream, args);
}

}  // namespace

void KvWritePaged(const View& k, const View& v, const View& slots, const View& k_cache, const View& v_cache,
                  const KvAttr& attr, const Queue& queue) {
  const int heads = static_cast<int>(k.shape[1]), dim = static_cast<int>(k.shape[2]);
  if (slots.shape[0] == 0 || heads == 0 || dim == 0) return;
  const bool wide =
      dim % kWide == 0 && HasVectorRows(k) && HasVectorRows(v) && HasVectorRows(k_cache) && HasVectorRows(v_cache);
  const int units_per_head = wide ? dim / kWide : dim, units = heads * units_per_head;
  const WriteArgs args = {SideOf(k, k_cache, attr.layout),
                          SideOf(v, v_cache, attr.layout),
                          slots.as<const int32_t>(),
                          slots.stride[0],
                          units,
                          units_per_head,
                          attr.block_size};
  const dim3 grid(static_cast<unsigned>(slots.shape[0]), static_cast<unsigned>(CeilDiv(units, kThreads)));
  WithElement(k.dtype, [&](auto element) {
    WithCacheElement(k_cache.dtype, [&](auto cached) {
      using T = decltype(element);
      using Kv = decltype(cached);
      if (wide) {
        Launch(WriteKernel<T, Kv, kWide>, grid, kThreads, 0, queue.stream, args);
      } else {
        Launch(WriteKernel<T, Kv, 1>, grid, kThreads, 0, queue.stream, args);
      }
    });
  });
}

void KvBlockCopy(const View& pairs, const View& k_cache, const View& v_cache, const KvAttr&, const Queue& queue) {
  if (HasVectorRows(k_cache) && HasVectorRows(v_cache)) {
    CopyBlocks<uint4>(pairs, k_cache, v_cache, queue);
  } else if (ElementBytes(k_cache.dtype) == 2) {
    CopyBlocks<uint16_t>(pairs, k_cache, v_cache, queue);
  } else if (ElementBytes(k_cache.dtype) == 1) {
    CopyBlocks<uint8_t>(pairs, k_cache, v_cache, queue);
  } else {
    CopyBlocks<uint32_t>(pairs, k_cache, v_cache, queue);
  }
}

}  // namespace assay::gpu
