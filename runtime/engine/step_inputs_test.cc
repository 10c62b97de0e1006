// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/step_inputs.h"

#include <gtest/gtest.h>

#include "runtime/engine/executor.h"

namespace assay {
namespace {

constexpr int32_t kBlockSize = 4;

std::shared_ptr<Device> OpenCpu() {
  const DeviceChoice choice = ChooseDevice("cpu");
  return Device::Open(choice.backend, choice.index, 1);
}

std::vector<int32_t> Fetch(const std::shared_ptr<Device>& device, const Tensor& t) {
  void* base = nullptr;
  assay_message msg{};
  msg.struct_size = sizeof(msg);
  EXPECT_EQ(device->table().buffer_map(t.buffer, &base, &msg), ASSAY_OK);
  const auto* p = reinterpret_cast<const int32_t*>(static_cast<const uint8_t*>(base) + t.offset);
  return {p, p + t.shape[0] * (t.ndim > 1 ? t.shape[1] : 1)};
}

Sequence MakeSequence(std::vector<int32_t> tokens, int64_t prompt, std::vector<int32_t> blocks) {
  Sequence s;
  s.request.prompt.assign(tokens.begin(), tokens.begin() + prompt);
  s.request.max_new_tokens = 8;
  s.tokens = std::move(tokens);
  s.block_table = std::move(blocks);
  return s;
}

TEST(StepInputs, StagesARaggedBatchOfPromptAndDecode) {
  const auto device = OpenCpu();
  StepInputs inputs(device, {16, 4, 4, 3});
  Sequence a = MakeSequence({10, 11, 12, 13, 14}, 5, {7, 2});      // a whole prompt
  Sequence b = MakeSequence({20, 21, 22, 23, 24, 25}, 4, {1, 5});  // a decode step
  Sequence c = MakeSequence({30, 31, 32, 33}, 4, {3});             // the first part of a prompt: nothing is sampled
  b.request.sampling.temperature = 0.5f;
  const std::vector<StepItem> items = {{&a, 0, 5, true}, {&b, 5, 1, true}, {&c, 0, 2, false}};
  const auto fill = inputs.Stage(items, kBlockSize, 0);
  EXPECT_EQ(fill.tokens, 8);
  EXPECT_EQ(fill.seqs, 3);
  EXPECT_EQ(fill.samples, 2);
  EXPECT_EQ(fill.sample_of_item, (std::vector<int32_t>{0, 1, -1}));

  Stream stream(device);
  inputs.Upload(stream);
  stream.Synchronize();
  const StepTensors t = inputs.Tensors(fill.tokens, fill.seqs, fill.samples);
  EXPECT_EQ(Fetch(device, t.ids), (std::vector<int32_t>{10, 11, 12, 13, 14, 25, 30, 31}));
  EXPECT_EQ(Fetch(device, t.positions), (std::vector<int32_t>{0, 1, 2, 3, 4, 5, 0, 1}));
  EXPECT_EQ(Fetch(device, t.slots), (std::vector<int32_t>{28, 29, 30, 31, 8, 21, 12, 13}));
  EXPECT_EQ(Fetch(device, t.q_offsets), (std::vector<int32_t>{0, 5, 6, 8}));
  EXPECT_EQ(Fetch(device, t.kv_lens), (std::vector<int32_t>{5, 6, 2}));
  EXPECT_EQ(Fetch(device, t.logit_rows), (std::vector<int32_t>{4, 5}));
}

TEST(StepInputs, PadsADecodeBucketWithTokensThatTouchNothing) {
  const auto device = OpenCpu();
  StepInputs inputs(device, {8, 8, 8, 2});
  Sequence a = MakeSequence({1, 2, 3}, 2, {0});
  const auto fill = inputs.Stage(std::vector<StepItem>{{&a, 2, 1, true}}, kBlockSize, 3);
  EXPECT_EQ(fill.tokens, 3);
  EXPECT_EQ(fill.seqs, 3);
  EXPECT_EQ(fill.samples, 1);
  Stream stream(device);
  inputs.Upload(stream);
  stream.Synchronize();
  const StepTensors t = inputs.Tensors(3, 3, 3);
  EXPECT_EQ(Fetch(device, t.slots), (std::vector<int32_t>{2, -1, -1}));
  EXPECT_EQ(Fetch(device, t.kv_lens), (std::vector<int32_t>{3, 0, 0}));
  EXPECT_EQ(Fetch(device, t.q_offsets), (std::vector<int32_t>{0, 1, 1, 1}));
  EXPECT_EQ(Fetch(device, t.logit_rows), (std::vector<int32_t>{0, -1, -1}));
}

TEST(StepInputs, AsksForARowPerPromptTokenWithASuccessor) {
  const auto device = OpenCpu();
  StepInputs inputs(device, {8, 1, 9, 2});
  Sequence a = MakeSequence({1, 2, 3, 4, 5}, 5, {0, 1});
  a.request.prompt_logprobs = true;
  a.request.max_new_tokens = 0;
  const auto fill = inputs.Stage(std::vector<StepItem>{{&a, 2, 3, false}}, kBlockSize, 0);
  EXPECT_EQ(fill.samples, 0);
  EXPECT_EQ(fill.prompt_rows, 2);  // of tokens 3 and 4; the last has no successor
  Stream stream(device);
  inputs.Upload(stream);
  stream.Synchronize();
  EXPECT_EQ(Fetch(device, inputs.Tensors(3, 1, 2).logit_rows), (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(Fetch(device, inputs.Targets(0, 2)), (std::vector<int32_t>{4, 5}));
}

// A token that the step before is still sampling is taken from that step's samples, the others from the host.
TEST(StepInputs, TakesIdsFromTheStepBefore) {
  const auto device = OpenCpu();
  StepInputs inputs(device, {8, 8, 8, 2});
  Sequence a = MakeSequence({1, 2, kTokenInFlight}, 2, {0}), b = MakeSequence({3, 4, 55}, 2, {1});
  a.sample_row = 3;
  inputs.Stage(std::vector<StepItem>{{&a, 2, 1, true}, {&b, 2, 1, true}}, kBlockSize, 3);
  Stream stream(device);
  const Buffer samples(device, 32, false);
  const std::vector<int32_t> sampled = {90, 91, 92, 93, 94, 95, 96, 97};
  stream.Upload(samples, 0, sampled.data(), 32);
  stream.Copy(inputs.Samples(), MakeTensor(samples.handle(), 0, ASSAY_I32, {8}), 32);
  inputs.Upload(stream);
  Ops ops(device, &stream);
  const auto t = inputs.Ids(3);
  ops.GatherRows(t.words, t.index, t.ids);
  stream.Synchronize();
  EXPECT_EQ(Fetch(device, inputs.Tensors(3, 3, 3).ids), (std::vector<int32_t>{93, 55, 0}));
}

TEST(DecodeBucket, IsExactForSmallBatchesAndAMultipleOfEightAbove) {
  for (int64_t n = 1; n <= 8; ++n) EXPECT_EQ(DecodeBucket(n, 64), n);
  EXPECT_EQ(DecodeBucket(9, 64), 16);
  EXPECT_EQ(DecodeBucket(16, 64), 16);
  EXPECT_EQ(DecodeBucket(9, 10), 10);  // never beyond the capacity
}

}  // namespace
}  // namespace assay
