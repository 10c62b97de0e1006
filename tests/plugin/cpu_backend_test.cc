// SPDX-License-Identifier: Apache-2.0
// The CPU backend as a host sees it: through assay_backend_entry and the function table alone.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "backends/api/assay_backend.h"

namespace {

constexpr assay_host kHost = {sizeof(assay_host), ASSAY_ABI_VERSION, nullptr};

struct Message : assay_message {
  Message() : assay_message{sizeof(assay_message), ""} {}
};

const assay_backend& Table() {
  static const assay_backend table = [] {
    assay_backend t{};
    t.struct_size = sizeof t;
    EXPECT_EQ(assay_backend_entry(&kHost, &t, nullptr), ASSAY_OK);
    return t;
  }();
  return table;
}

// A device with one stream and tensors, each in a buffer of its own.
class Device {
 public:
  explicit Device(int32_t index, int32_t threads = 2) {
    const assay_device_options options = {sizeof options, threads};
    EXPECT_EQ(Table().device_create(index, &options, &device, nullptr), ASSAY_OK);
    EXPECT_EQ(Table().stream_create(device, &stream, nullptr), ASSAY_OK);
    EXPECT_EQ(Table().buffer_create(device, kWorkspace, 0, &workspace, nullptr), ASSAY_OK);
  }
  ~Device() {
    for (assay_buffer buffer : buffers_) Table().buffer_destroy(buffer);
    Table().buffer_destroy(workspace);
    Table().stream_destroy(stream);
    Table().device_destroy(device);
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  assay_buffer NewBuffer(uint64_t bytes) {
    assay_buffer buffer = nullptr;
    EXPECT_EQ(Table().buffer_create(device, bytes, 0, &buffer, nullptr), ASSAY_OK);
    buffers_.push_back(buffer);
    return buffer;
  }
  template <class T>
  assay_tensor NewTensor(assay_dtype dtype, std::vector<int64_t> shape, const std::vector<T>& values) {
    assay_tensor t = Shape(dtype, shape);
    t.buffer = NewBuffer(values.size() * sizeof(T));
    EXPECT_EQ(Table().copy_to_device(stream, t.buffer, 0, values.data(), values.size() * sizeof(T), nullptr), ASSAY_OK);
    return t;
  }
  assay_tensor NewF32(std::vector<int64_t> shape, float first = 0, float step = 0) {
    int64_t n = 1;
    for (const int64_t s : shape) n *= s;
    std::vector<float> values(n);
    for (int64_t i = 0; i < n; ++i) values[i] = first + step * static_cast<float>(i % 37);
    return NewTensor(ASSAY_F32, shape, values);
  }
  static assay_tensor Shape(assay_dtype dtype, const std::vector<int64_t>& shape) {
    assay_tensor t{};
    t.struct_size = sizeof t;
    t.dtype = dtype;
    t.ndim = static_cast<int32_t>(shape.size());
    int64_t stride = 1;
    for (int d = ASSAY_MAX_DIMS - 1; d >= 0; --d) {
      t.shape[d] = d < t.ndim ? shape[d] : 1;
      t.stride[d] = d < t.ndim ? stride : 0;
      if (d < t.ndim) stride *= shape[d];
    }
    return t;
  }
  assay_tensor Pack(assay_dtype dtype, int64_t rows, int64_t cols, const void* source, uint32_t usage) {
    const assay_weight_desc desc = {sizeof desc, dtype, usage, ASSAY_F32, rows, cols, nullptr};
    uint64_t bytes = 0;
    EXPECT_EQ(Table().weight_packed_size(device, &desc, &bytes, nullptr), ASSAY_OK);
    assay_tensor t = Shape(dtype, {rows, cols});
    t.flags = ASSAY_TENSOR_PACKED;
    t.buffer = NewBuffer(bytes);
    Message message;
    EXPECT_EQ(Table().weight_pack(device, &desc, source, t.buffer, 0, &message), ASSAY_OK) << message.text;
    return t;
  }
  std::vector<float> Read(const assay_tensor& t) {
    std::vector<float> values(t.shape[0] * t.stride[0]);
    EXPECT_EQ(Table().copy_to_host(stream, values.data(), t.buffer, t.offset, values.size() * 4, nullptr), ASSAY_OK);
    return values;
  }
  template <class Desc>
  assay_status Enqueue(const Desc& desc, const std::vector<const assay_tensor*>& in,
                       const std::vector<const assay_tensor*>& out, assay_message* message = nullptr,
                       uint64_t workspace_bytes = kWorkspace) {
    const assay_args args = {
        sizeof args, static_cast<uint32_t>(in.size()), static_cast<uint32_t>(out.size()), 0, in.data(), out.data()};
    return Table().enqueue(stream, reinterpret_cast<const assay_op_desc*>(&desc), &args, workspace, 0, workspace_bytes,
                           nullptr, message);
  }

  assay_device device = nullptr;
  assay_stream stream = nullptr;
  assay_buffer workspace = nullptr;
  static constexpr uint64_t kWorkspace = 8 << 20;

 private:
  std::vector<assay_buffer> buffers_;
};

TEST(CpuBackend, EntryChecksVersionAndSize) {
  assay_host host = kHost;
  host.abi_version = ASSAY_ABI_VERSION + 1;
  assay_backend table{};
  table.struct_size = sizeof table;
  Message message;
  EXPECT_EQ(assay_backend_entry(&host, &table, &message), ASSAY_ERR_UNSUPPORTED);
  EXPECT_NE(std::string(message.text).find("version"), std::string::npos) << message.text;

  // A host that knows tier 0 only gets just that.
  std::memset(static_cast<void*>(&table), 0x5a, sizeof table);
  table.struct_size = offsetof(assay_backend, plan_begin);
  EXPECT_EQ(assay_backend_entry(&kHost, &table, nullptr), ASSAY_OK);
  EXPECT_EQ(table.struct_size, offsetof(assay_backend, plan_begin));
  EXPECT_NE(table.enqueue, nullptr);
  const auto* beyond = reinterpret_cast<const unsigned char*>(&table.plan_begin);
  EXPECT_EQ(*beyond, 0x5a);

  table.struct_size = offsetof(assay_backend, enqueue);
  EXPECT_EQ(assay_backend_entry(&kHost, &table, &message), ASSAY_ERR_INVALID);
  EXPECT_EQ(assay_backend_entry(nullptr, &table, &message), ASSAY_ERR_INVALID);
  EXPECT_EQ(assay_backend_entry(&kHost, nullptr, nullptr), ASSAY_ERR_INVALID);
}

TEST(CpuBackend, MessagesFitTheCallersRoom) {
  char memory[sizeof(assay_message)];
  std::memset(memory, 0x5a, sizeof memory);
  auto* message = reinterpret_cast<assay_message*>(memory);
  message->struct_size = offsetof(assay_message, text) + 8;
  EXPECT_EQ(Table().device_info(99, nullptr, message), ASSAY_ERR_INVALID);
  EXPECT_EQ(std::strlen(message->text), 7u);
  EXPECT_EQ(message->text[8], 0x5a);
}

TEST(CpuBackend, DescribesTwoDevices) {
  int32_t count = 0;
  const char* reason = nullptr;
  ASSERT_EQ(Table().device_count(&count, &reason, nullptr), ASSAY_OK);
  ASSERT_EQ(count, 2);
  assay_device_info cpu{}, ref{};
  cpu.struct_size = ref.struct_size = sizeof cpu;
  ASSERT_EQ(Table().device_info(0, &cpu, nullptr), ASSAY_OK);
  ASSERT_EQ(Table().device_info(1, &ref, nullptr), ASSAY_OK);
  EXPECT_STREQ(cpu.id, "cpu");
  EXPECT_STREQ(ref.id, "ref");
  EXPECT_EQ(cpu.is_reference, 0);
  EXPECT_EQ(ref.is_reference, 1);
  EXPECT_STRNE(cpu.name, "");
  EXPECT_GT(cpu.memory_bytes, cpu.memory_free);
  EXPECT_GT(cpu.memory_free, 0u);
  EXPECT_GE(cpu.compute_units, 1);
  EXPECT_EQ(cpu.act_dtypes[0], ASSAY_F32);
  EXPECT_EQ(cpu.act_dtypes[1], 0);
  EXPECT_GT(cpu.kv_block_sizes[0], 0);

  assay_device_info small;
  std::memset(&small, 0x5a, sizeof small);
  small.struct_size = offsetof(assay_device_info, memory_bytes);
  ASSERT_EQ(Table().device_info(0, &small, nullptr), ASSAY_OK);
  EXPECT_STREQ(small.id, "cpu");
  EXPECT_EQ(small.memory_bytes, 0x5a5a5a5a5a5a5a5au);
}

uint64_t ResidentBytes() {
  uint64_t size = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> size >> resident;
  return resident * 4096;
}

TEST(CpuBackend, Buffers) {
  assay_device device = nullptr;
  ASSERT_EQ(Table().device_create(0, nullptr, &device, nullptr), ASSAY_OK);
  const uint64_t before = ResidentBytes();
  assay_buffer buffer = nullptr;
  ASSERT_EQ(Table().buffer_create(device, uint64_t{1} << 29, 0, &buffer, nullptr), ASSAY_OK);
  EXPECT_LT(ResidentBytes(), before + (64 << 20)) << "creating a buffer touched it";
  void* address = nullptr;
  ASSERT_EQ(Table().buffer_map(buffer, &address, nullptr), ASSAY_OK);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(address) % 64, 0u);
  static_cast<char*>(address)[(uint64_t{1} << 29) - 1] = 1;
  Table().buffer_destroy(buffer);

  Message message;
  EXPECT_EQ(Table().buffer_create(device, uint64_t{1} << 60, 0, &buffer, &message), ASSAY_ERR_NO_MEMORY);
  EXPECT_NE(std::string(message.text).find("1152921504606846976"), std::string::npos) << message.text;
  ASSERT_EQ(Table().buffer_create(device, 0, 0, &buffer, nullptr), ASSAY_OK);
  Table().buffer_destroy(buffer);
  const assay_device_options options = {sizeof options, -1};
  EXPECT_EQ(Table().device_create(0, &options, &device, nullptr), ASSAY_ERR_INVALID);
  Table().device_destroy(device);
}

TEST(CpuBackend, CopiesAndEventsAreChecked) {
  Device d(0);
  assay_buffer buffer = d.NewBuffer(16);
  char bytes[32] = "0123456789abcde";
  EXPECT_EQ(Table().copy_to_device(d.stream, buffer, 0, bytes, 16, nullptr), ASSAY_OK);
  EXPECT_EQ(Table().copy_to_device(d.stream, buffer, 1, bytes, 16, nullptr), ASSAY_ERR_INVALID);
  EXPECT_EQ(Table().copy_to_device(d.stream, buffer, UINT64_MAX, bytes, 2, nullptr), ASSAY_ERR_INVALID);
  EXPECT_EQ(Table().copy_on_device(d.stream, buffer, 8, buffer, 0, 8, nullptr), ASSAY_OK);
  EXPECT_EQ(Table().copy_to_host(d.stream, bytes, buffer, 8, 8, nullptr), ASSAY_OK);
  EXPECT_EQ(std::string(bytes, 8), "01234567");

  assay_event begin = nullptr, end = nullptr;
  ASSERT_EQ(Table().event_create(d.device, &begin, nullptr), ASSAY_OK);
  ASSERT_EQ(Table().event_create(d.device, &end, nullptr), ASSAY_OK);
  double ns = 0;
  ASSERT_EQ(Table().event_record(begin, d.stream, nullptr), ASSAY_OK);
  EXPECT_EQ(Table().event_elapsed_ns(begin, end, &ns, nullptr), ASSAY_ERR_INVALID) << "end was never recorded";
  ASSERT_EQ(Table().event_record(end, d.stream, nullptr), ASSAY_OK);
  EXPECT_EQ(Table().event_elapsed_ns(begin, end, &ns, nullptr), ASSAY_OK);
  EXPECT_GE(ns, 0);
  EXPECT_EQ(Table().event_synchronize(end, nullptr), ASSAY_OK);
  Table().event_destroy(begin);
  Table().event_destroy(end);
}

constexpr int64_t kTokens = 5, kHidden = 64, kVocab = 96;
constexpr assay_norm_desc kNorm = {sizeof(assay_norm_desc), ASSAY_OP_RMS_NORM, 1e-5f};
constexpr assay_linear_desc kLinear = {sizeof(assay_linear_desc), ASSAY_OP_LINEAR, ASSAY_F32};
constexpr assay_op_desc kEmbed = {sizeof(assay_op_desc), ASSAY_OP_EMBED};

// ids -> embed -> norm -> tied head, with one weight for both ends.
struct TinyModel {
  explicit TinyModel(Device* device) : d(*device) {
    std::vector<float> table(kVocab * kHidden);
    for (size_t i = 0; i < table.size(); ++i) table[i] = std::sin(static_cast<float>(i) * 0.37f);
    weight = d.Pack(ASSAY_F32, kVocab, kHidden, table.data(), ASSAY_WEIGHT_EMBED | ASSAY_WEIGHT_LINEAR);
    ids = d.NewTensor<int32_t>(ASSAY_I32, {kTokens}, {3, 95, -1, 96, 0});
    norm_weight = d.NewF32({kHidden}, 0.5f, 0.01f);
    x = d.NewF32({kTokens, kHidden});
    logits = d.NewF32({kTokens, kVocab});
  }
  void Enqueue() {
    Message message;
    EXPECT_EQ(d.Enqueue(kEmbed, {&ids, &weight}, {&x}, &message), ASSAY_OK) << message.text;
    EXPECT_EQ(d.Enqueue(kNorm, {&x, &norm_weight}, {&x}, &message), ASSAY_OK) << message.text;
    EXPECT_EQ(d.Enqueue(kLinear, {&x, &weight}, {&logits}, &message), ASSAY_OK) << message.text;
  }
  std::vector<float> Logits() { return d.Read(logits); }
  void SetIds(const std::vector<int32_t>& values) {
    EXPECT_EQ(Table().copy_to_device(d.stream, ids.buffer, 0, values.data(), values.size() * 4, nullptr), ASSAY_OK);
  }

  Device& d;
  assay_tensor weight, ids, norm_weight, x, logits;
};

TEST(CpuBackend, BothDevicesAgreeAndPlansReplay) {
  Device ref_device(1);
  TinyModel ref(&ref_device);
  ref.Enqueue();
  const std::vector<float> expected = ref.Logits();
  ref.SetIds({1, 2, 3, 4, 5});
  ref.Enqueue();
  const std::vector<float> expected_later = ref.Logits();
  const auto check = [](const std::vector<float>& a, const std::vector<float>& b) {
    for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 2e-5) << i;
  };
  for (const int32_t threads : {1, 2, 3}) {
    Device device(0, threads);
    TinyModel model(&device);
    assay_plan plan = nullptr;
    ASSERT_EQ(Table().plan_begin(device.stream, nullptr), ASSAY_OK);
    model.Enqueue();
    EXPECT_EQ(Table().copy_to_host(device.stream, nullptr, model.ids.buffer, 0, 0, nullptr), ASSAY_ERR_INVALID);
    ASSERT_EQ(Table().plan_end(device.stream, &plan, nullptr), ASSAY_OK);
    EXPECT_EQ(model.Logits(), std::vector<float>(kTokens * kVocab)) << "recording ran something";
    ASSERT_EQ(Table().plan_launch(device.stream, plan, nullptr, nullptr), ASSAY_OK);
    const std::vector<float> replayed = model.Logits();
    check(replayed, expected);
    model.SetIds({1, 2, 3, 4, 5});
    ASSERT_EQ(Table().plan_launch(device.stream, plan, nullptr, nullptr), ASSAY_OK);
    check(model.Logits(), expected_later);
    Table().plan_destroy(plan);
    model.SetIds({3, 95, -1, 96, 0});
    model.Enqueue();
    EXPECT_EQ(model.Logits(), replayed) << "a plan and single operations differ";
  }
}

TEST(CpuBackend, RopeWithFactorsAgrees) {
  std::vector<float> results[2];
  for (const int32_t index : {0, 1}) {
    Device d(index);
    const assay_tensor positions = d.NewTensor<int32_t>(ASSAY_I32, {3}, {0, 7, 100000});
    const assay_tensor factors = d.NewF32({16}, 1, 0.5f);
    const assay_tensor q = d.NewF32({3, 4, 32}, -1, 0.1f);
    const assay_tensor k = d.NewF32({3, 2, 32}, 1, -0.1f);
    assay_rope_desc rope{};
    rope.struct_size = sizeof rope;
    rope.op = ASSAY_OP_ROPE;
    rope.rotary_dim = 32;
    rope.theta = 10000;
    rope.attn_factor = 1;
    Message message;
    ASSERT_EQ(d.Enqueue(rope, {&positions, &factors}, {&q, &k}, &message), ASSAY_OK) << message.text;
    results[index] = d.Read(q);
    const std::vector<float> more = d.Read(k);
    results[index].insert(results[index].end(), more.begin(), more.end());
  }
  for (size_t i = 0; i < results[0].size(); ++i) ASSERT_NEAR(results[0][i], results[1][i], 3e-6) << i;
}

TEST(CpuBackend, EnqueueRefusesWhatBreaksTheContract) {
  for (const int32_t index : {0, 1}) {
    Device d(index);
    TinyModel m(&d);
    Message message;
    const auto expect = [&](assay_status actual, const char* text) {
      EXPECT_EQ(actual, ASSAY_ERR_INVALID);
      EXPECT_NE(std::string(message.text).find(text), std::string::npos) << message.text;
    };
    expect(Table().enqueue(nullptr, nullptr, nullptr, nullptr, 0, 0, nullptr, &message), "NULL");
    expect(Table().enqueue(d.stream, nullptr, nullptr, nullptr, 0, 0, nullptr, &message), "NULL");
    expect(d.Enqueue(kNorm, {&m.x}, {&m.x}, &message), "inputs");
    expect(d.Enqueue(kNorm, {&m.x, nullptr}, {&m.x}, &message), "missing");
    expect(d.Enqueue(kNorm, {&m.x, &m.x}, {&m.x}, &message), "dimensions");
    expect(d.Enqueue(kNorm, {&m.logits, &m.norm_weight}, {&m.logits}, &message), "sizes");
    expect(d.Enqueue(kLinear, {&m.x, &m.x}, {&m.x}, &message), "");
    assay_tensor t = m.x;
    t.buffer = nullptr;
    expect(d.Enqueue(kNorm, {&t, &m.norm_weight}, {&m.x}, &message), "buffer");
    t = m.x;
    t.shape[0] = kTokens + 1;
    assay_tensor more = t;
    expect(d.Enqueue(kNorm, {&t, &m.norm_weight}, {&more}, &message), "beyond");
    t = more = m.x;
    t.stride[0] = more.stride[0] = INT64_MAX / 2;
    expect(d.Enqueue(kNorm, {&t, &m.norm_weight}, {&more}, &message), "beyond");
    t = m.x;
    t.stride[1] = 2;
    expect(d.Enqueue(kNorm, {&t, &m.norm_weight}, {&m.x}, &message), "contiguous");
    t = m.x;
    t.offset = 2;
    expect(d.Enqueue(kNorm, {&t, &m.norm_weight}, {&m.x}, &message), "aligned");
    // Same shape and dtype as the weight, but never packed.
    const assay_tensor loose = d.NewF32({kVocab, kHidden});
    expect(d.Enqueue(kLinear, {&m.x, &loose}, {&m.logits}, &message), "weight_pack");
    EXPECT_EQ(Table().plan_launch(d.stream, nullptr, nullptr, nullptr), ASSAY_ERR_INVALID);
    assay_plan plan = nullptr;
    EXPECT_EQ(Table().plan_end(d.stream, &plan, nullptr), ASSAY_ERR_INVALID);
  }
}

TEST(CpuBackend, WorkspaceIsCheckedAndEnough) {
  Device d(0);
  const assay_tensor logits = d.NewF32({3, 1000}, 0, 0.1f);
  const assay_tensor targets = d.NewTensor<int32_t>(ASSAY_I32, {3}, {0, 999, -1});
  const assay_tensor out = d.NewF32({3});
  const assay_op_desc desc = {sizeof desc, ASSAY_OP_LOGPROBS};
  const assay_tensor* in[] = {&logits, &targets};
  const assay_tensor* outs[] = {&out};
  const assay_args args = {sizeof args, 2, 1, 0, in, outs};
  uint64_t bytes = 0;
  ASSERT_EQ(Table().workspace_size(d.device, &desc, &args, &bytes, nullptr), ASSAY_OK);
  ASSERT_GT(bytes, 0u);
  Message message;
  EXPECT_EQ(d.Enqueue(desc, {&logits, &targets}, {&out}, &message, bytes - 1), ASSAY_ERR_INVALID);
  EXPECT_NE(std::string(message.text).find("workspace"), std::string::npos) << message.text;
  EXPECT_EQ(d.Enqueue(desc, {&logits, &targets}, {&out}, &message, bytes), ASSAY_OK);
}

TEST(CpuBackend, AWeightWithoutItsScalesIsRefused) {
  Device d(1);  // the reference
  const assay_weight_desc desc = {sizeof desc, ASSAY_I8, ASSAY_WEIGHT_LINEAR, ASSAY_DTYPE_NONE, 2, 3, nullptr};
  uint64_t bytes = 0;
  ASSERT_EQ(Table().weight_packed_size(d.device, &desc, &bytes, nullptr), ASSAY_OK);
  const int8_t source[6] = {};
  Message message;
  EXPECT_EQ(Table().weight_pack(d.device, &desc, source, d.NewBuffer(bytes), 0, &message), ASSAY_ERR_INVALID);
  EXPECT_STREQ(message.text, "weight: i8 comes without the scales of its rows");
}

TEST(CpuBackend, SupportsSaysWhyNot) {
  Device d(0);
  const auto ask = [&](const auto& desc, const std::vector<assay_tensor>& in, const std::vector<assay_tensor>& out) {
    std::vector<const assay_tensor*> ins, outs;
    for (const assay_tensor& t : in) ins.push_back(&t);
    for (const assay_tensor& t : out) outs.push_back(&t);
    const assay_args args = {
        sizeof args, static_cast<uint32_t>(ins.size()), static_cast<uint32_t>(outs.size()), 0, ins.data(), outs.data()};
    Message message;
    const assay_status status =
        Table().supports(d.device, reinterpret_cast<const assay_op_desc*>(&desc), &args, &message);
    return status == ASSAY_OK ? std::string("ok") : std::to_string(status) + " " + message.text;
  };
  const assay_tensor x = Device::Shape(ASSAY_F32, {8, 64}), y = Device::Shape(ASSAY_F32, {8, 32});
  EXPECT_EQ(ask(kLinear, {x, Device::Shape(ASSAY_BF16, {32, 64})}, {y}), "ok");
  EXPECT_EQ(ask(kLinear, {x, Device::Shape(ASSAY_F8_E4M3, {32, 64})}, {y}),
            "2 linear: no kernel for weight dtype f8_e4m3");
  const assay_tensor wide = Device::Shape(ASSAY_F32, {8, 128});
  EXPECT_EQ(ask(kLinear, {wide, Device::Shape(ASSAY_F8_B128, {32, 128})}, {y}),
            "2 linear: no kernel for weight dtype f8_b128");
  EXPECT_EQ(ask(kLinear, {wide, Device::Shape(ASSAY_I4_G128, {32, 128})}, {y}), "ok");
  EXPECT_EQ(ask(kNorm, {Device::Shape(ASSAY_BF16, {8, 64}), Device::Shape(ASSAY_F32, {64})},
                {Device::Shape(ASSAY_BF16, {8, 64})}),
            "2 rms_norm: no kernel for x of dtype bf16");
  const assay_op_desc reserved = {sizeof reserved, ASSAY_OP_MOE_ROUTE};
  EXPECT_EQ(ask(reserved, {}, {}), "2 operation 14 is not implemented");

  const auto attention = [&](int64_t heads, int64_t kv_heads, int64_t dim, int32_t block) {
    assay_attn_desc desc{};
    desc.struct_size = sizeof desc;
    desc.op = ASSAY_OP_ATTN_PAGED;
    desc.layout = ASSAY_KV_HND;
    desc.block_size = block;
    const assay_tensor q = Device::Shape(ASSAY_F32, {8, heads, dim});
    const assay_tensor cache = Device::Shape(ASSAY_BF16, {4, kv_heads, 32, dim});
    return ask(desc,
               {q, cache, cache, Device::Shape(ASSAY_I32, {2, 9}), Device::Shape(ASSAY_I32, {3}),
                Device::Shape(ASSAY_I32, {2})},
               {q});
  };
  EXPECT_EQ(attention(6, 2, 64, 32), "ok");
  EXPECT_EQ(attention(6, 4, 64, 32), "2 attn_paged: the query heads are not a multiple of the KV heads");
  EXPECT_EQ(attention(6, 2, 1024, 32), "2 attn_paged: head size 1024 exceeds 512");
  EXPECT_EQ(attention(6, 2, 64, 16).substr(0, 2), "1 ");
}

}  // namespace
