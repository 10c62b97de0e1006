// SPDX-License-Identifier: Apache-2.0
#include "backends/cpu/operation.h"

#include <initializer_list>

#include "backends/cpu/device.h"
#include "backends/cpu/failure.h"
#include "kernels/ref/ops.h"

namespace assay::backend_cpu {
namespace {

static_assert(static_cast<int>(DType::kNone) == ASSAY_DTYPE_NONE && static_cast<int>(DType::kF32) == ASSAY_F32 &&
              static_cast<int>(DType::kF16) == ASSAY_F16 && static_cast<int>(DType::kBF16) == ASSAY_BF16 &&
              static_cast<int>(DType::kI32) == ASSAY_I32 && static_cast<int>(DType::kI64) == ASSAY_I64 &&
              static_cast<int>(DType::kU8) == ASSAY_U8 && static_cast<int>(DType::kQ8_0) == ASSAY_Q8_0 &&
              static_cast<int>(DType::kQ4_0) == ASSAY_Q4_0 && static_cast<int>(DType::kQ4_1) == ASSAY_Q4_1);
static_assert(static_cast<int>(KvLayout::kHND) == ASSAY_KV_HND && static_cast<int>(KvLayout::kNHD) == ASSAY_KV_NHD);
static_assert(static_cast<int>(RopeScaling::kLinear) == ASSAY_ROPE_LINEAR &&
              static_cast<int>(RopeScaling::kLlama3) == ASSAY_ROPE_LLAMA3 &&
              static_cast<int>(RopeScaling::kYarn) == ASSAY_ROPE_YARN);
static_assert(static_cast<int>(GluAct::kGeluTanh) == ASSAY_GLU_GELU_TANH);

constexpr std::initializer_list<DType> kFloats = {DType::kF32, DType::kBF16, DType::kF16};
constexpr std::initializer_list<DType> kAct = {DType::kF32};
constexpr std::initializer_list<DType> kIndex = {DType::kI32};
constexpr std::initializer_list<DType> kWeights = {DType::kF32,  DType::kF16,  DType::kBF16,
                                                   DType::kQ8_0, DType::kQ4_0, DType::kQ4_1};

struct Storage {
  int64_t elements, bytes;  // of a block
};
Storage StorageOf(DType dtype) {
  switch (dtype) {
    case DType::kQ8_0:
      return {32, 34};
    case DType::kQ4_0:
      return {32, 18};
    case DType::kQ4_1:
      return {32, 20};
    case DType::kF32:
    case DType::kI32:
      return {1, 4};
    case DType::kI64:
      return {1, 8};
    case DType::kU8:
      return {1, 1};
    default:
      return {1, 2};
  }
}

// Checks the tensors of one operation and turns them into views.
class Binder {
 public:
  Binder(const char* op, const assay_args& args, bool resolve) : op_(op), args_(args), resolve_(resolve) {}

  // Counts as the operation's list gives them; optional tensors at the end may be left out.
  void Count(uint32_t in_least, uint32_t in_most, uint32_t out_least, uint32_t out_most) const {
    if (args_.n_in < in_least || args_.n_in > in_most || args_.n_out < out_least || args_.n_out > out_most) {
      Fail(ASSAY_ERR_INVALID, "%s: %u inputs and %u outputs given, %u to %u and %u to %u expected", op_, args_.n_in,
           args_.n_out, in_least, in_most, out_least, out_most);
    }
    if ((args_.n_in > 0 && args_.in == nullptr) || (args_.n_out > 0 && args_.out == nullptr)) {
      Fail(ASSAY_ERR_INVALID, "%s: the list of tensors is NULL", op_);
    }
  }

  View In(uint32_t i, const char* name, int ndim, std::initializer_list<DType> dtypes) const {
    return Read(args_.in[i], name, ndim, dtypes);
  }
  View OptIn(uint32_t i, const char* name, int ndim, std::initializer_list<DType> dtypes) const {
    return i < args_.n_in && args_.in[i] != nullptr ? In(i, name, ndim, dtypes) : View{};
  }
  View Out(uint32_t i, const char* name, int ndim, std::initializer_list<DType> dtypes) const {
    return Read(args_.out[i], name, ndim, dtypes);
  }
  View OptOut(uint32_t i, const char* name, int ndim, std::initializer_list<DType> dtypes) const {
    return i < args_.n_out && args_.out[i] != nullptr ? Out(i, name, ndim, dtypes) : View{};
  }

  void Same(int64_t a, int64_t b, const char* what) const {
    if (a != b) {
      Fail(ASSAY_ERR_INVALID, "%s: %s differ (%lld and %lld)", op_, what, static_cast<long long>(a),
           static_cast<long long>(b));
    }
  }
  void SameShape(const View& a, const View& b, const char* what) const {
    Same(a.ndim, b.ndim, what);
    for (int d = 0; d < a.ndim; ++d) Same(a.shape[d], b.shape[d], what);
  }
  void Check(bool ok, assay_status status, const char* why) const {
    if (!ok) Fail(status, "%s: %s", op_, why);
  }

  // The packed weight in args.in[i].
  View Weight(uint32_t i, const char* name, bool reference, cpu::WeightSpec* spec, bool any_compute) const {
    View w = Read(args_.in[i], name, 2, kWeights, /*packed=*/true);
    *spec = {w.dtype, spec->compute, w.shape[0], w.shape[1]};
    if (!reference) {
      if (const char* why = cpu::WeightUnsupported(*spec)) Fail(ASSAY_ERR_UNSUPPORTED, "%s: %s", op_, why);
    }
    Check(w.shape[1] % StorageOf(w.dtype).elements == 0, ASSAY_ERR_INVALID, "a weight's row is not whole blocks");
    if (!resolve_) return w;
    const assay_tensor& t = *args_.in[i];
    const auto found = t.buffer->weights.find(t.offset);
    if (found == t.buffer->weights.end() || found->second.dtype != spec->dtype || found->second.rows != spec->rows ||
        found->second.cols != spec->cols || (!any_compute && found->second.compute != spec->compute)) {
      Fail(ASSAY_ERR_INVALID, "%s: %s is not what weight_pack put at offset %llu (dtype, rows, cols and compute)", op_,
           name, static_cast<unsigned long long>(t.offset));
    }
    *spec = found->second;
    w.stride[0] = w.shape[1];
    w.stride[1] = 1;
    return w;
  }

 private:
  View Read(const assay_tensor* tensor, const char* name, int ndim, std::initializer_list<DType> dtypes,
            bool packed = false) const {
    if (tensor == nullptr) Fail(ASSAY_ERR_INVALID, "%s: %s is missing", op_, name);
    if (!ASSAY_HAS_FIELD(tensor, assay_tensor, stride)) Fail(ASSAY_ERR_INVALID, "%s: %s is cut short", op_, name);
    View v;
    v.dtype = static_cast<DType>(tensor->dtype);
    v.ndim = tensor->ndim;
    CheckDType(v.dtype, name, dtypes, packed);
    if (v.ndim != ndim) Fail(ASSAY_ERR_INVALID, "%s: %s has %d dimensions, not %d", op_, name, v.ndim, ndim);
    int64_t last = 0;  // index of the last element
    bool empty = false;
    bool overflow = false;
    for (int d = 0; d < ndim; ++d) {
      v.shape[d] = tensor->shape[d];
      v.stride[d] = tensor->stride[d];
      if (v.shape[d] < 0) Fail(ASSAY_ERR_INVALID, "%s: %s has a negative size", op_, name);
      if (v.shape[d] == 0) empty = true;
      if (packed || v.shape[d] == 0) continue;
      int64_t reach = 0;
      overflow |= v.stride[d] < 0 || __builtin_mul_overflow(v.shape[d] - 1, v.stride[d], &reach) ||
                  __builtin_add_overflow(last, reach, &last);
    }
    if (!packed && v.shape[ndim - 1] > 1 && v.stride[ndim - 1] != 1) {
      Fail(ASSAY_ERR_INVALID, "%s: the last dimension of %s is not contiguous", op_, name);
    }
    if (resolve_) v.data = Resolve(*tensor, name, v.dtype, last, empty || packed, overflow);
    return v;
  }

  void CheckDType(DType dtype, const char* name, std::initializer_list<DType> dtypes, bool packed) const {
    for (const DType allowed : dtypes) {
      if (dtype == allowed) return;
    }
    if (packed) Fail(ASSAY_ERR_UNSUPPORTED, "%s: no kernel for weight dtype %s", op_, NameOf(dtype));
    Fail(ASSAY_ERR_UNSUPPORTED, "%s: no kernel for %s of dtype %s", op_, name, NameOf(dtype));
  }

  // bounds_known: nothing is accessed, or weight_pack has checked it.
  void* Resolve(const assay_tensor& t, const char* name, DType dtype, int64_t last, bool bounds_known,
                bool overflow) const {
    if (t.buffer == nullptr) Fail(ASSAY_ERR_INVALID, "%s: %s has no buffer", op_, name);
    const int64_t width = StorageOf(dtype).bytes;
    const uint64_t bytes = t.buffer->bytes;
    const bool blocks = StorageOf(dtype).elements > 1;  // a packed weight: weight_pack has checked its place
    if (!blocks && t.offset % width != 0) Fail(ASSAY_ERR_INVALID, "%s: the offset of %s is not aligned", op_, name);
    if (t.offset > bytes ||
        (!bounds_known && (overflow || static_cast<uint64_t>(last) >= (bytes - t.offset) / width))) {
      Fail(ASSAY_ERR_INVALID, "%s: %s reaches beyond its buffer of %llu bytes", op_, name,
           static_cast<unsigned long long>(bytes));
    }
    return t.buffer->data + t.offset;
  }

  const char* op_;
  const assay_args& args_;
  bool resolve_;
};

KvAttr ReadKvAttr(const Binder& b, assay_kv_layout layout, int32_t block_size) {
  b.Check(layout == ASSAY_KV_HND || layout == ASSAY_KV_NHD, ASSAY_ERR_UNSUPPORTED, "unknown KV cache layout");
  b.Check(block_size > 0, ASSAY_ERR_INVALID, "block_size is not positive");
  return {static_cast<KvLayout>(layout), block_size};
}

void CheckCaches(const Binder& b, const View& k_cache, const View& v_cache, const KvAttr& kv, int64_t heads,
                 int64_t dim) {
  b.SameShape(k_cache, v_cache, "the shapes of k_cache and v_cache");
  b.Check(k_cache.dtype == v_cache.dtype, ASSAY_ERR_UNSUPPORTED, "k_cache and v_cache have different dtypes");
  const bool hnd = kv.layout == KvLayout::kHND;
  b.Same(k_cache.shape[hnd ? 2 : 1], kv.block_size, "block_size and the cache's");
  if (heads >= 0) b.Same(k_cache.shape[hnd ? 1 : 2], heads, "the heads and the cache's");
  if (dim >= 0) b.Same(k_cache.shape[3], dim, "the head size and the cache's");
}

void BindEmbed(const Binder& b, Operation* o) {
  b.Count(2, 2, 1, 1);
  o->in[0] = b.In(0, "ids", 1, kIndex);
  o->in[1] = b.Weight(1, "table", o->reference, &o->weight, /*any_compute=*/true);
  o->out[0] = b.Out(0, "y", 2, kAct);
  b.Same(o->out[0].shape[0], o->in[0].shape[0], "the rows of y and ids");
  b.Same(o->out[0].shape[1], o->weight.cols, "the columns of y and table");
}

void BindGatherRows(const Binder& b, Operation* o) {
  b.Count(2, 2, 1, 1);
  o->in[0] = b.In(0, "x", 2, kAct);
  o->in[1] = b.In(1, "index", 1, kIndex);
  o->out[0] = b.Out(0, "y", 2, kAct);
  b.Same(o->out[0].shape[0], o->in[1].shape[0], "the rows of y and index");
  b.Same(o->out[0].shape[1], o->in[0].shape[1], "the columns of y and x");
}

void BindCast(const Binder& b, Operation* o) {
  b.Count(1, 1, 1, 1);
  o->in[0] = b.In(0, "x", 2, kFloats);
  o->out[0] = b.Out(0, "y", 2, kFloats);
  b.SameShape(o->in[0], o->out[0], "the shapes of x and y");
}

void BindKvBlockCopy(const Binder& b, const assay_kv_desc& d, Operation* o) {
  b.Count(1, 1, 2, 2);
  o->kv = ReadKvAttr(b, d.layout, d.block_size);
  o->in[0] = b.In(0, "pairs", 2, kIndex);
  o->out[0] = b.Out(0, "k_cache", 4, kFloats);
  o->out[1] = b.Out(1, "v_cache", 4, kFloats);
  b.Same(o->in[0].shape[1], 2, "the columns of pairs and 2");
  CheckCaches(b, o->out[0], o->out[1], o->kv, -1, -1);
}

void BindRmsNorm(const Binder& b, const assay_norm_desc& d, const assay_args& args, Operation* o) {
  b.Count(2, 2, 1, 1);
  o->eps = d.eps;
  const int ndim = args.in[0] != nullptr && args.in[0]->ndim == 3 ? 3 : 2;
  o->in[0] = b.In(0, "x", ndim, kAct);
  o->in[1] = b.In(1, "w", 1, kAct);
  o->out[0] = b.Out(0, "y", ndim, kAct);
  b.SameShape(o->in[0], o->out[0], "the shapes of x and y");
  b.Same(o->in[1].shape[0], o->in[0].shape[ndim - 1], "the sizes of w and of a row");
}

void BindAddRmsNorm(const Binder& b, const assay_norm_desc& d, Operation* o) {
  b.Count(2, 2, 2, 2);
  o->eps = d.eps;
  o->in[0] = b.In(0, "x", 2, kAct);
  o->in[1] = b.In(1, "w", 1, kAct);
  o->out[0] = b.Out(0, "residual", 2, kAct);
  o->out[1] = b.Out(1, "y", 2, kAct);
  b.SameShape(o->in[0], o->out[0], "the shapes of x and residual");
  b.SameShape(o->in[0], o->out[1], "the shapes of x and y");
  b.Same(o->in[1].shape[0], o->in[0].shape[1], "the sizes of w and of a row");
}

RopeAttr ReadRopeAttr(const Binder& b, const assay_rope_desc& d) {
  b.Check(d.scaling >= ASSAY_ROPE_NONE && d.scaling <= ASSAY_ROPE_YARN, ASSAY_ERR_UNSUPPORTED, "unknown scaling");
  b.Check(d.rotary_dim >= 0 && d.rotary_dim % 2 == 0, ASSAY_ERR_INVALID, "rotary_dim is not even");
  if (d.rotary_dim > cpu::kMaxHeadDim) {
    Fail(ASSAY_ERR_UNSUPPORTED, "rope: rotary_dim %d exceeds %lld", d.rotary_dim,
         static_cast<long long>(cpu::kMaxHeadDim));
  }
  RopeAttr a;
  a.rotary_dim = d.rotary_dim;
  a.interleaved = d.interleaved != 0;
  a.theta = d.theta;
  a.scaling = static_cast<RopeScaling>(d.scaling);
  a.factor = d.factor;
  a.low_freq_factor = d.low_freq_factor;
  a.high_freq_factor = d.high_freq_factor;
  a.original_context = d.original_context;
  a.beta_fast = d.beta_fast;
  a.beta_slow = d.beta_slow;
  a.attn_factor = d.attn_factor;
  return a;
}

void BindRope(const Binder& b, const assay_rope_desc& d, bool resolve, Operation* o) {
  b.Count(1, 2, 1, 2);
  o->rope = ReadRopeAttr(b, d);
  o->in[0] = b.In(0, "positions", 1, kIndex);
  o->in[1] = b.OptIn(1, "freq_factors", 1, kAct);
  o->out[0] = b.Out(0, "q", 3, kAct);
  o->out[1] = b.OptOut(1, "k", 3, kAct);
  for (int i = 0; i < 2; ++i) {
    if (o->out[i].ndim == 0) continue;
    b.Same(o->out[i].shape[0], o->in[0].shape[0], "the tokens of q or k and positions");
    b.Check(d.rotary_dim <= o->out[i].shape[2], ASSAY_ERR_INVALID, "rotary_dim exceeds the head size");
  }
  if (o->in[1].ndim > 0) b.Same(o->in[1].shape[0], d.rotary_dim / 2, "the sizes of freq_factors and rotary_dim / 2");
  if (resolve && !o->reference) ref::RopeInvFreq(o->rope, o->inv_freq);
}

void BindGlu(const Binder& b, const assay_glu_desc& d, Operation* o) {
  b.Count(1, 1, 1, 1);
  b.Check(d.act == ASSAY_GLU_SILU || d.act == ASSAY_GLU_GELU_TANH, ASSAY_ERR_UNSUPPORTED, "unknown activation");
  o->act = static_cast<GluAct>(d.act);
  o->in[0] = b.In(0, "gate_up", 2, kAct);
  o->out[0] = b.Out(0, "y", 2, kAct);
  b.Same(o->in[0].shape[0], o->out[0].shape[0], "the rows of gate_up and y");
  b.Same(o->in[0].shape[1] % 2, 0, "the remainder of gate_up's columns by two and 0");
  b.Same(o->in[0].shape[1] / 2, o->out[0].shape[1], "half the columns of gate_up and those of y");
}

void BindAddScale(const Binder& b, const assay_add_scale_desc& d, Operation* o) {
  b.Count(1, 2, 1, 1);
  o->alpha = d.alpha;
  o->beta = d.beta;
  o->in[0] = b.In(0, "a", 2, kAct);
  o->in[1] = b.OptIn(1, "b", 2, kAct);
  o->out[0] = b.Out(0, "y", 2, kAct);
  b.SameShape(o->in[0], o->out[0], "the shapes of a and y");
  if (o->in[1].ndim > 0) b.SameShape(o->in[0], o->in[1], "the shapes of a and b");
}

void BindLinear(const Binder& b, const assay_linear_desc& d, Operation* o) {
  b.Count(2, 3, 1, 1);
  b.Check(d.compute == ASSAY_DTYPE_NONE || d.compute == ASSAY_F32, ASSAY_ERR_UNSUPPORTED, "unknown compute dtype");
  o->weight.compute = static_cast<DType>(d.compute);
  o->in[0] = b.In(0, "x", 2, kAct);
  o->in[1] = b.Weight(1, "w", o->reference, &o->weight, /*any_compute=*/o->reference);
  o->in[2] = b.OptIn(2, "bias", 1, kAct);
  o->out[0] = b.Out(0, "y", 2, kAct);
  b.Same(o->in[0].shape[1], o->weight.cols, "the columns of x and w");
  b.Same(o->in[0].shape[0], o->out[0].shape[0], "the rows of x and y");
  b.Same(o->out[0].shape[1], o->weight.rows, "the columns of y and the rows of w");
  if (o->in[2].ndim > 0) b.Same(o->in[2].shape[0], o->weight.rows, "the size of bias and the rows of w");
}

void BindKvWritePaged(const Binder& b, const assay_kv_desc& d, Operation* o) {
  b.Count(3, 3, 2, 2);
  o->kv = ReadKvAttr(b, d.layout, d.block_size);
  o->in[0] = b.In(0, "k", 3, kAct);
  o->in[1] = b.In(1, "v", 3, kAct);
  o->in[2] = b.In(2, "slots", 1, kIndex);
  o->out[0] = b.Out(0, "k_cache", 4, kFloats);
  o->out[1] = b.Out(1, "v_cache", 4, kFloats);
  b.SameShape(o->in[0], o->in[1], "the shapes of k and v");
  b.Same(o->in[2].shape[0], o->in[0].shape[0], "the tokens of slots and k");
  CheckCaches(b, o->out[0], o->out[1], o->kv, o->in[0].shape[1], o->in[0].shape[2]);
}

void BindAttnPaged(const Binder& b, const assay_attn_desc& d, Operation* o) {
  b.Count(6, 6, 1, 1);
  o->attn = {ReadKvAttr(b, d.layout, d.block_size), d.scale, d.window, d.softcap};
  o->in[0] = b.In(0, "q", 3, kAct);
  o->in[1] = b.In(1, "k_cache", 4, kFloats);
  o->in[2] = b.In(2, "v_cache", 4, kFloats);
  o->in[3] = b.In(3, "block_table", 2, kIndex);
  o->in[4] = b.In(4, "q_offsets", 1, kIndex);
  o->in[5] = b.In(5, "kv_lens", 1, kIndex);
  o->out[0] = b.Out(0, "y", 3, kAct);
  const View& q = o->in[0];
  const int64_t kv_heads = o->in[1].shape[d.layout == ASSAY_KV_HND ? 1 : 2];
  b.SameShape(q, o->out[0], "the shapes of q and y");
  CheckCaches(b, o->in[1], o->in[2], o->attn.kv, -1, q.shape[2]);
  b.Same(o->in[3].shape[0], o->in[5].shape[0], "the sequences of block_table and kv_lens");
  b.Same(o->in[4].shape[0], o->in[5].shape[0] + 1, "the entries of q_offsets and of kv_lens plus one");
  b.Check(kv_heads > 0 && q.shape[1] % kv_heads == 0, ASSAY_ERR_UNSUPPORTED,
          "the query heads are not a multiple of the KV heads");
  if (q.shape[2] > cpu::kMaxHeadDim) {
    Fail(ASSAY_ERR_UNSUPPORTED, "attn_paged: head size %lld exceeds %lld", static_cast<long long>(q.shape[2]),
         static_cast<long long>(cpu::kMaxHeadDim));
  }
}

void BindSample(const Binder& b, Operation* o) {
  b.Count(7, 7, 1, 1);
  const char* const names[] = {"logits", "temperature", "top_k", "top_p", "min_p", "seed", "step"};
  const DType dtypes[] = {DType::kF32, DType::kF32, DType::kI32, DType::kF32, DType::kF32, DType::kI64, DType::kI32};
  for (uint32_t i = 0; i < 7; ++i) {
    o->in[i] = b.In(i, names[i], i == 0 ? 2 : 1, {dtypes[i]});
    b.Same(o->in[i].shape[0], o->in[0].shape[0], "the sequences of logits and of a parameter");
  }
  o->out[0] = b.Out(0, "ids", 1, kIndex);
  b.Same(o->out[0].shape[0], o->in[0].shape[0], "the sequences of logits and ids");
  b.Check(o->in[0].shape[1] > 0 && o->in[0].shape[1] <= INT32_MAX, ASSAY_ERR_INVALID,
          "the vocabulary is empty or huge");
}

void BindLogprobs(const Binder& b, Operation* o) {
  b.Count(2, 2, 1, 3);
  o->in[0] = b.In(0, "logits", 2, kAct);
  o->in[1] = b.In(1, "targets", 1, kIndex);
  o->out[0] = b.Out(0, "target_logprob", 1, kAct);
  o->out[1] = b.OptOut(1, "top_ids", 2, kIndex);
  o->out[2] = b.OptOut(2, "top_logprobs", 2, kAct);
  const int64_t rows = o->in[0].shape[0];
  b.Same(o->in[1].shape[0], rows, "the rows of targets and logits");
  b.Same(o->out[0].shape[0], rows, "the rows of target_logprob and logits");
  b.Same(o->out[1].ndim, o->out[2].ndim, "the presences of top_ids and top_logprobs");
  b.Check(o->in[0].shape[1] > 0 && o->in[0].shape[1] <= INT32_MAX, ASSAY_ERR_INVALID,
          "the vocabulary is empty or huge");
  if (o->out[1].ndim == 0) return;
  b.SameShape(o->out[1], o->out[2], "the shapes of top_ids and top_logprobs");
  b.Same(o->out[1].shape[0], rows, "the rows of top_ids and logits");
  b.Check(o->out[1].shape[1] <= o->in[0].shape[1], ASSAY_ERR_INVALID, "more top entries than there are tokens");
}

void BindProbeRead(const Binder& b, Operation* o) {
  b.Count(1, 1, 1, 1);
  o->in[0] = b.In(0, "x", 1, {DType::kU8});
  o->out[0] = b.Out(0, "sink", 1, kAct);
  b.Same(o->out[0].shape[0], 1, "the size of sink and 1");
}

void ExecuteReference(const Operation& o) {
  switch (o.op) {
    case ASSAY_OP_EMBED:
      return ref::Embed(o.in[0], o.in[1], o.out[0]);
    case ASSAY_OP_GATHER_ROWS:
      return ref::GatherRows(o.in[0], o.in[1], o.out[0]);
    case ASSAY_OP_CAST:
      return ref::Cast(o.in[0], o.out[0]);
    case ASSAY_OP_KV_BLOCK_COPY:
      return ref::KvBlockCopy(o.in[0], o.out[0], o.out[1], o.kv);
    case ASSAY_OP_RMS_NORM:
      return ref::RmsNorm(o.in[0], o.in[1], o.out[0], o.eps);
    case ASSAY_OP_ADD_RMS_NORM:
      return ref::AddRmsNorm(o.in[0], o.in[1], o.out[0], o.out[1], o.eps);
    case ASSAY_OP_ROPE:
      return ref::Rope(o.in[0], o.in[1], o.out[0], o.out[1], o.rope);
    case ASSAY_OP_GLU:
      return ref::Glu(o.in[0], o.out[0], o.act);
    case ASSAY_OP_ADD_SCALE:
      return ref::AddScale(o.in[0], o.in[1], o.out[0], o.alpha, o.beta);
    case ASSAY_OP_LINEAR:
      return ref::Linear(o.in[0], o.in[1], o.in[2], o.out[0]);
    case ASSAY_OP_KV_WRITE_PAGED:
      return ref::KvWritePaged(o.in[0], o.in[1], o.in[2], o.out[0], o.out[1], o.kv);
    case ASSAY_OP_ATTN_PAGED:
      return ref::AttnPaged(o.in[0], o.in[1], o.in[2], o.in[3], o.in[4], o.in[5], o.out[0], o.attn);
    case ASSAY_OP_SAMPLE:
      return ref::Sample(o.in[0], o.in[1], o.in[2], o.in[3], o.in[4], o.in[5], o.in[6], o.out[0]);
    case ASSAY_OP_LOGPROBS:
      return ref::Logprobs(o.in[0], o.in[1], o.out[0], o.out[1], o.out[2]);
    case ASSAY_OP_PROBE_READ:
      return ref::ProbeRead(o.in[0], o.out[0]);
  }
}

void ExecuteRope(const Operation& o, const cpu::Team& team) {
  const View& factors = o.in[1];
  if (!factors) return cpu::Rope(o.in[0], o.inv_freq, o.out[0], o.out[1], o.rope, team);
  double inv_freq[cpu::kMaxHeadDim / 2];
  for (int i = 0; i < o.rope.rotary_dim / 2; ++i) inv_freq[i] = o.inv_freq[i] / factors.as<float>()[i];
  cpu::Rope(o.in[0], inv_freq, o.out[0], o.out[1], o.rope, team);
}

}  // namespace

const char* NameOf(DType dtype) {
  switch (static_cast<assay_dtype>(dtype)) {
    case ASSAY_F32:
      return "f32";
    case ASSAY_F16:
      return "f16";
    case ASSAY_BF16:
      return "bf16";
    case ASSAY_F8_E4M3:
      return "f8_e4m3";
    case ASSAY_F8_E5M2:
      return "f8_e5m2";
    case ASSAY_I8:
      return "i8";
    case ASSAY_U8:
      return "u8";
    case ASSAY_I32:
      return "i32";
    case ASSAY_I64:
      return "i64";
    case ASSAY_Q8_0:
      return "q8_0";
    case ASSAY_Q4_0:
      return "q4_0";
    case ASSAY_Q4_1:
      return "q4_1";
    default:
      return "unknown";
  }
}

Operation Bind(const assay_op_desc* desc, const assay_args* args, bool reference, bool resolve) {
  Operation o;
  o.op = ReadStruct<assay_op_desc>(desc, "the operation's descriptor").op;
  o.reference = reference;
  const assay_args a = ReadStruct<assay_args>(args, "the list of arguments");
  switch (o.op) {
    case ASSAY_OP_EMBED:
      BindEmbed({"embed", a, resolve}, &o);
      break;
    case ASSAY_OP_GATHER_ROWS:
      BindGatherRows({"gather_rows", a, resolve}, &o);
      break;
    case ASSAY_OP_CAST:
      BindCast({"cast", a, resolve}, &o);
      break;
    case ASSAY_OP_KV_BLOCK_COPY:
      BindKvBlockCopy({"kv_block_copy", a, resolve}, ReadStruct<assay_kv_desc>(desc, "kv_block_copy"), &o);
      break;
    case ASSAY_OP_RMS_NORM:
      BindRmsNorm({"rms_norm", a, resolve}, ReadStruct<assay_norm_desc>(desc, "rms_norm"), a, &o);
      break;
    case ASSAY_OP_ADD_RMS_NORM:
      BindAddRmsNorm({"add_rms_norm", a, resolve}, ReadStruct<assay_norm_desc>(desc, "add_rms_norm"), &o);
      break;
    case ASSAY_OP_ROPE:
      BindRope({"rope", a, resolve}, ReadStruct<assay_rope_desc>(desc, "rope"), resolve, &o);
      break;
    case ASSAY_OP_GLU:
      BindGlu({"glu", a, resolve}, ReadStruct<assay_glu_desc>(desc, "glu"), &o);
      break;
    case ASSAY_OP_ADD_SCALE:
      BindAddScale({"add_scale", a, resolve}, ReadStruct<assay_add_scale_desc>(desc, "add_scale"), &o);
      break;
    case ASSAY_OP_LINEAR:
      BindLinear({"linear", a, resolve}, ReadStruct<assay_linear_desc>(desc, "linear"), &o);
      break;
    case ASSAY_OP_KV_WRITE_PAGED:
      BindKvWritePaged({"kv_write_paged", a, resolve}, ReadStruct<assay_kv_desc>(desc, "kv_write_paged"), &o);
      break;
    case ASSAY_OP_ATTN_PAGED:
      BindAttnPaged({"attn_paged", a, resolve}, ReadStruct<assay_attn_desc>(desc, "attn_paged"), &o);
      break;
    case ASSAY_OP_SAMPLE:
      BindSample({"sample", a, resolve}, &o);
      break;
    case ASSAY_OP_LOGPROBS:
      BindLogprobs({"logprobs", a, resolve}, &o);
      break;
    case ASSAY_OP_PROBE_READ:
      BindProbeRead({"probe_read", a, resolve}, &o);
      break;
    default:
      Fail(ASSAY_ERR_UNSUPPORTED, "operation %d is not implemented", o.op);
  }
  return o;
}

uint64_t PlainWeightBytes(const cpu::WeightSpec& spec) {
  for (const DType dtype : kWeights) {
    const Storage storage = StorageOf(dtype);
    if (dtype != spec.dtype || spec.cols % storage.elements != 0) continue;
    return static_cast<uint64_t>(spec.rows) * (spec.cols / storage.elements) * storage.bytes;
  }
  return 0;
}

uint64_t WorkspaceBytes(const Operation& o, int threads) {
  if (o.reference) return 0;
  switch (o.op) {
    case ASSAY_OP_LINEAR:
      return cpu::LinearWorkspace(o.weight, o.in[0].shape[0], threads);
    case ASSAY_OP_ATTN_PAGED:
      return cpu::AttnPagedWorkspace(o.in[0].shape[0], o.in[0].shape[1], o.in[0].shape[2], threads);
    case ASSAY_OP_SAMPLE:
      return cpu::SampleWorkspace(o.in[0].shape[0], o.in[0].shape[1], threads);
    case ASSAY_OP_LOGPROBS:
      return cpu::LogprobsWorkspace(o.in[0].shape[0], o.in[0].shape[1], threads);
    case ASSAY_OP_PROBE_READ:
      return cpu::ProbeReadWorkspace(threads);
    default:
      return 0;
  }
}

void Execute(const Operation& o, const cpu::Team& team) {
  if (o.reference) {
    if (team.rank == 0) ExecuteReference(o);
    return;
  }
  switch (o.op) {
    case ASSAY_OP_EMBED:
      return cpu::Embed(o.weight, o.in[0], o.in[1].data, o.out[0], team);
    case ASSAY_OP_GATHER_ROWS:
      return cpu::GatherRows(o.in[0], o.in[1], o.out[0], team);
    case ASSAY_OP_CAST:
      return cpu::Cast(o.in[0], o.out[0], team);
    case ASSAY_OP_KV_BLOCK_COPY:
      return cpu::KvBlockCopy(o.in[0], o.out[0], o.out[1], o.kv, team);
    case ASSAY_OP_RMS_NORM:
      return cpu::RmsNorm(o.in[0], o.in[1], o.out[0], o.eps, team);
    case ASSAY_OP_ADD_RMS_NORM:
      return cpu::AddRmsNorm(o.in[0], o.in[1], o.out[0], o.out[1], o.eps, team);
    case ASSAY_OP_ROPE:
      return ExecuteRope(o, team);
    case ASSAY_OP_GLU:
      return cpu::Glu(o.in[0], o.out[0], o.act, team);
    case ASSAY_OP_ADD_SCALE:
      return cpu::AddScale(o.in[0], o.in[1], o.out[0], o.alpha, o.beta, team);
    case ASSAY_OP_LINEAR:
      return cpu::Linear(o.weight, o.in[0], o.in[1].data, o.in[2], o.out[0], o.workspace, team);
    case ASSAY_OP_KV_WRITE_PAGED:
      return cpu::KvWritePaged(o.in[0], o.in[1], o.in[2], o.out[0], o.out[1], o.kv, team);
    case ASSAY_OP_ATTN_PAGED:
      return cpu::AttnPaged(o.in[0], o.in[1], o.in[2], o.in[3], o.in[4], o.in[5], o.out[0], o.attn, o.workspace, team);
    case ASSAY_OP_SAMPLE:
      return cpu::Sample(o.in[0], o.in[1], o.in[2], o.in[3], o.in[4], o.in[5], o.in[6], o.out[0], o.workspace, team);
    case ASSAY_OP_LOGPROBS:
      return cpu::Logprobs(o.in[0], o.in[1], o.out[0], o.out[1], o.out[2], o.workspace, team);
    case ASSAY_OP_PROBE_READ:
      return cpu::ProbeRead(o.in[0], o.out[0], o.workspace, team);
  }
}

}  // namespace assay::backend_cpu
