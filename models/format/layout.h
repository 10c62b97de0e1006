// SPDX-License-Identifier: Apache-2.0
// What follows from a config: whether it is sane, and which tensors a model of it has. Pure functions, any thread.
#pragma once

#include <string>
#include <vector>

#include "models/format/checkpoint.h"

namespace assay {

// Throws Error, beginning with `where`, unless every size is positive, fits its bound (products of them then cannot
// overflow) and goes with the others.
void CheckConfig(const ModelConfig& config, const std::string& where);

// The tensors of a model of this (checked) config: Hugging Face names and shapes, in the order of computation.
// Their dtype and bytes are left open.
std::vector<TensorInfo> LayoutOf(const ModelConfig& config);

// For messages: "[576, 1536]".
std::string ShapeText(const std::vector<int64_t>& shape);

inline constexpr char kEmbedName[] = "model.embed_tokens.weight";
inline constexpr char kHeadName[] = "lm_head.weight";
inline constexpr char kRopeFreqsName[] = "rope_freqs.weight";

}  // namespace assay
