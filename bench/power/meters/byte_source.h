// SPDX-License-Identifier: Apache-2.0
// What is new in a growing file, or has come over a TCP connection. One thread at a time; neither waits for more than
// half a second.
#pragma once

#include <memory>
#include <string>

#include "runtime/core/error.h"

namespace assay::bench {

class ByteSource {
 public:
  struct Bytes {
    std::string data;        // at most kMostBytes; the rest comes with the next call
    bool restarted = false;  // data begins a new file or connection
  };
  static constexpr size_t kMostBytes = size_t{1} << 18;  // a reader that takes each apart stays well below a second

  virtual ~ByteSource() = default;
  // Fails with one line; later calls may be made.
  virtual Result<Bytes> Read() = 0;
};

// Reads the file from its beginning and follows it where it is created later, replaced or truncated.
Result<std::unique_ptr<ByteSource>> OpenFileTail(const std::string& path);

// "HOST:PORT". Fails where nobody listens; a connection that is lost later is tried again once per second.
Result<std::unique_ptr<ByteSource>> OpenTcp(const std::string& place);

}  // namespace assay::bench
