// SPDX-License-Identifier: Apache-2.0
#include "bench/power/power.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

namespace assay::bench {
namespace {

// ---- grades

// A counter that a second reading confirms, in a run that is long enough.
MeterBehaviour Confirmed() {
  return {.constant = false,
          .scope = "board",
          .seconds = 30,
          .updates = 300,
          .period_s = 0.1,
          .cross_ratio = 1.01,
          .spread = 0.02};
}
MeterBehaviour With(const std::function<void(MeterBehaviour&)>& change, MeterBehaviour behaviour = Confirmed()) {
  change(behaviour);
  return behaviour;
}
MeterBehaviour AtTheWall() {
  return With([](MeterBehaviour& b) {
    b.scope = "wall";
    b.period_s = 1;
    b.updates = 30;
    b.cross_ratio.reset();
    b.spread = 0.01;
  });
}

TEST(Grade, FollowsFromWhatHappened) {
  using B = MeterBehaviour&;
  const struct {
    const char* grade;
    const char* why;
    MeterBehaviour behaviour;
  } cases[] = {
      {"B", "confirmed by the integral of powers (101 % of it)", Confirmed()},
      {"B", "confirmed", With([](B b) { b.cross_ratio = 0.951; })},
      {"B", "confirmed", With([](B b) { b.cross_ratio = 1.049; })},
      {"none", "the integral of the powers is 106 % of what the counter counted; more than 5 % apart",
       With([](B b) { b.cross_ratio = 1.06; })},
      {"none", "is 94 % of", With([](B b) { b.cross_ratio = 0.94; })},
      {"none", "is 94 % of", With([](B b) { b.scope = "wall", b.cross_ratio = 0.94, b.spread = 0.001; })},
      {"C", "not confirmed by a second reading", With([](B b) { b.cross_ratio.reset(); })},
      {"D", "only 9 updates of the meter", With([](B b) { b.updates = 9; })},
      {"B", "", With([](B b) { b.updates = 10; })},
      {"D", "metered for only 4.9 s", With([](B b) { b.seconds = 4.9; })},
      {"B", "", With([](B b) { b.seconds = 5; })},
      {"D", "slow: the meter is read or moves every 0.30 s", With([](B b) { b.period_s = 0.3; })},
      {"B", "", With([](B b) { b.period_s = 0.25; })},
      {"F", "a figure that somebody gave", With([](B b) { b.constant = true; })},
      {"F", "a figure that somebody gave", With([](B b) { b.constant = true, b.cross_ratio = 2; })},
      {"A", "at the wall, without gaps, trials within 1 %", AtTheWall()},
      {"D", "slow", With([](B b) { b.scope = "node"; }, AtTheWall())},
      {"D", "slow", With([](B b) { b.spread = 0.011; }, AtTheWall())},
      {"D", "slow", With([](B b) { b.spread.reset(); }, AtTheWall())},
      {"D", "slow", With([](B b) { b.seconds = 29; }, AtTheWall())},
      {"D", "only 9 updates", With([](B b) { b.updates = 9; }, AtTheWall())},
      {"C", "not confirmed", With([](B b) { b.spread = 0.011, b.period_s = 0.1; }, AtTheWall())},
  };
  for (const auto& c : cases) {
    const GradeReason reason = GradeOf(c.behaviour);
    EXPECT_EQ(reason.grade, c.grade) << c.why;
    ASSERT_FALSE(reason.why.empty());
    EXPECT_NE(reason.why[0].find(c.why), std::string::npos) << reason.why[0];
  }
}

TEST(Grade, DSaysAllThatIsPoor) {
  const MeterBehaviour poor = With([](MeterBehaviour& b) {
    b.seconds = 2;
    b.updates = 3;
    b.period_s = 1;
  });
  EXPECT_EQ(GradeOf(poor).why.size(), 3u);
}

TEST(Grade, OnlyAToCAreMeasured) {
  for (const char* grade : {"A", "B", "C", "D", "F", "none"}) {
    Power power;
    power.grade = grade;
    EXPECT_EQ(IsMeasured(power), std::string("ABC").find(grade) != std::string::npos) << grade;
  }
}

// ---- figures

constexpr double kRestW = 50, kLoadedW = 80, kLoadW = 300;
constexpr double kEpochS = 100;  // of the run, on the meter's clock

// Rest for 10 s from the epoch on, weights loaded until 20, then five trials of 6 s and five prefill and five decode
// loops of 3 s with a second of rest before each, then rest without weights from 85.5 on.
struct Bench {
  MeterRecord record;
  std::vector<MeteredTrial> trials, prefill, decode;
  PowerWork work;
};

// 1000 tokens in, 21 out.
MeteredTrial Loaded(double begin_s, double end_s) {
  return {{kEpochS + begin_s, kEpochS + end_s}, 1000, 21};
}

// powers: beside the counter.
Bench RunBench(const std::function<double(double t_s)>& load_w, bool powers = true) {
  Bench bench;
  for (int i = 0; i < 5; ++i) {
    bench.trials.push_back(Loaded(21 + 7 * i, 27 + 7 * i));
    bench.prefill.push_back(Loaded(56 + 3 * i, 58 + 3 * i));
    bench.decode.push_back(Loaded(71 + 3 * i, 73 + 3 * i));
  }
  bench.work.idle_before = {{kEpochS + 0.5, kEpochS + 9.5}};
  bench.work.idle_loaded = {{kEpochS + 10.5, kEpochS + 19.5}};
  bench.work.idle_after = {{kEpochS + 86, kEpochS + 95}};
  bench.work.output_tps = 20;
  bench.record.info.source = "meter";
  bench.record.info.scope = "board";
  bench.record.info.notes = {"what it covers"};
  bench.record.info.period_s = 0.1;
  double energy_j = 0;
  for (int i = 0; i <= 960; ++i) {
    const double t_s = 0.1 * i;
    const bool loaded = t_s > 20.5 && t_s < 85.5;
    const double watts = loaded ? load_w(t_s) : t_s > 10 && t_s < 85.5 ? kLoadedW : kRestW;
    energy_j += 0.1 * watts;
    Reading reading;
    reading.t_s = kEpochS + t_s;
    reading.energy_j = energy_j;
    if (powers) reading.watts = watts;
    bench.record.readings.push_back(reading);
  }
  return bench;
}

Power Summary(Bench& bench) {
  bench.work.trials = bench.trials;
  bench.work.prefill = bench.prefill;
  bench.work.decode = bench.decode;
  return SummarizePower(&bench.record, "", bench.work);
}

Bench Steady() {
  return RunBench([](double) { return kLoadW; });
}

TEST(Power, FiguresFollowFromTheEnergy) {
  Bench bench = Steady();
  bench.record.info.limit_w = 700;
  const Power p = Summary(bench);
  EXPECT_EQ(p.grade, "B");
  EXPECT_TRUE(IsMeasured(p));
  EXPECT_EQ(p.source, "meter");
  EXPECT_EQ(p.scope, "board");
  EXPECT_EQ(p.limit_w, 700);
  EXPECT_NEAR(*p.mean_w, kLoadW, 1e-6);
  EXPECT_NEAR(*p.mean_w_low, kLoadW, 1e-6);
  EXPECT_NEAR(*p.mean_w_high, kLoadW, 1e-6);
  EXPECT_NEAR(*p.peak_w, kLoadW, 1e-6);
  EXPECT_NEAR(*p.metered_s, 5 * 5.9, 0.3);
  EXPECT_NEAR(*p.energy_j, kLoadW * *p.metered_s, 1e-6);
  EXPECT_NEAR(*p.update_period_s, 0.1, 1e-6);
  EXPECT_NEAR(*p.cross_check, 1, 1e-6);
  EXPECT_NEAR(*p.idle_w, kRestW, 1e-6);
  EXPECT_NEAR(*p.idle_loaded_w, kLoadedW, 1e-6);
  // 6 s at 300 W for 21 tokens, or 1021.
  EXPECT_NEAR(*p.j_per_output_token, 1800.0 / 21, 1e-6);
  EXPECT_NEAR(*p.j_per_output_token_low, 1800.0 / 21, 1e-6);
  EXPECT_NEAR(*p.j_per_output_token_high, 1800.0 / 21, 1e-6);
  EXPECT_NEAR(*p.j_per_total_token, 1800.0 / 1021, 1e-6);
  EXPECT_NEAR(*p.output_tps_per_w, 21 / 1800.0, 1e-9);
  EXPECT_NEAR(*p.net_j_per_output_token, 1800.0 / 21 * (kLoadW - kRestW) / kLoadW, 1e-6);
  EXPECT_NEAR(*p.energy_delay_js, 1800.0 / 21 / 20, 1e-6);
  EXPECT_FALSE(p.mean_clock_mhz || p.min_clock_mhz || p.max_temperature_c || p.throttled_share);
  ASSERT_EQ(p.notes.size(), 3u);
  EXPECT_NE(p.notes[0].find("confirmed"), std::string::npos);
  EXPECT_EQ(p.notes[1], "what it covers");
  EXPECT_NE(p.notes[2].find("30 s or more are better"), std::string::npos);
}

TEST(Power, PhasesHaveFiguresOfTheirOwn) {
  Bench bench = RunBench([](double t_s) { return t_s < 55.5 ? 300 : t_s < 70.5 ? 400 : 200; });
  const Power p = Summary(bench);
  EXPECT_NEAR(*p.mean_w, 300, 1e-6);
  ASSERT_TRUE(p.prefill && p.decode);
  EXPECT_NEAR(p.prefill->mean_w->value, 400, 1e-6);
  EXPECT_NEAR(p.prefill->j_per_token->value, 2 * 400 / 1000.0, 1e-6) << "per token of the prompt";
  EXPECT_NEAR(*p.prefill->tps_per_w, 1000 / 800.0, 1e-6);
  EXPECT_NEAR(p.decode->mean_w->value, 200, 1e-6);
  EXPECT_NEAR(p.decode->j_per_token->value, 2 * 200 / 21.0, 1e-6) << "per token put out";
  EXPECT_NEAR(*p.decode->tps_per_w, 21 / 400.0, 1e-6);
  EXPECT_NEAR(p.decode->seconds, 5 * 1.85, 0.5);
  bench.prefill.clear();
  EXPECT_FALSE(Summary(bench).prefill);
}

TEST(Power, APhaseWithoutTokensHasNoFigurePerToken) {
  Bench bench = Steady();
  for (MeteredTrial& trial : bench.decode) trial.output_tokens = 0;
  const Power p = Summary(bench);
  EXPECT_NEAR(p.decode->mean_w->value, kLoadW, 1e-6);
  EXPECT_FALSE(p.decode->j_per_token || p.decode->tps_per_w);
}

TEST(Power, TheIntervalIsThatOfTheTrials) {
  // Trial i draws 300 + 4 i W.
  Bench bench = RunBench([](double t_s) { return 300 + 4 * std::floor((t_s - 20.5) / 7); });
  const Power p = Summary(bench);
  const auto rate = SummarizeRate(std::vector<double>{300, 304, 308, 312, 316});
  EXPECT_NEAR(*p.mean_w, 308, 0.1);
  EXPECT_NEAR(*p.mean_w_low, *rate->ci_low, 0.1);
  EXPECT_NEAR(*p.mean_w_high, *rate->ci_high, 0.1);
  const double tokens_per_j = 21 / 6.0;  // at one watt
  EXPECT_NEAR(*p.j_per_output_token, 308 / tokens_per_j, 0.05);
  EXPECT_NEAR(*p.j_per_output_token_low, *rate->ci_low / tokens_per_j, 0.05);
  EXPECT_NEAR(*p.j_per_output_token_high, *rate->ci_high / tokens_per_j, 0.05);
}

TEST(Power, OneTrialHasNoInterval) {
  Bench bench = Steady();
  bench.trials.resize(1);
  const Power p = Summary(bench);
  EXPECT_NEAR(*p.mean_w, kLoadW, 1e-6);
  EXPECT_FALSE(p.mean_w_low || p.mean_w_high || p.j_per_output_token_low || p.j_per_output_token_high);
}

TEST(Power, TokensAreThoseOfTheWholeLoad) {
  // A counter that moves once a second cuts up to a second, and so half of the prompt, from each trial.
  Bench bench = Steady();
  double last_j = 0;
  for (size_t i = 0; i < bench.record.readings.size(); ++i) {
    Reading& r = bench.record.readings[i];
    if (i % 10 == 7) last_j = *r.energy_j;
    r.energy_j = last_j;
  }
  const Power p = Summary(bench);
  EXPECT_LT(*p.metered_s, 26);
  EXPECT_NEAR(*p.j_per_output_token, 1800.0 / 21, 1e-6);
  EXPECT_NEAR(*p.j_per_total_token, 1800.0 / 1021, 1e-6);
}

TEST(Power, SensorsAreAddedUpOverTrials) {
  Bench bench = Steady();
  for (Reading& r : bench.record.readings) {
    const double t_s = r.t_s - kEpochS;
    r.clock_mhz = t_s < 34.5 ? 1500 : 1400;  // two of five trials at the higher clock
    r.temperature_c = t_s;
    r.throttled_s = t_s / 10;
  }
  const Power p = Summary(bench);
  EXPECT_NEAR(*p.mean_clock_mhz, 1440, 5);
  EXPECT_EQ(*p.min_clock_mhz, 1400);
  EXPECT_NEAR(*p.max_temperature_c, 55, 0.3);
  EXPECT_NEAR(*p.throttled_share, 0.1, 0.01);
}

// ---- what is not known is not shown

void ExpectNoFigures(const Power& p) {
  EXPECT_EQ(p.grade, "none");
  EXPECT_FALSE(IsMeasured(p));
  EXPECT_FALSE(p.mean_w || p.mean_w_low || p.peak_w || p.energy_j || p.metered_s || p.idle_w || p.idle_loaded_w);
  EXPECT_FALSE(p.j_per_output_token || p.j_per_total_token || p.output_tps_per_w || p.net_j_per_output_token);
  EXPECT_FALSE(p.prefill || p.decode || p.energy_delay_js);
}

TEST(Power, WithoutAMeterSaysWhy) {
  const Power p = SummarizePower(nullptr, "no meter here", {});
  ExpectNoFigures(p);
  EXPECT_EQ(p.notes, std::vector<std::string>{"no meter here"});
  EXPECT_FALSE(p.source || p.scope);
}

TEST(Power, NothingRanIsNotMetered) {
  Bench bench = Steady();
  bench.trials.clear();
  const Power p = Summary(bench);
  ExpectNoFigures(p);
  EXPECT_EQ(p.notes, std::vector<std::string>{"nothing ran long enough to be metered"});
}

TEST(Power, AFaultInOneTrialSpoilsTheEnergyOfAll) {
  for (int trial = 0; trial < 5; ++trial) {
    Bench bench = Steady();
    bench.record.faults.push_back({kEpochS + 24 + 7 * trial, "unplugged"});
    const Power p = Summary(bench);
    ExpectNoFigures(p);
    EXPECT_EQ(p.notes, std::vector<std::string>{"the meter failed during the measurement: unplugged"});
  }
}

TEST(Power, AFaultElsewhereCostsWhatItTouches) {
  const struct {
    double t_s;
    const char* note;
    bool idle, loaded, prefill, decode;
  } cases[] = {{5, "the power at rest is unknown: the meter failed", false, true, true, true},
               {90, "the power at rest is unknown: the meter failed", false, true, true, true},
               {15, "the power at rest with weights loaded is unknown: the meter failed", true, false, true, true},
               {57, "prefill alone was not metered: the meter failed", true, true, false, true},
               {72, "decode alone was not metered: the meter failed", true, true, true, false},
               {27.5, "", true, true, true, true}};  // between two trials
  for (const auto& c : cases) {
    Bench bench = Steady();
    bench.record.faults.push_back({kEpochS + c.t_s, "unplugged"});
    const Power p = Summary(bench);
    EXPECT_EQ(p.grade, "B") << c.t_s;
    EXPECT_NEAR(*p.mean_w, kLoadW, 1e-6);
    EXPECT_EQ(p.idle_w.has_value(), c.idle) << c.t_s;
    EXPECT_EQ(p.net_j_per_output_token.has_value(), c.idle) << c.t_s;
    EXPECT_EQ(p.idle_loaded_w.has_value(), c.loaded) << c.t_s;
    EXPECT_EQ(p.prefill.has_value(), c.prefill) << c.t_s;
    EXPECT_EQ(p.decode.has_value(), c.decode) << c.t_s;
    EXPECT_NE(p.notes.back().find(c.note), std::string::npos) << p.notes.back();
  }
}

TEST(Power, ASecondReadingThatDisagreesMakesTheEnergyInvalid) {
  Bench bench = Steady();
  for (Reading& r : bench.record.readings) *r.watts *= 0.93;
  const Power p = Summary(bench);
  ExpectNoFigures(p);
  EXPECT_EQ(p.source, "meter");
  EXPECT_NEAR(*p.cross_check, 0.93, 1e-6);
  ASSERT_EQ(p.notes.size(), 1u);
  EXPECT_NE(p.notes[0].find("93 % of what the counter counted"), std::string::npos);
}

TEST(Power, ASecondReadingCountsOverAllTrials) {
  Bench bench = RunBench([](double) { return kLoadW; });
  for (Reading& r : bench.record.readings) {
    if (r.t_s - kEpochS < 27.5) *r.watts *= 0.93;  // the first trial alone
  }
  const Power p = Summary(bench);
  EXPECT_EQ(p.grade, "B");
  EXPECT_NEAR(*p.cross_check, 1 - 0.07 / 5, 0.001);
}

TEST(Power, WithoutASecondReadingIsC) {
  Bench bench = RunBench([](double) { return kLoadW; }, /*powers=*/false);
  const Power p = Summary(bench);
  EXPECT_EQ(p.grade, "C");
  EXPECT_FALSE(p.cross_check);
}

TEST(Power, AtTheWallIsAWhereTrialsAgree) {
  const auto wall = [](double step_w) {
    Bench bench = RunBench([=](double t_s) { return 300 + step_w * std::floor((t_s - 20.5) / 7); });
    for (Reading& r : bench.record.readings) r.energy_j.reset();
    bench.record.info.scope = "wall";
    for (MeteredTrial& trial : bench.trials)
      trial = Loaded(trial.load.begin_s - kEpochS, trial.load.begin_s - kEpochS + 6.3);
    return Summary(bench).grade;
  };
  EXPECT_EQ(wall(0), "A");
  EXPECT_EQ(wall(4), "C");
}

TEST(Power, AConstantIsF) {
  Bench bench = Steady();
  for (Reading& r : bench.record.readings) {
    r.energy_j.reset();
    r.watts = 120.5;
  }
  bench.record.info.constant = true;
  bench.record.info.scope.clear();
  const Power p = Summary(bench);
  EXPECT_EQ(p.grade, "F");
  EXPECT_FALSE(IsMeasured(p));
  EXPECT_NEAR(*p.mean_w, 120.5, 1e-6);
  EXPECT_FALSE(p.scope);
  EXPECT_EQ(p.notes.size(), 2u) << "that it is short does not matter";
}

// ---- the choice

std::string WhyRefused(const std::string& spec) {
  try {
    MakeMeter(spec, nullptr);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(MakeMeter, AConstantTellsItsWatts) {
  const MeterChoice choice = MakeMeter("const:120.5", nullptr);
  ASSERT_TRUE(choice.meter);
  EXPECT_TRUE(choice.meter->info().constant);
  EXPECT_EQ(choice.meter->info().scope, "") << "nobody knows";
  const auto read = choice.meter->Read();
  ASSERT_TRUE(read.ok() && read.value().size() == 1);
  EXPECT_EQ(read.value()[0].watts, 120.5);
  for (const char* spec : {"const", "const:", "const:-5", "const:0", "const:nan", "const:inf", "const:5W"}) {
    EXPECT_EQ(WhyRefused(spec),
              "power meter " + std::string(spec) + ": the watts must be a number above 0, for example const:350");
  }
}

TEST(MakeMeter, NoneAndAutoSayWhyThereIsNone) {
  EXPECT_FALSE(MakeMeter("none", nullptr).meter);
  EXPECT_EQ(MakeMeter("none", nullptr).why_none, "power was not asked for (--power none)");
  const MeterChoice chosen = MakeMeter("auto", nullptr);
  EXPECT_NE(chosen.meter == nullptr, chosen.why_none.empty());
}

TEST(MakeMeter, RefusesWhatItDoesNotKnow) {
  for (const char* spec : {"", "rapl2", "wattmeter:5", "ipmi:5", "telemetry:5", "None"}) {
    EXPECT_EQ(WhyRefused(spec),
              "power meter " + std::string(spec) + ": there is no such meter; there are " + kMeterHelp);
  }
  EXPECT_NE(WhyRefused("rapl:/nonexistent").find("power meter rapl:/nonexistent: /nonexistent is not there"),
            std::string::npos);
  EXPECT_NE(WhyRefused("telemetry").find("name one with --device"), std::string::npos);
}

}  // namespace
}  // namespace assay::bench
