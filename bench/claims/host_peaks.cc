// SPDX-License-Identifier: Apache-2.0
#include "bench/claims/host_peaks.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace assay::bench {
namespace {

constexpr char kAmd[] = "AuthenticAMD";
constexpr char kIntel[] = "GenuineIntel";
constexpr char kArm[] = "0x41";

// Operations per cycle and core; a multiplication with addition counts as two.
struct PerCycle {
  double fp32 = 0;  // 0: this microarchitecture is not known
  std::string source;
};

PerCycle AmdPerCycle(const HostTopology& host) {
  // Two 128-bit units multiply-add in Zen 1, two of 256 bits from Zen 2 on; Zen 4 runs 512 bits in two halves, Zen 5
  // has 512-bit units in servers and desktops and halves in the mobile parts of models 20h to 2Fh.
  if (host.family == 0x17 && host.model < 0x30) return {16, "AMD Software Optimization Guide for family 17h (55723)"};
  if (host.family == 0x17) return {32, "AMD Software Optimization Guide for Zen 2 (56305)"};
  if (host.family == 0x19 && !host.flags.count("avx512f")) {
    return {32, "AMD Software Optimization Guide for Zen 3 (56665)"};
  }
  if (host.family == 0x19) return {32, "AMD Software Optimization Guide for Zen 4 (57647)"};
  if (host.family == 0x1A && (host.model < 0x20 || (host.model >= 0x40 && host.model < 0x50))) {
    return {64, "AMD Software Optimization Guide for Zen 5 (58455)"};
  }
  return {};
}

PerCycle IntelPerCycle(const HostTopology& host) {
  static const std::set<int> atoms = {0xBE, 0xAF, 0xB6, 0xDD};  // Alder Lake-N, Sierra Forest, Grand Ridge, Clearwater
  static const std::set<int> servers = {0x55, 0x6A, 0x8F, 0xCF, 0xAD, 0xAE};  // Skylake-SP to Granite Rapids
  const char kManual[] = "Intel 64 and IA-32 Architectures Optimization Reference Manual (248966)";
  if (host.family != 6 || atoms.count(host.model)) return {};
  if (!host.flags.count("avx512f")) return {host.flags.count("fma") && host.flags.count("avx2") ? 32.0 : 0, kManual};
  // The smaller models of the first generations have one 512-bit unit, client CPUs fuse two of 256 bits into one.
  bool one_unit = !servers.count(host.model);
  for (const char* small : {"Silver", "Bronze", "Gold 5"}) {
    one_unit = one_unit || (host.model == 0x55 && host.model_name.find(small) != std::string::npos);
  }
  return {one_unit ? 32.0 : 64.0, kManual};
}

PerCycle ArmPerCycle(const HostTopology& host) {
  switch (host.part) {
    case 0xD0C:
      return {16, "Arm Neoverse N1 Software Optimization Guide: two 128-bit pipes"};
    case 0xD49:
      return {16, "Arm Neoverse N2 Software Optimization Guide: two 128-bit pipes"};
    case 0xD40:
      return {32, "Arm Neoverse V1 Software Optimization Guide: four 128-bit pipes"};
    case 0xD4F:
      return {32, "Arm Neoverse V2 Software Optimization Guide: four 128-bit pipes"};
    default:
      return {};
  }
}

struct Clock {
  double mhz = 0;  // 0: not known
  std::string from, note;
};

Clock ClockOf(const HostTopology& host) {
  const char kBase[] = "at the base clock: a core that boosts exceeds it";
  if (host.boost_mhz) {
    return {*host.boost_mhz, "largest clock of cpufreq",
            "with every core at its largest clock, which few hold under load"};
  }
  if (host.named_mhz) return {*host.named_mhz, "clock in the CPU's name", kBase};
  if (host.tsc_mhz) return {*host.tsc_mhz, "half of BogoMIPS", kBase};
  return {};
}

// What an instruction set makes of the fp32 rate; absolute where `per_cycle` is not 0.
struct Extension {
  const char *key, *flag;
  double factor, per_cycle;
  const char* source;
};
const char kAmxBrief[] = "Intel brief on AMX: 2048 INT8 or 1024 BF16 operations per cycle";
// The first of a key that the CPU has counts. VDPBF16PS does two, VPDPBUSD four multiplications per 32-bit lane.
const Extension kX86Extensions[] = {{"bf16", "amx_bf16", 0, 1024, kAmxBrief},
                                    {"bf16", "avx512_bf16", 2, 0, ""},
                                    {"fp16", "amx_fp16", 0, 1024, kAmxBrief},
                                    {"fp16", "avx512_fp16", 2, 0, ""},
                                    {"int8", "amx_int8", 0, 2048, kAmxBrief},
                                    {"int8", "avx512_vnni", 4, 0, ""},
                                    {"int8", "avx_vnni", 4, 0, ""}};
// The rates of BFMMLA and SMMLA differ between cores and are not derived.
const Extension kArmExtensions[] = {{"bf16", "bf16", 0, 0, ""},
                                    {"fp16", "asimdhp", 2, 0, ""},
                                    {"int8", "i8mm", 0, 0, ""},
                                    {"int8", "asimddp", 4, 0, ""}};

Figure Derived(std::optional<double> value, std::string source, std::string note) {
  Figure figure;
  figure.value = value;
  figure.source = "derived from " + source;
  figure.confidence = "derived";
  figure.note = std::move(note);
  return figure;
}

Figure Unknown(std::string why) {
  Figure figure;
  figure.note = std::move(why);
  return figure;
}

void AddFlops(const HostTopology& host, Card* card) {
  const bool arm = host.vendor_id == kArm;
  const PerCycle rate = host.vendor_id == kAmd     ? AmdPerCycle(host)
                        : host.vendor_id == kIntel ? IntelPerCycle(host)
                        : arm                      ? ArmPerCycle(host)
                                                   : PerCycle{};
  const Clock clock = ClockOf(host);
  const auto figure = [&](double per_cycle, const std::string& source) {
    if (host.mixed_cores) return Unknown("performance and efficiency cores together: no single rate per cycle");
    if (rate.fp32 == 0) return Unknown("the operations per cycle of this microarchitecture are not known here");
    if (clock.mhz == 0) return Unknown("the machine does not show its clock");
    if (per_cycle == 0) return Unknown("the rate of this core's matrix instruction is not known here");
    return Derived(host.cores * clock.mhz * 1e6 * per_cycle,
                   fmt::format("{} cores x {:.2f} GHz ({}) x {:.0f} per cycle ({})", host.cores, clock.mhz / 1000,
                               clock.from, per_cycle, source),
                   clock.note);
  };
  card->figures["fp32"] = figure(rate.fp32, rate.source);
  const auto add = [&](const auto& extensions) {
    for (const char* key : {"bf16", "fp16", "fp8", "int8"}) {
      const auto has = [&](const Extension& e) { return std::string(key) == e.key && host.flags.count(e.flag); };
      const auto found = std::find_if(std::begin(extensions), std::end(extensions), has);
      if (found == std::end(extensions)) {
        card->figures[key] = Derived(std::nullopt, "the flags of /proc/cpuinfo", "no instruction for it");
        card->figures[key].unsupported = true;
      } else if (found->per_cycle != 0) {
        card->figures[key] = figure(found->per_cycle, found->source);
      } else {
        card->figures[key] = figure(rate.fp32 * found->factor,
                                    fmt::format("{} times fp32 by {}; {}", found->factor, found->flag, rate.source));
      }
    }
  };
  if (arm) {
    add(kArmExtensions);
  } else {
    add(kX86Extensions);
  }
}

// What a socket takes at most.
struct MemoryRow {
  const char* vendor_id;
  int family, model_low, model_high, stepping_low;
  const char* name;  // a part of the name that the row needs
  int channels;
  double mega_transfers;
  const char* source;
};
// The first that fits counts. Models by Linux (arch/x86/include/asm/intel-family.h, drivers/edac/amd64_edac.c).
const MemoryRow kMemory[] = {
    {kAmd, 0x17, 0x00, 0x0F, 0, "EPYC", 8, 2666, "AMD EPYC 7001: 8 x DDR4-2666"},
    {kAmd, 0x17, 0x30, 0x3F, 0, "EPYC", 8, 3200, "AMD EPYC 7002: 8 x DDR4-3200"},
    {kAmd, 0x19, 0x00, 0x0F, 0, "EPYC", 8, 3200, "AMD EPYC 7003: 8 x DDR4-3200"},
    {kAmd, 0x19, 0x10, 0x1F, 0, "EPYC", 12, 4800, "AMD EPYC 9004: 12 x DDR5-4800, 460.8 GB/s a socket"},
    {kAmd, 0x19, 0xA0, 0xAF, 0, "EPYC 9", 12, 4800, "AMD EPYC 97x4: 12 x DDR5-4800, 460.8 GB/s a socket"},
    {kAmd, 0x19, 0xA0, 0xAF, 0, "EPYC 8", 6, 4800, "AMD EPYC 8004: 6 x DDR5-4800"},
    {kAmd, 0x1A, 0x00, 0x1F, 0, "EPYC", 12, 6000, "AMD EPYC 9005: 12 x DDR5-6000"},
    {kIntel, 6, 0x55, 0x55, 5, "Xeon", 6, 2933, "Xeon Scalable of the second generation: 6 x DDR4-2933"},
    {kIntel, 6, 0x55, 0x55, 0, "Xeon", 6, 2666, "Xeon Scalable of the first generation: 6 x DDR4-2666"},
    {kIntel, 6, 0x6A, 0x6A, 0, "Xeon", 8, 3200, "Xeon Scalable of the third generation: 8 x DDR4-3200"},
    {kIntel, 6, 0x8F, 0x8F, 0, "Xeon", 8, 4800, "Xeon Scalable of the fourth generation: 8 x DDR5-4800"},
    {kIntel, 6, 0xCF, 0xCF, 0, "Xeon", 8, 5600, "Xeon Scalable of the fifth generation: 8 x DDR5-5600"},
    {kIntel, 6, 0xAD, 0xAD, 0, " 69", 12, 6400, "Xeon 6900P: 12 x DDR5-6400"},
    {kIntel, 6, 0xAD, 0xAD, 0, " 67", 8, 6400, "Xeon 6700P: 8 x DDR5-6400"}};

const MemoryRow* FindMemoryRow(const HostTopology& host) {
  const auto fits = [&](const MemoryRow& row) {
    return host.vendor_id == row.vendor_id && host.family == row.family && host.model >= row.model_low &&
           host.model <= row.model_high && host.stepping >= row.stepping_low &&
           host.model_name.find(row.name) != std::string::npos;
  };
  const auto found = std::find_if(std::begin(kMemory), std::end(kMemory), fits);
  return found == std::end(kMemory) ? nullptr : found;
}

Figure BandwidthFromModules(const HostTopology& host, const MemoryRow* row) {
  std::set<std::string> channels;
  double mega_transfers = host.modules[0].mega_transfers;
  int bits = host.modules[0].bits;
  for (const MemoryModule& module : host.modules) {
    channels.insert(module.channel);
    mega_transfers = std::min(mega_transfers, module.mega_transfers);
    bits = std::min(bits, module.bits);
  }
  size_t count = channels.size();
  if (channels.count("")) {
    if (!row) return Unknown("the firmware does not tell which modules share a channel");
    count = std::min(host.modules.size(), static_cast<size_t>(row->channels * host.sockets));
  }
  return Derived(static_cast<double>(count) * mega_transfers * 1e6 * bits / 8,
                 fmt::format("the firmware's table of memory modules: {} channels x {:.0f} MT/s x {} bytes", count,
                             mega_transfers, bits / 8),
                 "of the whole machine");
}

Figure Bandwidth(const HostTopology& host) {
  const MemoryRow* row = FindMemoryRow(host);
  // A hypervisor's table of modules describes no hardware.
  if (!host.modules.empty() && !host.virtual_machine) return BandwidthFromModules(host, row);
  if (!row) return Unknown("the firmware's table is not readable (root only), and this CPU is not in assay's list");
  return Derived(host.sockets * row->channels * row->mega_transfers * 1e6 * 8,
                 fmt::format("{} socket(s) x {} channels x {:.0f} MT/s x 8 bytes ({})", host.sockets, row->channels,
                             row->mega_transfers, row->source),
                 host.virtual_machine ? "of whole sockets with all channels filled, which this virtual machine shares"
                                      : "with all channels filled by the fastest modules that the CPU takes");
}

std::string Scope(const HostTopology& host) {
  std::string scope = fmt::format("{} cores ({} CPUs) of {} socket{}", host.cores, host.cpus, host.sockets,
                                  host.sockets == 1 ? "" : "s");
  if (!host.virtual_machine) return scope;
  // "AMD EPYC 9654 96-Core Processor"
  const size_t dash = host.model_name.find("-Core");
  const size_t space = dash == std::string::npos ? dash : host.model_name.rfind(' ', dash);
  const std::string cores = space == std::string::npos ? "" : host.model_name.substr(space + 1, dash - space - 1);
  return scope + fmt::format(
                     " in a virtual machine: FLOP/s are those of these cores as the hypervisor shows them, "
                     "bytes/s those of whole sockets{}, of which this machine has a part",
                     cores.empty() ? "" : " with " + cores + " cores");
}

}  // namespace

HostPeaks DeriveHostPeaks(const HostTopology& host) {
  HostPeaks peaks;
  Card& card = peaks.card;
  card.id = kHostCardId;
  card.vendor = host.vendor_id == kAmd     ? "AMD"
                : host.vendor_id == kIntel ? "Intel"
                : host.vendor_id == kArm   ? "Arm"
                                           : "";
  card.name = host.model_name.empty() ? card.vendor + " CPU" : host.model_name;
  if (host.memory_bytes) {
    card.figures["memory_bytes"] = Derived(static_cast<double>(*host.memory_bytes), "/proc/meminfo", "");
  }
  AddFlops(host, &card);
  card.figures["bytes_per_s"] = Bandwidth(host);
  peaks.scope = Scope(host);
  return peaks;
}

}  // namespace assay::bench
