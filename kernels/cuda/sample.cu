// SPDX-License-Identifier: Apache-2.0
// sample: the next token of every row, exactly as the ABI defines it, without sorting the vocabulary.
// Shapes: logits [S, V] f32, rows strided; parameters [S]. Bytes: logits are read once for greedy rows, twice and a
// third time by one block (out of the L2 cache) for drawn ones: bandwidth limits many rows, latency a few. A row is
// shared by as many blocks as fill the device. Two launches, whatever the parameters, which are known on the device
// only:
//   1. largest (and smallest) logit of each part of a row;
//   2. greedy rows end here. Others: probabilities relative to the largest become integers of 2^-40, so that sums are
//      exact and the order of additions does not matter, and go into a histogram over the distance from the largest.
//      The row's last block sees the whole of it. All that top_k, top_p, min_p and the draw ask is, where in the order
//      of tokens a count or a mass is reached: the histogram says in which bin; the block fetches the elements of those
//      few bins and finds the element among them (Select).
// A bin with more elements than fit (thousands of equal logits) is read from the row each time: slower, and as exact.
// Not yet measured on a card.
#include "kernels/cuda/ops.h"
#include "kernels/cuda/ranking.h"

namespace assay::gpu {
namespace {

constexpr int kThreads = kRankThreads;
constexpr int kLoads = 8;                    // per thread, on their way together
constexpr int kPartMin = kLoads * kThreads;  // elements of a block
constexpr int kBins = 1024;
constexpr int kList = 2048;
constexpr float kFar = 27.75f;  // exp(-kFar) < 2^-40: no mass
constexpr float kLargestFloat = 3.402823466e38f;

struct RowSpace {
  Wide mass[kBins];
  uint32_t count[kBins];
  uint32_t arrived;  // parts whose histogram is in
};
struct Part {
  Rank best;
  float least;  // of the finite ones; +inf if there is none
};

struct SampleArgs {
  const float* logits;
  int64_t row_stride;
  const float *temperature, *top_p, *min_p;
  const int32_t *top_k, *step;
  const int64_t* seed;
  int32_t* ids;
  int64_t temperature_stride, top_p_stride, min_p_stride, top_k_stride, step_stride, seed_stride, ids_stride;
  int vocab, parts, part_size;
  RowSpace* rows;
  Part* part;  // [rows][parts]
};

__global__ void __launch_bounds__(kThreads) PartKernel(SampleArgs a) {
  WaitForPrevious();
  StartNext();
  __shared__ Rank ranks[kThreads / kWarp];
  __shared__ float leasts[kThreads / kWarp];
  const int64_t row = blockIdx.x;
  const int begin = static_cast<int>(blockIdx.y) * a.part_size;
  const int end = begin + a.part_size < a.vocab ? begin + a.part_size : a.vocab;
  const float infinity = __int_as_float(0x7f800000);
  float best = -infinity, least = infinity;
  int index = begin + static_cast<int>(threadIdx.x);
  ForEachLogit<kLoads>(a.logits + row * a.row_stride, begin, end, [&](float x, int at) {
    if (x > best) {  // the first of equals; never a NaN
      best = x;
      index = at;
    }
    if (x > -infinity && x < least) least = x;
  });
  const Rank rank = BlockReduce<kThreads>(RankOf(best, index), ranks, Greater{});
  least = BlockReduce<kThreads>(least, leasts, Less{});
  if (threadIdx.x == 0) a.part[row * a.parts + blockIdx.y] = {rank, least};

  if (blockIdx.y != 0 || !(a.temperature[row * a.temperature_stride] > 0)) return;
  RowSpace* const space = a.rows + row;
  for (int i = static_cast<int>(threadIdx.x); i < kBins; i += kThreads) {
    space->mass[i] = 0;
    space->count[i] = 0;
  }
  if (threadIdx.x == 0) space->arrived = 0;
}

// A row's logits as distances from the largest, masses, and bins. Bin and mass fall with the logit, or stay.
struct Scale {
  float largest, inverse_temperature, bins_per_unit;

  __device__ __forceinline__ float Distance(float x) const { return x == largest ? 0.0f : largest - x; }
  __device__ __forceinline__ Wide Mass(float distance) const {
    const float z = distance * inverse_temperature;
    return z < kFar ? static_cast<Wide>(expf(-z) * 0x1p40f) : 0;  // a NaN has none
  }
  __device__ __forceinline__ int Bin(float distance) const {
    return static_cast<int>(fminf(distance * bins_per_unit, kBins - 1));
  }
};

struct Shared {
  union {
    struct {
      uint32_t count[kBins], low[kBins], high[kBins];
    } own;  // this block's histogram
    struct {
      Wide mass[kBins];
      uint32_t count[kBins];
    } through;  // the row's, summed up to and including each bin
  };
  unsigned char wanted[kBins];
  Rank list[kList];  // elements of wanted bins
  int listed;        // more than kList: they do not fit
  bool last;
  SelectScratch select;
};

// The elements of one bin.
struct BinSet {
  const Shared* s;
  const Scale* scale;
  const float* row;
  int vocab, bin;

  template <class F>
  __device__ __forceinline__ void ForEach(const F& f) const {
    const auto visit = [&](float x, Rank rank) {
      const float distance = scale->Distance(x);
      const Wide mass = scale->Mass(distance);
      if (mass != 0 && scale->Bin(distance) == bin) f(rank, mass);
    };
    if (s->listed > kList) {
      ForEachLogit<4>(row, 0, vocab, [&](float x, int i) { visit(x, RankOf(x, i)); });
    } else {
      for (int i = static_cast<int>(threadIdx.x); i < s->listed; i += kThreads) visit(ValueOf(s->list[i]), s->list[i]);
    }
  }
};

// The first bin whose running sum reaches the goal.
template <class T>
__device__ __forceinline__ int FirstBin(const T* through, Wide goal) {
  int low = 0, high = kBins - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (through[middle] >= goal) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}
template <class T>
__device__ __forceinline__ Wide Before(const T* through, int bin) {
  return bin == 0 ? 0 : through[bin - 1];
}

// The 24 bits of Uniform (kernels/attributes.h).
__device__ __forceinline__ uint32_t UniformBits(Wide seed, uint32_t step) {
  Wide z = seed + 0x9E3779B97F4A7C15ull * (static_cast<Wide>(step) + 1u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  z ^= z >> 31;
  return static_cast<uint32_t>(z >> 40);
}

struct Draw {
  Wide top_k;  // 0: all
  double top_p;
  float farthest;  // the distance that min_p allows; negative: any
  uint32_t uniform;

  // Of the mass before: that which top_p keeps at least; that which the drawn element must exceed, and one more.
  __device__ __forceinline__ Wide Reach(Wide mass) const {
    const double reach = ceil(top_p * static_cast<double>(mass));
    if (!(reach > 1)) return 1;
    const Wide whole = static_cast<Wide>(reach);
    return whole < mass ? whole : mass;
  }
  __device__ __forceinline__ Wide Target(Wide mass) const {
    return (mass >> 24) * uniform + ((mass & 0xffffffu) * uniform >> 24) + 1;
  }
};

// Marks the bins in which the exact answers can lie: bounds of the masses go through the same steps as these.
__device__ __forceinline__ void MarkBins(const Draw& draw, const Scale& scale, Shared* s) {
  const auto mark = [&](int first, int last) {
    for (int i = first + static_cast<int>(threadIdx.x); i <= last; i += kThreads) s->wanted[i] = 1;
  };
  const Wide* mass = s->through.mass;
  Wide low = mass[kBins - 1], high = low;
  if (draw.top_k != 0 && draw.top_k < s->through.count[kBins - 1]) {
    const int bin = FirstBin(s->through.count, draw.top_k);
    mark(bin, bin);
    low = Before(mass, bin) + 1;
    high = mass[bin];
  }
  if (draw.top_p < 1) {
    low = draw.Reach(low);
    const int last = FirstBin(mass, draw.Reach(high));
    mark(FirstBin(mass, low), last);
    high = Less{}(high, mass[last]);
  }
  if (draw.farthest >= 0) {
    const int bin = scale.Bin(draw.farthest);
    mark(bin, bin);
    low = Less{}(low, Greater{}(Before(mass, bin), Wide{1}));
    high = Less{}(high, mass[bin]);
  }
  mark(FirstBin(mass, draw.Target(low)), FirstBin(mass, draw.Target(high)));
}

__device__ __forceinline__ void ListWanted(const float* row, int vocab, const Scale& scale, Shared* s) {
  const volatile int* const listed = &s->listed;
  // One block alone reads all of the row: twice the loads on their way.
  ForEachLogit<2 * kLoads>(row, 0, vocab, [&](float x, int i) {
    const float distance = scale.Distance(x);
    if (s->wanted[scale.Bin(distance)] == 0 || scale.Mass(distance) == 0 || *listed > kList) return;
    const int at = atomicAdd(&s->listed, 1);
    if (at < kList) s->list[at] = RankOf(x, i);
  });
}

// The id that is drawn from a row whose histogram is complete.
__device__ __forceinline__ int DrawId(const float* row, int vocab, const Draw& draw, const Scale& scale, Shared* s) {
  for (int i = static_cast<int>(threadIdx.x); i < kBins; i += kThreads) s->wanted[i] = 0;
  if (threadIdx.x == 0) s->listed = 0;
  __syncthreads();
  MarkBins(draw, scale, s);
  __syncthreads();
  ListWanted(row, vocab, scale, s);
  __syncthreads();

  const Wide* through = s->through.mass;
  const auto place = [&](int bin, bool by_mass, Wide goal) {
    const BinSet set = {s, &scale, row, vocab, bin};
    return Select(set, by_mass, goal, &s->select);
  };
  const auto place_of_mass = [&](Wide goal) {
    const int bin = FirstBin(through, goal);
    Place p = place(bin, true, goal - Before(through, bin));
    p.mass += Before(through, bin);
    return p;
  };
  Wide mass = through[kBins - 1];
  if (draw.top_k != 0 && draw.top_k < s->through.count[kBins - 1]) {
    const int bin = FirstBin(s->through.count, draw.top_k);
    mass = Before(through, bin) + place(bin, false, draw.top_k - Before(s->through.count, bin)).mass;
  }
  if (draw.top_p < 1) mass = place_of_mass(draw.Reach(mass)).mass;
  if (draw.farthest >= 0) {
    const int bin = scale.Bin(draw.farthest);
    Wide near = 0;
    BinSet{s, &scale, row, vocab, bin}.ForEach([&](Rank rank, Wide m) {
      if (scale.Distance(ValueOf(rank)) <= draw.farthest) near += m;
    });
    near = Before(through, bin) + BlockReduce<kThreads>(near, s->select.wide, Plus{});
    mass = Less{}(mass, near);
  }
  return IndexOf(place_of_mass(draw.Target(mass)).rank);
}

// Adds this part of the row to the row's histogram. Whether it was the last one, for all threads.
__device__ __forceinline__ bool AddHistogram(const float* row, int begin, int end, const Scale& scale, bool counted,
                                             RowSpace* space, uint32_t parts, Shared* s) {
  for (int i = static_cast<int>(threadIdx.x); i < kBins; i += kThreads) {
    s->own.count[i] = s->own.low[i] = s->own.high[i] = 0;
  }
  __syncthreads();
  ForEachLogit<kLoads>(row, begin, end, [&](float x, int) {
    const float distance = scale.Distance(x);
    const Wide mass = scale.Mass(distance);
    if (mass == 0) return;
    const int bin = scale.Bin(distance);
    AddMass(&s->own.low[bin], &s->own.high[bin], mass);
    if (counted) atomicAdd(&s->own.count[bin], 1u);
  });
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kBins; i += kThreads) {
    const Wide mass = static_cast<Wide>(s->own.high[i]) << 32 | s->own.low[i];
    if (mass != 0) atomicAdd(&space->mass[i], mass);
    if (s->own.count[i] != 0) atomicAdd(&space->count[i], s->own.count[i]);
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) s->last = atomicAdd(&space->arrived, 1u) == parts - 1;
  __syncthreads();
  __threadfence();
  return s->last;
}

// The row's histogram, as running sums.
__device__ __forceinline__ void SumBins(const RowSpace* space, Shared* s) {
  constexpr int kEach = kBins / kThreads;
  const int first = static_cast<int>(threadIdx.x) * kEach;
  const volatile Wide* mass = space->mass;  // other blocks wrote them: not from this processor's cache
  const volatile uint32_t* count = space->count;
  Wide masses[kEach], mass_sum = 0;
  uint32_t counts[kEach], count_sum = 0;
  GPU_UNROLL
  for (int i = 0; i < kEach; ++i) {
    masses[i] = mass_sum += mass[first + i];
    counts[i] = count_sum += count[first + i];
  }
  const Wide mass_before = BlockScan(mass_sum, s->select.wide) - mass_sum;
  const uint32_t count_before = BlockScan(count_sum, s->select.narrow) - count_sum;
  GPU_UNROLL
  for (int i = 0; i < kEach; ++i) {
    s->through.mass[first + i] = mass_before + masses[i];
    s->through.count[first + i] = count_before + counts[i];
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads, 4) SampleKernel(SampleArgs a) {
  WaitForPrevious();
  StartNext();
  __shared__ Shared s;
  __shared__ float leasts[kThreads / kWarp];
  const int64_t row = blockIdx.x;
  Rank best = 0;
  float least = __int_as_float(0x7f800000);
  for (int i = static_cast<int>(threadIdx.x); i < a.parts; i += kThreads) {
    const Part part = a.part[row * a.parts + i];
    best = Greater{}(best, part.best);
    least = Less{}(least, part.least);
  }
  best = BlockReduce<kThreads>(best, s.select.wide, Greater{});
  least = BlockReduce<kThreads>(least, leasts, Less{});

  const float temperature = a.temperature[row * a.temperature_stride], min_p = a.min_p[row * a.min_p_stride];
  const float largest = ValueOf(best);
  int32_t* const id = a.ids + row * a.ids_stride;
  if (!(temperature > 0) || largest == -__int_as_float(0x7f800000) || min_p > 1) {
    if (blockIdx.y == 0 && threadIdx.x == 0) *id = IndexOf(best);
    return;
  }
  const float range = fmaxf(0.0f, fminf(kFar * temperature, largest - least));
  const Scale scale = {largest, fminf(1.0f / temperature, kLargestFloat), fminf(kBins / range, kLargestFloat)};
  const int32_t top_k = a.top_k[row * a.top_k_stride];
  const Draw draw = {
      static_cast<Wide>(top_k > 0 ? top_k : 0), a.top_p[row * a.top_p_stride],
      min_p > 0 ? static_cast<float>(-temperature * log(static_cast<double>(min_p))) : -1.0f,
      UniformBits(static_cast<Wide>(a.seed[row * a.seed_stride]), static_cast<uint32_t>(a.step[row * a.step_stride]))};

  const float* const x = a.logits + row * a.row_stride;
  const int begin = static_cast<int>(blockIdx.y) * a.part_size;
  const int end = begin + a.part_size < a.vocab ? begin + a.part_size : a.vocab;
  RowSpace* const space = a.rows + row;
  if (!AddHistogram(x, begin, end, scale, top_k > 0, space, static_cast<uint32_t>(a.parts), &s)) return;
  SumBins(space, &s);
  const int drawn = DrawId(x, a.vocab, draw, scale, &s);
  if (threadIdx.x == 0) *id = drawn;
}

int64_t MostParts(int64_t vocab) {
  return CeilDiv(vocab, kPartMin);
}

}  // namespace

size_t SampleWorkspace(int64_t sequences, int64_t vocab) {
  return static_cast<size_t>(sequences) * (sizeof(RowSpace) + static_cast<size_t>(MostParts(vocab)) * sizeof(Part));
}

void Sample(const View& logits, const View& temperature, const View& top_k, const View& top_p, const View& min_p,
            const View& seed, const View& step, const View& ids, void* workspace, const Queue& queue) {
  const int64_t rows = logits.shape[0], vocab = logits.shape[1];
  if (rows == 0 || vocab == 0) return;
  constexpr int kBlocksPerProcessor = 4;
  const int64_t wanted = CeilDiv(int64_t{kBlocksPerProcessor} * queue.processors, rows);
  const int64_t part_size =
      CeilDiv(CeilDiv(vocab, wanted < MostParts(vocab) ? wanted : MostParts(vocab)), kThreads) * kThreads;
  SampleArgs a{};
  a.logits = logits.as<const float>();
  a.row_stride = logits.stride[0];
  a.temperature = temperature.as<const float>();
  a.top_p = top_p.as<const float>();
  a.min_p = min_p.as<const float>();
  a.top_k = top_k.as<const int32_t>();
  a.step = step.as<const int32_t>();
  a.seed = seed.as<const int64_t>();
  a.ids = ids.as<int32_t>();
  a.temperature_stride = temperature.stride[0];
  a.top_p_stride = top_p.stride[0];
  a.min_p_stride = min_p.stride[0];
  a.top_k_stride = top_k.stride[0];
  a.step_stride = step.stride[0];
  a.seed_stride = seed.stride[0];
  a.ids_stride = ids.stride[0];
  a.vocab = static_cast<int>(vocab);
  a.parts = static_cast<int>(CeilDiv(vocab, part_size));
  a.part_size = static_cast<int>(part_size);
  a.rows = static_cast<RowSpace*>(workspace);
  a.part = reinterpret_cast<Part*>(a.rows + rows);
  const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>(a.parts));
  Launch(PartKernel, grid, kThreads, 0, queue.stream, a);
  Launch(SampleKernel, grid, kThreads, 0, queue.stream, a);
}

}  // namespace assay::gpu
