// SPDX-License-Identifier: Apache-2.0
#include "models/format/synthetic.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>
#include <unordered_map>

#include "models/format/layout.h"
#include "runtime/core/dtype.h"
#include "runtime/core/error.h"

namespace assay {
namespace {

constexpr uint64_t kChunk = 4096;  // elements that share a seed; a multiple of every block size
constexpr int kLanes = 16;         // generators side by side, so that the loop vectorises without multiplications
constexpr float kBiasDeviation = 0.02f;

uint64_t Mix(uint64_t z) {  // the splitmix64 finaliser
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

uint64_t SeedOf(const std::string& name) {
  uint64_t h = 0xCBF29CE484222325ull;  // FNV-1a
  for (const char c : name) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001B3ull;
  return Mix(h);
}

// `n` (at most kChunk) numbers, uniform within +-limit, that depend on the seed only.
void FillUniform(uint64_t seed, float limit, float* out, uint64_t n) {
  uint32_t state[kLanes];
  for (int l = 0; l < kLanes; ++l)
    state[l] = static_cast<uint32_t>(Mix(seed + 0x9E3779B97F4A7C15ull * (l + 1)) >> 32) | 1u;
  const float scale = limit * 0x1p-31f;
  for (uint64_t i = 0; i < n; i += kLanes) {
    float values[kLanes];
    for (int l = 0; l < kLanes; ++l) {  // xorshift32 (Marsaglia 2003)
      uint32_t s = state[l];
      s ^= s << 13;
      s ^= s >> 17;
      s ^= s << 5;
      state[l] = s;
      values[l] = static_cast<float>(static_cast<int32_t>(s)) * scale;
    }
    std::memcpy(out + i, values, std::min<uint64_t>(kLanes, n - i) * sizeof(float));
  }
}

bool EndsWith(const std::string& text, const char* end) {
  const size_t n = std::strlen(end);
  return text.size() >= n && text.compare(text.size() - n, n, end) == 0;
}

class SyntheticCheckpoint : public Checkpoint {
 public:
  SyntheticCheckpoint(const ModelConfig& config, assay_dtype dtype) {
    config_ = config;
    config_.file_dtype = dtype;
    path_ = "shape:" + config.name;
    tensors_ = LayoutOf(config_);
    for (TensorInfo& t : tensors_) {
      const bool vector = t.shape.size() == 1;
      t.dtype = vector && (IsBlockType(dtype) || IsRowScaled(dtype)) ? ASSAY_F32 : dtype;
      if (t.shape.back() % FindDType(t.dtype)->block_elems != 0) {
        throw Error(path_ + ": tensor " + t.name + " " + ShapeText(t.shape) + " has rows that are no whole number of " +
                    DTypeName(dtype) + " blocks: choose bf16");
      }
      t.bytes = DTypeBytes(t.dtype, ElementsOf(t));
    }
  }

  const void* Data(const TensorInfo& info) override {
    std::unique_ptr<uint8_t[]>& buffer = made_[info.name];
    if (!buffer) {
      buffer = std::make_unique_for_overwrite<uint8_t[]>(info.bytes);
      Generate(info, buffer.get());
    }
    return buffer.get();
  }
  std::vector<float> Scales(const TensorInfo& info) override {
    return std::vector<float>(static_cast<size_t>(info.shape[0]), ScaleOf(info));
  }
  void Release(const TensorInfo& info) override { made_.erase(info.name); }
  bool synthetic() const override { return true; }
  uint64_t file_bytes() const override {
    uint64_t sum = 0;
    for (const TensorInfo& t : tensors_) sum += t.bytes;
    return sum;
  }
  std::string Sha256() override { return ""; }

 private:
  static uint64_t ElementsOf(const TensorInfo& info) {
    uint64_t n = 1;
    for (const int64_t dim : info.shape) n *= static_cast<uint64_t>(dim);
    return n;
  }

  // Rows of deviation 1/sqrt(columns) keep a normed input's size; what adds to the residual stream is smaller by
  // sqrt(2 * layers), so that the stream's size stays of the order of 1 however deep the model is.
  float DeviationOf(const TensorInfo& info) const {
    if (info.shape.size() == 1) return kBiasDeviation;
    const float plain = 1.0f / std::sqrt(static_cast<float>(info.shape.back()));
    const bool to_residual = EndsWith(info.name, "o_proj.weight") || EndsWith(info.name, "down_proj.weight");
    return to_residual ? plain / std::sqrt(2.0f * static_cast<float>(config_.layers)) : plain;
  }

  float LimitOf(const TensorInfo& info) const { return DeviationOf(info) * std::sqrt(3.0f); }
  // Values are spread evenly within their limit: one scale suits all rows.
  float ScaleOf(const TensorInfo& info) const {
    const float limit = LimitOf(info);
    return ScaleFor(info.dtype, &limit, 1);
  }

  void Generate(const TensorInfo& info, uint8_t* out) const {
    const uint64_t elements = ElementsOf(info);
    const uint64_t chunks = (elements + kChunk - 1) / kChunk;
    const bool norm = info.shape.size() == 1 && EndsWith(info.name, "norm.weight");
    const float limit = LimitOf(info);
    const uint64_t seed = SeedOf(info.name);
    const auto fill = [&](uint64_t begin, uint64_t end) {
      float values[kChunk];
      for (uint64_t c = begin; c < end; ++c) {
        const uint64_t n = std::min(kChunk, elements - c * kChunk);
        if (norm) {
          std::fill_n(values, n, 1.0f);
        } else {
          FillUniform(Mix(seed + c), limit, values, n);
        }
        uint8_t* to = out + DTypeBytes(info.dtype, c * kChunk);
        if (IsRowScaled(info.dtype)) {
          Quantize(info.dtype, values, ScaleOf(info), to, n);
        } else {
          ConvertElements(ASSAY_F32, values, info.dtype, to, n);
        }
      }
    };
    // Small tensors are not worth a thread.
    constexpr uint64_t kChunksPerThread = 64;
    const uint64_t cores = std::max(1u, std::thread::hardware_concurrency());
    const uint64_t workers = std::clamp<uint64_t>(chunks / kChunksPerThread, 1, cores);
    std::vector<std::jthread> threads;
    for (uint64_t w = 1; w < workers; ++w) {
      threads.emplace_back(fill, chunks * w / workers, chunks * (w + 1) / workers);
    }
    fill(0, chunks / workers);
  }

  std::unordered_map<std::string, std::unique_ptr<uint8_t[]>> made_;
};

}  // namespace

std::unique_ptr<Checkpoint> MakeSynthetic(const ModelConfig& config, assay_dtype dtype) {
  static constexpr assay_dtype kAllowed[] = {ASSAY_F32,  ASSAY_F16,     ASSAY_BF16,    ASSAY_Q8_0,    ASSAY_Q4_0,
                                             ASSAY_Q4_1, ASSAY_Q5_0,    ASSAY_Q5_1,    ASSAY_Q4_K,    ASSAY_Q5_K,
                                             ASSAY_Q6_K, ASSAY_F8_B128, ASSAY_I4_G128, ASSAY_F8_E4M3, ASSAY_I8};
  if (std::find(std::begin(kAllowed), std::end(kAllowed), dtype) == std::end(kAllowed)) {
    throw Error("shape:" + config.name + ": weights of type " + DTypeName(dtype) +
                " cannot be made (there are f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k, f8_b128, "
                "i4_g128, f8_e4m3, i8)");
  }
  return std::make_unique<SyntheticCheckpoint>(config, dtype);
}

std::unique_ptr<Checkpoint> OpenSynthetic(const std::string& name, assay_dtype dtype) {
  return MakeSynthetic(SyntheticConfig(name), dtype);
}

}  // namespace assay
