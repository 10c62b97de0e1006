// SPDX-License-Identifier: Apache-2.0
// Which CPUs each rank of one host computes on. Any thread; nothing fails: where Linux does not answer, nothing is
// narrowed and only speed depends on it.
#pragma once

#include <bitset>

#include "runtime/comm/group.h"

namespace assay {

using CpuSet = std::bitset<8192>;

// The calling thread's affinity, which threads that it starts inherit.
CpuSet ThreadCpus();
void SetThreadCpus(const CpuSet& cpus);

struct CpuShare {
  CpuSet mine;      // disjoint from the other ranks' where there are CPUs enough
  CpuSet all;       // of all ranks on this host
  int sharers = 1;  // ranks that were given the same CPUs as this one, itself included, and divide them
};
// A launcher may have bound the ranks: what it gave to several of them is divided among these, and what it gave to one
// stays that one's. Collective.
CpuShare ShareCpus(Group& group);

}  // namespace assay
