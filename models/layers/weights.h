// SPDX-License-Identifier: Apache-2.0
// From a checkpoint's tensors to packed weights on a device: which dtype each becomes, how many bytes that takes,
// and the packing itself. A WeightLoader borrows the checkpoint; the buffers belong to the caller. One thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/format/checkpoint.h"
#include "models/layers/shard.h"
#include "runtime/device/device.h"

namespace assay {

// What --dtype and --kv-dtype mean on a device.
struct DTypeChoice {
  std::string name;                        // as the user wrote it
  assay_dtype linear = ASSAY_DTYPE_NONE;   // NONE: each weight keeps the file's dtype
  assay_dtype embed = ASSAY_DTYPE_NONE;    // embedding table and head
  assay_dtype compute = ASSAY_DTYPE_NONE;  // F32: no operand is rounded below f32
  assay_dtype act = ASSAY_F32;
  assay_dtype kv = ASSAY_DTYPE_NONE;
};
// name: auto, f32, bf16, f16, int8, int4, fp8, i8 or f8_e4m3. kv: auto (what the device prefers; f32 if name is), f32,
// bf16, f16 or fp8. Throws Error if the device lacks what it needs.
DTypeChoice ChooseDTypes(const std::string& name, const std::string& kv, const assay_device_info& info);

// A linear layer: y = x * w^T + bias. Weights of one dtype that share an input are packed as one product; where a file
// mixes dtypes (some GGUF recipes do), there is a part for each.
struct LinearWeights {
  struct Part {
    Tensor w;                    // [rows, in]
    std::optional<Tensor> bias;  // [rows] f32
    int64_t begin = 0;           // first output column
  };
  std::vector<Part> parts;
};

struct LayerWeights {
  Tensor attn_norm, mlp_norm;                           // [hidden] f32
  std::optional<Tensor> attn_post_norm, mlp_post_norm;  // [hidden] f32
  std::optional<Tensor> q_norm, k_norm;                 // [head_dim] f32
  LinearWeights qkv, o, gate_up, down;
};

struct OuterWeights {
  Tensor embedding;                  // [vocab, hidden]
  Tensor final_norm;                 // [hidden] f32
  LinearWeights head;                // this rank's rows of it; the embedding again if tied and whole
  std::optional<Tensor> rope_freqs;  // [rotary_dim/2] f32
};

class WeightLoader {
 public:
  // shard: the part of every layer and of the head that is loaded; everything below is of that part.
  WeightLoader(std::shared_ptr<Device> device, Checkpoint* checkpoint, const DTypeChoice& dtypes, const Shard& shard);

  // Device bytes of a layer, of everything outside the layers, and of the whole model: multiples of kPlaceAlignment.
  uint64_t LayerBytes(int64_t layer);
  uint64_t OuterBytes();
  uint64_t TotalBytes();
  // Bytes of packed matrices that a step reads: layers and head, not the embedding look-up.
  uint64_t StepBytes();
  // The dtype that most weights of the whole model have on the device: elements, not bytes, for a 16-bit head of a
  // small 4-bit model is the larger part of its bytes.
  assay_dtype MainDType();

  // Converts, packs, and lets the checkpoint release each source tensor. `at` is where the bytes above begin, in a
  // buffer that holds them; without a buffer nothing is read and the tensors only carry shapes.
  struct Place {
    const Buffer* buffer = nullptr;
    uint64_t offset = 0;  // a multiple of kPlaceAlignment
  };
  static constexpr uint64_t kPlaceAlignment = 4096;
  LayerWeights LoadLayer(int64_t layer, const Place& at);
  OuterWeights LoadOuter(const Place& at);

 private:
  // A matrix of the checkpoint, or the block of it that this rank has.
  struct Source {
    std::string weight, bias;  // bias "" for none
    Range rows, cols;
  };
  Source Whole(const std::string& weight, const std::string& bias) const;
  // Columns: their products are summed over ranks, so only the first rank adds the bias.
  Source Rows(Source source, const Range& rows) const;
  Source Columns(Source source, const Range& cols) const;
  assay_dtype TargetDType(const Source& source, assay_dtype wanted) const;
  Tensor LoadVector(const std::string& name, float offset);  // offset: added to each element
  LinearWeights LoadLinear(const std::vector<Source>& sources, uint32_t usage, assay_dtype wanted);
  LinearWeights::Part LoadPart(const std::vector<Source>& sources, assay_dtype target, uint32_t usage);
  uint8_t* Convert(const Source& source, assay_dtype target, uint8_t* to, std::vector<float>* scales);
  uint8_t* ConvertByRows(const Source& source, assay_dtype target, uint8_t* to, std::vector<float>* scales);
  void Pack(const std::vector<Source>& sources, assay_weight_desc desc, uint64_t offset);
  std::optional<Tensor> LoadBias(const std::vector<Source>& sources, int64_t rows);
  uint64_t Reserve(uint64_t bytes, uint64_t alignment);
  const TensorInfo& Need(const std::string& name) const;
  void Begin(const Place& at);
  uint64_t End() const;

  std::shared_ptr<Device> device_;
  Checkpoint* checkpoint_;
  DTypeChoice dtypes_;
  Shard shard_;
  const Buffer* buffer_ = nullptr;  // of the Load call under way
  uint64_t begin_ = 0, offset_ = 0;
  uint64_t matrix_bytes_ = 0;  // packed matrices placed since Begin, embedding look-up apart
};

}  // namespace assay
