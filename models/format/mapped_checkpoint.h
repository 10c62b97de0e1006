// SPDX-License-Identifier: Apache-2.0
// What checkpoints in files have in common: tensors that lie in mapped files. Ownership and threads as Checkpoint's.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "models/format/checkpoint.h"
#include "models/format/mapped_file.h"

namespace assay {

class MappedCheckpoint : public Checkpoint {
 public:
  // The first time that a tensor is read, its norm weights or scales are checked to be finite (throws Error).
  const void* Data(const TensorInfo& info) override;
  std::vector<float> Scales(const TensorInfo& info) override;
  void Release(const TensorInfo& info) override;
  uint64_t file_bytes() const override;
  std::string Sha256() override;

 protected:
  // Where a tensor lies, under the name by which the file knows it.
  struct Place {
    const MappedFile* file = nullptr;
    std::string file_name;  // of the tensor
    assay_dtype dtype = ASSAY_DTYPE_NONE;
    std::vector<int64_t> shape;
    uint64_t offset = 0;  // in the file, where the tensor's bytes are known to lie within it
    uint64_t bytes = 0;
  };

  // Adds to tensors() what config_ asks for, from the places that were found (by Hugging Face name); throws if one
  // is missing, has another shape, or a type that does not suit. Sets config_.file_dtype. The scales of a matrix in
  // F8_E4M3 or I8 are the tensor NAME_scale or NAME_scale_inv (which is the scale, not its inverse): one for the whole,
  // for each row, or for each block of 128 by 128; the latter makes the matrix one of F8_B128.
  void Adopt(std::unordered_map<std::string, Place> places);

  // The files of the whole model, in the order of its hash.
  virtual std::vector<const MappedFile*> Files() const = 0;

 private:
  struct Loaded {
    Place place;
    std::optional<Place> scale;
    bool checked = false;
    // Only where the file does not align the tensor as its type needs it, or has the scales of blocks elsewhere.
    std::unique_ptr<uint8_t[]> copy;
  };
  void AdoptTensor(TensorInfo info, Place place, std::optional<Place> scale);
  std::unique_ptr<uint8_t[]> JoinBlocks(const TensorInfo& info, const Loaded& loaded) const;
  void CheckValues(const TensorInfo& info, const Loaded& loaded) const;

  std::unordered_map<std::string, Loaded> loaded_;
};

}  // namespace assay
