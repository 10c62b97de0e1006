// SPDX-License-Identifier: Apache-2.0
// A GPU for tests: kernels written against kernels/cuda/gpu.h run on the CPU, every thread of a block as a fiber, one
// block after the other, on one OS thread. Slow and exact. It is stricter than a card:
//   - device memory is the heap, so AddressSanitizer sees every access that leaves its allocation; it and dynamic
//   shared
//     memory begin as NaN, so that reading what nobody wrote shows;
//   - a barrier or a shuffle that not all of its threads reach ends the process and says which lanes wait where;
//   - ASSAY_GPU_EMULATED is the width of a warp (32, 64, 128), fixed when the code is compiled.
// Streams run at once, in the order of the calls. Recording a stream keeps its launches and copies and runs them with
// the graph. Leaf files reach tensor cores through Exchange, below: a collective sees what all lanes brought.
// Faults, by environment variables:
//   ASSAY_EMULATED_FAULT=N:CODE   the N-th launch fails, and every call after it, with a CUDA error code (719, 214,
//   ...) ASSAY_EMULATED_MEMORY=BYTES   how much device memory there is
// One thread; the state is global.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  unsigned x, y, z;
};
struct __align__(8) uint2 {
  unsigned x, y;
};
struct __align__(16) uint4 {
  unsigned x, y, z, w;
};
struct __align__(8) float2 {
  float x, y;
};
struct __align__(16) float4 {
  float x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) {
  return {x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}
inline float2 make_float2(float x, float y) {
  return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}

namespace assay::gpu::emulator {

struct Lane {
  dim3 thread;
  int index = 0;  // in the block
};
struct Block {
  dim3 block, block_size, grid_size;
};
const Lane& CurrentLane();
const Block& CurrentBlock();

// All lanes of a group (`size` neighbours by index in the block, a divisor of the block) bring `bytes` bytes, at most
// kExchangeBytes; returns where those of the group's first lane lie, the others kExchangeBytes apart each. Valid until
// the lane's next but one Exchange in that group size. `what` names the collective in messages.
constexpr size_t kExchangeBytes = 512;
const std::byte* Exchange(const void* mine, size_t bytes, int size, const char* what);

void SyncThreads();
// Waits until `threads` lanes have come to barrier `id`.
void SyncNamed(int id, int threads);
// Counts as one of the `threads` lanes without waiting for the others.
void ArriveNamed(int id, int threads);
void SyncWarp();
// Lets other lanes run; for loops that wait for a word of shared memory to change.
void Yield();
void* DynamicShared();
float HalfBitsToFloat(uint16_t bits);
uint16_t FloatToHalfBits(float value);

// Bytes of dynamic shared memory that a launch may ask for; a test may make the card a smaller one.
inline size_t shared_limit = size_t{227} << 10;

struct StreamState;
void Launch(StreamState* stream, dim3 grid, dim3 block, size_t shared, std::function<void()> thread);

}  // namespace assay::gpu::emulator

#define threadIdx (::assay::gpu::emulator::CurrentLane().thread)
#define blockIdx (::assay::gpu::emulator::CurrentBlock().block)
#define blockDim (::assay::gpu::emulator::CurrentBlock().block_size)
#define gridDim (::assay::gpu::emulator::CurrentBlock().grid_size)

inline void __syncthreads() {
  ::assay::gpu::emulator::SyncThreads();
}

template <class T>
T __shfl(T value, int lane, int width) {
  namespace e = ::assay::gpu::emulator;
  const std::byte* all = e::Exchange(&value, sizeof value, ASSAY_GPU_EMULATED, "shuffle");
  const int mine = e::CurrentLane().index % ASSAY_GPU_EMULATED;
  const int from = mine / width * width + (lane & (width - 1));
  std::memcpy(&value, all + static_cast<size_t>(from) * e::kExchangeBytes, sizeof value);
  return value;
}
template <class T>
T __shfl_xor(T value, int mask, int width) {
  return __shfl(value, ::assay::gpu::emulator::CurrentLane().index ^ mask, width);
}
template <class T>
T __shfl_up(T value, int delta, int width) {
  const int lane = ::assay::gpu::emulator::CurrentLane().index & (width - 1);
  return __shfl(value, lane >= delta ? lane - delta : lane, width);
}

inline float __expf(float x) {
  return std::exp(x);
}
inline float __logf(float x) {
  return std::log(x);
}
inline float rsqrtf(float x) {
  return 1.0f / std::sqrt(x);
}
inline void sincospif(float x, float* sine, float* cosine) {
  constexpr double kPi = 3.14159265358979323846;
  *sine = static_cast<float>(std::sin(kPi * x));
  *cosine = static_cast<float>(std::cos(kPi * x));
}
inline int __clzll(long long bits) {
  return bits == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(bits));
}
inline float __fdividef(float x, float y) {
  return x / y;
}
inline float __int_as_float(int bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline int __float_as_int(float value) {
  int bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  return __int_as_float(static_cast<int>(bits));
}
inline unsigned __float_as_uint(float value) {
  return static_cast<unsigned>(__float_as_int(value));
}
template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
T atomicAdd(T* address, T value) {
  const T old = *address;
  *address = old + value;
  return old;
}
template <class T>
T atomicMax(T* address, T value) {
  const T old = *address;
  *address = old > value ? old : value;
  return old;
}
inline void __threadfence() {}

// ---- The runtime's calls that backends/cuda makes

enum emulatedError_t : int {
  emulatedSuccess = 0,
  emulatedErrorInvalidValue = 1,
  emulatedErrorMemoryAllocation = 2,
  // Beyond these, CUDA's own numbers.
};
enum emulatedMemcpyKind { emulatedMemcpyHostToDevice, emulatedMemcpyDeviceToHost, emulatedMemcpyDefault };
using emulatedStream_t = assay::gpu::emulator::StreamState*;
using emulatedEvent_t = struct EmulatedEvent*;
using emulatedGraph_t = struct EmulatedGraph*;
using emulatedGraphExec_t = struct EmulatedGraph*;

const char* emulatedGetErrorString(emulatedError_t error);
emulatedError_t emulatedGetLastError();
emulatedError_t emulatedSetDevice(int index);
emulatedError_t emulatedMalloc(void** address, size_t bytes);
emulatedError_t emulatedFree(void* address);
emulatedError_t emulatedMallocHost(void** address, size_t bytes);
emulatedError_t emulatedFreeHost(void* address);
emulatedError_t emulatedMemGetInfo(size_t* free, size_t* total);
emulatedError_t emulatedMemcpyAsync(void* to, const void* from, size_t bytes, emulatedMemcpyKind kind,
                                    emulatedStream_t stream);
emulatedError_t emulatedMemsetAsync(void* to, int value, size_t bytes, emulatedStream_t stream);
emulatedError_t emulatedStreamCreate(emulatedStream_t* stream);
emulatedError_t emulatedStreamDestroy(emulatedStream_t stream);
emulatedError_t emulatedStreamSynchronize(emulatedStream_t stream);
emulatedError_t emulatedStreamWaitEvent(emulatedStream_t stream, emulatedEvent_t event, unsigned flags);
emulatedError_t emulatedEventCreate(emulatedEvent_t* event);
emulatedError_t emulatedEventDestroy(emulatedEvent_t event);
emulatedError_t emulatedEventRecord(emulatedEvent_t event, emulatedStream_t stream);
emulatedError_t emulatedEventSynchronize(emulatedEvent_t event);
emulatedError_t emulatedEventElapsedTime(float* ms, emulatedEvent_t begin, emulatedEvent_t end);
emulatedError_t emulatedStreamBeginCapture(emulatedStream_t stream);
emulatedError_t emulatedStreamEndCapture(emulatedStream_t stream, emulatedGraph_t* graph);
emulatedError_t emulatedGraphLaunch(emulatedGraphExec_t graph, emulatedStream_t stream);
emulatedError_t emulatedGraphDestroy(emulatedGraph_t graph);
