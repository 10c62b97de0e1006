/* SPDX-License-Identifier: Apache-2.0
 *
 * assay_backend.h: the C ABI between assay and a backend. It is the only header a vendor needs.
 *
 * A backend is a shared object (or a part of the program itself) that exports one function,
 * `assay_backend_entry`. The host calls it once and receives a table of functions. Everything else
 * happens through that table.
 *
 * Rules that hold for the whole header
 *   Versioning   Every struct that crosses the border starts with `struct_size`, set by whoever
 *                fills the struct to sizeof() as it knows it. Structs only ever grow at the end, enum
 *                values are never reused or renumbered. A reader treats members beyond the other side's
 *                `struct_size` as absent (zero / NULL). Use ASSAY_HAS_FIELD to ask.
 *   Errors       Every call returns an `assay_status`. When it is not ASSAY_OK the callee writes one
 *                line (what is wrong, and where) into `msg`, which the caller owns and which may be NULL.
 *                No C++ exception may cross the border.
 *   Ownership    Handles are opaque, owned by the backend, and released by the matching `_destroy` call.
 *                Pointers passed to a call are only valid during that call, unless it says otherwise.
 *   Threads      Calls on different devices may come from different threads at the same time. Calls on one
 *                device come from one thread at a time (the host serialises them), except telemetry_read and
 *                supports, which may come from any thread at any time.
 *   Order        Work on one stream runs in the order in which it was enqueued. Work on different streams
 *                is ordered by events only. `enqueue`, copies and `plan_launch` may return before the work is
 *                done; nothing in them may allocate memory or wait for the device (capture forbids both).
 *   Values       What changes from step to step (positions, lengths, block tables, sampling parameters) is
 *                in tensors. Descriptors hold static attributes only, so that a recorded plan can be replayed.
 */
#ifndef ASSAY_BACKEND_H_
#define ASSAY_BACKEND_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised only for an incompatible change. Additions do not raise it: they are seen by struct_size. */
#define ASSAY_ABI_VERSION 1u

/* True when the struct behind pointer `p` is large enough to hold `field`. */
#define ASSAY_HAS_FIELD(p, type, field) ((p)->struct_size >= offsetof(type, field) + sizeof(((type*)0)->field))

#if defined(_WIN32)
#define ASSAY_EXPORT __declspec(dllexport)
#else
#define ASSAY_EXPORT __attribute__((visibility("default")))
#endif

/* ------------------------------------------------------------------------------------------------
 * Status
 */
typedef int32_t assay_status;
enum {
  ASSAY_OK = 0,
  ASSAY_ERR_INVALID = 1,     /* an argument breaks this contract */
  ASSAY_ERR_UNSUPPORTED = 2, /* legal, but this backend does not do it; msg says why */
  ASSAY_ERR_NO_MEMORY = 3,   /* host or device memory; msg says how much was asked for */
  ASSAY_ERR_DEVICE = 4,      /* the device failed or is lost; further work on it may fail too */
  ASSAY_ERR_INTERNAL = 5     /* a bug in the backend */
};

/* One line of text for a person, NUL-terminated. The caller sets struct_size and owns it. */
typedef struct assay_message {
  uint32_t struct_size;
  char text[1020];
} assay_message;

/* ------------------------------------------------------------------------------------------------
 * Data types
 *
 * A block type packs `block_elems` consecutive elements of a row into `block_bytes`, little-endian. Values from 32 on
 * are GGUF's (ggml's) layouts:
 *   Q8_0  32 elements, 34 bytes: f16 d; i8 q[32];               x = d * q
 *   Q4_0  32 elements, 18 bytes: f16 d; u8 q[16];               x = d * (q - 8)
 *   Q4_1  32 elements, 20 bytes: f16 d; f16 m; u8 q[16];        x = d * q + m
 *   Q5_0  32 elements, 22 bytes: f16 d; u8 h[4]; u8 q[16];      x = d * (q - 16)
 *   Q5_1  32 elements, 24 bytes: f16 d; f16 m; u8 h[4]; u8 q[16];  x = d * q + m
 *         (bit i of the little-endian h is bit 4 of element i)
 *   Q4_K  256 elements, 144 bytes: f16 d; f16 m; u8 s[12]; u8 q[128];           x = d * sc[j] * q - m * mn[j]
 *   Q5_K  256 elements, 176 bytes: f16 d; f16 m; u8 s[12]; u8 h[32]; u8 q[128]; x = d * sc[j] * q - m * mn[j]
 *         (j = i / 32; the low 6 bits of s[j] are sc[j], of s[j + 4] mn[j], for j < 4; for j >= 4, sc[j] is the low
 *         nibble of s[j + 4] with the upper 2 bits of s[j - 4] above it, mn[j] its high nibble with those of s[j].
 *         q[32 * (j / 2) + i % 32] holds element i in its low nibble for even j, in its high nibble for odd j; bit j of
 *         h[i % 32] is bit 4 of element i)
 *   Q6_K  256 elements, 210 bytes: u8 q[128]; u8 h[64]; i8 s[16]; f16 d;        x = d * s[i / 16] * (q - 32)
 *         (element i = 128 n + 32 t + l: its low 4 bits are the low (t < 2) or high nibble of q[64 n + 32 (t % 2) + l],
 *         its upper 2 bits are bits 2t, 2t + 1 of h[32 n + l])
 * Values from 64 on are layouts for what models are published in:
 *   F8_B128  128 elements, 132 bytes: f32 d; u8 q[128];         x = d * e4m3(q)
 *   I4_G128  128 elements, 68 bytes: f16 d; f16 m; u8 q[64];    x = d * q + m
 *   (AWQ and GPTQ in groups of 128: d is the scale, m = -scale * zero.)
 * Weights in the plain types F8_E4M3 and I8 have a scale for each row: see assay_weight_desc.
 * 4-bit: element i of a block of n is the low nibble of q[i] for i < n / 2, the high nibble of q[i - n / 2] above.
 * e4m3: a sign, 4 bits of exponent with bias 7, 3 bits of fraction; without infinities: 0x7F and 0xFF are NaN, the
 * largest value is 448. F8_E4M3 is this alone, x = e4m3(q), without a scale. Rounded to, it is to nearest even; beyond
 * 448, infinities included, gives 448, and NaN stays NaN.
 */
typedef int32_t assay_dtype;
enum {
  ASSAY_DTYPE_NONE = 0,
  ASSAY_F32 = 1,
  ASSAY_F16 = 2,
  ASSAY_BF16 = 3,
  ASSAY_F8_E4M3 = 4,
  ASSAY_F8_E5M2 = 5,
  ASSAY_I8 = 6,
  ASSAY_U8 = 7,
  ASSAY_I32 = 8,
  ASSAY_I64 = 9,
  ASSAY_Q8_0 = 32,
  ASSAY_Q4_0 = 33,
  ASSAY_Q4_1 = 34,
  ASSAY_Q5_0 = 35,
  ASSAY_Q5_1 = 36,
  ASSAY_Q4_K = 37,
  ASSAY_Q5_K = 38,
  ASSAY_Q6_K = 39,
  ASSAY_F8_B128 = 64,
  ASSAY_I4_G128 = 65
};

/* ------------------------------------------------------------------------------------------------
 * Handles
 */
typedef struct assay_device_s* assay_device;
typedef struct assay_buffer_s* assay_buffer;
typedef struct assay_stream_s* assay_stream;
typedef struct assay_event_s* assay_event;
typedef struct assay_plan_s* assay_plan;
typedef struct assay_comm_s* assay_comm;

/* ------------------------------------------------------------------------------------------------
 * Tensors
 *
 * A view of a buffer; the struct owns nothing. Dimension 0 is the slowest. `stride` counts elements; the
 * last dimension is contiguous (stride 1) and a row of a block type is a whole number of blocks.
 * Unused dimensions have shape 1 and stride 0. A packed weight (see weight_pack) is described by its
 * logical dtype and shape; only the backend that packed it knows what lies in the buffer.
 */
#define ASSAY_MAX_DIMS 4
typedef struct assay_tensor {
  uint32_t struct_size;
  assay_dtype dtype;
  int32_t ndim;
  uint32_t flags; /* ASSAY_TENSOR_PACKED */
  assay_buffer buffer;
  uint64_t offset; /* bytes from the start of the buffer to element [0,0,..] */
  int64_t shape[ASSAY_MAX_DIMS];
  int64_t stride[ASSAY_MAX_DIMS];
} assay_tensor;
#define ASSAY_TENSOR_PACKED 1u

/* ------------------------------------------------------------------------------------------------
 * Operations
 *
 * An operation is an id, a descriptor of static attributes, a list of input tensors and a list of output
 * tensors, in the order given below. "T" is the number of tokens in the step, "S" the number of sequences,
 * "act" the activation dtype (F32, BF16 or F16), "opt" an input or output that may be NULL.
 * Inputs and outputs do not overlap unless an operation says "in place". Every element of an output is
 * written, nothing outside it is. A size of zero is legal and does nothing.
 *
 * The scalar specification of each operation is kernels/ref/ in assay's source.
 */
typedef int32_t assay_op;
enum {
  ASSAY_OP_NONE = 0,

  /* embed           in: ids [T] i32, table [V,H] packed(EMBED)              out: y [T,H] act
   *                 An id outside [0,V) yields a row of zeros. */
  ASSAY_OP_EMBED = 1,

  /* gather_rows     in: x [N,H] act, index [M] i32                          out: y [M,H] act
   *                 An index outside [0,N) yields a row of zeros. */
  ASSAY_OP_GATHER_ROWS = 2,

  /* cast            in: x [R,C] f32|bf16|f16                                out: y [R,C] f32|bf16|f16
   *                 Round to nearest even. Equal dtypes make it a copy. */
  ASSAY_OP_CAST = 3,

  /* kv_block_copy   in: pairs [N,2] i32 (source block, target block)        in place: k_cache, v_cache
   *                 Pairs are independent: no block is both a source and a target. A negative entry skips. */
  ASSAY_OP_KV_BLOCK_COPY = 4,

  /* rms_norm        in: x [R,C] or [R,G,C] act, w [C] f32                   out: y, the shape of x, act
   *                 y = x / sqrt(mean(x^2) + eps) * w over the last dimension. May be in place (y is x). */
  ASSAY_OP_RMS_NORM = 5,

  /* add_rms_norm    in: x [R,C] act, w [C] f32                              out: residual [R,C] act (in place), y [R,C]
   * act residual += x, then y = rms_norm(residual) as rounded to act. */
  ASSAY_OP_ADD_RMS_NORM = 6,

  /* rope            in: positions [T] i32, freq_factors [rotary_dim/2] f32 (opt)   in place: q [T,Hq,D] act, k
   * [T,Hkv,D] act (opt) Rotates the first rotary_dim elements of each head; see assay_rope_desc. Pair i turns by
   *                 position * inv_freq[i] / freq_factors[i] (factors: GGUF's rope_freqs tensor). */
  ASSAY_OP_ROPE = 7,

  /* glu             in: gate_up [T,2F] act (gate first)                     out: y [T,F] act
   *                 y = f(gate) * up. */
  ASSAY_OP_GLU = 8,

  /* add_scale       in: a [R,C] act, b [R,C] act (opt)                      out: y [R,C] act
   *                 y = alpha * a + beta * b. May be in place (y is a). */
  ASSAY_OP_ADD_SCALE = 9,

  /* linear          in: x [M,K] act, w [N,K] packed(LINEAR), bias [N] f32 (opt)   out: y [M,N] act|f32
   *                 y = x * w^T + bias. Products accumulate in f32 or better. With compute ASSAY_F32 the operands
   *                 are not rounded below f32; otherwise x may be rounded to the precision that suits the weights:
   *                 bf16 or f16; beside GGUF's block types 8-bit integers in blocks of 32; beside I4_G128 any of these;
   *                 beside F8_B128 e4m3 with a scale per 128 elements; beside F8_E4M3 and I8 bf16, f16, or the weight's
   *                 own type with a scale per row of x. Quants may be unpacked to bf16 or f16. */
  ASSAY_OP_LINEAR = 10,

  ASSAY_OP_QUANTIZE_ACT = 11,   /* reserved */
  ASSAY_OP_BATCHED_MATMUL = 12, /* reserved */
  ASSAY_OP_GROUPED_MATMUL = 13, /* reserved */
  ASSAY_OP_MOE_ROUTE = 14,      /* reserved */
  ASSAY_OP_MOE_PERMUTE = 15,    /* reserved */
  ASSAY_OP_MOE_COMBINE = 16,    /* reserved */

  /* kv_write_paged  in: k [T,Hkv,D] act, v [T,Hkv,D] act, slots [T] i32     in place: k_cache, v_cache
   *                 slot = block * block_size + offset; a negative slot (padding) is skipped.
   *                 Caches are [blocks, Hkv, block_size, D] (ASSAY_KV_HND) or [blocks, block_size, Hkv, D]
   *                 (ASSAY_KV_NHD), of the cache's own dtype: F32, BF16, F16 or F8_E4M3. */
  ASSAY_OP_KV_WRITE_PAGED = 17,

  /* attn_paged      in: q [T,Hq,D] act, k_cache, v_cache, block_table [S,B] i32, q_offsets [S+1] i32, kv_lens [S] i32
   *                 out: y [T,Hq,D] act
   *                 Sequence s owns query rows q_offsets[s] .. q_offsets[s+1]; its last query sits at position
   *                 kv_lens[s]-1 and query i attends to positions <= its own (causal), no further back than
   *                 `window` positions including itself if window > 0. Query head h reads KV head h / (Hq/Hkv).
   *                 score = softcap(scale * q.k); softcap(z) = cap * tanh(z / cap) if cap > 0.
   *                 Rows that no sequence owns, and rows of a sequence with kv_lens 0, are set to zero.
   *                 Only entries of block_table that kv_lens reaches are read. Operands may be rounded to the coarser
   *                 of act and the caches' dtype, but never below 16 bits. As what a NaN in F8_E4M3 counts is the
   *                 device's choice.
   *                 Host mirror: q_offsets and kv_lens, when the device declares needs_host_lengths. */
  ASSAY_OP_ATTN_PAGED = 18,

  ASSAY_OP_MLA_KV_WRITE = 19,   /* reserved */
  ASSAY_OP_MLA_ATTN_PAGED = 20, /* reserved */
  ASSAY_OP_LOGITS_PROCESS = 21, /* reserved */

  /* sample          in: logits [S,V] f32, temperature [S] f32, top_k [S] i32, top_p [S] f32, min_p [S] f32,
   *                     seed [S] i64, step [S] i32
   *                 out: ids [S] i32
   *                 temperature <= 0: the lowest index of the largest logit (greedy; NaN counts as -inf).
   *                 Otherwise, p = softmax(logits / temperature); candidates sorted by (p descending, index
   *                 ascending); keep the first top_k (if top_k > 0); of these, p renormalised, the shortest prefix
   *                 whose sum reaches top_p (if top_p < 1; at least one); of these drop p < min_p * p[0] (if
   *                 min_p > 0); draw with u = assay_uniform(seed, step): the first candidate whose cumulative
   *                 renormalised sum exceeds u. */
  ASSAY_OP_SAMPLE = 22,

  /* logprobs        in: logits [M,V] f32, targets [M] i32
   *                 out: target_logprob [M] f32, top_ids [M,K] i32 (opt), top_logprobs [M,K] f32 (opt)
   *                 Natural log of softmax(logits). A target outside [0,V) yields NaN. Top entries are sorted by
   *                 (logprob descending, index ascending); K <= V. */
  ASSAY_OP_LOGPROBS = 23,

  /* Collectives of a communicator (comm_create). Every rank of it enqueues the same ones in the same order, with
   * tensors of the same shapes, on one stream; some ranks may do so from a plan and others not.
   * all_reduce      in place: x [R,C] act, contiguous (given as input and output)
   *                 Element by element the sum over ranks; the same bits on every rank. desc: assay_comm_desc */
  ASSAY_OP_ALL_REDUCE = 24,

  /* all_gather      in: x [M,N] f32, contiguous                             out: y [M,V] f32, contiguous
   *                 Column c of rank r's x becomes column r * N + c of every rank's y; (size - 1) * N < V <= size * N,
   *                 and columns from V on are dropped (the last rank's part may be shorter than N). desc:
   *                 assay_comm_desc */
  ASSAY_OP_ALL_GATHER = 25,

  ASSAY_OP_REDUCE_SCATTER = 26, /* reserved */
  ASSAY_OP_ALL_TO_ALL = 27,     /* reserved */

  /* Limit probes: not part of a model. They let the host measure what the device can attain.
   * probe_read      in: x [N] u8                                            out: sink [1] f32
   *                 Reads every byte of x once, with all of the device's parallelism; writes any value that
   *                 depends on them. */
  ASSAY_OP_PROBE_READ = 64,

  /* Tier 2: composites. A backend may claim one through `supports`; its reference is its decomposition. The
   * host uses a claimed composite where a model holds the pattern, and the decomposition otherwise.
   *
   * qk_norm_rope_kv_write = rms_norm(q) opt, rms_norm(k) opt, rope(q,k), kv_write_paged(k,v)
   *                 desc: assay_qk_norm_rope_kv_write_desc
   *                 in: q [T,Hq,D], k [T,Hkv,D], v [T,Hkv,D], positions [T], slots [T], q_weight [D] opt, k_weight [D]
   * opt, freq_factors opt in place: q, k_cache, v_cache (given again as outputs). k is left undefined. */
  ASSAY_OP_QK_NORM_ROPE_KV_WRITE = 4096,
  ASSAY_OP_ADD_RMS_NORM_LINEAR = 4097, /* reserved */
  ASSAY_OP_DECODE_STEP = 4098          /* reserved */
};

/* The uniform number in [0,1) that `sample` draws; the same on every device.
 * splitmix64 finaliser (Steele, Lea, Flood 2014) over seed and step, top 24 bits. */
static inline float assay_uniform(uint64_t seed, uint32_t step) {
  uint64_t z = seed + 0x9E3779B97F4A7C15ull * ((uint64_t)step + 1u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  z ^= z >> 31;
  return (float)(z >> 40) * (1.0f / 16777216.0f);
}

/* Descriptors. `supports`, `workspace_size` and `enqueue` take a pointer to the operation's descriptor, as
 * `const assay_op_desc*`; each descriptor begins with the members of assay_op_desc. Operations without
 * attributes take a plain assay_op_desc. */
typedef struct assay_op_desc {
  uint32_t struct_size;
  assay_op op;
} assay_op_desc;

typedef struct assay_norm_desc { /* rms_norm, add_rms_norm */
  uint32_t struct_size;
  assay_op op;
  float eps;
} assay_norm_desc;

typedef int32_t assay_rope_scaling;
enum {
  ASSAY_ROPE_NONE = 0,   /* inv_freq[i] = theta^(-2i/rotary_dim), i < rotary_dim/2 */
  ASSAY_ROPE_LINEAR = 1, /* inv_freq / factor */
  ASSAY_ROPE_LLAMA3 = 2, /* Llama 3.1: wavelength bands between low and high freq_factor */
  ASSAY_ROPE_YARN = 3    /* arXiv 2309.00071: ramp between beta_fast and beta_slow; cos/sin times attn_factor */
};

/* rope. Pairs are (i, i + rotary_dim/2) when interleaved is 0 ("neox"), else (2i, 2i+1). */
typedef struct assay_rope_desc {
  uint32_t struct_size;
  assay_op op;
  int32_t rotary_dim; /* even, <= D */
  int32_t interleaved;
  float theta;
  assay_rope_scaling scaling;
  float factor;
  float low_freq_factor;  /* llama3 */
  float high_freq_factor; /* llama3 */
  float original_context; /* llama3, yarn: positions the model was trained on */
  float beta_fast;        /* yarn */
  float beta_slow;        /* yarn */
  float attn_factor;      /* yarn: multiplies cos and sin; 1 for every other scaling */
} assay_rope_desc;

typedef int32_t assay_glu_act;
enum { ASSAY_GLU_SILU = 0, ASSAY_GLU_GELU_TANH = 1 };

typedef struct assay_glu_desc {
  uint32_t struct_size;
  assay_op op;
  assay_glu_act act;
} assay_glu_desc;

typedef struct assay_add_scale_desc {
  uint32_t struct_size;
  assay_op op;
  float alpha;
  float beta;
} assay_add_scale_desc;

typedef struct assay_linear_desc {
  uint32_t struct_size;
  assay_op op;
  assay_dtype compute; /* ASSAY_F32: strict f32. ASSAY_DTYPE_NONE: what suits the weight's dtype */
} assay_linear_desc;

typedef int32_t assay_kv_layout;
enum {
  ASSAY_KV_HND = 1, /* [blocks, Hkv, block_size, D] */
  ASSAY_KV_NHD = 2  /* [blocks, block_size, Hkv, D] */
};

typedef struct assay_kv_desc { /* kv_write_paged, kv_block_copy */
  uint32_t struct_size;
  assay_op op;
  assay_kv_layout layout;
  int32_t block_size; /* tokens per block */
} assay_kv_desc;

typedef struct assay_attn_desc {
  uint32_t struct_size;
  assay_op op;
  assay_kv_layout layout;
  int32_t block_size;
  float scale;
  int32_t window; /* 0: no window */
  float softcap;  /* 0: none */
} assay_attn_desc;

typedef struct assay_comm_desc { /* all_reduce, all_gather */
  uint32_t struct_size;
  assay_op op;
  assay_comm comm; /* of the stream's device */
} assay_comm_desc;

typedef struct assay_qk_norm_rope_kv_write_desc {
  uint32_t struct_size;
  assay_op op;
  float eps;
  assay_kv_layout layout;
  int32_t block_size;
  assay_rope_desc rope;
} assay_qk_norm_rope_kv_write_desc;

/* The tensors of one operation. Entries may be NULL only where the operation says "opt". */
typedef struct assay_args {
  uint32_t struct_size;
  uint32_t n_in;
  uint32_t n_out;
  uint32_t reserved;
  const assay_tensor* const* in;
  const assay_tensor* const* out;
} assay_args;

/* ------------------------------------------------------------------------------------------------
 * Weights
 */
enum {
  ASSAY_WEIGHT_LINEAR = 1u, /* the weight is read by linear */
  ASSAY_WEIGHT_EMBED = 2u   /* the weight is read by embed (both flags: tied embeddings, packed once) */
};

typedef struct assay_weight_desc {
  uint32_t struct_size;
  assay_dtype dtype;   /* of the source bytes and, logically, of the packed weight */
  uint32_t usage;      /* ASSAY_WEIGHT_* */
  assay_dtype compute; /* as in assay_linear_desc */
  int64_t rows;        /* N: output features, or vocabulary */
  int64_t cols;        /* K: input features */
  /* F8_E4M3 and I8, x = scale * q: [rows] in host memory, finite; weight_pack alone reads it. A checkpoint's one scale
   * for the whole tensor is the same number in every row, so that weights which share an input can be joined. The
   * scales are part of the packed weight, not operands of linear: like the quants they are known at load, and each
   * backend wants them in a place and form of its own. */
  const float* scales;
} assay_weight_desc;

/* ------------------------------------------------------------------------------------------------
 * Devices and capabilities
 */
#define ASSAY_MAX_LIST 8

typedef struct assay_device_info {
  uint32_t struct_size;
  int32_t is_accelerator; /* 0 for a CPU */
  int32_t is_reference;   /* 1: slow scalar specification, never chosen by default */
  char id[32];            /* unique within the backend, what a user types: "cpu", "cuda:0" */
  char name[128];         /* the marketing name as the driver or CPU reports it */
  char detail[256];       /* one line: ISA in use, driver version... */
  uint64_t memory_bytes;  /* total device memory, 0 if unknown */
  uint64_t memory_free;   /* available now, 0 if unknown */
  int32_t compute_units;  /* threads, SMs, ... */

  /* Capabilities the engine obeys. Lists end at the first 0. */
  assay_dtype act_dtypes[ASSAY_MAX_LIST]; /* activations, the preferred one first */
  assay_dtype kv_dtypes[ASSAY_MAX_LIST];  /* KV cache, the preferred one first */
  assay_dtype weight_dtypes[2 * ASSAY_MAX_LIST];
  int32_t kv_block_sizes[ASSAY_MAX_LIST];     /* the preferred one first */
  assay_kv_layout kv_layouts[ASSAY_MAX_LIST]; /* the preferred one first */
  int32_t max_head_dim;
  int32_t needs_host_lengths; /* 1: plan_launch and enqueue need assay_host_lengths */
  int32_t peer_access;        /* 1: copies between devices of this backend need no host buffer */
  uint64_t buffer_alignment;  /* what every tensor offset must be a multiple of */
  uint64_t weight_alignment;  /* what every packed weight's offset must be a multiple of */
} assay_device_info;

typedef struct assay_device_options {
  uint32_t struct_size;
  int32_t threads; /* CPU devices: worker threads, 0 = one per usable core. Others ignore it. */
} assay_device_options;

/* Host copies of per-step lengths, for backends that declare needs_host_lengths; otherwise NULL. */
typedef struct assay_host_lengths {
  uint32_t struct_size;
  int32_t sequences;        /* S */
  const int32_t* q_offsets; /* [S+1] */
  const int32_t* kv_lens;   /* [S] */
} assay_host_lengths;

/* Names a communicator; whatever the backend likes, to be carried to the other ranks. */
typedef struct assay_comm_id {
  uint32_t struct_size;
  uint32_t reserved;
  uint8_t bytes[256];
} assay_comm_id;

/* ------------------------------------------------------------------------------------------------
 * Telemetry (optional). A value that is unknown is NaN (double) or UINT64_MAX (u64), never 0.
 */
typedef struct assay_telemetry {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t timestamp_ns;     /* CLOCK_MONOTONIC of the host at the moment of reading */
  uint64_t energy_uj;        /* cumulative counter */
  uint64_t energy_period_us; /* how often that counter moves */
  double power_w;            /* instantaneous */
  double power_period_s;
  double temperature_c;
  double clock_mhz;
  double memory_clock_mhz;
  uint64_t throttle_reasons; /* bit set of power and heat limits that hold the clock down now (not of idleness),
                              * backend-defined; source says where to look it up */
  uint64_t memory_used;
  uint64_t error_count; /* uncorrected memory errors */
  char source[64];      /* for example "nvml field 83" */
} assay_telemetry;

/* ------------------------------------------------------------------------------------------------
 * The function table. Members up to and including `enqueue` are tier 0 and required; the rest may be NULL.
 */
typedef struct assay_backend {
  uint32_t struct_size; /* in: what the host knows. out: min(that, what the backend knows) */
  uint32_t abi_version; /* out: ASSAY_ABI_VERSION the backend was built with */
  const char* name;     /* out: "cpu", "cuda", ...; static storage */
  const char* version;  /* out: static storage */

  /* Devices. device_count may be 0 (no driver, no card): then `*reason` (static storage, may be NULL) says why. */
  assay_status (*device_count)(int32_t* count, const char** reason, assay_message* msg);
  assay_status (*device_info)(int32_t index, assay_device_info* info, assay_message* msg);
  assay_status (*device_create)(int32_t index, const assay_device_options* options, assay_device* device,
                                assay_message* msg);
  void (*device_destroy)(assay_device device);

  /* Buffers: uninitialised device memory. host_visible asks for memory that buffer_map can reach (pinned). */
  assay_status (*buffer_create)(assay_device device, uint64_t bytes, int32_t host_visible, assay_buffer* buffer,
                                assay_message* msg);
  void (*buffer_destroy)(assay_buffer buffer);
  /* Host address of a buffer, valid until it is destroyed; UNSUPPORTED where the host cannot reach it. */
  assay_status (*buffer_map)(assay_buffer buffer, void** address, assay_message* msg);

  /* Streams and events. */
  assay_status (*stream_create)(assay_device device, assay_stream* stream, assay_message* msg);
  void (*stream_destroy)(assay_stream stream);
  assay_status (*stream_synchronize)(assay_stream stream, assay_message* msg);
  assay_status (*event_create)(assay_device device, assay_event* event, assay_message* msg);
  void (*event_destroy)(assay_event event);
  assay_status (*event_record)(assay_event event, assay_stream stream, assay_message* msg);
  assay_status (*event_wait)(assay_stream stream, assay_event event, assay_message* msg);
  /* Blocks the calling thread until the event was reached. */
  assay_status (*event_synchronize)(assay_event event, assay_message* msg);
  /* Device time between two reached events, in nanoseconds. */
  assay_status (*event_elapsed_ns)(assay_event begin, assay_event end, double* ns, assay_message* msg);

  /* Copies, ordered on the stream. The host memory of copy_to_device may be reused when the call returns;
   * that of copy_to_host is valid once the stream was synchronised. */
  assay_status (*copy_to_device)(assay_stream stream, assay_buffer dst, uint64_t dst_offset, const void* src,
                                 uint64_t bytes, assay_message* msg);
  assay_status (*copy_to_host)(assay_stream stream, void* dst, assay_buffer src, uint64_t src_offset, uint64_t bytes,
                               assay_message* msg);
  assay_status (*copy_on_device)(assay_stream stream, assay_buffer dst, uint64_t dst_offset, assay_buffer src,
                                 uint64_t src_offset, uint64_t bytes, assay_message* msg);

  /* Weights. `src` is host memory, [rows, cols] row-major in desc->dtype. weight_pack writes exactly
   * weight_packed_size bytes at dst + offset, in whatever layout the backend likes, and has finished reading
   * `src` when it returns. */
  assay_status (*weight_packed_size)(assay_device device, const assay_weight_desc* desc, uint64_t* bytes,
                                     assay_message* msg);
  assay_status (*weight_pack)(assay_device device, const assay_weight_desc* desc, const void* src, assay_buffer dst,
                              uint64_t offset, assay_message* msg);

  /* Does this device run this operation with tensors of these dtypes, ranks and static sizes? `args` carries
   * tensors whose buffers are not looked at and whose token counts (T, S, M, R) are the largest that will be used.
   * ASSAY_OK, or ASSAY_ERR_UNSUPPORTED with the reason. Called at model load, never during a step. */
  assay_status (*supports)(assay_device device, const assay_op_desc* desc, const assay_args* args, assay_message* msg);
  /* Scratch that enqueue needs for tensors of at most these sizes; aligned to buffer_alignment by the host. The
   * workspace is shared by all operations of a stream: nothing in it survives an operation. */
  assay_status (*workspace_size)(assay_device device, const assay_op_desc* desc, const assay_args* args,
                                 uint64_t* bytes, assay_message* msg);
  assay_status (*enqueue)(assay_stream stream, const assay_op_desc* desc, const assay_args* args,
                          assay_buffer workspace, uint64_t workspace_offset, uint64_t workspace_bytes,
                          const assay_host_lengths* lengths, assay_message* msg);

  /* Tier 1 (optional, all three or none). Between plan_begin and plan_end, what is enqueued on the stream is
   * recorded and not run. A plan may be launched any number of times; it reads the tensors' contents of that
   * moment. The buffers that it refers to outlive it. */
  assay_status (*plan_begin)(assay_stream stream, assay_message* msg);
  assay_status (*plan_end)(assay_stream stream, assay_plan* plan, assay_message* msg);
  assay_status (*plan_launch)(assay_stream stream, assay_plan plan, const assay_host_lengths* lengths,
                              assay_message* msg);
  void (*plan_destroy)(assay_plan plan);

  /* Telemetry (optional). May be called from any thread while work runs; returns within 100 ms. */
  assay_status (*telemetry_read)(assay_device device, assay_telemetry* telemetry, assay_message* msg);

  /* Collectives (optional, all three or none): devices of this backend, in this process or in several, that run one
   * model together. Without them the host sums through buffer_map, if activations are f32. One rank makes an id, the
   * host carries it to all, and each calls comm_create for its device, from a thread or process of its own;
   * the call returns when all have called it. comm_destroy does not wait for the other ranks. */
  assay_status (*comm_unique_id)(assay_comm_id* id, assay_message* msg);
  assay_status (*comm_create)(assay_device device, const assay_comm_id* id, int32_t rank, int32_t size,
                              assay_comm* comm, assay_message* msg);
  void (*comm_destroy)(assay_comm comm);
} assay_backend;

/* What the host offers to a backend. Valid for the life of the process. */
typedef struct assay_host {
  uint32_t struct_size;
  uint32_t abi_version;
  /* level: 0 debug, 1 info, 2 warning, 3 error. Any thread. May be NULL. */
  void (*log)(int32_t level, const char* text);
} assay_host;

/* The one exported symbol. The host sets backend->struct_size; the backend fills the table up to that size and
 * returns. It must not start threads or touch the device yet. Returns ASSAY_ERR_UNSUPPORTED with a message when
 * host->abi_version is not one that it knows. */
typedef assay_status (*assay_backend_entry_fn)(const assay_host* host, assay_backend* backend, assay_message* msg);
#define ASSAY_BACKEND_ENTRY_SYMBOL "assay_backend_entry"
ASSAY_EXPORT assay_status assay_backend_entry(const assay_host* host, assay_backend* backend, assay_message* msg);

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* ASSAY_BACKEND_H_ */
