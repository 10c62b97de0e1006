// SPDX-License-Identifier: Apache-2.0
// A regular file mapped into memory for reading. Owns the mapping and the descriptor. Any thread.
// The constructor throws Error if there is no such file or it is not a regular one.
#pragma once

#include <cstdint>
#include <string>

namespace assay {

class Sha256;

class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }

  // Gives the memory of the pages that touch [offset, offset + bytes) back; they are read again when next used.
  void Drop(uint64_t offset, uint64_t bytes) const;
  // Adds the whole file to `hash`, read through a small buffer rather than the mapping, so that memory stays low.
  void HashInto(Sha256& hash) const;

 private:
  std::string path_;
  int fd_ = -1;
  const uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
};

}  // namespace assay
