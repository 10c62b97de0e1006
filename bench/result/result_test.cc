// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <sstream>

#include "bench/result/provenance.h"
#include "bench/result/run_result.h"
#include "bench/result/write.h"
#include "runtime/core/error.h"

namespace assay::bench {
namespace {

namespace fs = std::filesystem;

class Files : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "assay-result-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    dir_ = name;
  }
  void TearDown() override { fs::remove_all(dir_); }

  static std::string Text(const std::string& path) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
  size_t CountFiles() const { return std::distance(fs::directory_iterator(dir_), fs::directory_iterator()); }

  std::string dir_;
};

std::string MessageOf(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

// A result with every field that this machine, and nothing but it, knows.
RunResult Minimal() {
  RunResult r;
  r.id = NewRunId();
  r.started_at = TimestampUtc();
  r.tool = ThisTool();
  r.host = ThisHost();
  r.device.backend = "cpu";
  r.device.name = "CPU";
  r.model.weights = "file";
  r.workload.scenario = "offline";
  r.environment = ReadEnvironment();
  r.environment.before = r.environment.after = ReadMachineState();
  r.power.notes = {"not asked for"};
  return r;
}

RunResult Full() {
  RunResult r = Minimal();
  r.duration_s = 12.5;
  r.tool.commit = "0123abc";
  r.device.isa = "avx512_bf16";
  r.device.threads = 2;
  r.device.reason = "the only device";
  r.model = {.name = "tiny",
             .family = "llama",
             .parameters = 135'000'000,
             .weights = "synthetic",
             .dtype = "q4_1",
             .kv_dtype = "bf16",
             .bytes = 90'000'000,
             .sha256 = std::string(64, 'a')};
  r.workload = {.scenario = "single-stream",
                .isl = 128,
                .osl = 32,
                .concurrency = 1,
                .rate = 2.5,
                .requests = 4,
                .trials = 5,
                .seed = UINT64_MAX,
                .ignore_eos = false,
                .achieved_isl = 128,
                .achieved_osl = 31.5};
  r.warm_up = WarmUpInfo{.steps = 40, .duration_s = 2, .steady = true};
  r.trials = {{.start_s = 3,
               .duration_s = 2,
               .requests = 4,
               .input_tokens = 512,
               .output_tokens = 128,
               .output_tps = 64,
               .prefill_tps = 900,
               .decode_tps = 70}};
  r.metrics.decode_tps = SummarizeRate(std::vector<double>{70, 71, 69});
  r.metrics.output_tps = SummarizeRate(std::vector<double>{64});
  r.metrics.itl_ms = SummarizeLatency({13, 14, 15});
  r.ops = {{.op = "linear", .phase = "decode", .share = 0.8, .calls = 1000}};
  r.peak_rss_bytes = PeakRssBytes();
  r.power = {.grade = "C",
             .source = "rapl: package-0",
             .scope = "chip",
             .mean_w = 50,
             .peak_w = 60,
             .idle_w = 20,
             .energy_j = 500,
             .j_per_output_token = 0.7,
             .j_per_total_token = 0.1,
             .output_tps_per_w = 1.4,
             .notes = {"not cross-checked"}};
  r.limits = {.flops = 1e12,
              .flops_dtype = "bf16",
              .bytes_per_s = 3e10,
              .prefill_flops_per_s = 5e11,
              .decode_bytes_per_s = 2e10,
              .mfu = 0.5,
              .mbu = 0.67};
  r.phases.decode = PhaseTimes{4, 1e9, 2e9, Rate{0.01, 0.009, 0.011, 5}, Rate{0.02, 0.019, 0.021, 5}};
  r.power.decode = PhasePower{10, Rate{50, 49, 51, 5}, Rate{0.5, 0.4, 0.6, 5}, 2};
  r.gap = GapReport{.card_id = "example", .card_name = "Example X1", .card_sure = true, .card_why = "named so"};
  r.gap->gaps = {
      {.metric = "decode_tps",
       .unit = "tok/s",
       .claimed = 400,
       .claim = "roofline",
       .provenance = {"Example", "2026", "a data sheet", "vendor", ""},
       .actual = {200, 190, 210},
       .ratio = {0.5, 0.475, 0.525},
       .terms = {{"silicon", {-0.3, -0.31, -0.29}, ""}, {"engine", {-0.393, std::nullopt, std::nullopt}, ""}}}};
  r.accuracy = {.verdict = "passed",
                .reference = "reference backend",
                .tokens = 8,
                .max_logprob_error = 1e-4,
                .tolerance = 1e-2,
                .note = "short prefix"};
  r.warnings = {"one", "two"};
  return r;
}

// Validates against the JSON Schema with Python's jsonschema; empty, or what it says.
std::string SchemaErrors(const std::string& file) {
  const std::string script =
      "import json, sys, jsonschema\n"
      "schema, document = (json.load(open(path)) for path in sys.argv[1:])\n"
      "jsonschema.Draft202012Validator.check_schema(schema)\n"
      "for error in jsonschema.Draft202012Validator(schema).iter_errors(document):\n"
      "  print(error.json_path, error.message)\n";
  const std::string command = "/usr/bin/python3 -c '" + script + "' '" + ASSAY_SOURCE_DIR +
                              "/bench/data/schema/assay.result.v1.schema.json' '" + file + "' 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) return "popen failed";
  std::string output;
  char buffer[512];
  while (fgets(buffer, sizeof buffer, pipe)) output += buffer;
  return pclose(pipe) == 0 ? output : "validator failed: " + output;
}

bool HaveValidator() {
  return std::system("/usr/bin/python3 -c 'import jsonschema' 2>/dev/null") == 0;
}

TEST(RunResult, SurvivesTheRoundTrip) {
  for (const RunResult& result : {Full(), Minimal()}) {
    const Json json = ToJson(result);
    EXPECT_EQ(ToJson(FromJson(Json::parse(Dump(json)), "test")), json);
  }
  EXPECT_EQ(FromJson(ToJson(Full()), "test").workload.seed, UINT64_MAX);
}

TEST(RunResult, UnknownIsNullNeverZero) {
  RunResult result = Minimal();
  result.limits.mfu = std::nan("");
  const Json json = ToJson(result);
  EXPECT_TRUE(json["metrics"]["output_tps"].is_null());
  EXPECT_TRUE(json["power"]["mean_w"].is_null());
  EXPECT_TRUE(json["limits"]["mfu"].is_null());
  EXPECT_TRUE(json["gap"].is_null());
  EXPECT_FALSE(FromJson(json, "test").metrics.output_tps);
}

TEST_F(Files, MatchesTheSchema) {
  if (!HaveValidator()) GTEST_SKIP() << "python3-jsonschema is not installed: results are not checked by the schema";
  RunResult odd = Full();
  odd.limits.mfu = std::nan("");
  odd.metrics.decode_tps->ci_high = std::numeric_limits<double>::infinity();
  odd.status = "interrupted";
  odd.trials.clear();
  for (const RunResult& result : {Full(), Minimal(), odd}) {
    const ResultPaths paths = PathsFor(dir_, result.id);
    WriteRun(paths, result, {});
    EXPECT_EQ(SchemaErrors(paths.result), "");
  }
}

TEST_F(Files, TheSchemaIsStrict) {
  if (!HaveValidator()) GTEST_SKIP() << "python3-jsonschema is not installed";
  const auto errors = [&](const std::function<void(Json&)>& spoil) {
    Json json = ToJson(Full());
    spoil(json);
    std::ofstream(dir_ + "/spoiled.json") << Dump(json);
    return SchemaErrors(dir_ + "/spoiled.json");
  };
  EXPECT_NE(errors([](Json& j) { j["metrics"]["speed"] = 1; }), "") << "unknown field";
  EXPECT_NE(errors([](Json& j) { j["metrics"].erase("ttft_ms"); }), "") << "missing field";
  EXPECT_NE(errors([](Json& j) { j["model"]["weights"] = "guess"; }), "") << "unknown value";
  EXPECT_NE(errors([](Json& j) { j["power"]["mean_w"] = -1; }), "") << "negative watts";
  EXPECT_NE(errors([](Json& j) { j["power"]["grade"] = "none"; }), "") << "watts without a meter";
  EXPECT_NE(errors([](Json& j) { j["power"]["source"] = nullptr; }), "") << "a grade without a source";
}

TEST(RunResult, RefusesWhatItCannotRead) {
  const auto message = [](const std::function<void(Json&)>& spoil) {
    Json json = ToJson(Full());
    spoil(json);
    return MessageOf([&] { FromJson(json, "a.json"); });
  };
  EXPECT_EQ(
      message([](Json& j) { j["schema"] = "assay.result/2"; }),
      "a.json: schema is \"assay.result/2\", but this assay reads \"assay.result/1\": use the assay that wrote it");
  EXPECT_EQ(message([](Json& j) { j = Json::array(); }).substr(0, 30), "a.json: not a result of assay:");
  EXPECT_EQ(message([](Json& j) { j["metrics"].erase("ttft_ms"); }).substr(0, 46),
            "a.json: metrics.ttft_ms: the field is missing;");
  EXPECT_EQ(message([](Json& j) { j["trials"][0]["requests"] = "4"; }),
            "a.json: trials[0].requests: expected a whole number, found string");
  EXPECT_EQ(message([](Json& j) { j["workload"]["seed"] = -1; }),
            "a.json: workload.seed: expected a whole number from 0, found number");
  EXPECT_EQ(message([](Json& j) { j["tool"] = nullptr; }), "a.json: tool: expected an object, found null");
}

TEST_F(Files, LoadSaysWhatIsWrongWithAFile) {
  EXPECT_NE(MessageOf([&] { LoadResult(dir_ + "/missing.json"); }).find("/missing.json: cannot be read"),
            std::string::npos);
  EXPECT_NE(MessageOf([&] { LoadResult(dir_); }).find(": cannot be read as a file"), std::string::npos);
  std::ofstream(dir_ + "/half.json") << Dump(ToJson(Full())).substr(0, 500);
  EXPECT_NE(MessageOf([&] { LoadResult(dir_ + "/half.json"); }).find("/half.json: not JSON (at byte 501)"),
            std::string::npos);
}

TEST_F(Files, WritesResultAndSamples) {
  RunResult result = Full();
  result.model.name = "broken \xff name";  // a file's name need not be UTF-8
  const ResultPaths paths = PathsFor(dir_, result.id);
  RequestSample ok, failed;
  ok.ttft_ms = 12;
  ok.itl_ms = {4, std::nan("")};
  failed.error = "no memory";
  WriteRun(paths, result, {ok, failed});
  EXPECT_EQ(LoadResult(paths.result).id, result.id);
  std::istringstream lines(Text(paths.samples));
  std::vector<Json> samples;
  for (std::string line; std::getline(lines, line);) samples.push_back(Json::parse(line));
  ASSERT_EQ(samples.size(), 2u);
  EXPECT_EQ(samples[0]["itl_ms"], Json::parse("[4.0, null]"));
  EXPECT_TRUE(samples[0]["scheduled_s"].is_null());
  EXPECT_TRUE(samples[1]["ttft_ms"].is_null());
  EXPECT_EQ(samples[1]["error"], "no memory");
  EXPECT_EQ(CountFiles(), 2u) << "no temporary file may stay";
}

TEST_F(Files, NothingAppearsBeforeCommit) {
  const std::string path = dir_ + "/file";
  std::ofstream(path) << "old";
  {
    AtomicFile file(path);
    file.Write("new");
    EXPECT_EQ(Text(path), "old");
  }
  EXPECT_EQ(Text(path), "old");
  EXPECT_EQ(CountFiles(), 1u);
  AtomicFile file(path);
  file.Write("new");
  file.Commit();
  EXPECT_EQ(Text(path), "new");
  EXPECT_EQ(CountFiles(), 1u);
}

// A limit on the file size fails a write half-way, as a full disk does.
TEST_F(Files, AWriteThatFailsHalfWayLeavesTheOldFile) {
  const std::string path = dir_ + "/file";
  std::ofstream(path) << "old";
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 1000, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message = MessageOf([&] {
    AtomicFile file(path);
    file.Write(std::string(100'000, 'x'));
    file.Commit();
  });
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  EXPECT_EQ(message, path + ": cannot write (File too large): choose another folder with --out");
  EXPECT_EQ(Text(path), "old");
  EXPECT_EQ(CountFiles(), 1u);
}

TEST_F(Files, CheckWritableLeavesNothing) {
  CheckWritable(dir_ + "/a/b");
  EXPECT_FALSE(fs::exists(dir_ + "/a"));
  CheckWritable(dir_);
  EXPECT_TRUE(fs::is_directory(dir_)) << "a folder that was there stays";
  EXPECT_TRUE(fs::is_empty(dir_));
}

TEST_F(Files, CheckWritableNamesTheFolderAndTheRemedy) {
  std::ofstream(dir_ + "/file") << "x";
  EXPECT_EQ(MessageOf([&] { CheckWritable(dir_ + "/file"); }),
            dir_ +
                "/file: cannot make this folder (Not a directory): a file and a folder are mixed up in this path; "
                "choose another with --out");
  EXPECT_NE(MessageOf([&] { CheckWritable(dir_ + "/file/below"); }).find("/file/below: cannot make this folder"),
            std::string::npos);
  EXPECT_NE(MessageOf([&] { CheckWritable("/proc/assay"); }).find("/proc/assay: cannot make this folder"),
            std::string::npos);
  if (getuid() == 0) return;  // root may write anywhere
  fs::permissions(dir_, fs::perms::owner_read | fs::perms::owner_exec);
  EXPECT_NE(MessageOf([&] { CheckWritable(dir_); }).find("choose a folder that you may write to"), std::string::npos);
  fs::permissions(dir_, fs::perms::owner_all);
}

TEST(Provenance, KnowsThisMachine) {
  const Host host = ThisHost();
  EXPECT_TRUE(host.kernel && host.kernel->starts_with("Linux "));
  ASSERT_TRUE(host.memory_bytes && host.cores && host.hostname_hash);
  EXPECT_GT(*host.memory_bytes, 1 << 20);
  EXPECT_GE(*host.cores, 1);
  EXPECT_EQ(host.hostname_hash, ThisHost().hostname_hash);
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  EXPECT_EQ(host.hostname_hash->find(name), std::string::npos) << "the name itself must not be written";
  EXPECT_GE(ReadEnvironment().cpus_allowed.value_or(0), 1);
  EXPECT_FALSE(ThisTool().version.empty());
}

TEST(Provenance, PeakMemoryFollowsAnAllocation) {
  const auto before = PeakRssBytes();
  {
    const std::vector<char> block(256 << 20, 1);
    EXPECT_GE(CurrentRssBytes().value_or(0), 256 << 20);
  }
  ASSERT_TRUE(before && PeakRssBytes());
  EXPECT_GE(*PeakRssBytes(), 256 << 20);
  EXPECT_GE(*PeakRssBytes(), *before);
}

TEST(Provenance, RunIdsDiffer) {
  EXPECT_NE(NewRunId(), NewRunId());
}

TEST(Provenance, WarnsOfAnUnfairMachine) {
  Environment environment;
  EXPECT_TRUE(EnvironmentWarnings(environment, 10).empty());  // nothing is known, so nothing can be said
  environment.cpus_allowed = 2;
  MachineState& before = environment.before;
  before.throttle_events = 5;
  before.load_average_1m = 0.1;
  before.steal_s = 100;
  environment.after = before;
  environment.after.load_average_1m = 2.0;  // its own load
  environment.after.steal_s = 100.1;
  EXPECT_TRUE(EnvironmentWarnings(environment, 10).empty());
  environment.governor = "powersave";
  before.load_average_1m = 1.5;
  environment.after.steal_s = 102;
  environment.after.throttle_events = 8;
  const auto warnings = EnvironmentWarnings(environment, 10);
  ASSERT_EQ(warnings.size(), 4u);
  EXPECT_NE(warnings[0].find("powersave"), std::string::npos);
  EXPECT_NE(warnings[1].find("load average 1.5"), std::string::npos);
  EXPECT_NE(warnings[2].find("10 % of this machine's CPU time"), std::string::npos);
  EXPECT_NE(warnings[3].find("3 times"), std::string::npos);
}

}  // namespace
}  // namespace assay::bench
