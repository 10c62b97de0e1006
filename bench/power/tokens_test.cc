// SPDX-License-Identifier: Apache-2.0
#include "bench/power/tokens.h"

#include <gtest/gtest.h>

#include <vector>

namespace assay::bench {
namespace {

// Sent at 2 s; its first token at 3 s, then one every 0.5 s, the last at 5 s.
RequestSample Request() {
  RequestSample r;
  r.sent_s = 2;
  r.input_tokens = 100;
  r.output_tokens = 5;
  r.ttft_ms = 1000;
  r.itl_ms = {500, 500, 500, 500};
  return r;
}

constexpr double kEpochS = 1000;

TokenCount Within(double begin_s, double end_s) {
  return TokensWithin(std::vector{Request()}, kEpochS, {kEpochS + begin_s, kEpochS + end_s});
}

void ExpectTokens(const TokenCount& count, double input, double output) {
  EXPECT_NEAR(count.input, input, 1e-6);
  EXPECT_NEAR(count.output, output, 1e-6);
  EXPECT_NEAR(count.total(), input + output, 1e-6);
}

TEST(Tokens, AllOfARequestThatLiesInside) {
  ExpectTokens(Within(0, 10), 100, 5);
  ExpectTokens(Within(2, 5), 100, 5);
}

TEST(Tokens, NoneOfOneThatLiesOutside) {
  ExpectTokens(Within(0, 2), 0, 0);
  ExpectTokens(Within(5, 9), 0, 0);
  ExpectTokens(Within(4, 3), 0, 0);
}

TEST(Tokens, ThePromptAndTheFirstTokenByTheTimeToIt) {
  ExpectTokens(Within(0, 2.25), 25, 0.25);
  ExpectTokens(Within(2.25, 2.75), 50, 0.5);
  ExpectTokens(Within(2.75, 3), 25, 0.25);
}

TEST(Tokens, EachOtherTokenByTheTimeSinceTheOneBefore) {
  ExpectTokens(Within(3, 4), 0, 2);
  ExpectTokens(Within(3.25, 3.5), 0, 0.5);
  ExpectTokens(Within(4.9, 9), 0, 0.2);
}

TEST(Tokens, PartsAddUpToTheWhole) {
  double input = 0, output = 0;
  for (double t_s = 1.9; t_s < 5.1; t_s += 0.07) {
    const TokenCount part = Within(t_s, t_s + 0.07);
    input += part.input;
    output += part.output;
  }
  EXPECT_NEAR(input, 100, 1e-6);
  EXPECT_NEAR(output, 5, 1e-6);
}

TEST(Tokens, AddsRequestsUpAndLeavesOutFailedOnes) {
  std::vector<RequestSample> requests(3, Request());
  requests[1].error = "refused";
  requests[2].sent_s = 20;
  ExpectTokens(TokensWithin(requests, 0, {0, 30}), 200, 10);
  requests[2].ttft_ms.reset();
  ExpectTokens(TokensWithin(requests, 0, {0, 30}), 100, 5);
  ExpectTokens(TokensWithin({}, 0, {0, 30}), 0, 0);
}

TEST(Tokens, TwoThatArriveTogetherCountAsTheirRequestDid) {
  RequestSample r = Request();
  r.itl_ms = {500, 0, 500};  // two tokens of one step
  EXPECT_NEAR(TokensWithin(std::vector{r}, 0, {0, 10}).output, 4, 1e-6);
  EXPECT_NEAR(TokensWithin(std::vector{r}, 0, {3.4, 3.6}).output, 0.2 + 1 + 0.2, 1e-6);
  r.ttft_ms = 0;
  EXPECT_NEAR(TokensWithin(std::vector{r}, 0, {0, 10}).input, 100, 1e-6);
}

}  // namespace
}  // namespace assay::bench
