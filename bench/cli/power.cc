// SPDX-License-Identifier: Apache-2.0
// assay power: what a meter reads, how often it is updated, and how far it can be trusted.
#include "bench/power/power.h"

#include <fmt/format.h>

#include <iostream>
#include <thread>

#include "bench/cli/commands.h"
#include "bench/cli/progress.h"
#include "bench/report/table.h"
#include "bench/result/write.h"
#include "bench/stats/format.h"
#include "runtime/core/interrupt.h"

namespace assay::cli {
namespace {

using bench::FormatNumber;
using bench::Json;

struct PowerCommandOptions {
  bench::ModelSpec spec;
  std::string meter = "auto";
  double seconds = 10;
  bool json = false;
};

// The meter of a device needs the device; others do not, and must not fail for want of one.
std::shared_ptr<Device> OpenDevice(const PowerCommandOptions& o) {
  if (o.spec.device.empty() && o.meter != "auto" && o.meter != "telemetry") return nullptr;
  const DeviceChoice choice = ChooseDevice(o.spec.device);
  return Device::Open(choice.backend, choice.index, o.spec.threads);
}

bench::MeterRecord Watch(std::unique_ptr<bench::Meter> meter, double seconds, bench::Window* window) {
  Progress progress;
  bench::Sampler sampler(std::move(meter));
  sampler.WaitFor(bench::NowSeconds(), std::max(2 * sampler.info().period_s, 1.0));
  window->begin_s = bench::NowSeconds();
  while ((window->end_s = bench::NowSeconds()) < window->begin_s + seconds) {
    ThrowIfInterrupted();
    progress.Show(fmt::format("reading {}: {:.0f} of {:.0f} s", sampler.info().source, window->seconds(), seconds));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return sampler.Record();
}

std::string Seconds(const std::optional<double>& s) {
  return s ? FormatNumber(*s) + " s" : bench::kUnknown;
}

struct Report {
  bench::MeterRecord record;
  bench::Window window;
  std::optional<bench::WindowEnergy> energy;
  bench::GradeReason grade;
  std::optional<double> change_s;
};

Report Judge(bench::MeterRecord record, const bench::Window& window) {
  Report report{std::move(record), window, std::nullopt, {"none", {}}, std::nullopt};
  report.change_s = bench::ChangePeriod(report.record, window);
  auto energy = bench::EnergyWithin(report.record, window);
  if (!energy.ok()) {
    report.grade.why = {energy.error()};
    return report;
  }
  const bench::WindowEnergy& e = energy.value();
  report.energy = e;
  report.grade =
      bench::GradeOf({.constant = report.record.info.constant,
                      .scope = report.record.info.scope,
                      .seconds = e.window.seconds(),
                      .updates = e.updates,
                      .period_s = e.period_s,
                      .cross_ratio = e.cross_energy_j ? std::optional(*e.cross_energy_j / e.energy_j) : std::nullopt,
                      .spread = std::nullopt});
  return report;
}

void Print(const Report& r) {
  const bench::MeterInfo& info = r.record.info;
  bench::Table table({bench::Align::kLeft, bench::Align::kLeft});
  table.AddRow({"meter", bench::Printable(info.source)});
  table.AddRow({"scope", info.scope.empty() ? bench::kUnknown : info.scope});
  table.AddRow({"read", fmt::format("every {} s, {} readings in {} s", FormatNumber(info.period_s),
                                    r.record.readings.size(), FormatNumber(r.window.seconds()))});
  if (!info.constant) table.AddRow({"updated", "every " + Seconds(r.change_s) + ", as seen"});
  if (r.energy) {
    const bench::WindowEnergy& e = *r.energy;
    table.AddRow(
        {"power", fmt::format("{} W on average, {} W at most", FormatNumber(e.mean_w()), FormatNumber(e.peak_w))});
    table.AddRow({"energy", fmt::format("{} J in {} s", FormatNumber(e.energy_j), FormatNumber(e.window.seconds()))});
    if (e.cross_energy_j) {
      table.AddRow({"cross-check", "the integral of its powers is " +
                                       bench::FormatPercent(*e.cross_energy_j / e.energy_j) + " of its counter"});
    }
    if (e.mean_clock_mhz) table.AddRow({"clock", FormatNumber(*e.mean_clock_mhz, 4) + " MHz on average"});
    if (e.max_temperature_c) table.AddRow({"temperature", FormatNumber(*e.max_temperature_c) + " C at most"});
    if (e.throttled_s) {
      table.AddRow({"throttled", bench::FormatPercent(*e.throttled_s / e.window.seconds()) + " of the time"});
    }
  }
  if (info.limit_w) table.AddRow({"limit", FormatNumber(*info.limit_w) + " W"});
  std::string why;
  for (const std::string& reason : r.grade.why) why += (why.empty() ? "" : "; ") + reason;
  table.AddRow({"grade", r.grade.grade + ": " + bench::Printable(why)});
  for (const std::string& note : info.notes) table.AddRow({"note", bench::Printable(note)});
  if (!r.record.faults.empty()) {
    table.AddRow({"faults",
                  fmt::format("{}; the first: {}", r.record.faults.size(), bench::Printable(r.record.faults[0].text))});
  }
  std::cout << table.Render("");
}

Json ToJson(const Report& r) {
  const auto value = [](const std::optional<double>& x) { return x ? Json(*x) : Json(); };
  Json faults = Json::array();
  for (const bench::Fault& f : r.record.faults) faults.push_back({{"t_s", f.t_s - r.window.begin_s}, {"text", f.text}});
  const auto of = [&](auto get) { return r.energy ? value(get(*r.energy)) : Json(); };
  using Energy = const bench::WindowEnergy&;
  return {{"source", r.record.info.source},
          {"scope", r.record.info.scope.empty() ? Json() : Json(r.record.info.scope)},
          {"read_period_s", r.record.info.period_s},
          {"readings", r.record.readings.size()},
          {"update_period_s", value(r.change_s)},
          {"seconds", of([](Energy e) { return std::optional(e.window.seconds()); })},
          {"mean_w", of([](Energy e) { return std::optional(e.mean_w()); })},
          {"peak_w", of([](Energy e) { return std::optional(e.peak_w); })},
          {"energy_j", of([](Energy e) { return std::optional(e.energy_j); })},
          {"cross_energy_j", of([](Energy e) { return e.cross_energy_j; })},
          {"mean_clock_mhz", of([](Energy e) { return e.mean_clock_mhz; })},
          {"max_temperature_c", of([](Energy e) { return e.max_temperature_c; })},
          {"throttled_s", of([](Energy e) { return e.throttled_s; })},
          {"limit_w", value(r.record.info.limit_w)},
          {"grade", r.grade.grade},
          {"why", r.grade.why},
          {"notes", r.record.info.notes},
          {"faults", faults}};
}

int RunPower(const PowerCommandOptions& o) {
  bench::MeterChoice choice = bench::MakeMeter(o.meter, OpenDevice(o));
  if (!choice.meter) throw Error(choice.why_none + "; name one with --meter");
  bench::Window window;
  bench::MeterRecord record = Watch(std::move(choice.meter), o.seconds, &window);
  const Report report = Judge(std::move(record), window);
  if (o.json) {
    std::cout << bench::Dump(ToJson(report)) << std::endl;
  } else {
    Print(report);
  }
  return report.grade.grade == "none" ? 1 : 0;
}

}  // namespace

void AddPower(CLI::App& app, Run* run) {
  CLI::App* command = app.add_subcommand("power", "Show what a power meter reads and how far it can be trusted");
  auto o = std::make_shared<PowerCommandOptions>();
  command->add_option("--meter", o->meter, bench::kMeterHelp)->capture_default_str()->type_name("METER");
  command->add_option("--seconds", o->seconds, "How long to watch it")
      ->check(CLI::Range(0.5, 86400.0))
      ->capture_default_str()
      ->type_name("N");
  AddDeviceOptions(*command, &o->spec);
  command->add_flag("--json", o->json, "One JSON document on standard output");
  command->footer(
      "\nGrades: A at the wall, trials within 1 %; B a counter confirmed by a second reading; C without gaps, not\n"
      "confirmed; D slow or few readings; F a figure that somebody gave; none: not to be used. Exit code 1: none.\n"
      "Power of a single watch cannot have grade A, which needs trials: see assay bench --power.");
  command->callback([=] { *run = [=] { return RunPower(*o); }; });
}

}  // namespace assay::cli
