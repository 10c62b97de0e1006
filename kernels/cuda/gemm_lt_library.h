// SPDX-License-Identifier: Apache-2.0
// What gemm_lt.cc takes from cuBLASLt, as a table of functions: filled from the library, or by a test.
#pragma once

#include <cublasLt.h>

#include <functional>
#include <memory>
#include <string>

#include "kernels/cuda/gemm_lt.h"

namespace assay::gpu {

struct LtLibrary {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulAlgoCheck) check;
  decltype(&cublasLtMatmul) matmul;
  size_t version;
};

// Seconds that one run of `work` takes on the stream, or negative if it failed.
using LtMeasure = std::function<double(const std::function<bool()>& work, gpuStream stream)>;

std::unique_ptr<GemmLt> MakeGemmLt(const LtLibrary& library, const LtOptions& options, LtMeasure measure,
                                   std::string* why);

}  // namespace assay::gpu
