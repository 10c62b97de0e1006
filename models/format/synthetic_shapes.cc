// SPDX-License-Identifier: Apache-2.0
// Sizes as in the models' published config.json (those of the instruction-tuned variant where there are two).
#include <cmath>
#include <string>

#include "models/format/layout.h"
#include "models/format/synthetic.h"
#include "runtime/core/error.h"

namespace assay {
namespace {

struct Shape {
  const char* name;
  Family family;
  int64_t hidden, layers, heads, kv_heads, head_dim, ffn, vocab, positions;
  float theta;
  float llama3_factor;  // 0: no rope scaling
  float eps;
  bool tied;
  int32_t bos;
  std::vector<int32_t> eos;
};

const std::vector<Shape>& Shapes() {
  static const std::vector<int32_t> kSmol = {2};
  static const std::vector<int32_t> kLlama3 = {128001, 128008, 128009};
  static const std::vector<int32_t> kQwen = {151645, 151643};
  static const std::vector<int32_t> kDistill = {151643};
  static const std::vector<int32_t> kGemma = {1, 106};
  constexpr Family kL = Family::kLlama, k2 = Family::kQwen2, k3 = Family::kQwen3, kG = Family::kGemma3;
  // clang-format off
  static const std::vector<Shape> shapes = {
    {"smollm2-135m", kL, 576, 30, 9, 3, 64, 1536, 49152, 8192, 1e5f, 0, 1e-5f, true, 1, kSmol},
    {"smollm2-1.7b", kL, 2048, 24, 32, 32, 64, 8192, 49152, 8192, 1.3e5f, 0, 1e-5f, true, 1, kSmol},
    {"llama-3.2-1b", kL, 2048, 16, 32, 8, 64, 8192, 128256, 131072, 5e5f, 32, 1e-5f, true, 128000, kLlama3},
    {"llama-3.2-3b", kL, 3072, 28, 24, 8, 128, 8192, 128256, 131072, 5e5f, 32, 1e-5f, true, 128000, kLlama3},
    {"llama-3.1-8b", kL, 4096, 32, 32, 8, 128, 14336, 128256, 131072, 5e5f, 8, 1e-5f, false, 128000, kLlama3},
    {"llama-3.1-70b", kL, 8192, 80, 64, 8, 128, 28672, 128256, 131072, 5e5f, 8, 1e-5f, false, 128000, kLlama3},
    {"llama-3.1-405b", kL, 16384, 126, 128, 8, 128, 53248, 128256, 131072, 5e5f, 8, 1e-5f, false, 128000, kLlama3},
    {"qwen2.5-0.5b", k2, 896, 24, 14, 2, 64, 4864, 151936, 32768, 1e6f, 0, 1e-6f, true, 151643, kQwen},
    {"qwen2.5-7b", k2, 3584, 28, 28, 4, 128, 18944, 152064, 32768, 1e6f, 0, 1e-6f, false, 151643, kQwen},
    {"qwen3-0.6b", k3, 1024, 28, 16, 8, 128, 3072, 151936, 40960, 1e6f, 0, 1e-6f, true, 151643, kQwen},
    {"qwen3-8b", k3, 4096, 36, 32, 8, 128, 12288, 151936, 40960, 1e6f, 0, 1e-6f, false, 151643, kQwen},
    {"qwen3-14b", k3, 5120, 40, 40, 8, 128, 17408, 151936, 40960, 1e6f, 0, 1e-6f, false, 151643, kQwen},
    {"qwen3-32b", k3, 5120, 64, 64, 8, 128, 25600, 151936, 40960, 1e6f, 0, 1e-6f, false, 151643, kQwen},
    {"deepseek-r1-distill-qwen-1.5b", k2, 1536, 28, 12, 2, 128, 8960, 151936, 131072, 1e4f, 0, 1e-6f, false, 151646, kDistill},
    {"deepseek-r1-distill-qwen-32b", k2, 5120, 64, 40, 8, 128, 27648, 152064, 131072, 1e6f, 0, 1e-5f, false, 151646, kDistill},
    {"gemma3-270m", kG, 640, 18, 4, 1, 256, 2048, 262144, 32768, 1e6f, 0, 1e-6f, true, 2, kGemma},
    {"gemma3-1b", kG, 1152, 26, 4, 1, 256, 6912, 262144, 32768, 1e6f, 0, 1e-6f, true, 2, kGemma},
  };
  // clang-format on
  return shapes;
}

const char* ArchitectureOf(Family family) {
  return family == Family::kLlama   ? "LlamaForCausalLM"
         : family == Family::kQwen2 ? "Qwen2ForCausalLM"
         : family == Family::kQwen3 ? "Qwen3ForCausalLM"
                                    : "Gemma3ForCausalLM";
}

void FillGemma(ModelConfig* c) {
  c->qk_norm = c->post_norms = c->gelu = true;
  c->embed_scale = std::sqrt(static_cast<float>(c->hidden));
  c->window = 512;
  c->full_every = 6;
  c->window_rope = c->rope;
  c->window_rope->theta = 10000.0f;
}

}  // namespace

std::vector<std::string> SyntheticShapeNames() {
  std::vector<std::string> names;
  for (const Shape& s : Shapes()) names.emplace_back(s.name);
  return names;
}

ModelConfig SyntheticConfig(const std::string& name) {
  std::string known;
  for (const Shape& s : Shapes()) {
    known += (known.empty() ? "" : ", ") + std::string(s.name);
    if (name != s.name) continue;
    ModelConfig c;
    c.family = s.family;
    c.architecture = ArchitectureOf(s.family);
    c.name = s.name;
    c.hidden = s.hidden;
    c.layers = s.layers;
    c.heads = s.heads;
    c.kv_heads = s.kv_heads;
    c.head_dim = s.head_dim;
    c.ffn = s.ffn;
    c.vocab = s.vocab;
    c.max_positions = s.positions;
    c.norm_eps = s.eps;
    c.qkv_bias = s.family == Family::kQwen2;
    c.qk_norm = s.family == Family::kQwen3;
    c.tied_embeddings = s.tied;
    c.rope = {sizeof(assay_rope_desc),
              ASSAY_OP_ROPE,
              static_cast<int32_t>(s.head_dim),
              0,
              s.theta,
              ASSAY_ROPE_NONE,
              1,
              1,
              4,
              8192,
              32,
              1,
              1};
    if (s.llama3_factor > 0) {
      c.rope.scaling = ASSAY_ROPE_LLAMA3;
      c.rope.factor = s.llama3_factor;
    }
    if (s.family == Family::kGemma3) FillGemma(&c);
    c.bos_id = s.bos;
    c.eos_ids = s.eos;
    return c;
  }
  throw Error("shape:" + name + ": no such shape; there are " + known);
}

}  // namespace assay
