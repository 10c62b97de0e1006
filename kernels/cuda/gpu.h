// SPDX-License-Identifier: Apache-2.0
// The one place that knows which GPU toolkit compiles the kernels: CUDA, HIP (AMD; Hygon's DTK is the same dialect), or
// the emulator of the tests, which runs kernels on the CPU. Everything else in this folder is written against the names
// below, in C++17, without inline assembly, and without asking which architecture it is compiled for; what only one
// architecture has lies in files with its suffix (_sm80, _sm90).
//
// Rules for a kernel
//   - blocks of at most 256 threads unless a leaf file says otherwise; warps are kWarp wide (32, 64 or 128);
//   - the first statement is WaitForPrevious(): launches overlap with their predecessor (see Launch);
//   - shuffles are called by all lanes of a warp together; no ballots, no masks;
//   - dynamic shared memory through DynamicShared<T>(); static through __shared__ with __align__.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(ASSAY_GPU_EMULATED)
#include <gpu_emulator.h>
#elif defined(__HIPCC__) || defined(__HIP_PLATFORM_AMD__)
#include <hip/hip_fp16.h>
#include <hip/hip_runtime.h>
#define ASSAY_GPU_HIP 1
#else
#include <cuda_runtime.h>
#define ASSAY_GPU_CUDA 1
#endif

// What a target has beyond the portable set.
#if defined(ASSAY_GPU_CUDA)
#define GPU_HAS_BLASLT 1  // gemm_lt.h
#define GPU_HAS_SM80 1    // leaf files for tensor cores; each asks at run time whether the card has them
#define GPU_HAS_SM90 1
#elif defined(ASSAY_GPU_EMULATED)
#define GPU_HAS_BLASLT 0
#define GPU_HAS_SM80 (ASSAY_GPU_EMULATED == 32)  // the emulator knows these instructions; warps are 32 wide there
#define GPU_HAS_SM90 (ASSAY_GPU_EMULATED == 32)
#else
#define GPU_HAS_BLASLT 0
#define GPU_HAS_SM80 0
#define GPU_HAS_SM90 0
#endif

// ---- The runtime's calls, by names of our own

#if defined(ASSAY_GPU_CUDA)
#define GPU_API(name) cuda##name
#elif defined(ASSAY_GPU_HIP)
#define GPU_API(name) hip##name
#else
#define GPU_API(name) emulated##name
#endif

using gpuError = GPU_API(Error_t);
using gpuStream = GPU_API(Stream_t);
using gpuEvent = GPU_API(Event_t);
using gpuGraph = GPU_API(Graph_t);
using gpuGraphExec = GPU_API(GraphExec_t);

namespace assay::gpu {

constexpr gpuError kGpuSuccess = GPU_API(Success);

// Whether launches may overlap with their predecessor: set once a device is known to have it (sm_90 and later).
inline bool& OverlappedLaunch() {
  static bool enabled = false;
  return enabled;
}

}  // namespace assay::gpu

// ---- What kernels use; only where kernels are compiled

#if defined(__CUDACC__) || defined(__HIPCC__) || defined(ASSAY_GPU_EMULATED)

// Before a loop: unroll it wholly (so that its arrays lie in registers).
#if defined(ASSAY_GPU_EMULATED)
#define GPU_UNROLL
#else
#define GPU_UNROLL _Pragma("unroll")
#endif

namespace assay::gpu {

#if defined(ASSAY_GPU_EMULATED)
constexpr int kWarp = ASSAY_GPU_EMULATED;
#elif defined(ASSAY_GPU_HIP)
#if defined(__AMDGCN_WAVEFRONT_SIZE)
constexpr int kWarp = __AMDGCN_WAVEFRONT_SIZE;
#else
constexpr int kWarp = 64;  // the host's pass over the same file; gfx9 has no other width
#endif
#else
constexpr int kWarp = 32;
#endif

// Begins every kernel: with overlapped launches the block may have started before its predecessor in the stream has
// finished. Nothing that an earlier kernel writes may be read, and nothing written, before it. (Weights may be read.)
__device__ __forceinline__ void WaitForPrevious() {
#if defined(ASSAY_GPU_CUDA) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Lets the next kernel of the stream start its blocks wherever there is room; it still waits in WaitForPrevious for the
// whole of this one. To be called by every thread, early, in kernels that leave room on the device.
__device__ __forceinline__ void StartNext() {
#if defined(ASSAY_GPU_CUDA) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Exchanges within groups of `width` neighbouring lanes, a power of two of at most kWarp.
template <class T>
__device__ __forceinline__ T ShuffleXor(T value, int mask, int width = kWarp) {
#if defined(ASSAY_GPU_CUDA)
  return __shfl_xor_sync(0xffffffffu, value, mask, width);
#else
  return __shfl_xor(value, mask, width);
#endif
}
template <class T>
__device__ __forceinline__ T Shuffle(T value, int lane, int width = kWarp) {
#if defined(ASSAY_GPU_CUDA)
  return __shfl_sync(0xffffffffu, value, lane, width);
#else
  return __shfl(value, lane, width);
#endif
}
template <class T>
__device__ __forceinline__ T ShuffleUp(T value, int delta, int width = kWarp) {
#if defined(ASSAY_GPU_CUDA)
  return __shfl_up_sync(0xffffffffu, value, delta, width);
#else
  return __shfl_up(value, delta, width);
#endif
}
__device__ __forceinline__ void SyncWarp() {
#if defined(ASSAY_GPU_CUDA)
  __syncwarp();
#elif defined(ASSAY_GPU_EMULATED)
  emulator::SyncWarp();
#else
  __builtin_amdgcn_wave_barrier();
#endif
}

// Shared memory whose size the launch gives, aligned to 1024 bytes (what swizzled tiles need).
template <class T>
__device__ __forceinline__ T* DynamicShared() {
#if defined(ASSAY_GPU_EMULATED)
  return static_cast<T*>(emulator::DynamicShared());
#else
  extern __shared__ __align__(1024) unsigned char gpu_dynamic_shared[];
  return reinterpret_cast<T*>(gpu_dynamic_shared);
#endif
}

// The bits of an IEEE half to float. Exact, subnormals included.
__device__ __forceinline__ float HalfBitsToFloat(uint16_t bits) {
#if defined(ASSAY_GPU_CUDA)
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
#elif defined(ASSAY_GPU_EMULATED)
  return emulator::HalfBitsToFloat(bits);
#else
  return __half2float(__ushort_as_half(bits));
#endif
}
// Round to nearest, ties to even.
__device__ __forceinline__ uint16_t FloatToHalfBits(float value) {
#if defined(ASSAY_GPU_CUDA)
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
#elif defined(ASSAY_GPU_EMULATED)
  return emulator::FloatToHalfBits(value);
#else
  return __half_as_ushort(__float2half_rn(value));
#endif
}

// Two floats to bf16, round to nearest, ties to even, NaN stays NaN: low in bits 0..15, high in bits 16..31.
__device__ __forceinline__ uint32_t FloatsToBf16Bits(float low, float high) {
#if defined(ASSAY_GPU_CUDA)
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
#else
  uint32_t half[2] = {__float_as_uint(low), __float_as_uint(high)};
  for (uint32_t& bits : half) {
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    bits = is_nan ? bits >> 16 | 0x40u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  }
  return half[0] | half[1] << 16;
#endif
}

// sum of a[i] * b[i] over four signed bytes, plus c.
__device__ __forceinline__ int Dot4(uint32_t a, uint32_t b, int c) {
#if defined(ASSAY_GPU_CUDA)
  return __dp4a(static_cast<int>(a), static_cast<int>(b), c);
#else
  for (int i = 0; i < 32; i += 8) c += static_cast<int8_t>(a >> i) * static_cast<int8_t>(b >> i);
  return c;
#endif
}

#if defined(ASSAY_GPU_CUDA)
// Allows a kernel all the dynamic shared memory of the device, for which it must have none of its own. Not just what a
// launch wants: sizes differ from launch to launch, and a recorded one must not find the limit of a later, smaller one.
template <class... Params>
void AllowShared(void (*kernel)(Params...)) {
  int device = 0, most = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
}
#endif

// Launches on a stream; errors are the runtime's last error. `shared`: bytes of dynamic shared memory. With
// OverlappedLaunch the kernel starts before its predecessor in the stream has drained (programmatic dependent launch).
template <class... Params, class... Args>
void Launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared, gpuStream stream, Args... args) {
#if defined(ASSAY_GPU_CUDA)
  constexpr size_t kWithoutAsking = 48 << 10;
  if (shared > kWithoutAsking) AllowShared(kernel);
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = OverlappedLaunch() ? 1 : 0;
  cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
#elif defined(ASSAY_GPU_EMULATED)
  emulator::Launch(stream, grid, block, shared, [=] { kernel(static_cast<Params>(args)...); });
#else
  hipLaunchKernelGGL(kernel, grid, block, static_cast<uint32_t>(shared), stream, static_cast<Params>(args)...);
#endif
}

}  // namespace assay::gpu

#endif  // kernels are compiled
