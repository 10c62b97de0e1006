// SPDX-License-Identifier: Apache-2.0
#include "models/format/hf_config.h"

#include <gtest/gtest.h>

#include <cmath>

#include "models/format/test_files.h"

namespace assay {
namespace {

using nlohmann::json;
using testing::ErrorOf;
using testing::TempFolder;
using testing::TinyConfig;

ModelConfig Parse(const json& j) {
  return ParseHfConfig(j, "config.json");
}

void ExpectRefused(const json& j, const std::string& part) {
  const std::string what = ErrorOf([&] { Parse(j); });
  EXPECT_NE(what.find(part), std::string::npos) << "wanted: " << part << "\ngot: " << what;
  EXPECT_EQ(what.find('\n'), std::string::npos);
}

json With(json base, const json& changes) {
  base.update(changes);
  return base;
}

TEST(HfConfig, DefaultsAreThoseOfTransformers) {
  const ModelConfig llama = Parse({{"architectures", {"LlamaForCausalLM"}}});
  EXPECT_EQ(llama.hidden, 4096);
  EXPECT_EQ(llama.ffn, 11008);
  EXPECT_EQ(llama.kv_heads, 32);
  EXPECT_EQ(llama.head_dim, 128);
  EXPECT_EQ(llama.vocab, 32000);
  EXPECT_EQ(llama.max_positions, 2048);
  EXPECT_FLOAT_EQ(llama.norm_eps, 1e-6f);
  EXPECT_FLOAT_EQ(llama.rope.theta, 10000.0f);
  EXPECT_EQ(llama.bos_id, 1);
  EXPECT_EQ(llama.eos_ids, std::vector<int32_t>{2});
  EXPECT_FALSE(llama.tied_embeddings || llama.qkv_bias || llama.o_bias || llama.mlp_bias || llama.qk_norm);
  EXPECT_EQ(llama.window, 0);

  const ModelConfig mistral = Parse({{"architectures", {"MistralForCausalLM"}}, {"head_dim", nullptr}});
  EXPECT_EQ(mistral.kv_heads, 8);
  EXPECT_EQ(mistral.head_dim, 128);
  EXPECT_EQ(mistral.window, 4096);
  EXPECT_EQ(mistral.window_from_layer, 0);

  const ModelConfig qwen2 = Parse({{"model_type", "qwen2"}});
  EXPECT_EQ(qwen2.family, Family::kQwen2);
  EXPECT_EQ(qwen2.ffn, 22016);
  EXPECT_EQ(qwen2.vocab, 151936);
  EXPECT_TRUE(qwen2.qkv_bias);
  EXPECT_FALSE(qwen2.o_bias);
  EXPECT_EQ(qwen2.bos_id, -1);
  EXPECT_TRUE(qwen2.eos_ids.empty());

  const ModelConfig qwen3 = Parse({{"architectures", {"Qwen3ForCausalLM"}}, {"hidden_size", 1024}});
  EXPECT_EQ(qwen3.head_dim, 128);  // not hidden / heads
  EXPECT_TRUE(qwen3.qk_norm);
  EXPECT_FALSE(qwen3.qkv_bias);
}

TEST(HfConfig, NullHeadsMeansAsManyAsQueryHeads) {
  const json j =
      With(TinyConfig("MistralForCausalLM"), {{"num_key_value_heads", nullptr}, {"sliding_window", nullptr}});
  EXPECT_EQ(Parse(j).kv_heads, 4);
  EXPECT_EQ(Parse(j).window, 0);
}

TEST(HfConfig, BiasesByFamily) {
  const json bias = {{"attention_bias", true}, {"mlp_bias", true}};
  const ModelConfig llama = Parse(With(TinyConfig("LlamaForCausalLM"), bias));
  EXPECT_TRUE(llama.qkv_bias && llama.o_bias && llama.mlp_bias);
  const ModelConfig qwen3 = Parse(With(TinyConfig("Qwen3ForCausalLM"), bias));
  EXPECT_TRUE(qwen3.qkv_bias && qwen3.o_bias);
  EXPECT_FALSE(qwen3.mlp_bias);
  const ModelConfig qwen2 = Parse(With(TinyConfig("Qwen2ForCausalLM"), bias));
  EXPECT_TRUE(qwen2.qkv_bias);
  EXPECT_FALSE(qwen2.o_bias);
  const ModelConfig mistral = Parse(With(TinyConfig("MistralForCausalLM"), bias));
  EXPECT_FALSE(mistral.qkv_bias || mistral.o_bias || mistral.mlp_bias);
}

TEST(HfConfig, RopeInTheOldAndTheNewPlace) {
  const json llama3 = {{"factor", 32.0},
                       {"low_freq_factor", 1.5},
                       {"high_freq_factor", 5.0},
                       {"original_max_position_embeddings", 8192},
                       {"rope_type", "llama3"}};
  const ModelConfig old_place =
      Parse(With(TinyConfig("LlamaForCausalLM"), {{"rope_theta", 500000.0}, {"rope_scaling", llama3}}));
  json parameters = llama3;
  parameters["rope_theta"] = 500000.0;
  json without = TinyConfig("LlamaForCausalLM");
  without.erase("rope_theta");
  const ModelConfig new_place = Parse(With(without, {{"rope_parameters", parameters}}));
  for (const ModelConfig& c : {old_place, new_place}) {
    EXPECT_EQ(c.rope.struct_size, sizeof(assay_rope_desc));
    EXPECT_EQ(c.rope.op, ASSAY_OP_ROPE);
    EXPECT_EQ(c.rope.rotary_dim, 16);
    EXPECT_EQ(c.rope.interleaved, 0);
    EXPECT_EQ(c.rope.theta, 500000.0f);
    EXPECT_EQ(c.rope.scaling, ASSAY_ROPE_LLAMA3);
    EXPECT_EQ(c.rope.factor, 32.0f);
    EXPECT_EQ(c.rope.low_freq_factor, 1.5f);
    EXPECT_EQ(c.rope.high_freq_factor, 5.0f);
    EXPECT_EQ(c.rope.original_context, 8192.0f);
    EXPECT_EQ(c.rope.attn_factor, 1.0f);
  }
}

TEST(HfConfig, RopeScalings) {
  const auto rope = [](const json& scaling) {
    return Parse(With(TinyConfig("Qwen2ForCausalLM"), {{"rope_scaling", scaling}})).rope;
  };
  EXPECT_EQ(rope(nullptr).scaling, ASSAY_ROPE_NONE);
  EXPECT_EQ(rope({{"type", "default"}}).scaling, ASSAY_ROPE_NONE);
  EXPECT_EQ(rope({{"type", "linear"}, {"factor", 2}}).scaling, ASSAY_ROPE_LINEAR);
  EXPECT_EQ(rope({{"type", "linear"}, {"factor", 2}}).factor, 2.0f);
  // "rope_type" goes before the older "type".
  EXPECT_EQ(rope({{"rope_type", "linear"}, {"type", "yarn"}, {"factor", 2}}).scaling, ASSAY_ROPE_LINEAR);

  json yarn = {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 64}};
  EXPECT_EQ(rope(yarn).scaling, ASSAY_ROPE_YARN);
  EXPECT_EQ(rope(yarn).original_context, 64.0f);
  EXPECT_EQ(rope(yarn).beta_fast, 32.0f);
  EXPECT_EQ(rope(yarn).beta_slow, 1.0f);
  EXPECT_FLOAT_EQ(rope(yarn).attn_factor, static_cast<float>(0.1 * std::log(4.0) + 1.0));
  yarn["mscale"] = 2.0;  // only together with mscale_all_dim
  EXPECT_FLOAT_EQ(rope(yarn).attn_factor, static_cast<float>(0.1 * std::log(4.0) + 1.0));
  yarn["mscale_all_dim"] = 0.5;
  EXPECT_FLOAT_EQ(rope(yarn).attn_factor,
                  static_cast<float>((0.2 * std::log(4.0) + 1.0) / (0.05 * std::log(4.0) + 1.0)));
  yarn["attention_factor"] = 1.25;
  yarn["beta_fast"] = 16;
  yarn["beta_slow"] = 2;
  EXPECT_FLOAT_EQ(rope(yarn).attn_factor, 1.25f);
  EXPECT_EQ(rope(yarn).beta_fast, 16.0f);
  EXPECT_EQ(rope(yarn).beta_slow, 2.0f);
  yarn["factor"] = nullptr;  // then the ratio of the two context lengths: 256 / 64
  EXPECT_EQ(rope(yarn).factor, 4.0f);
  yarn.erase("original_max_position_embeddings");
  EXPECT_EQ(rope(yarn).original_context, 256.0f);
}

TEST(HfConfig, RefusesRopeThatItDoesNotKnow) {
  const auto refused = [](const json& scaling, const std::string& part) {
    ExpectRefused(With(TinyConfig("LlamaForCausalLM"), {{"rope_scaling", scaling}}), part);
  };
  refused({{"type", "dynamic"}, {"factor", 2}}, "scaling of type \"dynamic\" is not supported");
  refused({{"rope_type", "longrope"}}, "scaling of type \"longrope\"");
  refused({{"rope_type", "linear"}}, "factor is missing");
  refused({{"rope_type", "linear"}, {"factor", 0}}, "rope scaling factor");
  refused({{"rope_type", "linear"}, {"factor", "2"}}, "factor must be a number");
  refused({{"rope_type", "llama3"}, {"factor", 2}}, "low_freq_factor is missing");
  refused({{"rope_type", "llama3"}, {"factor", 2}, {"low_freq_factor", 4}, {"high_freq_factor", 4}},
          "high_freq_factor");
  refused({{"rope_type", "yarn"}, {"factor", 2}, {"truncate", false}}, "truncate");
  refused({{"rope_type", "yarn"}, {"factor", 2}, {"beta_fast", 1}, {"beta_slow", 2}}, "beta_fast");
  refused("yarn", "rope_scaling must be an object");
  refused({{"full_attention", {{"rope_type", "default"}}}}, "differ between layers");
  ExpectRefused(With(TinyConfig("LlamaForCausalLM"), {{"partial_rotary_factor", 0.5}}), "partial_rotary_factor");
}

TEST(HfConfig, SlidingWindows) {
  const auto parse = [](const std::string& architecture, const json& changes) {
    return Parse(With(TinyConfig(architecture), changes));
  };
  EXPECT_EQ(parse("MistralForCausalLM", {{"sliding_window", 8}}).window, 8);
  EXPECT_EQ(parse("LlamaForCausalLM", {{"sliding_window", 8}}).window, 0);
  EXPECT_EQ(parse("Qwen2ForCausalLM", {{"sliding_window", 8}, {"max_window_layers", 1}}).window, 0);
  const json on = {{"use_sliding_window", true}, {"sliding_window", 8}, {"max_window_layers", 1}};
  EXPECT_EQ(parse("Qwen2ForCausalLM", on).window, 8);
  EXPECT_EQ(parse("Qwen3ForCausalLM", on).window_from_layer, 1);
  EXPECT_EQ(parse("Qwen2ForCausalLM", With(on, {{"max_window_layers", 2}})).window, 0);  // no such layer
  const ModelConfig listed =
      parse("Qwen3ForCausalLM", With(on, {{"layer_types", {"sliding_attention", "sliding_attention"}}}));
  EXPECT_EQ(listed.window, 8);
  EXPECT_EQ(listed.window_from_layer, 0);
  EXPECT_EQ(parse("Qwen3ForCausalLM", With(on, {{"layer_types", {"full_attention", "full_attention"}}})).window, 0);
  const json tiny = TinyConfig("Qwen3ForCausalLM");
  ExpectRefused(With(With(tiny, on), {{"layer_types", {"sliding_attention", "full_attention"}}}), "layer_types");
  ExpectRefused(With(With(tiny, on), {{"layer_types", {"full_attention"}}}), "one entry per layer");
  ExpectRefused(With(With(tiny, on), {{"layer_types", {"full_attention", "linear_attention"}}}), "entry 1 is neither");
  ExpectRefused(With(tiny, {{"layer_types", {"full_attention", "sliding_attention"}}}), "use_sliding_window");
}

TEST(HfConfig, Gemma3) {
  const ModelConfig published = Parse({{"architectures", {"Gemma3ForCausalLM"}}, {"num_hidden_layers", 18}});
  EXPECT_EQ(published.head_dim, 256);
  EXPECT_EQ(published.hidden, 2304);
  EXPECT_TRUE(published.gelu && published.post_norms && published.qk_norm && published.tied_embeddings);
  EXPECT_EQ(published.norm_offset, 1.0f);
  EXPECT_EQ(published.embed_scale, 48.0f);
  EXPECT_EQ(published.attn_scale, 1.0f / 16);
  EXPECT_EQ(published.rope.theta, 1e6f);
  EXPECT_EQ(published.window_rope->theta, 1e4f);
  EXPECT_TRUE(published.Windowed(4) && published.Windowed(6));
  EXPECT_FALSE(published.Windowed(5) || published.Windowed(17));

  const json tiny =
      With(TinyConfig("Gemma3ForCausalLM"), {{"sliding_window", 8}, {"rope_theta", nullptr}, {"num_hidden_layers", 4}});
  const ModelConfig old = Parse(With(tiny, {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}},
                                            {"rope_local_base_freq", 500.0},
                                            {"sliding_window_pattern", 2},
                                            {"query_pre_attn_scalar", 100}}));
  EXPECT_EQ(old.rope.factor, 8.0f);
  EXPECT_EQ(old.window_rope->scaling, ASSAY_ROPE_NONE);
  EXPECT_EQ(old.window_rope->theta, 500.0f);
  EXPECT_EQ(old.attn_scale, 0.1f);
  EXPECT_TRUE(old.Windowed(2));
  EXPECT_FALSE(old.Windowed(3));

  const json kinds = {"sliding_attention", "sliding_attention", "full_attention", "sliding_attention"};
  const ModelConfig now =
      Parse(With(tiny, {{"layer_types", kinds},
                        {"rope_parameters",
                         {{"full_attention", {{"rope_type", "linear"}, {"factor", 2}, {"rope_theta", 300}}},
                          {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 200}}}}}}));
  EXPECT_EQ(now.rope.theta, 300.0f);
  EXPECT_EQ(now.rope.factor, 2.0f);
  EXPECT_EQ(now.window_rope->theta, 200.0f);
  EXPECT_EQ(now.window_rope->scaling, ASSAY_ROPE_NONE);
  EXPECT_TRUE(now.Windowed(3));
  EXPECT_FALSE(now.Windowed(2));

  const json broken = {"sliding_attention", "full_attention", "full_attention", "sliding_attention"};
  ExpectRefused(With(tiny, {{"layer_types", broken}}), "entry 2 does not follow the pattern");
  ExpectRefused(With(tiny, {{"layer_types", {"full_attention"}}}), "one entry per layer");
  ExpectRefused(With(tiny, {{"sliding_window_pattern", 0}}), "sliding_window_pattern must be positive");
  ExpectRefused(With(tiny, {{"sliding_window", nullptr}}), "sliding_window must be positive");
  ExpectRefused(With(tiny, {{"final_logit_softcapping", 30.0}}), "soft-capping is not supported");
  ExpectRefused(With(tiny, {{"use_bidirectional_attention", true}}), "use_bidirectional_attention");
  ExpectRefused(With(tiny, {{"hidden_activation", "gelu"}}), "only gelu_pytorch_tanh");
  ExpectRefused(With(tiny, {{"query_pre_attn_scalar", 0}}), "query_pre_attn_scalar must be positive");
}

TEST(HfConfig, EndOfTextIds) {
  EXPECT_EQ(Parse(With(TinyConfig("LlamaForCausalLM"), {{"eos_token_id", {5, 6}}})).eos_ids,
            (std::vector<int32_t>{5, 6}));
  EXPECT_TRUE(Parse(With(TinyConfig("LlamaForCausalLM"), {{"eos_token_id", nullptr}})).eos_ids.empty());
  EXPECT_EQ(Parse(With(TinyConfig("LlamaForCausalLM"), {{"bos_token_id", nullptr}})).bos_id, -1);
  ExpectRefused(With(TinyConfig("LlamaForCausalLM"), {{"eos_token_id", {-5}}}), "eos_token_id is out of range");
  ExpectRefused(With(TinyConfig("LlamaForCausalLM"), {{"eos_token_id", "x"}}), "eos_token_id must be an integer");

  const TempFolder folder;
  folder.Write("config.json", TinyConfig("LlamaForCausalLM").dump());
  EXPECT_EQ(ReadHfConfig(folder.path()).eos_ids, std::vector<int32_t>{2});
  folder.Write("generation_config.json", R"({"eos_token_id": [7, 8]})");
  EXPECT_EQ(ReadHfConfig(folder.path()).eos_ids, (std::vector<int32_t>{7, 8}));
  folder.Write("generation_config.json", R"({"temperature": 1})");
  EXPECT_EQ(ReadHfConfig(folder.path()).eos_ids, std::vector<int32_t>{2});
}

TEST(HfConfig, RefusesWhatItCannotRun) {
  ExpectRefused(TinyConfig("GPT2LMHeadModel"),
                "architecture \"GPT2LMHeadModel\" is not supported (supported: LlamaForCausalLM, MistralForCausalLM, "
                "Qwen2ForCausalLM, Qwen3ForCausalLM, Gemma3ForCausalLM)");
  ExpectRefused(json::object(), "neither architectures nor model_type");
  const auto refused = [](const json& changes, const std::string& part) {
    ExpectRefused(With(TinyConfig("LlamaForCausalLM"), changes), part);
  };
  refused({{"hidden_act", "gelu"}}, "hidden_act \"gelu\" is not supported");
  const auto quantized = [](const json& changes) {
    json weights = {{"num_bits", 8}, {"type", "int"}, {"strategy", "channel"}, {"symmetric", true}};
    weights.update(changes);
    return json{{"quant_method", "compressed-tensors"},
                {"format", "int-quantized"},
                {"config_groups", {{"group_0", {{"weights", weights}}}}}};
  };
  ParseHfConfig(With(TinyConfig("LlamaForCausalLM"), {{"quantization_config", quantized(json::object())}}),
                "config.json");
  refused({{"quantization_config", {{"quant_method", "awq"}}}}, "quant_method \"awq\" is not supported");
  refused({{"quantization_config", {{"quant_method", "fp8"}, {"weight_block_size", {64, 64}}}}},
          "weight_block_size [64,64] is not supported");
  refused({{"quantization_config", quantized({{"num_bits", 4}})}}, "num_bits 4 of type \"int\" is not supported");
  refused({{"quantization_config", quantized({{"strategy", "group"}})}}, "strategy \"group\" is not supported");
  refused({{"quantization_config", quantized({{"symmetric", false}})}}, "symmetric false is not supported");
  refused({{"num_attention_heads", 0}}, "number of attention heads is 0");
  refused({{"num_attention_heads", -4}}, "number of attention heads is -4");
  refused({{"num_key_value_heads", 3}}, "not a multiple of 3 key/value heads");
  refused({{"head_dim", nullptr}, {"num_attention_heads", 5}},
          "hidden_size 64 is not a multiple of num_attention_heads 5");
  refused({{"head_dim", 15}}, "rotary dimension 15 must be even");
  refused({{"head_dim", 1}}, "rotary dimension 1 must be even");
  refused({{"head_dim", 1 << 20}}, "head dimension is 1048576");
  refused({{"num_hidden_layers", 1 << 20}}, "number of layers is 1048576");
  refused({{"vocab_size", 1ll << 40}}, "vocabulary size is 1099511627776");
  refused({{"hidden_size", 18446744073709551615ull}}, "hidden_size is too large");
  refused({{"hidden_size", 64.5}}, "hidden_size must be an integer");
  refused({{"hidden_size", "64"}}, "hidden_size must be an integer");
  refused({{"rms_norm_eps", -1.0}}, "epsilon must not be negative");
  refused({{"rope_theta", -1.0}}, "rope theta");
  refused({{"max_position_embeddings", 0}}, "number of positions is 0");
  refused({{"tie_word_embeddings", 1}}, "tie_word_embeddings must be true or false");
}

}  // namespace
}  // namespace assay
