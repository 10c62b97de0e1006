// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/wall.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "bench/power/meters/byte_source.h"
#include "bench/power/meters/csv_power_log.h"
#include "bench/power/meters/log_clock.h"

namespace assay::bench {
namespace {

using Opened = Result<std::unique_ptr<Meter>>;
using Answer = Result<std::vector<Reading>>;

constexpr double kPeriodS = 0.1;
constexpr size_t kLongestLine = 4096;

constexpr char kByArrival[] =
    "its rows were placed on this machine's clock by their arrival; the marker line on stderr, copied into the log, "
    "would place them exactly";
constexpr char kByMarker[] = "its rows were placed on this machine's clock by the marker line in the log";
constexpr char kUtc[] = "its times name no zone and were read as UTC; only their differences count";

class WallMeter : public Meter {
 public:
  WallMeter(std::string place, std::unique_ptr<ByteSource> source)
      : place_(std::move(place)), source_(std::move(source)) {
    info_.source = "wall: " + place_;
    info_.scope = "wall";
    info_.period_s = kPeriodS;
    info_.notes = {kByArrival};
  }

  const MeterInfo& info() const override { return info_; }

  Answer Read() override {
    auto bytes = source_->Read();
    if (!bytes.ok()) return Answer::Fail(bytes.error());
    if (bytes.value().restarted) Restart();
    // Rows beside a line that is wrong are kept for the next call.
    if (auto problem = Feed(bytes.value().data, NowSeconds())) return Answer::Fail(std::move(*problem));
    auto readings = clock_.Take();
    UpdateInfo();
    return readings;
  }

  // Reads what the log holds already, for its header. Fails where that is not a log of power.
  std::optional<std::string> SkipPast() {
    std::optional<std::string> problem;
    bool rows = false;
    for (size_t size = 1; size > 0;) {
      const auto bytes = source_->Read();
      if (!bytes.ok()) return std::nullopt;  // no such file yet: Read will say so
      if (bytes.value().restarted) Restart();
      size = bytes.value().data.size();
      auto found = Feed(bytes.value().data, NowSeconds());
      if (!problem) problem = std::move(found);
      rows |= !clock_.Take().empty();
    }
    return rows ? std::nullopt : problem;
  }

  void EmitMarker() {
    const double unix_s = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    char line[80];
    std::snprintf(line, sizeof line, "assay: wall meter marker: %.3f", unix_s);
    marker_ = line;
    std::fprintf(stderr, "%s\n", line);
    marker_s_ = NowSeconds();
  }

 private:
  void Restart() {
    partial_.clear();
    overlong_ = false;
    line_ = 0;
    log_ = CsvPowerLog();
    clock_.Restart();
  }

  // Takes in what came at `arrival_s`; the first thing that is wrong with it.
  std::optional<std::string> Feed(const std::string& data, double arrival_s) {
    std::optional<std::string> problem;
    for (size_t begin = 0; begin < data.size();) {
      const size_t end = data.find('\n', begin);
      const bool whole = end != data.npos;
      partial_.append(data, begin, std::min(end, data.size()) - begin);
      begin = whole ? end + 1 : data.size();
      overlong_ |= partial_.size() > kLongestLine;
      if (overlong_) partial_.clear();
      if (!whole) break;
      ++line_;
      auto wrong = TakeLine(arrival_s);
      if (!problem) problem = std::move(wrong);
      partial_.clear();
      overlong_ = false;
    }
    return problem;
  }

  std::optional<std::string> TakeLine(double arrival_s) {
    const std::string where = place_ + ":" + std::to_string(line_) + ": ";
    if (overlong_) return where + "the line is longer than " + std::to_string(kLongestLine) + " bytes";
    if (partial_.ends_with('\r')) partial_.pop_back();
    if (!marker_.empty() && partial_ == marker_) {
      clock_.Mark(marker_s_);
      return std::nullopt;
    }
    const auto row = log_.Parse(partial_);
    if (!row.ok()) return where + row.error();
    if (row.value()) clock_.Add(*row.value(), arrival_s);
    return std::nullopt;
  }

  void UpdateInfo() {
    info_.period_s = std::max(kPeriodS, clock_.interval_s().value_or(0));
    info_.notes = {clock_.marked() ? kByMarker : kByArrival};
    if (log_.assumed_utc()) info_.notes.push_back(kUtc);
  }

  std::string place_;
  std::unique_ptr<ByteSource> source_;
  MeterInfo info_;

  std::string marker_;
  double marker_s_ = 0;  // when it was written
  std::string partial_;  // the line that has not ended yet
  bool overlong_ = false;
  int64_t line_ = 0;
  CsvPowerLog log_;
  LogClock clock_;
};

}  // namespace

Result<std::unique_ptr<Meter>> OpenWall(const std::string& place) {
  const bool tcp = place.starts_with("tcp:");
  if (place.empty()) return Opened::Fail("wall: name the analyser's CSV file, or tcp:HOST:PORT");
  auto source = tcp ? OpenTcp(place.substr(4)) : OpenFileTail(place);
  if (!source.ok()) return Opened::Fail(source.error());
  auto meter = std::make_unique<WallMeter>(place, std::move(source.value()));
  if (!tcp) {
    if (const auto problem = meter->SkipPast()) return Opened::Fail(*problem);
  }
  meter->EmitMarker();
  return Opened(std::move(meter));
}

}  // namespace assay::bench
