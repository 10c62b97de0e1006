// SPDX-License-Identifier: Apache-2.0
// The MPI calls behind assay_mpi.h.
#include "runtime/comm/mpi/assay_mpi.h"

#include <mpi.h>

#include <chrono>
#include <cstdio>
#include <thread>

namespace {

using Clock = std::chrono::steady_clock;

// The leader's work between two steps is far shorter; after this long it is doing something else.
constexpr std::chrono::milliseconds kSpin{2};
constexpr std::chrono::microseconds kNap{100};

// True when the request is done within `limit`; naps once the wait has become long.
bool Await(MPI_Request* request, std::chrono::duration<double> limit) {
  const Clock::time_point start = Clock::now();
  int done = 0;
  while (true) {
    for (int i = 0; i < 64; ++i) {
      MPI_Test(request, &done, MPI_STATUS_IGNORE);
      if (done) return true;
    }
    const auto waited = Clock::now() - start;
    if (waited > limit) return false;
    if (waited > kSpin) std::this_thread::sleep_for(kNap);
  }
}

void AllReduceSum(float* data, int64_t n) {
  MPI_Allreduce(MPI_IN_PLACE, data, static_cast<int>(n), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

void AllGather(const void* mine, int64_t bytes, void* all) {
  const int n = static_cast<int>(bytes);
  MPI_Allgather(mine, n, MPI_BYTE, all, n, MPI_BYTE, MPI_COMM_WORLD);
}

// Every rank takes the same call, the one that can be waited for: blocking and other collectives do not match.
void Broadcast(void* data, int64_t bytes, int idle) {
  MPI_Request request;
  MPI_Ibcast(data, static_cast<int>(bytes), MPI_BYTE, 0, MPI_COMM_WORLD, &request);
  if (idle) {
    Await(&request, std::chrono::hours(24 * 365));
  } else {
    MPI_Wait(&request, MPI_STATUS_IGNORE);
  }
}

int Leave(double seconds) {
  MPI_Request request;
  MPI_Ibarrier(MPI_COMM_WORLD, &request);
  if (!Await(&request, std::chrono::duration<double>(seconds))) return 0;
  MPI_Finalize();
  return 1;
}

void AbortAll(int code) {
  MPI_Abort(MPI_COMM_WORLD, code);
}

assay_mpi table{};

}  // namespace

extern "C" __attribute__((visibility("default"))) const assay_mpi* assay_mpi_join(char* why, uint64_t why_size) {
  int level = 0;
  // One thread drives the engine, another may end all ranks.
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level) != MPI_SUCCESS) {
    std::snprintf(why, why_size, "MPI_Init_thread failed");
    return nullptr;
  }
  if (level < MPI_THREAD_MULTIPLE) {
    std::snprintf(why, why_size, "this MPI library does not allow calls from several threads");
    MPI_Finalize();
    return nullptr;
  }
  table.struct_size = sizeof(table);
  MPI_Comm_rank(MPI_COMM_WORLD, &table.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &table.size);
  MPI_Comm local;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &local);
  MPI_Comm_rank(local, &table.local_rank);
  MPI_Comm_size(local, &table.local_size);
  MPI_Comm_free(&local);
  table.all_reduce_sum = AllReduceSum;
  table.all_gather = AllGather;
  table.broadcast = Broadcast;
  table.leave = Leave;
  table.abort_all = AbortAll;
  return &table;
}
