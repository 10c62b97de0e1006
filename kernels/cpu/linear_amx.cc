// SPDX-License-Identifier: Apache-2.0
// The tile instructions themselves. In assembler: g++ 12's intrinsics take no template arguments as registers, and do
// not say that they read memory.
#include "kernels/cpu/linear_amx.h"

namespace assay::cpu {

#if defined(__x86_64__)
namespace {

struct Tiles {
  static void Configure() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    static_assert(sizeof(config) == 64);
    asm volatile("ldtilecfg %0" : : "m"(config) : "memory");
  }
  static void Release() { asm volatile("tilerelease" : : : "memory"); }

  template <int kTile>
  [[gnu::always_inline]] static void Load(const void* p, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  [[gnu::always_inline]] static void LoadOnce(const void* p, int64_t stride) {
    asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  [[gnu::always_inline]] static void Store(void* p, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kSum, int kX, int kW>
  [[gnu::always_inline]] static void Dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kX), "i"(kW));
  }
  [[gnu::always_inline]] static void Prefetch(const void* p) {  // into L2
    asm volatile("prefetcht1 (%0)" : : "r"(p));
  }
  [[gnu::always_inline]] static void PrefetchToWrite(const void* p) { asm volatile("prefetchw (%0)" : : "r"(p)); }
};

}  // namespace

const AmxKernels kAmx = {AmxConvert<Tiles>, AmxGemm<Tiles>::Run, AmxSmall<Tiles>};
#else
const AmxKernels kAmx = {};
#endif

}  // namespace assay::cpu
