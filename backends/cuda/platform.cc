// SPDX-License-Identifier: Apache-2.0
#include "backends/cuda/platform.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

namespace assay::backend_cuda {

using backend::Fail;

namespace {

bool Ok(gpuError error) {
  return error == gpu::kGpuSuccess;
}

// What an error means for the caller: ABI status by the runtime's code.
assay_status StatusOf(gpuError error) {
  switch (static_cast<int>(error)) {  // CUDA's numbers; HIP and the emulator use the same for these
    case 1:                           // invalid value
      return ASSAY_ERR_INTERNAL;
    case 2:  // memory allocation
      return ASSAY_ERR_NO_MEMORY;
    default:
      return ASSAY_ERR_DEVICE;
  }
}

// What a person can do about an error of the device, or "".
const char* Advice(gpuError error) {
  switch (static_cast<int>(error)) {
    case 46:  // devices unavailable
      return "; another process holds it exclusively, or it is in a prohibited compute mode";
    case 214:  // uncorrectable ECC error
    case 220:  // uncorrectable NVLink error
    case 226:  // contained: this process lost its context
      return "; the memory of this card is failing: look for Xid errors in the kernel log and drain the machine";
    case 700:  // illegal address
    case 702:  // launch timeout
    case 715:  // illegal instruction
    case 716:  // misaligned address
    case 719:  // launch failure
      return "; the kernel log says whether the card (Xid) or this program is at fault; the device is lost to this "
             "process";
    case 804:  // compat not supported
    case 803:  // system driver mismatch
      return "; the driver's libraries and its kernel module do not match: restart the machine";
    default:
      return "";
  }
}

}  // namespace

void Check(gpuError error, const char* what) {
  if (Ok(error)) return;
  static_cast<void>(GPU_API(GetLastError)());  // told now: a sticky error will come again by itself
  Fail(StatusOf(error), "%s: %s (%s error %d)%s", what, GPU_API(GetErrorString)(error), PlatformName(),
       static_cast<int>(error), Advice(error));
}

void CheckLaunches(const char* what) {
  Check(GPU_API(GetLastError)(), what);
}

void CopyAsync(void* to, const void* from, uint64_t bytes, Direction direction, gpuStream stream) {
  const auto kind = direction == Direction::kToDevice ? GPU_API(MemcpyHostToDevice)
                    : direction == Direction::kToHost ? GPU_API(MemcpyDeviceToHost)
                                                      : GPU_API(MemcpyDefault);  // buffers may be pinned host memory
  if (bytes > 0) Check(GPU_API(MemcpyAsync)(to, from, bytes, kind, stream), "copying");
}

void UseDevice(int index) {
  Check(GPU_API(SetDevice)(index), "choosing the device");
}

void UseDeviceToFree(int index) {
  static_cast<void>(GPU_API(SetDevice)(index));
}

#if defined(ASSAY_GPU_EMULATED)

const char* PlatformName() {
  return "emulated";
}

int CountDevices(std::string*) {
  return 1;
}

DeviceFacts ReadFacts(int, bool) {
  DeviceFacts facts;
  facts.name = "emulated GPU (on the CPU, for tests; its speed means nothing)";
  facts.detail = "warps of " + std::to_string(ASSAY_GPU_EMULATED);
  facts.processors = 4;
  facts.capability = ASSAY_GPU_EMULATED == 32 ? 90 : 0;
  size_t free = 0, total = 0;
  Check(emulatedMemGetInfo(&free, &total), "reading the free memory");
  facts.memory_bytes = total;
  facts.memory_free = free;
  return facts;
}

void* AllocatePinned(uint64_t bytes) {
  void* address = nullptr;
  Check(emulatedMallocHost(&address, bytes), "allocating pinned memory");
  return address;
}

void FreePinned(void* address) {
  static_cast<void>(emulatedFreeHost(address));
}

gpuStream CreateStream() {
  gpuStream stream = nullptr;
  Check(emulatedStreamCreate(&stream), "making a stream");
  return stream;
}

void BeginCapture(gpuStream stream) {
  Check(emulatedStreamBeginCapture(stream), "beginning to record");
}

gpuGraphExec EndCapture(gpuStream stream) {
  gpuGraph graph = nullptr;
  Check(emulatedStreamEndCapture(stream, &graph), "recording");
  return graph;
}

void DestroyGraph(gpuGraphExec graph) {
  static_cast<void>(emulatedGraphDestroy(graph));
}

#else

namespace {

void* HostMalloc(uint64_t bytes, gpuError* error) {
  void* address = nullptr;
#if defined(ASSAY_GPU_CUDA)
  *error = cudaMallocHost(&address, bytes);
#else
  *error = hipHostMalloc(&address, bytes, hipHostMallocDefault);
#endif
  return address;
}

#if defined(ASSAY_GPU_CUDA)
// "13.0" of 13000.
std::string Version(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

int DriverVersion() {
  int version = 0;
  return Ok(cudaDriverGetVersion(&version)) ? version : 0;
}
#endif

}  // namespace

const char* PlatformName() {
#if defined(ASSAY_GPU_CUDA)
  return "cuda";
#else
  return "hip";
#endif
}

int CountDevices(std::string* reason) {
#if defined(ASSAY_GPU_CUDA)
  // In the order of NVML and nvidia-smi, so that "cuda:1" is the same card to the meter. CUDA reads it once.
  static const int ordered = setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", /*overwrite=*/0);
  static_cast<void>(ordered);
#endif
  int count = 0;
  const gpuError error = GPU_API(GetDeviceCount)(&count);
  if (Ok(error)) {
    if (count == 0) *reason = "the driver sees no GPU";
    return count;
  }
  static_cast<void>(GPU_API(GetLastError)());
#if defined(ASSAY_GPU_CUDA)
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (driver == nullptr) {
    *reason = "no NVIDIA driver here (libcuda.so.1); in a container, docker needs --gpus all";
    return 0;
  }
  dlclose(driver);
  if (error == cudaErrorInsufficientDriver) {
    *reason = "the NVIDIA driver is too old: it runs CUDA " + Version(DriverVersion()) + ", this backend needs " +
              Version(CUDART_VERSION / 1000 * 1000) + " or later; update the driver";
    return 0;
  }
#endif
  *reason = std::string(GPU_API(GetErrorString)(error)) + Advice(error);
  return 0;
}

DeviceFacts ReadFacts(int index, bool in_use) {
#if defined(ASSAY_GPU_CUDA)
  cudaDeviceProp p{};
#else
  hipDeviceProp_t p{};
#endif
  Check(GPU_API(GetDeviceProperties)(&p, index), "reading the device's properties");
  DeviceFacts facts;
  facts.name = p.name;
  facts.processors = p.multiProcessorCount;
  facts.memory_bytes = p.totalGlobalMem;
  char pci[32];
  std::snprintf(pci, sizeof pci, "%08x:%02x:%02x.0", p.pciDomainID, p.pciBusID, p.pciDeviceID);
#if defined(ASSAY_GPU_CUDA)
  constexpr int kLeast = 80;  // bf16 in tensor cores, cp.async: what the kernels are built from
  facts.capability = p.major * 10 + p.minor;
  const std::string capability = std::to_string(p.major) + "." + std::to_string(p.minor);
  facts.driver = Version(DriverVersion());
  facts.detail = "compute capability " + capability + ", driver CUDA " + facts.driver + ", PCI " + pci;
  if (facts.capability < kLeast) {
    facts.too_old = facts.name + " (compute capability " + capability +
                    ") is too old: this backend needs 8.0 (A100, RTX 30) or later; choose --device cpu";
  }
#else
  facts.detail = std::string(p.gcnArchName) + ", PCI " + pci;
#endif
  if (in_use) {
    UseDevice(index);
    size_t free = 0, total = 0;
    Check(GPU_API(MemGetInfo)(&free, &total), "reading the free memory");
    facts.memory_free = free;
  }
  return facts;
}

void* AllocatePinned(uint64_t bytes) {
  gpuError error = gpu::kGpuSuccess;
  void* address = HostMalloc(bytes, &error);
  Check(error, "allocating pinned host memory");
  return address;
}

void FreePinned(void* address) {
#if defined(ASSAY_GPU_CUDA)
  static_cast<void>(cudaFreeHost(address));
#else
  static_cast<void>(hipHostFree(address));
#endif
}

gpuStream CreateStream() {
  gpuStream stream = nullptr;
  Check(GPU_API(StreamCreateWithFlags)(&stream, GPU_API(StreamNonBlocking)), "making a stream");
  return stream;
}

void BeginCapture(gpuStream stream) {
  Check(GPU_API(StreamBeginCapture)(stream, GPU_API(StreamCaptureModeThreadLocal)), "beginning to record");
}

gpuGraphExec EndCapture(gpuStream stream) {
  gpuGraph graph = nullptr;
  Check(GPU_API(StreamEndCapture)(stream, &graph), "recording");
  gpuGraphExec executable = nullptr;
#if defined(ASSAY_GPU_CUDA)
  const gpuError error = cudaGraphInstantiate(&executable, graph, 0);
#else
  const gpuError error = hipGraphInstantiate(&executable, graph, nullptr, nullptr, 0);
#endif
  static_cast<void>(GPU_API(GraphDestroy)(graph));
  Check(error, "making a recorded plan");
  return executable;
}

void DestroyGraph(gpuGraphExec graph) {
  static_cast<void>(GPU_API(GraphExecDestroy)(graph));
}

#endif

}  // namespace assay::backend_cuda
