// SPDX-License-Identifier: Apache-2.0
// assay kernels: single operations beside the roofline of the device.
#include <functional>
#include <iostream>
#include <map>

#include "bench/claims/build_gap.h"
#include "bench/claims/card_of_device.h"
#include "bench/cli/commands.h"
#include "bench/cli/progress.h"
#include "bench/conform/conform.h"
#include "bench/limits/probes.h"
#include "bench/report/table.h"
#include "bench/result/write.h"
#include "bench/stats/format.h"
#include "runtime/core/dtype.h"

namespace assay::cli {
namespace {

using bench::Align;
using bench::CaseReport;
using bench::Json;

constexpr double kProbeS = 0.4;

struct KernelsCommandOptions {
  bench::ModelSpec spec;
  std::string filter;
  bool json = false;
};

// The weight dtype of a case, or NONE: the text holds " w=q4_1".
assay_dtype WeightDType(const std::string& text) {
  const size_t at = text.find(" w=");
  if (at == std::string::npos) return ASSAY_DTYPE_NONE;
  return DTypeOfName(text.substr(at + 3, text.find(' ', at + 1) - at - 3));
}

// What the device attains, of everything that a model may be made of.
struct Ceilings {
  double read = 0, copy = 0, cache = 0, launch_s = 0;
  std::map<assay_dtype, double> flops;  // a product of 1024 x 2048 x 2048

  Ceilings(const std::shared_ptr<Device>& device, const std::function<void(const std::string&)>& progress) {
    progress("measuring the memory");
    read = bench::ProbeReadBandwidth(device, bench::ProbeBytes(device->info()), kProbeS).best;
    copy = bench::ProbeCopyBandwidth(device, kProbeS).best;
    cache = bench::ProbeReadBandwidth(device, bench::kCacheBytes, kProbeS).best;
    launch_s = bench::ProbeLaunch(device, kProbeS);
    for (const assay_dtype dtype : device->info().weight_dtypes) {
      if (dtype == ASSAY_DTYPE_NONE || device->info().is_reference) break;  // a scalar product would take minutes
      progress(std::string("measuring matrix products in ") + DTypeName(dtype));
      flops[dtype] =
          bench::ProbeMatmul(device,
                             bench::LargeProduct(device->info(), dtype, ASSAY_DTYPE_NONE, device->info().act_dtypes[0]),
                             kProbeS)
              .best;
    }
  }
  double Flops(assay_dtype dtype) const { return flops.count(dtype) ? flops.at(dtype) : 0; }
};

// The limits beside what is claimed of the card.
std::string RenderLimits(const Ceilings& c, const bench::CardMatch& match) {
  std::optional<bench::Card> card;
  if (match.card) card = bench::DevicesOf(*match.card, 1);
  bench::Table table({Align::kLeft, Align::kRight, Align::kRight, Align::kRight});
  table.AddRow({"limit", "attained", "claimed", "of the claim"});
  const auto row = [&](const std::string& name, double value, const std::string& unit, const std::string& key) {
    const bench::Figure* figure = card ? card->Find(key) : nullptr;
    const bool known = figure && figure->value;
    table.AddRow({name, bench::FormatScaled(value, unit),
                  known ? bench::FormatScaled(bench::DenseValue(*figure), unit) : "",
                  known ? bench::FormatPercent(value / bench::DenseValue(*figure)) : ""});
  };
  row("read, 256 MiB", c.read, "B/s", "bytes_per_s");
  row("copy, read and written", c.copy, "B/s", "bytes_per_s");
  row("read, 16 MiB", c.cache, "B/s", "");
  for (const auto& [dtype, flops] : c.flops) {
    row(std::string("matrix product ") + DTypeName(dtype), flops, "FLOP/s", card ? bench::PeakKey(*card, dtype) : "");
  }
  table.AddRow({"launch, and its end known", bench::FormatNumber(c.launch_s * 1e6) + " us", "", ""});
  return table.Render("");
}

Json LimitsJson(const Ceilings& c) {
  Json flops = Json::object();
  for (const auto& [dtype, value] : c.flops) flops[DTypeName(dtype)] = value;
  return {{"read_bytes_per_s", c.read},
          {"copy_bytes_per_s", c.copy},
          {"cache_bytes_per_s", c.cache},
          {"launch_us", c.launch_s * 1e6},
          {"flops", flops}};
}

struct Row {
  const CaseReport* report;
  double bandwidth_share, flops_share;  // 0: does not apply
};

std::string ShareText(double share) {
  return share > 0 ? bench::FormatPercent(share) : "";
}

int RunKernels(const KernelsCommandOptions& o) {
  const DeviceChoice choice = ChooseDevice(o.spec.device);
  const auto device = Device::Open(choice.backend, choice.index, o.spec.threads);
  Progress progress;
  const Ceilings ceilings(device, [&](const std::string& text) { progress.Show(text); });
  bench::ConformOptions options;
  options.mode = bench::ConformMode::kPerf;
  options.filter = o.filter;
  const auto report =
      bench::RunConformance(device, options, [&](const CaseReport& c) { progress.Show("timing " + c.text); });
  if (report.cases.empty()) throw Error("--filter " + o.filter + ": no case matches; see assay conform --mode list");
  std::vector<Row> rows;
  for (const CaseReport& c : report.cases) {
    if (c.status != bench::CaseStatus::kPassed) continue;
    const assay_dtype dtype = WeightDType(c.text);
    const double flops = dtype != ASSAY_DTYPE_NONE && c.gflop_per_s > 0 ? ceilings.Flops(dtype) : 0;
    rows.push_back({&c, c.gb_per_s * 1e9 / ceilings.read, flops > 0 ? c.gflop_per_s * 1e9 / flops : 0});
  }
  progress.Clear();

  Json json = {{"device", device->info().id},
               {"bytes_per_s", ceilings.read},
               {"limits", LimitsJson(ceilings)},
               {"kernels", Json::array()}};
  bench::Table table({Align::kLeft, Align::kRight, Align::kRight, Align::kRight, Align::kRight, Align::kRight});
  table.AddRow({"case", "median", "GB/s", "of read", "GFLOP/s", "of matmul"});
  for (const Row& r : rows) {
    const CaseReport& c = *r.report;
    table.AddRow({c.text, bench::FormatNumber(c.median_ns * 1e-3) + " us", bench::FormatNumber(c.gb_per_s),
                  ShareText(r.bandwidth_share), c.gflop_per_s > 0 ? bench::FormatNumber(c.gflop_per_s) : "",
                  ShareText(r.flops_share)});
    json["kernels"].push_back({{"case", c.text},
                               {"median_ns", c.median_ns},
                               {"gb_per_s", c.gb_per_s},
                               {"bandwidth_share", r.bandwidth_share},
                               {"gflop_per_s", c.gflop_per_s > 0 ? Json(c.gflop_per_s) : Json()},
                               {"flops_share", r.flops_share > 0 ? Json(r.flops_share) : Json()}});
  }
  if (o.json) {
    std::cout << bench::Dump(json) << std::endl;
  } else {
    const bench::CardMatch match = bench::CardOfDevice(device->info());
    std::cout << bench::Printable(std::string(device->info().id) + ": " + device->info().name) << "\n"
              << bench::Wrap(
                     bench::Printable("claims: " + match.why) + (match.card && !match.sure ? " (not sure)" : ""), 100,
                     "")
              << RenderLimits(ceilings, match) << "\n"
              << table.Render("");
  }
  return 0;
}

}  // namespace

void AddKernels(CLI::App& app, Run* run) {
  CLI::App* command = app.add_subcommand("kernels", "Time single operations beside the limits of the device");
  auto o = std::make_shared<KernelsCommandOptions>();
  AddDeviceOptions(*command, &o->spec);
  command->add_option("--filter", o->filter, "Only cases in whose text this regular expression is found")
      ->type_name("REGEX");
  command->add_flag("--json", o->json, "One JSON document on standard output");
  command->callback([=] { *run = [=] { return RunKernels(*o); }; });
}

}  // namespace assay::cli
