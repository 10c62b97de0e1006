// SPDX-License-Identifier: Apache-2.0
#include "bench/claims/host_peaks.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace assay::bench {
namespace {

namespace fs = std::filesystem;

// A folder that looks like / of some machine.
class Machine {
 public:
  Machine() {
    std::string name = (fs::temp_directory_path() / "assay-host-XXXXXX").string();
    root_ = mkdtemp(name.data());
  }
  ~Machine() { fs::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) const {
    fs::create_directories((root_ + path).substr(0, (root_ + path).rfind('/')));
    std::ofstream(root_ + path, std::ios::binary) << text;
  }
  // CPUs 0 to n - 1, of which `threads` share a core and `per_socket` a socket; all may be used.
  void Cpus(int n, int threads = 1, int per_socket = 1 << 20, const std::string& khz = "") const {
    for (int i = 0; i < n; ++i) {
      const std::string cpu = "/sys/devices/system/cpu/cpu" + std::to_string(i);
      Write(cpu + "/topology/thread_siblings_list", "core " + std::to_string(i / threads) + "\n");
      Write(cpu + "/topology/physical_package_id", std::to_string(i / per_socket) + "\n");
      if (!khz.empty()) Write(cpu + "/cpufreq/cpuinfo_max_freq", khz + "\n");
    }
    Write("/proc/thread-self/status", "Name:\tassay\nCpus_allowed_list:\t0-" + std::to_string(n - 1) + "\n");
  }
  HostTopology Read() const { return ReadHostTopology(root_); }

 private:
  std::string root_;
};

std::string X86(const std::string& vendor, int family, int model, const std::string& name, const std::string& flags,
                int stepping = 1) {
  return "processor\t: 0\nvendor_id\t: " + vendor + "\ncpu family\t: " + std::to_string(family) +
         "\nmodel\t\t: " + std::to_string(model) + "\nmodel name\t: " + name +
         "\nstepping\t: " + std::to_string(stepping) + "\nflags\t\t: fpu sse2 fma avx2 " + flags +
         "\nbogomips\t: 5200.00\n\nprocessor\t: 1\n";
}

double Value(const HostPeaks& peaks, const char* key) {
  const Figure* figure = peaks.card.Find(key);
  return figure && figure->value ? *figure->value : -1;
}

// One structure of type 17 of the firmware's table.
std::string Module(const std::string& bank, const std::string& slot, int speed, int size_mb = 32768, int bits = 64) {
  std::string s(0x22, '\0');
  const auto word = [&](size_t at, int value) {
    s[at] = static_cast<char>(value & 255), s[at + 1] = static_cast<char>(value >> 8);
  };
  s[0] = 17, s[1] = 0x22;
  word(0x0A, bits);
  word(0x0C, size_mb == 0 ? 0 : 0x7FFF);
  s[0x10] = 1, s[0x11] = 2;
  word(0x15, 6400);  // what the module could do
  word(0x20, speed);
  return s + slot + '\0' + bank + '\0' + '\0';
}

TEST(HostPeaks, Zen4InAVirtualMachine) {
  Machine machine;
  machine.Write("/proc/cpuinfo", X86("AuthenticAMD", 25, 17, "AMD EPYC 9B14 96-Core Processor",
                                     "avx512f avx512_bf16 avx512_vnni hypervisor"));
  machine.Write("/proc/meminfo", "MemTotal:       24602952 kB\n");
  machine.Cpus(2);
  machine.Write("/sys/firmware/dmi/tables/DMI", Module("", "DIMM 0", 3200));  // what a hypervisor makes up
  const HostPeaks peaks = DeriveHostPeaks(machine.Read());
  EXPECT_EQ(peaks.card.id, "host");
  EXPECT_EQ(peaks.card.vendor, "AMD");
  EXPECT_DOUBLE_EQ(Value(peaks, "fp32"), 2 * 2.6e9 * 32);
  EXPECT_DOUBLE_EQ(Value(peaks, "bf16"), 2 * 2.6e9 * 64);
  EXPECT_DOUBLE_EQ(Value(peaks, "int8"), 2 * 2.6e9 * 128);
  EXPECT_TRUE(peaks.card.Find("fp16")->unsupported);
  EXPECT_DOUBLE_EQ(Value(peaks, "bytes_per_s"), 460.8e9);
  EXPECT_DOUBLE_EQ(Value(peaks, "memory_bytes"), 24602952.0 * 1024);
  const Figure& bf16 = *peaks.card.Find("bf16");
  EXPECT_EQ(bf16.confidence, "derived");
  EXPECT_EQ(bf16.source.rfind("derived from 2 cores x 2.60 GHz (half of BogoMIPS) x 64 per cycle", 0), 0u)
      << bf16.source;
  EXPECT_NE(bf16.note.find("base clock"), std::string::npos);
  EXPECT_NE(peaks.card.Find("bytes_per_s")->note.find("virtual machine shares"), std::string::npos);
  EXPECT_NE(peaks.scope.find("2 cores (2 CPUs) of 1 socket in a virtual machine"), std::string::npos) << peaks.scope;
  EXPECT_NE(peaks.scope.find("with 96 cores"), std::string::npos) << peaks.scope;
  EXPECT_EQ(PeakKey(peaks.card, ASSAY_Q4_1), "int8");
  EXPECT_EQ(PeakKey(peaks.card, ASSAY_F16), "fp32");
}

TEST(HostPeaks, SapphireRapidsWithAmx) {
  Machine machine;
  machine.Write("/proc/cpuinfo", X86("GenuineIntel", 6, 143, "Intel(R) Xeon(R) Platinum 8480+",
                                     "avx512f avx512_bf16 avx512_fp16 avx512_vnni amx_tile amx_bf16 amx_int8", 8));
  machine.Cpus(8, 2, 4, "3800000");
  const HostPeaks peaks = DeriveHostPeaks(machine.Read());
  const double cycles = 4 * 3.8e9;
  EXPECT_DOUBLE_EQ(Value(peaks, "fp32"), cycles * 64);
  EXPECT_DOUBLE_EQ(Value(peaks, "fp16"), cycles * 128);
  EXPECT_DOUBLE_EQ(Value(peaks, "bf16"), cycles * 1024);
  EXPECT_DOUBLE_EQ(Value(peaks, "int8"), cycles * 2048);
  EXPECT_DOUBLE_EQ(Value(peaks, "bytes_per_s"), 2 * 307.2e9);
  EXPECT_EQ(peaks.scope, "4 cores (8 CPUs) of 2 sockets");
  EXPECT_NE(peaks.card.Find("fp32")->note.find("largest clock"), std::string::npos);
}

TEST(HostPeaks, DesktopWithAvx2) {
  Machine machine;
  machine.Write("/proc/cpuinfo", X86("GenuineIntel", 6, 158, "Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz", ""));
  machine.Cpus(12, 2);
  // Two modules a channel make it no faster; the slowest sets the pace; an empty slot does not count.
  machine.Write("/sys/firmware/dmi/tables/DMI",
                Module("BANK 0", "ChannelA-DIMM0", 2666) + Module("BANK 1", "ChannelA-DIMM1", 2666) +
                    Module("BANK 2", "ChannelB-DIMM0", 2400) + Module("BANK 3", "ChannelC-DIMM0", 2133, 0));
  const HostPeaks peaks = DeriveHostPeaks(machine.Read());
  EXPECT_DOUBLE_EQ(Value(peaks, "fp32"), 6 * 3.7e9 * 32);
  EXPECT_TRUE(peaks.card.Find("bf16")->unsupported);
  EXPECT_TRUE(peaks.card.Find("int8")->unsupported);
  EXPECT_DOUBLE_EQ(Value(peaks, "bytes_per_s"), 2 * 2400e6 * 8);
  EXPECT_NE(peaks.card.Find("fp32")->source.find("clock in the CPU's name"), std::string::npos);
  EXPECT_EQ(PeakKey(peaks.card, ASSAY_BF16), "fp32");
  EXPECT_EQ(PeakKey(peaks.card, ASSAY_Q8_0), "fp32");

  machine.Write("/sys/firmware/dmi/tables/DMI", "");
  const HostPeaks without = DeriveHostPeaks(machine.Read());
  EXPECT_EQ(Value(without, "bytes_per_s"), -1) << "neither a table nor a known server";
  EXPECT_FALSE(without.card.Find("bytes_per_s")->note.empty());

  machine.Write("/sys/devices/cpu_atom/cpus", "8-11\n");
  EXPECT_EQ(Value(DeriveHostPeaks(machine.Read()), "fp32"), -1) << "two kinds of cores";
}

TEST(HostPeaks, ModulesWhoseChannelIsNotNamed) {
  HostTopology host;
  host.vendor_id = "AuthenticAMD";
  host.family = 0x19, host.model = 1, host.model_name = "AMD EPYC 7763 64-Core Processor";
  host.sockets = 1, host.cores = 64;
  host.modules.resize(16, {.channel = "", .mega_transfers = 2933});  // two modules on each of eight channels
  EXPECT_DOUBLE_EQ(Value(DeriveHostPeaks(host), "bytes_per_s"), 8 * 2933e6 * 8);
  host.modules.resize(4);  // half of the channels are empty
  EXPECT_DOUBLE_EQ(Value(DeriveHostPeaks(host), "bytes_per_s"), 4 * 2933e6 * 8);
  host.model_name = "AMD Ryzen";
  EXPECT_EQ(Value(DeriveHostPeaks(host), "bytes_per_s"), -1);
}

TEST(HostPeaks, NamesOfSlots) {
  const struct {
    std::vector<std::pair<const char*, const char*>> slots;  // bank, slot
    double channels;
  } boards[] = {{{{"P0 CHANNEL A", "DIMM 0"}, {"P0 CHANNEL B", "DIMM 0"}, {"P1 CHANNEL A", "DIMM 0"}}, 3},
                {{{"NODE 1", "CPU1_DIMM_A1"}, {"NODE 1", "CPU1_DIMM_A2"}, {"NODE 1", "CPU1_DIMM_B1"}}, 2},
                {{{"P0_Node0_Channel0_Dimm0", "P1-DIMMA1"}, {"P0_Node0_Channel1_Dimm0", "P1-DIMMB1"}}, 2},
                {{{"BANK 0", "Controller0-ChannelA-DIMM0"}, {"BANK 0", "Controller1-ChannelA-DIMM0"}}, 2}};
  for (const auto& board : boards) {
    std::string table;
    for (const auto& [bank, slot] : board.slots) table += Module(bank, slot, 4800);
    Machine machine;
    machine.Write("/sys/firmware/dmi/tables/DMI", table);
    EXPECT_DOUBLE_EQ(Value(DeriveHostPeaks(machine.Read()), "bytes_per_s"), board.channels * 4800e6 * 8)
        << board.slots[0].first;
  }
}

TEST(HostPeaks, Arm) {
  Machine machine;
  const std::string n1 =
      "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd asimdhp asimddp\n"
      "CPU implementer\t: 0x41\nCPU part\t: 0xd0c\n\nprocessor\t: 1\n";
  machine.Write("/proc/cpuinfo", n1);
  machine.Cpus(4);
  EXPECT_EQ(Value(DeriveHostPeaks(machine.Read()), "fp32"), -1) << "Arm's BogoMIPS is no clock";
  machine.Cpus(4, 1, 64, "2500000");
  const HostPeaks peaks = DeriveHostPeaks(machine.Read());
  EXPECT_EQ(peaks.card.name, "Arm CPU");
  EXPECT_DOUBLE_EQ(Value(peaks, "fp32"), 4 * 2.5e9 * 16);
  EXPECT_DOUBLE_EQ(Value(peaks, "fp16"), 4 * 2.5e9 * 32);
  EXPECT_DOUBLE_EQ(Value(peaks, "int8"), 4 * 2.5e9 * 64);
  EXPECT_TRUE(peaks.card.Find("bf16")->unsupported);
}

TEST(HostPeaks, Microarchitectures) {
  const struct {
    const char *vendor, *name;
    int family, model, stepping;
    std::set<std::string> flags;
    double fp32, bytes_per_s;  // per cycle; GB/s of a socket; -1 not known
  } cpus[] = {{"AuthenticAMD", "AMD EPYC 7601", 0x17, 0x01, 2, {}, 16, 170.6},
              {"AuthenticAMD", "AMD EPYC 7742", 0x17, 0x31, 0, {}, 32, 204.8},
              {"AuthenticAMD", "AMD EPYC 9754", 0x19, 0xA0, 2, {"avx512f"}, 32, 460.8},
              {"AuthenticAMD", "AMD EPYC 8534P", 0x19, 0xA0, 2, {"avx512f"}, 32, 230.4},
              {"AuthenticAMD", "AMD EPYC 9965", 0x1A, 0x11, 0, {"avx512f"}, 64, 576},
              {"AuthenticAMD", "AMD Ryzen 9 9950X", 0x1A, 0x44, 0, {"avx512f"}, 64, -1},
              {"AuthenticAMD", "AMD Ryzen AI 9 HX 370", 0x1A, 0x24, 0, {"avx512f"}, -1, -1},
              {"GenuineIntel", "Intel Xeon Platinum 8180", 6, 0x55, 4, {"fma", "avx2", "avx512f"}, 64, 127.968},
              {"GenuineIntel", "Intel Xeon Silver 4210", 6, 0x55, 7, {"fma", "avx2", "avx512f"}, 32, 140.784},
              {"GenuineIntel", "Intel Xeon Platinum 8380", 6, 0x6A, 6, {"fma", "avx2", "avx512f"}, 64, 204.8},
              {"GenuineIntel", "Intel Xeon Platinum 8592+", 6, 0xCF, 2, {"fma", "avx2", "avx512f"}, 64, 358.4},
              {"GenuineIntel", "Intel Xeon 6980P", 6, 0xAD, 1, {"fma", "avx2", "avx512f"}, 64, 614.4},
              {"GenuineIntel", "Intel Core i9-11900K", 6, 0xA7, 1, {"fma", "avx2", "avx512f"}, 32, -1},
              {"GenuineIntel", "Intel N100", 6, 0xBE, 0, {"fma", "avx2"}, -1, -1},
              {"GenuineIntel", "Intel Celeron", 6, 0x9E, 0, {}, -1, -1},
              {"HygonGenuine", "Hygon C86", 0x18, 1, 0, {}, -1, -1}};
  for (const auto& cpu : cpus) {
    HostTopology host;
    host.vendor_id = cpu.vendor, host.model_name = cpu.name, host.flags = cpu.flags;
    host.family = cpu.family, host.model = cpu.model, host.stepping = cpu.stepping;
    host.cores = host.cpus = host.sockets = 1;
    host.boost_mhz = 1000;
    const HostPeaks peaks = DeriveHostPeaks(host);
    EXPECT_NEAR(Value(peaks, "fp32"), cpu.fp32 < 0 ? -1 : cpu.fp32 * 1e9, 1) << cpu.name;
    EXPECT_NEAR(Value(peaks, "bytes_per_s"), cpu.bytes_per_s < 0 ? -1 : cpu.bytes_per_s * 1e9, 1e8) << cpu.name;
  }
}

TEST(HostPeaks, ABrokenMachineIsOnlyUnknown) {
  Machine machine;
  EXPECT_EQ(DeriveHostPeaks(machine.Read()).card.Find("fp32")->value, std::nullopt);
  machine.Write(
      "/proc/cpuinfo",
      "vendor_id : GenuineIntel\ncpu family : 99999999999999\nmodel : nan\nmodel name : Xeon @ ..GHz\nflags :\n");
  machine.Write("/proc/thread-self/status", "Cpus_allowed_list:\t3-,x,99999999999\n");
  machine.Write("/proc/meminfo", "MemTotal: -5\n");
  const std::string module = Module("P0 CHANNEL A", "DIMM 0", 4800);
  for (size_t length = 0; length < module.size(); ++length) {
    machine.Write("/sys/firmware/dmi/tables/DMI", module.substr(0, length));
    const HostPeaks peaks = DeriveHostPeaks(machine.Read());
    EXPECT_EQ(Value(peaks, "bytes_per_s"), -1) << length;
    EXPECT_EQ(Value(peaks, "fp32"), -1);
  }
  // Texts that the structure names and that are not there.
  std::string bad = module;
  bad[0x10] = 7;
  machine.Write("/sys/firmware/dmi/tables/DMI", bad);
  DeriveHostPeaks(machine.Read());
}

TEST(HostPeaks, ThisMachine) {
  const HostTopology host = ReadHostTopology();
  EXPECT_GT(host.cpus, 0);
  EXPECT_GE(host.cpus, host.cores);
  EXPECT_GE(host.cores, host.sockets);
  EXPECT_GT(host.memory_bytes.value_or(0), 0u);
}

}  // namespace
}  // namespace assay::bench
