// SPDX-License-Identifier: Apache-2.0
// A model file (or folder, or synthetic shape) as a list of tensors with Hugging Face names and one config.
// The caller owns the Checkpoint; tensors' data lives as long as it does. One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "models/format/config.h"

namespace assay {

struct TensorInfo {
  std::string name;  // "model.layers.0.self_attn.q_proj.weight", whatever the file calls it
  assay_dtype dtype = ASSAY_DTYPE_NONE;
  std::vector<int64_t> shape;  // [out, in] for matrices, the last dimension contiguous
  uint64_t bytes = 0;
};

class Checkpoint {
 public:
  virtual ~Checkpoint() = default;

  const ModelConfig& config() const { return config_; }
  // Exactly the tensors that config() asks for, shapes checked, nothing missing (extra tensors in a file are left out,
  // except "rope_freqs.weight", [rotary_dim/2] f32, which a GGUF file may carry).
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const TensorInfo* Find(const std::string& name) const;  // nullptr if there is none

  // The tensor's bytes, row-major in info.dtype. Valid until Release of the same tensor.
  virtual const void* Data(const TensorInfo& info) = 0;
  // Of a matrix whose dtype is row-scaled (runtime/core/dtype.h): the scale of each of its rows.
  virtual std::vector<float> Scales(const TensorInfo& info) = 0;
  // The caller is done with the tensor: its pages may be dropped from memory.
  virtual void Release(const TensorInfo& info) = 0;

  virtual bool synthetic() const { return false; }
  // Bytes of the file(s) on disk; for synthetic weights the bytes that the tensors would take.
  virtual uint64_t file_bytes() const = 0;
  // SHA-256 of the file (of the index's files in order, concatenated, for shards), lower-case hex; "" for synthetic.
  // Reads the whole file: call it once, for the result's provenance.
  virtual std::string Sha256() = 0;
  // Where the tokenizer comes from: a GGUF file, a folder that may hold tokenizer.json, or "" (none).
  const std::string& tokenizer_source() const { return tokenizer_source_; }
  const std::string& path() const { return path_; }

 protected:
  ModelConfig config_;
  std::vector<TensorInfo> tensors_;
  std::string tokenizer_source_;
  std::string path_;
};

// `model` is a folder with config.json and *.safetensors (optionally written hf:DIR), a .gguf file, or shape:NAME.
// `synthetic_dtype` is the dtype of the weights of shape:NAME (ASSAY_BF16 unless the user asked otherwise).
// Throws Error (one line: the file, the place in it, the remedy) for anything missing, damaged or unknown.
std::unique_ptr<Checkpoint> OpenCheckpoint(const std::string& model, assay_dtype synthetic_dtype);

// Names that shape:NAME accepts.
std::vector<std::string> SyntheticShapeNames();

}  // namespace assay
