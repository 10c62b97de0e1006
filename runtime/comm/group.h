// SPDX-License-Identifier: Apache-2.0
// The ranks that run one model together: processes that mpirun started, or threads of this process. Rank 0 leads: it
// alone schedules, samples and measures, and sends the others what to do; they follow until it sends kEnd.
// Every member function is collective unless it says otherwise: all ranks call it, in the same order. One thread at a
// time per rank. A wait that lasts too long throws Error, or ends all ranks with one line on stderr.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/core/error.h"

namespace assay {

// For how long a rank waits for the others.
enum class Patience {
  kStep,  // they are computing the same step
  kLoad,  // they may be reading a model from a slow disk
  kIdle,  // for the leader's next message: for as long as it takes, without burning a processor
};
std::chrono::seconds LimitOf(Patience patience);

enum class MessageKind : int32_t { kEnd, kOpen, kLoad, kUnload, kStep, kRecord, kProbe };

// From rank 0 to all others.
struct Message {
  MessageKind kind = MessageKind::kEnd;
  std::vector<uint8_t> body;

  // The plain struct at the start of the body.
  template <class T>
  T As() const {
    ASSAY_CHECK(body.size() >= sizeof(T));
    T value;
    std::memcpy(&value, body.data(), sizeof(T));
    return value;
  }
};

class Group {
 public:
  virtual ~Group() = default;
  int rank() const { return rank_; }
  int size() const { return size_; }
  bool leader() const { return rank_ == 0; }
  // Among the ranks on this host.
  int local_rank() const { return local_rank_; }
  int local_size() const { return local_size_; }

  // data[i] becomes the sum over ranks; the same bits on every rank.
  virtual void AllReduceSum(float* data, int64_t n) = 0;
  // all: [size][bytes], by rank.
  virtual void AllGather(const void* mine, uint64_t bytes, void* all, Patience patience) = 0;
  // Ends every rank, exit code 2, after one line on stderr. Called by one rank.
  [[noreturn]] virtual void Abort(const std::string& why) = 0;
  // The last call on a rank, false if the others did not come to it in time.
  virtual bool Leave() = 0;

  // Rank 0 sends, all others receive.
  void Send(MessageKind kind, std::initializer_list<std::span<const uint8_t>> parts = {});
  Message Receive();
  template <class T>
  void Send(MessageKind kind, const T& body) {
    Send(kind, {BytesOf(body)});
  }
  template <class T>
  static std::span<const uint8_t> BytesOf(const T& value) {
    return {reinterpret_cast<const uint8_t*>(&value), sizeof(T)};
  }

  // Runs `work` on every rank; where it throws on one, Agree throws on all: its own exception where there is one, else
  // an Error that names the rank.
  void Agree(const std::function<void()>& work);

 protected:
  Group(int rank, int size, int local_rank, int local_size)
      : rank_(rank), size_(size), local_rank_(local_rank), local_size_(local_size) {}
  // From rank 0's `data` into everyone's.
  virtual void Broadcast(void* data, uint64_t bytes, Patience patience) = 0;

 private:
  int rank_, size_, local_rank_, local_size_;
};

// Ranks that mpirun (or another launcher) says it started, this process one of them; 1 without a launcher.
int LaunchedRanks();
// The group of these processes. Throws Error if MPI is not to be had.
std::shared_ptr<Group> JoinMpiGroup();

// A group of `size` threads, one member each.
std::vector<std::shared_ptr<Group>> MakeThreadGroup(int size);

}  // namespace assay
