// SPDX-License-Identifier: Apache-2.0
// A complete tier 0 backend in plain loops: what a vendor writes, without the vendor's toolkit.
// The "device" is the process's own memory and work is done at once, inside enqueue, so that streams are always empty.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <new>

#include "ops.h"

struct assay_device_s {};
struct assay_stream_s {};
struct assay_event_s {
  double ns;
};

namespace {

constexpr uint64_t kAlignment = 64;

assay_status Fail(assay_status status, assay_message* msg, const char* format, long long a = 0, long long b = 0) {
  if (msg) std::snprintf(msg->text, std::min<size_t>(sizeof(msg->text), msg->struct_size - 4), format, a, b);
  return status;
}

template <class T>
assay_status Create(T** handle, assay_message* msg) {
  *handle = new (std::nothrow) T();
  return *handle ? ASSAY_OK : Fail(ASSAY_ERR_NO_MEMORY, msg, "no host memory for a handle");
}

// ---------------------------------------------------------------------------------------------- devices

assay_status DeviceCount(int32_t* count, const char** reason, assay_message*) {
  *count = 1;
  if (reason) *reason = nullptr;
  return ASSAY_OK;
}

assay_status DeviceInfo(int32_t index, assay_device_info* out, assay_message* msg) {
  if (index != 0) return Fail(ASSAY_ERR_INVALID, msg, "there is no device %lld", index);
  assay_device_info info{};
  std::snprintf(info.id, sizeof(info.id), "example");
  std::snprintf(info.name, sizeof(info.name), "Example backend");
  std::snprintf(info.detail, sizeof(info.detail), "plain loops on one thread");
  info.compute_units = 1;
  info.act_dtypes[0] = ASSAY_F32;
  info.kv_dtypes[0] = ASSAY_F32;
  info.kv_dtypes[1] = ASSAY_BF16;
  const assay_dtype weights[] = {ASSAY_F32, ASSAY_BF16, ASSAY_F16, ASSAY_Q8_0, ASSAY_Q4_0, ASSAY_Q4_1};
  std::copy(std::begin(weights), std::end(weights), info.weight_dtypes);
  info.kv_block_sizes[0] = 16;
  info.kv_block_sizes[1] = 32;
  info.kv_layouts[0] = ASSAY_KV_HND;
  info.kv_layouts[1] = ASSAY_KV_NHD;
  info.max_head_dim = 512;
  info.buffer_alignment = 4;
  info.weight_alignment = 4;
  info.struct_size = uint32_t(std::min<size_t>(out->struct_size, sizeof(info)));
  std::memcpy(out, &info, info.struct_size);
  return ASSAY_OK;
}

assay_status DeviceCreate(int32_t index, const assay_device_options*, assay_device* device, assay_message* msg) {
  if (index != 0) return Fail(ASSAY_ERR_INVALID, msg, "there is no device %lld", index);
  return Create(device, msg);
}

void DeviceDestroy(assay_device device) {
  delete device;
}

// ---------------------------------------------------------------------------------------------- memory and order

assay_status BufferCreate(assay_device, uint64_t bytes, int32_t, assay_buffer* buffer, assay_message* msg) {
  void* data = nullptr;
  if (bytes > SIZE_MAX / 2 || posix_memalign(&data, kAlignment, bytes ? bytes : 1) != 0) {
    return Fail(ASSAY_ERR_NO_MEMORY, msg, "no host memory for a buffer of %lld bytes", (long long)bytes);
  }
  *buffer = new (std::nothrow) assay_buffer_s{static_cast<uint8_t*>(data), bytes};
  if (*buffer) return ASSAY_OK;
  std::free(data);
  return Fail(ASSAY_ERR_NO_MEMORY, msg, "no host memory for a handle");
}

void BufferDestroy(assay_buffer buffer) {
  if (buffer) std::free(buffer->data);
  delete buffer;
}

assay_status BufferMap(assay_buffer buffer, void** address, assay_message*) {
  *address = buffer->data;
  return ASSAY_OK;
}

assay_status StreamCreate(assay_device, assay_stream* stream, assay_message* msg) {
  return Create(stream, msg);
}
void StreamDestroy(assay_stream stream) {
  delete stream;
}
assay_status StreamSynchronize(assay_stream, assay_message*) {
  return ASSAY_OK;
}

assay_status EventCreate(assay_device, assay_event* event, assay_message* msg) {
  return Create(event, msg);
}
void EventDestroy(assay_event event) {
  delete event;
}

assay_status EventRecord(assay_event event, assay_stream, assay_message*) {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  event->ns = double(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
  return ASSAY_OK;
}

assay_status EventWait(assay_stream, assay_event, assay_message*) {
  return ASSAY_OK;
}
assay_status EventSynchronize(assay_event, assay_message*) {
  return ASSAY_OK;
}

assay_status EventElapsed(assay_event begin, assay_event end, double* ns, assay_message*) {
  *ns = end->ns - begin->ns;
  return ASSAY_OK;
}

assay_status CheckRange(assay_buffer b, uint64_t offset, uint64_t bytes, assay_message* msg) {
  if (offset <= b->bytes && bytes <= b->bytes - offset) return ASSAY_OK;
  return Fail(ASSAY_ERR_INVALID, msg, "byte %lld lies outside a buffer of %lld", (long long)(offset + bytes),
              (long long)b->bytes);
}

assay_status CopyToDevice(assay_stream, assay_buffer dst, uint64_t offset, const void* src, uint64_t bytes,
                          assay_message* msg) {
  const assay_status status = CheckRange(dst, offset, bytes, msg);
  if (status == ASSAY_OK && bytes) std::memcpy(dst->data + offset, src, bytes);
  return status;
}

assay_status CopyToHost(assay_stream, void* dst, assay_buffer src, uint64_t offset, uint64_t bytes,
                        assay_message* msg) {
  const assay_status status = CheckRange(src, offset, bytes, msg);
  if (status == ASSAY_OK && bytes) std::memcpy(dst, src->data + offset, bytes);
  return status;
}

assay_status CopyOnDevice(assay_stream, assay_buffer dst, uint64_t dst_offset, assay_buffer src, uint64_t src_offset,
                          uint64_t bytes, assay_message* msg) {
  assay_status status = CheckRange(dst, dst_offset, bytes, msg);
  if (status == ASSAY_OK) status = CheckRange(src, src_offset, bytes, msg);
  if (status == ASSAY_OK) std::memmove(dst->data + dst_offset, src->data + src_offset, bytes);
  return status;
}

// ---------------------------------------------------------------------------------------------- weights

// The layout that this backend likes: everything becomes f32, row by row, so that linear and embed are plain loops.
assay_status PackedSize(assay_device, const assay_weight_desc* desc, uint64_t* bytes, assay_message* msg) {
  if (example::WeightBytes(desc->dtype, 32) == 0) {
    return Fail(ASSAY_ERR_UNSUPPORTED, msg, "no weights of dtype %lld", desc->dtype);
  }
  if (desc->dtype >= ASSAY_Q8_0 && desc->cols % 32 != 0) {
    return Fail(ASSAY_ERR_INVALID, msg, "%lld columns are no whole number of blocks of 32", desc->cols);
  }
  *bytes = uint64_t(desc->rows) * uint64_t(desc->cols) * sizeof(float);
  return ASSAY_OK;
}

assay_status Pack(assay_device device, const assay_weight_desc* desc, const void* src, assay_buffer dst,
                  uint64_t offset, assay_message* msg) {
  uint64_t bytes = 0;
  assay_status status = PackedSize(device, desc, &bytes, msg);
  if (status == ASSAY_OK) status = CheckRange(dst, offset, bytes, msg);
  if (status != ASSAY_OK) return status;
  example::ToF32(desc->dtype, src, reinterpret_cast<float*>(dst->data + offset), desc->rows * desc->cols);
  return ASSAY_OK;
}

// ---------------------------------------------------------------------------------------------- operations

// What each operation takes: one letter per tensor, inputs before '>', '?' after one that may be NULL.
//   a f32   i i32   l i64   u u8   w packed weight   k KV cache: f32 or bf16   c f32, bf16 or f16
struct Signature {
  assay_op op;
  const char* tensors;
  size_t desc_size;
};
const Signature kSignatures[] = {
    {ASSAY_OP_EMBED, "iw>a", sizeof(assay_op_desc)},
    {ASSAY_OP_GATHER_ROWS, "ai>a", sizeof(assay_op_desc)},
    {ASSAY_OP_CAST, "c>c", sizeof(assay_op_desc)},
    {ASSAY_OP_KV_BLOCK_COPY, "i>kk", sizeof(assay_kv_desc)},
    {ASSAY_OP_RMS_NORM, "aa>a", sizeof(assay_norm_desc)},
    {ASSAY_OP_ADD_RMS_NORM, "aa>aa", sizeof(assay_norm_desc)},
    {ASSAY_OP_ROPE, "ia?>aa?", sizeof(assay_rope_desc)},
    {ASSAY_OP_GLU, "a>a", sizeof(assay_glu_desc)},
    {ASSAY_OP_ADD_SCALE, "aa?>a", sizeof(assay_add_scale_desc)},
    {ASSAY_OP_LINEAR, "awa?>a", sizeof(assay_linear_desc)},
    {ASSAY_OP_KV_WRITE_PAGED, "aai>kk", sizeof(assay_kv_desc)},
    {ASSAY_OP_ATTN_PAGED, "akkiii>a", sizeof(assay_attn_desc)},
    {ASSAY_OP_SAMPLE, "aaiaali>i", sizeof(assay_op_desc)},
    {ASSAY_OP_LOGPROBS, "ai>ai?a?", sizeof(assay_op_desc)},
    {ASSAY_OP_PROBE_READ, "u>a", sizeof(assay_op_desc)},
};

bool Accepts(char letter, assay_dtype dtype) {
  switch (letter) {
    case 'a':
      return dtype == ASSAY_F32;
    case 'i':
      return dtype == ASSAY_I32;
    case 'l':
      return dtype == ASSAY_I64;
    case 'u':
      return dtype == ASSAY_U8;
    case 'k':
      return dtype == ASSAY_F32 || dtype == ASSAY_BF16;
    case 'c':
      return dtype == ASSAY_F32 || dtype == ASSAY_BF16 || dtype == ASSAY_F16;
    default:
      return example::WeightBytes(dtype, 32) > 0;
  }
}

// The tensors of one side against its letters; on success `letters` points past them.
assay_status CheckTensors(const char*& letters, const assay_tensor* const* tensors, uint32_t n, const char* wrong_dtype,
                          assay_message* msg) {
  uint32_t i = 0;
  for (; *letters && *letters != '>'; ++i) {
    const char letter = *letters++;
    const bool optional = *letters == '?';
    if (optional) ++letters;
    if (i >= n || (!tensors[i] && !optional)) return Fail(ASSAY_ERR_INVALID, msg, "tensor %lld is missing", i);
    if (tensors[i] && !Accepts(letter, tensors[i]->dtype)) {
      return Fail(ASSAY_ERR_UNSUPPORTED, msg, wrong_dtype, i, tensors[i]->dtype);
    }
  }
  return i == n ? ASSAY_OK : Fail(ASSAY_ERR_INVALID, msg, "%lld tensors given, %lld expected", n, i);
}

assay_status Supports(assay_device, const assay_op_desc* desc, const assay_args* args, assay_message* msg) {
#ifdef EXAMPLE_WITHOUT_OP
  if (desc->op == EXAMPLE_WITHOUT_OP) {
    return Fail(ASSAY_ERR_UNSUPPORTED, msg, "operation %lld was left out of this build", desc->op);
  }
#endif
  for (const Signature& signature : kSignatures) {
    if (signature.op != desc->op) continue;
    if (desc->struct_size < signature.desc_size) {
      return Fail(ASSAY_ERR_INVALID, msg, "the descriptor has %lld bytes, at least %lld expected", desc->struct_size,
                  (long long)signature.desc_size);
    }
    const char* letters = signature.tensors;
    const assay_status status =
        CheckTensors(letters, args->in, args->n_in, "input %lld has dtype %lld, which this backend lacks", msg);
    return status != ASSAY_OK ? status
                              : CheckTensors(++letters, args->out, args->n_out,
                                             "output %lld has dtype %lld, which this backend lacks", msg);
  }
  return Fail(ASSAY_ERR_UNSUPPORTED, msg, "operation %lld is not implemented", desc->op);
}

assay_status WorkspaceSize(assay_device device, const assay_op_desc* desc, const assay_args* args, uint64_t* bytes,
                           assay_message* msg) {
  const assay_status status = Supports(device, desc, args, msg);
  if (status == ASSAY_OK) *bytes = example::ScratchBytes(desc, args);
  return status;
}

assay_status Enqueue(assay_stream, const assay_op_desc* desc, const assay_args* args, assay_buffer workspace,
                     uint64_t workspace_offset, uint64_t workspace_bytes, const assay_host_lengths*,
                     assay_message* msg) {
  const assay_status status = Supports(nullptr, desc, args, msg);
  if (status != ASSAY_OK) return status;
  const uint64_t needed = example::ScratchBytes(desc, args);
  if (needed > workspace_bytes) {
    return Fail(ASSAY_ERR_INVALID, msg, "the workspace has %lld bytes, %lld are needed", (long long)workspace_bytes,
                (long long)needed);
  }
  example::Run(desc, args, needed ? workspace->data + workspace_offset : nullptr);
  return ASSAY_OK;
}

}  // namespace

assay_status assay_backend_entry(const assay_host* host, assay_backend* backend, assay_message* msg) {
  if (host->abi_version != ASSAY_ABI_VERSION) {
    return Fail(ASSAY_ERR_UNSUPPORTED, msg, "built for ABI version %lld, the host speaks %lld", ASSAY_ABI_VERSION,
                host->abi_version);
  }
  assay_backend table{};
  table.struct_size = uint32_t(std::min<size_t>(backend->struct_size, sizeof(table)));
  table.abi_version = ASSAY_ABI_VERSION;
  table.name = "example";
  table.version = "1";
  table.device_count = DeviceCount;
  table.device_info = DeviceInfo;
  table.device_create = DeviceCreate;
  table.device_destroy = DeviceDestroy;
  table.buffer_create = BufferCreate;
  table.buffer_destroy = BufferDestroy;
  table.buffer_map = BufferMap;
  table.stream_create = StreamCreate;
  table.stream_destroy = StreamDestroy;
  table.stream_synchronize = StreamSynchronize;
  table.event_create = EventCreate;
  table.event_destroy = EventDestroy;
  table.event_record = EventRecord;
  table.event_wait = EventWait;
  table.event_synchronize = EventSynchronize;
  table.event_elapsed_ns = EventElapsed;
  table.copy_to_device = CopyToDevice;
  table.copy_to_host = CopyToHost;
  table.copy_on_device = CopyOnDevice;
  table.weight_packed_size = PackedSize;
  table.weight_pack = Pack;
  table.supports = Supports;
  table.workspace_size = WorkspaceSize;
  table.enqueue = Enqueue;
  std::memcpy(backend, &table, table.struct_size);
  return ASSAY_OK;
}
