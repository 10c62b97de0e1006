// SPDX-License-Identifier: Apache-2.0
// assay kernels: single operations beside the roofline of the device.
#include <fmt/format.h>

#include <iostream>
#include <map>

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

constexpr double kProbeS = 0.7;

struct Options {
  bench::ModelSpec spec;
  std::string filter;
  bool json = false;
};

// The weight dtype of a case, or NONE: the text holds " w=q4_1".
assay_dtype WeightDType(const std::string& text) {
  const size_t at = text.find(" w=");
  if (at == std::string::npos) return ASSAY_DTYPE_NONE;
  const std::string name = text.substr(at + 3, text.find(' ', at + 1) - at - 3);
  for (const assay_dtype d : {ASSAY_F32, ASSAY_F16, ASSAY_BF16, ASSAY_Q8_0, ASSAY_Q4_0, ASSAY_Q4_1}) {
    if (name == DTypeName(d)) return d;
  }
  return ASSAY_DTYPE_NONE;
}

// Measured once per dtype, when a case needs it.
class Ceilings {
 public:
  explicit Ceilings(std::shared_ptr<Device> device)
      : device_(std::move(device)), bytes_per_s_(bench::ProbeReadBandwidth(device_, kProbeS).best) {}
  double bytes_per_s() const { return bytes_per_s_; }
  double Flops(assay_dtype dtype) {
    auto [it, fresh] = flops_.try_emplace(dtype, 0.0);
    if (fresh) {
      it->second = bench::ProbeMatmul(device_, dtype, ASSAY_DTYPE_NONE, device_->info().act_dtypes[0], kProbeS).best;
    }
    return it->second;
  }

 private:
  std::shared_ptr<Device> device_;
  double bytes_per_s_;
  std::map<assay_dtype, double> flops_;
};

struct Row {
  const CaseReport* report;
  double bandwidth_share, flops_share;  // 0: does not apply
};

std::string ShareText(double share) {
  return share > 0 ? bench::FormatPercent(share) : "";
}

int RunKernels(const Options& o) {
  const DeviceChoice choice = ChooseDevice(o.spec.device);
  const auto device = Device::Open(choice.backend, choice.index, o.spec.threads);
  Progress progress;
  progress.Show("measuring the limits");
  Ceilings ceilings(device);
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
    rows.push_back({&c, c.gb_per_s * 1e9 / ceilings.bytes_per_s(), flops > 0 ? c.gflop_per_s * 1e9 / flops : 0});
  }
  progress.Clear();

  Json json = {{"device", device->info().id}, {"bytes_per_s", ceilings.bytes_per_s()}, {"kernels", Json::array()}};
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
    std::cout << fmt::format(
                     "{}: {} reads {} with all threads; a product of 1024 x 2048 x 2048 in the same dtype is the other "
                     "limit\n",
                     device->info().id, device->info().name, bench::FormatScaled(ceilings.bytes_per_s(), "B/s"))
              << table.Render("");
  }
  return 0;
}

}  // namespace

void AddKernels(CLI::App& app, Run* run) {
  CLI::App* command = app.add_subcommand("kernels", "Time single operations beside the limits of the device");
  auto o = std::make_shared<Options>();
  AddDeviceOptions(*command, &o->spec);
  command->add_option("--filter", o->filter, "Only cases in whose text this regular expression is found")
      ->type_name("REGEX");
  command->add_flag("--json", o->json, "One JSON document on standard output");
  command->callback([=] { *run = [=] { return RunKernels(*o); }; });
}

}  // namespace assay::cli
