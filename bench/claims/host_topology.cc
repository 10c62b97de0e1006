// SPDX-License-Identifier: Apache-2.0
#include "bench/claims/host_topology.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <sstream>

namespace assay::bench {
namespace {

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string ReadLine(const std::string& path) {
  std::istringstream text(ReadFile(path));
  std::string line;
  std::getline(text, line);
  return line;
}

// Decimal, or hexadecimal after "0x"; not negative, and small enough for any integer type that it is cast to.
std::optional<double> Number(std::string_view text, double largest = 1e9) {
  double value = 0;
  const bool hex = text.starts_with("0x");
  const auto format = hex ? std::chars_format::hex : std::chars_format::general;
  const auto [end, error] = std::from_chars(text.data() + (hex ? 2 : 0), text.data() + text.size(), value, format);
  return error == std::errc() && value >= 0 && value <= largest ? std::optional(value) : std::nullopt;
}

// The lines "key   : value" of the first paragraph of a text that has one per CPU.
std::map<std::string, std::string> FirstParagraph(const std::string& text) {
  std::map<std::string, std::string> values;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line) && !line.empty();) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    std::string key = line.substr(0, colon), value = line.substr(colon + 1);
    key.erase(key.find_last_not_of(" \t") + 1);
    value.erase(0, value.find_first_not_of(" \t"));
    values[key] = value;
  }
  return values;
}

// "0-2,8" -> {0, 1, 2, 8}.
std::vector<int> CpuList(const std::string& text) {
  std::vector<int> cpus;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    const size_t dash = part.find('-');
    const auto first = Number(part), last = dash == std::string::npos ? first : Number(part.substr(dash + 1));
    if (!first || !last || *last >= 65536) return {};
    for (int cpu = static_cast<int>(*first); cpu <= static_cast<int>(*last); ++cpu) cpus.push_back(cpu);
  }
  return cpus;
}

void ReadCpuInfo(const std::string& root, HostTopology* host) {
  const std::string text = ReadFile(root + "/proc/cpuinfo");
  auto values = FirstParagraph(text);
  const auto number = [&](const char* key) { return static_cast<int>(Number(values[key]).value_or(0)); };
  host->vendor_id = values.count("vendor_id") ? values["vendor_id"] : values["CPU implementer"];
  host->model_name = values["model name"];
  host->family = number("cpu family");
  host->model = number("model");
  host->stepping = number("stepping");
  host->part = number("CPU part");
  std::istringstream flags(values.count("flags") ? values["flags"] : values["Features"]);
  for (std::string flag; flags >> flag;) host->flags.insert(flag);
  host->virtual_machine = host->flags.count("hypervisor") != 0;
  std::smatch at;
  if (std::regex_search(host->model_name, at, std::regex("@ *([0-9.]+) *GHz")) && Number(at.str(1))) {
    host->named_mhz = *Number(at.str(1)) * 1000;
  }
  if (const auto bogomips = Number(values["bogomips"])) host->tsc_mhz = *bogomips / 2;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) host->cpus += line.starts_with("processor");
}

void ReadCores(const std::string& root, HostTopology* host) {
  const std::string folder = root + "/sys/devices/system/cpu/cpu";
  const auto status = FirstParagraph(ReadFile(root + "/proc/thread-self/status"));
  const auto allowed = status.find("Cpus_allowed_list");
  std::vector<int> cpus;
  if (allowed != status.end()) cpus = CpuList(allowed->second);
  std::set<std::string> cores, sockets;
  double mhz = 0;
  int clocked = 0, present = 0;
  for (const int cpu : cpus) {
    const std::string at = folder + std::to_string(cpu);
    const std::string siblings = ReadLine(at + "/topology/thread_siblings_list");
    if (siblings.empty()) continue;  // the list may name CPUs that the machine does not have
    ++present;
    sockets.insert(ReadLine(at + "/topology/physical_package_id"));
    if (!cores.insert(siblings).second) continue;
    if (const auto khz = Number(ReadLine(at + "/cpufreq/cpuinfo_max_freq"))) mhz += *khz / 1000, ++clocked;
  }
  if (present != 0) host->cpus = present;
  host->cores = cores.empty() ? host->cpus : static_cast<int>(cores.size());
  host->sockets = std::max<int>(1, static_cast<int>(sockets.size()));
  if (clocked != 0) host->boost_mhz = mhz / clocked;
  // The kernel makes a device of its own for the efficiency cores of Intel's hybrid CPUs.
  host->mixed_cores = !ReadLine(root + "/sys/devices/cpu_atom/cpus").empty();
}

// The part of a slot's or bank's name up to its channel: "P0 CHANNEL A" -> all of it, "CPU1_DIMM_B2" -> "CPU1_DIMM_B".
std::string ChannelOf(const std::string& slot, const std::string& bank) {
  static const std::regex pattern("^.*?(channel[ _-]?[a-z0-9]|dimm[ _]?[a-z](?=[0-9]|$))", std::regex::icase);
  std::smatch match;
  for (const std::string& name : {slot, bank}) {
    if (std::regex_search(name, match, pattern)) return match.str(0);
  }
  return "";
}

// SMBIOS specification (DMTF DSP0134), structures of type 17; offsets from its table "Memory Device".
std::vector<MemoryModule> ReadModules(const std::string& table) {
  std::vector<MemoryModule> modules;
  size_t at = 0;
  const auto byte = [&](size_t offset) { return static_cast<uint8_t>(table[at + offset]); };
  const auto word = [&](size_t offset) { return byte(offset) | byte(offset + 1) << 8; };
  while (at + 4 <= table.size()) {
    const size_t length = byte(1);
    if (length < 4 || at + length > table.size()) break;
    const size_t end = table.find(std::string(2, '\0'), at + length);  // of the texts behind the structure
    if (end == std::string::npos) break;
    const auto text = [&](size_t offset) {
      size_t from = at + length;
      for (int i = byte(offset); i > 1 && from < end; --i) from = table.find('\0', from) + 1;
      return byte(offset) == 0 || from >= end ? "" : std::string(table.c_str() + from);
    };
    const bool populated = byte(0) == 17 && length >= 0x17 && word(0x0C) != 0;
    const int speed = !populated ? 0 : length >= 0x22 && word(0x20) != 0 ? word(0x20) : word(0x15);
    if (speed != 0 && speed != 0xFFFF) {
      const int bits = word(0x0A);
      modules.push_back({.channel = ChannelOf(text(0x10), text(0x11)),
                         .mega_transfers = static_cast<double>(speed),
                         .bits = bits == 0 || bits == 0xFFFF ? 64 : bits});
    }
    at = end + 2;
  }
  return modules;
}

}  // namespace

HostTopology ReadHostTopology(const std::string& root) {
  HostTopology host;
  ReadCpuInfo(root, &host);
  ReadCores(root, &host);
  const auto memory = FirstParagraph(ReadFile(root + "/proc/meminfo"));
  if (const auto total = memory.find("MemTotal"); total != memory.end()) {
    if (const auto kib = Number(total->second, 1e15)) host.memory_bytes = static_cast<uint64_t>(*kib) * 1024;
  }
  host.modules = ReadModules(ReadFile(root + "/sys/firmware/dmi/tables/DMI"));
  return host;
}

}  // namespace assay::bench
