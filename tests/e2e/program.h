// SPDX-License-Identifier: Apache-2.0
// Runs the built program as a user does: another process, its exit code, what it printed. One thread at a time.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace assay::e2e {

// A folder of its own for one test, removed with everything in it.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::string Write(const std::string& name, const std::string& text) const;  // returns the file's path
  size_t Files() const;                                                       // in it and in the folders in it

 private:
  std::filesystem::path path_;
};

struct Outcome {
  int exit_code = -1;      // negative: the signal that ended it
  bool timed_out = false;  // it was killed because it did not end
  std::string out, err;
};

using Environment = std::map<std::string, std::string>;  // on top of the test's own

// A started `assay ARGS...`.
class Program {
 public:
  explicit Program(const std::vector<std::string>& args, const Environment& environment = {});
  // mpirun with so many ranks of it.
  static Program OnRanks(int ranks, const std::vector<std::string>& args);
  ~Program();  // kills it if it still runs
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void Signal(int number);
  // Sends it to one of the ranks; false if there is no such rank (yet).
  bool SignalRank(int rank, int number) const;
  Outcome Wait(int limit_s);  // kills it after limit_s; the limit only tells a hang from a slow machine

 private:
  Program(std::string program, const std::vector<std::string>& args, const Environment& environment);

  TemporaryFolder folder_;
  pid_t pid_ = -1;
};

Outcome RunAssay(const std::vector<std::string>& args, int limit_s = 240);
// Empty if ranks can be started here, else why not.
std::string WhyNoRanks();
Outcome RunAssay(const std::vector<std::string>& args, const Environment& environment);

std::string ReadFile(const std::filesystem::path& path);
// The whole text as exactly one JSON document; a test failure and null otherwise.
nlohmann::json ParseOne(const std::string& text);

}  // namespace assay::e2e
