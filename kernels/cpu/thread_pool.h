// SPDX-License-Identifier: Apache-2.0
// A persistent team of pinned threads that runs kernels SPMD. The thread that calls Run is member 0; the others
// are owned by the pool, spin for some tens of microseconds after a run (the next one usually follows), then sleep.
// Run is called from one thread at a time.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/cpu/team.h"

namespace assay::cpu {

// The processors that this process may run on (affinity mask), the first hardware thread of every core first.
struct UsableCpus {
  std::vector<int> ids;
  int cores = 0;  // distinct physical cores among them: the first `cores` ids lie on different ones
};
UsableCpus FindUsableCpus();

// Sense-reversing: the last to arrive flips the phase that the others watch. A waiter spins for a short while only,
// then yields its processor at every look: on a shared host the member it waits for may need that processor.
class SpinBarrier final : public TeamBarrier {
 public:
  explicit SpinBarrier(int members) : members_(members) {}
  void Wait(int rank) override;

 private:
  const int members_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
};

class ThreadPool {
 public:
  // Members are pinned to cpus[rank] when there are at least `threads` of them, otherwise not at all.
  // threads >= 1.
  ThreadPool(int threads, std::vector<int> cpus);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // Calls fn(team) on every member and returns when all have finished. fn must not throw.
  template <class F>
  void Run(const F& fn) {
    RunJob([](const void* context, const Team& team) { (*static_cast<const F*>(context))(team); }, &fn);
  }

 private:
  using Job = void (*)(const void* context, const Team& team);
  void RunJob(Job job, const void* context);
  void WorkerMain(int rank);
  uint32_t AwaitEpoch(uint32_t seen);  // returns the new epoch

  const int size_;
  const std::vector<int> cpus_;  // empty: not pinned
  SpinBarrier barrier_;
  Job job_ = nullptr;
  const void* context_ = nullptr;
  bool stop_ = false;
  alignas(64) std::atomic<uint32_t> epoch_{0};  // raised once per run
  std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

}  // namespace assay::cpu
