// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/isa.h"

#include <cstdint>
#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace assay::cpu {
namespace {

#if defined(__x86_64__)
// Whether the system saves the AMX tile registers and their configuration. Only where AVX-512 is: xgetbv is then.
bool SystemHasTiles() {
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr uint32_t kTiles = 3u << 17;
  return (low & kTiles) == kTiles;
}

// Linux grants the tile registers (8 KiB of state) only to a process that asks for them.
bool RequestAmx() {
  constexpr int kArchReqXcompPerm = 0x1023, kXfeatureTileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTileData) == 0;
}

Isa Detect() {
  Isa isa;
  isa.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  isa.avx512 = isa.avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  isa.avx512_vnni = isa.avx512 && __builtin_cpu_supports("avx512vnni");
  isa.avx512_bf16 = isa.avx512_vnni && __builtin_cpu_supports("avx512bf16");
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  if (isa.avx512_bf16 && SystemHasTiles() && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & kAmxTile) &&
      RequestAmx()) {
    isa.amx_bf16 = edx & kAmxBf16;
  }
  return isa;
}
#else
Isa Detect() {
  return {};
}
#endif

Isa Lower(Isa isa, const char* limit) {
  const std::string name = limit;
  const char* const levels[] = {"generic", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx"};
  int level = 0;
  while (level < 6 && name != levels[level]) ++level;
  if (level == 6) {
    throw std::invalid_argument("ASSAY_ISA is '" + name +
                                "'; use generic, avx2, avx512, avx512_vnni, avx512_bf16 or amx, or unset it");
  }
  const bool has[] = {true, isa.avx2, isa.avx512, isa.avx512_vnni, isa.avx512_bf16, isa.amx_bf16};
  if (!has[level]) {
    throw std::invalid_argument("ASSAY_ISA (--isa) is '" + name + "', which this machine lacks; it has " +
                                IsaName(isa));
  }
  isa.avx2 &= level >= 1;
  isa.avx512 &= level >= 2;
  isa.avx512_vnni &= level >= 3;
  isa.avx512_bf16 &= level >= 4;
  isa.amx_bf16 &= level >= 5;
  return isa;
}

}  // namespace

const Isa& CurrentIsa() {
  static const Isa isa = [] {
    const char* limit = std::getenv("ASSAY_ISA");
    return limit != nullptr && *limit != '\0' ? Lower(Detect(), limit) : Detect();
  }();
  return isa;
}

std::string IsaName(const Isa& isa) {
  if (!isa.avx2) return "generic";
  if (!isa.avx512) return "AVX2";
  std::string name = "AVX-512";
  if (isa.avx512_vnni) name += " VNNI";
  if (isa.avx512_bf16) name += " BF16";
  if (isa.amx_bf16) name += " AMX";
  return name;
}

}  // namespace assay::cpu
