// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/nvml.h"

#include <dlfcn.h>

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <set>
#include <sstream>

#include "bench/stats/format.h"

namespace assay::bench {
namespace {

// ------------------------------------------------------------------------------------------ NVML's declarations

using Status = int32_t;  // nvmlReturn_t
constexpr Status kSuccess = 0, kNoPermission = 4, kDriverNotLoaded = 9, kFunctionNotFound = 13, kVersionMismatch = 18,
                 kUnknownError = 999;

using Handle = struct nvmlDevice_st*;

union FieldData {  // nvmlValue_t; which member holds is told by nvmlValueType_t, 0 to 6 in this order
  double real;
  uint32_t u32;
  unsigned long native;
  uint64_t u64;
  int64_t i64;
  int32_t i32;
  uint16_t u16;
};

struct FieldValue {  // nvmlFieldValue_t
  uint32_t field = 0;
  uint32_t scope = 0;  // 0: the GPU; 1: the module, on Grace Hopper with the CPU; 2: the memory
  int64_t timestamp_us = 0, latency_us = 0;
  uint32_t type = 0;
  Status status = kUnknownError;
  FieldData data{};
};
static_assert(sizeof(FieldValue) == 40 && offsetof(FieldValue, timestamp_us) == 8 && offsetof(FieldValue, type) == 24 &&
              offsetof(FieldValue, status) == 28 && offsetof(FieldValue, data) == 32);

constexpr uint32_t kEnergy = 83;                         // mJ since the driver was loaded
constexpr uint32_t kMeanPower = 185, kPower = 186;       // mW: the mean over 1 s; now
constexpr uint32_t kLeastLimit = 187, kMostLimit = 188;  // mW
constexpr uint32_t kDefaultLimit = 189, kLimit = 190;    // mW; kLimit: what is in force, whoever set it
constexpr uint32_t kThrottleCounters[] = {74, 75, 77};   // ns below the clocks for power, heat, a limit of the board
constexpr int32_t kSmClock = 1, kGpuTemperature = 0;     // nvmlClockType_t, nvmlTemperatureSensors_t
constexpr double kPerMilli = 1e-3, kPerNano = 1e-9;

constexpr double kMeanPowerS = 1;         // what field 185 averages over
constexpr double kCounterPeriodS = 0.02;  // its counter moves every 20 to 100 ms
constexpr double kPowerPeriodS = 0.1;     // an average over 1 s has nothing new to say sooner

std::optional<double> Number(const FieldValue& value) {
  switch (value.type) {
    case 0:
      return value.data.real;
    case 1:
      return value.data.u32;
    case 2:
      return static_cast<double>(value.data.native);
    case 3:
      return static_cast<double>(value.data.u64);
    case 4:
      return static_cast<double>(value.data.i64);
    case 5:
      return value.data.i32;
    case 6:
      return value.data.u16;
    default:
      return std::nullopt;
  }
}

// ------------------------------------------------------------------------------------------ The library

struct Gpu {
  Handle handle = nullptr;
  std::string id, name, uuid;  // id: its index, or its PCI bus id where it was chosen by that
};

struct Answers {
  std::map<uint32_t, double> values;  // by field; those that could not be read are not there
  std::set<uint32_t> by_older_call;   // those of them that the older call told, not the field
  Status status = kSuccess;           // of the first that could not be read
};

// An initialised NVML. Whatever a library lacks, except what leads to a device, counts as not supported.
class Library {
 public:
  static Result<std::shared_ptr<Library>> Load(const char* name);
  ~Library() {
    if (initialised_ && shutdown_) shutdown_();
    if (library_) dlclose(library_);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  // "GPU is lost", and how to mend it where that is known.
  std::string Words(Status status) const;

  unsigned Count() const;  // of all GPUs, also those that may not be used
  Result<Gpu> ByIndex(unsigned index) const;
  Result<Gpu> ByPciBusId(const std::string& id) const;
  std::vector<Gpu> Usable() const;

  // One call for all fields, so that they belong to one moment. What it cannot tell is asked for by the field's older
  // call, if it has one.
  Answers Ask(Handle gpu, const std::vector<uint32_t>& fields) const;
  std::optional<double> ClockMhz(Handle gpu) const { return Get<uint32_t>(get_clock_, gpu, kSmClock); }
  std::optional<double> TemperatureC(Handle gpu) const { return Get<uint32_t>(get_temperature_, gpu, kGpuTemperature); }

 private:
  Library() = default;

  template <class Function>
  bool Find(Function*& function, const char* name) {
    function = reinterpret_cast<Function*>(dlsym(library_, name));
    return function != nullptr;
  }

  template <class Value, class Function, class... Which>
  static std::optional<double> Get(Function* function, Handle gpu, Which... which) {
    Value value{};
    if (!function || function(gpu, which..., &value) != kSuccess) return std::nullopt;
    return static_cast<double>(value);
  }
  std::optional<double> GetByOlderCall(Handle gpu, uint32_t field) const;
  Gpu Describe(Handle handle, std::string id) const;

  using Text = Status(Handle, char*, unsigned);
  using Unsigned = Status(Handle, uint32_t*);
  using UnsignedOf = Status(Handle, int32_t, uint32_t*);

  void* library_ = nullptr;
  bool initialised_ = false;
  Status (*init_)() = nullptr;
  Status (*shutdown_)() = nullptr;
  const char* (*error_string_)(Status) = nullptr;
  Status (*get_count_)(unsigned*) = nullptr;
  Status (*by_index_)(unsigned, Handle*) = nullptr;
  Status (*by_pci_bus_id_)(const char*, Handle*) = nullptr;
  Text *get_name_ = nullptr, *get_uuid_ = nullptr;
  Status (*get_fields_)(Handle, int, FieldValue*) = nullptr;
  Status (*get_energy_)(Handle, unsigned long long*) = nullptr;
  Unsigned *get_power_ = nullptr, *get_limit_ = nullptr;
  UnsignedOf *get_clock_ = nullptr, *get_temperature_ = nullptr;
};

Result<std::shared_ptr<Library>> Library::Load(const char* name) {
  using Loaded = Result<std::shared_ptr<Library>>;
  std::shared_ptr<Library> nvml(new Library);
  nvml->library_ = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (!nvml->library_) {
    return Loaded::Fail("no NVIDIA driver here, or a container without its GPUs (docker: --gpus all): " +
                        std::string(dlerror()));
  }
  if (!nvml->Find(nvml->init_, "nvmlInit_v2") || !nvml->Find(nvml->get_count_, "nvmlDeviceGetCount_v2") ||
      !nvml->Find(nvml->by_index_, "nvmlDeviceGetHandleByIndex_v2")) {
    return Loaded::Fail(std::string(name) + " is not the NVML of a driver that is in use today: " + dlerror());
  }
  nvml->Find(nvml->shutdown_, "nvmlShutdown");
  nvml->Find(nvml->error_string_, "nvmlErrorString");
  nvml->Find(nvml->by_pci_bus_id_, "nvmlDeviceGetHandleByPciBusId_v2");
  nvml->Find(nvml->get_name_, "nvmlDeviceGetName");
  nvml->Find(nvml->get_uuid_, "nvmlDeviceGetUUID");
  nvml->Find(nvml->get_fields_, "nvmlDeviceGetFieldValues");
  nvml->Find(nvml->get_energy_, "nvmlDeviceGetTotalEnergyConsumption");
  nvml->Find(nvml->get_power_, "nvmlDeviceGetPowerUsage");
  nvml->Find(nvml->get_limit_, "nvmlDeviceGetEnforcedPowerLimit");
  nvml->Find(nvml->get_clock_, "nvmlDeviceGetClockInfo");
  nvml->Find(nvml->get_temperature_, "nvmlDeviceGetTemperature");
  const Status status = nvml->init_();
  if (status != kSuccess) return Loaded::Fail("NVML does not start: " + nvml->Words(status));
  nvml->initialised_ = true;
  return nvml;
}

std::string Library::Words(Status status) const {
  const char* text = error_string_ ? error_string_(status) : nullptr;
  const std::string words = text ? text : "NVML error " + std::to_string(status);
  switch (status) {
    case kDriverNotLoaded:
      return words + "; load the driver with `sudo modprobe nvidia`";
    case kVersionMismatch:
      return words + "; the driver was updated while it ran: restart the machine";
    case kNoPermission:
      return words + "; run as root, or allow reading and writing of /dev/nvidia*";
    default:
      return words;
  }
}

unsigned Library::Count() const {
  unsigned count = 0;
  return get_count_(&count) == kSuccess ? count : 0;
}

Gpu Library::Describe(Handle handle, std::string id) const {
  const auto text = [&](Text* get) {
    char buffer[96] = "";  // the longest that NVML may write
    return get && get(handle, buffer, sizeof buffer) == kSuccess ? std::string(buffer) : std::string();
  };
  return {handle, std::move(id), text(get_name_), text(get_uuid_)};
}

Result<Gpu> Library::ByIndex(unsigned index) const {
  Handle handle = nullptr;
  const Status status = by_index_(index, &handle);
  if (status != kSuccess) return Result<Gpu>::Fail("GPU " + std::to_string(index) + ": " + Words(status));
  return Describe(handle, std::to_string(index));
}

Result<Gpu> Library::ByPciBusId(const std::string& id) const {
  Handle handle = nullptr;
  const Status status = by_pci_bus_id_ ? by_pci_bus_id_(id.c_str(), &handle) : kFunctionNotFound;
  if (status != kSuccess) return Result<Gpu>::Fail("GPU " + id + ": " + Words(status));
  return Describe(handle, id);
}

std::vector<Gpu> Library::Usable() const {
  std::vector<Gpu> gpus;
  const unsigned count = Count();
  for (unsigned i = 0; i < count; ++i) {
    if (auto gpu = ByIndex(i); gpu.ok()) gpus.push_back(std::move(gpu.value()));
  }
  return gpus;
}

std::optional<double> Library::GetByOlderCall(Handle gpu, uint32_t field) const {
  switch (field) {
    case kEnergy:
      return Get<unsigned long long>(get_energy_, gpu);
    case kMeanPower:
      return Get<uint32_t>(get_power_, gpu);
    case kLimit:
      return Get<uint32_t>(get_limit_, gpu);
    default:
      return std::nullopt;
  }
}

Answers Library::Ask(Handle gpu, const std::vector<uint32_t>& fields) const {
  std::vector<FieldValue> asked(fields.size());
  for (size_t i = 0; i < fields.size(); ++i) asked[i].field = fields[i];
  const Status call = get_fields_ ? get_fields_(gpu, static_cast<int>(asked.size()), asked.data()) : kFunctionNotFound;
  Answers answers;
  for (const FieldValue& answer : asked) {
    const Status status = call != kSuccess ? call : answer.status;
    const auto value = status == kSuccess ? Number(answer) : GetByOlderCall(gpu, answer.field);
    if (value) {
      answers.values[answer.field] = *value;
      if (status != kSuccess) answers.by_older_call.insert(answer.field);
    } else if (answers.status == kSuccess) {
      answers.status = status != kSuccess ? status : kUnknownError;
    }
  }
  return answers;
}

// ------------------------------------------------------------------------------------------ Which GPU

struct Choice {
  Gpu gpu;
  std::string note;  // what a reader must know of how it was chosen; may be empty
};

std::optional<unsigned> Index(const std::string& text) {
  unsigned index = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(index) : std::nullopt;
}

std::string UsableGpus(const Library& nvml) {
  std::string list;
  for (const Gpu& gpu : nvml.Usable()) {
    list += (list.empty() ? "there are: " : ", ") + gpu.id + " (" + gpu.name + ", " + gpu.uuid + ")";
  }
  return list.empty() ? "none can be used here" : list;
}

Result<Gpu> FindGpu(const Library& nvml, const std::string& wanted) {
  using Found = Result<Gpu>;
  const auto index = Index(wanted);
  if (index && *index < nvml.Count()) return nvml.ByIndex(*index);
  if (wanted.find(':') != std::string::npos) {
    auto found = nvml.ByPciBusId(wanted);
    return found.ok() ? std::move(found) : Found::Fail(found.error() + "; " + UsableGpus(nvml));
  }
  if (wanted.starts_with("MIG-")) {
    return Found::Fail(wanted + " is a part of a GPU, and NVML meters whole GPUs only; choose one with nvml:INDEX");
  }
  std::vector<Gpu> gpus = nvml.Usable();
  std::erase_if(gpus, [&](const Gpu& gpu) { return !gpu.uuid.starts_with(wanted); });
  if (gpus.size() != 1) return Found::Fail("NVML knows no GPU \"" + wanted + "\"; " + UsableGpus(nvml));
  return std::move(gpus[0]);
}

// What CUDA calls device `index`, in NVML's words: that entry of CUDA_VISIBLE_DEVICES, or the index where it is not
// set.
Result<std::string> OfCudaIndex(unsigned index) {
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (!visible) return std::to_string(index);
  std::stringstream list(visible);
  std::string entry;
  for (unsigned i = 0; i <= index && entry != "-1"; ++i) {  // CUDA ends the list there
    entry.clear();
    std::getline(list, entry, ',');
  }
  if (entry.empty() || entry == "-1") {
    return Result<std::string>::Fail("CUDA_VISIBLE_DEVICES=" + std::string(visible) + " hides GPU " +
                                     std::to_string(index) + "; name the one to meter, as in nvml:0");
  }
  return entry;
}

Result<Choice> ChooseGpu(const Library& nvml, const std::string& named) {
  using Chosen = Result<Choice>;
  constexpr char kCuda[] = "cuda:";
  std::string wanted = named, note;
  const bool of_cuda = named.starts_with(kCuda);
  if (named.empty() || of_cuda) {
    const auto index = of_cuda ? Index(named.substr(sizeof kCuda - 1)) : std::optional<unsigned>(0);
    if (!index) return Chosen::Fail("\"" + named + "\" is not a device of CUDA");
    auto entry = OfCudaIndex(*index);
    if (!entry.ok()) return Chosen::Fail(entry.error());
    wanted = entry.value();
    const bool several = nvml.Count() > 1;
    const char* order = std::getenv("CUDA_DEVICE_ORDER");
    if (several && named.empty() && !std::getenv("CUDA_VISIBLE_DEVICES")) {
      note = "several GPUs are present and none was chosen: GPU 0 was metered";
    } else if (several && Index(wanted) && (!order || std::string(order) != "PCI_BUS_ID")) {
      note = "GPU " + wanted + " was read in NVML's order; CUDA's may differ unless CUDA_DEVICE_ORDER=PCI_BUS_ID";
    }
  }
  auto gpu = FindGpu(nvml, wanted);
  if (!gpu.ok()) return Chosen::Fail(gpu.error());
  return Choice{std::move(gpu.value()), note};
}

// ------------------------------------------------------------------------------------------ The meter

std::optional<double> Scaled(const std::map<uint32_t, double>& values, uint32_t field, double unit) {
  const auto found = values.find(field);
  return found == values.end() ? std::nullopt : std::optional(unit * found->second);
}

// "power limit 500 W (default 700 W, can be set from 200 to 700 W); mean power 71.2 W when the meter was opened"
std::string PowerNote(const Answers& at_start) {
  const auto watts = [&](uint32_t field) {
    const auto value = Scaled(at_start.values, field, kPerMilli);
    return value ? FormatNumber(*value) : std::string(kUnknown);
  };
  return "power limit " + watts(kLimit) + " W (default " + watts(kDefaultLimit) + " W, can be set from " +
         watts(kLeastLimit) + " to " + watts(kMostLimit) + " W); " +
         (at_start.by_older_call.contains(kMeanPower) ? "power " : "mean power ") + watts(kMeanPower) +
         " W when the meter was opened";
}

class NvmlMeter : public Meter {
 public:
  // at_start: what the GPU told of everything that this meter may use.
  NvmlMeter(std::shared_ptr<Library> nvml, const Choice& choice, const Answers& at_start)
      : nvml_(std::move(nvml)), gpu_(choice.gpu) {
    const auto& values = at_start.values;
    const bool counts = values.contains(kEnergy);
    // An average is the better trace of a changing power, an instant the better check of a counter.
    power_field_ = counts ? kPower : kMeanPower;
    if (!values.contains(power_field_)) power_field_ = counts ? kMeanPower : kPower;
    for (const uint32_t field : {kEnergy, power_field_}) {
      if (values.contains(field)) polled_.push_back(field);
    }
    for (const uint32_t field : kThrottleCounters) {
      if (values.contains(field)) throttle_fields_.push_back(field);
    }
    polled_.insert(polled_.end(), throttle_fields_.begin(), throttle_fields_.end());

    // The older call's power is a mean over 1 s only on Ampere (except GA100) and later, and nothing here tells which
    // GPU this is: over what it averages is not known.
    const bool older_call = power_field_ == kMeanPower && at_start.by_older_call.contains(kMeanPower);
    const bool averages = power_field_ == kMeanPower && !older_call;
    info_.source = std::string("nvml: ") +
                   (counts       ? "energy counter (field 83)"
                    : older_call ? "power (nvmlDeviceGetPowerUsage)"
                    : averages   ? "power averaged over 1 s (field 185)"
                                 : "instantaneous power (field 186)") +
                   " of GPU " + gpu_.id + (gpu_.name.empty() ? "" : ", " + gpu_.name);
    info_.scope = "board";
    info_.period_s = counts ? kCounterPeriodS : kPowerPeriodS;
    info_.averaging_s = averages ? kMeanPowerS : 0;
    info_.limit_w = Scaled(values, kLimit, kPerMilli);
    info_.notes = {"the GPU board as its own sensors see it, without the host, its fans and power supply",
                   PowerNote(at_start)};
    if (power_field_ == kPower) {
      info_.notes.push_back("an A100 or H100 sees a quarter of the time in its instantaneous power (arXiv 2312.02741)");
    }
    if (!choice.note.empty()) info_.notes.push_back(choice.note);
  }

  const MeterInfo& info() const override { return info_; }

  Result<std::vector<Reading>> Read() override {
    Reading reading;
    const double begin_s = NowSeconds();
    const Answers answers = nvml_->Ask(gpu_.handle, polled_);
    reading.t_s = (begin_s + NowSeconds()) / 2;
    reading.energy_j = Scaled(answers.values, kEnergy, kPerMilli);
    reading.watts = Scaled(answers.values, power_field_, kPerMilli);
    if (!reading.energy_j && !reading.watts) {
      return Result<std::vector<Reading>>::Fail("GPU " + gpu_.id + ": " + nvml_->Words(answers.status));
    }
    reading.throttled_s = ThrottledS(answers);
    reading.clock_mhz = nvml_->ClockMhz(gpu_.handle);
    reading.temperature_c = nvml_->TemperatureC(gpu_.handle);
    return std::vector{reading};
  }

 private:
  // Absent where one of the counters is: a sum without it would fall.
  std::optional<double> ThrottledS(const Answers& answers) const {
    if (throttle_fields_.empty()) return std::nullopt;
    double sum_s = 0;
    for (const uint32_t field : throttle_fields_) {
      const auto part_s = Scaled(answers.values, field, kPerNano);
      if (!part_s) return std::nullopt;
      sum_s += *part_s;
    }
    return sum_s;
  }

  const std::shared_ptr<Library> nvml_;
  const Gpu gpu_;
  MeterInfo info_;
  uint32_t power_field_ = 0;
  std::vector<uint32_t> throttle_fields_, polled_;
};

}  // namespace

Result<std::unique_ptr<Meter>> OpenNvml(const std::string& gpu, const char* library) {
  using Opened = Result<std::unique_ptr<Meter>>;
  const auto nvml = Library::Load(library);
  if (!nvml.ok()) return Opened::Fail(nvml.error());
  const auto choice = ChooseGpu(*nvml.value(), gpu);
  if (!choice.ok()) return Opened::Fail(choice.error());
  std::vector<uint32_t> fields = {kEnergy, kPower, kMeanPower, kLeastLimit, kMostLimit, kDefaultLimit, kLimit};
  fields.insert(fields.end(), std::begin(kThrottleCounters), std::end(kThrottleCounters));
  const Gpu& found = choice.value().gpu;
  const Answers at_start = nvml.value()->Ask(found.handle, fields);
  const auto& values = at_start.values;
  if (!values.contains(kEnergy) && !values.contains(kPower) && !values.contains(kMeanPower)) {
    return Opened::Fail("GPU " + found.id + " (" + found.name +
                        ") tells neither energy nor power: " + nvml.value()->Words(at_start.status));
  }
  return std::unique_ptr<Meter>(new NvmlMeter(nvml.value(), choice.value(), at_start));
}

}  // namespace assay::bench
