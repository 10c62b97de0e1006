// SPDX-License-Identifier: Apache-2.0
#include "models/format/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "models/format/sha256.h"
#include "runtime/core/error.h"

namespace assay {

MappedFile::MappedFile(const std::string& path) : path_(path) {
  // O_NONBLOCK: a pipe must not make us wait for its other end.
  fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) throw Error(path + ": cannot be opened: " + std::strerror(errno));
  struct stat st {};
  std::string why;
  if (fstat(fd_, &st) != 0) {
    why = std::strerror(errno);
  } else if (!S_ISREG(st.st_mode)) {
    why = "it is not a regular file";
  } else if (st.st_size > 0) {
    void* p = mmap(nullptr, static_cast<size_t>(st.st_size), PROT_READ, MAP_PRIVATE, fd_, 0);
    if (p == MAP_FAILED) {
      why = std::strerror(errno);
    } else {
      data_ = static_cast<const uint8_t*>(p);
      size_ = static_cast<uint64_t>(st.st_size);
    }
  }
  if (!why.empty()) {
    close(fd_);
    throw Error(path + ": cannot be mapped: " + why);
  }
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), size_);
  close(fd_);
}

void MappedFile::Drop(uint64_t offset, uint64_t bytes) const {
  if (bytes == 0) return;
  // The outer pages too: a neighbour that still uses one has it read again, whereas pages at the border of two
  // tensors that were both dropped would otherwise stay for good.
  const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t begin = offset / page * page;
  madvise(const_cast<uint8_t*>(data_) + begin, offset + bytes - begin, MADV_DONTNEED);
}

void MappedFile::HashInto(Sha256& hash) const {
  std::vector<uint8_t> buffer(1 << 20);
  for (uint64_t at = 0; at < size_;) {
    const ssize_t got = pread(fd_, buffer.data(), buffer.size(), static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      throw Error(path_ + ": cannot be read at byte " + std::to_string(at) + ": " +
                  (got < 0 ? std::strerror(errno) : "the file became shorter"));
    hash.Update(buffer.data(), static_cast<size_t>(got));
    at += static_cast<uint64_t>(got);
  }
}

}  // namespace assay
