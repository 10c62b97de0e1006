// SPDX-License-Identifier: Apache-2.0
#include "backends/cpu/host_info.h"

#include <sys/utsname.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>
#include <vector>

#include "kernels/cpu/thread_pool.h"

namespace assay::backend_cpu {
namespace {

constexpr char kCgroupRoot[] = "/sys/fs/cgroup";

// The folders that can limit this process: its own control group and all above it. Version 2 has one tree; in
// version 1 each controller has its own.
std::vector<std::string> CgroupFolders(const std::string& controller) {
  std::vector<std::string> folders;
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // "0::/a/b" or "4:cpu,cpuacct:/a/b"
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    std::string base = kCgroupRoot;
    if (controllers != ",,") {
      if (controllers.find("," + controller + ",") == std::string::npos) continue;
      base += "/" + controller;
    }
    std::string path = line.substr(second + 1);
    while (true) {
      if (path == "/") path.clear();
      folders.push_back(base + path);
      if (path.empty()) break;
      path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
    }
  }
  return folders;
}

// The number in a file; nothing (false) if there is no file or it says "max".
bool ReadNumber(const std::string& path, double* value) {
  return static_cast<bool>(std::ifstream(path) >> *value);
}

double CpuQuota() {
  double quota = std::numeric_limits<double>::infinity();
  for (const std::string& folder : CgroupFolders("cpu")) {
    double limit = 0, period = 0;
    std::ifstream max(folder + "/cpu.max");  // version 2: "200000 100000" or "max 100000"
    if (max >> limit >> period && period > 0) quota = std::min(quota, limit / period);
    if (ReadNumber(folder + "/cpu.cfs_quota_us", &limit) && ReadNumber(folder + "/cpu.cfs_period_us", &period) &&
        limit > 0 && period > 0) {
      quota = std::min(quota, limit / period);
    }
  }
  return quota;
}

struct CgroupMemory {
  double limit = std::numeric_limits<double>::infinity();
  double headroom = std::numeric_limits<double>::infinity();
};
CgroupMemory ReadCgroupMemory() {
  CgroupMemory memory;
  const char* const names[][2] = {{"/memory.max", "/memory.current"},
                                  {"/memory.limit_in_bytes", "/memory.usage_in_bytes"}};
  for (const std::string& folder : CgroupFolders("memory")) {
    for (const auto& name : names) {
      double limit = 0, used = 0;
      if (!ReadNumber(folder + name[0], &limit)) continue;
      memory.limit = std::min(memory.limit, limit);
      if (!ReadNumber(folder + name[1], &used)) continue;
      // The group's page cache counts as used, but gives way.
      double inactive_file = 0;
      std::ifstream stat(folder + "/memory.stat");
      double value = 0;
      for (std::string key; stat >> key >> value;) {
        if (key == "inactive_file" || key == "total_inactive_file") inactive_file = value;
      }
      memory.headroom = std::min(memory.headroom, std::max(0.0, limit - used + inactive_file));
    }
  }
  return memory;
}

}  // namespace

std::string CpuName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (colon != std::string::npos && line.rfind("model name", 0) == 0) return line.substr(colon + 2);
  }
  utsname names{};  // ARM kernels print no name
  uname(&names);
  return std::string(names.machine) + " CPU";
}

HostMemory ReadHostMemory() {
  HostMemory memory;
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string key;
    uint64_t kib = 0;
    words >> key >> kib;
    if (key == "MemTotal:") memory.total = kib * 1024;
    if (key == "MemAvailable:") memory.available = kib * 1024;
  }
  const CgroupMemory group = ReadCgroupMemory();
  if (group.limit < static_cast<double>(memory.total)) memory.total = static_cast<uint64_t>(group.limit);
  if (group.headroom < static_cast<double>(memory.available)) memory.available = static_cast<uint64_t>(group.headroom);
  return memory;
}

int UsableThreads() {
  const int cores = cpu::FindUsableCpus().cores;
  const double quota = std::ceil(CpuQuota());
  return quota < cores ? std::max(1, static_cast<int>(quota)) : cores;
}

}  // namespace assay::backend_cpu
