// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <string>

namespace assay::cpu {
namespace {

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

constexpr int kBarrierSpins = 1000;  // some 20 to 50 us of `pause`: longer than a fair imbalance between members
constexpr std::chrono::microseconds kIdleSpin{50};  // the host's work between two steps is shorter
constexpr int kMaxCpus = 8192;

class CpuSet {
 public:
  CpuSet() : set_(CPU_ALLOC(kMaxCpus)) { CPU_ZERO_S(bytes(), set_); }
  ~CpuSet() { CPU_FREE(set_); }
  CpuSet(const CpuSet&) = delete;
  CpuSet& operator=(const CpuSet&) = delete;

  static size_t bytes() { return CPU_ALLOC_SIZE(kMaxCpus); }
  void Add(int cpu) { CPU_SET_S(cpu, bytes(), set_); }
  bool Has(int cpu) const { return CPU_ISSET_S(cpu, bytes(), set_); }
  bool ReadFromThread() { return sched_getaffinity(0, bytes(), set_) == 0; }
  void ApplyToThread() const { sched_setaffinity(0, bytes(), set_); }  // best effort: only speed depends on it

 private:
  cpu_set_t* set_;
};

// Member 0 is the caller's thread. It is moved only when it sits on another member's processor, and gets its
// freedom back afterwards.
class CallerPin {
 public:
  explicit CallerPin(const std::vector<int>& cpus) {
    if (cpus.empty() || sched_getcpu() == cpus[0] || !before_.ReadFromThread()) return;
    CpuSet one;
    one.Add(cpus[0]);
    one.ApplyToThread();
    moved_ = true;
  }
  ~CallerPin() {
    if (moved_) before_.ApplyToThread();
  }

 private:
  CpuSet before_;
  bool moved_ = false;
};

// The lowest-numbered hardware thread of the core that `cpu` belongs to.
int FirstSibling(int cpu, const CpuSet& allowed) {
  std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
  int first = cpu;
  int low = 0;
  while (file >> low) {  // "0,64" or "0-1"
    int high = low;
    if (file.peek() == '-') {
      file.get();
      file >> high;
    }
    for (int c = low; c <= high && c < first; ++c) {
      if (allowed.Has(c)) first = c;
    }
    if (file.peek() == ',') file.get();
  }
  return first;
}

std::vector<int> PinTargets(int threads, std::vector<int> cpus) {
  if (threads < 2 || static_cast<size_t>(threads) > cpus.size()) return {};
  cpus.resize(threads);
  return cpus;
}

}  // namespace

UsableCpus FindUsableCpus() {
  CpuSet allowed;
  UsableCpus usable;
  std::vector<int> others;
  if (allowed.ReadFromThread()) {
    for (int cpu = 0; cpu < kMaxCpus; ++cpu) {
      if (!allowed.Has(cpu)) continue;
      (FirstSibling(cpu, allowed) == cpu ? usable.ids : others).push_back(cpu);
    }
  }
  usable.cores = std::max<int>(1, static_cast<int>(usable.ids.size()));
  usable.ids.insert(usable.ids.end(), others.begin(), others.end());
  return usable;
}

void SpinBarrier::Wait(int /*rank*/) {
  const uint32_t phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == members_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    return;
  }
  for (int spins = 0; phase_.load(std::memory_order_acquire) == phase; ++spins) {
    if (spins < kBarrierSpins) {
      Pause();
    } else {
      sched_yield();
    }
  }
}

ThreadPool::ThreadPool(int threads, std::vector<int> cpus)
    : size_(std::max(1, threads)), cpus_(PinTargets(size_, std::move(cpus))), barrier_(size_) {
  workers_.reserve(size_ - 1);
  for (int rank = 1; rank < size_; ++rank) workers_.emplace_back([this, rank] { WorkerMain(rank); });
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  epoch_.fetch_add(1);
  {
    std::lock_guard lock(mutex_);
    wake_.notify_all();
  }
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::RunJob(Job job, const void* context) {
  if (size_ == 1) {
    job(context, Team{});
    return;
  }
  const CallerPin pin(cpus_);
  job_ = job;
  context_ = context;
  // Either the sleeper's last look at epoch_ sees this, or this thread sees the sleeper (both are sequentially
  // consistent), and the sleeper holds the mutex from announcing itself until it waits.
  epoch_.fetch_add(1);
  if (sleepers_.load() > 0) {
    std::lock_guard lock(mutex_);
    wake_.notify_all();
  }
  job(context, Team{0, size_, &barrier_});
  barrier_.Wait(0);
}

uint32_t ThreadPool::AwaitEpoch(uint32_t seen) {
  const auto deadline = std::chrono::steady_clock::now() + kIdleSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      const uint32_t epoch = epoch_.load(std::memory_order_acquire);
      if (epoch != seen) return epoch;
      Pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  std::unique_lock lock(mutex_);
  sleepers_.fetch_add(1);
  wake_.wait(lock, [&] { return epoch_.load() != seen; });
  sleepers_.fetch_sub(1);
  return epoch_.load();
}

void ThreadPool::WorkerMain(int rank) {
  if (!cpus_.empty()) {
    CpuSet one;
    one.Add(cpus_[rank]);
    one.ApplyToThread();
  }
  const std::string name = "assay-" + std::to_string(rank);
  pthread_setname_np(pthread_self(), name.c_str());
  uint32_t epoch = 0;
  while (true) {
    epoch = AwaitEpoch(epoch);
    if (stop_) return;
    job_(context_, Team{rank, size_, &barrier_});
    barrier_.Wait(rank);
  }
}

}  // namespace assay::cpu
