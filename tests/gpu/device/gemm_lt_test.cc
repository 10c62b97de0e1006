// SPDX-License-Identifier: Apache-2.0
// What is asked of cuBLASLt, by a table of functions that stands for it: no card and no library are needed, only CUDA's
// headers (therefore not compiled with the emulator).
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <vector>

#include "kernels/cuda/gemm_lt_library.h"

namespace assay::gpu {
namespace {

// What the stand-in was told. Descriptors are numbers.
struct Told {
  struct Layout {
    cudaDataType type;
    uint64_t rows, cols;
    int64_t stride;
  };
  std::vector<Layout> layouts;
  std::map<int, std::vector<uint8_t>> attributes;  // of products, by name
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  int live = 0, heuristics = 0, proposals = 3;
  std::vector<uint64_t> run;  // algorithms
  const void *a = nullptr, *b = nullptr;
};
Told told;
constexpr cublasStatus_t kOk = CUBLAS_STATUS_SUCCESS;

template <class Handle>
cublasStatus_t Make(Handle* handle) {
  ++told.live;
  *handle = reinterpret_cast<Handle>(uintptr_t{16});
  return kOk;
}
cublasStatus_t Drop() {
  --told.live;
  return kOk;
}

LtLibrary StandIn(size_t version) {
  LtLibrary l{};
  l.version = version;
  l.create = [](cublasLtHandle_t* handle) { return Make(handle); };
  l.destroy = [](cublasLtHandle_t) { return Drop(); };
  l.desc_create = [](cublasLtMatmulDesc_t* desc, cublasComputeType_t compute, cudaDataType_t) {
    told.compute = compute;
    return Make(desc);
  };
  l.desc_destroy = [](cublasLtMatmulDesc_t) { return Drop(); };
  l.desc_set = [](cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t name, const void* value, size_t bytes) {
    const auto* from = static_cast<const uint8_t*>(value);
    told.attributes[name].assign(from, from + bytes);
    return kOk;
  };
  l.layout_create = [](cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows, uint64_t cols,
                       int64_t stride) {
    told.layouts.push_back({type, rows, cols, stride});
    return Make(layout);
  };
  l.layout_destroy = [](cublasLtMatrixLayout_t) { return Drop(); };
  l.preference_create = [](cublasLtMatmulPreference_t* preference) { return Make(preference); };
  l.preference_destroy = [](cublasLtMatmulPreference_t) { return Drop(); };
  l.preference_set = [](cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t, const void*, size_t) {
    return kOk;
  };
  l.heuristic = [](cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                   cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatmulPreference_t, int most,
                   cublasLtMatmulHeuristicResult_t results[], int* found) {
    ++told.heuristics;
    *found = std::min(most, told.proposals);
    for (int i = 0; i < *found; ++i) {
      results[i] = {};
      results[i].algo.data[0] = static_cast<uint64_t>(i) + 1;
    }
    return *found > 0 ? kOk : CUBLAS_STATUS_NOT_SUPPORTED;
  };
  l.check = [](cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
               cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t*,
               cublasLtMatmulHeuristicResult_t* result) {
    *result = {};
    return kOk;
  };
  l.matmul = [](cublasLtHandle_t, cublasLtMatmulDesc_t, const void*, const void* a, cublasLtMatrixLayout_t,
                const void* b, cublasLtMatrixLayout_t, const void*, const void*, cublasLtMatrixLayout_t, void*,
                cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t* algorithm, void*, size_t, cudaStream_t) {
    told.run.push_back(algorithm->data[0]);
    told.a = a;
    told.b = b;
    return kOk;
  };
  return l;
}

// Algorithm 2 is the fastest, 1 fails.
double Measure(const std::function<bool()>& work, gpuStream) {
  EXPECT_TRUE(work());
  const uint64_t algorithm = told.run.back();
  return algorithm == 1 ? -1 : algorithm == 2 ? 0.5 : 0.75;
}

class GemmLtTest : public testing::Test {
 protected:
  void SetUp() override {
    told = {};
    std::string name = (std::filesystem::temp_directory_path() / "gemm_lt_XXXXXX").string();
    folder_ = mkdtemp(name.data());
    setenv("XDG_CACHE_HOME", folder_.c_str(), 1);
  }
  void TearDown() override {
    EXPECT_EQ(told.live, 0) << "something of the library was not given back";
    std::filesystem::remove_all(folder_);
  }
  std::unique_ptr<GemmLt> Open(size_t version = 130100) {
    std::string why;
    return MakeGemmLt(StandIn(version), {"card", "driver", nullptr}, Measure, &why);
  }
  std::string folder_;
  const LtProduct product_{DType::kBF16, DType::kBF16, 100, 64, 48, 56, 50, 72};
};

TEST_F(GemmLtTest, ARowMajorProductIsTheTransposedOneOfTheLibrary) {
  const auto lt = Open();
  LtOperands operands;
  operands.x = &operands;
  operands.w = &told;
  ASSERT_TRUE(lt->Multiply(product_, operands, nullptr));
  ASSERT_EQ(told.layouts.size(), 3u);
  const auto& [w, x, y] = std::tie(told.layouts[0], told.layouts[1], told.layouts[2]);
  EXPECT_EQ(std::tuple(w.type, w.rows, w.cols, w.stride), std::tuple(CUDA_R_16BF, 48u, 64u, 50));
  EXPECT_EQ(std::tuple(x.type, x.rows, x.cols, x.stride), std::tuple(CUDA_R_16BF, 48u, 100u, 56));
  EXPECT_EQ(std::tuple(y.type, y.rows, y.cols, y.stride), std::tuple(CUDA_R_16BF, 64u, 100u, 72));
  EXPECT_EQ(told.a, &told);
  EXPECT_EQ(told.b, &operands);
  cublasOperation_t transposed = CUBLAS_OP_N;
  std::memcpy(&transposed, told.attributes[CUBLASLT_MATMUL_DESC_TRANSA].data(), sizeof transposed);
  EXPECT_EQ(transposed, CUBLAS_OP_T);
}

TEST_F(GemmLtTest, F32IsNotRounded) {
  LtProduct product = product_;
  product.operands = product.y = DType::kF32;
  EXPECT_TRUE(Open()->Has(product));
  EXPECT_EQ(told.compute, CUBLAS_COMPUTE_32F_PEDANTIC);
}

TEST_F(GemmLtTest, TheLibraryIsAskedOncePerProduct) {
  const auto lt = Open();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(lt->Multiply(product_, {}, nullptr));
  EXPECT_EQ(told.heuristics, 1);
  EXPECT_EQ(told.run, (std::vector<uint64_t>{1, 1, 1}));
}

TEST_F(GemmLtTest, TheFastestIsKeptForTheNextRun) {
  Open()->Tune(product_, {}, nullptr);
  told.run.clear();
  const auto lt = Open();
  lt->Tune(product_, {}, nullptr);
  EXPECT_TRUE(told.run.empty()) << "measured again";
  EXPECT_TRUE(lt->Multiply(product_, {}, nullptr));
  EXPECT_EQ(told.run, std::vector<uint64_t>{2});
}

TEST_F(GemmLtTest, WithoutAnAlgorithmNothingIsEnqueued) {
  told.proposals = 0;
  const auto lt = Open();
  EXPECT_FALSE(lt->Has(product_));
  EXPECT_FALSE(lt->Multiply(product_, {}, nullptr));
  EXPECT_TRUE(told.run.empty());
}

TEST_F(GemmLtTest, Int8SumsWholeNumbers) {
  const LtProduct product{DType::kI8, DType::kI32, 64, 64, 256, 256, 256, 64};
  int32_t factor = 0, kept = 1;
  LtLibrary library = StandIn(130100);
  static int32_t* to[2];
  to[0] = &factor, to[1] = &kept;
  library.matmul = [](cublasLtHandle_t, cublasLtMatmulDesc_t, const void* alpha, const void*, cublasLtMatrixLayout_t,
                      const void*, cublasLtMatrixLayout_t, const void* beta, const void*, cublasLtMatrixLayout_t, void*,
                      cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t*, void*, size_t, cudaStream_t) {
    std::memcpy(to[0], alpha, sizeof(int32_t));
    std::memcpy(to[1], beta, sizeof(int32_t));
    return kOk;
  };
  std::string why;
  const auto lt = MakeGemmLt(library, {"card", "driver", nullptr}, Measure, &why);
  ASSERT_TRUE(lt->Multiply(product, {}, nullptr));
  EXPECT_EQ(told.compute, CUBLAS_COMPUTE_32I);
  EXPECT_EQ(std::tuple(told.layouts[0].type, told.layouts[1].type, told.layouts[2].type),
            std::tuple(CUDA_R_8I, CUDA_R_8I, CUDA_R_32I));
  EXPECT_EQ(std::pair(factor, kept), std::pair(1, 0));
}

TEST_F(GemmLtTest, F8MayHaveAScalePerRowOrNone) {
  LtProduct product{DType::kF8_E4M3, DType::kF32, 64, 64, 256, 256, 256, 64};
  EXPECT_TRUE(Open(120800)->Has(product));
  EXPECT_EQ(told.attributes.count(CUBLASLT_MATMUL_DESC_A_SCALE_MODE), 0u);
  product.row_scales = true;
  EXPECT_FALSE(Open(120800)->Has(product)) << "a library that has no such scales";
  EXPECT_TRUE(Open(120900)->Has(product));
  for (const int name : {CUBLASLT_MATMUL_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_DESC_B_SCALE_MODE}) {
    EXPECT_EQ(told.attributes[name].at(0), CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
  }
  EXPECT_EQ(told.layouts[0].type, CUDA_R_8F_E4M3);
}

TEST_F(GemmLtTest, F8NeedsScalesPerBlock) {
  const LtProduct product{DType::kF8_B128, DType::kBF16, 64, 64, 256, 256, 256, 64};
  EXPECT_FALSE(Open(120800)->Has(product)) << "a library that has no such scales";
  const auto lt = Open(120900);
  const float scales[2] = {};
  LtOperands operands;
  operands.w_scales = &scales[0];
  operands.x_scales = &scales[1];
  ASSERT_TRUE(lt->Multiply(product, operands, nullptr));
  const auto told_to = [](int name) {
    const void* address = nullptr;
    std::memcpy(&address, told.attributes[name].data(), told.attributes[name].size());
    return address;
  };
  EXPECT_EQ(told_to(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER), &scales[0]);
  EXPECT_EQ(told_to(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER), &scales[1]);
  for (const int name : {CUBLASLT_MATMUL_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_DESC_B_SCALE_MODE}) {
    EXPECT_EQ(told.attributes[name].at(0), CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F);
  }
}

}  // namespace
}  // namespace assay::gpu
