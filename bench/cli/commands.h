// SPDX-License-Identifier: Apache-2.0
// The subcommands, one file each. Each adds its options to the program and, if it was the one that was called, what to
// run: the function in `run`, which returns the exit code (0 done, 1 a check said no, 3 no verdict) and throws Error
// for bad input or environment (exit code 2).
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "bench/sut/session.h"

namespace assay::cli {

using Run = std::function<int()>;

void AddDevices(CLI::App& app, Run* run);
void AddBench(CLI::App& app, Run* run);
void AddGenerate(CLI::App& app, Run* run);
void AddScore(CLI::App& app, Run* run);
void AddKernels(CLI::App& app, Run* run);
void AddConform(CLI::App& app, Run* run);
void AddCards(CLI::App& app, Run* run);
void AddPower(CLI::App& app, Run* run);
void AddGap(CLI::App& app, Run* run);

// --model, --device, --dtype, --kv-dtype, --tp, --threads and --isa, as several commands have them.
void AddModelOptions(CLI::App& command, bench::ModelSpec* spec);
void AddDeviceOptions(CLI::App& command, bench::ModelSpec* spec);

// A JSON array of token ids. Throws Error that names the file and the place.
std::vector<int32_t> ReadTokenIds(const std::string& path);

}  // namespace assay::cli
