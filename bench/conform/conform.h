// SPDX-License-Identifier: Apache-2.0
// Conformance: runs every operation of a device against the reference device, over the cases of
// tests/conformance/cases. Both are driven through the same ABI. One thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/device/device.h"

namespace assay::bench {

enum class ConformMode {
  kTest,  // correctness: values, guard zones, untouched inputs, repeatability
  kPerf,  // times the cases marked perf=1, on accelerators also perf=2; values are not looked at
  kList,  // names the cases that kTest would run, and those it would skip
};

struct ConformOptions {
  ConformMode mode = ConformMode::kTest;
  std::string filter;                // ECMAScript regex searched in "op key=value ..."; empty: all
  int64_t every = 1;                 // of these only every n-th: a look at a device that is slow to test
  uint64_t seed = 0;                 // of the random inputs
  double perf_seconds = 0.3;         // per case, after warm-up
  uint64_t perf_bytes = 512u << 20;  // perf rotates among copies of a case's tensors that take about this much
};

enum class CaseStatus { kPassed, kFailed, kSkipped };

struct CaseReport {
  std::string op;
  std::string text;   // the case in full, as the filter sees it
  std::string where;  // "linear.txt:12"
  CaseStatus status = CaseStatus::kPassed;
  std::string detail;      // why it failed or was skipped
  double worst_error = 0;  // kTest: the largest error, as a share of what is tolerated
  double median_ns = 0;    // kPerf: device time of one call
  double min_ns = 0;
  double gb_per_s = 0;     // kPerf: at the median, of the bytes that the operation must move
  double gflop_per_s = 0;  // kPerf: at the median; 0 where floating point work is not the point
  int64_t repetitions = 0;
};

struct ConformReport {
  std::string device_id, device_name, backend, reference;
  std::vector<CaseReport> cases;
  int64_t Count(CaseStatus status) const;
  bool passed() const { return Count(CaseStatus::kFailed) == 0; }
  // For people: the skipped cases counted by reason, most frequent first.
  std::vector<std::pair<std::string, int64_t>> SkipReasons() const;
};

// progress: called after each case; may be empty. Throws Error for a bad filter or case file, DeviceError if a device
// is lost.
ConformReport RunConformance(const std::shared_ptr<Device>& subject, const std::shared_ptr<Device>& reference,
                             const ConformOptions& options, const std::function<void(const CaseReport&)>& progress);
// The same against ChooseDevice("ref").
ConformReport RunConformance(const std::shared_ptr<Device>& subject, const ConformOptions& options,
                             const std::function<void(const CaseReport&)>& progress);

// One JSON document.
std::string ConformJson(const ConformReport& report);

}  // namespace assay::bench
