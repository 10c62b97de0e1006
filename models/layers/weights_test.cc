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

std::string ErrorOf(const std::string& name, const assay_device_info& info, const std::string& kv = "auto") {
  try {
    ChooseDTypes(name, kv, info);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(ChooseDTypes, Int4IsWhatTheDeviceHas) {
  const DTypeChoice groups =
      ChooseDTypes("int4", "auto", DeviceWith({ASSAY_BF16, ASSAY_Q8_0, ASSAY_Q4_0, ASSAY_F8_B128, ASSAY_I4_G128}));
  EXPECT_EQ(groups.linear, ASSAY_I4_G128);
  EXPECT_EQ(groups.embed, ASSAY_BF16);
  const DTypeChoice blocks = ChooseDTypes("int4", "auto", DeviceWith({ASSAY_BF16, ASSAY_Q8_0, ASSAY_Q4_0}));
  EXPECT_EQ(blocks.linear, ASSAY_Q4_0);
  EXPECT_EQ(blocks.embed, ASSAY_Q8_0);
  EXPECT_EQ(ErrorOf("int4", DeviceWith({ASSAY_BF16, ASSAY_F16})),
            "--dtype int4: device card has no kernels for q4_0 weights; it has bf16, f16");
}

TEST(ChooseDTypes, Fp8KeepsEmbeddingAndHeadIn16Bits) {
  const DTypeChoice choice = ChooseDTypes("fp8", "auto", DeviceWith({ASSAY_F16, ASSAY_BF16, ASSAY_F8_B128}));
  EXPECT_EQ(choice.linear, ASSAY_F8_B128);
  EXPECT_EQ(choice.embed, ASSAY_BF16);
  EXPECT_EQ(choice.act, ASSAY_BF16);
  EXPECT_EQ(ChooseDTypes("fp8", "auto", DeviceWith({ASSAY_F16, ASSAY_F8_B128})).embed, ASSAY_F16);
  EXPECT_EQ(ErrorOf("fp8", DeviceWith({ASSAY_BF16, ASSAY_Q4_0})),
            "--dtype fp8: device card has no kernels for f8_b128 weights; it has bf16, q4_0");
}

TEST(ChooseDTypes, TheCacheIsWhatTheDevicePrefersUnlessNamed) {
  assay_device_info info = DeviceWith({ASSAY_BF16, ASSAY_F32});
  for (const assay_dtype d : {ASSAY_F32, ASSAY_BF16}) {
    std::fill(std::begin(info.kv_dtypes), std::end(info.kv_dtypes), ASSAY_DTYPE_NONE);
    info.kv_dtypes[0] = d;
    info.kv_dtypes[1] = ASSAY_F8_E4M3;
    EXPECT_EQ(ChooseDTypes("bf16", "auto", info).kv, d);
    EXPECT_EQ(ChooseDTypes("bf16", "fp8", info).kv, ASSAY_F8_E4M3);
  }
  info.act_dtypes[1] = ASSAY_F32;
  EXPECT_EQ(ErrorOf("f32", info),
            "--dtype f32: device card has no kernels for a KV cache in f32; it has bf16, f8_e4m3");
  EXPECT_EQ(ChooseDTypes("f32", "fp8", info).kv, ASSAY_F8_E4M3);
  EXPECT_EQ(ErrorOf("bf16", info, "f16"),
            "--kv-dtype f16: device card has no kernels for a KV cache in f16; it has bf16, f8_e4m3");
}

TEST(ChooseDTypes, ScalesPerRowKeepEmbeddingAndHeadIn16Bits) {
  const DTypeChoice choice = ChooseDTypes("i8", "auto", DeviceWith({ASSAY_BF16, ASSAY_I8, ASSAY_Q8_0}));
  EXPECT_EQ(choice.linear, ASSAY_I8);
  EXPECT_EQ(choice.embed, ASSAY_BF16);
  EXPECT_EQ(ErrorOf("f8_e4m3", DeviceWith({ASSAY_BF16, ASSAY_I8})),
            "--dtype f8_e4m3: device card has no kernels for f8_e4m3 weights; it has bf16, i8");
}

// The 16-bit head of a small model takes more bytes than its 4-bit layers, but most weights are those of the layers.
TEST(WeightLoader, MainDTypeIsThatOfMostWeights) {
  const DeviceChoice reference = ChooseDevice("ref");
  const auto device = Device::Open(reference.backend, reference.index, 1);
  const DTypeChoice int4 = ChooseDTypes("int4", "auto", device->info());
  const auto checkpoint = OpenSynthetic("qwen2.5-0.5b", int4.linear);
  WeightLoader loader(device, checkpoint.get(), int4, ShardOf(checkpoint->config()));
  ASSERT_GT(loader.OuterBytes(), loader.TotalBytes() - loader.OuterBytes());
  EXPECT_EQ(loader.MainDType(), ASSAY_I4_G128);
}

}  // namespace
}  // namespace assay
