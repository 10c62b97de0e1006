// SPDX-License-Identifier: Apache-2.0
// The built-in backend behind a table with telemetry and a brake, by environment variables:
//   SCRIPTED_WATTS=W      telemetry: an energy counter of W watts that moves every 20 ms, and a power of W
//   SCRIPTED_CROSS=X      the power reads X times that
//   SCRIPTED_SLOW=N       linear operations run N times over, but for the square product that measures the limit
#include <dlfcn.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "backends/api/assay_backend.h"

namespace {

assay_backend real;

double Number(const char* name, double otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atof(text) : otherwise;
}

assay_status Telemetry(assay_device, assay_telemetry* t, assay_message*) {
  constexpr double kTickS = 0.02;
  const double now_s = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  const double watts = Number("SCRIPTED_WATTS", 0);
  t->timestamp_ns = static_cast<uint64_t>(now_s * 1e9);
  t->energy_uj = static_cast<uint64_t>(std::floor(now_s / kTickS) * kTickS * watts * 1e6);
  t->energy_period_us = static_cast<uint64_t>(kTickS * 1e6);
  t->power_w = watts * Number("SCRIPTED_CROSS", 1);
  t->power_period_s = kTickS;
  t->temperature_c = 55;
  t->clock_mhz = 2000;
  t->memory_clock_mhz = NAN;
  t->throttle_reasons = 0;
  t->memory_used = t->error_count = UINT64_MAX;
  std::strcpy(t->source, "a script");
  return ASSAY_OK;
}

// The limit's own product is 1024 x 2048 x 2048; no model of the tests has such a layer.
bool IsLimit(const assay_args* args) {
  return args->in[0]->shape[0] == 1024 && args->in[0]->shape[1] == 2048 && args->out[0]->shape[1] == 2048;
}

assay_status Enqueue(assay_stream stream, const assay_op_desc* desc, const assay_args* args, assay_buffer workspace,
                     uint64_t offset, uint64_t bytes, const assay_host_lengths* lengths, assay_message* msg) {
  const bool slow = desc->op == ASSAY_OP_LINEAR && !IsLimit(args);
  const int times = slow ? static_cast<int>(Number("SCRIPTED_SLOW", 1)) : 1;
  assay_status status = ASSAY_OK;
  for (int i = 0; i < times && status == ASSAY_OK; ++i) {
    status = real.enqueue(stream, desc, args, workspace, offset, bytes, lengths, msg);
  }
  return status;
}

}  // namespace

assay_status assay_backend_entry(const assay_host* host, assay_backend* backend, assay_message* msg) {
  // The program's own entry, not this one: a plug-in is loaded with local symbols.
  auto* entry = reinterpret_cast<assay_backend_entry_fn>(dlsym(dlopen(nullptr, RTLD_NOW), ASSAY_BACKEND_ENTRY_SYMBOL));
  real.struct_size = sizeof(real);
  const assay_status status = entry(host, &real, msg);
  if (status != ASSAY_OK) return status;
  const uint32_t size = backend->struct_size < real.struct_size ? backend->struct_size : real.struct_size;
  assay_backend table = real;
  table.struct_size = size;
  table.name = "scripted";
  table.enqueue = Enqueue;
  if (std::getenv("SCRIPTED_WATTS")) table.telemetry_read = Telemetry;
  std::memcpy(backend, &table, size);
  return ASSAY_OK;
}
