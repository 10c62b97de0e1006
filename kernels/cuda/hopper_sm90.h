// SPDX-License-Identifier: Apache-2.0
// The instructions that only compute capability 9.0 has (target sm_90a): barriers that count bytes, copies of tiles by
// tensor maps, wgmma. Under the emulator each has a twin; copies arrive and products are done at once there. In code
// for other targets nothing here may run: guard kernels by GPU_COMPILES_SM90.
//
// Tiles in shared memory have rows of 128 bytes (64 elements of 16 bits), begin on 1024 bytes, and are swizzled: of a
// row r the 16-byte chunk c lies at chunk c ^ (r & 7). A wider tile is several such panels.
#pragma once

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/mma_sm80.h"
#include "kernels/view.h"

#if defined(ASSAY_GPU_CUDA)
#include <cuda.h>
#elif defined(ASSAY_GPU_EMULATED)
#include <cstdio>
#include <cstdlib>
#endif

#if defined(ASSAY_GPU_EMULATED) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define GPU_COMPILES_SM90 1
#else
#define GPU_COMPILES_SM90 0
#endif

namespace assay::gpu {

constexpr int kWarpgroup = 128;
constexpr int kPanelColumns = 64;  // elements of 16 bits

// ---- Tensor maps: host

#if defined(ASSAY_GPU_CUDA)
using TensorMap = CUtensorMap;
#else
struct TensorMap {
  const std::byte* data;
  int64_t shape[4], stride[4];  // from the fastest dimension on; strides in bytes
  int rows;
};
#endif

// Describes a tensor of four dimensions, 16 bits an element, from which boxes of `rows` of dimension 2 times
// kPanelColumns of dimension 3 are copied (dimensions 0 and 1: one). False if the card or driver does not take it: an
// address or a stride that is not a multiple of 16 bytes.
inline bool MakeTensorMap(const void* data, DType dtype, const int64_t (&shape)[4], const int64_t (&stride)[4],
                          int rows, TensorMap* map) {
#if defined(ASSAY_GPU_CUDA)
  using Encode = decltype(&cuTensorMapEncodeTiled);
  static const Encode encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
    constexpr unsigned kSince = 12000;
    const cudaError_t error =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, kSince, cudaEnableDefault, &result);
    return error == cudaSuccess && result == cudaDriverEntryPointSuccess ? reinterpret_cast<Encode>(found) : nullptr;
  }();
  if (encode == nullptr) return false;
  const cuuint64_t sizes[4] = {static_cast<cuuint64_t>(shape[3]), static_cast<cuuint64_t>(shape[2]),
                               static_cast<cuuint64_t>(shape[1]), static_cast<cuuint64_t>(shape[0])};
  const cuuint64_t strides[3] = {static_cast<cuuint64_t>(2 * stride[2]), static_cast<cuuint64_t>(2 * stride[1]),
                                 static_cast<cuuint64_t>(2 * stride[0])};
  const cuuint32_t box[4] = {kPanelColumns, static_cast<cuuint32_t>(rows), 1, 1}, steps[4] = {1, 1, 1, 1};
  const CUtensorMapDataType type =
      dtype == DType::kBF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  return encode(map, type, 4, const_cast<void*>(data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
#else
  static_cast<void>(dtype);
  map->data = static_cast<const std::byte*>(data);
  map->rows = rows;
  for (int i = 0; i < 4; ++i) {
    map->shape[i] = shape[3 - i];
    map->stride[i] = 2 * stride[3 - i];
    if (i > 0 && map->stride[i] % 16 != 0) return false;
  }
  return reinterpret_cast<uintptr_t>(data) % 16 == 0;
#endif
}

// ---- Addresses and descriptors: host and device

// Where chunk `chunk` (16 bytes, 8 elements) of row `row` lies in a panel, in bytes.
__host__ __device__ constexpr int PanelAt(int row, int chunk) {
  return row * 128 + (chunk ^ (row & 7)) * 16;
}

// wgmma's descriptor of a swizzled tile at `address` of shared memory (bytes). Tiles whose rows are of the product's M
// or N (queries, keys): row groups of eight lie 1024 bytes apart; the 16 columns of a product begin 32 * k bytes behind
// the panel. Tiles whose rows are of K (values, "transposed"): the same for the rows; panels of 64 columns each lie
// `panel` bytes apart.
__host__ __device__ constexpr uint64_t TileDescriptor(uint32_t address, uint32_t panel = 16) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint32_t kRowGroup = 1024;
  return kSwizzle128 | static_cast<uint64_t>(kRowGroup >> 4) << 32 | static_cast<uint64_t>(panel >> 4) << 16 |
         ((address & 0x3ffff) >> 4);
}

__device__ __forceinline__ uint32_t SharedAddress(const void* shared) {
#if defined(ASSAY_GPU_EMULATED)
  return static_cast<uint32_t>(static_cast<const std::byte*>(shared) -
                               static_cast<const std::byte*>(emulator::DynamicShared()));
#else
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
#endif
}

// ---- Barriers in shared memory

struct Mbarrier {
  uint64_t state;
};

#if defined(ASSAY_GPU_EMULATED)
namespace emulator {
struct MbarrierState {
  uint8_t phase, expected, pending, unused;
  int32_t bytes;  // announced and not yet there
};
static_assert(sizeof(MbarrierState) == sizeof(Mbarrier));

inline void Advance(Mbarrier* barrier, int arrivals, int bytes) {
  MbarrierState s;
  std::memcpy(&s, barrier, sizeof s);
  s.pending = static_cast<uint8_t>(s.pending - arrivals);
  s.bytes += bytes;
  if (s.bytes < 0) {
    std::fprintf(stderr, "emulated GPU: a copy brings bytes that its barrier was not told of\n");
    std::abort();
  }
  if (s.pending == 0 && s.bytes == 0) {
    s.phase ^= 1;
    s.pending = s.expected;
  }
  std::memcpy(barrier, &s, sizeof s);
}
}  // namespace emulator
#endif

// By one thread, with FenceBarrierInit and a barrier of the block behind it.
__device__ __forceinline__ void InitBarrier(Mbarrier* barrier, int arrivals) {
#if defined(ASSAY_GPU_EMULATED)
  const auto n = static_cast<uint8_t>(arrivals);
  const emulator::MbarrierState s{0, n, n, 0, 0};
  std::memcpy(barrier, &s, sizeof s);
#else
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(arrivals) : "memory");
#endif
}
__device__ __forceinline__ void FenceBarrierInit() {
#if GPU_COMPILES_SM90 && !defined(ASSAY_GPU_EMULATED)
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}
__device__ __forceinline__ void Arrive(Mbarrier* barrier) {
#if defined(ASSAY_GPU_EMULATED)
  emulator::Advance(barrier, 1, 0);
#elif GPU_COMPILES_SM90
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(barrier)) : "memory");
#endif
}
// Arrives, and lets the phase wait for `bytes` that copies bring.
__device__ __forceinline__ void ArriveExpecting(Mbarrier* barrier, int bytes) {
#if defined(ASSAY_GPU_EMULATED)
  emulator::Advance(barrier, 1, bytes);
#elif GPU_COMPILES_SM90
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(bytes)
               : "memory");
#endif
}
// Waits until the phase of this parity (0 the first) is over; of parity 1, a fresh barrier's last one is.
__device__ __forceinline__ void WaitBarrier(Mbarrier* barrier, int parity) {
#if defined(ASSAY_GPU_EMULATED)
  for (;; emulator::Yield()) {
    emulator::MbarrierState s;
    std::memcpy(&s, barrier, sizeof s);
    if (s.phase != parity) return;
  }
#elif GPU_COMPILES_SM90
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(SharedAddress(barrier)),
      "r"(parity)
      : "memory");
#endif
}

// A barrier of the block's hardware, number `id` (1 to 15), of `threads` threads, whole warps: some wait, others only
// arrive.
__device__ __forceinline__ void SyncNamed(int id, int threads) {
#if defined(ASSAY_GPU_EMULATED)
  emulator::SyncNamed(id, threads);
#else
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}
__device__ __forceinline__ void ArriveNamed(int id, int threads) {
#if defined(ASSAY_GPU_EMULATED)
  emulator::ArriveNamed(id, threads);
#else
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

// ---- Copies

// Copies the box of `map` that begins at (i0, i1, row, column) to a panel, whose rows [to, to + rows) it becomes; the
// barrier counts its bytes. By one thread.
__device__ __forceinline__ void CopyBox(void* shared, const TensorMap* map, int i0, int i1, int row, int column,
                                        Mbarrier* barrier) {
#if defined(ASSAY_GPU_EMULATED)
  const uint32_t at = SharedAddress(shared);
  for (int r = 0; r < map->rows; ++r) {
    for (int chunk = 0; chunk < 8; ++chunk) {
      const std::byte* from =
          map->data + i0 * map->stride[3] + i1 * map->stride[2] + (row + r) * map->stride[1] + 2 * (column + chunk * 8);
      const uint32_t offset = at + static_cast<uint32_t>(r * 128 + chunk * 16);
      std::memcpy(static_cast<std::byte*>(emulator::DynamicShared()) + (offset ^ (offset >> 3 & 0x70)), from, 16);
    }
  }
  emulator::Advance(barrier, 0, -map->rows * 128);
#elif GPU_COMPILES_SM90
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], "
      "[%6];" ::"r"(SharedAddress(shared)),
      "l"(map), "r"(column), "r"(row), "r"(i1), "r"(i0), "r"(SharedAddress(barrier))
      : "memory");
#endif
}
// Between a thread's ordinary writes to shared memory and a barrier behind which wgmma or a copy touches them.
__device__ __forceinline__ void FenceAsyncProxy() {
#if GPU_COMPILES_SM90 && !defined(ASSAY_GPU_EMULATED)
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// Hands registers from the warpgroups that copy to those that compute; by all warps of a warpgroup.
template <int kRegisters>
__device__ __forceinline__ void GiveRegisters() {
#if GPU_COMPILES_SM90 && !defined(ASSAY_GPU_EMULATED)
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}
template <int kRegisters>
__device__ __forceinline__ void TakeRegisters() {
#if GPU_COMPILES_SM90 && !defined(ASSAY_GPU_EMULATED)
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}

// ---- Products of a warpgroup: d [64 x N] += a [64 x 16] * b [16 x N]; a warp has 16 rows, as mma's C and A have them,
// for every eight columns four accumulators. They run until WaitProducts; until then neither d, nor a, nor the tiles
// may be touched.

// Before the first product of a group, and whenever registers that products use were written.
__device__ __forceinline__ void FenceProducts() {
#if GPU_COMPILES_SM90 && !defined(ASSAY_GPU_EMULATED)
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void CommitProducts() {
#if GPU_COMPILES_SM90 && !defined(ASSAY_GPU_EMULATED)
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
template <int kPending>
__device__ __forceinline__ void WaitProducts() {
#if GPU_COMPILES_SM90 && !defined(ASSAY_GPU_EMULATED)
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#endif
}

// Between a wait and the use of what was waited for: the compiler does not know that these registers change behind its
// back, and would read them before the wait.
template <int kTiles>
__device__ __forceinline__ void HoldRegisters(float (&d)[kTiles][4]) {
#if !defined(ASSAY_GPU_EMULATED)
  GPU_UNROLL
  for (int i = 0; i < kTiles * 4; ++i) asm volatile("" : "+f"(d[i / 4][i % 4])::"memory");
#else
  static_cast<void>(d);
#endif
}

#if defined(ASSAY_GPU_EMULATED)
namespace emulator {

// The element (row, column) of a tile by its descriptor, as the hardware decodes it. Transposed: rows are of K.
inline float TileElement(uint64_t descriptor, int row, int column, bool transposed, bool bf16) {
  const auto field = [&](int bit) { return static_cast<uint32_t>(descriptor >> bit & 0x3fff) << 4; };
  uint32_t offset = field(0) + static_cast<uint32_t>(row / 8) * field(32) + static_cast<uint32_t>(row % 8 * 128);
  offset += transposed ? static_cast<uint32_t>(column / 64) * field(16) + static_cast<uint32_t>(column % 64 * 2)
                       : static_cast<uint32_t>(column * 2);
  uint16_t bits;
  std::memcpy(&bits, static_cast<const std::byte*>(DynamicShared()) + (offset ^ (offset >> 3 & 0x70)), sizeof bits);
  return bf16 ? __uint_as_float(static_cast<uint32_t>(bits) << 16) : HalfBitsToFloat(bits);
}

// d = (accumulate ? d : 0) + a * b; a(row, k) of the warpgroup's 64 rows.
template <int kTiles, class A>
void Wgmma(float (&d)[kTiles][4], const A& a, uint64_t b, bool transposed, bool bf16, bool accumulate) {
  const int warp = CurrentLane().index % kWarpgroup / 32, g = CurrentLane().index % 32 / 4, t = CurrentLane().index % 4;
  float rows[2][16];
  for (int k = 0; k < 32; ++k) rows[k / 16][k % 16] = a(16 * warp + g + k / 16 * 8, k % 16);
  for (int i = 0; i < kTiles * 2; ++i) {
    const int column = i / 2 * 8 + 2 * t + i % 2;
    float* at[2] = {&d[i / 2][i % 2], &d[i / 2][i % 2 + 2]};
    float sum[2] = {accumulate ? *at[0] : 0.0f, accumulate ? *at[1] : 0.0f};
    for (int k = 0; k < 16; ++k) {
      const float x = transposed ? TileElement(b, k, column, true, bf16) : TileElement(b, column, k, false, bf16);
      sum[0] += rows[0][k] * x;
      sum[1] += rows[1][k] * x;
    }
    *at[0] = sum[0];
    *at[1] = sum[1];
  }
  const char none = 0;
  Exchange(&none, 1, kWarpgroup, "the end of a wgmma");  // nobody writes the tiles before all have read them
}

}  // namespace emulator
#endif

#define WGMMA_4(d, i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define WGMMA_32(d, i)                                                                                          \
  WGMMA_4(d, i), WGMMA_4(d, i + 1), WGMMA_4(d, i + 2), WGMMA_4(d, i + 3), WGMMA_4(d, i + 4), WGMMA_4(d, i + 5), \
      WGMMA_4(d, i + 6), WGMMA_4(d, i + 7)
#define WGMMA_NAMES_32                                                                                             \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29," \
  "%30,%31"
#define WGMMA_NAMES_64                                                                                                \
  WGMMA_NAMES_32                                                                                                      \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59," \
  "%60,%61,%62,%63"

// d [64 x 128] (+)= a * b^T, both in tiles whose rows are of M and of N (queries, keys). Without `accumulate` d is set.
template <bool kBf16>
__device__ __forceinline__ void ProductOfTiles(float (&d)[16][4], uint64_t a, uint64_t b, bool accumulate) {
#if defined(ASSAY_GPU_EMULATED)
  const char none = 0;
  emulator::Exchange(&none, 1, kWarpgroup, "wgmma, both operands in shared memory");
  emulator::Wgmma(
      d, [=](int row, int k) { return emulator::TileElement(a, row, k, false, kBf16); }, b, false, kBf16, accumulate);
#elif GPU_COMPILES_SM90
#define WGMMA_TILES(type)                                                              \
  asm volatile(                                                                        \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                                     \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" WGMMA_NAMES_64 \
      "}, %64, %65, p, 1, 1, 0, 0;\n}\n"                                               \
      : WGMMA_32(d, 0), WGMMA_32(d, 8)                                                 \
      : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)))
  if constexpr (kBf16) {
    WGMMA_TILES("bf16");
  } else {
    WGMMA_TILES("f16");
  }
#undef WGMMA_TILES
#endif
}

// d [64 x 8 * kTiles] += a * b; a in registers, b in a tile whose rows are of K (values).
template <bool kBf16, int kTiles>
__device__ __forceinline__ void ProductWithTile(float (&d)[kTiles][4], const uint32_t (&a)[4], uint64_t b) {
  static_assert(kTiles == 8 || kTiles == 16, "64 or 128 columns");
#if defined(ASSAY_GPU_EMULATED)
  const std::byte* all = emulator::Exchange(a, sizeof a, kWarpgroup, "wgmma, one operand in registers");
  const auto element = [=](int row, int k) {
    const int lane = row / 16 * 32 + row % 8 * 4 + k % 8 / 2;
    uint32_t pair;
    std::memcpy(&pair, all + static_cast<size_t>(lane) * emulator::kExchangeBytes + 4 * (row % 16 / 8 + k / 8 * 2), 4);
    const auto bits = static_cast<uint16_t>(pair >> k % 2 * 16);
    return kBf16 ? __uint_as_float(static_cast<uint32_t>(bits) << 16) : HalfBitsToFloat(bits);
  };
  emulator::Wgmma(d, element, b, true, kBf16, true);
#elif GPU_COMPILES_SM90
#define WGMMA_TILE_64(type)                                                           \
  asm volatile(                                                                       \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"                                    \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {" WGMMA_NAMES_32 \
      "}, {%32,%33,%34,%35}, %36, p, 1, 1, 1;\n}\n"                                   \
      : WGMMA_32(d, 0)                                                                \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1))
#define WGMMA_TILE_128(type)                                                           \
  asm volatile(                                                                        \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"                                     \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" WGMMA_NAMES_64 \
      "}, {%64,%65,%66,%67}, %68, p, 1, 1, 1;\n}\n"                                    \
      : WGMMA_32(d, 0), WGMMA_32(d, 8)                                                 \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1))
  if constexpr (kTiles == 8 && kBf16) {
    WGMMA_TILE_64("bf16");
  } else if constexpr (kTiles == 8) {
    WGMMA_TILE_64("f16");
  } else if constexpr (kBf16) {
    WGMMA_TILE_128("bf16");
  } else {
    WGMMA_TILE_128("f16");
  }
#undef WGMMA_TILE_64
#undef WGMMA_TILE_128
#endif
}

#undef WGMMA_4
#undef WGMMA_32
#undef WGMMA_NAMES_32
#undef WGMMA_NAMES_64

}  // namespace assay::gpu
