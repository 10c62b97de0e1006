// SPDX-License-Identifier: Apache-2.0
#include "bench/claims/cards.h"

#include <gtest/gtest.h>

#include <set>

#include "runtime/core/error.h"

namespace assay::bench {
namespace {

constexpr uint64_t kMiB = 1024 * 1024;

template <class F>
std::string ErrorOf(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Cards, EveryFigureSaysWhereItComesFrom) {
  int known = 0;
  std::set<std::string> ids;
  for (const Card& card : Cards()) {
    EXPECT_TRUE(ids.insert(card.id).second) << card.id;
    EXPECT_EQ(card.id.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-"), std::string::npos) << card.id;
    EXPECT_FALSE(card.vendor.empty() || card.match.empty()) << card.id;
    for (const auto& [key, figure] : card.figures) {
      if (!figure.value && !figure.unsupported) {
        EXPECT_FALSE(figure.note.empty()) << card.id << " " << key << ": an unknown figure is there for its note only";
        continue;
      }
      ++known;
      EXPECT_FALSE(figure.source.empty() || figure.confidence.empty()) << card.id << " " << key;
      EXPECT_FALSE(figure.value && figure.unsupported) << card.id << " " << key;
    }
    EXPECT_EQ(card.process.empty(), card.process_origin.source.empty()) << card.id;
  }
  EXPECT_EQ(ids.size(), 47u);
  EXPECT_GT(known, 350);
}

TEST(Cards, HaveTheCardsOfTheMarket) {
  for (const char* id : {"a100-80g-sxm",
                         "a800-80g-sxm",
                         "h100-sxm",
                         "h800-sxm",
                         "h200-sxm",
                         "h20-96g",
                         "h20-141g",
                         "b200",
                         "b300",
                         "gb200",
                         "gb300",
                         "rtx4090",
                         "rtx5090",
                         "ascend-910b1",
                         "ascend-910b2",
                         "ascend-910b3",
                         "ascend-910b4-32g",
                         "ascend-910b4-64g",
                         "ascend-910c",
                         "kunlun-p800",
                         "dcu-k100-ai",
                         "dcu-bw1000",
                         "mlu370-x8",
                         "mlu590"}) {
    EXPECT_EQ(FindCard(id).id, id);
  }
}

TEST(Cards, AreInSiUnitsAndDense) {
  const Card& h100 = FindCard("h100-sxm");
  EXPECT_EQ(*h100.Find("bf16")->value, 989e12);
  EXPECT_EQ(*h100.Find("bytes_per_s")->value, 3350e9);
  EXPECT_EQ(*h100.Find("memory_bytes")->value, 80 * 1024.0 * 1024 * 1024);
  EXPECT_EQ(*h100.Find("tdp_w")->value, 700);
  EXPECT_EQ(h100.Find("no such key"), nullptr);
  EXPECT_TRUE(FindCard("a100-80g-sxm").Find("fp8")->unsupported);
  EXPECT_FALSE(FindCard("mtt-s5000").Find("fp16")->value) << "nobody has published it";
  EXPECT_EQ(FindCard("mtt-s5000").Find("fp8")->date, "2026-02-12");
  // A sparse peak that slipped in would be four times FP16.
  for (const Card& card : Cards()) {
    const Figure *fp16 = card.Find("fp16"), *fp8 = card.Find("fp8");
    if (fp16 && fp8 && fp16->value && fp8->value) {
      EXPECT_LT(DenseValue(*fp8), 2.1 * DenseValue(*fp16)) << card.id;
    }
  }
  Figure sparse;
  sparse.value = 1979e12;
  sparse.sparse = true;
  EXPECT_EQ(DenseValue(sparse), 989.5e12);
}

TEST(Cards, AreFoundByIdAndByWords) {
  EXPECT_EQ(FindCard("H100").id, "h100-sxm");
  EXPECT_EQ(FindCard("A100 SXM").id, "a100-80g-sxm");
  EXPECT_EQ(FindCard("RTX 4090").id, "rtx4090") << "and not the 4090 D";
  EXPECT_EQ(FindCard("nvidia geforce rtx-4090 d").id, "rtx4090d");
  EXPECT_EQ(FindCard("910B3").id, "ascend-910b3");
  EXPECT_EQ(FindCard("MTT S4000").id, "mtt-s4000");
  const auto error = [](const char* name) { return ErrorOf([&] { FindCard(name); }); };
  EXPECT_NE(error("H20").find("h20-141g, h20-96g"), std::string::npos) << error("H20");
  EXPECT_NE(error("L40").find("near: l40s"), std::string::npos) << error("L40");
  EXPECT_NE(error("mi300").find("mi300x"), std::string::npos) << error("mi300");
  EXPECT_NE(error("h100 pcie").find("no card is called"), std::string::npos) << error("h100 pcie");
  EXPECT_EQ(error("qwertyuiop").find("near"), std::string::npos) << error("qwertyuiop");
  EXPECT_NE(error(" -").find("no name"), std::string::npos) << error(" -");
}

TEST(Cards, AreRecognisedByTheNamesOfDrivers) {
  const struct {
    const char* name;
    uint64_t mib;
    const char* id;  // nullptr: no card of the database
  } devices[] = {{"NVIDIA H100 80GB HBM3", 81559, "h100-sxm"},
                 {"NVIDIA H100 PCIe", 81559, nullptr},
                 {"NVIDIA H100 NVL", 95830, nullptr},
                 {"NVIDIA GH200 480GB", 97871, nullptr},
                 {"NVIDIA A100-SXM4-80GB", 81920, "a100-80g-sxm"},
                 {"NVIDIA A100-SXM4-40GB", 40960, nullptr},
                 {"NVIDIA A100 80GB PCIe", 81920, nullptr},
                 {"NVIDIA A800-SXM4-80GB", 81920, "a800-80g-sxm"},
                 {"NVIDIA H800", 81559, "h800-sxm"},
                 {"NVIDIA H800 PCIe", 81559, nullptr},
                 {"NVIDIA H200", 143771, "h200-sxm"},
                 {"NVIDIA H200 NVL", 143771, nullptr},
                 {"NVIDIA H20", 97871, "h20-96g"},
                 {"NVIDIA H20", 144000, "h20-141g"},
                 {"NVIDIA H20-3e", 0, "h20-141g"},
                 {"NVIDIA B200", 183359, "b200"},
                 {"NVIDIA GB200", 189471, "gb200"},
                 {"NVIDIA B300 SXM6 AC", 275040, "b300"},
                 {"NVIDIA GB300", 284208, "gb300"},
                 {"NVIDIA GeForce RTX 4090", 24564, "rtx4090"},
                 {"NVIDIA GeForce RTX 4090 D", 24564, "rtx4090d"},
                 {"NVIDIA GeForce RTX 4090 Laptop GPU", 16376, nullptr},
                 {"NVIDIA GeForce RTX 5090", 32607, "rtx5090"},
                 {"NVIDIA L40S", 46068, "l40s"},
                 {"NVIDIA L40", 46068, nullptr},
                 {"910B3", 65536, "ascend-910b3"},
                 {"Ascend910B2", 65536, "ascend-910b2"},
                 {"910B4", 32768, "ascend-910b4-32g"},
                 {"910B4-1", 65536, "ascend-910b4-64g"},
                 {"Ascend910_9392", 65536, "ascend-910c"},
                 {"310P3", 44278, "atlas-300i-duo"},
                 {"MTT S4000", 49152, "mtt-s4000"},
                 {"MTT S5000", 81920, "mtt-s5000"},
                 {"MetaX C500", 65536, "metax-c500"},
                 {"MXC550", 65536, "metax-c550"},
                 {"K100_AI", 65520, "dcu-k100-ai"},
                 {"K100", 65520, "dcu-k100"},
                 {"BW200, UBB BW1000", 65520, "dcu-bw1000"},
                 {"MLU370-X8", 23374, "mlu370-x8"},
                 {"MLU590-M9DG", 81920, "mlu590"},
                 {"Iluvatar BI-V150", 32768, "bi-v150"},
                 {"Iluvatar BI-V150S", 32768, nullptr},
                 {"BI-V100", 32768, "bi-v100"},
                 {"P800 OAM", 98304, "kunlun-p800"},
                 {"R300", 32768, "kunlun-r200"},
                 {"Biren106M", 32512, "biren-br106"},
                 {"S60", 42976, "enflame-s60"},
                 {"S60G", 42976, nullptr},
                 {"HL-325L", 131072, "gaudi3"},
                 {"AMD Instinct MI300X", 196592, "mi300x"},
                 {"AMD EPYC 9654 96-Core Processor", 0, nullptr}};
  for (const auto& device : devices) {
    const CardMatch match = DetectCard(device.name, device.mib * kMiB);
    EXPECT_EQ(match.card ? match.card->id : "none", device.id ? device.id : "none") << device.name << ": " << match.why;
    EXPECT_EQ(match.sure, device.id != nullptr) << device.name << ": " << match.why;
  }
}

TEST(Cards, DoubtIsSaid) {
  const CardMatch h20 = DetectCard("NVIDIA H20", 0);
  EXPECT_EQ(h20.card, nullptr);
  EXPECT_EQ(h20.why, "named 'NVIDIA H20', which may be any of h20-141g, h20-96g");
  const CardMatch ascend = DetectCard("Ascend910", 65536 * kMiB);
  EXPECT_EQ(ascend.card, nullptr);
  EXPECT_FALSE(ascend.sure);
  EXPECT_EQ(ascend.candidates.size(), 5u) << ascend.why;  // not the 910B4 with 32 GB
  EXPECT_EQ(DetectCard("910B4", 0).candidates.size(), 2u);
  const CardMatch slice = DetectCard("NVIDIA H100 80GB HBM3", 9856 * kMiB);
  ASSERT_NE(slice.card, nullptr);
  EXPECT_FALSE(slice.sure);
  EXPECT_NE(slice.why.find("with 10 GB"), std::string::npos) << slice.why;
  EXPECT_NE(DetectCard("MLU370-X8", 23374 * kMiB).why.find("one of the 2 devices"), std::string::npos);
  const CardMatch whole = DetectCard("Iluvatar BI-V150", 65536 * kMiB);  // one of its two devices shows half of that
  EXPECT_FALSE(whole.sure);
  EXPECT_NE(whole.why.find("another variant"), std::string::npos) << whole.why;
  EXPECT_FALSE(DetectCard("Ascend910", 131072 * kMiB).sure);  // only the 910B1 is left, whose memory nobody knows
  EXPECT_NE(DetectCard("Toaster", 0).why.find("no card"), std::string::npos);
}

TEST(Cards, PeakOfADtype) {
  EXPECT_EQ(PeakKey(FindCard("h100-sxm"), ASSAY_BF16), "bf16");
  EXPECT_EQ(PeakKey(FindCard("h100-sxm"), ASSAY_Q4_1), "fp16");
  EXPECT_EQ(PeakKey(FindCard("biren-br104"), ASSAY_Q4_1), "bf16") << "its FP16 peak is not known";
  EXPECT_EQ(PeakKey(FindCard("a100-80g-sxm"), ASSAY_F8_E4M3), "bf16") << "it has no FP8";
  EXPECT_EQ(PeakKey(FindCard("h100-sxm"), ASSAY_F8_B128), "fp8");
  EXPECT_EQ(PeakKey(FindCard("a100-80g-sxm"), ASSAY_F8_B128), "bf16") << "it has no FP8";
  EXPECT_EQ(PeakKey(FindCard("h100-sxm"), ASSAY_I4_G128), "fp16") << "only weights are 4-bit";
  EXPECT_EQ(PeakKey(FindCard("atlas-300i-duo"), ASSAY_BF16), "fp32") << "it has no BF16";
  EXPECT_EQ(PeakKey(FindCard("dcu-k100"), ASSAY_BF16), "bf16") << "not known is not unsupported";
  EXPECT_EQ(PeakKey(FindCard("h100-sxm"), ASSAY_F32), "fp32");
  EXPECT_EQ(PeakKey(FindCard("h100-sxm"), ASSAY_I8), "int8");
}

TEST(Cards, MistakesInAFileAreNamed) {
  const std::string head =
      "vendor = \"V\"\n[sources]\ns = { text = \"a page\", date = \"2025\" }\n[[card]]\nid = \"x\"\n";
  const auto error = [&](const std::string& rest) { return ErrorOf([&] { ParseCards("v", head + rest); }); };
  const std::string name = "name = \"X\"\n";
  const std::string good = name + "tdp_w = { value = 300, source = \"s\", confidence = \"press\", sparse = true }";
  EXPECT_EQ(error(good), "no error");
  const Figure figure = *ParseCards("v", head + good)[0].Find("tdp_w");
  EXPECT_EQ(figure.source + "|" + figure.date + "|" + figure.confidence, "a page|2025|press");
  EXPECT_TRUE(figure.sparse);
  const std::pair<std::string, const char*> bad[] = {
      {"", "card file v, card x: \"name\" must be a text"},
      {name, "card file v: no figure uses the source \"s\""},
      {name + "tdp_w = { value = 300, source = \"s\" }", "card file v, card x, tdp_w: \"confidence\" must be a text"},
      {name + "tdp_w = { value = 300, confidence = \"press\" }",
       "card file v, card x, tdp_w: \"source\" must be a text"},
      {name + "tdp_w = { value = 300, source = \"t\", confidence = \"press\" }", "there is no source \"t\""},
      {name + "tdp_w = { value = 300, source = \"s\", confidence = \"sure\" }",
       "confidence \"sure\" is none of: vendor"},
      {name + "tdp_w = { value = 300e3, source = \"s\", confidence = \"press\" }", "is not between"},
      {name + "tdp_w = { value = nan, source = \"s\", confidence = \"press\" }", "is not between"},
      {name + "tdp_w = { value = \"many\", source = \"s\", confidence = \"press\" }", "must be a number, \"none\" or"},
      {name + "tdp_w = { value = 300, sorce = \"s\", confidence = \"press\" }", "unknown field \"sorce\""},
      {name + "tdp = 300", "unknown field \"tdp\""},
      {name + "tdp_w = 300", "must be a table"},
      {name + "claims = [3]", "\"claims\" must be a list of texts"},
      {name + "devices = 0", "\"devices\" must be between"},
      {"name = ", "card file v, line 6: "}};
  for (const auto& [rest, expected] : bad) {
    EXPECT_NE(error(rest).find(expected), std::string::npos) << rest << "\n" << error(rest);
  }
}

}  // namespace
}  // namespace assay::bench
