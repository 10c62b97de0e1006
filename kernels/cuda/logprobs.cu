// SPDX-License-Identifier: Apache-2.0
// logprobs: log softmax at a target, and the K largest of a row.
// Shapes: logits [M, V] f32, rows strided; K at most V. Bytes: logits are read once; bandwidth is the limit of many
// rows, latency of a few. Two launches:
//   1. every warp reads a segment of a row, 16 loads per lane on their way, and leaves its maximum and its sum of
//      exponentials relative to it;
//   2. a block per row merges them. The K-th largest of the segments' maxima bounds the K-th largest logit from below,
//      so only segments whose maximum reaches it are read again (about K of them), and few elements do.
// Where there are fewer segments than K, or more elements above the bound than fit (equal logits), the block finds its
// way through the row by radix selection, 1024 of the K at a time: slower, and as exact. Not yet measured on a card.
#include "kernels/cuda/ops.h"
#include "kernels/cuda/ranking.h"

namespace assay::gpu {
namespace {

constexpr int kThreads = kRankThreads;
constexpr int kWarps = kThreads / kWarp;
constexpr int kLoads = 16;
constexpr int kSegment = kLoads * kWarp;  // elements
constexpr int kList = 1024;

struct LogprobsArgs {
  const float* logits;
  int64_t row_stride;
  int vocab, segments;
  SoftmaxPart* part;  // [rows][segments]
  const int32_t* targets;
  float* target_logprob;
  int64_t target_stride, target_logprob_stride;
  int32_t* top_ids;  // may be null
  float* top_logprobs;
  int64_t top_ids_stride, top_logprobs_stride;
  int top;
};

__global__ void __launch_bounds__(kThreads) SegmentKernel(LogprobsArgs a) {
  WaitForPrevious();
  StartNext();
  const int64_t row = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int segment = static_cast<int>(blockIdx.y) * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  const float* const logits = a.logits + row * a.row_stride;
  const float infinity = __int_as_float(0x7f800000);
  float x[kLoads], max = -infinity;
  GPU_UNROLL
  for (int i = 0; i < kLoads; ++i) {
    const int64_t at = static_cast<int64_t>(segment) * kSegment + i * kWarp + lane;
    x[i] = at < a.vocab ? logits[at] : -infinity;
  }
  GPU_UNROLL
  for (int i = 0; i < kLoads; ++i) max = fmaxf(max, x[i]);
  max = GroupMax(max);
  const float from = max == -infinity ? 0.0f : max;  // nothing but -inf sums up to 0; any NaN makes it NaN
  float sum = 0;
  GPU_UNROLL
  for (int i = 0; i < kLoads; ++i) sum += expf(x[i] - from);
  sum = GroupSum(sum);
  if (lane == 0 && segment < a.segments) a.part[row * a.segments + segment] = {max, sum};
}

struct Shared {
  Rank segments[kList];  // their maxima, with the segment as index
  Rank list[kList];      // elements
  int listed;
  float scratch[kWarps];
  SelectScratch select;
};

// All elements of a row that come after `last` (0: all).
struct RowSet {
  const float* row;
  int vocab;
  Rank last;

  template <class F>
  __device__ __forceinline__ void ForEach(const F& f) const {
    ForEachLogit<8>(row, 0, vocab, [&](float x, int i) {
      const Rank rank = RankOf(x, i);
      if (last == 0 || rank < last) f(rank, Wide{0});
    });
  }
};

__device__ __forceinline__ int PowerOfTwo(int n) {
  int power = 1;
  while (power < n) power *= 2;
  return power;
}

// Sorts the list, and writes its first `count` elements as entries `from`, from + 1, ...
__device__ __forceinline__ void WriteSorted(const LogprobsArgs& a, int64_t row, int from, int count, float max,
                                            float log_sum, Shared* s) {
  __syncthreads();
  const int size = PowerOfTwo(s->listed);
  for (int i = s->listed + static_cast<int>(threadIdx.x); i < size; i += kThreads) s->list[i] = 0;
  BlockSort(s->list, size);
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    a.top_ids[row * a.top_ids_stride + from + i] = IndexOf(s->list[i]);
    a.top_logprobs[row * a.top_logprobs_stride + from + i] = (ValueOf(s->list[i]) - max) - log_sum;
  }
}

// Lists all elements of the row that are as large as the K-th of the segments' maxima. Whether they fit.
__device__ __forceinline__ bool ListAboveBound(const LogprobsArgs& a, int64_t row, Shared* s) {
  if (a.top > a.segments || a.segments > kList) return false;
  const int size = PowerOfTwo(a.segments);
  for (int i = static_cast<int>(threadIdx.x); i < size; i += kThreads) {
    s->segments[i] = i < a.segments ? RankOf(a.part[row * a.segments + i].max, i) : 0;
  }
  if (threadIdx.x == 0) s->listed = 0;
  BlockSort(s->segments, size);
  const float bound = ValueOf(s->segments[a.top - 1]);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int i = static_cast<int>(threadIdx.x) / kWarp; i < a.segments; i += kWarps) {
    if (ValueOf(s->segments[i]) < bound) break;
    const int begin = IndexOf(s->segments[i]) * kSegment;
    for (int at = begin + lane; at < begin + kSegment && at < a.vocab; at += kWarp) {
      const Rank rank = RankOf(a.logits[row * a.row_stride + at], at);
      if (ValueOf(rank) < bound) continue;
      const int place = atomicAdd(&s->listed, 1);
      if (place < kList) s->list[place] = rank;
    }
  }
  __syncthreads();
  return s->listed <= kList;
}

__global__ void __launch_bounds__(kThreads) RowKernel(LogprobsArgs a) {
  WaitForPrevious();
  StartNext();
  __shared__ Shared s;
  const int64_t row = blockIdx.x;
  const float* const logits = a.logits + row * a.row_stride;
  const SoftmaxPart* const parts = a.part + row * a.segments;
  float max = -__int_as_float(0x7f800000), sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < a.segments; i += kThreads) max = fmaxf(max, parts[i].max);
  max = BlockMax<kThreads>(max, s.scratch);
  for (int i = static_cast<int>(threadIdx.x); i < a.segments; i += kThreads) {
    sum += parts[i].sum * SoftmaxRescale(parts[i].max, max);
  }
  const float log_sum = logf(BlockSum<kThreads>(sum, s.scratch));
  if (threadIdx.x == 0) {
    const int target = a.targets[row * a.target_stride];
    a.target_logprob[row * a.target_logprob_stride] =
        target >= 0 && target < a.vocab ? (logits[target] - max) - log_sum : __int_as_float(0x7fc00000);
  }
  if (a.top == 0) return;
  if (ListAboveBound(a, row, &s)) {
    WriteSorted(a, row, 0, a.top, max, log_sum, &s);
    return;
  }
  RowSet rest = {logits, a.vocab, 0};
  for (int done = 0; done < a.top; done += kList) {
    const int count = a.top - done < kList ? a.top - done : kList;
    const Rank last = Select(rest, false, static_cast<Wide>(count), &s.select).rank;
    if (threadIdx.x == 0) s.listed = 0;
    __syncthreads();
    rest.ForEach([&](Rank rank, Wide) {
      if (rank >= last) s.list[atomicAdd(&s.listed, 1)] = rank;
    });
    WriteSorted(a, row, done, count, max, log_sum, &s);
    rest.last = last;
  }
}

int64_t Segments(int64_t vocab) {
  return CeilDiv(vocab, kSegment);
}

}  // namespace

size_t LogprobsWorkspace(int64_t rows, int64_t vocab, int64_t) {
  return static_cast<size_t>(rows * Segments(vocab)) * sizeof(SoftmaxPart);
}

void Logprobs(const View& logits, const View& targets, const View& target_logprob, const View& top_ids,
              const View& top_logprobs, void* workspace, const Queue& queue) {
  const int64_t rows = logits.shape[0], vocab = logits.shape[1];
  if (rows == 0 || vocab == 0) return;
  const int64_t segments = Segments(vocab);
  LogprobsArgs a{};
  a.logits = logits.as<const float>();
  a.row_stride = logits.stride[0];
  a.vocab = static_cast<int>(vocab);
  a.segments = static_cast<int>(segments);
  a.part = static_cast<SoftmaxPart*>(workspace);
  a.targets = targets.as<const int32_t>();
  a.target_logprob = target_logprob.as<float>();
  a.target_stride = targets.stride[0];
  a.target_logprob_stride = target_logprob.stride[0];
  a.top_ids = top_ids.as<int32_t>();
  a.top_logprobs = top_logprobs.as<float>();
  a.top_ids_stride = top_ids.stride[0];
  a.top_logprobs_stride = top_logprobs.stride[0];
  a.top = top_ids ? static_cast<int>(top_ids.shape[1]) : 0;
  const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>(CeilDiv(segments, kWarps)));
  Launch(SegmentKernel, grid, kThreads, 0, queue.stream, a);
  Launch(RowKernel, static_cast<unsigned>(rows), kThreads, 0, queue.stream, a);
}

}  // namespace assay::gpu
