// SPDX-License-Identifier: Apache-2.0
// What Linux says of the CPUs and the memory that this process may use. Plain values; any thread. Nothing fails: what a
// machine does not show stays empty.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace assay::bench {

// A populated slot, from the firmware's table (SMBIOS type 17). Root only; absent in most virtual machines.
struct MemoryModule {
  std::string channel;        // all modules with this text share one channel; "" where the firmware does not tell
  double mega_transfers = 0;  // per second, as configured
  int bits = 64;              // of data
};

struct HostTopology {
  std::string vendor_id;                    // "AuthenticAMD", "GenuineIntel", Arm's implementer "0x41"
  std::string model_name;                   // "AMD EPYC 9654 96-Core Processor"
  int family = 0, model = 0, stepping = 0;  // x86
  int part = 0;                             // Arm's "CPU part"
  std::set<std::string> flags;              // x86 "flags", Arm "Features"
  int cpus = 0, cores = 0, sockets = 0;     // that the calling thread may run on
  bool mixed_cores = false;                 // performance and efficiency cores
  bool virtual_machine = false;
  std::optional<double> boost_mhz;  // cpufreq's maximum, mean over the cores
  std::optional<double> named_mhz;  // from "@ 2.40GHz" in the name: the base clock
  std::optional<double> tsc_mhz;    // BogoMIPS / 2 (x86): about the base clock
  std::optional<uint64_t> memory_bytes;
  std::vector<MemoryModule> modules;
};

// `root` is put before /proc and /sys.
HostTopology ReadHostTopology(const std::string& root = "/");

}  // namespace assay::bench
