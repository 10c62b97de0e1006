// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/net_address.h"

#include <algorithm>
#include <cctype>
#include <charconv>

namespace assay::bench {
namespace {

bool IsPort(const std::string& text) {
  int port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size() && port >= 1 && port <= 65535;
}

// Letters, digits and the few signs of names and addresses.
bool IsHost(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '.' || c == '-' || c == '_' || c == ':' || c == '%';
  });
}

}  // namespace

std::string NetAddress::Text() const {
  return (host.find(':') == host.npos ? host : "[" + host + "]") + ":" + port;
}

Result<NetAddress> ParseNetAddress(const std::string& text, const std::string& default_port) {
  const size_t bracket = text.starts_with('[') ? text.find(']') : text.npos;
  const size_t colon = text.find(':', bracket == text.npos ? 0 : bracket);
  NetAddress address{text.substr(0, colon), colon == text.npos ? default_port : text.substr(colon + 1)};
  if (bracket != text.npos) address.host = text.substr(1, bracket - 1);
  const bool whole = bracket == text.npos || bracket + 1 == std::min(colon, text.size());
  if (!whole || !IsHost(address.host) || !IsPort(address.port)) {
    return Result<NetAddress>::Fail("\"" + text + "\" is not HOST" +
                                    (default_port.empty() ? ":PORT" : " or HOST:PORT") +
                                    " (an IPv6 address stands in brackets: [fe80::1]:443)");
  }
  return address;
}

}  // namespace assay::bench
