// SPDX-License-Identifier: Apache-2.0
#include "bench/result/provenance.h"

#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <boost/uuid/name_generator_sha1.hpp>
#include <boost/uuid/uuid_io.hpp>
#include <charconv>
#include <chrono>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <sstream>

#include "bench/stats/format.h"

namespace assay::bench {
namespace {

namespace fs = std::filesystem;

const char kCpus[] = "/sys/devices/system/cpu";

// The first line of a file, or nothing.
std::optional<std::string> ReadLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line) || line.empty()) return std::nullopt;
  return line;
}

template <class T>
std::optional<T> ParseNumber(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

template <class T>
std::optional<T> ReadNumber(const std::string& path) {
  const auto line = ReadLine(path);
  return line ? ParseNumber<T>(*line) : std::nullopt;
}

// The values of the lines "key<spaces>: value" or "KEY=value" of a file.
std::vector<std::string> ReadValues(const std::string& path, const std::string& key, char separator) {
  std::vector<std::string> values;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const size_t at = line.find(separator);
    if (at == std::string::npos) continue;
    std::string name = line.substr(0, at);
    name.erase(name.find_last_not_of(" \t") + 1);
    if (name != key) continue;
    std::string value = line.substr(at + 1);
    value.erase(0, value.find_first_not_of(" \t\""));
    value.erase(value.find_last_not_of(" \t\"") + 1);
    values.push_back(value);
  }
  return values;
}

std::optional<std::string> FirstValue(const std::string& path, const std::string& key, char separator) {
  const auto values = ReadValues(path, key, separator);
  return values.empty() || values[0].empty() ? std::nullopt : std::optional(values[0]);
}

// The folders of /sys/devices/system/cpu that are a CPU.
std::vector<std::string> CpuFolders() {
  std::vector<std::string> folders;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(kCpus, error)) {
    const std::string name = entry.path().filename();
    if (name.starts_with("cpu") && ParseNumber<int>(std::string_view(name).substr(3))) folders.push_back(entry.path());
  }
  return folders;
}

std::optional<int64_t> PhysicalCores() {
  std::set<std::string> cores;
  for (const std::string& cpu : CpuFolders()) {
    if (const auto siblings = ReadLine(cpu + "/topology/thread_siblings_list")) cores.insert(*siblings);
  }
  return cores.empty() ? std::nullopt : std::optional<int64_t>(cores.size());
}

// A name-based UUID of host name and machine id: equal on one machine, and it cannot be turned back into the name by
// trying likely ones.
std::optional<std::string> HostnameHash() {
  char name[256] = {};
  if (gethostname(name, sizeof name - 1) != 0) return std::nullopt;
  boost::uuids::name_generator_sha1 hash(boost::uuids::ns::dns());
  return boost::uuids::to_string(hash(name + ReadLine("/etc/machine-id").value_or("")));
}

std::optional<std::string> Virtualization() {
  std::string kind;
  const auto flags = FirstValue("/proc/cpuinfo", "flags", ':');  // x86 only
  if (flags && (*flags + " ").find(" hypervisor ") != std::string::npos) {
    kind = "virtual machine";
    if (const auto product = ReadLine("/sys/class/dmi/id/product_name")) kind += " (" + *product + ")";
  }
  if (fs::exists("/.dockerenv") || fs::exists("/run/.containerenv")) kind += kind.empty() ? "container" : ", container";
  if (kind.empty() && flags) kind = "none";
  return kind.empty() ? std::nullopt : std::optional(kind);
}

// The folder of this process's group in a cgroup hierarchy, relative to its mount: "" is the root. `controller` is
// empty for version 2.
std::optional<std::string> CgroupPath(const std::string& controller) {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // "4:memory,x:/path"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    if (controllers.find("," + controller + ",") != std::string::npos) return line.substr(second + 1);
  }
  return std::nullopt;
}

// Calls read(folder) for this process's group and those above it; inside a container the path may not exist, and the
// mount's root is the group itself. The smallest limit holds.
template <class Read>
std::optional<double> SmallestLimit(const std::string& controller, Read read) {
  const std::string mount = controller.empty() ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + controller;
  std::optional<double> smallest;
  for (fs::path path = CgroupPath(controller).value_or("/");; path = path.parent_path()) {
    const std::optional<double> limit = read(mount + path.string());
    if (limit && (!smallest || *limit < *smallest)) smallest = limit;
    if (!path.has_relative_path()) return smallest;
  }
}

std::optional<double> CgroupCpus() {
  const auto v2 = SmallestLimit("", [](const std::string& folder) -> std::optional<double> {
    std::istringstream text(ReadLine(folder + "/cpu.max").value_or("max"));  // "200000 100000" or "max 100000"
    double quota = 0, period = 0;
    if (!(text >> quota >> period) || period <= 0) return std::nullopt;
    return quota / period;
  });
  if (v2) return v2;
  return SmallestLimit("cpu", [](const std::string& folder) -> std::optional<double> {
    const auto quota = ReadNumber<double>(folder + "/cpu.cfs_quota_us");
    const auto period = ReadNumber<double>(folder + "/cpu.cfs_period_us");
    if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
    return *quota / *period;
  });
}

std::optional<int64_t> CgroupMemoryBytes() {
  auto limit = SmallestLimit("", [](const std::string& f) { return ReadNumber<double>(f + "/memory.max"); });
  if (!limit) {
    limit =
        SmallestLimit("memory", [](const std::string& f) { return ReadNumber<double>(f + "/memory.limit_in_bytes"); });
  }
  if (!limit || *limit > 0x1p62) return std::nullopt;  // version 1 writes "no limit" as the largest number of pages
  return static_cast<int64_t>(*limit);
}

std::optional<double> ClockMhz() {
  double sum = 0;
  int64_t n = 0;
  for (const std::string& text : ReadValues("/proc/cpuinfo", "cpu MHz", ':')) {
    if (const auto mhz = ParseNumber<double>(text)) sum += *mhz, ++n;
  }
  return n == 0 ? std::nullopt : std::optional(sum / static_cast<double>(n));
}

std::optional<double> CpuTemperature() {
  std::optional<double> hottest;
  std::error_code error;
  for (const auto& sensor : fs::directory_iterator("/sys/class/hwmon", error)) {
    const std::string chip = ReadLine(sensor.path() / "name").value_or("");
    if (chip != "coretemp" && chip != "k10temp" && chip != "zenpower" && chip != "cpu_thermal") continue;
    std::error_code ignored;
    for (const auto& file : fs::directory_iterator(sensor.path(), ignored)) {
      const std::string name = file.path().filename();
      if (!name.starts_with("temp") || !name.ends_with("_input")) continue;
      const auto millidegrees = ReadNumber<double>(file.path());
      if (millidegrees) hottest = std::max(hottest.value_or(-273), *millidegrees / 1000);
    }
  }
  return hottest;
}

std::optional<int64_t> ThrottleEvents() {
  std::optional<int64_t> events;
  for (const std::string& cpu : CpuFolders()) {
    const auto count = ReadNumber<int64_t>(cpu + "/thermal_throttle/core_throttle_count");
    if (count) events = events.value_or(0) + *count;
  }
  return events;
}

std::optional<double> StealSeconds() {
  std::istringstream text(ReadLine("/proc/stat").value_or(""));  // cpu user nice system idle iowait irq softirq steal
  std::string name;
  double ticks = 0;
  text >> name;
  for (int i = 0; i < 8; ++i) text >> ticks;
  if (!text || name != "cpu") return std::nullopt;
  return ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

std::optional<int64_t> StatusBytes(const std::string& key) {
  const auto kib = ParseNumber<int64_t>(FirstValue("/proc/self/status", key, ':').value_or(""));
  return kib ? std::optional(*kib * 1024) : std::nullopt;
}

std::string FormatUtc(const char* format) {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, format, &utc);
  return text;
}

}  // namespace

Tool ThisTool() {
  const std::string commit = ASSAY_COMMIT;
  return {
      .version = ASSAY_VERSION, .commit = commit.empty() ? std::nullopt : std::optional(commit), .build = ASSAY_BUILD};
}

Host ThisHost() {
  Host host;
  host.os = FirstValue("/etc/os-release", "PRETTY_NAME", '=');
  utsname names{};
  if (uname(&names) == 0) host.kernel = std::string(names.sysname) + " " + names.release + " " + names.machine;
  host.cpu = FirstValue("/proc/cpuinfo", "model name", ':');
  host.cores = PhysicalCores();
  const int64_t pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page > 0) host.memory_bytes = pages * page;
  host.hostname_hash = HostnameHash();
  return host;
}

Environment ReadEnvironment() {
  Environment environment;
  environment.governor = ReadLine(std::string(kCpus) + "/cpu0/cpufreq/scaling_governor");
  environment.virtualization = Virtualization();
  cpu_set_t allowed;  // 1024 CPUs; a larger machine refuses, and the value stays unknown
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) environment.cpus_allowed = CPU_COUNT(&allowed);
  environment.cgroup_cpus = CgroupCpus();
  environment.cgroup_memory_bytes = CgroupMemoryBytes();
  return environment;
}

MachineState ReadMachineState() {
  return {.clock_mhz = ClockMhz(),
          .temperature_c = CpuTemperature(),
          .throttle_events = ThrottleEvents(),
          .load_average_1m = ReadNumber<double>("/proc/loadavg"),
          .steal_s = StealSeconds()};
}

std::vector<std::string> EnvironmentWarnings(const Environment& environment, double duration_s) {
  std::vector<std::string> warnings;
  const MachineState &before = environment.before, &after = environment.after;
  if (environment.governor == "powersave" || environment.governor == "conservative") {
    warnings.push_back("the CPU governor is \"" + *environment.governor +
                       "\"; `cpupower frequency-set -g performance` gives steadier numbers");
  }
  // Half a CPU that others used all along cannot be told from a slow device.
  if (before.load_average_1m && *before.load_average_1m > 0.5) {
    warnings.push_back("the machine was busy before the run (load average " + FormatNumber(*before.load_average_1m, 2) +
                       "); other processes may have slowed it");
  }
  if (before.steal_s && after.steal_s && environment.cpus_allowed && duration_s > 0) {
    const double cpu_s = duration_s * static_cast<double>(std::max<int64_t>(1, *environment.cpus_allowed));
    const double stolen = (*after.steal_s - *before.steal_s) / cpu_s;
    if (stolen > 0.01) {
      warnings.push_back("the hypervisor gave " + FormatPercent(stolen) + " of this machine's CPU time to others");
    }
  }
  if (before.throttle_events && after.throttle_events && *after.throttle_events > *before.throttle_events) {
    warnings.push_back("the CPU throttled itself " + std::to_string(*after.throttle_events - *before.throttle_events) +
                       " times because it was too hot");
  }
  return warnings;
}

std::string NewRunId() {
  char random[16];
  std::snprintf(random, sizeof random, "-%08x", std::random_device{}());
  return FormatUtc("%Y%m%dT%H%M%SZ") + random;
}

std::string TimestampUtc() {
  return FormatUtc("%Y-%m-%dT%H:%M:%SZ");
}

std::optional<int64_t> PeakRssBytes() {
  return StatusBytes("VmHWM");
}
std::optional<int64_t> CurrentRssBytes() {
  return StatusBytes("VmRSS");
}

}  // namespace assay::bench
