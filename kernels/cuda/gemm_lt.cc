// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/gemm_lt.h"

#include <dlfcn.h>

#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "kernels/cuda/gemm_cache.h"
#include "kernels/cuda/gemm_lt_library.h"

namespace assay::gpu {
namespace {

constexpr size_t kFirstWithVectorsOfScales = 120900;  // for every row, or every 128 columns of it
constexpr int kProposals = 8;
constexpr size_t kMostPlans = 4096;  // lengths of prompts are many; beyond, plans are made anew
static_assert(sizeof(cublasLtMatmulAlgo_t) == sizeof(LtAlgorithm), "an algorithm is eight words");

// Stands for scales while algorithms are asked for: only its alignment is looked at.
const void* const kSomeAddress = reinterpret_cast<const void*>(uintptr_t{256});

cudaDataType_t DataType(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return CUDA_R_16BF;
    case DType::kF16:
      return CUDA_R_16F;
    case DType::kF8_B128:
    case DType::kF8_E4M3:
      return CUDA_R_8F_E4M3;
    case DType::kI8:
      return CUDA_R_8I;
    case DType::kI32:
      return CUDA_R_32I;
    default:
      return CUDA_R_32F;
  }
}

bool HasScales(const LtProduct& p) {
  return p.operands == DType::kF8_B128 || p.row_scales;
}

// Descriptors of a product and the algorithm for it. Row-major y = x * w^T is, column-major, y^T = w * x^T: the
// library's A is w, transposed, B is x.
class Plan {
 public:
  Plan(const LtLibrary& library, const LtProduct& p) : library_(library) {
    whole_ = p.operands == DType::kI8;
    const cublasComputeType_t compute = whole_                      ? CUBLAS_COMPUTE_32I
                                        : p.operands == DType::kF32 ? CUBLAS_COMPUTE_32F_PEDANTIC
                                                                    : CUBLAS_COMPUTE_32F;
    const cudaDataType_t in = DataType(p.operands);
    made_ = Ok(library.desc_create(&desc_, compute, whole_ ? CUDA_R_32I : CUDA_R_32F)) &&
            Layout(&w_, in, p.k, p.n, p.w_stride) && Layout(&x_, in, p.k, p.m, p.x_stride) &&
            Layout(&y_, DataType(p.y), p.n, p.m, p.y_stride) && Set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    if (made_ && HasScales(p)) {
      const cublasLtMatmulMatrixScale_t mode =
          p.row_scales ? CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F : CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;
      made_ = Set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, mode) && Set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, mode) &&
              SetScales(kSomeAddress, kSomeAddress);
      scaled_ = true;
    }
  }
  ~Plan() {
    if (desc_ != nullptr) library_.desc_destroy(desc_);
    for (const cublasLtMatrixLayout_t layout : {w_, x_, y_}) {
      if (layout != nullptr) library_.layout_destroy(layout);
    }
  }
  Plan(const Plan&) = delete;

  // The library's proposals, the one that it thinks fastest first.
  std::vector<cublasLtMatmulAlgo_t> Propose(cublasLtHandle_t handle, int most) const {
    cublasLtMatmulPreference_t preference = nullptr;
    if (!made_ || !Ok(library_.preference_create(&preference))) return {};
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t name, auto value) {
      return Ok(library_.preference_set(preference, name, &value, sizeof value));
    };
    constexpr uint32_t kAlignment = 16;
    std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<size_t>(most));
    int found = 0;
    const bool asked = prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kLtWorkspaceBytes}) &&
                       prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, kAlignment) &&
                       prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, kAlignment) &&
                       prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, kAlignment) &&
                       prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, kAlignment) &&
                       Ok(library_.heuristic(handle, desc_, w_, x_, y_, y_, preference, most, results.data(), &found));
    library_.preference_destroy(preference);
    std::vector<cublasLtMatmulAlgo_t> proposals;
    for (int i = 0; asked && i < found; ++i) {
      if (Ok(results[static_cast<size_t>(i)].state)) proposals.push_back(results[static_cast<size_t>(i)].algo);
    }
    return proposals;
  }
  // Whether an algorithm from a file does this product.
  bool Takes(cublasLtHandle_t handle, const cublasLtMatmulAlgo_t& algorithm) const {
    cublasLtMatmulHeuristicResult_t result{};
    return made_ && Ok(library_.check(handle, desc_, w_, x_, y_, y_, &algorithm, &result)) && Ok(result.state) &&
           result.workspaceSize <= kLtWorkspaceBytes;
  }
  bool Run(cublasLtHandle_t handle, const cublasLtMatmulAlgo_t& algorithm, const LtOperands& o, gpuStream stream) {
    const float one = 1, zero = 0;
    const int32_t whole_one = 1, whole_zero = 0;
    const void* const factor = whole_ ? static_cast<const void*>(&whole_one) : &one;
    const void* const kept = whole_ ? static_cast<const void*>(&whole_zero) : &zero;
    if (scaled_ && !SetScales(o.w_scales, o.x_scales)) return false;
    return Ok(library_.matmul(handle, desc_, factor, o.w, w_, o.x, x_, kept, o.y, y_, o.y, y_, &algorithm, o.workspace,
                              kLtWorkspaceBytes, stream));
  }

  bool has_algorithm = false;
  cublasLtMatmulAlgo_t algorithm{};

 private:
  static bool Ok(cublasStatus_t status) { return status == CUBLAS_STATUS_SUCCESS; }
  bool Layout(cublasLtMatrixLayout_t* layout, cudaDataType_t type, int64_t rows, int64_t cols, int64_t stride) {
    return Ok(library_.layout_create(layout, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), stride));
  }
  bool SetScales(const void* w, const void* x) {
    return Set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, w) && Set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, x);
  }
  template <class T>
  bool Set(cublasLtMatmulDescAttributes_t name, T value) {
    return Ok(library_.desc_set(desc_, name, &value, sizeof value));
  }

  const LtLibrary& library_;
  bool made_ = false, scaled_ = false, whole_ = false;  // whole numbers
  cublasLtMatmulDesc_t desc_ = nullptr;
  cublasLtMatrixLayout_t w_ = nullptr, x_ = nullptr, y_ = nullptr;
};

class CublasLt : public GemmLt {
 public:
  CublasLt(const LtLibrary& library, cublasLtHandle_t handle, const LtOptions& options, LtMeasure measure)
      : library_(library),
        handle_(handle),
        measure_(std::move(measure)),
        cache_(GemmCacheFile(options.device, options.driver), library.version, options.log) {}
  ~CublasLt() override {
    plans_.clear();
    library_.destroy(handle_);
  }

  bool Has(const LtProduct& product) override { return PlanOf(product).has_algorithm; }

  bool Multiply(const LtProduct& product, const LtOperands& operands, gpuStream stream) override {
    Plan& plan = PlanOf(product);
    return plan.has_algorithm && plan.Run(handle_, plan.algorithm, operands, stream);
  }

  void Tune(const LtProduct& product, const LtOperands& operands, gpuStream stream) override {
    if (cache_.Find(product) != nullptr) return;
    Plan& plan = PlanOf(product);
    double best = -1;
    for (const cublasLtMatmulAlgo_t& algorithm : plan.Propose(handle_, kProposals)) {
      const auto run = [&] { return plan.Run(handle_, algorithm, operands, stream); };
      const double seconds = measure_(run, stream);
      if (seconds < 0 || (best >= 0 && seconds >= best)) continue;
      best = seconds;
      plan.algorithm = algorithm;
    }
    if (best < 0) return;
    LtAlgorithm words;
    std::memcpy(words.data(), &plan.algorithm, sizeof words);
    cache_.Store(product, words);
  }

 private:
  Plan& PlanOf(const LtProduct& product) {
    const auto found = plans_.find(product);
    if (found != plans_.end()) return *found->second;
    if (plans_.size() >= kMostPlans) plans_.clear();
    auto plan = std::make_unique<Plan>(library_, product);
    if (!HasScales(product) || library_.version >= kFirstWithVectorsOfScales) Choose(product, plan.get());
    return *(plans_[product] = std::move(plan));
  }
  void Choose(const LtProduct& product, Plan* plan) {
    if (const LtAlgorithm* known = cache_.Find(product)) {
      std::memcpy(&plan->algorithm, known->data(), sizeof plan->algorithm);
      plan->has_algorithm = plan->Takes(handle_, plan->algorithm);
      if (plan->has_algorithm) return;
    }
    const std::vector<cublasLtMatmulAlgo_t> proposals = plan->Propose(handle_, 1);
    plan->has_algorithm = !proposals.empty();
    if (plan->has_algorithm) plan->algorithm = proposals[0];
  }

  const LtLibrary library_;
  const cublasLtHandle_t handle_;
  const LtMeasure measure_;
  GemmCache cache_;
  std::map<LtProduct, std::unique_ptr<Plan>, LtProductLess> plans_;
};

// The fastest of a few runs after one that warms up.
double MeasureOnDevice(const std::function<bool()>& work, gpuStream stream) {
  constexpr int kRuns = 4;
  gpuEvent begin = nullptr, end = nullptr;
  double best = -1;
  bool ok = cudaEventCreate(&begin) == kGpuSuccess && cudaEventCreate(&end) == kGpuSuccess && work();
  for (int i = 0; ok && i < kRuns; ++i) {
    float ms = 0;
    ok = cudaEventRecord(begin, stream) == kGpuSuccess && work() && cudaEventRecord(end, stream) == kGpuSuccess &&
         cudaEventSynchronize(end) == kGpuSuccess && cudaEventElapsedTime(&ms, begin, end) == kGpuSuccess;
    if (ok && (best < 0 || ms * 1e-3 < best)) best = ms * 1e-3;
  }
  if (begin != nullptr) cudaEventDestroy(begin);
  if (end != nullptr) cudaEventDestroy(end);
  return ok ? best : -1;
}

template <class Function>
bool Resolve(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  return *function != nullptr;
}

}  // namespace

std::unique_ptr<GemmLt> MakeGemmLt(const LtLibrary& library, const LtOptions& options, LtMeasure measure,
                                   std::string* why) {
  cublasLtHandle_t handle = nullptr;
  const cublasStatus_t status = library.create(&handle);
  if (status != CUBLAS_STATUS_SUCCESS) {
    *why = "cublasLtCreate failed with status " + std::to_string(static_cast<int>(status));
    return nullptr;
  }
  return std::make_unique<CublasLt>(library, handle, options, std::move(measure));
}

std::unique_ptr<GemmLt> OpenGemmLt(const LtOptions& options, std::string* why) {
  // Never closed: the library keeps threads and device state of its own.
  void* so = nullptr;
  for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12"}) {
    if (so == nullptr) so = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  }
  if (so == nullptr) {
    *why = "neither libcublasLt.so.13 nor libcublasLt.so.12 can be loaded: install cuBLAS of CUDA 13 or 12";
    return nullptr;
  }
  LtLibrary l{};
  decltype(&cublasLtGetVersion) version = nullptr;
  const bool whole = Resolve(so, "cublasLtGetVersion", &version) && Resolve(so, "cublasLtCreate", &l.create) &&
                     Resolve(so, "cublasLtDestroy", &l.destroy) &&
                     Resolve(so, "cublasLtMatmulDescCreate", &l.desc_create) &&
                     Resolve(so, "cublasLtMatmulDescDestroy", &l.desc_destroy) &&
                     Resolve(so, "cublasLtMatmulDescSetAttribute", &l.desc_set) &&
                     Resolve(so, "cublasLtMatrixLayoutCreate", &l.layout_create) &&
                     Resolve(so, "cublasLtMatrixLayoutDestroy", &l.layout_destroy) &&
                     Resolve(so, "cublasLtMatmulPreferenceCreate", &l.preference_create) &&
                     Resolve(so, "cublasLtMatmulPreferenceDestroy", &l.preference_destroy) &&
                     Resolve(so, "cublasLtMatmulPreferenceSetAttribute", &l.preference_set) &&
                     Resolve(so, "cublasLtMatmulAlgoGetHeuristic", &l.heuristic) &&
                     Resolve(so, "cublasLtMatmulAlgoCheck", &l.check) && Resolve(so, "cublasLtMatmul", &l.matmul);
  if (!whole) {
    *why = "libcublasLt lacks a function of the API of CUDA 12";
    return nullptr;
  }
  l.version = version();
  return MakeGemmLt(l, options, MeasureOnDevice, why);
}

}  // namespace assay::gpu
