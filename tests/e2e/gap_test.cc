// SPDX-License-Identifier: Apache-2.0
// The gap as users meet it: in `bench`, where it must open where the time goes, and as a command of its own.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/e2e/program.h"

namespace assay::e2e {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// Weights far larger than the caches, so that times are those of memory and arithmetic and not of a noisy start.
Json Bench(const std::string& out, const std::vector<std::string>& options, const Environment& environment) {
  std::vector<std::string> args{"bench",    "--model",  "shape:smollm2-135m",
                                "--isl",    "48",       "--osl",
                                "16",       "--device", ASSAY_SCRIPTED_BACKEND,
                                "--trials", "4",        "--requests",
                                "2",        "--power",  "none",
                                "--out",    out,        "--json"};
  args.insert(args.end(), options.begin(), options.end());
  const Outcome run = RunAssay(args, environment);
  EXPECT_EQ(run.exit_code, 0) << run.err;
  return ParseOne(run.out);
}

const Json& GapOf(const Json& result, const std::string& metric) {
  for (const Json& gap : result.at("gap").at("gaps")) {
    if (gap.at("metric") == metric) return gap;
  }
  ADD_FAILURE() << "no gap for " << metric << " in " << result.at("gap").dump(1);
  static const Json none;
  return none;
}

double Stage(const Json& gap, const std::string& stage) {
  for (const Json& term : gap.at("terms")) {
    if (term.at("stage") == stage) return term.at("log").at("value").get<double>();
  }
  ADD_FAILURE() << "no stage " << stage << " in " << gap.dump(1);
  return 0;
}

TEST(Gap, OpensWhereTheTimeGoes) {
  const TemporaryFolder out;
  const Json plain = Bench(out.path().string(), {}, {});
  if (plain.at("gap").at("gaps").empty()) GTEST_SKIP() << "no claim is known of this machine's CPU";
  for (const char* metric : {"decode_tps", "prefill_tps", "output_tps"}) {
    SCOPED_TRACE(metric);
    const Json& gap = GapOf(plain, metric);
    double sum = 0;
    for (const Json& term : gap.at("terms")) sum += term.at("log").at("value").get<double>();
    EXPECT_NEAR(sum, std::log(gap.at("ratio").at("value").get<double>()), 1e-9);
    EXPECT_NEAR(gap.at("actual").at("value").get<double>() / gap.at("claimed").get<double>(),
                gap.at("ratio").at("value").get<double>(), 1e-9);
  }
  // Every product three times over: the kernels lose about ln 3; noise of a shared machine is far below.
  const Json slowed = Bench(out.path().string(), {}, {{"SCRIPTED_SLOW", "3"}});
  const Json &before = GapOf(plain, "output_tps"), &after = GapOf(slowed, "output_tps");
  EXPECT_LT(Stage(after, "kernels"), Stage(before, "kernels") - 0.7);
  EXPECT_NEAR(Stage(after, "silicon"), Stage(before, "silicon"), 0.35);
  EXPECT_NEAR(Stage(after, "engine"), Stage(before, "engine"), 0.35);
  EXPECT_DOUBLE_EQ(after.at("claimed"), before.at("claimed"));

  const std::string file = [&] {
    for (const auto& entry : fs::directory_iterator(out.path())) {
      if (entry.path().extension() == ".json") return entry.path().string();
    }
    return std::string();
  }();
  // The same numbers from the file, and a claim of the user's beside them.
  const Outcome gap = RunAssay({"gap", file, "--claim", "output_tps=1e6 who=\"a vendor\" date=2026-05 dtype=fp8",
                                "--svg", (out.path() / "svg").string(), "--lang", "zh", "--json"});
  ASSERT_EQ(gap.exit_code, 0) << gap.err;
  const Json printed = ParseOne(gap.out).at("results").at(0).at("gap").at("gaps");
  EXPECT_EQ(printed.back().at("provenance").at("who"), "a vendor");
  EXPECT_EQ(printed.back().at("claimed"), 1e6);
  size_t pictures = 0;
  for (const auto& entry : fs::directory_iterator(out.path() / "svg")) pictures += entry.path().extension() == ".svg";
  EXPECT_EQ(pictures, 1 + printed.size() - 1 + 1) << "the roofline, each gap of the run and the claim's";
}

TEST(Gap, OneCoreOfTwoIsSiliconOrEngineAndNotTheClaim) {
  const TemporaryFolder out;
  const Json all = Bench(out.path().string(), {}, {});
  if (all.at("device").at("threads").get<int>() < 2) GTEST_SKIP() << "this machine has one core";
  if (all.at("gap").at("gaps").empty()) GTEST_SKIP() << "no claim is known of this machine's CPU";
  const Json one = Bench(out.path().string(), {"--threads", "1"}, {});
  const Json &before = GapOf(all, "prefill_tps"), &after = GapOf(one, "prefill_tps");
  EXPECT_DOUBLE_EQ(after.at("claimed"), before.at("claimed"));
  const double moved =
      Stage(after, "silicon") + Stage(after, "engine") - Stage(before, "silicon") - Stage(before, "engine");
  EXPECT_LT(moved, -0.3) << "half of the cores do about half of the work";
  EXPECT_NEAR(Stage(after, "kernels"), Stage(before, "kernels"), 0.35);
}

TEST(Gap, OfPublishedResultsHasBothRatiosAndTheirSources) {
  const Outcome run = RunAssay({"gap", "published:h100-sxm/qwen3-8b", "published:ascend-910b2", "--json"});
  ASSERT_EQ(run.exit_code, 0) << run.err;
  int ratios_h100 = 0, ratios_910b = 0;
  for (const Json& entry : ParseOne(run.out).at("published")) {
    EXPECT_EQ(entry.at("provenance"), "published");
    EXPECT_FALSE(entry.at("source").get<std::string>().empty());
    EXPECT_NE(entry.at("gap").is_null(), entry.at("why_not").is_null());
    if (entry.at("gap").is_null()) continue;
    EXPECT_GT(entry.at("gap").at("ratio").at("value").get<double>(), 0);
    EXPECT_FALSE(entry.at("gap").at("provenance").at("source").get<std::string>().empty());
    (entry.at("card") == "h100-sxm" ? ratios_h100 : ratios_910b) += 1;
  }
  EXPECT_GT(ratios_h100, 0);
  EXPECT_GT(ratios_910b, 0);
  const Outcome table = RunAssay({"gap", "published:ascend-910b2"});
  EXPECT_NE(table.out.find("of the claim"), std::string::npos) << table.out;
}

TEST(Gap, BadInputIsOneLine) {
  const TemporaryFolder out;
  const std::string file = out.Write("x.json", "{}");
  const std::vector<std::vector<std::string>> bad = {{"gap", "published:h1000"},
                                                     {"gap", "published:h100-sxm/no-such-model"},
                                                     {"gap", file},
                                                     {"gap", "missing.json"},
                                                     {"gap", file, "--claim", "output_tps=5parsecs"},
                                                     {"gap", file, "--claim", "percent=80 of=h1000"},
                                                     {"cards", "h1000"}};
  for (const auto& args : bad) {
    const Outcome run = RunAssay(args);
    EXPECT_EQ(run.exit_code, 2) << args.back();
    EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
    EXPECT_TRUE(run.out.empty()) << run.out;
  }
}

}  // namespace
}  // namespace assay::e2e
