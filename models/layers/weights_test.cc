// SPDX-License-Identifier: Apache-2.0
#include "models/layers/weights.h"

#include <gtest/gtest.h>

#include "models/format/synthetic.h"

namespace assay {
namespace {

assay_device_info DeviceWith(std::initializer_list<assay_dtype> weights) {
  assay_device_info info{};
  std::snprintf(info.id, sizeof(info.id), "card");
  info.act_dtypes[0] = ASSAY_BF16;
  std::copy(weights.begin(), weights.end(), info.weight_dtypes);
  return info;
}

std::string ErrorOf(const std::string& name, const assay_device_info& info) {
  try {
    ChooseDTypes(name, info);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(ChooseDTypes, Int4IsWhatTheDeviceHas) {
  const DTypeChoice groups =
      ChooseDTypes("int4", DeviceWith({ASSAY_BF16, ASSAY_Q8_0, ASSAY_Q4_0, ASSAY_F8_B128, ASSAY_I4_G128}));
  EXPECT_EQ(groups.linear, ASSAY_I4_G128);
  EXPECT_EQ(groups.embed, ASSAY_BF16);
  const DTypeChoice blocks = ChooseDTypes("int4", DeviceWith({ASSAY_BF16, ASSAY_Q8_0, ASSAY_Q4_0}));
  EXPECT_EQ(blocks.linear, ASSAY_Q4_0);
  EXPECT_EQ(blocks.embed, ASSAY_Q8_0);
  EXPECT_EQ(ErrorOf("int4", DeviceWith({ASSAY_BF16, ASSAY_F16})),
            "--dtype int4: device card has no kernels for q4_0 weights; it has bf16, f16");
}

TEST(ChooseDTypes, Fp8KeepsEmbeddingAndHeadIn16Bits) {
  const DTypeChoice choice = ChooseDTypes("fp8", DeviceWith({ASSAY_F16, ASSAY_BF16, ASSAY_F8_B128}));
  EXPECT_EQ(choice.linear, ASSAY_F8_B128);
  EXPECT_EQ(choice.embed, ASSAY_BF16);
  EXPECT_EQ(choice.act, ASSAY_BF16);
  EXPECT_EQ(ChooseDTypes("fp8", DeviceWith({ASSAY_F16, ASSAY_F8_B128})).embed, ASSAY_F16);
  EXPECT_EQ(ErrorOf("fp8", DeviceWith({ASSAY_BF16, ASSAY_Q4_0})),
            "--dtype fp8: device card has no kernels for f8_b128 weights; it has bf16, q4_0");
}

// The 16-bit head of a small model takes more bytes than its 4-bit layers, but most weights are those of the layers.
TEST(WeightLoader, MainDTypeIsThatOfMostWeights) {
  const DeviceChoice reference = ChooseDevice("ref");
  const auto device = Device::Open(reference.backend, reference.index, 1);
  const DTypeChoice int4 = ChooseDTypes("int4", device->info());
  const auto checkpoint = OpenSynthetic("qwen2.5-0.5b", int4.linear);
  WeightLoader loader(device, checkpoint.get(), int4, ShardOf(checkpoint->config()));
  ASSERT_GT(loader.OuterBytes(), loader.TotalBytes() - loader.OuterBytes());
  EXPECT_EQ(loader.MainDType(), ASSAY_I4_G128);
}

// The CPU device has no kernels for groups of 128.
TEST(WeightLoader, UnpacksBlocksThatTheDeviceLacksAndSaysSo) {
  const DeviceChoice cpu = ChooseDevice("cpu");
  const auto device = Device::Open(cpu.backend, cpu.index, 1);
  const auto checkpoint = OpenSynthetic("qwen2.5-0.5b", ASSAY_I4_G128);
  const Shard whole = ShardOf(checkpoint->config());
  WeightLoader kept(device, checkpoint.get(), ChooseDTypes("auto", device->info()), whole);
  EXPECT_EQ(kept.Conversion(),
            "device cpu has no kernels for i4_g128 weights: they are kept as f16, 942 MiB for the file's 250 MiB");
  EXPECT_EQ(kept.MainDType(), ASSAY_F16);
  EXPECT_EQ(kept.LoadLayer(0, {}).qkv.parts.at(0).w.dtype, ASSAY_F16);
  WeightLoader asked(device, checkpoint.get(), ChooseDTypes("int8", device->info()), whole);
  EXPECT_EQ(asked.Conversion(), "");
  const auto plain = OpenSynthetic("qwen2.5-0.5b", ASSAY_Q4_0);
  EXPECT_EQ(WeightLoader(device, plain.get(), ChooseDTypes("auto", device->info()), whole).Conversion(), "");
}

}  // namespace
}  // namespace assay
