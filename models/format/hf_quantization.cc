// SPDX-License-Identifier: Apache-2.0
#include "models/format/hf_quantization.h"

#include "models/format/printable.h"
#include "runtime/core/error.h"

namespace assay {
namespace {

using nlohmann::json;

[[noreturn]] void Refuse(const std::string& where, const std::string& what) {
  throw Error(where + ": " + Printable(what) +
              " is not supported (supported: weights in FP8 or INT8 with a scale per tensor or row, FP8 in blocks of "
              "128 by 128); use the original weights, or GGUF");
}

// The value, null if it is absent.
json Get(const json& object, const char* key) {
  return object.is_object() && object.contains(key) ? object.at(key) : json();
}
bool IsAbsent(const json& value) {
  return value.is_null() || value.empty();
}

void CheckGroup(const json& group, const std::string& where) {
  const json weights = Get(group, "weights");
  const json strategy = Get(weights, "strategy"), type = Get(weights, "type");
  if (Get(weights, "num_bits") != 8 || (type != "int" && type != "float")) {
    Refuse(where, "weights: num_bits " + Get(weights, "num_bits").dump() + " of type " + type.dump());
  }
  if (strategy != "tensor" && strategy != "channel") Refuse(where, "weights: strategy " + strategy.dump());
  if (Get(weights, "symmetric") == false) Refuse(where, "weights: symmetric false");
  if (!IsAbsent(Get(group, "output_activations"))) Refuse(where, "output_activations");
}

void CheckCompressedTensors(const json& quantization, const std::string& where) {
  const json format = Get(quantization, "format");
  if (format != "int-quantized" && format != "float-quantized" && format != "naive-quantized") {
    Refuse(where, "format " + format.dump());
  }
  if (!IsAbsent(Get(quantization, "transform_config"))) Refuse(where, "transform_config");
  const json sparsity = Get(Get(quantization, "sparsity_config"), "format");
  if (!sparsity.is_null() && sparsity != "dense") Refuse(where, "sparsity_config: format " + sparsity.dump());
  const json groups = Get(quantization, "config_groups");
  if (!groups.is_object()) throw Error(where + ": config_groups must be an object");
  for (const auto& [name, group] : groups.items()) CheckGroup(group, where + ": config_groups: " + Printable(name));
}

}  // namespace

void CheckQuantization(const json& quantization, const std::string& where) {
  const json method = Get(quantization, "quant_method");
  if (method == "compressed-tensors") return CheckCompressedTensors(quantization, where);
  if (method != "fp8") Refuse(where, "quant_method " + method.dump());
  const json block = Get(quantization, "weight_block_size");
  if (!block.is_null() && block != json({128, 128})) Refuse(where, "weight_block_size " + block.dump());
}

}  // namespace assay
