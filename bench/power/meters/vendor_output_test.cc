// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/vendor_output.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

namespace assay::bench {
namespace {

constexpr std::nullopt_t kAbsent = std::nullopt;

std::vector<CardPower> Parse(const std::string& text) {
  const auto cards = ParseCardPowers(text);
  EXPECT_TRUE(cards.ok()) << cards.error() << "\n" << text;
  return cards.ok() ? cards.value() : std::vector<CardPower>{};
}

std::string WhyNot(const std::string& text) {
  const auto cards = ParseCardPowers(text);
  return cards.ok() ? "it was accepted" : cards.error();
}

// ---- captured output

struct Expected {
  int index, chip;
  std::optional<double> watts, limit_w, temperature_c, clock_mhz;
};

struct Capture {
  std::string file;
  std::vector<Expected> cards;
};

const Capture kCaptures[] = {
    {"brsmi_UNVERIFIED.txt", {{0, 0, 250, kAbsent, 45, kAbsent}}},
    {"cnmon.txt", {{0, 0, 106, 250, 32, kAbsent}, {1, 0, 106, 250, 39, kAbsent}}},
    {"cnmon_mluxxx_550W.txt", {{0, 0, 105, 550, 35, kAbsent}, {1, 0, 100, 550, 34, kAbsent}}},
    {"efsmi_L300_S60G_table.txt", {{0, 0, 68, 300, 35, kAbsent}, {0, 0, kAbsent, kAbsent, 34, kAbsent}}},
    {"efsmi_S60_table.txt", {{0, 0, 105, 300, 39, kAbsent}}},
    {"efsmi_dmon.txt", {{0, 0, 101, kAbsent, 36, kAbsent}, {1, 0, 98, kAbsent, 37, kAbsent}}},
    {"efsmi_q_S60.txt", {{0, 0, 96, 300, 35, kAbsent}}},
    {"ht-smi_newlayout_metax_rebrand.txt", {{0, 0, 38, 350, 44, kAbsent}}},
    {"hy-smi_800W_busy.txt",
     {{0, 0, 511, 800, 55, kAbsent},
      {1, 0, 504, 800, 53, kAbsent},
      {2, 0, 481, 800, 57, kAbsent},
      {3, 0, 499, 800, 57, kAbsent}}},
    {"hy-smi_BW1000_real.txt", {{0, 0, 80, 1000, 50, kAbsent}, {1, 0, 89, 1000, 52, kAbsent}}},
    {"hy-smi_K100_dcu_oldformat.txt",
     {{0, 0, 96, 300, 53, kAbsent}, {1, 0, 96, 300, 53, kAbsent}, {2, 0, 95, 300, 54, kAbsent}}},
    {"hy-smi_json_keys.txt", {{0, 0, 75.5, kAbsent, 62, kAbsent}}},
    {"ixsmi_BI-V100_flagperf.txt",
     {{0, 0, 50, kAbsent, 26, kAbsent}, {1, 0, 51, kAbsent, 26, kAbsent}, {2, 0, 53, kAbsent, 26, kAbsent}}},
    {"ixsmi_BI-V150.txt", {{0, 0, kAbsent, kAbsent, 35, 1500}, {1, 0, 103, 350, 34, 1500}}},
    {"mthreads-gmi_q_json_S5000.txt", {{0, 0, 96.66, 950, 27, kAbsent}, {1, 0, 97.09, kAbsent, 26, kAbsent}}},
    {"mx-smi_C500.txt", {{0, 0, 48, 350, 45, kAbsent}}},
    {"mx-smi_C550.txt", {{0, 0, 53, 450, 29, kAbsent}, {1, 0, 53, 450, 29, kAbsent}}},
    {"npu-smi_info_910B3.txt", {{0, 0, 98.9, kAbsent, 38, kAbsent}, {1, 0, 101.0, kAbsent, 39, kAbsent}}},
    {"npu-smi_info_910B4.txt", {{0, 0, 88.2, kAbsent, 36, kAbsent}, {1, 0, 84.8, kAbsent, 36, kAbsent}}},
    {"npu-smi_info_A3_910C.txt",
     {{0, 0, 178.5, kAbsent, 36, kAbsent},
      {0, 1, kAbsent, kAbsent, 36, kAbsent},
      {1, 0, 188.2, kAbsent, 36, kAbsent},
      {1, 1, kAbsent, kAbsent, 35, kAbsent}}},
    {"npu-smi_info_t_common.txt", {{0, 0, 69.0, kAbsent, 46, 1000}}},
    {"npu-smi_info_t_usages_power_910B.txt", {{0, 0, 161.2, kAbsent, kAbsent, kAbsent}}},
    {"nvidia-smi_csv.txt",
     {{0, 0, 57, kAbsent, 31, kAbsent}, {1, 0, 54, kAbsent, 30, kAbsent}, {2, 0, 59, kAbsent, 30, kAbsent}}},
    {"xpu-smi_P800_table.txt", {{0, 0, 88, 400, 37, kAbsent}, {1, 0, 90, 400, 41, kAbsent}}},
    {"xpu-smi_q_P800_PCIe.txt", {{0, 0, 76, 350, 46, 1450}}},
    {"xpu_smi_R300_flagperf.txt",
     {{0, 0, 74, kAbsent, 37, kAbsent}, {1, 0, 114, kAbsent, 40, kAbsent}, {2, 0, 74, kAbsent, 34, kAbsent}}},
};

struct Refusal {
  std::string file, why;
};

const Refusal kRefusals[] = {
    {"mthreads-gmi_q_json_S4000_memspec.txt", "it lists one chip (MTT S4000), none with a power"},
    {"mthreads-gmi_table_S5000.txt", "no card with a power is in its output, which begins \""},
    {"npu-smi_info_310P3.txt",
     "it lists 2 chips (310P3), none with a power; a 310P does not report the power of its "
     "chips: the board's is read from its MCU"},
    {"npu-smi_source_note.txt", "no card with a power is in its output"},
};

class Captures : public testing::Test {
 protected:
  void SetUp() override {
    const char* shared = std::getenv("ASSAY_SHARED");
    if (!shared) GTEST_SKIP() << "ASSAY_SHARED is not set: the captured outputs of the tools are not here";
    folder_ = std::filesystem::path(shared) / "accelerators" / "smi_samples";
  }
  std::string Text(const std::string& file) const {
    std::ifstream stream(folder_ / file);
    EXPECT_TRUE(stream) << folder_ / file;
    std::stringstream text;
    text << stream.rdbuf();
    return text.str();
  }
  std::filesystem::path folder_;
};

TEST_F(Captures, AreReadAsAPersonReadsThem) {
  for (const Capture& capture : kCaptures) {
    SCOPED_TRACE(capture.file);
    const auto cards = Parse(Text(capture.file));
    ASSERT_EQ(cards.size(), capture.cards.size());
    for (size_t i = 0; i < cards.size(); ++i) {
      const CardPower& card = cards[i];
      const Expected& expected = capture.cards[i];
      EXPECT_EQ(card.index, expected.index);
      EXPECT_EQ(card.chip, expected.chip);
      EXPECT_EQ(card.watts, expected.watts);
      EXPECT_EQ(card.limit_w, expected.limit_w);
      EXPECT_EQ(card.temperature_c, expected.temperature_c);
      EXPECT_EQ(card.clock_mhz, expected.clock_mhz);
    }
  }
}

TEST_F(Captures, WithoutPowerAreRefused) {
  for (const Refusal& refusal : kRefusals) {
    EXPECT_EQ(WhyNot(Text(refusal.file)).find(refusal.why), 0u) << WhyNot(Text(refusal.file));
  }
}

TEST_F(Captures, AreAllCovered) {
  size_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder_)) ++files;
  EXPECT_EQ(files, std::size(kCaptures) + std::size(kRefusals));
}

// Whatever happens to an output, it is refused or read as powers that exist; it never ends the process.
void ExpectHarmless(const std::string& text) {
  const auto cards = ParseCardPowers(text);
  if (!cards.ok()) {
    EXPECT_EQ(cards.error().find('\n'), std::string::npos);
    return;
  }
  for (const CardPower& card : cards.value()) {
    EXPECT_TRUE(!card.watts || (std::isfinite(*card.watts) && *card.watts >= 0)) << text;
  }
}

TEST_F(Captures, CutOrChangedAreHarmless) {
  std::mt19937 random(1);
  const auto below = [&](size_t n) { return static_cast<size_t>(random()) % n; };
  constexpr std::string_view kOdd = "|/,:.-+=[]{}\"0W \n\0\xff\xc2";
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    const std::string text = Text(entry.path().filename());
    for (int i = 0; i < 20; ++i) {
      ExpectHarmless(text.substr(0, below(text.size())));
      ExpectHarmless(text.substr(below(text.size())));
      std::string changed = text;
      for (int k = 0; k < 8; ++k) changed[below(changed.size())] = kOdd[below(kOdd.size())];
      ExpectHarmless(changed);
    }
  }
}

// ---- odd cases

TEST(CardPowers, ColumnsAreFoundByTheirHeader) {
  const auto cards = Parse(
      "| Health | Temp(C)   Hugepages-Usage(page)   Power(W) | NPU   Name     |\n"
      "| Bus-Id | AICore(%) HBM-Usage(MB)                    | Chip           |\n"
      "|========|============================================|================|\n"
      "| OK     | 38        0    / 0                98.9     | 3     910B3    |\n"
      "| 00:C1  | 57        3382 / 65536                     | 0              |\n"
      "+--------+--------------------------------------------+----------------+\n"
      "| OK     | 39        0    / 0                1101.5   | 7     910B3    |\n"
      "| 00:C2  | 99        3594 / 65536                     | 1              |\n");
  ASSERT_EQ(cards.size(), 2u);
  EXPECT_EQ(cards[0].index, 3);
  EXPECT_EQ(cards[0].name, "910B3");
  EXPECT_EQ(cards[0].watts, 98.9);
  EXPECT_EQ(cards[0].temperature_c, 38);
  EXPECT_EQ(cards[1].index, 7);
  EXPECT_EQ(cards[1].chip, 1);
  EXPECT_EQ(cards[1].watts, 1101.5);
}

TEST(CardPowers, PlainColumnsMayChangeTheirOrder) {
  const auto cards = Parse(
      "PwrCap     HCU     AvgPwr     Temp\n"
      "800.0W     0       511.0W     55.0C\n"
      "N/A        1       N/A        54.0C\n");
  ASSERT_EQ(cards.size(), 2u);
  EXPECT_EQ(cards[0].watts, 511);
  EXPECT_EQ(cards[0].limit_w, 800);
  EXPECT_EQ(cards[0].temperature_c, 55);
  EXPECT_EQ(cards[1].index, 1);
  EXPECT_EQ(cards[1].watts, kAbsent);
}

TEST(CardPowers, AMissingValueIsNotItsNeighbour) {
  const std::string header =
      "| NPU   Name     | Power(W)    Temp(C)   |\n"
      "|================+=======================|\n";
  const auto cards =
      Parse(header + "| 0     910B3    |             38        |\n| 1     910B3    | 70.5        39        |\n");
  ASSERT_EQ(cards.size(), 2u);
  EXPECT_EQ(cards[0].watts, kAbsent);
  EXPECT_EQ(cards[0].temperature_c, 38);
  EXPECT_EQ(cards[1].watts, 70.5);
  for (const char* none :
       {"N/A", "NA", "-", "--", "[N/A]", "nan", "-12.5", "1.2.3", "38C", "50%", "1,234", "0x20", "9 41"}) {
    const std::string text = header + "| 0     910B3    | " + none + "         38        |\n";
    EXPECT_EQ(WhyNot(text), "it lists one chip (910B3), none with a power") << none;
  }
}

TEST(CardPowers, ALineThatIsMissingFromACardDropsTheCard) {
  const auto cards = Parse(
      "| NPU   Name     | Power(W)    Temp(C)   |\n"
      "| Chip           | AICore(%)   Mem(MB)   |\n"
      "|================+=======================|\n"
      "| 0              | 57          3382      |\n"  // would read as 57 W
      "+----------------+-----------------------+\n"
      "| 1     910B3    | 98.9        38        |\n"
      "| 0              | 57          3382      |\n"
      "+----------------+-----------------------+\n");
  ASSERT_EQ(cards.size(), 1u);
  EXPECT_EQ(cards[0].index, 1);
  EXPECT_EQ(cards[0].watts, 98.9);
}

TEST(CardPowers, ReadsNumbersOfOtherLocalesAndUnits) {
  const auto watts = [](const std::string& value) {
    return Parse("Card  Power            Temp\n0     " + value + "\n").at(0).watts.value();
  };
  EXPECT_EQ(watts("98,9W"), 98.9);
  EXPECT_EQ(watts("98.9\u00a0W"), 98.9);
  EXPECT_EQ(watts("98.9 w"), 98.9);
  EXPECT_EQ(watts("98900mW"), 98.9);
  EXPECT_EQ(watts("0.5kW"), 500);
  EXPECT_EQ(watts("0W"), 0);
  for (const char* degrees : {"41\u2103", "41 \u00b0C", "41\u00ba", "41,0 C"}) {
    const auto cards = Parse("Card  Power     Temp\n0     50W       " + std::string(degrees) + "\n");
    EXPECT_EQ(cards.at(0).temperature_c, 41) << degrees;
  }
  EXPECT_EQ(Parse("index, power.draw [mW]\n0, 98900\n").at(0).watts, 98.9);
}

TEST(CardPowers, ReadsQueriesOfNvidiaSmi) {
  const auto cards = Parse(
      "index, uuid, name, power.draw.instant [W], power.draw [W], power.limit [W], clocks.current.sm [MHz], "
      "temperature.gpu\n"
      "0, GPU-1, NVIDIA H100 80GB HBM3, 412.50 W, 398.20 W, 700.00 W, 1755 MHz, 52\n"
      "1, GPU-2, NVIDIA T4, [N/A], 31.07 W, 70.00 W, 585 MHz, 40\n"
      "2, GPU-3, NVIDIA GRID, [N/A], [Not Supported], [N/A], [N/A], [N/A]\n");
  ASSERT_EQ(cards.size(), 3u);
  EXPECT_EQ(cards[0].watts, 412.5);
  EXPECT_EQ(cards[0].limit_w, 700);
  EXPECT_EQ(cards[0].clock_mhz, 1755);
  EXPECT_EQ(cards[0].temperature_c, 52);
  EXPECT_EQ(cards[0].name, "NVIDIA H100 80GB HBM3");
  EXPECT_EQ(cards[1].watts, 31.07);
  EXPECT_EQ(cards[2].watts, kAbsent);
  EXPECT_EQ(cards[2].temperature_c, kAbsent);
}

TEST(CardPowers, ReadsTheTableOfNvidiaSmi) {
  const auto cards = Parse(
      "| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |\n"
      "| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |\n"
      "|                                         |                        |               MIG M. |\n"
      "|=========================================+========================+======================|\n"
      "|   0  NVIDIA A100-SXM4-40GB          On  |   00000000:07:00.0 Off |                    0 |\n"
      "| N/A   31C    P0              57W / 400W |       15MiB / 40536MiB |      0%      Default |\n"
      "|                                         |                        |             Disabled |\n"
      "+-----------------------------------------+------------------------+----------------------+\n"
      "| Processes:                                                                              |\n"
      "|  GPU   GI   CI        PID   Type   Process name                              GPU Memory |\n"
      "|=========================================================================================|\n"
      "|    0   N/A  N/A      4242      C   python                                       100W    |\n");
  ASSERT_EQ(cards.size(), 1u);
  EXPECT_EQ(cards[0].watts, 57);
  EXPECT_EQ(cards[0].limit_w, 400);
  EXPECT_EQ(cards[0].temperature_c, 31);
  EXPECT_EQ(cards[0].name, "NVIDIA A100-SXM4-40GB");
}

TEST(CardPowers, ReadsListsOfSeveralCardsAndChips) {
  auto cards = Parse(
      "Attached XPUs : 2\n"
      "XPU 00000000:01:00.0\n  Power Readings\n    Enforced Power Limit : 350.00 W\n    Power Draw : 76.00 W\n"
      "  Temperature\n    XPU Current Temp : 46 C\n    XPU Shutdown Temp : 105 C\n"
      "XPU 00000000:02:00.0\n  PCI\n    Dev : 07\n  Power Draw : N/A\n");
  ASSERT_EQ(cards.size(), 2u);
  EXPECT_EQ(cards[0].index, 0);
  EXPECT_EQ(cards[0].watts, 76);
  EXPECT_EQ(cards[0].temperature_c, 46);
  EXPECT_EQ(cards[1].index, 1);
  EXPECT_EQ(cards[1].watts, kAbsent);

  cards = Parse(
      "NPU ID : 3\nChip Count : 2\nChip ID : 0\nNPU Real-time Power(W) : 60.5\n"
      "Chip ID : 1\nNPU Real-time Power(W) : 61.5\n");
  ASSERT_EQ(cards.size(), 2u);
  EXPECT_EQ(cards[1].index, 3);
  EXPECT_EQ(cards[1].chip, 1);
  EXPECT_EQ(cards[1].watts, 61.5);

  cards = Parse("DEV ID 5\n  Power Info\n    Power Capa : 300 W\n    Cur Power : 96 W\n");
  EXPECT_EQ(cards.at(0).index, 5);
  EXPECT_EQ(cards.at(0).limit_w, 300);
}

TEST(CardPowers, ReadsJsonOfAmd) {
  auto cards = Parse(R"text(WARNING: a device is in a low-power state

{"card0": {"Average Graphics Package Power (W)": "N/A", "Max Graphics Package Power (W)": "560.0"},
 "card3": {"Current Socket Graphics Package Power (W)": "139.0", "Temperature (Sensor edge) (C)": "40.0",
           "Temperature (Sensor memory) (C)": "52.5", "sclk clock speed:": "(1700Mhz)"},
 "system": {"Driver version": "6.7"}}
)text");
  ASSERT_EQ(cards.size(), 2u);
  EXPECT_EQ(cards[0].watts, kAbsent);
  EXPECT_EQ(cards[0].limit_w, 560);
  EXPECT_EQ(cards[1].index, 3);
  EXPECT_EQ(cards[1].watts, 139);
  EXPECT_EQ(cards[1].temperature_c, 52.5);
  EXPECT_EQ(cards[1].clock_mhz, 1700);

  const std::string gpu = R"text({"gpu": 2,
    "power": {"socket_power": {"value": 139, "unit": "W"}, "gfx_voltage": {"value": 790, "unit": "mV"}},
    "temperature": {"edge": "N/A", "hotspot": {"value": 47, "unit": "C"}}})text";
  for (const std::string& text : {"[" + gpu + "]", "[\n  " + gpu + "\n]\n", "{\"gpu_data\": [" + gpu + "]}"}) {
    cards = Parse(text);
    ASSERT_EQ(cards.size(), 1u);
    EXPECT_EQ(cards[0].index, 2);
    EXPECT_EQ(cards[0].watts, 139);
    EXPECT_EQ(cards[0].temperature_c, 47);
  }
}

TEST(CardPowers, SaysWhatItFoundInstead) {
  EXPECT_EQ(WhyNot(""), "it printed nothing");
  EXPECT_EQ(WhyNot(" \n\n"), "it printed nothing");
  EXPECT_EQ(WhyNot("Failed to initialize\nmore"),
            "no card with a power is in its output, which begins \"Failed to initialize\"");
  EXPECT_EQ(WhyNot("HCU     Temp     AvgPwr\n=====\n"),
            "no card with a power is in its output, which begins \"HCU     Temp     AvgPwr\"");
  EXPECT_EQ(WhyNot(R"({"GPU": [{"Index": "0", "Power Readings": {"Power Draw ": "96)"),
            "its JSON is broken or was cut short");
}

TEST(CardPowers, GarbageIsHarmlessAndCostsLittle) {
  std::mt19937 random(1);
  constexpr size_t kSize = 1 << 18;
  std::string noise(kSize, '\0');
  for (char& c : noise) c = static_cast<char>(random());
  ExpectHarmless(noise);
  const auto repeated = [&](const std::string& text) {
    std::string all;
    while (all.size() < kSize) all += text;
    return all;
  };
  for (const char* piece : {"[", "{", "[{\"a\":", "\n", "GPU Power\n", "| GPU | Power |\n", "GPU,Power,", "GPU : 1\n",
                            "1W ", "0 1 2 3 4 5\n", "{\n", "\xc2\xa0", "N/A", "Power Draw : 1 W\nChip ID : 1\n"}) {
    ExpectHarmless(repeated(piece));
  }
  std::string deep = "1";
  for (int i = 0; i < 20000; ++i) deep = (i % 2 ? "{\"a\":" + deep + "}" : "[" + deep + "]");
  ExpectHarmless(deep);
  ExpectHarmless("{\"Index\": 0, \"a\": " + deep + "}");
  ExpectHarmless("GPU  Power\n" + repeated("0    1W\n"));
  ExpectHarmless("{\"GPU\":[" + repeated("{\"Index\":0,\"Power Draw\":\"1W\"},") + "{}]}");
}

}  // namespace
}  // namespace assay::bench
