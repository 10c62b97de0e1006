// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <set>
#include <thread>
#include <vector>

namespace assay::cpu {
namespace {

TEST(ThreadPool, RunsEveryMemberOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads, {});
    for (int run = 0; run < 100; ++run) {
      std::vector<int> calls(threads);  // each member writes its own
      pool.Run([&](const Team& team) {
        ASSERT_EQ(team.size, threads);
        ++calls[team.rank];
      });
      EXPECT_EQ(calls, std::vector<int>(threads, 1));
    }
  }
}

// Between two barriers every member sees what every other wrote before the first.
TEST(ThreadPool, BarrierOrdersMembers) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 2000;
  ThreadPool pool(kThreads, {});
  std::vector<int> values(kThreads);
  std::atomic<int> wrong{0};
  pool.Run([&](const Team& team) {
    for (int round = 1; round <= kRounds; ++round) {
      values[team.rank] = round;
      team.Barrier();
      for (const int value : values) wrong += value != round;
      team.Barrier();
    }
  });
  EXPECT_EQ(wrong, 0);
}

TEST(ThreadPool, WakesSleepingWorkers) {
  ThreadPool pool(3, {});
  for (int run = 0; run < 20; ++run) {
    std::this_thread::sleep_for(std::chrono::milliseconds(run % 3));  // longer than they spin
    std::atomic<int> calls{0};
    pool.Run([&](const Team&) { ++calls; });
    ASSERT_EQ(calls, 3);
  }
}

TEST(ThreadPool, PinsWorkersAndFreesTheCaller) {
  const UsableCpus usable = FindUsableCpus();
  ASSERT_GE(usable.ids.size(), 1u);
  EXPECT_GE(usable.cores, 1);
  EXPECT_LE(static_cast<size_t>(usable.cores), usable.ids.size());
  EXPECT_EQ(std::set<int>(usable.ids.begin(), usable.ids.end()).size(), usable.ids.size());
  if (usable.ids.size() < 2) GTEST_SKIP() << "one processor: nothing is pinned";
  cpu_set_t before, after;
  CPU_ZERO(&before);
  CPU_ZERO(&after);
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  ThreadPool pool(2, usable.ids);
  int where[2] = {-1, -1};
  pool.Run([&](const Team& team) { where[team.rank] = sched_getcpu(); });
  EXPECT_EQ(where[1], usable.ids[1]);
  ASSERT_EQ(sched_getaffinity(0, sizeof after, &after), 0);
  EXPECT_TRUE(CPU_EQUAL(&before, &after));
}

}  // namespace
}  // namespace assay::cpu
