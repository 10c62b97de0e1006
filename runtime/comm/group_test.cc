// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/group.h"

#include <gtest/gtest.h>

#include <thread>

#include "runtime/comm/affinity.h"

namespace assay {
namespace {

// Runs `work` as every rank of a group of threads; what it throws, by rank.
std::vector<std::string> OnRanks(int size, const std::function<void(Group&)>& work) {
  const auto members = MakeThreadGroup(size);
  std::vector<std::string> why(static_cast<size_t>(size));
  std::vector<std::jthread> threads;
  for (int r = 0; r < size; ++r) {
    threads.emplace_back([&, r] {
      try {
        work(*members[r]);
      } catch (const std::exception& e) {
        why[r] = e.what();
      }
    });
  }
  threads.clear();
  return why;
}

const std::vector<std::string> kAllWell(3);

TEST(ThreadGroup, SumsToTheSameBitsOnEveryRank) {
  constexpr int64_t kN = 1001;
  std::vector<std::vector<float>> data(3, std::vector<float>(kN));
  for (int r = 0; r < 3; ++r) {
    for (int64_t i = 0; i < kN; ++i) data[r][i] = static_cast<float>((r + 1) * i) / 7;
  }
  EXPECT_EQ(OnRanks(3, [&](Group& g) { g.AllReduceSum(data[g.rank()].data(), kN); }), kAllWell);
  for (int64_t i = 0; i < kN; ++i) EXPECT_NEAR(data[0][i], 6.0f * i / 7, 1e-3) << i;
  EXPECT_EQ(data[1], data[0]);
  EXPECT_EQ(data[2], data[0]);
}

TEST(ThreadGroup, GathersByRankAndBringsMessages) {
  EXPECT_EQ(OnRanks(3,
                    [&](Group& g) {
                      for (int32_t i = 0; i < 100; ++i) {
                        const int32_t mine = 1000 * g.rank() + i;
                        std::vector<int32_t> all(3);
                        g.AllGather(&mine, sizeof(mine), all.data(), Patience::kStep);
                        ASSERT_EQ(all, (std::vector<int32_t>{i, 1000 + i, 2000 + i}));
                        if (g.leader()) {
                          g.Send(MessageKind::kLoad, i);
                        } else {
                          const Message m = g.Receive();
                          ASSERT_EQ(m.kind, MessageKind::kLoad);
                          ASSERT_EQ(m.As<int32_t>(), i);
                        }
                      }
                      EXPECT_TRUE(g.Leave());
                    }),
            kAllWell);
}

TEST(ThreadGroup, OneRanksFailureIsEveryones) {
  const auto why = OnRanks(3, [](Group& g) {
    g.Agree([] {});
    g.Agree([&] {
      if (g.rank() == 1) throw Error("no room");
    });
  });
  EXPECT_EQ(why, (std::vector<std::string>{"rank 1: no room", "no room", "rank 1: no room"}));
}

TEST(ThreadGroup, RanksThatAreNotInStepFindOut) {
  const auto why = OnRanks(2, [](Group& g) {
    std::vector<float> x(1000);
    if (g.leader()) return g.Send(MessageKind::kEnd);
    g.AllReduceSum(x.data(), 1000);
  });
  EXPECT_EQ(why, std::vector<std::string>(2, "the ranks are no longer in step"));
}

TEST(ThreadGroup, ARankThatDiesWakesTheOthers) {
  const auto why = OnRanks(3, [](Group& g) {
    float x = 1;
    if (g.rank() == 2) g.Abort("rank 2: the device is lost");
    g.AllReduceSum(&x, 1);
  });
  EXPECT_EQ(why, std::vector<std::string>(3, "rank 2: the device is lost"));
}

TEST(ShareCpus, RanksOnTheSameCpusDivideThem) {
  const CpuSet before = ThreadCpus();
  std::vector<CpuShare> shares(2);
  OnRanks(2, [&](Group& g) { shares[g.rank()] = ShareCpus(g); });
  for (const CpuShare& s : shares) {
    EXPECT_EQ(s.sharers, 2);
    EXPECT_EQ(s.all, before);
    EXPECT_TRUE(s.mine.any());
    EXPECT_EQ(s.mine & before, s.mine);
  }
  if (before.count() > 1) {
    EXPECT_TRUE((shares[0].mine & shares[1].mine).none() || shares[0].mine == shares[1].mine);
  }
}

TEST(ShareCpus, WhatTheLauncherGaveToOneStaysThatOnes) {
  const CpuSet before = ThreadCpus();
  if (before.count() < 2) GTEST_SKIP() << "one CPU cannot be bound to two ranks";
  std::vector<CpuShare> shares(2);
  OnRanks(2, [&](Group& g) {
    CpuSet own;
    size_t cpu = before._Find_first();
    if (g.rank() == 1) cpu = before._Find_next(cpu);
    own.set(cpu);
    SetThreadCpus(own);
    shares[g.rank()] = ShareCpus(g);
    EXPECT_EQ(shares[g.rank()].mine, own);
  });
  EXPECT_EQ(shares[0].sharers, 1);
  EXPECT_EQ(shares[0].all.count(), 2u);
}

}  // namespace
}  // namespace assay
