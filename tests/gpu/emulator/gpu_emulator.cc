// SPDX-License-Identifier: Apache-2.0
#include "gpu_emulator.h"

#include <algorithm>
#include <boost/context/fiber.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

struct EmulatedGraph {
  std::vector<std::function<void()>> work;
};

namespace assay::gpu::emulator {
namespace {

namespace ctx = boost::context;

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = 512 << 10;  // its frames are larger
#else
constexpr size_t kStackBytes = 128 << 10;
#endif
constexpr int kNoGroup = -1;

// Stacks are kept: a kernel has thousands of threads.
class StackPool {
 public:
  ctx::stack_context Take() {
    if (free_.empty()) {
      memory_.push_back(std::make_unique_for_overwrite<std::byte[]>(kStackBytes));
      ctx::stack_context stack;
      stack.size = kStackBytes;
      stack.sp = memory_.back().get() + kStackBytes;  // it grows downwards
      free_.push_back(stack);
    }
    const ctx::stack_context stack = free_.back();
    free_.pop_back();
    return stack;
  }
  void Give(const ctx::stack_context& stack) { free_.push_back(stack); }

 private:
  std::vector<ctx::stack_context> free_;
  std::vector<std::unique_ptr<std::byte[]>> memory_;
};
StackPool& Stacks() {
  static StackPool* const pool = new StackPool;  // never destroyed: the machine's fibers are static, too
  return *pool;
}
struct PooledStack {
  ctx::stack_context stack;
  ctx::stack_context allocate() { return stack; }
  void deallocate(ctx::stack_context& s) { Stacks().Give(s); }
};

// What a set of lanes waits for together: a barrier, or a collective and what its lanes brought.
struct Meeting {
  int expected = 0;
  int arrived = 0;
  uint64_t round = 0;
  const char* what = "";
  std::vector<std::byte> brought[2];  // of this round and the one before
};

struct Fiber {
  Lane lane;
  ctx::fiber context;
  ctx::stack_context stack;
  bool done = false;
  const Meeting* waits_for = nullptr;
  uint64_t waits_round = 0;
};

struct Machine {
  Block block;
  std::vector<Fiber> fibers;
  ctx::fiber scheduler;
  Fiber* current = nullptr;
  std::map<std::pair<int, int>, Meeting> meetings;  // by (kind, index); kinds below
  std::vector<std::byte> shared;
  const std::function<void()>* thread = nullptr;
  int running = 0;  // fibers that are not done
  void* scheduler_fake_stack = nullptr;
  const void* scheduler_bottom = nullptr;
  size_t scheduler_size = 0;
};
Machine machine;
emulatedError_t last_error = emulatedSuccess;
emulatedError_t lost = emulatedSuccess;  // what every call returns once a fault has struck

// Counts a launch; true if the device is lost by it, or was before.
bool FaultStrikes() {
  static const char* const fault = std::getenv("ASSAY_EMULATED_FAULT");
  static long left = fault != nullptr ? std::strtol(fault, nullptr, 10) : 0;
  if (left > 0 && --left == 0) {
    lost = static_cast<emulatedError_t>(std::strtol(std::strchr(fault, ':') + 1, nullptr, 10));
  }
  return lost != emulatedSuccess;
}

size_t MemoryBytes() {
  static const char* const bytes = std::getenv("ASSAY_EMULATED_MEMORY");
  return bytes != nullptr ? std::strtoull(bytes, nullptr, 10) : size_t{8} << 30;
}
std::map<void*, size_t> allocated;  // device memory
size_t allocated_bytes = 0;

// Kinds of meetings: barriers of the block by id, collectives by group size.
constexpr int kBarrier = 0;

[[noreturn]] void Stuck(const std::string& why) {
  std::fprintf(stderr, "emulated GPU: block (%u,%u,%u) of %u threads: %s\n", machine.block.block.x,
               machine.block.block.y, machine.block.block.z, static_cast<unsigned>(machine.fibers.size()), why.c_str());
  int shown = 0;
  for (const Fiber& f : machine.fibers) {
    if (f.done || f.waits_for == nullptr || shown++ == 8) continue;
    std::fprintf(stderr, "  thread %d waits at %s: %d of %d are there\n", f.lane.index, f.waits_for->what,
                 f.waits_for->arrived, f.waits_for->expected);
  }
  std::abort();
}

// Back to the scheduler, until it resumes this fiber.
void Suspend() {
  Fiber* self = machine.current;
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(self->done ? nullptr : &fake, machine.scheduler_bottom, machine.scheduler_size);
#endif
  machine.scheduler = std::move(machine.scheduler).resume();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  machine.current = self;
}

void Resume(Fiber* f) {
  machine.current = f;
#if defined(__SANITIZE_ADDRESS__)
  const auto* bottom = static_cast<const std::byte*>(f->stack.sp) - f->stack.size;
  __sanitizer_start_switch_fiber(&machine.scheduler_fake_stack, bottom, f->stack.size);
#endif
  f->context = std::move(f->context).resume();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(machine.scheduler_fake_stack, nullptr, nullptr);
#endif
}

ctx::fiber RunLane(ctx::fiber&& scheduler) {
  machine.scheduler = std::move(scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &machine.scheduler_bottom, &machine.scheduler_size);
#endif
  Fiber* const self = machine.current;
  (*machine.thread)();
  self->done = true;
  --machine.running;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(nullptr, machine.scheduler_bottom, machine.scheduler_size);
#endif
  return std::move(machine.scheduler);
}

// Counts a lane of `expected`; returns whether it was the last of the round.
bool Come(Meeting* m, int expected, const char* what) {
  if (m->arrived == 0) {
    m->expected = expected;
    m->what = what;
  } else if (m->expected != expected || std::strcmp(m->what, what) != 0) {
    Stuck(std::string("threads meet at different places: ") + m->what + " and " + what);
  }
  if (++m->arrived != expected) return false;
  m->arrived = 0;
  ++m->round;
  return true;
}

// Waits until `expected` lanes have met; returns the round in which they did.
uint64_t Meet(Meeting* m, int expected, const char* what) {
  const uint64_t round = m->round;
  if (Come(m, expected, what)) return round;
  Fiber* self = machine.current;
  self->waits_for = m;
  self->waits_round = round;
  Suspend();
  self->waits_for = nullptr;
  return round;
}

void RunBlock() {
  const dim3 size = machine.block.block_size;
  machine.fibers.clear();
  machine.fibers.resize(static_cast<size_t>(size.x) * size.y * size.z);
  machine.meetings.clear();
  std::fill(machine.shared.begin(), machine.shared.end(), std::byte{0xff});
  machine.running = static_cast<int>(machine.fibers.size());
  for (size_t i = 0; i < machine.fibers.size(); ++i) {
    Fiber& f = machine.fibers[i];
    const auto n = static_cast<unsigned>(i);
    f.lane = {dim3(n % size.x, n / size.x % size.y, n / (size.x * size.y)), static_cast<int>(i)};
    f.stack = Stacks().Take();
    f.context = ctx::fiber(std::allocator_arg, PooledStack{f.stack}, RunLane);
  }
  constexpr int kPatience = 100000;  // rounds in which lanes only poll
  for (int idle = 0; machine.running > 0;) {
    bool progress = false, polled = false;
    for (Fiber& f : machine.fibers) {
      if (f.done || (f.waits_for != nullptr && f.waits_for->round == f.waits_round)) continue;
      Resume(&f);
      progress |= f.done || f.waits_for != nullptr;
      polled |= !f.done && f.waits_for == nullptr;
    }
    if (progress) idle = 0;
    if (!progress && (!polled || ++idle > kPatience)) {
      Stuck(polled ? "threads wait for a word of memory that does not change" : "not all threads reach this place");
    }
  }
}

uint32_t Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

}  // namespace

struct StreamState {
  EmulatedGraph* recording = nullptr;
};

// Now, or with the graph that is being recorded.
void Run(StreamState* stream, std::function<void()> work) {
  if (stream != nullptr && stream->recording != nullptr) {
    stream->recording->work.push_back(std::move(work));
  } else {
    work();
  }
}

const Lane& CurrentLane() {
  return machine.current->lane;
}
const Block& CurrentBlock() {
  return machine.block;
}

void SyncThreads() {
  Meet(&machine.meetings[{kBarrier, 0}], machine.running, "__syncthreads");
}

void SyncNamed(int id, int threads) {
  Meet(&machine.meetings[{kBarrier, id}], threads, "a named barrier");
}

void ArriveNamed(int id, int threads) {
  Come(&machine.meetings[{kBarrier, id}], threads, "a named barrier");
}

const std::byte* Exchange(const void* mine, size_t bytes, int size, const char* what) {
  if (bytes > kExchangeBytes) Stuck("a collective with too many bytes");
  const int index = machine.current->lane.index, group = index / size;
  if (static_cast<size_t>((group + 1) * size) > machine.fibers.size())
    Stuck("a collective in a warp that is not whole");
  Meeting* m = &machine.meetings[{size, group}];
  std::vector<std::byte>& brought = m->brought[m->round % 2];
  brought.resize(static_cast<size_t>(size) * kExchangeBytes);
  std::memcpy(brought.data() + static_cast<size_t>(index % size) * kExchangeBytes, mine, bytes);
  const uint64_t round = Meet(m, size, what);
  return m->brought[round % 2].data();
}

void SyncWarp() {
  const char none = 0;
  Exchange(&none, 1, ASSAY_GPU_EMULATED, "a warp's barrier");
}

void Yield() {
  Suspend();
}

void* DynamicShared() {
  auto address = reinterpret_cast<uintptr_t>(machine.shared.data());
  return reinterpret_cast<void*>((address + 1023) / 1024 * 1024);
}

static float DecodeHalf(uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) return mantissa != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  return sign * std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
}

float HalfBitsToFloat(uint16_t bits) {
  static const std::vector<float> all = [] {
    std::vector<float> table;
    for (uint32_t i = 0; i < 65536; ++i) table.push_back(DecodeHalf(static_cast<uint16_t>(i)));
    return table;
  }();
  return all[bits];
}

uint16_t FloatToHalfBits(float value) {
  const uint32_t bits = Bits(value), sign = bits >> 16 & 0x8000;
  const float size = std::fabs(value);
  if (std::isnan(value)) return static_cast<uint16_t>(sign | 0x7fff);
  if (size >= 65520.0f) return static_cast<uint16_t>(sign | 0x7c00);
  if (size == 0) return static_cast<uint16_t>(sign);
  int exponent = 0;
  std::frexp(size, &exponent);                                  // size = f * 2^exponent, f in [1/2, 1)
  const int step = std::max(exponent - 11, -24);                // the exponent of the last bit
  const float steps = std::nearbyint(std::ldexp(size, -step));  // ties to even, the default mode
  return static_cast<uint16_t>(sign | ((static_cast<uint32_t>(step + 24) << 10) + static_cast<uint32_t>(steps)));
}

void Launch(StreamState* stream, dim3 grid, dim3 block, size_t shared, std::function<void()> thread) {
  const size_t threads = static_cast<size_t>(block.x) * block.y * block.z;
  if (threads == 0 || threads > 1024 || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 ||
      shared > shared_limit) {
    last_error = emulatedErrorInvalidValue;
    return;
  }
  auto run = [=] {
    if (FaultStrikes()) return;
    machine.thread = &thread;
    machine.block.block_size = block;
    machine.block.grid_size = grid;
    machine.shared.resize(shared + 1024);
    for (unsigned z = 0; z < grid.z; ++z) {
      for (unsigned y = 0; y < grid.y; ++y) {
        for (unsigned x = 0; x < grid.x; ++x) {
          machine.block.block = dim3(x, y, z);
          RunBlock();
        }
      }
    }
  };
  Run(stream, run);
}

}  // namespace assay::gpu::emulator

namespace emulator = assay::gpu::emulator;
using emulator::Run;

const char* emulatedGetErrorString(emulatedError_t error) {
  return error == emulatedErrorMemoryAllocation ? "out of memory"
         : error == emulatedErrorInvalidValue   ? "invalid value"
                                                : "a fault that was asked for";
}
emulatedError_t emulatedGetLastError() {
  const emulatedError_t error = std::exchange(emulator::last_error, emulatedSuccess);
  return error != emulatedSuccess ? error : emulator::lost;
}
emulatedError_t emulatedSetDevice(int) {
  return emulator::lost;
}

namespace {
emulatedError_t Allocate(void** address, size_t bytes) {
  *address = std::aligned_alloc(1024, (bytes + 1023) / 1024 * 1024);
  if (*address == nullptr) return emulator::last_error = emulatedErrorMemoryAllocation;
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(static_cast<std::byte*>(*address) + bytes, (1024 - bytes % 1024) % 1024);
#endif
  constexpr size_t kPoisoned = size_t{64} << 20;  // larger ones are weights, and costly to touch twice
  if (bytes <= kPoisoned) std::memset(*address, 0xff, bytes);
  return emulator::lost;
}
}  // namespace

emulatedError_t emulatedMalloc(void** address, size_t bytes) {
  if (bytes > emulator::MemoryBytes() - emulator::allocated_bytes) {
    return emulator::last_error = emulatedErrorMemoryAllocation;
  }
  const emulatedError_t error = Allocate(address, bytes);
  if (error == emulatedSuccess) emulator::allocated_bytes += emulator::allocated[*address] = bytes;
  return error;
}
emulatedError_t emulatedFree(void* address) {
  if (const auto found = emulator::allocated.find(address); found != emulator::allocated.end()) {
    emulator::allocated_bytes -= found->second;
    emulator::allocated.erase(found);
  }
  std::free(address);
  return emulatedSuccess;
}
emulatedError_t emulatedMallocHost(void** address, size_t bytes) {
  return Allocate(address, bytes);
}
emulatedError_t emulatedFreeHost(void* address) {
  std::free(address);
  return emulatedSuccess;
}
emulatedError_t emulatedMemGetInfo(size_t* free, size_t* total) {
  *total = emulator::MemoryBytes();
  *free = *total - emulator::allocated_bytes;
  return emulator::lost;
}
emulatedError_t emulatedMemcpyAsync(void* to, const void* from, size_t bytes, emulatedMemcpyKind,
                                    emulatedStream_t stream) {
  Run(stream, [=] { std::memmove(to, from, bytes); });
  return emulator::lost;
}
emulatedError_t emulatedMemsetAsync(void* to, int value, size_t bytes, emulatedStream_t stream) {
  Run(stream, [=] { std::memset(to, value, bytes); });
  return emulator::lost;
}

emulatedError_t emulatedStreamCreate(emulatedStream_t* stream) {
  *stream = new assay::gpu::emulator::StreamState;
  return emulatedSuccess;
}
emulatedError_t emulatedStreamDestroy(emulatedStream_t stream) {
  delete stream;
  return emulatedSuccess;
}
emulatedError_t emulatedStreamSynchronize(emulatedStream_t) {
  return emulator::lost;
}
emulatedError_t emulatedStreamWaitEvent(emulatedStream_t, emulatedEvent_t, unsigned) {
  return emulatedSuccess;
}

struct EmulatedEvent {
  std::chrono::steady_clock::time_point time;
};
emulatedError_t emulatedEventCreate(emulatedEvent_t* event) {
  *event = new EmulatedEvent;
  return emulatedSuccess;
}
emulatedError_t emulatedEventDestroy(emulatedEvent_t event) {
  delete event;
  return emulatedSuccess;
}
emulatedError_t emulatedEventRecord(emulatedEvent_t event, emulatedStream_t) {
  event->time = std::chrono::steady_clock::now();
  return emulatedSuccess;
}
emulatedError_t emulatedEventSynchronize(emulatedEvent_t) {
  return emulator::lost;
}
emulatedError_t emulatedEventElapsedTime(float* ms, emulatedEvent_t begin, emulatedEvent_t end) {
  *ms = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
  return emulatedSuccess;
}

emulatedError_t emulatedStreamBeginCapture(emulatedStream_t stream) {
  stream->recording = new EmulatedGraph;
  return emulatedSuccess;
}
emulatedError_t emulatedStreamEndCapture(emulatedStream_t stream, emulatedGraph_t* graph) {
  *graph = std::exchange(stream->recording, nullptr);
  return *graph == nullptr ? emulatedErrorInvalidValue : emulatedSuccess;
}
emulatedError_t emulatedGraphLaunch(emulatedGraphExec_t graph, emulatedStream_t) {
  for (const std::function<void()>& work : graph->work) work();
  return emulator::lost;
}
emulatedError_t emulatedGraphDestroy(emulatedGraph_t graph) {
  delete graph;
  return emulatedSuccess;
}
