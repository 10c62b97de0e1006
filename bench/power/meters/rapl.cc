// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/rapl.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <map>
#include <vector>

namespace assay::bench {
namespace {

namespace fs = std::filesystem;

// More than any processor package draws: bounds how soon a counter can wrap, and what a step between readings can be.
constexpr double kMaxPackageWatts = 2000;
constexpr double kPeriodS = 0.1;  // a 10 Hz trace; the counter itself moves about every millisecond
constexpr double kMinPeriodS = 1e-3;

// The first word of a small file of sysfs.
Result<std::string> ReadWord(const std::string& path) {
  using Word = Result<std::string>;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  char text[64];
  const ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text);
  const int error = errno;
  if (fd >= 0) close(fd);
  if (size < 0) {
    const bool denied = error == EACCES || error == EPERM;
    return Word::Fail(
        path + " cannot be read (" + std::strerror(error) + ")" +
        (denied ? ": since Linux 5.10 only root may; run as root, or allow it with `sudo chmod a+r " + path + "`"
                : std::string()));
  }
  const std::string all(text, static_cast<size_t>(size));
  return all.substr(0, all.find_first_of(" \n"));
}

Result<uint64_t> ReadMicrojoules(const std::string& path) {
  using Count = Result<uint64_t>;
  const auto word = ReadWord(path);
  if (!word.ok()) return Count::Fail(word.error());
  const std::string& text = word.value();
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return Count::Fail(path + " does not hold a number but \"" + text + "\"");
  }
  return value;
}

struct Zone {
  std::string folder, name;
  uint64_t range_uj = 0;  // the counter goes from this back to 0
  uint64_t last_uj = 0;
};

bool IsZone(const std::string& folder) {  // not intel-rapl-mmio:0, which shows the same counters once more
  return folder.starts_with("intel-rapl:");
}

// Adds the zones below `folder` by the name of their folder: sysfs shows one zone under several paths.
void Collect(const fs::path& folder, int depth, std::map<std::string, std::string>& found) {
  const std::string base = folder.filename();
  if (IsZone(base)) found.emplace(base, folder);
  if (depth == 0) return;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename();
    if (name == "intel-rapl" || IsZone(name)) Collect(entry.path(), depth - 1, found);
  }
}

class RaplMeter : public Meter {
 public:
  explicit RaplMeter(std::vector<Zone> zones) : zones_(std::move(zones)) {
    info_.scope = zones_[0].name == "psys" ? "node" : "chip";
    uint64_t least_range = UINT64_MAX;
    for (const Zone& zone : zones_) {
      info_.source += (info_.source.empty() ? "rapl: " : ", ") + zone.name;
      least_range = std::min(least_range, zone.range_uj);
    }
    info_.notes.push_back(info_.scope == "node"
                              ? "RAPL's platform counter; what it covers depends on the maker of the board"
                              : "RAPL covers the processor packages (and DRAM where listed), not the board, disks, "
                                "fans or power supply");
    const double fastest_wrap_s = static_cast<double>(least_range) * 1e-6 / kMaxPackageWatts;
    info_.period_s = std::clamp(fastest_wrap_s / 4, kMinPeriodS, kPeriodS);
    longest_gap_s_ = std::max(fastest_wrap_s, 3 * info_.period_s);
  }

  const MeterInfo& info() const override { return info_; }

  Result<std::vector<Reading>> Read() override {
    const double begin_s = NowSeconds();
    Reading reading;
    std::vector<uint64_t> now_uj;
    for (const Zone& zone : zones_) {
      const auto count = ReadMicrojoules(zone.folder + "/energy_uj");
      if (!count.ok()) return Result<std::vector<Reading>>::Fail(count.error());
      now_uj.push_back(count.value());
    }
    reading.t_s = (begin_s + NowSeconds()) / 2;
    if (last_s_) {
      const double elapsed_s = reading.t_s - *last_s_;
      reading.broken = elapsed_s > longest_gap_s_;  // it may have wrapped more than once
      for (size_t i = 0; i < zones_.size(); ++i) reading.broken |= !Advance(zones_[i], now_uj[i], elapsed_s);
    }
    for (size_t i = 0; i < zones_.size(); ++i) zones_[i].last_uj = now_uj[i];
    last_s_ = reading.t_s;
    reading.energy_j = energy_j_;
    return std::vector<Reading>{reading};
  }

 private:
  // Adds what the zone used; false where the counter was set back instead of wrapping.
  bool Advance(const Zone& zone, uint64_t now_uj, double elapsed_s) {
    if (now_uj >= zone.last_uj) {
      energy_j_ += 1e-6 * static_cast<double>(now_uj - zone.last_uj);
      return true;
    }
    if (zone.last_uj > zone.range_uj) return false;
    const uint64_t used_uj = zone.range_uj - zone.last_uj + now_uj;
    energy_j_ += 1e-6 * static_cast<double>(used_uj);
    return used_uj < zone.range_uj / 2 || 1e-6 * static_cast<double>(used_uj) < kMaxPackageWatts * elapsed_s;
  }

  MeterInfo info_;
  std::vector<Zone> zones_;
  double energy_j_ = 0, longest_gap_s_ = 0;
  std::optional<double> last_s_;
};

}  // namespace

Result<std::unique_ptr<Meter>> OpenRapl(const std::string& root) {
  using Opened = Result<std::unique_ptr<Meter>>;
  std::error_code error;
  if (!fs::is_directory(root, error)) {
    return Opened::Fail(root + " is not there: this kernel or virtual machine shows no RAPL energy counters");
  }
  std::map<std::string, std::string> folders;
  fs::path start = fs::path(root).lexically_normal();
  if (!start.has_filename()) start = start.parent_path();  // "zone/" is the same place as "zone"
  Collect(start, 3, folders);
  std::vector<Zone> packages, platform;
  for (const auto& [base, folder] : folders) {
    const auto name = ReadWord(folder + "/name");
    if (!name.ok()) return Opened::Fail(name.error());
    const bool whole = name.value() == "psys";
    if (!whole && name.value() != "dram" && !name.value().starts_with("package")) continue;  // core, uncore: inside
    const auto range = ReadMicrojoules(folder + "/max_energy_range_uj");
    if (!range.ok()) return Opened::Fail(range.error());
    if (range.value() == 0) return Opened::Fail(folder + "/max_energy_range_uj is 0: no counter can be followed");
    const auto count = ReadMicrojoules(folder + "/energy_uj");
    if (!count.ok()) return Opened::Fail(count.error());
    (whole ? platform : packages).push_back({folder, name.value(), range.value(), count.value()});
  }
  if (packages.empty()) packages = std::move(platform);
  if (packages.empty()) return Opened::Fail(root + " holds no intel-rapl package: RAPL is not available here");
  return std::unique_ptr<Meter>(new RaplMeter(std::move(packages)));
}

}  // namespace assay::bench
