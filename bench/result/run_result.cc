// SPDX-License-Identifier: Apache-2.0
#include "bench/result/run_result.h"

#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>

#include "runtime/core/error.h"

namespace assay::bench {
namespace {

// Each struct lists its fields once, for reading and for writing. `io(name, field)` is a Writer or a Reader.
template <class Io>
void Fields(Io& io, Rate& x) {
  io("value", x.value), io("ci_low", x.ci_low), io("ci_high", x.ci_high), io("n", x.n);
}
template <class Io>
void Fields(Io& io, Latency& x) {
  io("mean", x.mean), io("p50", x.p50), io("p90", x.p90), io("p95", x.p95), io("p99", x.p99), io("max", x.max);
  io("n", x.n), io("p50_low", x.p50_low), io("p50_high", x.p50_high), io("p99_low", x.p99_low);
  io("p99_high", x.p99_high);
}
template <class Io>
void Fields(Io& io, Tool& x) {
  io("version", x.version), io("commit", x.commit), io("build", x.build);
}
template <class Io>
void Fields(Io& io, Host& x) {
  io("os", x.os), io("kernel", x.kernel), io("cpu", x.cpu), io("cores", x.cores);
  io("memory_bytes", x.memory_bytes), io("hostname_hash", x.hostname_hash);
}
template <class Io>
void Fields(Io& io, DeviceInfo& x) {
  io("backend", x.backend), io("name", x.name), io("count", x.count), io("driver", x.driver);
  io("card_id", x.card_id), io("isa", x.isa), io("threads", x.threads), io("reason", x.reason);
}
template <class Io>
void Fields(Io& io, ModelInfo& x) {
  io("name", x.name), io("family", x.family), io("parameters", x.parameters), io("weights", x.weights);
  io("dtype", x.dtype), io("kv_dtype", x.kv_dtype), io("bytes", x.bytes), io("sha256", x.sha256);
}
template <class Io>
void Fields(Io& io, WorkloadInfo& x) {
  io("scenario", x.scenario), io("isl", x.isl), io("osl", x.osl), io("concurrency", x.concurrency);
  io("rate", x.rate), io("requests", x.requests), io("trials", x.trials), io("seed", x.seed);
  io("ignore_eos", x.ignore_eos), io("achieved_isl", x.achieved_isl), io("achieved_osl", x.achieved_osl);
}
template <class Io>
void Fields(Io& io, WarmUpInfo& x) {
  io("steps", x.steps), io("duration_s", x.duration_s), io("steady", x.steady);
}
template <class Io>
void Fields(Io& io, Trial& x) {
  io("start_s", x.start_s), io("duration_s", x.duration_s), io("requests", x.requests);
  io("input_tokens", x.input_tokens), io("output_tokens", x.output_tokens), io("output_tps", x.output_tps);
  io("prefill_tps", x.prefill_tps), io("decode_tps", x.decode_tps), io("client_share", x.client_share);
}
template <class Io>
void Fields(Io& io, Metrics& x) {
  io("output_tps", x.output_tps), io("total_tps", x.total_tps), io("input_tps", x.input_tps);
  io("request_tps", x.request_tps), io("goodput", x.goodput), io("prefill_tps", x.prefill_tps);
  io("decode_tps", x.decode_tps), io("ttft_ms", x.ttft_ms), io("tpot_ms", x.tpot_ms), io("itl_ms", x.itl_ms);
  io("e2e_ms", x.e2e_ms);
}
template <class Io>
void Fields(Io& io, OpShare& x) {
  io("op", x.op), io("phase", x.phase), io("share", x.share), io("calls", x.calls);
}
template <class Io>
void Fields(Io& io, PhasePower& x) {
  io("seconds", x.seconds), io("mean_w", x.mean_w), io("j_per_token", x.j_per_token), io("tps_per_w", x.tps_per_w);
}
template <class Io>
void Fields(Io& io, PhaseTimes& x) {
  io("tokens", x.tokens), io("flops", x.flops), io("bytes", x.bytes), io("kernels_s", x.kernels_s);
  io("steps_s", x.steps_s);
}
template <class Io>
void Fields(Io& io, Phases& x) {
  io("prefill", x.prefill), io("decode", x.decode);
}
template <class Io>
void Fields(Io& io, Power& x) {
  io("grade", x.grade), io("source", x.source), io("scope", x.scope), io("mean_w", x.mean_w), io("peak_w", x.peak_w);
  io("idle_w", x.idle_w), io("energy_j", x.energy_j), io("j_per_output_token", x.j_per_output_token);
  io("j_per_total_token", x.j_per_total_token), io("output_tps_per_w", x.output_tps_per_w);
  io("mean_w_low", x.mean_w_low), io("mean_w_high", x.mean_w_high);
  io("j_per_output_token_low", x.j_per_output_token_low), io("j_per_output_token_high", x.j_per_output_token_high);
  io("idle_loaded_w", x.idle_loaded_w), io("net_j_per_output_token", x.net_j_per_output_token);
  io("energy_delay_js", x.energy_delay_js), io("limit_w", x.limit_w), io("metered_s", x.metered_s);
  io("update_period_s", x.update_period_s), io("cross_check", x.cross_check), io("mean_clock_mhz", x.mean_clock_mhz);
  io("min_clock_mhz", x.min_clock_mhz), io("max_temperature_c", x.max_temperature_c);
  io("throttled_share", x.throttled_share), io("prefill", x.prefill), io("decode", x.decode), io("notes", x.notes);
}
template <class Io>
void Fields(Io& io, Limits& x) {
  io("flops", x.flops), io("flops_dtype", x.flops_dtype), io("bytes_per_s", x.bytes_per_s);
  io("prefill_flops_per_s", x.prefill_flops_per_s), io("decode_bytes_per_s", x.decode_bytes_per_s);
  io("mfu", x.mfu), io("mbu", x.mbu), io("prefill_mbu", x.prefill_mbu), io("decode_mfu", x.decode_mfu);
  io("prefill_flops_per_byte", x.prefill_flops_per_byte), io("decode_flops_per_byte", x.decode_flops_per_byte);
  io("flops_half_width", x.flops_half_width), io("bytes_per_s_half_width", x.bytes_per_s_half_width);
  io("bytes_per_s_median", x.bytes_per_s_median);
  io("model_flops", x.model_flops), io("model_matmul", x.model_matmul), io("copy_bytes_per_s", x.copy_bytes_per_s);
  io("cache_bytes_per_s", x.cache_bytes_per_s), io("launch_us", x.launch_us);
}
template <class Io>
void Fields(Io& io, Estimate& x) {
  io("value", x.value), io("low", x.low), io("high", x.high);
}
template <class Io>
void Fields(Io& io, GapTerm& x) {
  io("stage", x.stage), io("log", x.log), io("note", x.note);
}
template <class Io>
void Fields(Io& io, Provenance& x) {
  io("who", x.who), io("date", x.date), io("source", x.source), io("confidence", x.confidence), io("note", x.note);
}
template <class Io>
void Fields(Io& io, Gap& x) {
  io("metric", x.metric), io("unit", x.unit), io("claimed", x.claimed), io("claim", x.claim);
  io("provenance", x.provenance), io("actual", x.actual), io("ratio", x.ratio), io("terms", x.terms);
}
template <class Io>
void Fields(Io& io, GapReport& x) {
  io("card_id", x.card_id), io("card_name", x.card_name), io("card_sure", x.card_sure), io("card_why", x.card_why);
  io("gaps", x.gaps), io("notes", x.notes);
}
template <class Io>
void Fields(Io& io, DeviceMemory& x) {
  io("weights_bytes", x.weights_bytes), io("kv_cache_bytes", x.kv_cache_bytes);
  io("activations_bytes", x.activations_bytes), io("logits_bytes", x.logits_bytes);
}
template <class Io>
void Fields(Io& io, Accuracy& x) {
  io("verdict", x.verdict), io("reference", x.reference), io("tokens", x.tokens);
  io("max_logprob_error", x.max_logprob_error), io("tolerance", x.tolerance), io("note", x.note);
}
template <class Io>
void Fields(Io& io, MachineState& x) {
  io("clock_mhz", x.clock_mhz), io("temperature_c", x.temperature_c), io("throttle_events", x.throttle_events);
  io("load_average_1m", x.load_average_1m), io("steal_s", x.steal_s);
}
template <class Io>
void Fields(Io& io, Environment& x) {
  io("governor", x.governor), io("virtualization", x.virtualization), io("cpus_allowed", x.cpus_allowed);
  io("cgroup_cpus", x.cgroup_cpus), io("cgroup_memory_bytes", x.cgroup_memory_bytes);
  io("before", x.before), io("after", x.after), io("trial_clock_mhz", x.trial_clock_mhz);
  io("profile_clock_mhz", x.profile_clock_mhz), io("throttled", x.throttled);
}
template <class Io>
void Fields(Io& io, RunResult& x) {
  io("schema", x.schema), io("id", x.id), io("started_at", x.started_at), io("duration_s", x.duration_s);
  io("status", x.status), io("tool", x.tool), io("host", x.host), io("device", x.device), io("model", x.model);
  io("workload", x.workload), io("warm_up", x.warm_up), io("trials", x.trials), io("metrics", x.metrics);
  io("ops", x.ops), io("phases", x.phases), io("memory", x.memory), io("peak_rss_bytes", x.peak_rss_bytes),
      io("power", x.power), io("limits", x.limits);
  io("gap", x.gap), io("accuracy", x.accuracy), io("environment", x.environment), io("warnings", x.warnings);
}

struct Writer {
  Json out = Json::object();

  template <class T>
  void operator()(const char* name, T& field) {
    out[name] = Write(field);
  }

  static Json Write(double x) { return std::isfinite(x) ? Json(x) : Json(nullptr); }
  static Json Write(bool x) { return x; }
  static Json Write(int64_t x) { return x; }
  static Json Write(uint64_t x) { return x; }
  static Json Write(const std::string& x) { return x; }
  template <class T>
  static Json Write(const std::optional<T>& x) {
    return x ? Write(*x) : Json(nullptr);
  }
  template <class T>
  static Json Write(const std::vector<T>& x) {
    Json array = Json::array();
    for (const T& item : x) array.push_back(Write(item));
    return array;
  }
  template <class T>
  static Json Write(const T& x) {
    Writer writer;
    Fields(writer, const_cast<T&>(x));  // a Writer only reads what the shared list hands it
    return std::move(writer.out);
  }
};

struct Reader {
  const Json& in;
  std::string where;  // "file.json: metrics"

  template <class T>
  void operator()(const char* name, T& field) {
    const std::string place = where + (where.ends_with(": ") ? "" : ".") + name;
    const auto found = in.find(name);
    if (found == in.end()) throw Error(place + ": the field is missing; the file is not a whole " + kResultSchema);
    Read(*found, place, field);
  }

  static void Expect(bool fits, const Json& json, const std::string& place, const char* wanted) {
    if (!fits) throw Error(place + ": expected " + wanted + ", found " + json.type_name());
  }
  static void Read(const Json& json, const std::string& place, double& x) {
    Expect(json.is_number() || json.is_null(), json, place, "a number");
    x = json.is_null() ? std::numeric_limits<double>::quiet_NaN() : json.get<double>();
  }
  static void Read(const Json& json, const std::string& place, bool& x) {
    Expect(json.is_boolean(), json, place, "true or false");
    x = json.get<bool>();
  }
  static void Read(const Json& json, const std::string& place, int64_t& x) {
    Expect(json.is_number_integer(), json, place, "a whole number");
    x = json.get<int64_t>();
  }
  static void Read(const Json& json, const std::string& place, uint64_t& x) {
    Expect(json.is_number_unsigned(), json, place, "a whole number from 0");
    x = json.get<uint64_t>();
  }
  static void Read(const Json& json, const std::string& place, std::string& x) {
    Expect(json.is_string(), json, place, "a text");
    x = json.get<std::string>();
  }
  template <class T>
  static void Read(const Json& json, const std::string& place, std::optional<T>& x) {
    x.reset();
    if (!json.is_null()) Read(json, place, x.emplace());
  }
  template <class T>
  static void Read(const Json& json, const std::string& place, std::vector<T>& x) {
    Expect(json.is_array(), json, place, "a list");
    x.clear();
    for (const Json& item : json) {
      const std::string item_place = place + "[" + std::to_string(x.size()) + "]";
      Read(item, item_place, x.emplace_back());
    }
  }
  template <class T>
  static void Read(const Json& json, const std::string& place, T& x) {
    Expect(json.is_object(), json, place, "an object");
    Reader reader{json, place};
    Fields(reader, x);
  }
};

}  // namespace

bool IsMeasured(const Power& power) {
  return power.grade == "A" || power.grade == "B" || power.grade == "C";
}

Json ToJson(const RunResult& result) {
  return Writer::Write(result);
}
Json ToJson(const Gap& gap) {
  return Writer::Write(gap);
}
Json ToJson(const GapReport& report) {
  return Writer::Write(report);
}

RunResult FromJson(const Json& json, const std::string& where) {
  const auto schema = json.is_object() ? json.find("schema") : json.end();
  if (schema == json.end() || !schema->is_string()) {
    throw Error(where + ": not a result of assay: it has no \"schema\"; other tools' files need `assay import` first");
  }
  if (*schema != kResultSchema) {
    throw Error(where + ": schema is \"" + schema->get<std::string>() + "\", but this assay reads \"" + kResultSchema +
                "\": use the assay that wrote it");
  }
  RunResult result;
  Reader reader{json, where + ": "};
  Fields(reader, result);
  return result;
}

RunResult LoadResult(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  if (!file || !(text << file.rdbuf())) throw Error(path + ": cannot be read as a file: give a result file of assay");
  try {
    return FromJson(Json::parse(text.str()), path);
  } catch (const Json::parse_error& error) {
    throw Error(path + ": not JSON (at byte " + std::to_string(error.byte) + "): give a result file of assay");
  }
}

}  // namespace assay::bench
