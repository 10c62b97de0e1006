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

const std::string kModel = (fs::path(ASSAY_SOURCE_DIR) / "tests/data/checkpoints/smollm2-sharded").string();

std::vector<std::string> Bench(const TemporaryFolder& out, const std::vector<std::string>& options) {
  std::vector<std::string> args{"bench", "--model", kModel,     "--isl", "24",
                                "--osl", "4",       "--trials", "3",     "--requests",
                                "1",     "--power", "none",     "--out", out.path().string(),
                                "--json"};
  args.insert(args.end(), options.begin(), options.end());
  return args;
}

// A device that sleeps: a model's head takes so long, and bringing a step's inputs over. What it computes besides takes
// next to nothing.
class PacedRun {
 public:
  PacedRun(const std::string& head_ms, const std::string& step_ms)
      : program_(Bench(out_, {"--device", ASSAY_SCRIPTED_BACKEND, "--threads", "1"}),
                 {{"SCRIPTED_HEAD", head_ms}, {"SCRIPTED_STEP", step_ms}}) {}
  Json Result() {
    const Outcome run = program_.Wait(/*limit_s=*/240);
    EXPECT_EQ(run.exit_code, 0) << run.err;
    return ParseOne(run.out);
  }
  const fs::path& folder() const { return out_.path(); }

 private:
  TemporaryFolder out_;
  Program program_;
};

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
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers change where the time goes";
#endif
  PacedRun plain_run("120", "0"), kernels_run("360", "0"), engine_run("120", "240");
  const Json plain = plain_run.Result(), kernels = kernels_run.Result(), engine = engine_run.Result();
  EXPECT_EQ(plain.at("device").at("card_id"), "h100-sxm");
  for (const char* metric : {"decode_tps", "prefill_tps", "output_tps"}) {
    SCOPED_TRACE(metric);
    const Json& gap = GapOf(plain, metric);
    double sum = 0;
    for (const Json& term : gap.at("terms")) sum += term.at("log").at("value").get<double>();
    EXPECT_NEAR(sum, std::log(gap.at("ratio").at("value").get<double>()), 1e-9);
    EXPECT_NEAR(gap.at("actual").at("value").get<double>() / gap.at("claimed").get<double>(),
                gap.at("ratio").at("value").get<double>(), 1e-9);
    const auto moved = [&](const Json& other, const char* stage) {
      return Stage(GapOf(other, metric), stage) - Stage(gap, stage);
    };
    EXPECT_DOUBLE_EQ(GapOf(kernels, metric).at("claimed"), gap.at("claimed"));
    EXPECT_NEAR(moved(kernels, "kernels"), -std::log(3.0), 0.35)
        << "the only product that takes any time takes three times as long";
    EXPECT_NEAR(moved(kernels, "silicon"), 0, 0.3);
    EXPECT_NEAR(moved(kernels, "engine"), 0, 0.3);
    EXPECT_LT(moved(engine, "engine"), -0.7) << "240 ms more for each step";
    EXPECT_NEAR(moved(engine, "silicon"), 0, 0.3);
    EXPECT_NEAR(moved(engine, "kernels"), 0, 0.3);
  }

  const std::string file = [&] {
    for (const auto& entry : fs::directory_iterator(plain_run.folder())) {
      if (entry.path().extension() == ".json") return entry.path().string();
    }
    return std::string();
  }();
  // The same numbers from the file, and a claim of the user's beside them.
  const fs::path svg = plain_run.folder() / "svg";
  const Outcome gap = RunAssay({"gap", file, "--claim", "output_tps=1e6 who=\"a vendor\" date=2026-05 dtype=fp8",
                                "--svg", svg.string(), "--lang", "zh", "--json"});
  ASSERT_EQ(gap.exit_code, 0) << gap.err;
  const Json gaps = ParseOne(gap.out).at("results").at(0).at("gap").at("gaps");
  EXPECT_EQ(gaps.back().at("provenance").at("who"), "a vendor");
  EXPECT_EQ(gaps.back().at("claimed"), 1e6);
  EXPECT_EQ(gaps.back().at("terms").at(0).at("stage"), "promise");
  for (const char* picture : {".roofline.svg", ".gap-decode.svg", ".gap-output.svg"}) {
    EXPECT_TRUE(fs::exists(svg / (plain.at("id").get<std::string>() + picture))) << picture;
  }
}

TEST(Gap, FewerThreadsChangeTheActualAndNotTheClaim) {
  const TemporaryFolder out;
  Program all_run(Bench(out, {})), one_run(Bench(out, {"--threads", "1"}));
  const Json all = ParseOne(all_run.Wait(/*limit_s=*/240).out), one = ParseOne(one_run.Wait(/*limit_s=*/240).out);
  if (all.at("gap").at("gaps").empty()) GTEST_SKIP() << "no claim is known of this machine's CPU";
  EXPECT_EQ(one.at("device").at("threads"), 1);
  for (const Json& gap : all.at("gap").at("gaps")) {
    EXPECT_DOUBLE_EQ(GapOf(one, gap.at("metric")).at("claimed"), gap.at("claimed")) << gap.at("metric");
  }
}

TEST(Gap, OfPublishedResultsHasBothRatiosAndTheirSources) {
  const Outcome run = RunAssay({"gap", "published:h100-sxm/qwen3-8b", "published:ascend-910b2", "--json"});
  ASSERT_EQ(run.exit_code, 0) << run.err;
  int ratios_h100 = 0, ratios_910b = 0;
  const Json printed = ParseOne(run.out);
  for (const Json& entry : printed.at("published")) {
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
