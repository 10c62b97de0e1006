// SPDX-License-Identifier: Apache-2.0
// HOST:PORT as people write it. Pure functions, any thread.
#pragma once

#include <string>

#include "runtime/core/error.h"

namespace assay::bench {

struct NetAddress {
  std::string host;  // an IPv6 address without its brackets
  std::string port;  // a number from 1 to 65535
  std::string Text() const;
};

// "bmc", "10.0.0.2:8443", "[fe80::1]:443". default_port: empty if a port must be there.
Result<NetAddress> ParseNetAddress(const std::string& text, const std::string& default_port);

}  // namespace assay::bench
