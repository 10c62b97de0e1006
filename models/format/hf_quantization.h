// SPDX-License-Identifier: Apache-2.0
// What config.json says of quantised weights. Pure; throws Error naming the file, the key and the remedy.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace assay {

// Returns if `quantization` (the object quantization_config) describes weights in 8 bits that MappedCheckpoint reads:
// compressed-tensors with FP8 or INT8 and a scale per tensor or row, or FP8 with a scale per tensor or block of 128 by
// 128. How activations are to be quantised is left to the device: always at run time, whatever scales a file has for
// it. So are caches (kv_cache_scheme): an FP8 cache has no scales here.
void CheckQuantization(const nlohmann::json& quantization, const std::string& where);

}  // namespace assay
