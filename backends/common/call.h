// SPDX-License-Identifier: Apache-2.0
// One operation of the ABI, checked and resolved to pointers: what the project's own backends do with the arguments of
// supports, workspace_size and enqueue. ReadCall may throw Failure; a call that was read cannot fail for its arguments.
// A Call owns nothing.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>

#include "backends/api/assay_backend.h"
#include "kernels/attributes.h"
#include "kernels/view.h"

namespace assay::backend {

// What lies behind a buffer's handle. Each backend's assay_buffer_s begins with it.
struct Memory {
  char* data = nullptr;
  uint64_t bytes = 0;
  // What weight_pack put where: the layout of a packed weight depends on more than its tensor says.
  std::map<uint64_t, WeightSpec> weights;
};

// What a device takes, where the ABI leaves that to it.
struct Rules {
  std::initializer_list<DType> act;      // one of them in all activations of a call
  std::initializer_list<DType> weights;  // of packed weights
  int64_t max_head_dim;
  const char* (*weight_unsupported)(const WeightSpec&);  // null, or why this weight cannot be run
  bool any_compute;                                      // a packed weight serves every `compute`
  const Memory& (*memory)(assay_buffer);
  bool collectives;  // all_reduce and all_gather are the device's own
};

struct Call {
  assay_op op = ASSAY_OP_NONE;
  View in[8];
  View out[3];
  float eps = 0;
  float alpha = 0, beta = 0;
  GluAct act = GluAct::kSilu;
  KvAttr kv;
  AttnAttr attn;
  RopeAttr rope;
  WeightSpec weight;          // linear, embed
  assay_comm comm = nullptr;  // all_reduce, all_gather
};

// `resolve`: the tensors have buffers (enqueue); otherwise only dtypes and shapes are looked at (supports).
Call ReadCall(const Rules& rules, const assay_op_desc* desc, const assay_args* args, bool resolve);

// A weight that is to be packed; throws Failure if its shape or dtype is not the device's.
WeightSpec ReadWeight(const Rules& rules, const assay_weight_desc* desc);
// The scales of its rows, null for a dtype that has none; throws Failure if they are missing.
const float* ReadScales(const WeightSpec& spec, const assay_weight_desc* desc);

// `bytes` bytes at `offset` of a buffer; throws Failure if they reach beyond it.
char* Range(const Memory& memory, uint64_t offset, uint64_t bytes);

// Bytes of [rows, cols] row-major, as the ABI defines the dtype; cols is whole blocks.
uint64_t PlainBytes(DType dtype, int64_t rows, int64_t cols);

const char* NameOf(DType dtype);

}  // namespace assay::backend
