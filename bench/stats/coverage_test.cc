// SPDX-License-Identifier: Apache-2.0
// How often the 95 % intervals contain the truth, in simulated runs with fixed seeds. The tables of docs/statistics.md:
//   ASSAY_COVERAGE_TABLE=1 build/test_bench --gtest_filter='Coverage.*'
// which prints them from eight times as many runs.
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <vector>

#include "bench/stats/interval.h"
#include "bench/stats/steady.h"
#include "bench/stats/summary.h"

namespace assay::bench {
namespace {

const bool kPrint = std::getenv("ASSAY_COVERAGE_TABLE") != nullptr;
const int kRuns = kPrint ? 20000 : 2500;
const size_t kTrials[] = {5, 10, 20, 50};

class Random {
 public:
  double Normal() { return normal_(bits_); }

 private:
  std::mt19937_64 bits_{20240229};
  std::normal_distribution<double> normal_;
};

// How the trials of a run come about: noise of standard deviation 1 around 100, unless the name says otherwise.
struct Process {
  const char* name;
  double truth;
  std::function<std::vector<double>(Random&, size_t)> trials;
};

Process Lognormal(const char* name, double sigma) {
  return {name, std::exp(sigma * sigma / 2), [=](Random& random, size_t n) {
            std::vector<double> x(n);
            for (double& v : x) v = std::exp(sigma * random.Normal());
            return x;
          }};
}

Process Drift(const char* name, double change) {
  return {name, 100, [=](Random& random, size_t n) {
            std::vector<double> x(n);
            for (size_t i = 0; i < n; ++i) {
              x[i] = 100 + change * (static_cast<double>(i) / static_cast<double>(n - 1) - 0.5) + random.Normal();
            }
            return x;
          }};
}

Process Ar1(const char* name, double rho) {
  return {name, 100, [=](Random& random, size_t n) {
            std::vector<double> x(n);
            double state = random.Normal();
            for (double& v : x) {
              v = 100 + state;
              state = rho * state + std::sqrt(1 - rho * rho) * random.Normal();
            }
            return x;
          }};
}

std::vector<Process> Processes() {
  return {Ar1("independent, normal", 0),          Lognormal("lognormal, sigma 0.1", 0.1),
          Lognormal("lognormal, sigma 0.5", 0.5), Drift("drift of 2 %, noise 1 %", 2),
          Drift("drift of 5 %, noise 1 %", 5),    Ar1("neighbours correlated 0.3", 0.3),
          Ar1("neighbours correlated 0.6", 0.6)};
}

double PlainHalf(const std::vector<double>& x) {
  const double n = static_cast<double>(x.size()), mean = Mean(x);
  double squares = 0;
  for (double v : x) squares += (v - mean) * (v - mean);
  return boost::math::quantile(boost::math::students_t(n - 1), 0.975) * std::sqrt(squares / (n - 1) / n);
}

struct Cell {
  double ours = 0, plain = 0;  // coverage
  double width = 0;            // ours / plain, mean
};

Cell Simulate(const Process& process, size_t n) {
  Random random;
  Cell cell;
  for (int run = 0; run < kRuns; ++run) {
    const std::vector<double> x = process.trials(random, n);
    const Interval interval = MeanInterval(x).value();
    const double half = PlainHalf(x);
    cell.ours += interval.low <= process.truth && process.truth <= interval.high;
    cell.plain += std::abs(interval.value - process.truth) <= half;
    cell.width += (interval.high - interval.low) / (2 * half);
  }
  cell.ours /= kRuns, cell.plain /= kRuns, cell.width /= kRuns;
  return cell;
}

// A simulated share may miss the true one by three of its standard errors.
double Slack(double share, int runs) {
  return 3 * std::sqrt(share * (1 - share) / runs);
}

// The least and the most coverage that docs/statistics.md promises, for 5, 10, 20 and 50 trials.
struct Promise {
  double low, high;
};
constexpr Promise kNominal{0.93, 0.97}, kWide{0.93, 1.0};

TEST(Coverage, MeanOverTrials) {
  const Promise promised[][4] = {{kNominal, kNominal, kNominal, kNominal},
                                 {kNominal, kNominal, kNominal, kNominal},
                                 {kNominal, kNominal, kNominal, kNominal},
                                 {kWide, kWide, kNominal, kNominal},
                                 {kWide, kWide, kNominal, kNominal},
                                 {kNominal, kNominal, kNominal, kNominal},
                                 {{0.84, 0.97}, {0.84, 0.97}, {0.87, 0.97}, {0.91, 0.97}}};
  const std::vector<Process> processes = Processes();
  for (size_t p = 0; p < processes.size(); ++p) {
    if (kPrint) std::printf("| %-26s |", processes[p].name);
    for (size_t i = 0; i < std::size(kTrials); ++i) {
      const Cell cell = Simulate(processes[p], kTrials[i]);
      if (kPrint) std::printf(" %5.1f (%5.1f, %.2fx) |", 100 * cell.ours, 100 * cell.plain, cell.width);
      const Promise& promise = promised[p][i];
      SCOPED_TRACE(std::string(processes[p].name) + ", " + std::to_string(kTrials[i]) + " trials");
      EXPECT_GE(cell.ours, promise.low - Slack(promise.low, kRuns));
      EXPECT_LE(cell.ours, promise.high + Slack(promise.high, kRuns));
    }
    if (kPrint) std::printf("\n");
  }
}

// What other tools do. Each trial pools 20 requests, whose noise is three times that between trials.
TEST(Coverage, NaiveMethodsFail) {
  const Process process = Processes().front();
  for (size_t n : kTrials) {
    Random random;
    int pooled = 0;
    double best = 0;
    const int runs = kRuns / 4;
    for (int run = 0; run < runs; ++run) {
      const std::vector<double> trials = process.trials(random, n);
      best += *std::max_element(trials.begin(), trials.end()) - process.truth;
      std::vector<double> requests;
      for (double trial : trials) {
        for (int i = 0; i < 20; ++i) requests.push_back(trial + 3 * random.Normal());
      }
      pooled += std::abs(Mean(requests) - process.truth) <= PlainHalf(requests);
    }
    if (kPrint) std::printf("| %2zu trials | %.0f %% | +%.1f |\n", n, 100.0 * pooled / runs, best / runs);
    EXPECT_LT(pooled, 0.8 * runs);
    EXPECT_GT(best, 1.0 * runs);
  }
}

// Gaps between tokens: each trial and each of its 4 requests is faster or slower as a whole, and 2 % of the gaps wait
// for something.
std::vector<double> Gaps(Random& random, size_t tokens, double trial_sd) {
  std::vector<double> gaps;
  const double trial = trial_sd * random.Normal();
  double request = 0;
  for (size_t i = 0; i < tokens; ++i) {
    if (i % (tokens / 4 + 1) == 0) request = trial_sd * random.Normal();
    const double wait = random.Normal() > 2.05 ? 0.5 : 0;
    gaps.push_back(std::exp(trial + request + wait + 0.03 * random.Normal()));
  }
  return gaps;
}

struct QuantileCell {
  double clustered = 0, pooled = 0, bounded = 0;  // coverage where bounded; share of runs where it is
};

QuantileCell SimulateQuantile(size_t trials, size_t tokens, double trial_sd, double p) {
  Random random;
  std::vector<double> population;
  for (int i = 0; i < 100000; ++i) population.push_back(Gaps(random, 1, trial_sd)[0]);
  std::sort(population.begin(), population.end());
  const double truth = Quantile(population, p);
  const int runs = kRuns / 8;
  QuantileCell cell;
  const auto covers = [&](const Interval& i) { return i.low <= truth && truth <= i.high; };
  for (int run = 0; run < runs; ++run) {
    std::vector<std::vector<double>> groups;
    std::vector<double> all;
    for (size_t i = 0; i < trials; ++i) {
      groups.push_back(Gaps(random, tokens, trial_sd));
      all.insert(all.end(), groups.back().begin(), groups.back().end());
    }
    std::sort(all.begin(), all.end());
    if (const auto interval = QuantileInterval(all, p)) cell.pooled += covers(*interval);
    if (const auto interval = QuantileInterval(groups, p)) cell.clustered += covers(*interval), ++cell.bounded;
  }
  cell.clustered /= std::max(1.0, cell.bounded), cell.pooled /= runs, cell.bounded /= runs;
  return cell;
}

TEST(Coverage, Percentiles) {
  struct Case {
    size_t trials, tokens;
    double trial_sd, p;
  };
  for (const Case& c :
       {Case{5, 20, 0, 0.5}, {5, 200, 0.02, 0.5}, {20, 100, 0.02, 0.5}, {5, 400, 0, 0.99}, {5, 400, 0.02, 0.99}}) {
    const QuantileCell cell = SimulateQuantile(c.trials, c.tokens, c.trial_sd, c.p);
    if (kPrint) {
      std::printf("| p%.0f, %zu x %zu, %s | %.0f %% | %.0f %% | %.0f %% |\n", 100 * c.p, c.trials, c.tokens,
                  c.trial_sd > 0 ? "clustered" : "independent", 100 * cell.clustered, 100 * cell.pooled,
                  100 * cell.bounded);
    }
    EXPECT_GT(cell.clustered, 0.95 - Slack(0.95, kRuns / 8));
    EXPECT_GT(cell.bounded, 0.8);
    if (c.trial_sd > 0 && c.p == 0.5) {
      EXPECT_LT(cell.pooled, 0.5) << "a pooled sample was no problem, then";
    }
    if (c.trial_sd == 0) {
      EXPECT_GT(cell.pooled, 0.95 - Slack(0.95, kRuns / 8));
    }
  }
}

// Share of runs in which FitTrend sees a trend at p < 0.05, and in which neighbours are said to correlate.
TEST(Coverage, Alarms) {
  for (const Process& process : {Ar1("independent", 0), Ar1("neighbours correlated 0.6", 0.6)}) {
    if (kPrint) std::printf("| %-26s |", process.name);
    const bool independent = process.name[0] == 'i';
    for (size_t n : kTrials) {
      Random random;
      double trend = 0, correlated = 0;
      for (int run = 0; run < kRuns; ++run) {
        const std::vector<double> x = process.trials(random, n);
        trend += FitTrend(x).p_value < 0.05, correlated += NeighboursCorrelate(x);
      }
      trend /= kRuns, correlated /= kRuns;
      if (kPrint) std::printf(" %.0f %% / %.0f %% |", 100 * trend, 100 * correlated);
      if (independent) {
        EXPECT_NEAR(trend, 0.05, Slack(0.05, kRuns));
        EXPECT_LT(correlated, 0.05 + Slack(0.05, kRuns));
      } else {
        EXPECT_LT(trend, 0.35);
        EXPECT_GT(correlated, n < 10 ? -1 : n == 10 ? 0.15 : n == 20 ? 0.6 : 0.95);
      }
    }
    if (kPrint) std::printf("\n");
  }
}

}  // namespace
}  // namespace assay::bench
