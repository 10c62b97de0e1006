// SPDX-License-Identifier: Apache-2.0
#include "bench/result/write.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <utility>

#include "runtime/core/error.h"

namespace assay::bench {
namespace {

namespace fs = std::filesystem;

std::string Remedy(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return "free some space or choose another folder with --out";
    case EACCES:
    case EPERM:
    case EROFS:
      return "choose a folder that you may write to with --out";
    case ENOTDIR:
    case EISDIR:
      return "a file and a folder are mixed up in this path; choose another with --out";
    default:
      return "choose another folder with --out";
  }
}

[[noreturn]] void Throw(const std::string& path, const std::string& doing, int error) {
  throw Error(path + ": cannot " + doing + " (" + std::strerror(error) + "): " + Remedy(error));
}

std::string FolderOf(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

Json Number(double x) {
  return std::isfinite(x) ? Json(x) : Json(nullptr);
}
Json Number(const std::optional<double>& x) {
  return x ? Number(*x) : Json(nullptr);
}

std::string Line(const RequestSample& sample) {
  Json gaps = Json::array();
  for (double gap : sample.itl_ms) gaps.push_back(Number(gap));
  const Json line = {{"kind", "request"},
                     {"trial", sample.trial},
                     {"request", sample.request},
                     {"scheduled_s", Number(sample.scheduled_s)},
                     {"sent_s", Number(sample.sent_s)},
                     {"input_tokens", sample.input_tokens},
                     {"output_tokens", sample.output_tokens},
                     {"ttft_ms", Number(sample.ttft_ms)},
                     {"e2e_ms", Number(sample.e2e_ms)},
                     {"itl_ms", std::move(gaps)},
                     {"error", sample.error ? Json(*sample.error) : Json(nullptr)}};
  return line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

void CheckWritable(const std::string& dir) {
  // What is made for the check goes again: a run that fails before its first result leaves nothing behind.
  std::vector<fs::path> made;
  std::error_code error, ignored;
  for (fs::path p = fs::absolute(dir, ignored); !p.empty() && !fs::exists(p, ignored); p = p.parent_path()) {
    made.push_back(p);
    if (p == p.parent_path()) break;
  }
  fs::create_directories(dir, error);
  if (!fs::is_directory(dir, ignored)) Throw(dir, "make this folder", error ? error.value() : ENOTDIR);
  {
    // A whole block, because an empty file can still be made on a full disk.
    AtomicFile probe(dir + "/.assay-write-check");
    probe.Write(std::string(4096, ' '));
  }
  for (const fs::path& p : made) fs::remove(p, ignored);  // innermost first; only empty folders can go
}

AtomicFile::AtomicFile(std::string path)
    : path_(std::move(path)), temporary_(path_ + ".tmp-" + std::to_string(getpid())) {
  unlink(temporary_.c_str());  // the leftover of a killed process that had this number
  fd_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0) Throw(path_, "write", errno);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
}

void AtomicFile::Fail(const char* doing) {
  const int error = errno;
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
  unlink(temporary_.c_str());
  Throw(path_, doing, error);
}

void AtomicFile::Write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) Fail("write");
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

void AtomicFile::Commit() {
  if (fsync(fd_) != 0) Fail("write");
  const int fd = std::exchange(fd_, -1);
  if (close(fd) != 0) Fail("write");
  if (rename(temporary_.c_str(), path_.c_str()) != 0) Fail("rename a finished file to this name");
  // The name must survive a power cut as well. Some file systems refuse to sync a folder; the file itself is safe.
  const int folder = open(FolderOf(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    fsync(folder);
    close(folder);
  }
}

ResultPaths PathsFor(const std::string& dir, const std::string& id) {
  const std::string stem = (fs::path(dir) / id).string();
  return {.result = stem + ".json", .samples = stem + ".samples.jsonl"};
}

void WriteRun(const ResultPaths& paths, const RunResult& result, const std::vector<RequestSample>& samples) {
  std::error_code ignored;  // opening the file reports it
  fs::create_directories(fs::path(paths.samples).parent_path(), ignored);
  AtomicFile sample_file(paths.samples);
  for (const RequestSample& sample : samples) sample_file.Write(Line(sample));
  AtomicFile result_file(paths.result);
  result_file.Write(Dump(ToJson(result)) + "\n");
  sample_file.Commit();
  result_file.Commit();
}

std::string Dump(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

}  // namespace assay::bench
