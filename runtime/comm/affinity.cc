// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/affinity.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>

namespace assay {
namespace {

constexpr size_t kWords = 8192 / 64;
using Words = std::array<uint64_t, kWords>;
static_assert(sizeof(Words) * 8 == CpuSet().size());

// What a rank tells the others.
struct Place {
  uint64_t host;  // tells hosts apart
  Words cpus;
};

Words WordsOf(const CpuSet& set) {
  Words words{};
  for (size_t i = 0; i < set.size(); ++i) words[i / 64] |= static_cast<uint64_t>(set[i]) << (i % 64);
  return words;
}

CpuSet SetOf(const Words& words) {
  CpuSet set;
  for (size_t i = 0; i < set.size(); ++i) set[i] = words[i / 64] >> (i % 64) & 1;
  return set;
}

uint64_t ThisHost() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return std::hash<std::string>()(id);
}

// The allowed hardware threads of the core that `cpu` belongs to, itself included.
std::vector<size_t> Core(size_t cpu, const CpuSet& allowed) {
  std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
  std::vector<size_t> core;
  size_t low = 0;
  while (file >> low) {  // "0,64" or "0-1"
    size_t high = low;
    if (file.peek() == '-') {
      file.get();
      file >> high;
    }
    for (size_t c = low; c <= high && c < allowed.size(); ++c) {
      if (allowed[c]) core.push_back(c);
    }
    if (file.peek() == ',') file.get();
  }
  if (core.empty()) core.push_back(cpu);
  return core;
}

// The part of `set` that falls to the index-th of `count`: whole cores, one at least.
CpuSet Part(const CpuSet& set, size_t index, size_t count) {
  std::vector<std::vector<size_t>> cores;
  for (size_t cpu = 0; cpu < set.size(); ++cpu) {
    if (!set[cpu]) continue;
    const auto core = Core(cpu, set);
    if (core.front() == cpu) cores.push_back(core);
  }
  if (cores.empty()) return set;
  const size_t n = cores.size(), begin = index * n / count, end = std::max(begin + 1, (index + 1) * n / count);
  CpuSet part;
  for (size_t i = begin; i < end; ++i) {
    for (const size_t cpu : cores[i]) part.set(cpu);
  }
  return part;
}

}  // namespace

CpuSet ThreadCpus() {
  Words words{};
  return sched_getaffinity(0, sizeof(words), reinterpret_cast<cpu_set_t*>(words.data())) == 0 ? SetOf(words) : CpuSet();
}

void SetThreadCpus(const CpuSet& cpus) {
  const Words words = WordsOf(cpus);
  sched_setaffinity(0, sizeof(words), reinterpret_cast<const cpu_set_t*>(words.data()));
}

CpuShare ShareCpus(Group& group) {
  Place mine{ThisHost(), WordsOf(ThreadCpus())};
  std::vector<Place> places(static_cast<size_t>(group.size()));
  group.AllGather(&mine, sizeof(mine), places.data(), Patience::kLoad);
  CpuShare share;
  size_t before = 0, sharers = 0;
  for (size_t r = 0; r < places.size(); ++r) {
    if (places[r].host != mine.host) continue;
    share.all |= SetOf(places[r].cpus);
    if (places[r].cpus != mine.cpus) continue;
    before += r < static_cast<size_t>(group.rank());
    ++sharers;
  }
  share.sharers = static_cast<int>(sharers);
  share.mine = Part(SetOf(mine.cpus), before, sharers);
  return share;
}

}  // namespace assay
