// SPDX-License-Identifier: Apache-2.0
// assay conform: a device's operations held against the reference, one by one.
#include "bench/conform/conform.h"

#include <fmt/format.h>

#include <iostream>

#include "bench/cli/commands.h"
#include "bench/cli/progress.h"
#include "bench/report/table.h"
#include "bench/stats/format.h"

namespace assay::cli {
namespace {

using bench::Align;
using bench::CaseReport;
using bench::CaseStatus;
using bench::ConformMode;
using bench::ConformReport;

struct ConformCommandOptions {
  bench::ModelSpec spec;
  std::string filter;
  int64_t every = 1;
  uint64_t seed = 0;
  std::string mode = "test";
  bool json = false;
};

void PrintTest(const ConformReport& report) {
  bench::Table table({Align::kLeft, Align::kRight, Align::kRight, Align::kRight, Align::kRight});
  table.AddRow({"operation", "passed", "failed", "skipped", "worst error / tolerance"});
  for (size_t i = 0; i < report.cases.size();) {
    const std::string& op = report.cases[i].op;
    int64_t counts[3] = {0, 0, 0};
    double worst = 0;
    for (; i < report.cases.size() && report.cases[i].op == op; ++i) {
      ++counts[static_cast<int>(report.cases[i].status)];
      worst = std::max(worst, report.cases[i].worst_error);
    }
    table.AddRow({op, std::to_string(counts[0]), std::to_string(counts[1]), std::to_string(counts[2]),
                  bench::FormatNumber(worst, 2)});
  }
  std::cout << table.Render("");
  for (const CaseReport& c : report.cases) {
    if (c.status == CaseStatus::kFailed) {
      std::cout << fmt::format("FAILED {} ({}): {}\n", bench::Printable(c.text), c.where, bench::Printable(c.detail));
    }
  }
  for (const auto& [reason, n] : report.SkipReasons()) std::cout << fmt::format("skipped {}: {}\n", n, reason);
  std::cout << fmt::format("{} ({}) against {}: {} passed, {} failed, {} skipped\n", report.device_id, report.backend,
                           report.reference, report.Count(CaseStatus::kPassed), report.Count(CaseStatus::kFailed),
                           report.Count(CaseStatus::kSkipped));
}

void PrintPerf(const ConformReport& report) {
  bench::Table table({Align::kLeft, Align::kRight, Align::kRight, Align::kRight});
  table.AddRow({"case", "median", "GB/s", "GFLOP/s"});
  for (const CaseReport& c : report.cases) {
    if (c.status == CaseStatus::kPassed) {
      table.AddRow({c.text, bench::FormatNumber(c.median_ns * 1e-3) + " us", bench::FormatNumber(c.gb_per_s),
                    c.gflop_per_s > 0 ? bench::FormatNumber(c.gflop_per_s) : ""});
    }
  }
  std::cout << table.Render("");
}

int RunConform(const ConformCommandOptions& o) {
  const DeviceChoice choice = ChooseDevice(o.spec.device);
  const auto device = Device::Open(choice.backend, choice.index, o.spec.threads);
  bench::ConformOptions options;
  options.filter = o.filter;
  options.every = o.every;
  options.seed = o.seed;
  options.mode = o.mode == "perf" ? ConformMode::kPerf : o.mode == "list" ? ConformMode::kList : ConformMode::kTest;
  Progress progress;
  int64_t done = 0;
  const ConformReport report = bench::RunConformance(
      device, options, [&](const CaseReport& c) { progress.Show(fmt::format("{} cases, {}", ++done, c.op)); });
  progress.Clear();
  if (report.cases.empty()) throw Error("--op " + o.filter + ": no case matches; --mode list shows all");
  if (o.json) {
    std::cout << bench::ConformJson(report) << std::endl;
  } else if (options.mode == ConformMode::kList) {
    for (const CaseReport& c : report.cases) {
      std::cout << c.text << (c.status == CaseStatus::kSkipped ? "  (skipped: " + c.detail + ")" : "") << "\n";
    }
  } else if (options.mode == ConformMode::kPerf) {
    PrintPerf(report);
  } else {
    PrintTest(report);
  }
  return report.passed() ? 0 : 1;
}

}  // namespace

void AddConform(CLI::App& app, Run* run) {
  CLI::App* command = app.add_subcommand("conform", "Check a device's operations against the reference, one by one");
  auto o = std::make_shared<ConformCommandOptions>();
  AddDeviceOptions(*command, &o->spec);
  command->add_option("--op", o->filter, "Only cases in whose text this regular expression is found")
      ->type_name("REGEX");
  command->add_option("--every", o->every, "Of these cases only every N-th: a quick look")
      ->check(CLI::Range(int64_t{1}, int64_t{1000000}))
      ->type_name("N");
  command->add_option("--seed", o->seed, "Other random inputs")->type_name("N");
  command->add_option("--mode", o->mode, "test, perf (times model-shaped cases) or list")
      ->check(CLI::IsMember({"test", "perf", "list"}))
      ->capture_default_str()
      ->type_name("MODE");
  command->add_flag("--json", o->json, "One JSON document on standard output");
  command->footer(
      "\nInputs are random, the same for a --seed on every machine; outputs are poisoned before each run and their "
      "surroundings "
      "checked\n"
      "after it; every case runs twice and must give the same bits. Tolerances follow from dtype and reduction "
      "length.\n"
      "Exit code 1: a case failed.");
  command->callback([=] { *run = [=] { return RunConform(*o); }; });
}

}  // namespace assay::cli
