// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <sstream>

#include "bench/report/print_result.h"
#include "bench/report/table.h"
#include "bench/report/verdict.h"

namespace assay::bench {
namespace {

// Figures chosen for the test; they describe no machine.
RunResult Example() {
  RunResult r;
  r.host.cpu = "Example CPU";
  r.host.os = "Debian";
  r.device = {.backend = "cpu",
              .name = "Example CPU",
              .count = 1,
              .driver = {},
              .card_id = {},
              .isa = "avx512_bf16",
              .threads = 2,
              .reason = "the only device"};
  r.model = {.name = "tiny-135m",
             .family = "llama",
             .parameters = 134'515'008,
             .weights = "file",
             .dtype = "q4_1",
             .kv_dtype = "bf16",
             .bytes = 98'000'000,
             .sha256 = {}};
  r.workload.scenario = "single-stream";
  r.workload.isl = 512;
  r.workload.osl = 128;
  r.workload.concurrency = 1;
  r.workload.requests = 1;
  r.workload.trials = 5;
  r.trials.resize(5);
  r.metrics.prefill_tps = SummarizeRate(std::vector<double>{1200, 1210, 1190, 1205, 1195});
  r.metrics.decode_tps = SummarizeRate(std::vector<double>{160.2, 161, 159.5, 160.8, 160});
  r.metrics.output_tps = SummarizeRate(std::vector<double>{104});
  r.metrics.ttft_ms = SummarizeLatency({426, 424, 430, 425, 428});
  r.metrics.itl_ms = SummarizeLatency(std::vector<double>(635, 6.25));
  r.limits = {.flops = 1.3e12,
              .flops_dtype = "bf16",
              .bytes_per_s = 34.1e9,
              .prefill_flops_per_s = 3.2e11,
              .decode_bytes_per_s = 24.2e9,
              .mfu = 0.246,
              .mbu = 0.71};
  r.ops = {{"linear", "prefill", 0.7, 1},
           {"attn_paged", "prefill", 0.3, 1},
           {"glu", "decode", 0.001, 1},
           {"linear", "decode", 0.9, 1},
           {"attn_paged", "decode", 0.05, 1}};
  r.peak_rss_bytes = 220 << 20;
  r.power.notes = {"no power meter found: this virtual machine shows none"};
  r.accuracy.verdict = "passed";
  r.accuracy.reference = "the reference backend";
  r.accuracy.tokens = 16;
  r.accuracy.max_logprob_error = 0.00312;
  r.accuracy.tolerance = 0.05;
  r.warnings = {"the machine was busy before the run (load average 1.5); other processes may have slowed it"};
  return r;
}

std::string Printed(const RunResult& result, const std::string& path = "out/id.json") {
  std::ostringstream out;
  PrintResult(result, path, out);
  return out.str();
}

TEST(PrintResult, IsWhatAPersonSees) {
  EXPECT_EQ(Printed(Example()), R"(device    Example CPU (cpu, avx512_bf16, 2 threads): the only device
host      Example CPU, Debian
model     tiny-135m (llama, 135 M parameters, q4_1, 93.5 MiB)
workload  single-stream, 512 tokens in, 128 out, 1 at a time, 5 of 5 trials of 1 request
result    out/id.json

speed (± 95 % confidence over the trials; none is left out)
  prefill    1200 ± 10  tok/s
  decode   160.3 ± 0.8  tok/s
  output           104  tok/s

latency, ms            p50   p90   p95   p99   max  samples
first token (TTFT)     426     -     -     -   430        5
between tokens (ITL)  6.25  6.25  6.25  6.25  6.25      635

against this device's limits, measured in this run (bf16)
  prefill  320 GFLOP/s  of  1.30 TFLOP/s  = MFU 25 %
  decode     24.2 GB/s  of     34.1 GB/s  = MBU 71 %

share of time per op
  prefill  linear 70 %, attn_paged 30 %
  decode   linear 90 %, attn_paged 5.0 %, glu 0.1 %

accuracy     passed, 16 tokens against the reference backend, largest log-probability error 0.0031 (allowed 0.050)
power        not metered: no power meter found: this virtual machine shows none
peak memory  220 MiB resident
warning: the machine was busy before the run (load average 1.5); other processes may have slowed
  it

Decode reads weights and KV cache at 24.2 GB/s, 71 % of the 34.1 GB/s that this device's memory
delivers, so at most 1.4x is left to gain; prefill computes at 320 GFLOP/s, 25 % of the 1.30 TFLOP/s
(bf16) that a matrix product alone reaches.
)");
}

TEST(PrintResult, ShowsPowerWithItsGrade) {
  RunResult r = Example();
  r.power = {.grade = "C",
             .source = "rapl: package-0",
             .scope = "chip",
             .mean_w = 51.27,
             .peak_w = 60,
             .idle_w = 20,
             .energy_j = 500,
             .j_per_output_token = 0.3204,
             .j_per_total_token = 0.1,
             .output_tps_per_w = 3.121,
             .notes = {}};
  EXPECT_NE(
      Printed(r).find("power        51.3 W, peak 60.0 W, idle 20.0 W, 0.320 J/output token, 3.12 tok/s/W (grade C, "
                      "measured; rapl: package-0, scope chip)"),
      std::string::npos)
      << Printed(r);
  r.power.grade = "F";
  r.power.scope.reset();
  EXPECT_NE(Printed(r).find("(grade F, not a measurement; rapl: package-0, scope unknown)"), std::string::npos);
}

TEST(PrintResult, NothingKnownIsPrintedAsUnknownNotAsZero) {
  RunResult r;
  r.power.notes.clear();
  const std::string text = Printed(r, "");
  EXPECT_NE(text.find("unknown"), std::string::npos);
  EXPECT_EQ(text.find("nan"), std::string::npos);
  EXPECT_EQ(text.find("speed"), std::string::npos);
  EXPECT_TRUE(text.ends_with("\nNothing was measured, so nothing can be said.\n")) << text;
}

TEST(PrintResult, OddNumbersDoNotShow) {
  RunResult r = Example();
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  r.limits.mfu = nan;
  r.limits.decode_bytes_per_s = inf;
  r.metrics.decode_tps->value = nan;
  r.metrics.decode_tps->ci_high = inf;
  r.ops.push_back({"sample", "decode", nan, 1});
  r.model.name = "evil\x1b[2Jname\xff";
  r.warnings = {"a\nb\x07"};
  const std::string text = Printed(r);
  EXPECT_EQ(text.find("nan"), std::string::npos) << text;
  EXPECT_EQ(text.find("inf"), std::string::npos) << text;
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(text.find('\x07'), std::string::npos);
  EXPECT_NE(text.find("evil?[2Jname?"), std::string::npos);
}

std::string VerdictOf(const std::function<void(RunResult&)>& change) {
  RunResult r = Example();
  change(r);
  return Verdict(r);
}

TEST(Verdict, GoodDecodeSaysWhatIsLeft) {
  EXPECT_EQ(
      Verdict(Example()),
      "Decode reads weights and KV cache at 24.2 GB/s, 71 % of the 34.1 GB/s that this device's memory delivers, so "
      "at most 1.4x is left to gain; prefill computes at 320 GFLOP/s, 25 % of the 1.30 TFLOP/s (bf16) that a "
      "matrix product alone reaches.");
}

TEST(Verdict, DiffersByShareOfTheLimit) {
  EXPECT_NE(VerdictOf([](RunResult& r) { r.limits.mbu = 0.9; }).find("at the limit of this device"), std::string::npos);
  EXPECT_NE(VerdictOf([](RunResult& r) { r.limits.mbu = 0.2; }).find("up to 5.0x as fast"), std::string::npos);
  EXPECT_NE(VerdictOf([](RunResult& r) { r.limits.mbu = 1.6; }).find("more than the memory can give"),
            std::string::npos);
}

TEST(Verdict, UsesWhatIsKnown) {
  EXPECT_EQ(VerdictOf([](RunResult& r) { r.limits.mbu.reset(); }).substr(0, 19), "Prefill computes at");
  const std::string decode_only = VerdictOf([](RunResult& r) { r.limits.flops = std::nan(""); });
  EXPECT_EQ(decode_only.find("prefill"), std::string::npos) << decode_only;
  EXPECT_EQ(VerdictOf([](RunResult& r) { r.limits = {}; }),
            "Decode makes 160.3 ± 0.8 tokens/s, but the device's own limits were not measured, so how good that is "
            "stays unknown.");
}

TEST(Verdict, SaysFirstWhatForbidsTrust) {
  EXPECT_EQ(VerdictOf([](RunResult& r) { r.accuracy.verdict = "failed"; }).substr(0, 26), "Do not use these numbers, ");
  EXPECT_EQ(VerdictOf([](RunResult& r) {
              r.status = "interrupted";
              r.trials.resize(2);
            }).substr(0, 52),
            "Interrupted after 2 of 5 trials, so provisional: dec");
  EXPECT_NE(VerdictOf([](RunResult& r) {
              r.metrics.decode_tps = SummarizeRate(std::vector<double>{100, 150, 120});
            }).find("differ so much (± 51 %)"),
            std::string::npos);
  EXPECT_TRUE(VerdictOf([](RunResult& r) {
                r.model.weights = "synthetic";
              }).ends_with("the weights are synthetic: the speed is real, the text is not."));
}

TEST(Table, AlignsByWidthOnTheTerminal) {
  Table table({Align::kLeft, Align::kRight, Align::kLeft});
  table.AddRow({"算力", "1", ""});
  table.AddRow({"abcdef", "23 ± 4"});
  EXPECT_EQ(table.Render(" "), " 算力         1\n abcdef  23 ± 4\n");
  EXPECT_EQ(DisplayWidth("é\u0301"), 1u);
  EXPECT_EQ(DisplayWidth("\xff\xfe"), 2u);
}

TEST(Table, WrapsAtSpaces) {
  EXPECT_EQ(Wrap("one two three four", 10, "  "), "  one two\n  three\n  four\n");
  EXPECT_EQ(Wrap("averyverylongword x", 5, ""), "averyverylongword\nx\n");
  EXPECT_EQ(Wrap("", 5, ""), "");
}

}  // namespace
}  // namespace assay::bench
