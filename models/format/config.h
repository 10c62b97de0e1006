// SPDX-License-Identifier: Apache-2.0
// What a dense decoder's checkpoint says about itself, independent of the file format. A plain value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backends/api/assay_backend.h"

namespace assay {

// The families that share one dense decoder; what differs between them is in the flags below.
enum class Family { kLlama, kMistral, kQwen2, kQwen3, kGemma3 };
const char* FamilyName(Family family);

struct ModelConfig {
  Family family = Family::kLlama;
  std::string architecture;  // as the file says: "LlamaForCausalLM", "qwen3"
  std::string name;          // for people: from the file's metadata or its path

  int64_t hidden = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t ffn = 0;
  int64_t vocab = 0;
  int64_t max_positions = 0;
  float norm_eps = 1e-5f;

  bool qkv_bias = false;  // Qwen2: on q, k, v (never on o); Llama with attention_bias: see o_bias
  bool o_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;  // Qwen3, Gemma 3: RMSNorm per head on q and k before rope
  // Gemma 3.
  bool post_norms = false;   // what attention and MLP give is normed before it is added to the residual stream
  bool gelu = false;         // the MLP's gate goes through gelu (tanh) instead of silu
  float norm_offset = 0.0f;  // added to the weights of norms: Hugging Face's layout keeps them less 1
  float embed_scale = 1.0f;  // of the embedding's rows
  float attn_scale = 0.0f;   // of q.k; 0: 1 / sqrt(head_dim)
  bool tied_embeddings = false;
  // Sliding window in tokens, 0 for none; only layers >= window_from_layer use it (Qwen2's max_window_layers), and of
  // these not each full_every'th of the model (Gemma 3: 6; 0: all of them do).
  int32_t window = 0;
  int64_t window_from_layer = 0;
  int64_t full_every = 0;
  bool Windowed(int64_t layer) const {
    return window > 0 && layer >= window_from_layer && (full_every == 0 || (layer + 1) % full_every != 0);
  }

  // struct_size and op set; interleaved is true for GGUF files of architecture "llama", whose q and k rows are
  // permuted for it.
  assay_rope_desc rope{};
  std::optional<assay_rope_desc> window_rope;  // of the layers with a window, where it is another

  int32_t bos_id = -1;                 // -1: none
  std::vector<int32_t> eos_ids;        // generation stops at any of these
  assay_dtype file_dtype = ASSAY_F32;  // that of most weight bytes

  // Parameters of the whole model (tied embeddings counted once).
  uint64_t Parameters() const;
};

}  // namespace assay
