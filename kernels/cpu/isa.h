// SPDX-License-Identifier: Apache-2.0
// Which instruction sets this machine has, found once at run time. Any thread.
#pragma once

#include <string>

namespace assay::cpu {

struct Isa {
  bool avx2 = false;    // AVX2 + FMA + F16C
  bool avx512 = false;  // F, BW, DQ, VL
  bool avx512_vnni = false;
  bool avx512_bf16 = false;
  bool amx_bf16 = false;  // usable: the kernel granted the tile state
};

// The environment variable ASSAY_ISA (generic, avx2, avx512, avx512_vnni, avx512_bf16, amx) lowers what is used. Read
// once, at the first call, which throws std::invalid_argument for another word or for what this machine lacks.
const Isa& CurrentIsa();
// For people: "AVX-512 VNNI BF16".
std::string IsaName(const Isa& isa);

}  // namespace assay::cpu
