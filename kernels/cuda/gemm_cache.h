// SPDX-License-Identifier: Apache-2.0
// The fastest algorithm of each matrix product, as measured once on a card: in memory and in a small text file. A file
// that is damaged or of another version of the library is ignored, and said so. Owns nothing else; one thread at a
// time.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>

#include "kernels/cuda/gemm_lt.h"

namespace assay::gpu {

// An algorithm as the library keeps it: cublasLtMatmulAlgo_t.
using LtAlgorithm = std::array<uint64_t, 8>;

struct LtProductLess {
  bool operator()(const LtProduct& a, const LtProduct& b) const;
};

class GemmCache {
 public:
  using Log = void (*)(int level, const char* text);  // 1 info, 2 warning; may be null
  // file: empty to keep results in memory only. version: the library's.
  GemmCache(std::string file, uint64_t version, Log log);

  const LtAlgorithm* Find(const LtProduct& product) const;
  // Keeps it, and writes the file: under another name first, so that there is always a whole one.
  void Store(const LtProduct& product, const LtAlgorithm& algorithm);

 private:
  bool Read();
  bool Write() const;
  void Say(int level, const std::string& text) const;

  std::string file_;
  uint64_t version_;
  Log log_;
  std::map<LtProduct, LtAlgorithm, LtProductLess> known_;
};

// $XDG_CACHE_HOME/assay/gemm-<device>-<driver>.txt, below ~/.cache if that is not set; empty without either.
std::string GemmCacheFile(const std::string& device, const std::string& driver);

}  // namespace assay::gpu
