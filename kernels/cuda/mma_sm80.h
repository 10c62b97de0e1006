// SPDX-License-Identifier: Apache-2.0
// The instructions of compute capability 8.0 and later that leaf files (_sm80) use: mma.sync, ldmatrix, cp.async. Every
// function is called by all 32 lanes of a warp together, copies excepted. Under the emulator each has a twin with the
// fragments that the PTX ISA gives. With lane = 4 * g + t (g < 8, t < 4):
//   m16n8k16, pairs of 16 bits   A [16 x 16]: a[0] row g, k 2t, 2t+1; a[1] row g+8; a[2] row g, k + 8; a[3] row g+8, k
//   + 8
//                                B [16 x 8]:  b[0] k 2t, 2t+1 of column g; b[1] k + 8
//   m16n8k32, four signed bytes  A [16 x 32]: a[0] row g, k 4t..4t+3; a[1] row g+8; a[2] row g, k + 16; a[3] row g+8, k
//   + 16
//                                B [32 x 8]:  b[0] k 4t..4t+3 of column g; b[1] k + 16
//   both                         C [16 x 8]:  c[0], c[1] row g, columns 2t, 2t+1; c[2], c[3] row g+8
// The element of lower k lies in the lower bits. NVIDIA and the emulator at warps of 32 only (GPU_HAS_SM80).
#pragma once

#include "kernels/cuda/gpu.h"

#if defined(ASSAY_GPU_EMULATED)
#include <array>
#include <utility>
#endif

namespace assay::gpu {

#if defined(ASSAY_GPU_EMULATED)

namespace emulator {

struct MmaOperands {
  uint32_t a[4], b[2];
};

// c += a * b, `Element` of which there are `kPer` in a register.
template <int kPer, class Accumulator, class Element>
void Mma(Accumulator (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Element element, const char* what) {
  MmaOperands mine;
  std::memcpy(mine.a, a, sizeof mine.a);
  std::memcpy(mine.b, b, sizeof mine.b);
  const std::byte* all = Exchange(&mine, sizeof mine, 32, what);
  const auto of = [&](int lane) { return reinterpret_cast<const MmaOperands*>(all + lane * kExchangeBytes); };
  const int g = CurrentLane().index % 32 / 4, t = CurrentLane().index % 4;
  for (int i = 0; i < 4; ++i) {
    const int column = 2 * t + i % 2;
    for (int k = 0; k < 8 * kPer; ++k) {
      const int half = k / (4 * kPer), owner = k / kPer % 4;
      c[i] += element(of(4 * g + owner)->a[2 * half + i / 2], k % kPer) *
              element(of(4 * column + owner)->b[half], k % kPer);
    }
  }
}

// Copies that a lane has begun; they happen when it waits for them, no sooner.
struct Copies {
  std::vector<std::pair<void*, std::array<std::byte, 16>>> open;
  std::vector<decltype(open)> groups;
};
inline Copies& MyCopies() {
  static std::array<Copies, 1024> all;
  return all[static_cast<size_t>(CurrentLane().index)];
}

}  // namespace emulator

#endif

// c += a * b, bf16 operands.
__device__ __forceinline__ void MmaBf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(ASSAY_GPU_EMULATED)
  emulator::Mma<2>(
      c, a, b, [](uint32_t bits, int i) { return __uint_as_float(i == 0 ? bits << 16 : bits & 0xffff0000u); },
      "mma m16n8k16 bf16");
#else
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// c += a * b, f16 operands.
__device__ __forceinline__ void MmaF16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(ASSAY_GPU_EMULATED)
  emulator::Mma<2>(
      c, a, b, [](uint32_t bits, int i) { return HalfBitsToFloat(static_cast<uint16_t>(bits >> 16 * i)); },
      "mma m16n8k16 f16");
#else
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// c += a * b, signed bytes.
__device__ __forceinline__ void MmaS8(int (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(ASSAY_GPU_EMULATED)
  emulator::Mma<4>(
      c, a, b, [](uint32_t bits, int i) { return static_cast<int>(static_cast<int8_t>(bits >> 8 * i)); },
      "mma m16n8k32 s8");
#else
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// Loads four 8 x 8 matrices of 16-bit elements from shared memory. Lane 8 * m + r brings the address of row r of matrix
// m, 16 bytes, aligned; r[m] of lane 4 * g + t becomes elements 2t, 2t+1 of its row g, or, transposed, of its column g.
template <bool kTransposed>
__device__ __forceinline__ void LoadMatrices(uint32_t (&r)[4], const void* row) {
#if defined(ASSAY_GPU_EMULATED)
  const std::byte* all = emulator::Exchange(row, 16, 32, kTransposed ? "ldmatrix.trans" : "ldmatrix");
  const int g = emulator::CurrentLane().index % 32 / 4, t = emulator::CurrentLane().index % 4;
  for (int m = 0; m < 4; ++m) {
    uint16_t pair[2];
    for (int i = 0; i < 2; ++i) {
      const int from = kTransposed ? 2 * t + i : g, element = kTransposed ? g : 2 * t + i;
      std::memcpy(&pair[i], all + static_cast<size_t>(8 * m + from) * emulator::kExchangeBytes + 2 * element, 2);
    }
    r[m] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
  }
#else
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  }
#endif
}

// Begins a copy of 16 bytes, both aligned to 16, past the L1 cache; without `valid`, zeros are written and `global`,
// which must still be an address, is not read. A thread sees its own copies after WaitCopies, others' after a barrier
// behind that. A kernel waits for all its copies before it ends.
__device__ __forceinline__ void CopyAsync16(void* shared, const void* global, bool valid = true) {
#if defined(ASSAY_GPU_EMULATED)
  std::array<std::byte, 16> bytes{};
  if (valid) std::memcpy(bytes.data(), global, 16);
  emulator::MyCopies().open.emplace_back(shared, bytes);
#else
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
      "l"(global), "r"(valid ? 16 : 0)
      : "memory");
#endif
}
// Makes a group of the copies begun since the last one; an empty group is complete.
__device__ __forceinline__ void CommitCopies() {
#if defined(ASSAY_GPU_EMULATED)
  emulator::Copies& copies = emulator::MyCopies();
  copies.groups.push_back(std::move(copies.open));
  copies.open.clear();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits until at most kPending of this thread's groups are under way.
template <int kPending>
__device__ __forceinline__ void WaitCopies() {
#if defined(ASSAY_GPU_EMULATED)
  auto& groups = emulator::MyCopies().groups;
  for (; groups.size() > static_cast<size_t>(kPending); groups.erase(groups.begin())) {
    for (const auto& [to, bytes] : groups.front()) std::memcpy(to, bytes.data(), 16);
  }
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

// Two floats as bf16 or f16, to nearest even, `low` in the low half.
__device__ __forceinline__ uint32_t PackBf16(float low, float high) {
  return FloatsToBf16Bits(low, high);
}
__device__ __forceinline__ uint32_t PackF16(float low, float high) {
#if defined(ASSAY_GPU_EMULATED)
  return emulator::FloatToHalfBits(low) | static_cast<uint32_t>(emulator::FloatToHalfBits(high)) << 16;
#else
  uint32_t bits;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
#endif
}

// 2^x, one instruction; relative error 2^-22, subnormal results are 0, -inf gives 0.
__device__ __forceinline__ float Exp2(float x) {
#if defined(ASSAY_GPU_EMULATED)
  return std::exp2(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

}  // namespace assay::gpu
