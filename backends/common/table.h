// SPDX-License-Identifier: Apache-2.0
// What the project's own backends do alike around their function tables. Pure functions, any thread.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "backends/common/call.h"
#include "backends/common/failure.h"

namespace assay::backend {

// Lists of device_info end at the first 0, which is there already.
template <size_t kRoom>
void Fill(int32_t (&list)[kRoom], std::initializer_list<int32_t> values) {
  std::copy(values.begin(), values.end(), list);
}

// Before the host's table is filled: throws a Failure for a host that this backend cannot serve.
inline void CheckHost(const assay_host* host, const assay_backend* backend) {
  if (NotNull(host, "host")->abi_version != ASSAY_ABI_VERSION) {
    Fail(ASSAY_ERR_UNSUPPORTED, "the host speaks version %u of the backend ABI, this backend version %u",
         host->abi_version, ASSAY_ABI_VERSION);
  }
  if (!ASSAY_HAS_FIELD(NotNull(backend, "backend"), assay_backend, enqueue)) {
    Fail(ASSAY_ERR_INVALID, "the host's function table lacks required members");
  }
}

// The scratch of an operation that needs `needed` bytes, in what the host gave; null if it needs none. Throws a Failure
// if that is too small or misplaced. memory: may be null where nothing is needed.
inline char* Scratch(assay_op op, uint64_t needed, const Memory* memory, uint64_t offset, uint64_t bytes,
                     uint64_t alignment) {
  if (needed > bytes) {
    Fail(ASSAY_ERR_INVALID, "operation %d needs a workspace of %llu bytes; %llu were given", op,
         static_cast<unsigned long long>(needed), static_cast<unsigned long long>(bytes));
  }
  char* scratch = needed > 0 ? Range(*NotNull(memory, "buffer"), offset, needed) : nullptr;
  if (offset % alignment != 0) {
    Fail(ASSAY_ERR_INVALID, "workspace offset %llu is not a multiple of %llu", static_cast<unsigned long long>(offset),
         static_cast<unsigned long long>(alignment));
  }
  return scratch;
}

}  // namespace assay::backend
