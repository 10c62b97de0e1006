// SPDX-License-Identifier: Apache-2.0
#include "bench/sut/ranks.h"

#include <fmt/format.h>

#include <thread>

namespace assay::bench {
namespace {

// Does what the leader says, in the order in which it can be said. A step that fails on a rank ends all; what a rank
// cannot open or load, all ranks agree on, and the leader says it.
void Follow(const ModelSpec& spec) {
  Group& group = *spec.group;
  const auto agreed = [](const auto& work) {
    try {
      work();
    } catch (const std::exception&) {
    }
  };
  try {
    std::unique_ptr<Session> session;
    std::unique_ptr<Executor> executor;
    for (Message m = group.Receive(); m.kind != MessageKind::kEnd; m = group.Receive()) {
      switch (m.kind) {
        case MessageKind::kOpen:
          agreed([&] { session = std::make_unique<Session>(spec); });
          break;
        case MessageKind::kLoad:
          agreed([&] { executor = session->LoadToFollow(m.As<ExecutorOptions>()); });
          break;
        case MessageKind::kUnload:
          executor.reset();
          break;
        case MessageKind::kProbe:
          Probe(session->device(), m.As<ProbeSpec>(), &group);
          break;
        default:
          executor->Follow(m);
      }
    }
  } catch (const std::exception& e) {
    group.Abort(fmt::format("rank {}: {}", group.rank(), e.what()));
  }
  group.Leave();
}

// Where the other ranks do not come, they are ended; `error`: what ended this one.
void End(Group& group, const std::string& error) {
  bool ended = false;
  try {
    group.Send(MessageKind::kEnd);
    ended = group.Leave();
  } catch (const Error&) {
  }
  if (!ended) group.Abort(error.empty() ? "the other ranks do not end" : error);
}

int Lead(Group& group, const std::function<int()>& lead) {
  int code = 0;
  try {
    code = lead();
  } catch (const std::exception& e) {
    End(group, e.what());
    throw;
  }
  End(group, "");
  return code;
}

int LeadThreads(ModelSpec* spec, const std::function<int()>& lead) {
  const auto members = MakeThreadGroup(spec->tp);
  std::vector<std::jthread> threads;
  for (size_t r = 1; r < members.size(); ++r) {
    ModelSpec own = *spec;
    own.group = members[r];
    threads.emplace_back([own] {
      try {
        Follow(own);
      } catch (const std::exception&) {  // the leader heard of it, and says it
      }
    });
  }
  spec->group = members[0];
  return Lead(*spec->group, lead);
}

}  // namespace

int RunOnRanks(ModelSpec* spec, const std::function<int()>& lead) {
  const int launched = LaunchedRanks();
  if (launched > 1 && launched != spec->tp) {
    throw Error(fmt::format("--tp {}: {} ranks were started; give --tp {}", spec->tp, launched, launched));
  }
  if (spec->tp == 1) return lead();
  if (launched > 1) {
    spec->group = JoinMpiGroup();
    if (spec->group->size() != launched) {
      throw Error(
          fmt::format("{} ranks were started, but the MPI library of assay-mpi.so sees {}: they are of another "
                      "MPI library's mpirun",
                      launched, spec->group->size()));
    }
    if (spec->group->leader()) return Lead(*spec->group, lead);
    Follow(*spec);
    return 0;
  }
  const DeviceChoice choice = ChooseDevice(spec->device);
  if (!choice.info.is_accelerator) {
    throw Error(
        fmt::format("--tp {} on device {}: its ranks are processes; start them with mpirun -n {} assay ... "
                    "(Debian: openmpi-bin)",
                    spec->tp, choice.info.id, spec->tp));
  }
  return LeadThreads(spec, lead);
}

}  // namespace assay::bench
