// SPDX-License-Identifier: Apache-2.0
#include "bench/limits/probes.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "runtime/core/dtype.h"
#include "runtime/core/interrupt.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/ops.h"

namespace assay::bench {
namespace {

// Repeats `run` for about `seconds`; best = work / shortest repetition.
ProbeResult Repeat(Stream& stream, double work, double seconds, const std::function<void()>& run) {
  ProbeResult result;
  double shortest = 0;
  Event begin(stream.device().shared_from_this()), end(stream.device().shared_from_this());
  run();  // first touch, clock ramp
  stream.Synchronize();
  const Clock::time_point start = Clock::now();
  do {
    ThrowIfInterrupted();
    begin.Record(stream);
    run();
    end.Record(stream);
    end.Synchronize();
    const double s = end.ElapsedNsSince(begin) * 1e-9;
    if (s > 0 && (shortest == 0 || s < shortest)) shortest = s;
    ++result.repetitions;
    result.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  } while (result.seconds < seconds || result.repetitions < 3);
  if (shortest > 0) result.best = work / shortest;
  return result;
}

// Small varied values in any float dtype, so that power and denormals are those of real data.
std::vector<float> Values(int64_t n) {
  std::vector<float> v(n);
  uint32_t state = 12345;
  for (float& f : v) {
    state = state * 1664525u + 1013904223u;
    f = static_cast<float>(static_cast<int32_t>(state >> 8) - (1 << 23)) / static_cast<float>(1 << 23);
  }
  return v;
}

}  // namespace

ProbeResult ProbeReadBandwidth(const std::shared_ptr<Device>& device, double seconds) {
  const uint64_t free = device->info().memory_free;
  const uint64_t bytes = free > 0 ? std::min(kProbeBytes, free / 4) : kProbeBytes;
  Stream stream(device);
  Buffer buffer(device, bytes, false), sink(device, 4096, true);
  // Written once: pages that were never written may all be the same zero page, which fits any cache.
  const std::vector<uint8_t> chunk(1 << 20, 0x3C);
  for (uint64_t at = 0; at < bytes; at += chunk.size()) {
    stream.Upload(buffer, at, chunk.data(), std::min<uint64_t>(chunk.size(), bytes - at));
  }
  const Tensor x = MakeTensor(buffer.handle(), 0, ASSAY_U8, {static_cast<int64_t>(bytes)});
  const Tensor y = MakeTensor(sink.handle(), 0, ASSAY_F32, {1});
  Ops ops(device, &stream);
  ops.SetMode(Ops::Mode::kCheck);
  ops.ProbeRead(x, y);
  ops.AllocateWorkspace();
  ops.SetMode(Ops::Mode::kRun);
  return Repeat(stream, static_cast<double>(bytes), seconds, [&] { ops.ProbeRead(x, y); });
}

ProbeResult ProbeMatmul(const std::shared_ptr<Device>& device, assay_dtype dtype, assay_dtype compute, assay_dtype act,
                        double seconds) {
  constexpr int64_t m = 1024, n = 2048, k = 2048;
  Stream stream(device);
  assay_weight_desc desc{};
  desc.struct_size = sizeof(desc);
  desc.dtype = dtype;
  desc.usage = ASSAY_WEIGHT_LINEAR;
  desc.compute = compute;
  desc.rows = n;
  desc.cols = k;
  Buffer weight(device, device->PackedBytes(desc), false);
  {
    const std::vector<float> values = Values(n * k);
    std::vector<uint8_t> source(DTypeBytes(dtype, n * k));
    ConvertElements(ASSAY_F32, values.data(), dtype, source.data(), n * k);
    device->PackWeight(desc, source.data(), weight, 0);
  }
  Buffer in(device, TensorBytes(act, {m, k}), false), out(device, TensorBytes(act, {m, n}), false);
  {
    const std::vector<float> values = Values(m * k);
    std::vector<uint8_t> source(DTypeBytes(act, m * k));
    ConvertElements(ASSAY_F32, values.data(), act, source.data(), m * k);
    stream.Upload(in, 0, source.data(), source.size());
  }
  const Tensor x = MakeTensor(in.handle(), 0, act, {m, k}), y = MakeTensor(out.handle(), 0, act, {m, n});
  Tensor w = MakeTensor(weight.handle(), 0, dtype, {n, k});
  w.flags = ASSAY_TENSOR_PACKED;
  Ops ops(device, &stream);
  const auto run = [&] { ops.Linear(x, w, nullptr, y, compute, "probe"); };
  ops.SetMode(Ops::Mode::kCheck);
  run();
  ops.AllocateWorkspace();
  ops.SetMode(Ops::Mode::kRun);
  return Repeat(stream, 2.0 * m * n * k, seconds, run);
}

}  // namespace assay::bench
