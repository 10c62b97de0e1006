// SPDX-License-Identifier: Apache-2.0
// A GGUF file as a Checkpoint.
#pragma once

#include <memory>
#include <string>

#include "models/format/checkpoint.h"

namespace assay {

// Throws Error naming the file, the place in it and the remedy.
std::unique_ptr<Checkpoint> OpenGgufCheckpoint(const std::string& path);

}  // namespace assay
