// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/recorded_step.h"

namespace assay {
namespace {

// Sets the recorder, and takes it away again whatever happens.
class RecorderScope {
 public:
  RecorderScope(Ops& ops, std::function<void(Ops::HostWork)> recorder) : ops_(ops) {
    ops_.SetRecorder(std::move(recorder));
  }
  ~RecorderScope() { ops_.SetRecorder(nullptr); }

 private:
  Ops& ops_;
};

}  // namespace

RecordedStep::RecordedStep(Ops& ops, const std::function<void()>& enqueue) {
  plans_.push_back(std::make_unique<Plan>(ops.stream()));
  const RecorderScope scope(ops, [&](Ops::HostWork work) {
    plans_.back()->End();
    between_.push_back(std::move(work));
    plans_.push_back(std::make_unique<Plan>(ops.stream()));
  });
  enqueue();
  plans_.back()->End();
}

void RecordedStep::Launch(const assay_host_lengths* lengths) {
  for (size_t i = 0; i < plans_.size(); ++i) {
    plans_[i]->Launch(lengths);
    if (i < between_.size()) between_[i]();
  }
}

}  // namespace assay
