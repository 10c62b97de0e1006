// SPDX-License-Identifier: Apache-2.0
// Runs another program with a deadline. It is a process group of its own with LC_ALL=C and an empty stdin; whatever
// still runs of it when it ends, or at the deadline, is killed. Any thread; no signal handler, nothing is left open.
#pragma once

#include <string>
#include <vector>

#include "runtime/core/error.h"

namespace assay::bench {

struct Output {
  std::string out;  // at most 1 MiB: a program that prints more fails
  std::string err;  // the first 4 KiB
};

// argv[0] is looked for on PATH. Fails with one line that begins with argv[0]: not found, its exit code or signal with
// the first line that it printed about it, or killed after limit_s.
Result<Output> RunProcess(const std::vector<std::string>& argv, double limit_s);

// The same for `/bin/sh -c text`.
Result<Output> RunShell(const std::string& text, double limit_s);

// The first line that is not blank, fit for a message: printable, at most 160 bytes.
std::string FirstLine(const std::string& text);

}  // namespace assay::bench
