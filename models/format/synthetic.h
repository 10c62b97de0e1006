// SPDX-License-Identifier: Apache-2.0
// Models of published shapes with made-up weights: the same on every machine, and finite all the way through.
#pragma once

#include <memory>
#include <string>

#include "models/format/checkpoint.h"

namespace assay {

// `name` without "shape:". Throws Error that lists the names if it is unknown, or if dtype is none of
// F32, F16, BF16, the block types, F8_E4M3, I8. Vectors (norms, biases) of quantised models are f32.
std::unique_ptr<Checkpoint> OpenSynthetic(const std::string& name, assay_dtype dtype);

// As OpenSynthetic, for a (checked) config of one's own.
std::unique_ptr<Checkpoint> MakeSynthetic(const ModelConfig& config, assay_dtype dtype);

// The published config behind a name; throws Error that lists the names.
ModelConfig SyntheticConfig(const std::string& name);

}  // namespace assay
