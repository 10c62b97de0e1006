// SPDX-License-Identifier: Apache-2.0
// The KV cache's blocks: which are free, which are in use. Holds numbers only, no memory. One thread.
#pragma once

#include <cstdint>
#include <vector>

namespace assay {

class BlockPool {
 public:
  BlockPool(int32_t blocks, int32_t block_size);

  int32_t block_size() const { return block_size_; }
  int32_t total() const { return total_; }
  int32_t available() const { return static_cast<int32_t>(free_.size()); }
  int32_t BlocksFor(int64_t tokens) const { return static_cast<int32_t>((tokens + block_size_ - 1) / block_size_); }

  // Appends blocks to `table` until it holds `tokens` tokens. False, and nothing changed, if there are too few.
  bool Grow(std::vector<int32_t>* table, int64_t tokens);
  // Gives all blocks of `table` back and empties it.
  void Free(std::vector<int32_t>* table);

 private:
  int32_t block_size_;
  int32_t total_;
  std::vector<int32_t> free_;  // a stack: what was freed last is warm in the caches and used first
};

}  // namespace assay
