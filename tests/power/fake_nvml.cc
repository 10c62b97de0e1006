// SPDX-License-Identifier: Apache-2.0
// A stand-in for NVIDIA's libnvidia-ml.so.1 whose GPUs behave as the environment says, read at every call:
//   ASSAY_FAKE_NVML_GPUS     how many there are (1); GPU i draws i + 1 times the power of GPU 0
//   ASSAY_FAKE_NVML_WATTS    what GPU 0 draws under load (300); it draws 60 W at rest
//   ASSAY_FAKE_NVML_DUTY     the share of each 100 ms, from its beginning, that is load (1)
//   ASSAY_FAKE_NVML_TICK_MS  how often the energy counter moves (20)
//   ASSAY_FAKE_NVML_TIME_S   the time since nvmlInit_v2, where it must not be that of the clock
//   ASSAY_FAKE_NVML_INIT     what nvmlInit_v2 returns (0)
//   ASSAY_FAKE_NVML_FAIL     what fails, and how: WHAT:STATUS or WHAT:STATUS:FIRST:LAST, separated by commas. WHAT is a
//                            field's number, 1000 + that for the field's older call, 0 for all of these, or 1 for the
//                            handles; FIRST and LAST count the calls of nvmlDeviceGetFieldValues from 1.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#define FAKE_NVML extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kSuccess = 0, kInvalidArgument = 2, kNotSupported = 3, kNotFound = 6, kInsufficientSize = 7;
constexpr int kUnsignedInt = 1, kUnsignedLongLong = 3;
constexpr int kHandles = 1, kOlderCalls = 1000;
constexpr unsigned kMaxGpus = 8;
constexpr double kRestW = 60, kDutyPeriodS = 0.1, kEnergyAtStartMj = 5e9;

struct FieldValue {
  unsigned field_id, scope_id;
  long long timestamp_us, latency_us;
  int value_type, status;
  union {
    unsigned ui;
    unsigned long long ull;
  } value;
};

struct Gpu {
  unsigned index;
} gpus[kMaxGpus] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}};

std::chrono::steady_clock::time_point start;
long field_calls = 0;

double Setting(const char* name, double otherwise) {
  const char* text = std::getenv((std::string("ASSAY_FAKE_NVML_") + name).c_str());
  return text ? std::atof(text) : otherwise;
}

unsigned Count() {
  return std::min(static_cast<unsigned>(Setting("GPUS", 1)), kMaxGpus);
}

double Now() {
  const double clock_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return Setting("TIME_S", clock_s);
}

double LoadWatts(const Gpu& gpu) {
  return Setting("WATTS", 300) * (gpu.index + 1);
}

double Watts(const Gpu& gpu) {
  return std::fmod(Now(), kDutyPeriodS) < Setting("DUTY", 1) * kDutyPeriodS ? LoadWatts(gpu) : kRestW;
}

double MeanWatts(const Gpu& gpu) {
  return kRestW + Setting("DUTY", 1) * (LoadWatts(gpu) - kRestW);
}

double EnergyMj(const Gpu& gpu) {
  const double tick_s = Setting("TICK_MS", 20) * 1e-3;
  const double seen_s = std::floor(Now() / tick_s * (1 + 1e-12)) * tick_s;  // a fixed time may lie just on a tick
  const double periods = std::floor(seen_s / kDutyPeriodS), rest_s = seen_s - periods * kDutyPeriodS;
  const double load_s = Setting("DUTY", 1) * kDutyPeriodS;
  const double loaded_s = periods * load_s + std::min(rest_s, load_s);
  return kEnergyAtStartMj + 1e3 * (kRestW * seen_s + (LoadWatts(gpu) - kRestW) * loaded_s);
}

// The status that the environment wants for this, 0 for none.
int Failure(int what) {
  const char* text = std::getenv("ASSAY_FAKE_NVML_FAIL");
  while (text && *text) {
    int which = 0, status = 0;
    long first = 0, last = 1L << 30;
    if (std::sscanf(text, "%d:%d:%ld:%ld", &which, &status, &first, &last) >= 2 &&
        (which == what || (which == 0 && what != kHandles)) && first <= field_calls && field_calls <= last) {
      return status;
    }
    text = std::strchr(text, ',');
    if (text) ++text;
  }
  return kSuccess;
}

int Answer(const Gpu& gpu, FieldValue& field) {
  const auto count = [&](double value) {
    field.value_type = kUnsignedLongLong;
    field.value.ull = static_cast<unsigned long long>(std::llround(value));
    return kSuccess;
  };
  const auto milliwatts = [&](double watts) {
    field.value_type = kUnsignedInt;
    field.value.ui = static_cast<unsigned>(std::llround(1e3 * watts));
    return kSuccess;
  };
  if (field.scope_id != 0) return kNotSupported;  // not a module
  switch (field.field_id) {
    case 74:
      return count(0.25e9 * Now());
    case 75:
      return count(0.125e9 * Now());
    case 76:
      return count(0.5e9 * Now());
    case 77:
      return count(0.0625e9 * Now());
    case 78:
      return count(1e9 * Now());
    case 83:
      return count(EnergyMj(gpu));
    case 185:
      return milliwatts(MeanWatts(gpu));
    case 186:
      return milliwatts(Watts(gpu));
    case 187:
      return milliwatts(200);
    case 188:
      return milliwatts(750);
    case 189:
      return milliwatts(700);
    case 190:
      return milliwatts(500);
    default:
      return kNotSupported;
  }
}

int OlderCall(const Gpu* gpu, unsigned id, FieldValue& field) {
  field = {};
  field.field_id = id;
  const int failure = Failure(static_cast<int>(id) + kOlderCalls);
  return failure ? failure : Answer(*gpu, field);
}

int Write(char* to, unsigned size, const char* format, unsigned number) {
  return std::snprintf(to, size, format, number) < static_cast<int>(size) ? kSuccess : kInsufficientSize;
}

int Handle(unsigned index, Gpu** gpu) {
  const int failure = Failure(kHandles);
  if (failure) return failure;
  if (index >= Count()) return kNotFound;
  *gpu = &gpus[index];
  return kSuccess;
}

}  // namespace

FAKE_NVML int nvmlInit_v2() {
  start = std::chrono::steady_clock::now();
  field_calls = 0;
  return static_cast<int>(Setting("INIT", 0));
}

FAKE_NVML int nvmlShutdown() {
  return kSuccess;
}

FAKE_NVML const char* nvmlErrorString(int status) {
  switch (status) {
    case 3:
      return "Not Supported";
    case 4:
      return "Insufficient Permissions";
    case 6:
      return "Not Found";
    case 9:
      return "Driver Not Loaded";
    case 15:
      return "GPU is lost";
    case 18:
      return "Driver/library version mismatch";
    default:
      return "Unknown Error";
  }
}

FAKE_NVML int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = Count();
  return kSuccess;
}

FAKE_NVML int nvmlDeviceGetHandleByIndex_v2(unsigned index, Gpu** gpu) {
  return index < Count() ? Handle(index, gpu) : kInvalidArgument;
}

FAKE_NVML int nvmlDeviceGetHandleByPciBusId_v2(const char* id, Gpu** gpu) {
  unsigned domain = 0, bus = 0, device = 0;
  if (std::sscanf(id, "%x:%x:%x", &domain, &bus, &device) != 3) return kInvalidArgument;
  return domain == 0 && device == 0 && bus % 16 == 0 ? Handle(bus / 16, gpu) : kNotFound;
}

FAKE_NVML int nvmlDeviceGetName(Gpu*, char* name, unsigned size) {
  return std::snprintf(name, size, "NVIDIA H100 80GB HBM3") < static_cast<int>(size) ? kSuccess : kInsufficientSize;
}

FAKE_NVML int nvmlDeviceGetUUID(Gpu* gpu, char* uuid, unsigned size) {
  return Write(uuid, size, "GPU-89%02u4d6e-0000-4000-8000-000000000000", gpu->index);
}

FAKE_NVML int nvmlDeviceGetFieldValues(Gpu* gpu, int count, FieldValue* fields) {
  ++field_calls;
  const int failure = Failure(0);
  if (failure) return failure;
  for (int i = 0; i < count; ++i) {
    const int wanted = Failure(static_cast<int>(fields[i].field_id));
    fields[i].status = wanted ? wanted : Answer(*gpu, fields[i]);
  }
  return kSuccess;
}

FAKE_NVML int nvmlDeviceGetTotalEnergyConsumption(Gpu* gpu, unsigned long long* energy_mj) {
  FieldValue field;
  const int status = OlderCall(gpu, 83, field);
  *energy_mj = field.value.ull;
  return status;
}

FAKE_NVML int nvmlDeviceGetPowerUsage(Gpu* gpu, unsigned* power_mw) {
  FieldValue field;
  const int status = OlderCall(gpu, 185, field);
  *power_mw = field.value.ui;
  return status;
}

FAKE_NVML int nvmlDeviceGetEnforcedPowerLimit(Gpu* gpu, unsigned* limit_mw) {
  FieldValue field;
  const int status = OlderCall(gpu, 190, field);
  *limit_mw = field.value.ui;
  return status;
}

FAKE_NVML int nvmlDeviceGetClockInfo(Gpu*, int domain, unsigned* mhz) {
  *mhz = domain == 1 ? 1755 : 2619;
  return kSuccess;
}

FAKE_NVML int nvmlDeviceGetTemperature(Gpu*, int sensor, unsigned* celsius) {
  *celsius = 61;
  return sensor == 0 ? kSuccess : kInvalidArgument;
}
