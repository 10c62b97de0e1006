// SPDX-License-Identifier: Apache-2.0
#include "backends/common/call.h"

#include <algorithm>
#include <initializer_list>

#include "backends/common/binder.h"

namespace assay::backend {
namespace {

static_assert(static_cast<int>(DType::kNone) == ASSAY_DTYPE_NONE && static_cast<int>(DType::kF32) == ASSAY_F32 &&
              static_cast<int>(DType::kF16) == ASSAY_F16 && static_cast<int>(DType::kBF16) == ASSAY_BF16 &&
              static_cast<int>(DType::kI8) == ASSAY_I8 && static_cast<int>(DType::kF8_E4M3) == ASSAY_F8_E4M3 &&
              static_cast<int>(DType::kI32) == ASSAY_I32 && static_cast<int>(DType::kI64) == ASSAY_I64 &&
              static_cast<int>(DType::kU8) == ASSAY_U8 && static_cast<int>(DType::kQ8_0) == ASSAY_Q8_0 &&
              static_cast<int>(DType::kQ4_0) == ASSAY_Q4_0 && static_cast<int>(DType::kQ4_1) == ASSAY_Q4_1 &&
              static_cast<int>(DType::kQ5_0) == ASSAY_Q5_0 && static_cast<int>(DType::kQ5_1) == ASSAY_Q5_1 &&
              static_cast<int>(DType::kQ4_K) == ASSAY_Q4_K && static_cast<int>(DType::kQ5_K) == ASSAY_Q5_K &&
              static_cast<int>(DType::kQ6_K) == ASSAY_Q6_K && static_cast<int>(DType::kF8_B128) == ASSAY_F8_B128 &&
              static_cast<int>(DType::kI4_G128) == ASSAY_I4_G128);
static_assert(static_cast<int>(KvLayout::kHND) == ASSAY_KV_HND && static_cast<int>(KvLayout::kNHD) == ASSAY_KV_NHD);
static_assert(static_cast<int>(RopeScaling::kLinear) == ASSAY_ROPE_LINEAR &&
              static_cast<int>(RopeScaling::kLlama3) == ASSAY_ROPE_LLAMA3 &&
              static_cast<int>(RopeScaling::kYarn) == ASSAY_ROPE_YARN);
static_assert(static_cast<int>(GluAct::kGeluTanh) == ASSAY_GLU_GELU_TANH);

constexpr std::initializer_list<DType> kFloats = {DType::kF32, DType::kBF16, DType::kF16};
constexpr std::initializer_list<DType> kCaches = {DType::kF32, DType::kBF16, DType::kF16, DType::kF8_E4M3};
constexpr std::initializer_list<DType> kF32 = {DType::kF32};
constexpr std::initializer_list<DType> kIndex = {DType::kI32};

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

void BindEmbed(Binder b, Call* o) {
  b.Count(2, 2, 1, 1);
  o->in[0] = b.In(0, "ids", 1, kIndex);
  o->in[1] = b.Weight(1, "table", &o->weight, /*any_compute=*/true);
  o->out[0] = b.ActOut(0, "y", 2);
  b.Same(o->out[0].shape[0], o->in[0].shape[0], "the rows of y and ids");
  b.Same(o->out[0].shape[1], o->weight.cols, "the columns of y and table");
}

void BindGatherRows(Binder b, Call* o) {
  b.Count(2, 2, 1, 1);
  o->in[0] = b.ActIn(0, "x", 2);
  o->in[1] = b.In(1, "index", 1, kIndex);
  o->out[0] = b.ActOut(0, "y", 2);
  b.Same(o->out[0].shape[0], o->in[1].shape[0], "the rows of y and index");
  b.Same(o->out[0].shape[1], o->in[0].shape[1], "the columns of y and x");
}

void BindCast(Binder b, Call* o) {
  b.Count(1, 1, 1, 1);
  o->in[0] = b.In(0, "x", 2, kFloats);
  o->out[0] = b.Out(0, "y", 2, kFloats);
  b.SameShape(o->in[0], o->out[0], "the shapes of x and y");
}

void BindKvBlockCopy(Binder b, const assay_kv_desc& d, Call* o) {
  b.Count(1, 1, 2, 2);
  o->kv = ReadKvAttr(b, d.layout, d.block_size);
  o->in[0] = b.In(0, "pairs", 2, kIndex);
  o->out[0] = b.Out(0, "k_cache", 4, kCaches);
  o->out[1] = b.Out(1, "v_cache", 4, kCaches);
  b.Same(o->in[0].shape[1], 2, "the columns of pairs and 2");
  CheckCaches(b, o->out[0], o->out[1], o->kv, -1, -1);
}

void BindRmsNorm(Binder b, const assay_norm_desc& d, const assay_args& args, Call* o) {
  b.Count(2, 2, 1, 1);
  o->eps = d.eps;
  const int ndim = args.in[0] != nullptr && args.in[0]->ndim == 3 ? 3 : 2;
  o->in[0] = b.ActIn(0, "x", ndim);
  o->in[1] = b.In(1, "w", 1, kF32);
  o->out[0] = b.ActOut(0, "y", ndim);
  b.SameShape(o->in[0], o->out[0], "the shapes of x and y");
  b.Same(o->in[1].shape[0], o->in[0].shape[ndim - 1], "the sizes of w and of a row");
}

void BindAddRmsNorm(Binder b, const assay_norm_desc& d, Call* o) {
  b.Count(2, 2, 2, 2);
  o->eps = d.eps;
  o->in[0] = b.ActIn(0, "x", 2);
  o->in[1] = b.In(1, "w", 1, kF32);
  o->out[0] = b.ActOut(0, "residual", 2);
  o->out[1] = b.ActOut(1, "y", 2);
  b.SameShape(o->in[0], o->out[0], "the shapes of x and residual");
  b.SameShape(o->in[0], o->out[1], "the shapes of x and y");
  b.Same(o->in[1].shape[0], o->in[0].shape[1], "the sizes of w and of a row");
}

RopeAttr ReadRopeAttr(const Binder& b, const assay_rope_desc& d) {
  b.Check(d.scaling >= ASSAY_ROPE_NONE && d.scaling <= ASSAY_ROPE_YARN, ASSAY_ERR_UNSUPPORTED, "unknown scaling");
  b.Check(d.rotary_dim >= 0 && d.rotary_dim % 2 == 0, ASSAY_ERR_INVALID, "rotary_dim is not even");
  b.CheckHeadDim(d.rotary_dim, "rotary_dim");
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

void BindRope(Binder b, const assay_rope_desc& d, Call* o) {
  b.Count(1, 2, 1, 2);
  o->rope = ReadRopeAttr(b, d);
  o->in[0] = b.In(0, "positions", 1, kIndex);
  o->in[1] = b.OptIn(1, "freq_factors", 1, kF32);
  o->out[0] = b.ActOut(0, "q", 3);
  o->out[1] = b.OptActOut(1, "k", 3);
  for (int i = 0; i < 2; ++i) {
    if (o->out[i].ndim == 0) continue;
    b.Same(o->out[i].shape[0], o->in[0].shape[0], "the tokens of q or k and positions");
    b.Check(d.rotary_dim <= o->out[i].shape[2], ASSAY_ERR_INVALID, "rotary_dim exceeds the head size");
  }
  if (o->in[1].ndim > 0) b.Same(o->in[1].shape[0], d.rotary_dim / 2, "the sizes of freq_factors and rotary_dim / 2");
}

void BindGlu(Binder b, const assay_glu_desc& d, Call* o) {
  b.Count(1, 1, 1, 1);
  b.Check(d.act == ASSAY_GLU_SILU || d.act == ASSAY_GLU_GELU_TANH, ASSAY_ERR_UNSUPPORTED, "unknown activation");
  o->act = static_cast<GluAct>(d.act);
  o->in[0] = b.ActIn(0, "gate_up", 2);
  o->out[0] = b.ActOut(0, "y", 2);
  b.Same(o->in[0].shape[0], o->out[0].shape[0], "the rows of gate_up and y");
  b.Same(o->in[0].shape[1] % 2, 0, "the remainder of gate_up's columns by two and 0");
  b.Same(o->in[0].shape[1] / 2, o->out[0].shape[1], "half the columns of gate_up and those of y");
}

void BindAddScale(Binder b, const assay_add_scale_desc& d, Call* o) {
  b.Count(1, 2, 1, 1);
  o->alpha = d.alpha;
  o->beta = d.beta;
  o->in[0] = b.ActIn(0, "a", 2);
  o->in[1] = b.OptActIn(1, "b", 2);
  o->out[0] = b.ActOut(0, "y", 2);
  b.SameShape(o->in[0], o->out[0], "the shapes of a and y");
  if (o->in[1].ndim > 0) b.SameShape(o->in[0], o->in[1], "the shapes of a and b");
}

void BindLinear(Binder b, const assay_linear_desc& d, Call* o) {
  b.Count(2, 3, 1, 1);
  b.Check(d.compute == ASSAY_DTYPE_NONE || d.compute == ASSAY_F32, ASSAY_ERR_UNSUPPORTED, "unknown compute dtype");
  o->weight.compute = static_cast<DType>(d.compute);
  o->in[0] = b.ActIn(0, "x", 2);
  o->in[1] = b.Weight(1, "w", &o->weight, /*any_compute=*/false);
  o->in[2] = b.OptIn(2, "bias", 1, kF32);
  o->out[0] = b.Out(0, "y", 2, {o->in[0].dtype, DType::kF32});
  b.Same(o->in[0].shape[1], o->weight.cols, "the columns of x and w");
  b.Same(o->in[0].shape[0], o->out[0].shape[0], "the rows of x and y");
  b.Same(o->out[0].shape[1], o->weight.rows, "the columns of y and the rows of w");
  if (o->in[2].ndim > 0) b.Same(o->in[2].shape[0], o->weight.rows, "the size of bias and the rows of w");
}

void BindKvWritePaged(Binder b, const assay_kv_desc& d, Call* o) {
  b.Count(3, 3, 2, 2);
  o->kv = ReadKvAttr(b, d.layout, d.block_size);
  o->in[0] = b.ActIn(0, "k", 3);
  o->in[1] = b.ActIn(1, "v", 3);
  o->in[2] = b.In(2, "slots", 1, kIndex);
  o->out[0] = b.Out(0, "k_cache", 4, kCaches);
  o->out[1] = b.Out(1, "v_cache", 4, kCaches);
  b.SameShape(o->in[0], o->in[1], "the shapes of k and v");
  b.Same(o->in[2].shape[0], o->in[0].shape[0], "the tokens of slots and k");
  CheckCaches(b, o->out[0], o->out[1], o->kv, o->in[0].shape[1], o->in[0].shape[2]);
}

void BindAttnPaged(Binder b, const assay_attn_desc& d, Call* o) {
  b.Count(6, 6, 1, 1);
  o->attn = {ReadKvAttr(b, d.layout, d.block_size), d.scale, d.window, d.softcap};
  o->in[0] = b.ActIn(0, "q", 3);
  o->in[1] = b.In(1, "k_cache", 4, kCaches);
  o->in[2] = b.In(2, "v_cache", 4, kCaches);
  o->in[3] = b.In(3, "block_table", 2, kIndex);
  o->in[4] = b.In(4, "q_offsets", 1, kIndex);
  o->in[5] = b.In(5, "kv_lens", 1, kIndex);
  o->out[0] = b.ActOut(0, "y", 3);
  const View& q = o->in[0];
  const int64_t kv_heads = o->in[1].shape[d.layout == ASSAY_KV_HND ? 1 : 2];
  b.SameShape(q, o->out[0], "the shapes of q and y");
  CheckCaches(b, o->in[1], o->in[2], o->attn.kv, -1, q.shape[2]);
  b.Same(o->in[3].shape[0], o->in[5].shape[0], "the sequences of block_table and kv_lens");
  b.Same(o->in[4].shape[0], o->in[5].shape[0] + 1, "the entries of q_offsets and of kv_lens plus one");
  b.Check(kv_heads > 0 && q.shape[1] % kv_heads == 0, ASSAY_ERR_UNSUPPORTED,
          "the query heads are not a multiple of the KV heads");
  b.CheckHeadDim(q.shape[2], "head size");
}

void BindQkNormRopeKvWrite(Binder b, const assay_qk_norm_rope_kv_write_desc& d, Call* o) {
  b.Count(5, 8, 3, 3);
  o->eps = d.eps;
  o->kv = ReadKvAttr(b, d.layout, d.block_size);
  o->rope = ReadRopeAttr(b, d.rope);
  o->in[0] = b.ActIn(0, "q", 3);
  o->in[1] = b.ActIn(1, "k", 3);
  o->in[2] = b.ActIn(2, "v", 3);
  o->in[3] = b.In(3, "positions", 1, kIndex);
  o->in[4] = b.In(4, "slots", 1, kIndex);
  o->in[5] = b.OptIn(5, "q_weight", 1, kF32);
  o->in[6] = b.OptIn(6, "k_weight", 1, kF32);
  o->in[7] = b.OptIn(7, "freq_factors", 1, kF32);
  o->out[0] = b.ActOut(0, "q", 3);
  o->out[1] = b.Out(1, "k_cache", 4, kCaches);
  o->out[2] = b.Out(2, "v_cache", 4, kCaches);
  const View &q = o->in[0], &k = o->in[1];
  b.SameShape(q, o->out[0], "the shapes of q, read and written");
  b.Check(q.data == o->out[0].data, ASSAY_ERR_INVALID, "q is not changed in place");
  b.SameShape(k, o->in[2], "the shapes of k and v");
  b.Same(q.shape[2], k.shape[2], "the head sizes of q and k");
  for (const int tokens : {1, 3, 4}) {
    b.Same(o->in[tokens].shape[0], q.shape[0], "the tokens of q and of another tensor");
  }
  for (int i = 5; i < 7; ++i) {
    if (o->in[i].ndim > 0) b.Same(o->in[i].shape[0], q.shape[2], "the sizes of a norm's weight and of a head");
  }
  b.Check(d.rope.rotary_dim <= q.shape[2], ASSAY_ERR_INVALID, "rotary_dim exceeds the head size");
  b.CheckHeadDim(q.shape[2], "head size");
  if (o->in[7].ndim > 0)
    b.Same(o->in[7].shape[0], d.rope.rotary_dim / 2, "the size of freq_factors and rotary_dim / 2");
  CheckCaches(b, o->out[1], o->out[2], o->kv, k.shape[1], k.shape[2]);
}

void BindAllReduce(Binder b, const assay_comm_desc& d, Call* o) {
  b.Count(1, 1, 1, 1);
  o->comm = d.comm;
  o->in[0] = b.ActIn(0, "x", 2);
  o->out[0] = b.ActOut(0, "x", 2);
  b.SameShape(o->in[0], o->out[0], "the shapes of x, read and written");
  b.Check(o->in[0].data == o->out[0].data, ASSAY_ERR_INVALID, "x is not summed in place");
  b.Contiguous(o->out[0], "x");
}

void BindAllGather(Binder b, const assay_comm_desc& d, Call* o) {
  b.Count(1, 1, 1, 1);
  o->comm = d.comm;
  o->in[0] = b.In(0, "x", 2, kF32);
  o->out[0] = b.Out(0, "y", 2, kF32);
  b.Same(o->in[0].shape[0], o->out[0].shape[0], "the rows of x and y");
  b.Check(o->in[0].shape[1] > 0, ASSAY_ERR_INVALID, "x has no columns");
  b.Contiguous(o->in[0], "x");
  b.Contiguous(o->out[0], "y");
}

void BindSample(Binder b, Call* o) {
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

void BindLogprobs(Binder b, Call* o) {
  b.Count(2, 2, 1, 3);
  o->in[0] = b.In(0, "logits", 2, kF32);
  o->in[1] = b.In(1, "targets", 1, kIndex);
  o->out[0] = b.Out(0, "target_logprob", 1, kF32);
  o->out[1] = b.OptOut(1, "top_ids", 2, kIndex);
  o->out[2] = b.OptOut(2, "top_logprobs", 2, kF32);
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

void BindProbeRead(Binder b, Call* o) {
  b.Count(1, 1, 1, 1);
  o->in[0] = b.In(0, "x", 1, {DType::kU8});
  o->out[0] = b.Out(0, "sink", 1, kF32);
  b.Same(o->out[0].shape[0], 1, "the size of sink and 1");
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
    case ASSAY_Q5_0:
      return "q5_0";
    case ASSAY_Q5_1:
      return "q5_1";
    case ASSAY_Q4_K:
      return "q4_k";
    case ASSAY_Q5_K:
      return "q5_k";
    case ASSAY_Q6_K:
      return "q6_k";
    case ASSAY_F8_B128:
      return "f8_b128";
    case ASSAY_I4_G128:
      return "i4_g128";
    default:
      return "unknown";
  }
}

Call ReadCall(const Rules& rules, const assay_op_desc* desc, const assay_args* args, bool resolve) {
  Call o;
  o.op = ReadStruct<assay_op_desc>(desc, "the operation's descriptor").op;
  const assay_args a = ReadStruct<assay_args>(args, "the list of arguments");
  switch (o.op) {
    case ASSAY_OP_EMBED:
      BindEmbed({"embed", rules, a, resolve}, &o);
      break;
    case ASSAY_OP_GATHER_ROWS:
      BindGatherRows({"gather_rows", rules, a, resolve}, &o);
      break;
    case ASSAY_OP_CAST:
      BindCast({"cast", rules, a, resolve}, &o);
      break;
    case ASSAY_OP_KV_BLOCK_COPY:
      BindKvBlockCopy({"kv_block_copy", rules, a, resolve}, ReadStruct<assay_kv_desc>(desc, "kv_block_copy"), &o);
      break;
    case ASSAY_OP_RMS_NORM:
      BindRmsNorm({"rms_norm", rules, a, resolve}, ReadStruct<assay_norm_desc>(desc, "rms_norm"), a, &o);
      break;
    case ASSAY_OP_ADD_RMS_NORM:
      BindAddRmsNorm({"add_rms_norm", rules, a, resolve}, ReadStruct<assay_norm_desc>(desc, "add_rms_norm"), &o);
      break;
    case ASSAY_OP_ROPE:
      BindRope({"rope", rules, a, resolve}, ReadStruct<assay_rope_desc>(desc, "rope"), &o);
      break;
    case ASSAY_OP_GLU:
      BindGlu({"glu", rules, a, resolve}, ReadStruct<assay_glu_desc>(desc, "glu"), &o);
      break;
    case ASSAY_OP_ADD_SCALE:
      BindAddScale({"add_scale", rules, a, resolve}, ReadStruct<assay_add_scale_desc>(desc, "add_scale"), &o);
      break;
    case ASSAY_OP_LINEAR:
      BindLinear({"linear", rules, a, resolve}, ReadStruct<assay_linear_desc>(desc, "linear"), &o);
      break;
    case ASSAY_OP_KV_WRITE_PAGED:
      BindKvWritePaged({"kv_write_paged", rules, a, resolve}, ReadStruct<assay_kv_desc>(desc, "kv_write_paged"), &o);
      break;
    case ASSAY_OP_ATTN_PAGED:
      BindAttnPaged({"attn_paged", rules, a, resolve}, ReadStruct<assay_attn_desc>(desc, "attn_paged"), &o);
      break;
    case ASSAY_OP_SAMPLE:
      BindSample({"sample", rules, a, resolve}, &o);
      break;
    case ASSAY_OP_LOGPROBS:
      BindLogprobs({"logprobs", rules, a, resolve}, &o);
      break;
    case ASSAY_OP_PROBE_READ:
      BindProbeRead({"probe_read", rules, a, resolve}, &o);
      break;
    case ASSAY_OP_ALL_REDUCE:
    case ASSAY_OP_ALL_GATHER: {
      const bool reduce = o.op == ASSAY_OP_ALL_REDUCE;
      if (!rules.collectives) Fail(ASSAY_ERR_UNSUPPORTED, "this device has no collectives of its own");
      const auto d = ReadStruct<assay_comm_desc>(desc, reduce ? "all_reduce" : "all_gather");
      if (reduce) BindAllReduce({"all_reduce", rules, a, resolve}, d, &o);
      if (!reduce) BindAllGather({"all_gather", rules, a, resolve}, d, &o);
      break;
    }
    case ASSAY_OP_QK_NORM_ROPE_KV_WRITE:
      BindQkNormRopeKvWrite({"qk_norm_rope_kv_write", rules, a, resolve},
                            ReadStruct<assay_qk_norm_rope_kv_write_desc>(desc, "qk_norm_rope_kv_write"), &o);
      break;
    default:
      Fail(ASSAY_ERR_UNSUPPORTED, "operation %d is not implemented", o.op);
  }
  return o;
}

WeightSpec ReadWeight(const Rules& rules, const assay_weight_desc* desc) {
  const auto d = ReadStruct<assay_weight_desc>(desc, "the weight's descriptor");
  const WeightSpec spec = {static_cast<DType>(d.dtype), static_cast<DType>(d.compute), d.rows, d.cols};
  constexpr uint32_t kUsages = ASSAY_WEIGHT_LINEAR | ASSAY_WEIGHT_EMBED;
  if (d.usage == 0 || (d.usage & ~kUsages) != 0) Fail(ASSAY_ERR_INVALID, "weight: unknown usage %u", d.usage);
  constexpr int64_t kMost = int64_t{1} << 30;  // of rows and of columns: sizes in bytes cannot overflow
  if (d.rows <= 0 || d.cols <= 0 || d.rows > kMost || d.cols > kMost) {
    Fail(ASSAY_ERR_INVALID, "weight: [%lld, %lld] is not a usable shape", static_cast<long long>(d.rows),
         static_cast<long long>(d.cols));
  }
  const bool listed = std::find(rules.weights.begin(), rules.weights.end(), spec.dtype) != rules.weights.end();
  if (!listed || d.cols % StorageOf(spec.dtype).elements != 0) {
    Fail(ASSAY_ERR_UNSUPPORTED, "weight: no kernel for dtype %s with %lld columns", NameOf(spec.dtype),
         static_cast<long long>(d.cols));
  }
  if (rules.weight_unsupported != nullptr) {
    if (const char* why = rules.weight_unsupported(spec)) Fail(ASSAY_ERR_UNSUPPORTED, "weight: %s", why);
  }
  return spec;
}

const float* ReadScales(const WeightSpec& spec, const assay_weight_desc* desc) {
  if (!IsRowScaled(spec.dtype)) return nullptr;
  const float* scales = ReadStruct<assay_weight_desc>(desc, "the weight's descriptor").scales;
  if (scales == nullptr) Fail(ASSAY_ERR_INVALID, "weight: %s comes without the scales of its rows", NameOf(spec.dtype));
  return scales;
}

char* Range(const Memory& memory, uint64_t offset, uint64_t bytes) {
  if (offset > memory.bytes || bytes > memory.bytes - offset) {
    Fail(ASSAY_ERR_INVALID, "%llu bytes at offset %llu reach beyond a buffer of %llu bytes",
         static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(offset),
         static_cast<unsigned long long>(memory.bytes));
  }
  return memory.data + offset;
}

uint64_t PlainBytes(DType dtype, int64_t rows, int64_t cols) {
  const Storage storage = StorageOf(dtype);
  return static_cast<uint64_t>(rows) * static_cast<uint64_t>(cols / storage.elements * storage.bytes);
}

}  // namespace assay::backend
