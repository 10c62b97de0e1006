// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/group.h"

#include <algorithm>
#include <exception>

namespace assay {
namespace {

struct Header {
  MessageKind kind;
  uint64_t bytes;
};

// What one rank says of its work; empty: all is well.
struct Outcome {
  char why[1000];
};

}  // namespace

std::chrono::seconds LimitOf(Patience patience) {
  return patience == Patience::kStep   ? std::chrono::minutes(1)
         : patience == Patience::kLoad ? std::chrono::minutes(30)
                                       : std::chrono::hours(24 * 365);
}

void Group::Send(MessageKind kind, std::initializer_list<std::span<const uint8_t>> parts) {
  ASSAY_CHECK(leader());
  std::vector<uint8_t> body;
  for (const auto& part : parts) body.insert(body.end(), part.begin(), part.end());
  Header header{kind, body.size()};
  Broadcast(&header, sizeof(header), Patience::kStep);
  if (!body.empty()) Broadcast(body.data(), body.size(), Patience::kStep);
}

Message Group::Receive() {
  ASSAY_CHECK(!leader());
  Header header{};
  Broadcast(&header, sizeof(header), Patience::kIdle);
  Message message{header.kind, std::vector<uint8_t>(header.bytes)};
  if (header.bytes > 0) Broadcast(message.body.data(), header.bytes, Patience::kStep);
  return message;
}

void Group::Agree(const std::function<void()>& work) {
  std::exception_ptr own;
  Outcome mine{};
  const auto keep = [&](const char* why) {
    own = std::current_exception();
    std::snprintf(mine.why, sizeof(mine.why), "%s", *why ? why : "failed");
  };
  try {
    work();
  } catch (const std::bad_alloc&) {
    keep("out of memory");
  } catch (const std::exception& e) {
    keep(e.what());
  }
  std::vector<Outcome> all(static_cast<size_t>(size()));
  AllGather(&mine, sizeof(mine), all.data(), Patience::kLoad);
  if (own) std::rethrow_exception(own);
  for (size_t r = 0; r < all.size(); ++r) {
    if (all[r].why[0]) throw Error("rank " + std::to_string(r) + ": " + all[r].why);
  }
}

}  // namespace assay
