// SPDX-License-Identifier: Apache-2.0
// A backend that is wrong on purpose: the built-in one behind a table whose enqueue spoils its work, in the way that
// the environment variable ASSAY_BROKEN names.
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "backends/api/assay_backend.h"

namespace {

assay_backend real;

std::string Fault() {
  const char* fault = std::getenv("ASSAY_BROKEN");
  return fault ? fault : "";
}

uint8_t* Address(const assay_tensor* t) {
  void* base = nullptr;
  real.buffer_map(t->buffer, &base, nullptr);
  return static_cast<uint8_t*>(base) + t->offset;
}

float* Floats(const assay_tensor* t) {
  return reinterpret_cast<float*>(Address(t));
}

assay_status Forward(assay_stream stream, const assay_op_desc* desc, const assay_args* args, assay_buffer workspace,
                     uint64_t offset, uint64_t bytes, const assay_host_lengths* lengths, assay_message* msg) {
  const assay_status status = real.enqueue(stream, desc, args, workspace, offset, bytes, lengths, msg);
  return status == ASSAY_OK ? real.stream_synchronize(stream, msg) : status;
}

assay_status Enqueue(assay_stream stream, const assay_op_desc* desc, const assay_args* args, assay_buffer workspace,
                     uint64_t offset, uint64_t bytes, const assay_host_lengths* lengths, assay_message* msg) {
  const std::string fault = Fault();
  const auto run = [&](const assay_op_desc* d, const assay_args* a) {
    return Forward(stream, d, a, workspace, offset, bytes, lengths, msg);
  };
  const assay_tensor* in[8] = {};
  for (uint32_t i = 0; i < args->n_in && i < 8; ++i) in[i] = args->in[i];
  assay_args changed = *args;
  changed.in = in;

  if (fault == "dropped_bias" && desc->op == ASSAY_OP_LINEAR) {
    in[2] = nullptr;
    return run(desc, &changed);
  }
  if (fault == "window_off_by_one" && desc->op == ASSAY_OP_ATTN_PAGED) {
    assay_attn_desc attn;
    std::memcpy(&attn, desc, sizeof(attn));
    if (attn.window > 0) ++attn.window;
    return run(reinterpret_cast<assay_op_desc*>(&attn), args);
  }
  if (fault == "attention_scale" && desc->op == ASSAY_OP_ATTN_PAGED) {
    assay_attn_desc attn;
    std::memcpy(&attn, desc, sizeof(attn));
    attn.scale *= 1.01f;
    return run(reinterpret_cast<assay_op_desc*>(&attn), args);
  }
  if (fault == "mask_off_by_one" && desc->op == ASSAY_OP_ATTN_PAGED) {  // each query sees one position too many
    auto* lens = reinterpret_cast<int32_t*>(Address(in[5]));
    for (int64_t s = 0; s < in[5]->shape[0]; ++s) ++lens[s];
    const assay_status status = run(desc, args);
    for (int64_t s = 0; s < in[5]->shape[0]; ++s) --lens[s];
    return status;
  }
  if (fault == "eps" && desc->op == ASSAY_OP_RMS_NORM) {
    assay_norm_desc norm;
    std::memcpy(&norm, desc, sizeof(norm));
    norm.eps = 0;
    return run(reinterpret_cast<assay_op_desc*>(&norm), args);
  }
  if (fault == "missing_row" && desc->op == ASSAY_OP_GLU) {
    assay_tensor x = *in[0], less = *args->out[0];
    x.shape[0] = less.shape[0] = less.shape[0] > 0 ? less.shape[0] - 1 : 0;
    const assay_tensor* out[1] = {&less};
    in[0] = &x;
    changed.out = out;
    return run(desc, &changed);
  }
  if (fault == "second_token" && desc->op == ASSAY_OP_SAMPLE) {  // every sampler draws one rank too far
    const assay_status status = run(desc, args);
    auto* ids = reinterpret_cast<int32_t*>(Address(args->out[0]));
    for (int64_t s = 0; s < args->out[0]->shape[0]; ++s) ids[s] = (ids[s] + 1) % static_cast<int32_t>(in[0]->shape[1]);
    return status;
  }

  const assay_status status = run(desc, args);
  const assay_tensor* y = args->out[0];
  const bool any = y->ndim == 2 && y->dtype == ASSAY_F32 && y->shape[0] > 0;
  if (!any) return status;
  float* last = Floats(y) + (y->shape[0] - 1) * y->stride[0] + y->shape[1] - 1;
  if (fault == "past_the_end") last[1] = 1.0f;
  if (fault == "modified_input" && in[0]->dtype == ASSAY_F32 && in[0] != y) Floats(in[0])[0] += 1.0f;
  static uint32_t calls = 0;
  if (fault == "not_repeatable") reinterpret_cast<uint32_t*>(last)[0] ^= ++calls & 1;
  if (fault == "half_precision" && desc->op == ASSAY_OP_LINEAR) {  // bf16 where f32 was asked for
    for (int64_t i = 0; i < y->shape[1]; ++i) reinterpret_cast<uint32_t*>(Floats(y))[i] &= 0xffff0000u;
  }
  return status;
}

assay_status Supports(assay_device device, const assay_op_desc* desc, const assay_args* args, assay_message* msg) {
  const std::string fault = Fault();
  const bool refused = (fault == "no_rope" && desc->op == ASSAY_OP_ROPE) || desc->op >= ASSAY_OP_QK_NORM_ROPE_KV_WRITE;
  if (!refused) return real.supports(device, desc, args, msg);
  if (msg) std::strcpy(msg->text, "left out on purpose");
  return ASSAY_ERR_UNSUPPORTED;
}

}  // namespace

assay_status assay_backend_entry(const assay_host* host, assay_backend* backend, assay_message* msg) {
  // The program's own entry, not this one: a plug-in is loaded with local symbols.
  auto* entry = reinterpret_cast<assay_backend_entry_fn>(dlsym(dlopen(nullptr, RTLD_NOW), ASSAY_BACKEND_ENTRY_SYMBOL));
  real.struct_size = sizeof(real);
  const assay_status status = entry(host, &real, msg);
  if (status != ASSAY_OK) return status;
  const uint32_t size = backend->struct_size < real.struct_size ? backend->struct_size : real.struct_size;
  assay_backend table = real;
  table.struct_size = size;
  table.name = "broken";
  table.supports = Supports;
  table.enqueue = Enqueue;
  table.plan_begin = nullptr;
  table.plan_end = nullptr;
  table.plan_launch = nullptr;
  table.plan_destroy = nullptr;
  std::memcpy(backend, &table, size);
  return ASSAY_OK;
}
