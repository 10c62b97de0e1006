// SPDX-License-Identifier: Apache-2.0
// A team of threads that run one kernel together: every member calls the kernel with the same arguments
// and its own rank, and takes its share of the work. The kernel returns when this member's share is done;
// whoever runs kernels in sequence puts a barrier between them.
#pragma once

namespace assay::cpu {

// Barrier shared by the members of a team (implemented by the thread pool).
class TeamBarrier {
 public:
  virtual ~TeamBarrier() = default;
  virtual void Wait(int rank) = 0;
};

struct Team {
  int rank = 0;
  int size = 1;
  TeamBarrier* barrier = nullptr;  // may be null when size is 1

  // For kernels with several phases. All members must call it equally often.
  void Barrier() const {
    if (size > 1) barrier->Wait(rank);
  }
};

// The share [begin, end) of `n` items, in multiples of `grain`, that belongs to a member.
struct Share {
  long begin, end;
};
inline Share Split(long n, long grain, const Team& team) {
  const long chunks = (n + grain - 1) / grain;
  const long b = chunks * team.rank / team.size * grain;
  const long e = chunks * (team.rank + 1) / team.size * grain;
  return {b < n ? b : n, e < n ? e : n};
}

}  // namespace assay::cpu
