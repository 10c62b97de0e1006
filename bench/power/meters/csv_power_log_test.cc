// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/csv_power_log.h"

#include <gtest/gtest.h>

#include <random>

namespace assay::bench {
namespace {

constexpr double kNoon = 1767268800;  // 2026-01-01 12:00 UTC

// The rows of a whole log; "error" tests use Problem.
std::vector<PowerRow> Rows(const std::vector<std::string>& lines) {
  CsvPowerLog log;
  std::vector<PowerRow> rows;
  for (const std::string& line : lines) {
    const auto row = log.Parse(line);
    EXPECT_TRUE(row.ok()) << line << ": " << row.error();
    if (row.ok() && row.value()) rows.push_back(*row.value());
  }
  return rows;
}

// The first problem of a log.
std::string Problem(const std::vector<std::string>& lines) {
  CsvPowerLog log;
  for (const std::string& line : lines) {
    if (const auto row = log.Parse(line); !row.ok()) return row.error();
  }
  return "none";
}

void ExpectRow(const std::vector<std::string>& lines, double stamp_s, double watts) {
  const auto rows = Rows(lines);
  ASSERT_EQ(rows.size(), 1u) << lines[0];
  EXPECT_NEAR(rows[0].stamp_s, stamp_s, 1e-6) << lines.back();
  EXPECT_NEAR(rows[0].watts, watts, 1e-9) << lines.back();
}

TEST(CsvPowerLog, ReadsEveryFormOfTime) {
  ExpectRow({"12.5,300"}, 12.5, 300);
  ExpectRow({"0,300"}, 0, 300);
  ExpectRow({"1767268800.25,300"}, kNoon + 0.25, 300);
  ExpectRow({"1767268800250,300"}, kNoon + 0.25, 300);
  ExpectRow({"1767268800250.5,300"}, kNoon + 0.2505, 300);
  ExpectRow({"2026-01-01T12:00:00Z,300"}, kNoon, 300);
  ExpectRow({"2026-01-01 12:00:00.125,300"}, kNoon + 0.125, 300);
  ExpectRow({"2026/01/01 12:00,300"}, kNoon, 300);
  ExpectRow({"2026-01-01T20:00:00.5+08:00,300"}, kNoon + 0.5, 300);
  ExpectRow({"2026-01-01T06:30:00-0530,300"}, kNoon, 300);
  ExpectRow({"2026-01-01T11:00:00 -01,300"}, kNoon, 300);
  ExpectRow({"2024-02-29T00:00:00Z,300"}, 1709164800, 300);
}

TEST(CsvPowerLog, SaysWhenItAssumedUtc) {
  CsvPowerLog log;
  ASSERT_TRUE(log.Parse("2026-01-01T12:00:00Z,300").ok());
  ASSERT_TRUE(log.Parse("2026-01-01T12:00:00+00:00,300").ok());
  ASSERT_TRUE(log.Parse("1,300").ok());
  EXPECT_FALSE(log.assumed_utc());
  ASSERT_TRUE(log.Parse("2026-01-01T12:00:00,300").ok());
  EXPECT_TRUE(log.assumed_utc());
}

TEST(CsvPowerLog, ReadsEverySeparator) {
  ExpectRow({"1.5;300.25"}, 1.5, 300.25);
  ExpectRow({"1,5;300,25"}, 1.5, 300.25);
  ExpectRow({"1.5\t300.25"}, 1.5, 300.25);
  ExpectRow({"2026-01-01 12:00:00,5;300,25"}, kNoon + 0.5, 300.25);
  ExpectRow({" 1.5 , +300.25 "}, 1.5, 300.25);
  ExpectRow({"\"1.5\",\"300.25\""}, 1.5, 300.25);
  ExpectRow({"time,note,W", "1,\"a, b\",300"}, 1, 300);
}

TEST(CsvPowerLog, FindsColumnsByName) {
  for (const char* power : {"W", "watts", "Watts", "Power", "P(W)", "P [W]", "Active Power", "Active Power (W)",
                            "power_w", "real power", "Leistung / W"}) {
    ExpectRow({std::string("Voltage,") + power + ",Timestamp", "230,300,7"}, 7, 300);
  }
  for (const char* time : {"time", "Time (s)", "timestamp", "Time Stamp", "DateTime", "Date/Time", "Elapsed Time",
                           "unix time", "time_s", "Time [UTC]"}) {
    ExpectRow({std::string("U;") + time + ";W", "230;7,5;300"}, 7.5, 300);
  }
  ExpectRow({"W\tTime\tDate", "300\t12:00:00.5\t2026-01-01"}, kNoon + 0.5, 300);
  ExpectRow({"Time (ms),W", "1500,300"}, 1.5, 300);
  ExpectRow({"\xEF\xBB\xBFtime,W,var", "1,300,20"}, 1, 300);
}

TEST(CsvPowerLog, ConvertsUnits) {
  ExpectRow({"time,kW", "1,0.3"}, 1, 300);
  ExpectRow({"time,Power (kW)", "1,0.3"}, 1, 300);
  ExpectRow({"time,P(mW)", "1,300000"}, 1, 300);
  ExpectRow({"time,power_mw", "1,300000"}, 1, 300);
  EXPECT_NE(Problem({"time,P(MW)", "1,300"}).find("no column of power"), std::string::npos);  // mega or milli?
}

TEST(CsvPowerLog, OtherQuantitiesAreNoPower) {
  ExpectRow(
      {"time,Reactive Power (var),Apparent Power (VA),Power Factor,Energy (Wh),V,A,W", "1,20,310,0.97,5,230,1,300"}, 1,
      300);
}

TEST(CsvPowerLog, SkipsWhatIsNoRow) {
  EXPECT_EQ(Rows({"", "   ", "# made by logger", "assay: wall meter marker: 1767268800.000", "time,W", "1,300",
                  "time,W", "2,301"})
                .size(),
            2u);
}

TEST(CsvPowerLog, RefusesHeadersThatLeaveAChoiceOrNothing) {
  const std::string several = Problem({"time,P1(W),P2(W),Psum(W)"});
  EXPECT_NE(several.find("3 columns of power, \"P1(W)\", \"P2(W)\", \"Psum(W)\""), std::string::npos) << several;
  EXPECT_NE(Problem({"time,V,A"}).find("no column of power"), std::string::npos);
  EXPECT_NE(Problem({"V,W"}).find("no column of time"), std::string::npos);
  EXPECT_NE(Problem({"date,W"}).find("no column of time"), std::string::npos);
  CsvPowerLog log;  // the rows below cannot be read either, until a better header comes
  EXPECT_FALSE(log.Parse("time,P1(W),P2(W)").ok());
  EXPECT_FALSE(log.Parse("1,100,200").ok());
  EXPECT_TRUE(log.Parse("time,W").ok());
  EXPECT_TRUE(log.Parse("2,300").value().has_value());
}

TEST(CsvPowerLog, RefusesMalformedRows) {
  for (const char* line : {"1",
                           "1,",
                           ",300",
                           "1,abc",
                           "1,3e999",
                           "1,nan",
                           "1,inf",
                           "1,300W",
                           "abc,300",
                           "1,0x10",
                           "1,--3",
                           "2026-13-01T00:00:00Z,300",
                           "2026-02-30T00:00:00Z,300",
                           "2026-01-01T24:00:00Z,300",
                           "2026-01-01T12:00:00X,300",
                           "2026-01-01T12:00:00+8,300",
                           "2026-01-01,300",
                           "1e300,300",
                           "1767268800000000,300",
                           "1;1.234,5",
                           "\x01\x02,\xFF"}) {
    EXPECT_NE(Problem({line}), "none") << line;
  }
  EXPECT_EQ(Problem({"1,a\x1b[2Jb"}), "\"a?[2Jb\" is no number of watts");
  EXPECT_LT(Problem({"1," + std::string(4000, 'x')}).size(), 200u);
}

TEST(CsvPowerLog, RandomLinesNeverCrash) {
  std::minstd_rand random(1);
  const std::string likely = "0123456789.,;:-+TZ eE\t\"#timeWkdan/()";
  CsvPowerLog log;
  for (int i = 0; i < 20000; ++i) {
    std::string line(random() % 40, '\0');
    for (char& c : line) c = i % 2 == 0 ? static_cast<char>(random()) : likely[random() % likely.size()];
    const auto row = log.Parse(line);
    if (!row.ok()) {
      EXPECT_EQ(row.error().find('\n'), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace assay::bench
