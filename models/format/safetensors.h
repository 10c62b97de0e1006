// SPDX-License-Identifier: Apache-2.0
// The header of a safetensors file. Pure functions, any thread. Throws Error naming the file and the tensor.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backends/api/assay_backend.h"
#include "models/format/mapped_file.h"

namespace assay {

struct SafetensorsEntry {
  std::string name;
  std::string type;                      // as the file says: "BF16"
  assay_dtype dtype = ASSAY_DTYPE_NONE;  // NONE: a type of the format that no weight may have
  std::vector<int64_t> shape;
  uint64_t offset = 0;  // in the file
  uint64_t bytes = 0;
};

// The file's tensors in the order of their data, which they cover without overlaps or holes.
std::vector<SafetensorsEntry> ReadSafetensorsHeader(const MappedFile& file);

}  // namespace assay
