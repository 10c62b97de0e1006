// SPDX-License-Identifier: Apache-2.0
#include "runtime/sched/scheduler.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>

namespace assay {
namespace {

Request MakeRequest(int64_t prompt, int64_t new_tokens, std::vector<int32_t> stop = {}) {
  Request r;
  r.prompt.assign(prompt, 1);
  r.max_new_tokens = new_tokens;
  r.stop_ids = std::move(stop);
  return r;
}

// Runs to the end with a model that always samples `token`, with up to `flights` steps under way; checks what every
// step promises.
int RunAll(Scheduler& scheduler, const SchedulerLimits& limits, int32_t token = 7, size_t flights = 1) {
  int steps = 0;
  std::deque<std::vector<StepItem>> under_way;
  while (!scheduler.idle()) {
    while (under_way.size() < flights) {
      auto items = scheduler.Schedule();
      if (items.empty()) break;
      ++steps;
      int64_t tokens = 0;
      for (const StepItem& item : items) {
        EXPECT_GT(item.tokens, 0);
        EXPECT_LE(item.begin + item.tokens, static_cast<int64_t>(item.sequence->tokens.size()));
        tokens += item.tokens;
      }
      EXPECT_LE(tokens, limits.max_tokens);
      EXPECT_LE(static_cast<int64_t>(items.size()), limits.max_seqs);
      under_way.push_back(std::move(items));
    }
    EXPECT_FALSE(under_way.empty());
    if (under_way.empty() || steps > 10000) break;
    for (const StepItem& item : under_way.front()) scheduler.Advance(item, item.samples ? token : -1);
    under_way.pop_front();
  }
  return steps;
}

TEST(Scheduler, RunsARequestThroughPromptAndDecode) {
  BlockPool pool(8, 4);
  const SchedulerLimits limits{16, 4, 32};
  Scheduler scheduler(limits, &pool);
  ASSERT_TRUE(scheduler.Add(MakeRequest(5, 3)).ok());
  EXPECT_EQ(RunAll(scheduler, limits), 3);  // the prompt's step makes the first token, two decode steps the others
  const auto finished = scheduler.TakeFinished();
  ASSERT_EQ(finished.size(), 1u);
  EXPECT_EQ(finished[0]->tokens.size(), 8u);
  EXPECT_EQ(finished[0]->finish, FinishReason::kLength);
  EXPECT_EQ(pool.available(), pool.total());
}

TEST(Scheduler, CutsLongPromptsToTheTokenBudget) {
  BlockPool pool(16, 4);
  const SchedulerLimits limits{4, 2, 64};
  Scheduler scheduler(limits, &pool);
  ASSERT_TRUE(scheduler.Add(MakeRequest(10, 1)).ok());
  EXPECT_EQ(RunAll(scheduler, limits), 3);  // 4 + 4 + 2
}

TEST(Scheduler, PutsSeveralPromptsIntoOneStep) {
  BlockPool pool(16, 4);
  Scheduler scheduler({16, 4, 16}, &pool);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(scheduler.Add(MakeRequest(5, 2)).ok());
  const auto items = scheduler.Schedule();
  ASSERT_EQ(items.size(), 3u);
  EXPECT_EQ(items[0].tokens, 5);
  EXPECT_EQ(items[2].tokens, 5);
}

TEST(Scheduler, AdmitsTheNextBatchOnlyWhenTheLastIsDone) {
  BlockPool pool(64, 4);
  const SchedulerLimits limits{16, 2, 16};
  Scheduler scheduler(limits, &pool);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(scheduler.Add(MakeRequest(4, 1 + i % 2)).ok());
  RunAll(scheduler, limits);
  const auto finished = scheduler.TakeFinished();
  ASSERT_EQ(finished.size(), 5u);
  std::map<int64_t, size_t> place;
  for (size_t i = 0; i < finished.size(); ++i) place[finished[i]->id] = i;
  for (const int64_t first : {0, 1}) {
    for (const int64_t later : {2, 3, 4}) EXPECT_LT(place[first], place[later]);
  }
}

TEST(Scheduler, WaitsForBlocksInsteadOfRunningOut) {
  BlockPool pool(4, 4);  // room for two sequences of 8 tokens
  const SchedulerLimits limits{16, 4, 16};
  Scheduler scheduler(limits, &pool);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(scheduler.Add(MakeRequest(4, 4)).ok());
  const auto first = scheduler.Schedule();
  EXPECT_EQ(first.size(), 2u);
  for (const StepItem& item : first) scheduler.Advance(item, 7);
  RunAll(scheduler, limits);
  EXPECT_EQ(scheduler.TakeFinished().size(), 4u);
  EXPECT_EQ(pool.available(), 4);
}

TEST(Scheduler, StopsAtAStopToken) {
  BlockPool pool(8, 4);
  const SchedulerLimits limits{16, 1, 32};
  Scheduler scheduler(limits, &pool);
  ASSERT_TRUE(scheduler.Add(MakeRequest(2, 20, {3, 7})).ok());
  RunAll(scheduler, limits, 7);
  const auto finished = scheduler.TakeFinished();
  ASSERT_EQ(finished.size(), 1u);
  EXPECT_EQ(finished[0]->finish, FinishReason::kStop);
  EXPECT_EQ(finished[0]->generated(), 1);
}

// With a step under way, the next is scheduled as if that one were done.
TEST(Scheduler, SchedulesAhead) {
  BlockPool pool(8, 4);
  const SchedulerLimits limits{4, 2, 32};
  Scheduler scheduler(limits, &pool);
  ASSERT_TRUE(scheduler.Add(MakeRequest(6, 3)).ok());
  EXPECT_EQ(RunAll(scheduler, limits, 7, 2), 4);  // 4 + 2 of the prompt, two decode steps
  const auto finished = scheduler.TakeFinished();
  EXPECT_EQ(finished.at(0)->tokens, (std::vector<int32_t>{1, 1, 1, 1, 1, 1, 7, 7, 7}));
  EXPECT_EQ(pool.available(), pool.total());
}

// The step after a stop token is under way already: what it samples is dropped, and only then are the blocks free.
TEST(Scheduler, DropsWhatCameAfterAStopToken) {
  BlockPool pool(8, 4);
  Scheduler scheduler({16, 1, 32}, &pool);
  ASSERT_TRUE(scheduler.Add(MakeRequest(2, 20, {3})).ok());
  const auto prompt = scheduler.Schedule();
  const auto first = scheduler.Schedule();
  ASSERT_EQ(first.size(), 1u);
  EXPECT_TRUE(scheduler.Advance(prompt.at(0), 5));
  const auto second = scheduler.Schedule();
  EXPECT_TRUE(scheduler.Advance(first[0], 3));
  EXPECT_TRUE(scheduler.Schedule().empty());
  EXPECT_TRUE(scheduler.TakeFinished().empty());
  EXPECT_LT(pool.available(), pool.total());
  EXPECT_FALSE(scheduler.Advance(second.at(0), 9));
  const auto finished = scheduler.TakeFinished();
  ASSERT_EQ(finished.size(), 1u);
  EXPECT_EQ(finished[0]->tokens, (std::vector<int32_t>{1, 1, 5, 3}));
  EXPECT_EQ(finished[0]->finish, FinishReason::kStop);
  EXPECT_EQ(pool.available(), pool.total());
}

TEST(Scheduler, RunsAPromptThatWantsNoTokens) {
  BlockPool pool(8, 4);
  const SchedulerLimits limits{3, 1, 32};
  Scheduler scheduler(limits, &pool);
  ASSERT_TRUE(scheduler.Add(MakeRequest(7, 0)).ok());
  EXPECT_EQ(RunAll(scheduler, limits), 3);
  EXPECT_EQ(scheduler.TakeFinished()[0]->tokens.size(), 7u);
}

TEST(Scheduler, RefusesWhatCanNeverRun) {
  BlockPool pool(2, 4);
  Scheduler scheduler({16, 4, 16}, &pool);
  EXPECT_FALSE(scheduler.Add(MakeRequest(0, 4)).ok());
  EXPECT_FALSE(scheduler.Add(MakeRequest(10, 10)).ok());  // longer than the context
  EXPECT_FALSE(scheduler.Add(MakeRequest(5, 5)).ok());    // more blocks than there are
  EXPECT_TRUE(scheduler.idle());
}

TEST(Scheduler, ClearGivesEverythingBack) {
  BlockPool pool(8, 4);
  Scheduler scheduler({16, 4, 16}, &pool);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(scheduler.Add(MakeRequest(4, 4)).ok());
  scheduler.Schedule();
  EXPECT_LT(pool.available(), 8);
  scheduler.Clear();
  EXPECT_TRUE(scheduler.idle());
  EXPECT_EQ(pool.available(), 8);
}

TEST(BlockPool, GrowsByWholeBlocksOrNotAtAll) {
  BlockPool pool(3, 4);
  std::vector<int32_t> a, b;
  EXPECT_TRUE(pool.Grow(&a, 5));
  EXPECT_EQ(a.size(), 2u);
  EXPECT_TRUE(pool.Grow(&a, 8));  // already there
  EXPECT_EQ(pool.available(), 1);
  EXPECT_FALSE(pool.Grow(&b, 5));
  EXPECT_TRUE(b.empty());
  EXPECT_EQ(pool.available(), 1);
  EXPECT_TRUE(pool.Grow(&b, 4));
  EXPECT_NE(a[0], a[1]);
  EXPECT_NE(a[0], b[0]);
  EXPECT_NE(a[1], b[0]);
  pool.Free(&a);
  pool.Free(&b);
  EXPECT_EQ(pool.available(), 3);
}

}  // namespace
}  // namespace assay
