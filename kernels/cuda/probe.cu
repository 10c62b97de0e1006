// SPDX-License-Identifier: Apache-2.0
// probe_read: how fast this device can read its memory.
// Shape: x [N] bytes, each read once, nothing written but a sum per block; the read bandwidth is the limit, and what
// this measures. Blocks are resident all at once (4 a processor, whose registers they then fill) and walk the memory
// together, 4 KB a block at a time, with eight loads of 16 bytes per thread on their way: 128 KB a processor, some 17
// MB on an H100, seven times what its latency asks for. Sums of bytes, so that their order cannot matter. Not yet
// measured on a card.
#include "kernels/cuda/numeric.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/reduce.h"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksPerProcessor = 4;
constexpr int kLoads = 8;

using Sum = unsigned long long;

int Blocks(const Queue& queue) {
  return kBlocksPerProcessor * queue.processors;
}

// Four bytes, two each into the 16-bit halves of the sum.
__device__ __forceinline__ uint32_t AddBytes(uint32_t sums, uint32_t word) {
  return sums + (word & 0x00ff00ffu) + (word >> 8 & 0x00ff00ffu);
}

// head bytes lie before the first aligned vector, tail bytes behind the last.
__global__ void __launch_bounds__(kThreads, kBlocksPerProcessor)
    ReadKernel(const uint8_t* x, int64_t head, int64_t vectors, int64_t tail, Sum* partial) {
  static_assert(kLoads * 4 * 2 * 255 < 65536, "halves do not overflow within a round");
  WaitForPrevious();
  StartNext();
  __shared__ Sum scratch[kThreads / kWarp];
  const uint4* body = reinterpret_cast<const uint4*>(x + head);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  Sum sum = 0;
  for (int64_t at = thread; at < vectors; at += stride * kLoads) {
    uint4 v[kLoads];
    GPU_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      v[i] = make_uint4(0, 0, 0, 0);
      if (at + i * stride < vectors) v[i] = LoadVector(body + at + i * stride);
    }
    uint32_t halves = 0;
    GPU_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      halves = AddBytes(AddBytes(AddBytes(AddBytes(halves, v[i].x), v[i].y), v[i].z), v[i].w);
    }
    sum += (halves & 0xffffu) + (halves >> 16);
  }
  if (thread < head) sum += x[thread];
  if (thread < tail) sum += x[head + vectors * 16 + thread];
  sum = BlockSum<kThreads>(sum, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads) FinishKernel(const Sum* partial, int blocks, float* sink) {
  WaitForPrevious();
  StartNext();
  __shared__ Sum scratch[kThreads / kWarp];
  Sum sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < blocks; i += kThreads) sum += partial[i];
  sum = BlockSum<kThreads>(sum, scratch);
  if (threadIdx.x == 0) *sink = static_cast<float>(sum);
}

}  // namespace

size_t ProbeReadWorkspace(const Queue& queue) {
  return static_cast<size_t>(Blocks(queue)) * sizeof(Sum);
}

void ProbeRead(const View& x, const View& sink, void* workspace, const Queue& queue) {
  const int64_t bytes = x.shape[0];
  if (bytes == 0) return;
  const int64_t past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(x.data) % 16);
  const int64_t unaligned = past == 0 ? 0 : 16 - past, head = unaligned < bytes ? unaligned : bytes;
  const int64_t vectors = (bytes - head) / 16, tail = (bytes - head) % 16;
  const int blocks = Blocks(queue);
  Sum* const partial = static_cast<Sum*>(workspace);
  Launch(ReadKernel, blocks, kThreads, 0, queue.stream, x.as<const uint8_t>(), head, vectors, tail, partial);
  Launch(FinishKernel, 1, kThreads, 0, queue.stream, partial, blocks, sink.as<float>());
}

}  // namespace assay::gpu
