# SPDX-License-Identifier: Apache-2.0
# Finds the CUDA toolkit: CMAKE_CUDA_COMPILER is set afterwards where the CUDA backend is to be built. Sanitized builds do
# without: they see the same kernels through the emulator of the tests.
if(NOT ASSAY_CUDA OR ASSAY_SANITIZE)
  return()
endif()
find_program(nvcc nvcc HINTS $ENV{CUDA_HOME}/bin /usr/local/cuda/bin)
mark_as_advanced(nvcc)
if(NOT nvcc)
  message(STATUS "no CUDA toolkit (nvcc): the CUDA backend is not built; CUDA_HOME says where one is")
  return()
endif()
set(CMAKE_CUDA_COMPILER ${nvcc})
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80)  # for the compiler's own check; targets name theirs
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.9)  # block-scaled fp8 products, sm_100
  message(STATUS "the CUDA toolkit is ${CMAKE_CUDA_COMPILER_VERSION}, the CUDA backend needs 12.9: it is not built")
  unset(CMAKE_CUDA_COMPILER)
endif()
