// SPDX-License-Identifier: Apache-2.0
// One line on stderr that says what is going on, rewritten in place; silent unless stderr is a terminal. Any thread.
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <mutex>
#include <string>

namespace assay::cli {

class Progress {
 public:
  ~Progress() { Clear(); }

  void Show(const std::string& text) {
    if (!terminal_) return;
    const std::lock_guard lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    // Ten times a second is enough for an eye and nothing for the machine under test; a new stage shows at once.
    const bool same_stage = text.substr(0, 8) == last_.substr(0, 8);
    if (same_stage && now - shown_ < std::chrono::milliseconds(100)) return;
    shown_ = now;
    last_ = text;
    std::fprintf(stderr, "\r\033[K%s ...", text.c_str());
  }
  void Clear() {
    if (!terminal_) return;
    const std::lock_guard lock(mutex_);
    if (!last_.empty()) std::fputs("\r\033[K", stderr);
    last_.clear();
  }

 private:
  const bool terminal_ = isatty(STDERR_FILENO) == 1;
  std::mutex mutex_;
  std::string last_;
  std::chrono::steady_clock::time_point shown_;
};

}  // namespace assay::cli
