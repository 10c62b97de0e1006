// SPDX-License-Identifier: Apache-2.0
#include "bench/limits/probes.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "bench/stats/summary.h"
#include "runtime/core/dtype.h"
#include "runtime/core/interrupt.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/ops.h"

namespace assay::bench {
namespace {

constexpr int64_t kLeastRepetitions = 3;
constexpr size_t kBlocks = 5;  // of repetitions: a block's best is compared with the others'

// Ranks that repeat together: the leader says whether there is one more, and all take the time of the slowest.
class Together {
 public:
  explicit Together(Group* group) : group_(group) {}
  ~Together() {
    if (!group_ || !group_->leader()) return;
    try {
      group_->Send(MessageKind::kProbe, int32_t{0});
    } catch (const Error&) {  // whoever comes next to the group learns it too
    }
  }
  Together(const Together&) = delete;
  Together& operator=(const Together&) = delete;

  // `wanted` counts on the leader.
  bool Again(bool wanted) {
    if (!group_) return wanted;
    if (!group_->leader()) return group_->Receive().As<int32_t>() != 0;
    if (wanted) group_->Send(MessageKind::kProbe, int32_t{1});
    return wanted;
  }
  double Slowest(double seconds) const {
    const std::vector<double> all = Gather(seconds);
    return *std::max_element(all.begin(), all.end());
  }
  double Sum(double work) const {
    double sum = 0;
    for (const double w : Gather(work)) sum += w;
    return sum;
  }

 private:
  std::vector<double> Gather(double mine) const {
    std::vector<double> all(group_ ? static_cast<size_t>(group_->size()) : 1, mine);
    if (group_) group_->AllGather(&mine, sizeof(mine), all.data(), Patience::kStep);
    return all;
  }
  Group* group_;
};

// Repeats `run` for about `seconds`; the times of the repetitions, by the device's own clock. Adds up `work` over
// ranks.
std::vector<double> Repeat(Stream& stream, double seconds, Group* group, double* work,
                           const std::function<void()>& run) {
  std::vector<double> times_s;
  Together ranks(group);
  *work = ranks.Sum(*work);
  Event begin(stream.device().shared_from_this()), end(stream.device().shared_from_this());
  run();  // first touch, clock ramp
  stream.Synchronize();
  const Clock::time_point start = Clock::now();
  double elapsed_s = 0;
  int64_t repetitions = 0;
  while (ranks.Again(elapsed_s < seconds || repetitions < kLeastRepetitions)) {
    begin.Record(stream);
    run();
    end.Record(stream);
    end.Synchronize();
    const double s = ranks.Slowest(end.ElapsedNsSince(begin) * 1e-9);
    if (s > 0) times_s.push_back(s);
    ++repetitions;
    elapsed_s = std::chrono::duration<double>(Clock::now() - start).count();
    if (!group || group->leader()) ThrowIfInterrupted();
  }
  return times_s;
}

// work / time of the shortest repetition.
ProbeResult Best(double work, const std::vector<double>& times_s) {
  ProbeResult result;
  if (times_s.empty()) return result;
  result.best = work / *std::min_element(times_s.begin(), times_s.end());
  std::vector<double> sorted = times_s;
  std::nth_element(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2), sorted.end());
  result.median = work / sorted[sorted.size() / 2];
  if (times_s.size() < 2 * kBlocks) return result;
  std::vector<double> best;
  const size_t n = times_s.size() / kBlocks;
  for (size_t i = 0; i < kBlocks; ++i) {
    const auto first = times_s.begin() + static_cast<std::ptrdiff_t>(i * n);
    best.push_back(work / *std::min_element(first, first + static_cast<std::ptrdiff_t>(n)));
  }
  const auto [least, most] = std::minmax_element(best.begin(), best.end());
  result.half_width = (*most - *least) / 2;
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

// Many compute units bring large caches, and are through with a small product before all of them have begun.
bool IsWide(const assay_device_info& info) {
  return info.compute_units >= 32;
}

uint64_t Fitting(const Device& device, uint64_t bytes) {
  const uint64_t free = device.info().memory_free;
  return free > 0 ? std::min(bytes, free / 4) : bytes;
}

// Written once: pages that were never written may all be the same zero page, which fits any cache.
void Touch(Stream& stream, const Buffer& buffer) {
  const std::vector<uint8_t> chunk(1 << 20, 0x3C);
  for (uint64_t at = 0; at < buffer.bytes(); at += chunk.size()) {
    stream.Upload(buffer, at, chunk.data(), std::min<uint64_t>(chunk.size(), buffer.bytes() - at));
  }
}

// A read of a buffer, ready to be enqueued.
class Reader {
 public:
  Reader(const std::shared_ptr<Device>& device, uint64_t bytes)
      : stream_(device), buffer_(device, bytes, false), sink_(device, 4096, true), ops_(device, &stream_) {
    Touch(stream_, buffer_);
    ops_.SetMode(Ops::Mode::kCheck);
    Enqueue();
    ops_.AllocateWorkspace();
    ops_.SetMode(Ops::Mode::kRun);
  }
  void Enqueue() {
    ops_.ProbeRead(MakeTensor(buffer_.handle(), 0, ASSAY_U8, {static_cast<int64_t>(buffer_.bytes())}),
                   MakeTensor(sink_.handle(), 0, ASSAY_F32, {1}));
  }
  Stream& stream() { return stream_; }

 private:
  Stream stream_;
  Buffer buffer_, sink_;
  Ops ops_;
};

}  // namespace

uint64_t ProbeBytes(const assay_device_info& info) {
  return IsWide(info) ? 2ull << 30 : 256ull << 20;
}

MatmulProbe LargeProduct(const assay_device_info& info, assay_dtype dtype, assay_dtype compute, assay_dtype act) {
  if (IsWide(info)) return {dtype, compute, act, 8192, 8192, 8192};
  return {dtype, compute, act, 1024, 2048, 2048};
}

ProbeResult ProbeReadBandwidth(const std::shared_ptr<Device>& device, uint64_t bytes, double seconds, Group* group) {
  const uint64_t size = Fitting(*device, bytes);
  Reader reader(device, size);
  auto work = static_cast<double>(size);
  const auto times_s = Repeat(reader.stream(), seconds, group, &work, [&] { reader.Enqueue(); });
  return Best(work, times_s);
}

ProbeResult ProbeCopyBandwidth(const std::shared_ptr<Device>& device, double seconds, Group* group) {
  const uint64_t half = Fitting(*device, ProbeBytes(device->info())) / 2;
  Stream stream(device);
  Buffer from(device, half, false), to(device, half, false);
  Touch(stream, from);
  Touch(stream, to);
  double work = 2.0 * static_cast<double>(half);
  const auto times_s = Repeat(stream, seconds, group, &work, [&] {
    assay_message msg{};
    CheckStatus(device->table().copy_on_device(stream.handle(), to.handle(), 0, from.handle(), 0, half, &msg), msg,
                "copy_on_device");
  });
  return Best(work, times_s);
}

ProbeResult ProbeMatmul(const std::shared_ptr<Device>& device, const MatmulProbe& probe, double seconds, Group* group) {
  const auto [dtype, compute, act, m, n, k] = probe;
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
  const assay_dtype computed = compute;
  const auto run = [&] { ops.Linear(x, w, nullptr, y, computed, "probe"); };
  ops.SetMode(Ops::Mode::kCheck);
  run();
  ops.AllocateWorkspace();
  ops.SetMode(Ops::Mode::kRun);
  double work = 2.0 * static_cast<double>(m * n) * static_cast<double>(k);
  const auto times_s = Repeat(stream, seconds, group, &work, run);
  return Best(work, times_s);
}

ProbeResult Probe(const std::shared_ptr<Device>& device, const ProbeSpec& spec, Group* group) {
  switch (spec.kind) {
    case ProbeSpec::Kind::kRead:
      return ProbeReadBandwidth(device, spec.bytes, spec.seconds, group);
    case ProbeSpec::Kind::kCopy:
      return ProbeCopyBandwidth(device, spec.seconds, group);
    case ProbeSpec::Kind::kMatmul:
      return ProbeMatmul(device, spec.product, spec.seconds, group);
  }
  return {};
}

double ProbeLaunch(const std::shared_ptr<Device>& device, double seconds) {
  Reader reader(device, 4096);
  std::vector<double> times_s;
  const Clock::time_point start = Clock::now();
  Clock::time_point now = start;
  while (std::chrono::duration<double>(now - start).count() < seconds || times_s.size() < 10) {
    ThrowIfInterrupted();
    const Clock::time_point begin = now;
    reader.Enqueue();
    reader.stream().Synchronize();
    now = Clock::now();
    times_s.push_back(std::chrono::duration<double>(now - begin).count());
  }
  return Median(std::move(times_s));
}

}  // namespace assay::bench
