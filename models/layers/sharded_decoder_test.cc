// SPDX-License-Identifier: Apache-2.0
// A model that is split over ranks, as threads on CPU devices, computes what the whole model does.
#include <gtest/gtest.h>

#include <ostream>
#include <thread>

#include "models/format/synthetic.h"
#include "models/layers/decoder.h"
#include "runtime/engine/engine.h"

namespace assay {
namespace {

struct Split {
  const char* name;
  int64_t heads, kv_heads;
  int ranks;
  assay_dtype dtype;
  bool tied;
  bool gemma = false;
};

void PrintTo(const Split& split, std::ostream* out) {
  *out << split.name;
}

ModelConfig Config(const Split& s, int64_t layers) {
  ModelConfig c;
  c.family = Family::kQwen2;
  c.architecture = c.name = "split";
  c.hidden = 64;
  c.layers = layers;
  c.heads = s.heads;
  c.kv_heads = s.kv_heads;
  c.head_dim = 32;
  c.ffn = 128;
  c.vocab = 173;  // no multiple of any number of ranks
  c.max_positions = 64;
  c.qkv_bias = c.o_bias = c.mlp_bias = true;
  c.qk_norm = true;
  c.tied_embeddings = s.tied;
  c.rope.struct_size = sizeof(c.rope);
  c.rope.op = ASSAY_OP_ROPE;
  c.rope.rotary_dim = 32;
  c.rope.theta = 10000;
  c.rope.factor = c.rope.attn_factor = 1;
  if (s.gemma) {
    c.post_norms = c.gelu = true;
    c.norm_offset = 0.25f;
    c.embed_scale = 8;
    c.attn_scale = 0.25f;
    c.window = 5;
    c.full_every = 2;
    c.window_rope = c.rope;
    c.window_rope->theta = 100;
  }
  return c;
}

ExecutorOptions Options() {
  ExecutorOptions o;
  o.max_tokens = 8;
  o.max_seqs = 2;
  o.max_context = 32;
  o.kv_dtype = ASSAY_F32;
  o.prompt_logprobs = true;
  return o;
}

std::unique_ptr<Decoder> MakeModel(const std::shared_ptr<Device>& device, Checkpoint* checkpoint, int rank, int ranks) {
  DTypeChoice dtypes;
  dtypes.name = "auto";
  dtypes.compute = dtypes.act = dtypes.kv = ASSAY_F32;
  DecoderOptions d;
  d.max_tokens = Options().max_tokens;
  d.max_logits = Options().max_tokens + Options().max_seqs;
  d.rank = rank;
  d.ranks = ranks;
  return std::make_unique<Decoder>(device, checkpoint, dtypes, d);
}

std::shared_ptr<Device> OpenCpu() {
  const DeviceChoice choice = ChooseDevice("cpu");
  return Device::Open(choice.backend, choice.index, 1);
}

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;  // of two prompts, then of the tokens generated after them
};

// Prompts that take several steps, then decode steps of both sequences.
Answer Run(Engine& engine) {
  Answer answer;
  for (int32_t i = 0; i < 2; ++i) {
    Request request;
    for (int32_t t = 0; t < 11; ++t) request.prompt.push_back((17 * t + 5 * i) % 173);
    request.max_new_tokens = 6;
    request.prompt_logprobs = true;
    request.top_logprobs = 0;
    EXPECT_TRUE(engine.Submit(std::move(request)).ok());
  }
  while (!engine.idle()) {
    const auto step = engine.Step();
    if (!step.ok()) throw Error(step.error());
  }
  for (const auto& s : engine.TakeFinished()) {
    answer.tokens.insert(answer.tokens.end(), s->tokens.begin(), s->tokens.end());
    answer.logprobs.insert(answer.logprobs.end(), s->prompt_logprobs.begin(), s->prompt_logprobs.end());
    for (const TokenLogprob& t : s->logprobs) answer.logprobs.push_back(t.logprob);
  }
  return answer;
}

Answer RunWhole(const Split& s, int64_t layers) {
  const auto checkpoint = MakeSynthetic(Config(s, layers), s.dtype);
  const auto device = OpenCpu();
  Engine engine(device, MakeModel(device, checkpoint.get(), 0, 1), Options());
  return Run(engine);
}

Answer RunSplit(const Split& s, int64_t layers) {
  const auto members = MakeThreadGroup(s.ranks);
  Answer answer;
  const auto rank = [&](int r) {
    const auto checkpoint = MakeSynthetic(Config(s, layers), s.dtype);
    const auto device = OpenCpu();
    const auto comm = std::make_shared<Communicator>(device, members[r]);
    if (r == 0) {
      Engine engine(device, MakeModel(device, checkpoint.get(), r, s.ranks), Options(), comm);
      answer = Run(engine);
      members[r]->Send(MessageKind::kEnd);
    } else {
      Executor executor(device, MakeModel(device, checkpoint.get(), r, s.ranks), Options(), comm);
      for (Message m = members[r]->Receive(); m.kind != MessageKind::kEnd; m = members[r]->Receive()) {
        executor.Follow(m);
      }
    }
    EXPECT_TRUE(members[r]->Leave());
  };
  std::vector<std::jthread> threads;
  for (int r = 1; r < s.ranks; ++r) threads.emplace_back(rank, r);
  rank(0);
  return answer;
}

class SplitModel : public testing::TestWithParam<Split> {};

// The residual stream after every layer, through the head of a model that ends there.
TEST_P(SplitModel, EveryLayerAndEveryStepAsTheWhole) {
  for (int64_t layers = 1; layers <= 3; ++layers) {
    const Answer whole = RunWhole(GetParam(), layers), split = RunSplit(GetParam(), layers);
    EXPECT_EQ(split.tokens, whole.tokens) << layers << " layers";
    ASSERT_EQ(split.logprobs.size(), whole.logprobs.size());
    for (size_t i = 0; i < whole.logprobs.size(); ++i) {
      EXPECT_NEAR(split.logprobs[i], whole.logprobs[i], 2e-5) << layers << " layers, log-probability " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Splits, SplitModel,
                         testing::Values(Split{"Even", 4, 2, 2, ASSAY_BF16, false},
                                         Split{"OneKvHeadMoreOnTheFirst", 6, 3, 2, ASSAY_F32, true},
                                         Split{"OneKvHeadForTwo", 4, 1, 2, ASSAY_F16, true},
                                         Split{"TwoKvHeadsForFour", 8, 2, 4, ASSAY_Q8_0, false},
                                         Split{"Blocks", 4, 4, 2, ASSAY_Q4_1, true},
                                         Split{"Gemma", 4, 1, 2, ASSAY_BF16, true, true}),
                         [](const auto& info) { return info.param.name; });

TEST(SplitModel, AllRanksTogetherReadWhatTheWholeReads) {
  const Split s{"", 4, 2, 2, ASSAY_F32, false};
  const auto checkpoint = MakeSynthetic(Config(s, 2), s.dtype);
  const auto device = OpenCpu();
  const auto whole = MakeModel(device, checkpoint.get(), 0, 1), first = MakeModel(device, checkpoint.get(), 0, 2),
             second = MakeModel(device, checkpoint.get(), 1, 2);
  const double bytes = static_cast<double>(whole->shape().step_weight_bytes);
  // Packing pads: each rank's rows to whole panels.
  EXPECT_NEAR(static_cast<double>(first->shape().step_weight_bytes) / bytes, 1, 0.1);
  EXPECT_EQ(first->shape().step_weight_bytes, second->shape().step_weight_bytes);
  EXPECT_EQ(first->shape().flops_per_token, whole->shape().flops_per_token);
  EXPECT_EQ(first->shape().cache_kv_heads, 1);
  EXPECT_EQ(first->shape().kv_heads, 2);
}

std::string WhyNot(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Shard, EveryRowHasOneRank) {
  for (const auto& [heads, kv_heads, ranks] : {std::tuple(9, 3, 2), std::tuple(32, 8, 4), std::tuple(7, 7, 4)}) {
    const ModelConfig c = Config({"", heads, kv_heads, ranks, ASSAY_F32, false}, 1);
    int64_t kv = 0, q = 0, ffn = 0, vocab = 0;
    for (int r = 0; r < ranks; ++r) {
      const Shard s = ShardOf(c, r, ranks);
      EXPECT_EQ(s.kv_heads.begin, kv);
      EXPECT_EQ(s.heads.begin, q);
      EXPECT_EQ(s.ffn.begin, ffn);
      EXPECT_EQ(s.vocab.begin, vocab);
      EXPECT_LE(s.kv_heads.count, ShardOf(c, 0, ranks).kv_heads.count) << "the leader's part is the largest";
      EXPECT_GE(s.kv_heads.count, kv_heads / ranks);
      kv += s.kv_heads.count, q += s.heads.count, ffn += s.ffn.count, vocab += s.vocab.count;
    }
    EXPECT_EQ(kv, kv_heads);
    EXPECT_EQ(q, heads);
    EXPECT_EQ(ffn, c.ffn);
    EXPECT_EQ(vocab, c.vocab);
  }
}

TEST(Shard, SaysWhatCannotBeSplit) {
  const auto why = [](int64_t heads, int64_t kv_heads, int ranks) {
    return WhyNot([&] { ShardOf(Config({"", heads, kv_heads, ranks, ASSAY_F32, false}, 1), 0, ranks); });
  };
  EXPECT_NE(why(3, 1, 2).find("3 heads in 1 groups"), std::string::npos);
  EXPECT_NE(why(4, 2, 3).find("4 heads in 2 groups"), std::string::npos);
  EXPECT_NE(why(9, 3, 3).find("128 columns in its MLP"), std::string::npos);
}

TEST(Shard, RefusesPartsThatCutABlock) {
  ModelConfig c = Config({"", 4, 2, 2, ASSAY_Q8_0, false}, 1);
  c.ffn = 96;  // 48 for each, of blocks of 32
  const auto checkpoint = MakeSynthetic(c, ASSAY_Q8_0);
  const std::string why = WhyNot([&] { MakeModel(OpenCpu(), checkpoint.get(), 1, 2); });
  EXPECT_NE(why.find("down_proj"), std::string::npos) << why;
  EXPECT_NE(why.find("elements 0 to 48"), std::string::npos) << why;
}

}  // namespace
}  // namespace assay
