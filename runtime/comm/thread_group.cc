// SPDX-License-Identifier: Apache-2.0
// A group of threads of this process: collectives are a meeting before and one after reads of each other's memory.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>

#include "runtime/comm/group.h"

namespace assay {
namespace {

// Spins that bridge the time between two collectives of a step; then the thread sleeps.
constexpr int kSpins = 3000;
// How long the others get to end on their own once a rank failed; one that waits for its device never does.
constexpr std::chrono::seconds kGrace{10};
constexpr std::chrono::seconds kLeaveLimit{5};

enum class Call { kNone, kReduce, kGather, kBroadcast, kLeave };

// What a rank shows to the others between two meetings.
struct Slot {
  Call call = Call::kNone;
  uint64_t bytes = 0;
  void* data = nullptr;
};

class Meeting {
 public:
  explicit Meeting(int size) : slots(static_cast<size_t>(size)), size_(size) {}

  // Returns when all have come; false if they did not in time. Throws Error once a rank has failed.
  bool Meet(bool leader, std::chrono::seconds limit) {
    const uint32_t phase = phase_.load();
    if (arrived_.fetch_add(1) == size_ - 1) {
      arrived_.store(0);
      const std::lock_guard lock(mutex_);
      phase_.store(phase + 1);
      moved_.notify_all();
      return true;
    }
    for (int i = 0; i < kSpins && phase_.load(std::memory_order_acquire) == phase && !failed_.load(); ++i) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    std::unique_lock lock(mutex_);
    const bool came = moved_.wait_for(lock, limit, [&] { return phase_.load() != phase || failed_.load(); });
    if (phase_.load() != phase) return true;
    if (!came) return false;
    leader_knows_ = leader_knows_ || leader;
    moved_.notify_all();
    throw Error(why_);
  }

  [[noreturn]] void Fail(bool leader, const std::string& why) {
    std::unique_lock lock(mutex_);
    if (!failed_.exchange(true)) why_ = why;
    moved_.notify_all();
    // The leader says what it heard, or its own, and ends the process; where it cannot, this thread does.
    if (leader || !moved_.wait_for(lock, kGrace, [&] { return leader_knows_; })) {
      std::fprintf(stderr, "assay: %s\n", why.c_str());
      std::fflush(stdout);
      _exit(2);
    }
    lock.unlock();
    throw Error(why);
  }

  std::vector<Slot> slots;

 private:
  const int size_;
  std::atomic<int> arrived_{0};
  std::atomic<uint32_t> phase_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::condition_variable moved_;
  bool leader_knows_ = false;
  std::string why_;
};

class ThreadGroup final : public Group {
 public:
  ThreadGroup(std::shared_ptr<Meeting> meeting, int rank, int size)
      : Group(rank, size, rank, size), meeting_(std::move(meeting)) {}

  void AllReduceSum(float* data, int64_t n) override {
    Show({Call::kReduce, sizeof(float) * static_cast<uint64_t>(n), data}, Patience::kStep);
    // Each rank sums its part of the elements for everyone: the same order of additions wherever it lands.
    const int64_t begin = n * rank() / size(), end = n * (rank() + 1) / size();
    for (int64_t i = begin; i < end; ++i) {
      float sum = 0;
      for (const Slot& slot : meeting_->slots) sum += static_cast<const float*>(slot.data)[i];
      for (const Slot& slot : meeting_->slots) static_cast<float*>(slot.data)[i] = sum;
    }
    Meet(Patience::kStep);
  }

  void AllGather(const void* mine, uint64_t bytes, void* all, Patience patience) override {
    Show({Call::kGather, bytes, const_cast<void*>(mine)}, patience);
    auto* to = static_cast<uint8_t*>(all);
    for (const Slot& slot : meeting_->slots) {
      std::memcpy(to, slot.data, bytes);
      to += bytes;
    }
    Meet(Patience::kStep);
  }

  void Abort(const std::string& why) override { meeting_->Fail(leader(), why); }

  bool Leave() override {
    try {
      return Show({Call::kLeave, 0, nullptr}, kLeaveLimit);
    } catch (const Error&) {
      return false;
    }
  }

 protected:
  void Broadcast(void* data, uint64_t bytes, Patience patience) override {
    Show({Call::kBroadcast, bytes, data}, patience);
    if (!leader()) std::memcpy(data, meeting_->slots[0].data, bytes);
    Meet(Patience::kStep);
  }

 private:
  // Meets the others there; false if they did not come in time. A rank that left a step half done makes another call
  // than they do, and all learn it here.
  bool Show(const Slot& slot, std::chrono::seconds limit) {
    meeting_->slots[static_cast<size_t>(rank())] = slot;
    if (!meeting_->Meet(leader(), limit)) return false;
    for (const Slot& other : meeting_->slots) {
      if (other.call != slot.call || other.bytes != slot.bytes) throw Error("the ranks are no longer in step");
    }
    return true;
  }
  void Show(const Slot& slot, Patience patience) {
    if (!Show(slot, LimitOf(patience))) Late(patience);
  }
  void Meet(Patience patience) {
    if (!meeting_->Meet(leader(), LimitOf(patience))) Late(patience);
  }
  [[noreturn]] void Late(Patience patience) const {
    throw Error("rank " + std::to_string(rank()) + " waited " + std::to_string(LimitOf(patience).count()) +
                " s for the other ranks: one of them hangs or is gone");
  }

  std::shared_ptr<Meeting> meeting_;
};

}  // namespace

std::vector<std::shared_ptr<Group>> MakeThreadGroup(int size) {
  const auto meeting = std::make_shared<Meeting>(size);
  std::vector<std::shared_ptr<Group>> members;
  for (int r = 0; r < size; ++r) members.push_back(std::make_shared<ThreadGroup>(meeting, r, size));
  return members;
}

}  // namespace assay
