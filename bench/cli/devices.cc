// SPDX-License-Identifier: Apache-2.0
// assay devices: what can be measured on this machine.
#include <fmt/format.h>

#include <iostream>

#include "bench/cli/commands.h"
#include "bench/report/table.h"
#include "bench/result/write.h"
#include "runtime/core/dtype.h"

namespace assay::cli {
namespace {

using bench::Json;

std::string MemoryText(uint64_t bytes) {
  return bytes ? fmt::format("{:.1f} GiB", static_cast<double>(bytes) / (1024.0 * 1024.0 * 1024.0)) : "unknown";
}

template <size_t N>
std::vector<std::string> DTypeNames(const assay_dtype (&list)[N]) {
  std::vector<std::string> names;
  for (const assay_dtype d : list) {
    if (d == ASSAY_DTYPE_NONE) break;
    names.push_back(DTypeName(d));
  }
  return names;
}

Json DeviceJson(const assay_device_info& info, const FoundBackend& found, const DeviceChoice* chosen) {
  return {{"id", info.id},
          {"backend", found.backend->name()},
          {"backend_version", found.backend->table().version},
          {"where", found.where},
          {"name", info.name},
          {"detail", info.detail},
          {"memory_bytes", info.memory_bytes ? Json(info.memory_bytes) : Json()},
          {"memory_free_bytes", info.memory_free ? Json(info.memory_free) : Json()},
          {"compute_units", info.compute_units},
          {"weight_dtypes", DTypeNames(info.weight_dtypes)},
          {"kv_dtypes", DTypeNames(info.kv_dtypes)},
          {"activation_dtypes", DTypeNames(info.act_dtypes)},
          {"reference", info.is_reference != 0},
          {"default", chosen && std::string(chosen->info.id) == info.id}};
}

int RunDevices(bool json) {
  const std::vector<FoundBackend> backends = FindBackends();
  DeviceChoice choice;
  bool any = false;
  for (const FoundBackend& b : backends) {
    for (const assay_device_info& d : b.devices) any = any || !d.is_reference;
  }
  if (any) choice = ChooseDevice("");
  Json list = Json::array(), notes = Json::array();
  bench::Table table({bench::Align::kLeft, bench::Align::kLeft, bench::Align::kLeft, bench::Align::kRight,
                      bench::Align::kRight, bench::Align::kLeft});
  table.AddRow({"device", "backend", "name", "memory", "units", "detail"});
  std::string remarks;
  for (const FoundBackend& b : backends) {
    if (b.devices.empty()) {
      notes.push_back({{"where", b.where}, {"note", b.note}});
      remarks += fmt::format("{}: no device: {}\n", b.where, b.note);
    }
    for (const assay_device_info& d : b.devices) {
      const bool is_default = any && std::string(choice.info.id) == d.id;
      list.push_back(DeviceJson(d, b, any ? &choice : nullptr));
      table.AddRow({std::string(d.id) + (is_default ? " *" : ""), b.backend->name() + " (" + b.where + ")",
                    bench::Printable(d.name), MemoryText(d.memory_bytes), std::to_string(d.compute_units),
                    bench::Printable(d.detail)});
    }
  }
  if (json) {
    std::cout << bench::Dump({{"devices", list}, {"without_devices", notes}}) << std::endl;
  } else {
    std::cout << table.Render("") << remarks;
    if (any) std::cout << "* the default: " << choice.reason << "\n";
  }
  return 0;
}

}  // namespace

void AddDevices(CLI::App& app, Run* run) {
  CLI::App* command = app.add_subcommand("devices", "List the devices that can be measured here");
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "One JSON document on standard output");
  command->callback([=] { *run = [=] { return RunDevices(*json); }; });
}

}  // namespace assay::cli
