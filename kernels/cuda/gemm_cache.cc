// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/gemm_cache.h"

#include <fcntl.h>
#include <unistd.h>

#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <sstream>
#include <tuple>
#include <utility>

namespace assay::gpu {
namespace {

constexpr const char* kHeader = "assay-gemm-2";

auto Fields(const LtProduct& p) {
  return std::tuple(static_cast<int>(p.operands), static_cast<int>(p.y), p.m, p.n, p.k, p.x_stride, p.w_stride,
                    p.y_stride, p.row_scales);
}

std::string Text(uint64_t version, const std::map<LtProduct, LtAlgorithm, LtProductLess>& known) {
  std::ostringstream out;
  out << kHeader << ' ' << version << ' ' << known.size() << '\n';
  for (const auto& [p, algorithm] : known) {
    std::apply([&](auto... field) { ((out << std::dec << field << ' '), ...); }, Fields(p));
    for (const uint64_t word : algorithm) out << std::hex << word << ' ';
    out << ".\n";
  }
  return out.str();
}

// All of `text` in the file at `path`, on the disk.
bool WriteWhole(const std::string& path, const std::string& text) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return false;
  const bool written = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && fsync(fd) == 0;
  return close(fd) == 0 && written;
}

std::string FileName(const std::string& text) {
  std::string name;
  for (const char c : text) name += std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' ? c : '_';
  return name;
}

}  // namespace

bool LtProductLess::operator()(const LtProduct& a, const LtProduct& b) const {
  return Fields(a) < Fields(b);
}

GemmCache::GemmCache(std::string file, uint64_t version, Log log)
    : file_(std::move(file)), version_(version), log_(log) {
  if (!file_.empty() && !Read()) {
    known_.clear();
    Say(2, file_ + " is damaged and ignored: products are measured again");
  }
}

const LtAlgorithm* GemmCache::Find(const LtProduct& product) const {
  const auto found = known_.find(product);
  return found == known_.end() ? nullptr : &found->second;
}

void GemmCache::Store(const LtProduct& product, const LtAlgorithm& algorithm) {
  known_[product] = algorithm;
  if (file_.empty() || Write()) return;
  Say(2, file_ + " cannot be written: products are measured again in the next run");
  file_.clear();  // said once
}

bool GemmCache::Read() {
  std::ifstream in(file_);
  if (!in) return true;
  std::string header;
  uint64_t version = 0;
  size_t count = 0;
  if (!(in >> header >> version >> count) || header != kHeader) return false;
  if (version != version_) {
    Say(1, file_ + " is of another version of cuBLASLt and ignored: products are measured again");
    return true;
  }
  for (size_t i = 0; i < count; ++i) {
    int operands = 0, y = 0;
    LtProduct p;
    LtAlgorithm algorithm{};
    std::string end;
    in >> std::dec >> operands >> y >> p.m >> p.n >> p.k >> p.x_stride >> p.w_stride >> p.y_stride >> p.row_scales;
    in >> std::hex;
    for (uint64_t& word : algorithm) in >> word;
    if (!(in >> end) || end != ".") return false;
    p.operands = static_cast<DType>(operands);
    p.y = static_cast<DType>(y);
    known_[p] = algorithm;
  }
  return true;
}

bool GemmCache::Write() const {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(file_).parent_path(), error);
  const std::string draft = file_ + "." + std::to_string(getpid());
  if (WriteWhole(draft, Text(version_, known_)) && rename(draft.c_str(), file_.c_str()) == 0) return true;
  unlink(draft.c_str());
  return false;
}

void GemmCache::Say(int level, const std::string& text) const {
  if (log_ != nullptr) log_(level, text.c_str());
}

std::string GemmCacheFile(const std::string& device, const std::string& driver) {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  std::string folder;
  if (cache != nullptr && *cache == '/') {
    folder = cache;
  } else if (home != nullptr && *home == '/') {
    folder = std::string(home) + "/.cache";
  } else {
    return "";
  }
  return folder + "/assay/gemm-" + FileName(device) + "-" + FileName(driver) + ".txt";
}

}  // namespace assay::gpu
