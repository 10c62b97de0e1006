// SPDX-License-Identifier: Apache-2.0
#include "backends/cpu/device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "backends/common/failure.h"
#include "backends/cpu/host_info.h"

using assay::backend::Fail;

namespace {
constexpr uint64_t kHugePage = 2u << 20;
}

assay_device_s::assay_device_s(bool is_reference, int threads)
    : reference(is_reference),
      memory_bytes(assay::backend_cpu::ReadHostMemory().total),
      pool(threads, assay::cpu::FindUsableCpus().ids) {}

assay_buffer_s::assay_buffer_s(assay_device_s* owner, uint64_t size) : device(owner) {
  bytes = size;
  if (bytes > device->memory_bytes) {
    Fail(ASSAY_ERR_NO_MEMORY, "a buffer of %llu bytes was asked for, but there are only %llu bytes of memory",
         static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(device->memory_bytes));
  }
  const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const bool large = bytes >= 2 * kHugePage;
  const uint64_t alignment = large ? kHugePage : page;
  mapping_bytes_ = std::max<uint64_t>(1, bytes) + (large ? kHugePage : 0);
  mapping_bytes_ = (mapping_bytes_ + page - 1) / page * page;
  mapping_ = mmap(nullptr, mapping_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping_ == MAP_FAILED) {
    Fail(ASSAY_ERR_NO_MEMORY, "cannot map a buffer of %llu bytes", static_cast<unsigned long long>(bytes));
  }
  if (large) madvise(mapping_, mapping_bytes_, MADV_HUGEPAGE);  // best effort: only speed depends on it
  const uint64_t address = reinterpret_cast<uint64_t>(mapping_);
  data = reinterpret_cast<char*>((address + alignment - 1) / alignment * alignment);
}

assay_buffer_s::~assay_buffer_s() {
  munmap(mapping_, mapping_bytes_);
}
