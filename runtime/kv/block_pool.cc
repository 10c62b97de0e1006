// SPDX-License-Identifier: Apache-2.0
#include "runtime/kv/block_pool.h"

#include "runtime/core/error.h"

namespace assay {

BlockPool::BlockPool(int32_t blocks, int32_t block_size) : block_size_(block_size), total_(blocks) {
  ASSAY_CHECK(blocks >= 0 && block_size > 0);
  for (int32_t i = blocks - 1; i >= 0; --i) free_.push_back(i);
}

bool BlockPool::Grow(std::vector<int32_t>* table, int64_t tokens) {
  const int64_t missing = BlocksFor(tokens) - static_cast<int64_t>(table->size());
  if (missing > available()) return false;
  for (int64_t i = 0; i < missing; ++i) {
    table->push_back(free_.back());
    free_.pop_back();
  }
  return true;
}

void BlockPool::Free(std::vector<int32_t>* table) {
  while (!table->empty()) {
    free_.push_back(table->back());
    table->pop_back();
  }
  ASSAY_CHECK(available() <= total_);
}

}  // namespace assay
