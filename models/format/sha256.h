// SPDX-License-Identifier: Apache-2.0
// SHA-256 (FIPS 180-4) of bytes given piece by piece. A plain value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace assay {

class Sha256 {
 public:
  void Update(const void* bytes, size_t size);
  // Lower-case hex of all bytes so far. The object is used up.
  std::string HexDigest();

 private:
  void Block(const uint8_t* p);

  uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  uint8_t pending_[64];
  uint64_t total_ = 0;  // bytes
};

}  // namespace assay
