// SPDX-License-Identifier: Apache-2.0
// Checkpoints in the forms in which FP8 and INT8 models are published: read, kept on the device as they are, and run
// there. The reference and the devices must agree within what their rounding of activations moves.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <ostream>
#include <random>

#include "tests/e2e/program.h"

namespace assay::e2e {
namespace {

using Json = nlohmann::json;

struct Form {
  const char* name;
  const char* type;        // of quants, in the file
  const char* scale_name;  // behind the weight's
  bool channel, block;     // scales for each row, each block of 128 by 128; else one
  Json quantization;
};

void PrintTo(const Form& form, std::ostream* out) {
  *out << form.name;
}

Json CompressedTensors(const char* type, const char* strategy) {
  return {{"quant_method", "compressed-tensors"},
          {"format", std::string(type) + "-quantized"},
          {"ignore", {"lm_head"}},
          {"config_groups",
           {{"group_0",
             {{"targets", {"Linear"}},
              {"weights", {{"num_bits", 8}, {"type", type}, {"strategy", strategy}, {"symmetric", true}}},
              {"input_activations", {{"num_bits", 8}, {"type", type}, {"strategy", "token"}, {"dynamic", true}}},
              {"output_activations", nullptr}}}}}};
}

const Form kForms[] = {
    {"fp8_tensor", "F8_E4M3", "_scale", false, false, CompressedTensors("float", "tensor")},
    {"int8_channel", "I8", "_scale", true, false, CompressedTensors("int", "channel")},
    {"fp8_block",
     "F8_E4M3",
     "_scale_inv",
     false,
     true,
     {{"quant_method", "fp8"}, {"activation_scheme", "dynamic"}, {"weight_block_size", {128, 128}}}},
};

constexpr int64_t kHidden = 128, kFfn = 384, kVocab = 96, kLayers = 2;

// A model's folder, in the layout of Hugging Face.
class Writer {
 public:
  explicit Writer(const Form& form) : form_(form) {}

  void Floats(const std::string& name, std::vector<int64_t> shape, float mean, float deviation) {
    std::string data;
    for (int64_t i = 0, n = Count(shape); i < n; ++i) data += Bf16(mean + deviation * normal_(random_));
    Add(name, "BF16", std::move(shape), data);
  }
  void Linear(const std::string& name, int64_t rows, int64_t cols) {
    const bool int8 = std::string(form_.type) == "I8";
    std::string data;
    // e4m3 below 2, without NaN: a deviation of about 0.3. int8: 64.
    for (int64_t i = 0; i < rows * cols; ++i)
      data += static_cast<char>(int8 ? random_() % 223 - 111 : random_() & 0xbf);
    Add(name + ".weight", form_.type, {rows, cols}, data);
    std::vector<int64_t> shape = {1};
    if (form_.channel) shape = {rows, 1};
    if (form_.block) shape = {(rows + 127) / 128, cols / 128};
    std::string scales;
    const float typical = 1 / (std::sqrt(static_cast<float>(cols)) * (int8 ? 64.0f : 0.6f));
    std::uniform_real_distribution<float> spread(0.5f, 1.5f);
    for (int64_t i = 0, n = Count(shape); i < n; ++i) {
      const float scale = typical * spread(random_);
      scales.append(reinterpret_cast<const char*>(&scale), sizeof scale);
    }
    Add(name + ".weight" + form_.scale_name, "F32", shape, scales);
  }
  std::string File() const {
    std::string header = header_.dump();
    header.resize((header.size() + 7) / 8 * 8, ' ');
    const uint64_t size = header.size();
    return std::string(reinterpret_cast<const char*>(&size), sizeof size) + header + data_;
  }

 private:
  static int64_t Count(const std::vector<int64_t>& shape) {
    int64_t n = 1;
    for (const int64_t dim : shape) n *= dim;
    return n;
  }
  static std::string Bf16(float f) {
    uint32_t bits;
    std::memcpy(&bits, &f, sizeof bits);
    return {static_cast<char>(bits >> 16), static_cast<char>(bits >> 24)};
  }
  void Add(const std::string& name, const char* type, const std::vector<int64_t>& shape, const std::string& data) {
    header_[name] = {{"dtype", type}, {"shape", shape}, {"data_offsets", {data_.size(), data_.size() + data.size()}}};
    data_ += data;
  }

  const Form& form_;
  std::mt19937 random_{7};
  std::normal_distribution<float> normal_;
  Json header_ = Json::object();
  std::string data_;
};

void WriteModel(const Form& form, const TemporaryFolder& folder) {
  const Json config = {{"architectures", {"LlamaForCausalLM"}},
                       {"hidden_size", kHidden},
                       {"num_hidden_layers", kLayers},
                       {"num_attention_heads", 4},
                       {"num_key_value_heads", 2},
                       {"head_dim", 32},
                       {"intermediate_size", kFfn},
                       {"vocab_size", kVocab},
                       {"max_position_embeddings", 256},
                       {"rms_norm_eps", 1e-5},
                       {"tie_word_embeddings", true},
                       {"quantization_config", form.quantization}};
  folder.Write("config.json", config.dump());
  Writer w(form);
  w.Floats("model.embed_tokens.weight", {kVocab, kHidden}, 0, 1 / std::sqrt(static_cast<float>(kHidden)));
  for (int64_t i = 0; i < kLayers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    w.Floats(layer + "input_layernorm.weight", {kHidden}, 1, 0.1f);
    w.Linear(layer + "self_attn.q_proj", 128, kHidden);
    w.Linear(layer + "self_attn.k_proj", 64, kHidden);
    w.Linear(layer + "self_attn.v_proj", 64, kHidden);
    w.Linear(layer + "self_attn.o_proj", kHidden, 128);
    w.Floats(layer + "post_attention_layernorm.weight", {kHidden}, 1, 0.1f);
    w.Linear(layer + "mlp.gate_proj", kFfn, kHidden);
    w.Linear(layer + "mlp.up_proj", kFfn, kHidden);
    w.Linear(layer + "mlp.down_proj", kHidden, kFfn);
  }
  w.Floats("model.norm.weight", {kHidden}, 1, 0.1f);
  folder.Write("model.safetensors", w.File());
}

class Quantized : public testing::TestWithParam<Form> {
 protected:
  void SetUp() override {
    WriteModel(GetParam(), folder_);
    Json ids = Json::array();
    for (int i = 0; i < 40; ++i) ids.push_back(i * 37 % kVocab);
    ids_ = folder_.Write("ids.json", ids.dump());
  }
  std::vector<double> Score(const std::string& device, const std::string& dtype) {
    const Outcome run = RunAssay({"score", "--model", folder_.path().string(), "--tokens", ids_, "--json", "--device",
                                  device, "--dtype", dtype});
    EXPECT_EQ(run.exit_code, 0) << run.err;
    return run.exit_code == 0 ? ParseOne(run.out).at("logprobs").get<std::vector<double>>() : std::vector<double>();
  }
  // As the accuracy guard bounds it (bench/sut/guard.cc): four deviations of a rounding of `epsilon` in 4 products a
  // layer and the head, for logits of a deviation of about 1.
  static double Tolerance(double epsilon) { return 4 * epsilon * std::sqrt(4.0 * kLayers + 1); }
  static double LargestDifference(const std::vector<double>& a, const std::vector<double>& b) {
    EXPECT_EQ(a.size(), b.size());
    double largest = a.empty() ? NAN : 0;
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
      const double error = std::abs(a[i] - b[i]);
      if (!(error <= largest)) largest = error;
    }
    return largest;
  }

  TemporaryFolder folder_;
  std::string ids_;
};

// Weights that are unpacked at load and multiplied in f32 give what the reference makes of the quants.
TEST_P(Quantized, UnpackedAtLoad) {
  EXPECT_LT(LargestDifference(Score("cpu", "f32"), Score("ref", "auto")), 1e-4);
}

// The CPU has kernels for INT8, which round x to INT8, too; it says of FP8 that it has none.
TEST_P(Quantized, OnTheCpu) {
  if (std::string(GetParam().type) == "I8") {
    EXPECT_LT(LargestDifference(Score("cpu", "auto"), Score("ref", "auto")), Tolerance(1.0 / 127));
    return;
  }
  const Outcome run =
      RunAssay({"score", "--model", folder_.path().string(), "--tokens", ids_, "--json", "--device", "cpu"});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_NE(run.err.find("choose one with --dtype"), std::string::npos) << run.err;
}

TEST_P(Quantized, OnAGpu) {
  const std::string gpu = ASSAY_EMULATED_GPU;
  if (gpu.empty()) GTEST_SKIP() << "the emulated GPU is not built under the thread sanitizer";
  EXPECT_LT(LargestDifference(Score(gpu, "auto"), Score("ref", "auto")), Tolerance(std::ldexp(1.0, -8)));
}

INSTANTIATE_TEST_SUITE_P(Forms, Quantized, testing::ValuesIn(kForms),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace assay::e2e
