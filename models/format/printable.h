// SPDX-License-Identifier: Apache-2.0
// Text from files, made fit for a message of one line. Pure, any thread.
#pragma once

#include <string>
#include <string_view>

namespace assay {

inline std::string Printable(std::string_view text) {
  constexpr size_t kMost = 80;
  std::string out(text.substr(0, kMost));
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 32 || c == 127) c = '?';
  }
  return text.size() > kMost ? out + "..." : out;
}

}  // namespace assay
