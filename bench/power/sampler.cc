// SPDX-License-Identifier: Apache-2.0
#include "bench/power/sampler.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

namespace assay::bench {
namespace {

std::chrono::duration<double> Seconds(double s) {
  return std::chrono::duration<double>(s);
}

// Nobody tells that a call hangs: whoever waits looks again so often.
constexpr double kLookS = 0.05;

// After so long a call counts as hanging.
double CallLimit(const MeterInfo& info) {
  return std::max(2 * info.period_s, 1.0);
}

}  // namespace

// Outlives the Sampler where the meter hangs: its thread holds it, too.
struct Sampler::State {
  std::unique_ptr<Meter> meter;
  std::thread thread;

  mutable std::mutex mutex;  // not held while the meter is read
  mutable std::condition_variable changed;
  MeterRecord record;
  double calling_since_s = 0;  // 0: no call is under way
  bool stop = false, ended = false;

  void Run() {
    std::minstd_rand random(std::random_device{}());
    // A load whose steps keep time with the readings would always be read at the same point of a step.
    std::uniform_real_distribution<double> jitter(0.8, 1.2);
    std::unique_lock lock(mutex);
    while (!stop) {
      calling_since_s = NowSeconds();
      const double next_s = calling_since_s + record.info.period_s * jitter(random);
      lock.unlock();
      auto read = ReadMeter();
      MeterInfo info = meter->info();  // it may have learnt what a reader must know
      lock.lock();
      calling_since_s = 0;
      record.info = std::move(info);
      Keep(std::move(read));
      changed.notify_all();
      changed.wait_for(lock, Seconds(next_s - NowSeconds()), [this] { return stop; });
    }
    ended = true;
    changed.notify_all();
  }

  // Nothing that leaves this thread could be caught.
  Result<std::vector<Reading>> ReadMeter() {
    try {
      return meter->Read();
    } catch (const std::exception& e) {
      return Result<std::vector<Reading>>::Fail(meter->info().source + ": " + e.what());
    }
  }

  void Keep(Result<std::vector<Reading>> read) {
    if (!read.ok()) {
      record.faults.push_back({NowSeconds(), read.error()});
      return;
    }
    for (Reading& reading : read.value()) {
      if (!record.readings.empty() && reading.t_s <= record.readings.back().t_s) {
        record.faults.push_back({reading.t_s, record.info.source + ": its readings are not in order of time"});
        continue;
      }
      record.readings.push_back(std::move(reading));
    }
  }

  // Where the call under way has taken too long.
  std::optional<Fault> Hang() const {
    const double limit_s = CallLimit(record.info);
    if (calling_since_s == 0 || NowSeconds() - calling_since_s <= limit_s) return std::nullopt;
    return Fault{calling_since_s + limit_s, record.info.source + ": the meter does not answer any more"};
  }
};

Sampler::Sampler(std::unique_ptr<Meter> meter) : state_(std::make_shared<State>()) {
  state_->meter = std::move(meter);
  state_->record.info = state_->meter->info();
  state_->thread = std::thread([state = state_] { state->Run(); });
}

Sampler::~Sampler() {
  std::unique_lock lock(state_->mutex);
  state_->stop = true;
  state_->changed.notify_all();
  while (!state_->ended && !state_->Hang()) state_->changed.wait_for(lock, Seconds(kLookS));
  const bool ended = state_->ended;
  lock.unlock();
  if (ended) {
    state_->thread.join();
  } else {
    state_->thread.detach();
  }
}

MeterInfo Sampler::info() const {
  const std::lock_guard lock(state_->mutex);
  return state_->record.info;
}

MeterRecord Sampler::Record() const {
  const std::lock_guard lock(state_->mutex);
  MeterRecord record = state_->record;
  if (auto hang = state_->Hang()) record.faults.push_back(std::move(*hang));
  return record;
}

void Sampler::WaitFor(double t_s, double limit_s) const {
  const double until_s = NowSeconds() + limit_s;
  std::unique_lock lock(state_->mutex);
  const auto done = [&] {
    const MeterRecord& r = state_->record;
    return (!r.readings.empty() && r.readings.back().t_s >= t_s) || (!r.faults.empty() && r.faults.back().t_s >= t_s) ||
           state_->Hang();
  };
  while (!done() && NowSeconds() < until_s) state_->changed.wait_for(lock, Seconds(kLookS));
}

}  // namespace assay::bench
