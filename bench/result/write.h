// SPDX-License-Identifier: Apache-2.0
// Files that are whole or not there: written under a temporary name in the same folder, synced and renamed.
// One thread per writer.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bench/result/run_result.h"

namespace assay::bench {

// Makes the folder `dir` if need be, writes a small file in it, and removes what it made. Call it before anything
// is measured: throws Error, naming the folder and the remedy, where a result could not be written afterwards.
void CheckWritable(const std::string& dir);

// A file that appears under `path` with Commit() and not before; an older file of that name stays until then. Without
// Commit() nothing is left. All calls throw Error that names the path and the remedy (a full disk, permissions).
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void Write(std::string_view bytes);
  void Commit();

 private:
  void Fail(const char* doing);

  std::string path_, temporary_;
  int fd_ = -1;
};

// One line of the samples file: a request that finished (or failed), in the order of its sending.
struct RequestSample {
  int64_t trial = 0, request = 0;
  double sent_s = 0;                  // since started_at
  std::optional<double> scheduled_s;  // its arrival, where the scenario has a schedule
  int64_t input_tokens = 0, output_tokens = 0;
  std::optional<double> ttft_ms, e2e_ms;
  std::vector<double> itl_ms;  // the gaps between its tokens
  std::optional<std::string> error;
};

struct ResultPaths {
  std::string result, samples;  // DIR/ID.json and DIR/ID.samples.jsonl
};
ResultPaths PathsFor(const std::string& dir, const std::string& id);

// The samples first, then the result: a result that exists has its samples beside it.
void WriteRun(const ResultPaths& paths, const RunResult& result, const std::vector<RequestSample>& samples);

// One JSON document, indented, valid UTF-8 whatever the names of files held.
std::string Dump(const Json& json);

}  // namespace assay::bench
