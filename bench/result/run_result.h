// SPDX-License-Identifier: Apache-2.0
// One run as it is kept: the document `assay.result/1` (bench/data/schema/assay.result.v1.schema.json) in plain C++.
// An absent optional is a value that is not known; it is written as null, never as 0. Plain values, no threads.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bench/stats/summary.h"

namespace assay::bench {

using Json = nlohmann::ordered_json;  // keeps the order in which people expect the fields

inline constexpr char kResultSchema[] = "assay.result/1";

struct Tool {
  std::string version;
  std::optional<std::string> commit;
  std::string build;  // compiler and build type
};

struct Host {
  std::optional<std::string> os, kernel, cpu;
  std::optional<int64_t> cores;  // physical
  std::optional<int64_t> memory_bytes;
  std::optional<std::string> hostname_hash;  // tells machines apart without naming them
};

struct DeviceInfo {
  std::string backend;  // "cpu"
  std::string name;
  int64_t count = 1;
  std::optional<std::string> driver, card_id;
  std::optional<std::string> isa;     // the code path that was chosen: "avx512_bf16"
  std::optional<int64_t> threads;     // CPU threads that computed
  std::optional<std::string> reason;  // why this device
};

struct ModelInfo {
  std::string name, family;
  std::optional<int64_t> parameters;
  std::string weights;                // "file" or "synthetic"
  std::string dtype;                  // of most weights as they are stored on the device
  std::optional<int64_t> bytes;       // of the weights on the device
  std::optional<std::string> sha256;  // of the file
};

struct WorkloadInfo {
  std::string scenario;  // "single-stream", "offline", "server", "sweep"
  int64_t isl = 0, osl = 0;
  std::optional<int64_t> concurrency;
  std::optional<double> rate;  // scheduled requests per second
  int64_t requests = 0;        // per trial
  int64_t trials = 0;          // asked for; RunResult::trials has those that finished
  uint64_t seed = 0;
  bool ignore_eos = true;
  std::optional<double> achieved_isl, achieved_osl;  // means over the requests that finished
};

struct WarmUpInfo {
  int64_t steps = 0;
  double duration_s = 0;
  bool steady = false;  // false: its time ran out first
};

// One finished trial.
struct Trial {
  double start_s = 0, duration_s = 0;  // start: since started_at
  int64_t requests = 0, input_tokens = 0, output_tokens = 0;
  std::optional<double> output_tps, prefill_tps, decode_tps;
};

struct Metrics {
  std::optional<Rate> output_tps, total_tps, input_tps, request_tps, goodput;
  std::optional<Rate> prefill_tps;  // isl / median TTFT
  std::optional<Rate> decode_tps;   // concurrency / median TPOT
  std::optional<Latency> ttft_ms, tpot_ms, itl_ms, e2e_ms;
};

// Time spent in one op, over the measured window.
struct OpShare {
  std::string op;
  std::string phase;  // "prefill", "decode" or "all"
  double share = 0;   // of the phase's time, 0..1
  int64_t calls = 0;
};

struct Power {
  std::string grade = "none";  // A, B, C, D, F or none: see bench/power/power.h
  std::optional<std::string> source;
  std::optional<std::string> scope;  // "chip", "board", "node", "wall"
  std::optional<double> mean_w, peak_w, idle_w, energy_j;
  std::optional<double> j_per_output_token, j_per_total_token, output_tps_per_w;
  std::vector<std::string> notes;  // with grade none: why
};

// What the device can do, measured in the same run, and how much of it the model used.
struct Limits {
  std::optional<double> flops;                // attainable FLOP/s of a matrix product
  std::optional<std::string> flops_dtype;     // in this dtype
  std::optional<double> bytes_per_s;          // attainable read bandwidth
  std::optional<double> prefill_flops_per_s;  // what prefill did
  std::optional<double> decode_bytes_per_s;   // weights and KV cache that decode read
  std::optional<double> mfu;                  // prefill_flops_per_s / flops
  std::optional<double> mbu;                  // decode_bytes_per_s / bytes_per_s
};

// The guard against winning by computing something else.
struct Accuracy {
  std::string verdict = "not_run";  // "passed", "failed", "not_run"
  std::optional<std::string> reference;
  std::optional<int64_t> tokens;  // compared
  std::optional<double> max_logprob_error, tolerance;
  std::optional<std::string> note;
};

// What changes while a run goes on.
struct MachineState {
  std::optional<double> clock_mhz;         // mean over CPUs
  std::optional<double> temperature_c;     // the hottest CPU sensor
  std::optional<int64_t> throttle_events;  // since boot
  std::optional<double> load_average_1m;
  std::optional<double> steal_s;  // CPU time since boot that the hypervisor gave to others
};

struct Environment {
  std::optional<std::string> governor, virtualization;
  std::optional<int64_t> cpus_allowed;  // logical CPUs that this process may use
  std::optional<double> cgroup_cpus;    // CPU quota
  std::optional<int64_t> cgroup_memory_bytes;
  MachineState before, after;
};

struct RunResult {
  std::string schema = kResultSchema;
  std::string id;
  std::string started_at;  // RFC 3339, UTC
  double duration_s = 0;
  std::string status = "complete";  // or "interrupted"
  Tool tool;
  Host host;
  DeviceInfo device;
  ModelInfo model;
  WorkloadInfo workload;
  std::optional<WarmUpInfo> warm_up;
  std::vector<Trial> trials;
  Metrics metrics;
  std::vector<OpShare> ops;
  std::optional<int64_t> peak_rss_bytes;
  Power power;
  Limits limits;
  Json gap;  // null, or the object that the gap analysis defines
  Accuracy accuracy;
  Environment environment;
  std::vector<std::string> warnings;
};

// A value that is not finite becomes null.
Json ToJson(const RunResult& result);

// Throws Error, which begins with `where` and names the field, for another schema, a missing field or a wrong type.
// Fields that this version does not know are ignored, so that it reads what a later 1.x wrote.
RunResult FromJson(const Json& json, const std::string& where);

// Throws Error for a file that cannot be read or is not such a document.
RunResult LoadResult(const std::string& path);

}  // namespace assay::bench
