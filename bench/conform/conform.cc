// SPDX-License-Identifier: Apache-2.0
#include "bench/conform/conform.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "bench/conform/placement.h"
#include "runtime/core/dtype.h"
#include "runtime/core/interrupt.h"

namespace assay::bench {
namespace {

// What fills whatever a run must write or must not touch: NaN in every floating point dtype, and a large number. An
// element that was never written differs between the two.
constexpr uint8_t kPoison = 0xFF, kOtherPoison = 0x7B;

double ElementOf(const ProblemTensor& t, const std::vector<uint8_t>& bytes, int64_t i) {
  if (t.dtype == ASSAY_I32) {
    int32_t value;
    std::memcpy(&value, bytes.data() + 4 * i, 4);
    return value;
  }
  float value;
  const auto size = static_cast<int64_t>(DTypeBytes(t.dtype, 1));
  ConvertElements(t.dtype, bytes.data() + size * i, ASSAY_F32, &value, 1);
  return value;
}

std::string Place(const ProblemTensor& t, int64_t i) {
  std::string place = "]";
  for (size_t d = t.shape.size(); d-- > 0;) {
    place = (d ? "," : "") + std::to_string(i % t.shape[d]) + place;
    i /= t.shape[d];
  }
  return t.name + "[" + place;
}

// The first output element that is further from the reference than is tolerated; `worst` grows to the largest error.
std::string Compare(const ProblemTensor& t, const std::vector<uint8_t>& got, const std::vector<uint8_t>& want,
                    double* worst) {
  std::string first;
  const double u = UnitRoundoff(t.dtype);
  const double smallest = t.dtype == ASSAY_F16 ? 0x1p-24 : t.dtype == ASSAY_F8_E4M3 ? 0x1p-9 : 0;  // of subnormals
  for (int64_t i = 0; i < t.count(); ++i) {
    const double x = ElementOf(t, got, i), y = ElementOf(t, want, i);
    if (x == y || (std::isnan(x) && std::isnan(y))) continue;
    double allowed = 0;
    if (t.rounded) {
      allowed = (t.relative + 2 * u) * std::abs(y) + smallest +
                (t.tolerance.empty() ? 0 : t.tolerance[static_cast<size_t>(i)]);
    }
    const double error = std::abs(x - y);
    const bool fine = error <= allowed;  // false for NaN
    if (fine) {
      *worst = std::max(*worst, error / allowed);
    } else if (first.empty()) {
      char text[160];
      std::snprintf(text, sizeof(text), " is %.9g, the reference has %.9g; tolerated: %.3g", x, y, allowed);
      first = Place(t, i) + text;
    }
  }
  if (!first.empty()) *worst = std::max(*worst, 1.0);
  return first;
}

class Runner {
 public:
  Runner(std::shared_ptr<Device> subject, std::shared_ptr<Device> reference, const ConformOptions& options)
      : subject_(std::move(subject)),
        reference_(std::move(reference)),
        options_(options),
        stream_(subject_),
        reference_stream_(reference_) {}

  CaseReport Run(const ConformCase& c) {
    CaseReport report;
    report.op = c.op();
    report.text = c.text();
    report.where = c.where();
    const Problem problem = BuildProblem(c, subject_->info(), options_.seed);
    if (!problem.undeclared.empty()) {
      Skip(report, "not declared by the device: " + problem.undeclared);
      return report;
    }
    if (options_.mode == ConformMode::kList) return report;
    try {
      if (options_.mode == ConformMode::kPerf) {
        Time(problem, report);
      } else {
        Test(problem, report);
      }
    } catch (const DeviceError&) {
      throw;
    } catch (const Error& e) {
      Fail(report, e.what());
    }
    return report;
  }

 private:
  static void Skip(CaseReport& report, const std::string& why) {
    report.status = CaseStatus::kSkipped;
    report.detail = why;
  }
  static void Fail(CaseReport& report, const std::string& why) {
    report.status = CaseStatus::kFailed;
    report.detail = why;
  }

  // Whether the device takes the case; otherwise it is skipped, or failed where the operation is required.
  bool Prepare(const Problem& problem, Placement& placement, CaseReport& report) {
    const std::string why = placement.Prepare(problem.call);
    if (why.empty()) return true;
    if (problem.optional) {
      Skip(report, "optional, refused: " + why);
    } else {
      Fail(report, "required, refused: " + why);
    }
    return false;
  }

  Outcome RunReference(const Problem& problem) {
    Placement placement(reference_, reference_stream_, problem);
    for (const ProblemCall& call : problem.reference) {
      const std::string why = placement.Prepare(call);
      if (!why.empty()) throw Error("the reference device refuses the case: " + why);
    }
    placement.Fill(kPoison);
    for (const ProblemCall& call : problem.reference) placement.Enqueue(call);
    std::string violation;
    return placement.Fetch(problem.call, &violation);
  }

  void Test(const Problem& problem, CaseReport& report) {
    Placement placement(subject_, stream_, problem);
    if (!Prepare(problem, placement, report)) return;
    std::string violation;
    placement.Fill(kPoison);
    placement.Enqueue(problem.call);
    const Outcome outcome = placement.Fetch(problem.call, &violation);
    if (!violation.empty()) return Fail(report, violation);

    placement.Fill(kOtherPoison);
    placement.Enqueue(problem.call);
    const std::string again = Differences(problem, outcome, placement.Fetch(problem.call, &violation));
    if (!violation.empty()) return Fail(report, violation);
    if (!again.empty()) return Fail(report, again + ": an element was not written, or two runs differ");
    if (subject_->backend().has_plans()) {
      placement.Fill(kPoison);
      placement.RunAsPlan(problem.call);
      const std::string planned = Differences(problem, outcome, placement.Fetch(problem.call, &violation));
      if (!violation.empty()) return Fail(report, "as a plan: " + violation);
      if (!planned.empty()) return Fail(report, planned + ": a recorded plan gives another result than enqueue");
    }
    Judge(problem, outcome, report);
  }

  static std::string Differences(const Problem& problem, const Outcome& a, const Outcome& b) {
    for (size_t i = 0; i < a.size(); ++i) {
      if (a[i] == b[i] || problem.tensors[i].undefined_after) continue;
      const auto at = std::mismatch(a[i].begin(), a[i].end(), b[i].begin()).first - a[i].begin();
      return Place(problem.tensors[i], at / static_cast<int64_t>(DTypeBytes(problem.tensors[i].dtype, 1)));
    }
    return "";
  }

  void Judge(const Problem& problem, const Outcome& outcome, CaseReport& report) {
    const Outcome expected = RunReference(problem);
    for (const int i : std::set<int>(problem.call.out.begin(), problem.call.out.end())) {
      if (i < 0 || problem.tensors[static_cast<size_t>(i)].judged) continue;
      const size_t at = static_cast<size_t>(i);
      const std::string why = Compare(problem.tensors[at], outcome[at], expected[at], &report.worst_error);
      if (!why.empty()) return Fail(report, why);
    }
    const std::string why = problem.judge ? problem.judge(outcome, expected) : "";
    if (!why.empty()) Fail(report, why);
  }

  void Time(const Problem& problem, CaseReport& report) {
    uint64_t size = 1;
    for (const ProblemTensor& t : problem.tensors) size += DTypeBytes(t.dtype, static_cast<uint64_t>(t.count()));
    // Rotating among copies keeps caches from serving what a real model would read from memory.
    const uint64_t copies = std::clamp<uint64_t>(options_.perf_bytes / size, 1, 32);
    std::vector<Placement> placements;
    placements.reserve(copies);
    for (uint64_t i = 0; i < copies; ++i) {
      placements.emplace_back(subject_, stream_, problem);
      if (!Prepare(problem, placements.back(), report)) return;
      placements.back().Fill(0);
      placements.back().ForgetContents();
    }
    for (Placement& placement : placements) placement.Enqueue(problem.call);
    stream_.Synchronize();
    std::vector<double> times;
    double total = 0;
    Event begin(subject_), end(subject_);
    // What a launch costs the host hides behind the operation before it, as it does in a model's step.
    const size_t batch = subject_->info().is_accelerator ? std::max<size_t>(copies, 8) : 1;
    for (size_t i = 0; total < options_.perf_seconds * 1e9 || times.size() < 10; i += batch) {
      ThrowIfInterrupted();
      begin.Record(stream_);
      for (size_t j = i; j < i + batch; ++j) placements[j % copies].Enqueue(problem.call);
      end.Record(stream_);
      end.Synchronize();
      times.push_back(end.ElapsedNsSince(begin) / static_cast<double>(batch));
      total += std::max(times.back(), 1000.0) * static_cast<double>(batch);  // ends even if it claims to take no time
    }
    std::sort(times.begin(), times.end());
    report.repetitions = static_cast<int64_t>(times.size());
    report.median_ns = times[times.size() / 2];
    report.min_ns = times[0];
    if (report.median_ns > 0) {
      report.gb_per_s = problem.bytes / report.median_ns;
      report.gflop_per_s = problem.flops / report.median_ns;
    }
  }

  std::shared_ptr<Device> subject_, reference_;
  ConformOptions options_;
  Stream stream_, reference_stream_;
};

// An operation of which nothing could be run has not been shown to work.
void RequireEveryOp(ConformReport& report) {
  for (const std::string& op : RequiredOps()) {
    const bool ran = std::any_of(report.cases.begin(), report.cases.end(),
                                 [&](const CaseReport& c) { return c.op == op && c.status != CaseStatus::kSkipped; });
    if (ran) continue;
    CaseReport missing;
    missing.op = missing.text = op;
    missing.status = CaseStatus::kFailed;
    missing.detail = "required, and the device declares too little to run any of its cases";
    report.cases.push_back(missing);
  }
}

}  // namespace

int64_t ConformReport::Count(CaseStatus status) const {
  return std::count_if(cases.begin(), cases.end(), [&](const CaseReport& c) { return c.status == status; });
}

std::vector<std::pair<std::string, int64_t>> ConformReport::SkipReasons() const {
  std::map<std::string, int64_t> counts;
  for (const CaseReport& c : cases) {
    if (c.status == CaseStatus::kSkipped) ++counts[c.detail];
  }
  std::vector<std::pair<std::string, int64_t>> reasons(counts.begin(), counts.end());
  std::stable_sort(reasons.begin(), reasons.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  return reasons;
}

ConformReport RunConformance(const std::shared_ptr<Device>& subject, const std::shared_ptr<Device>& reference,
                             const ConformOptions& options, const std::function<void(const CaseReport&)>& progress) {
  std::regex filter;
  try {
    filter = std::regex(options.filter, std::regex::ECMAScript);
  } catch (const std::regex_error& e) {
    throw Error("'" + options.filter + "' is not a regular expression: " + e.what());
  }
  ConformReport report;
  report.device_id = subject->id();
  report.device_name = subject->info().name;
  report.backend = subject->backend().name();
  report.reference = reference->id();
  Runner runner(subject, reference, options);
  int64_t selected = 0;
  for (const ConformCase& c : ParseCases(ConformanceCases(), subject->info())) {
    ThrowIfInterrupted();
    const int64_t perf = c.Int("perf", 0), most = subject->info().is_accelerator ? 2 : 1;
    if ((perf > 0) != (options.mode == ConformMode::kPerf) || perf > most) continue;
    if (!std::regex_search(c.text(), filter)) continue;
    if (selected++ % options.every != 0) continue;
    report.cases.push_back(runner.Run(c));
    if (progress) progress(report.cases.back());
  }
  if (report.cases.empty()) throw Error("no conformance case matches '" + options.filter + "'");
  if (options.mode == ConformMode::kTest && options.filter.empty() && options.every == 1) RequireEveryOp(report);
  return report;
}

ConformReport RunConformance(const std::shared_ptr<Device>& subject, const ConformOptions& options,
                             const std::function<void(const CaseReport&)>& progress) {
  const DeviceChoice choice = ChooseDevice("ref");
  return RunConformance(subject, Device::Open(choice.backend, choice.index, 0), options, progress);
}

std::string ConformJson(const ConformReport& report) {
  using Json = nlohmann::ordered_json;
  Json cases = Json::array();
  const char* const names[] = {"passed", "failed", "skipped"};
  for (const CaseReport& c : report.cases) {
    Json entry = {{"op", c.op}, {"case", c.text}, {"where", c.where}, {"status", names[static_cast<int>(c.status)]}};
    if (!c.detail.empty()) entry["detail"] = c.detail;
    if (c.worst_error > 0) entry["worst_error"] = c.worst_error;
    if (c.repetitions > 0) {
      entry["median_ns"] = c.median_ns;
      entry["min_ns"] = c.min_ns;
      entry["repetitions"] = c.repetitions;
      entry["gb_per_s"] = c.gb_per_s;
      if (c.gflop_per_s > 0) entry["gflop_per_s"] = c.gflop_per_s;
    }
    cases.push_back(std::move(entry));
  }
  Json skipped = Json::object();
  for (const auto& [reason, count] : report.SkipReasons()) skipped[reason] = count;
  const Json json = {{"schema", "assay.conform/1"},
                     {"device", {{"id", report.device_id}, {"name", report.device_name}, {"backend", report.backend}}},
                     {"reference", report.reference},
                     {"passed", report.Count(CaseStatus::kPassed)},
                     {"failed", report.Count(CaseStatus::kFailed)},
                     {"skipped", report.Count(CaseStatus::kSkipped)},
                     {"skip_reasons", skipped},
                     {"cases", cases}};
  return json.dump(2);
}

}  // namespace assay::bench
