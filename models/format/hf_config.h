// SPDX-License-Identifier: Apache-2.0
// Hugging Face's config.json as a ModelConfig. Defaults are those of transformers' configuration classes.
// Pure, but for reading the two files. Throws Error naming the file, the key and the remedy.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "models/format/config.h"

namespace assay {

// `where` names the file in messages. The result is checked.
ModelConfig ParseHfConfig(const nlohmann::json& config, const std::string& where);

// DIR/config.json, with the ids that end generation from DIR/generation_config.json where that has them.
ModelConfig ReadHfConfig(const std::string& dir);

}  // namespace assay
