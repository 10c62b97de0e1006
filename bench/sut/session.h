// SPDX-License-Identifier: Apache-2.0
// A model ready to run on a device: the steps from what a user writes (--model, --device, --dtype...) to an engine,
// with the memory checked before any of it is taken. Owns all of it. One thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "bench/limits/probes.h"
#include "models/format/checkpoint.h"
#include "models/layers/decoder.h"
#include "runtime/comm/affinity.h"
#include "runtime/engine/engine.h"

namespace assay::bench {

struct ModelSpec {
  std::string model;   // path, hf:DIR, FILE.gguf or shape:NAME
  std::string device;  // "" for the best present
  std::string dtype = "auto", kv_dtype = "auto";
  int32_t threads = 0;           // of one rank; 0: all usable cores, or its share of them
  int32_t tp = 1;                // ranks that the model is split over
  std::shared_ptr<Group> group;  // theirs, set by RunOnRanks (bench/sut/ranks.h); null for one rank
};

// What a run will take on the device (of this rank), in bytes.
struct MemoryPlan {
  uint64_t weights = 0, kv_cache = 0, activations = 0, logits = 0;
  uint64_t total() const { return weights + kv_cache + activations + logits; }
};

// On several ranks the leader's constructor, Load, Unload and Probe tell the others to do the same, who listen in
// RunOnRanks.
class Session {
 public:
  // Opens device and checkpoint and plans; loads no weights yet. Throws Error for whatever is wrong, on whichever rank.
  explicit Session(const ModelSpec& spec);

  // The engine, weights loaded. Throws Error if the plan does not fit the device's free memory, or the model has fewer
  // positions than options.max_context.
  std::unique_ptr<Engine> Load(const ExecutorOptions& options);
  void Unload(std::unique_ptr<Engine> engine);
  // What Load does on the other ranks.
  std::unique_ptr<Executor> LoadToFollow(const ExecutorOptions& options);
  // A limit of all ranks' devices together.
  ProbeResult Probe(const ProbeSpec& spec) const;
  // As above on another device with layers streamed from the file: slow, and needs little memory.
  std::unique_ptr<Engine> LoadReference(const DeviceChoice& reference, const ExecutorOptions& options);
  MemoryPlan Plan(const ExecutorOptions& options) const;
  // Throws what Load would throw for want of memory or positions.
  void CheckFits(const ExecutorOptions& options) const;

  const DeviceChoice& choice() const { return choice_; }
  const std::shared_ptr<Device>& device() const { return device_; }
  Checkpoint& checkpoint() { return *checkpoint_; }
  const ModelConfig& config() const { return checkpoint_->config(); }
  const DTypeChoice& dtypes() const { return dtypes_; }
  assay_dtype weight_dtype() const { return weight_dtype_; }  // of most weights on the device
  uint64_t weight_bytes() const { return weight_bytes_; }     // of all ranks
  int64_t threads() const { return threads_; }                // of all ranks, of a CPU
  const CpuSet& cpus() const { return cpus_; }                // of all ranks on this host; empty for one rank

 private:
  ExecutorOptions Cached(ExecutorOptions options) const;  // with the KV cache's dtype
  void Together(const std::function<void()>& work);
  void ShareHost();
  void Open();
  std::unique_ptr<Decoder> MakeModel(const ExecutorOptions& options);
  ModelSpec spec_;
  DeviceChoice choice_;
  std::shared_ptr<Device> device_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::shared_ptr<Communicator> comm_;
  DTypeChoice dtypes_;
  assay_dtype weight_dtype_ = ASSAY_DTYPE_NONE;
  uint64_t weight_bytes_ = 0, own_weight_bytes_ = 0;
  int64_t threads_ = 0;
  CpuSet cpus_;
};

// Runs one request to its end on an idle engine; on_token is called with each token as it comes. Throws Error, which
// begins with `what`, for a request that the engine refuses; DeviceError; Interrupted.
std::unique_ptr<Sequence> RunRequest(Engine& engine, Request request, const std::string& what,
                                     const std::function<void(int32_t)>& on_token = {});

}  // namespace assay::bench
