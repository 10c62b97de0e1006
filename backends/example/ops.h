// SPDX-License-Identifier: Apache-2.0
// The operations of the example backend: plain loops over f32 activations. Arguments have been checked (backend.cc).
#pragma once

#include <assay/assay_backend.h>

#include <cstdint>

// What the handles of the ABI point to. A device is the process's own memory; a stream runs at once.
struct assay_buffer_s {
  uint8_t* data;
  uint64_t bytes;
};

namespace example {

// Element 0 of a tensor in host memory.
template <class T>
T* Data(const assay_tensor* t) {
  return reinterpret_cast<T*>(t->buffer->data + t->offset);
}

// Scratch that Run needs (see workspace_size in the header).
uint64_t ScratchBytes(const assay_op_desc* desc, const assay_args* args);
void Run(const assay_op_desc* desc, const assay_args* args, void* scratch);

// `n` elements of a weight's dtype, from `src` on, as f32. n is a multiple of 32 for block types.
void ToF32(assay_dtype dtype, const void* src, float* dst, int64_t n);
// Bytes of n such elements; 0 for a dtype that this backend has no weights of.
uint64_t WeightBytes(assay_dtype dtype, int64_t n);

}  // namespace example
