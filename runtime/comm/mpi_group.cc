// SPDX-License-Identifier: Apache-2.0
// A group of processes, through assay-mpi.so.
#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <thread>

#include "runtime/comm/group.h"
#include "runtime/comm/mpi/assay_mpi.h"

namespace assay {
namespace {

constexpr int kExitCode = 2;
constexpr double kLeaveLimitS = 5;

int64_t NowNs() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// MPI's blocking calls are its fast ones, and wait for ever; so a thread watches over them.
class Watchdog {
 public:
  explicit Watchdog(std::function<void()> bite) : thread_([this, bite] { Main(bite); }) {}
  ~Watchdog() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }
  void Arm(std::chrono::seconds limit) { deadline_ns_ = NowNs() + std::chrono::nanoseconds(limit).count(); }
  void Disarm() { deadline_ns_ = INT64_MAX; }

 private:
  void Main(const std::function<void()>& bite) {
    std::unique_lock lock(mutex_);
    while (!wake_.wait_for(lock, std::chrono::milliseconds(500), [&] { return stop_; })) {
      if (NowNs() > deadline_ns_) bite();
    }
  }
  std::atomic<int64_t> deadline_ns_{INT64_MAX};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  std::thread thread_;  // last: it uses what stands above
};

class MpiGroup final : public Group {
 public:
  explicit MpiGroup(const assay_mpi& mpi)
      : Group(mpi.rank, mpi.size, mpi.local_rank, mpi.local_size), mpi_(mpi), watchdog_([this] {
          Abort("rank " + std::to_string(rank()) +
                " waited too long for the other ranks: one of them hangs or is gone");
        }) {}

  void AllReduceSum(float* data, int64_t n) override {
    const Watch watch(watchdog_, Patience::kStep);
    mpi_.all_reduce_sum(data, n);
  }
  void AllGather(const void* mine, uint64_t bytes, void* all, Patience patience) override {
    const Watch watch(watchdog_, patience);
    mpi_.all_gather(mine, static_cast<int64_t>(bytes), all);
  }
  void Abort(const std::string& why) override {
    std::fprintf(stderr, "assay: %s\n", why.c_str());
    std::fflush(stdout);
    mpi_.abort_all(kExitCode);
    _exit(kExitCode);
  }
  bool Leave() override { return mpi_.leave(kLeaveLimitS) != 0; }

 protected:
  void Broadcast(void* data, uint64_t bytes, Patience patience) override {
    const Watch watch(watchdog_, patience);
    mpi_.broadcast(data, static_cast<int64_t>(bytes), patience == Patience::kIdle);
  }

 private:
  class Watch {
   public:
    Watch(Watchdog& dog, Patience patience) : dog_(dog) { dog_.Arm(LimitOf(patience)); }
    ~Watch() { dog_.Disarm(); }

   private:
    Watchdog& dog_;
  };

  const assay_mpi& mpi_;
  Watchdog watchdog_;
};

}  // namespace

int LaunchedRanks() {
  // Open MPI; MPICH, Intel MPI and Slurm's PMI; MVAPICH.
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"}) {
    const char* value = std::getenv(name);
    if (value && std::atoi(value) > 0) return std::atoi(value);
  }
  return 1;
}

std::shared_ptr<Group> JoinMpiGroup() {
  std::error_code ec;
  const auto path = std::filesystem::read_symlink("/proc/self/exe", ec).parent_path() / "assay-mpi.so";
  const std::string remedy = "; it is built where an MPI library is found (Debian: libopenmpi-dev)";
  if (!std::filesystem::exists(path)) throw Error("ranks need " + path.string() + ", which is not there" + remedy);
  // Global: MPI libraries open parts of themselves that look for their symbols.
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!handle) throw Error(path.string() + ": cannot be loaded: " + dlerror());
  const auto join = reinterpret_cast<assay_mpi_join_fn>(dlsym(handle, ASSAY_MPI_JOIN_SYMBOL));
  if (!join) throw Error(path.string() + ": has no symbol " ASSAY_MPI_JOIN_SYMBOL + remedy);
  char why[256] = "";
  const assay_mpi* mpi = join(why, sizeof(why));
  if (!mpi) throw Error(path.string() + ": " + why);
  if (mpi->struct_size != sizeof(assay_mpi)) throw Error(path.string() + ": is of another build of assay; rebuild it");
  return std::make_shared<MpiGroup>(*mpi);
}

}  // namespace assay
