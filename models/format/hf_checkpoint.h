// SPDX-License-Identifier: Apache-2.0
// A folder with config.json and safetensors files as a Checkpoint.
#pragma once

#include <memory>
#include <string>

#include "models/format/checkpoint.h"

namespace assay {

// Throws Error naming the file, the place in it and the remedy.
std::unique_ptr<Checkpoint> OpenHfCheckpoint(const std::string& dir);

}  // namespace assay
