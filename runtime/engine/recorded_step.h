// SPDX-License-Identifier: Apache-2.0
// A step that was recorded once and is launched many times: one plan, or, where ranks exchange through the host, plans
// with that exchange between them. One thread.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "runtime/engine/ops.h"

namespace assay {

class RecordedStep {
 public:
  // Records what `enqueue` gives to `ops`; nothing of it runs.
  RecordedStep(Ops& ops, const std::function<void()>& enqueue);
  void Launch(const assay_host_lengths* lengths);

 private:
  std::vector<std::unique_ptr<Plan>> plans_;
  std::vector<Ops::HostWork> between_;  // [i]: after plans_[i]
};

}  // namespace assay
