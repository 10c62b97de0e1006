// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>

#include "bench/conform/case_text.h"
#include "bench/conform/conform.h"
#include "bench/conform/problem.h"
#include "runtime/core/dtype.h"

namespace assay::bench {
namespace {

// Sanitized kernels are slow. A prime, so that the sample meets all combinations.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int64_t kEvery = 7;
#else
constexpr int64_t kEvery = 1;
#endif

std::shared_ptr<Device> OpenDevice(const std::string& spec) {
  const DeviceChoice choice = ChooseDevice(spec);
  return Device::Open(choice.backend, choice.index, 0);
}

std::string Failures(const ConformReport& report) {
  std::string text;
  for (const CaseReport& c : report.cases) {
    if (c.status == CaseStatus::kFailed) text += "\n" + c.where + " " + c.text + ": " + c.detail;
  }
  return text;
}

void ExpectConforms(const std::string& device, const std::string& filter) {
  ConformOptions options;
  options.filter = filter;
  if (filter == "^linear " || filter == "^attn_paged ") options.every = kEvery;
  const ConformReport report = RunConformance(OpenDevice(device), options, {});
  EXPECT_TRUE(report.passed()) << report.Count(CaseStatus::kFailed) << " cases failed:" << Failures(report);
  // A composite may be refused as a whole.
  if (filter != "^qk_norm_rope_kv_write ") {
    EXPECT_GT(report.Count(CaseStatus::kPassed), 0);
  }
}

// One test per operation, so that a failure names it and the runs share the machine's cores.
class CpuConforms : public testing::TestWithParam<std::string> {};
TEST_P(CpuConforms, AllCases) {
  ExpectConforms("cpu", "^" + GetParam() + " ");
}
std::vector<std::string> Ops() {
  std::vector<std::string> ops;
  for (const CaseFile& file : ConformanceCases()) ops.push_back(file.name);
  return ops;
}
INSTANTIATE_TEST_SUITE_P(Ops, CpuConforms, testing::ValuesIn(Ops()), [](const auto& info) { return info.param; });

TEST(Conformance, TheReferencePassesItself) {
  ExpectConforms("ref", "^(embed|rope|rms_norm|add_rms_norm|glu|add_scale|cast|sample|logprobs|kv_block_copy) ");
  ExpectConforms("ref", "^linear .*dtype=f32 .*k=(128|384) .*w=(f8_b128|i4_g128)");
  ExpectConforms("ref", "^linear .*k=(5|576) .*w=(f8_e4m3|i8)");
}

// ------------------------------------------------------------------------------------------ wrong backends

struct Fault {
  friend void PrintTo(const Fault& fault, std::ostream* out) { *out << fault.name << " " << fault.filter; }
  const char* name;
  const char* filter;    // cases that must find it
  const char* evidence;  // in the detail of a failed case
};

class BrokenBackend : public testing::TestWithParam<Fault> {
 protected:
  void SetUp() override { setenv("ASSAY_BROKEN", GetParam().name, 1); }
  void TearDown() override { unsetenv("ASSAY_BROKEN"); }
};

// Every case that the filter selects and in which the fault can show must fail, not only some.
TEST_P(BrokenBackend, IsFoundOutByEveryCase) {
  const Fault& fault = GetParam();
  ConformOptions options;
  options.filter = fault.filter;
  options.every = kEvery;
  const ConformReport report = RunConformance(OpenDevice(ASSAY_BROKEN_BACKEND), options, {});
  EXPECT_FALSE(report.passed());
  EXPECT_NE(Failures(report).find(fault.evidence), std::string::npos) << Failures(report).substr(0, 2000);
  for (const CaseReport& c : report.cases) {
    EXPECT_NE(c.status, CaseStatus::kPassed) << c.text << " passed although the backend is broken";
  }
}

const Fault kFaults[] = {
    {"dropped_bias", "^linear bias=1 .*dtype=f32", "the reference has"},
    {"half_precision", "^linear .*compute=f32 .*k=(576|1536|8192) ", "the reference has"},
    {"window_off_by_one", "^attn_paged .*kv=f32 .*window=7$", "the reference has"},
    {"window_off_by_one", "^attn_paged .*kv=bf16 .*window=7$", "the reference has"},
    {"attention_scale", "^attn_paged .*kv=f32 .*kvlens=(513|4099|5,37)", "the reference has"},
    {"mask_off_by_one", "^attn_paged .*kvlens=(5,37|70|513,700|4099) ", "the reference has"},
    {"eps", "^rms_norm .*scale=1e-3", "the reference has"},
    {"second_token", "^sample .*vocab=(1001|37|501|301|257)( |$)", "got"},
    {"past_the_end", "^(rms_norm|glu|linear|embed) .*(cols=576|features=1537|n=192)", "after its end"},
    {"past_the_end", "^(glu|add_rms_norm) .*gap=[35]", "written"},
    {"modified_input", "^(glu|add_rms_norm|linear) .*(cols=576|features=1537|n=192)", "an input was modified"},
    {"not_repeatable", "^(rms_norm|glu|linear|embed) .*(cols=576|features=1537|n=192)", "two runs differ"},
    {"missing_row", "^glu .*tokens=[1235]$", "an element was not written"},
    {"no_rope", "^rope .*scaling=llama3", "required, refused: left out on purpose"},
};
INSTANTIATE_TEST_SUITE_P(Faults, BrokenBackend, testing::ValuesIn(kFaults),
                         [](const auto& info) { return std::string(info.param.name) + std::to_string(info.index); });

TEST(Conformance, WithoutAFaultTheShimPasses) {
  ExpectConforms(ASSAY_BROKEN_BACKEND, "^(rms_norm|glu) ");
}

// ------------------------------------------------------------------------------------------ tolerances

// Rows of k elements.
std::vector<float> Rounded(assay_dtype to, const std::vector<float>& x, int64_t k) {
  std::vector<uint8_t> bytes(DTypeBytes(to, x.size()));
  std::vector<float> back(x.size());
  for (size_t at = 0; IsRowScaled(to) && at < x.size(); at += k) {
    const float scale = ScaleFor(to, &x[at], k);
    Quantize(to, &x[at], scale, &bytes[at], k);
    Dequantize(to, &bytes[at], scale, &back[at], k);
  }
  if (IsRowScaled(to)) return back;
  ConvertElements(ASSAY_F32, x.data(), to, bytes.data(), x.size());
  ConvertElements(to, bytes.data(), ASSAY_F32, back.data(), x.size());
  return back;
}

// How many elements of y leave the tolerance of linear when x, and the weights, are rounded before they are multiplied.
int64_t OutsideOfTolerance(assay_dtype weight, assay_dtype x_to, assay_dtype w_to) {
  const int64_t m = 4, n = 512, k = 1024;
  const std::string text = "linear m=4 n=512 k=1024 dtype=f32 w=" + std::string(DTypeName(weight));
  const assay_device_info info{};
  const Problem problem = BuildProblem(ParseCases({{"file", text}}, info).at(0), info);
  const std::vector<float> x = problem.tensors[0].Floats(), w = problem.tensors[1].Floats();
  const std::vector<float> xr = Rounded(x_to, x, k), wr = Rounded(w_to, w, k);
  int64_t outside = 0;
  for (int64_t i = 0; i < m * n; ++i) {
    double error = 0;
    for (int64_t l = 0; l < k; ++l) {
      const size_t at_x = i / n * k + l, at_w = i % n * k + l;
      error += double{xr[at_x]} * wr[at_w] - double{x[at_x]} * w[at_w];
    }
    outside += std::abs(error) > problem.tensors[2].tolerance[i];
  }
  return outside;
}

TEST(LinearTolerance, AllowsWhatTheAbiAllows) {
  const assay_dtype f32 = ASSAY_F32;
  EXPECT_EQ(OutsideOfTolerance(ASSAY_BF16, ASSAY_BF16, f32), 0);
  for (const assay_dtype weight : {ASSAY_Q4_1, ASSAY_I4_G128}) {
    EXPECT_EQ(OutsideOfTolerance(weight, ASSAY_BF16, ASSAY_BF16), 0) << DTypeName(weight);
    EXPECT_EQ(OutsideOfTolerance(weight, ASSAY_Q8_0, f32), 0) << DTypeName(weight);
  }
  EXPECT_EQ(OutsideOfTolerance(ASSAY_F8_B128, ASSAY_BF16, ASSAY_BF16), 0);
  EXPECT_EQ(OutsideOfTolerance(ASSAY_F8_B128, ASSAY_F8_B128, f32), 0);
  for (const assay_dtype weight : {ASSAY_F8_E4M3, ASSAY_I8}) {
    EXPECT_EQ(OutsideOfTolerance(weight, ASSAY_BF16, ASSAY_BF16), 0) << DTypeName(weight);
    EXPECT_EQ(OutsideOfTolerance(weight, weight, f32), 0) << DTypeName(weight);
  }
}

TEST(LinearTolerance, FindsCoarserRounding) {
  const assay_dtype f32 = ASSAY_F32;
  EXPECT_GT(OutsideOfTolerance(ASSAY_BF16, ASSAY_Q8_0, f32), 5);
  for (const assay_dtype weight : {ASSAY_Q4_1, ASSAY_I4_G128}) {
    EXPECT_GT(OutsideOfTolerance(weight, ASSAY_F8_B128, f32), 5) << DTypeName(weight);
  }
  EXPECT_GT(OutsideOfTolerance(ASSAY_F8_B128, ASSAY_I4_G128, f32), 5);
  EXPECT_GT(OutsideOfTolerance(ASSAY_F8_B128, f32, ASSAY_I4_G128), 5);
  EXPECT_GT(OutsideOfTolerance(ASSAY_F8_E4M3, ASSAY_I4_G128, f32), 5);
  EXPECT_GT(OutsideOfTolerance(ASSAY_I8, ASSAY_F8_E4M3, f32), 5);
}

// ------------------------------------------------------------------------------------------ the driver

TEST(Conformance, OptionalOperationsAreSkippedWithTheirReason) {
  ConformOptions options;
  options.filter = "^qk_norm_rope_kv_write .*kv=f32";
  const ConformReport report = RunConformance(OpenDevice(ASSAY_BROKEN_BACKEND), options, {});
  EXPECT_TRUE(report.passed());
  bool refused = false;
  for (const auto& [reason, count] : report.SkipReasons()) {
    refused = refused || reason == "optional, refused: left out on purpose";
  }
  EXPECT_TRUE(refused);
}

TEST(Conformance, WhatTheDeviceDoesNotDeclareIsCounted) {
  ConformOptions options;
  options.filter = "^glu ";
  options.mode = ConformMode::kList;
  const ConformReport report = RunConformance(OpenDevice("cpu"), options, {});
  EXPECT_GT(report.Count(CaseStatus::kSkipped), 0);
  ASSERT_FALSE(report.SkipReasons().empty());
  EXPECT_NE(report.SkipReasons()[0].first.find("not declared"), std::string::npos);
  int64_t called = 0;
  RunConformance(OpenDevice("cpu"), options, [&](const CaseReport&) { ++called; });
  EXPECT_EQ(called, static_cast<int64_t>(report.cases.size()));
}

TEST(Conformance, PerfTimesTheModelShapedCases) {
  ConformOptions options;
  options.filter = "^(rms_norm|linear .*k=4096 m=1 n=4096 .*w=q4_0)";
  options.mode = ConformMode::kPerf;
  options.perf_seconds = 0.001;
  options.perf_bytes = 1 << 20;
  const ConformReport report = RunConformance(OpenDevice("cpu"), options, {});
  EXPECT_TRUE(report.passed()) << Failures(report);
  bool product = false;
  for (const CaseReport& c : report.cases) {
    if (c.status == CaseStatus::kSkipped) continue;
    EXPECT_GE(c.repetitions, 10);
    EXPECT_GT(c.median_ns, 0);
    EXPECT_GE(c.median_ns, c.min_ns);
    EXPECT_GT(c.gb_per_s, 0);
    product = product || c.gflop_per_s > 0;
  }
  EXPECT_TRUE(product);
}

TEST(Conformance, ReportAsJson) {
  ConformOptions options;
  options.filter = "^glu .*tokens=5";
  const ConformReport report = RunConformance(OpenDevice("cpu"), options, {});
  const auto json = nlohmann::json::parse(ConformJson(report));
  EXPECT_EQ(json["schema"], "assay.conform/1");
  EXPECT_EQ(json["device"]["id"], "cpu");
  EXPECT_EQ(json["passed"], report.Count(CaseStatus::kPassed));
  EXPECT_EQ(json["cases"].size(), report.cases.size());
}

TEST(Conformance, BadFiltersAreRefused) {
  ConformOptions options;
  options.filter = "(";
  EXPECT_THROW(RunConformance(OpenDevice("cpu"), options, {}), Error);
  options.filter = "^no_such_op ";
  EXPECT_THROW(RunConformance(OpenDevice("cpu"), options, {}), Error);
}

// ------------------------------------------------------------------------------------------ case files

std::vector<ConformCase> Parse(const std::string& text) {
  assay_device_info info{};
  info.kv_block_sizes[0] = 16;
  info.kv_block_sizes[1] = 64;
  return ParseCases({{"file", text}}, info);
}

TEST(CaseText, AlternativesMultiply) {
  const auto cases = Parse("# nothing\n\nop a=1|2 b=x|y c=3  # comment\n");
  ASSERT_EQ(cases.size(), 4u);
  EXPECT_EQ(cases[1].text(), "op a=1 b=y c=3");
  EXPECT_EQ(cases[0].where(), "file.txt:3");
}

TEST(CaseText, BlocksOfTheDeviceAndNumbersInBlocks) {
  const auto cases = Parse("op block=device lens=b-1,b,2b+1,7");
  ASSERT_EQ(cases.size(), 2u);
  EXPECT_EQ(cases[1].Ints("lens"), (std::vector<int32_t>{63, 64, 129, 7}));
}

TEST(CaseText, MistakesNameTheLine) {
  const auto expect = [](const std::string& text, const auto& use, const std::string& complaint) {
    try {
      use(Parse(text).at(0));
      FAIL() << text << " was accepted";
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("file.txt:1"), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find(complaint), std::string::npos) << e.what();
    }
  };
  const auto check = [](const ConformCase& c) { c.CheckAllRead(); };
  expect("op nonsense", check, "not key=value");
  expect("op colls=1", check, "no key 'colls'");
  expect(
      "op rows=1x", [](const ConformCase& c) { c.Int("rows"); }, "not a whole number");
  expect(
      "op cols=1", [](const ConformCase& c) { c.Int("rows"); }, "needs rows=");
  expect(
      "op dtype=f99", [](const ConformCase& c) { c.DType("dtype"); }, "not a dtype");
}

}  // namespace
}  // namespace assay::bench
