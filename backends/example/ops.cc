// SPDX-License-Identifier: Apache-2.0
#include "ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace example {
namespace {

// ---------------------------------------------------------------------------------------------- numbers

float FromBF16(uint16_t h) {
  const uint32_t bits = uint32_t{h} << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

uint16_t ToBF16(float f) {  // round to nearest even
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  if (std::isnan(f)) return uint16_t((bits >> 16) | 0x40);
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float FromF16(uint16_t h) {
  const int exponent = (h >> 10) & 31, fraction = h & 1023;
  float f;
  if (exponent == 31) {
    f = fraction ? NAN : INFINITY;
  } else {
    f = exponent ? std::ldexp(float(1024 + fraction), exponent - 25) : std::ldexp(float(fraction), -24);
  }
  return h & 0x8000 ? -f : f;
}

uint16_t ToF16(float f) {  // round to nearest even
  const uint16_t sign = std::signbit(f) ? 0x8000 : 0;
  const float a = std::fabs(f);
  if (std::isnan(f)) return sign | 0x7e00;
  if (a >= 65520.0f) return sign | 0x7c00;
  if (a == 0) return sign;
  int exponent;
  std::frexp(a, &exponent);                       // a = m * 2^exponent, m in [0.5, 1)
  const int unit = std::max(exponent - 11, -24);  // the last bit is worth 2^unit
  // A fraction that rounds up to the next power of two carries into the exponent, as it should.
  const int steps = int(std::nearbyint(std::ldexp(a, -unit)));
  return uint16_t(sign | (steps + ((unit + 24) << 10)));
}

float LoadF16(const uint8_t* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  return FromF16(h);
}

float Dot(const float* a, const float* b, int64_t n) {
  float sums[16] = {};  // independent sums: the compiler may use vectors
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (int j = 0; j < 16; ++j) sums[j] += a[i + j] * b[i + j];
  }
  double sum = 0;
  for (; i < n; ++i) sum += double(a[i]) * b[i];
  for (float s : sums) sum += s;
  return float(sum);
}

// Row i (and j) of an f32 tensor.
float* Row(const assay_tensor* t, int64_t i, int64_t j = 0) {
  return Data<float>(t) + i * t->stride[0] + j * t->stride[1];
}

// ---------------------------------------------------------------------------------------------- rows

// embed and gather_rows; a packed table is f32 too (see ToF32).
void TakeRows(const assay_tensor* index, const assay_tensor* x, const assay_tensor* y) {
  for (int64_t r = 0; r < y->shape[0]; ++r) {
    const int32_t from = Data<int32_t>(index)[r];
    const size_t bytes = size_t(y->shape[1]) * sizeof(float);
    if (from >= 0 && from < x->shape[0]) {
      std::memcpy(Row(y, r), Row(x, from), bytes);
    } else {
      std::memset(Row(y, r), 0, bytes);
    }
  }
}

void Cast(const assay_tensor* x, const assay_tensor* y) {
  for (int64_t r = 0; r < x->shape[0]; ++r) {
    for (int64_t c = 0; c < x->shape[1]; ++c) {
      const int64_t from = r * x->stride[0] + c, to = r * y->stride[0] + c;
      float value;
      ToF32(x->dtype, Data<uint8_t>(x) + WeightBytes(x->dtype, from), &value, 1);
      if (y->dtype == ASSAY_F32) Data<float>(y)[to] = value;
      if (y->dtype == ASSAY_BF16) Data<uint16_t>(y)[to] = ToBF16(value);
      if (y->dtype == ASSAY_F16) Data<uint16_t>(y)[to] = ToF16(value);
    }
  }
}

void NormRow(const float* x, const float* w, float* y, int64_t n, float eps) {
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += double(x[i]) * x[i];
  const float scale = float(1 / std::sqrt(squares / double(n) + eps));
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * scale * w[i];
}

void RmsNorm(const assay_tensor* x, const assay_tensor* w, const assay_tensor* y, float eps) {
  const int64_t groups = x->ndim == 3 ? x->shape[1] : 1;
  for (int64_t r = 0; r < x->shape[0]; ++r) {
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t j = x->ndim == 3 ? g : 0;
      NormRow(Row(x, r, j), Data<float>(w), Row(y, r, j), w->shape[0], eps);
    }
  }
}

void AddRmsNorm(const assay_tensor* x, const assay_tensor* w, const assay_tensor* sum, const assay_tensor* y,
                float eps) {
  for (int64_t r = 0; r < x->shape[0]; ++r) {
    for (int64_t c = 0; c < x->shape[1]; ++c) Row(sum, r)[c] += Row(x, r)[c];
    NormRow(Row(sum, r), Data<float>(w), Row(y, r), x->shape[1], eps);
  }
}

void Glu(const assay_tensor* gate_up, const assay_tensor* y, assay_glu_act act) {
  for (int64_t t = 0; t < y->shape[0]; ++t) {
    const float *gate = Row(gate_up, t), *up = gate + y->shape[1];
    for (int64_t f = 0; f < y->shape[1]; ++f) {
      const float g = gate[f];
      const float tanh_arg = 0.7978845608f * (g + 0.044715f * g * g * g);
      Row(y, t)[f] = up[f] * (act == ASSAY_GLU_SILU ? g / (1 + std::exp(-g)) : 0.5f * g * (1 + std::tanh(tanh_arg)));
    }
  }
}

void AddScale(const assay_tensor* a, const assay_tensor* b, const assay_tensor* y, float alpha, float beta) {
  for (int64_t r = 0; r < a->shape[0]; ++r) {
    for (int64_t c = 0; c < a->shape[1]; ++c) {
      Row(y, r)[c] = alpha * Row(a, r)[c] + (b ? beta * Row(b, r)[c] : 0.0f);
    }
  }
}

void Linear(const assay_tensor* x, const assay_tensor* w, const assay_tensor* bias, const assay_tensor* y) {
  for (int64_t n = 0; n < w->shape[0]; ++n) {
    const float add = bias ? Data<float>(bias)[n] : 0.0f;
    for (int64_t m = 0; m < x->shape[0]; ++m) Row(y, m)[n] = Dot(Row(x, m), Row(w, n), x->shape[1]) + add;
  }
}

// ---------------------------------------------------------------------------------------------- rope

double RopeFrequency(const assay_rope_desc& d, int pair) {
  const double two_pi = 2 * std::acos(-1.0), theta = d.theta, context = d.original_context;
  const double f = std::pow(theta, -2.0 * pair / d.rotary_dim);
  if (d.scaling == ASSAY_ROPE_LINEAR) return f / d.factor;
  if (d.scaling == ASSAY_ROPE_LLAMA3) {
    const double turns = context * f / two_pi;
    const double keep = (turns - d.low_freq_factor) / (double(d.high_freq_factor) - d.low_freq_factor);
    const double kept = std::min(1.0, std::max(0.0, keep));
    return kept * f + (1 - kept) * f / d.factor;
  }
  if (d.scaling == ASSAY_ROPE_YARN) {
    const auto pair_of = [&](double turns) {
      return d.rotary_dim * std::log(context / (turns * two_pi)) / (2 * std::log(theta));
    };
    const double low = std::max(0.0, std::floor(pair_of(d.beta_fast)));
    const double high = std::min(d.rotary_dim - 1.0, std::ceil(pair_of(d.beta_slow)));
    const double ramp = (pair - low) / (high == low ? 0.001 : high - low);
    const double stretched = std::min(1.0, std::max(0.0, ramp));
    return stretched * f / d.factor + (1 - stretched) * f;
  }
  return f;
}

void Rope(const assay_tensor* positions, const assay_tensor* factors, const assay_tensor* q, const assay_tensor* k,
          const assay_rope_desc& d) {
  const double length = d.scaling == ASSAY_ROPE_YARN ? d.attn_factor : 1.0;
  for (int i = 0; i < d.rotary_dim / 2; ++i) {
    const double frequency = RopeFrequency(d, i) / (factors ? Data<float>(factors)[i] : 1.0f);
    const int first = d.interleaved ? 2 * i : i, second = d.interleaved ? 2 * i + 1 : i + d.rotary_dim / 2;
    for (int64_t t = 0; t < q->shape[0]; ++t) {
      const double angle = Data<int32_t>(positions)[t] * frequency;
      const float cos = float(std::cos(angle) * length), sin = float(std::sin(angle) * length);
      for (const assay_tensor* x : {q, k}) {
        for (int64_t h = 0; x && h < x->shape[1]; ++h) {
          float* v = Row(x, t, h);
          const float a = v[first], b = v[second];
          v[first] = a * cos - b * sin;
          v[second] = b * cos + a * sin;
        }
      }
    }
  }
}

// ---------------------------------------------------------------------------------------------- KV cache

// Where the vector of (block, offset, head) begins, in elements.
int64_t CacheAt(const assay_tensor* cache, assay_kv_layout layout, int64_t block, int64_t offset, int64_t head) {
  const int64_t i = layout == ASSAY_KV_HND ? head : offset, j = layout == ASSAY_KV_HND ? offset : head;
  return block * cache->stride[0] + i * cache->stride[1] + j * cache->stride[2];
}

void KvWrite(const assay_tensor* x, const assay_tensor* slots, const assay_tensor* cache, const assay_kv_desc& d) {
  for (int64_t t = 0; t < x->shape[0]; ++t) {
    const int32_t slot = Data<int32_t>(slots)[t];
    if (slot < 0) continue;
    for (int64_t h = 0; h < x->shape[1]; ++h) {
      const int64_t at = CacheAt(cache, d.layout, slot / d.block_size, slot % d.block_size, h);
      for (int64_t i = 0; i < x->shape[2]; ++i) {
        const float value = Row(x, t, h)[i];
        if (cache->dtype == ASSAY_F32) Data<float>(cache)[at + i] = value;
        if (cache->dtype == ASSAY_BF16) Data<uint16_t>(cache)[at + i] = ToBF16(value);
      }
    }
  }
}

void KvBlockCopy(const assay_tensor* pairs, const assay_tensor* cache) {
  const uint64_t bytes = WeightBytes(cache->dtype, cache->stride[0]);
  for (int64_t n = 0; n < pairs->shape[0]; ++n) {
    const int32_t* pair = Data<int32_t>(pairs) + n * pairs->stride[0];
    if (pair[0] < 0 || pair[1] < 0) continue;
    uint8_t* base = Data<uint8_t>(cache);
    std::memcpy(base + uint64_t(pair[1]) * bytes, base + uint64_t(pair[0]) * bytes, bytes);
  }
}

// The vector of one position, as f32; `scratch` is used where the cache is not f32.
const float* CacheVector(const assay_tensor* cache, int64_t at, float* scratch) {
  if (cache->dtype == ASSAY_F32) return Data<float>(cache) + at;
  ToF32(cache->dtype, Data<uint16_t>(cache) + at, scratch, cache->shape[3]);
  return scratch;
}

// Scratch: one score per position that the block table can hold, and one vector.
void AttendHead(const assay_args* args, const assay_attn_desc& d, int64_t s, int64_t row, int64_t head,
                int64_t position, float* scores, float* vector) {
  const assay_tensor *q = args->in[0], *k_cache = args->in[1], *v_cache = args->in[2], *table = args->in[3];
  const int64_t dim = q->shape[2], kv_heads = k_cache->shape[d.layout == ASSAY_KV_HND ? 1 : 2];
  const int64_t first = d.window > 0 ? std::max<int64_t>(0, position - d.window + 1) : 0;
  const auto at = [&](const assay_tensor* cache, int64_t p) {
    const int32_t block = Data<int32_t>(table)[s * table->stride[0] + p / d.block_size];
    return CacheAt(cache, d.layout, block, p % d.block_size, head / (q->shape[1] / kv_heads));
  };
  float largest = -INFINITY;
  for (int64_t p = first; p <= position; ++p) {
    float score = d.scale * Dot(Row(q, row, head), CacheVector(k_cache, at(k_cache, p), vector), dim);
    if (d.softcap > 0) score = d.softcap * std::tanh(score / d.softcap);
    scores[p - first] = score;
    largest = std::max(largest, score);
  }
  double total = 0;
  for (int64_t p = first; p <= position; ++p) total += scores[p - first] = std::exp(scores[p - first] - largest);
  float* y = Row(args->out[0], row, head);
  for (int64_t p = first; p <= position; ++p) {
    const float weight = float(scores[p - first] / total);
    const float* value = CacheVector(v_cache, at(v_cache, p), vector);
    for (int64_t i = 0; i < dim; ++i) y[i] += weight * value[i];
  }
}

void Attention(const assay_args* args, const assay_attn_desc& d, float* scratch) {
  const assay_tensor *q = args->in[0], *table = args->in[3], *lens = args->in[5], *y = args->out[0];
  const int32_t* offsets = Data<int32_t>(args->in[4]);
  for (int64_t t = 0; t < y->shape[0]; ++t) {
    for (int64_t h = 0; h < y->shape[1]; ++h) std::memset(Row(y, t, h), 0, size_t(y->shape[2]) * sizeof(float));
  }
  for (int64_t s = 0; s < lens->shape[0]; ++s) {
    for (int64_t row = offsets[s]; row < offsets[s + 1]; ++row) {
      const int64_t position = Data<int32_t>(lens)[s] - (offsets[s + 1] - row);
      for (int64_t h = 0; position >= 0 && h < q->shape[1]; ++h) {
        AttendHead(args, d, s, row, h, position, scratch, scratch + table->shape[1] * d.block_size);
      }
    }
  }
}

// ---------------------------------------------------------------------------------------------- sampling

struct Candidate {
  float logit;  // NaN counts as -inf
  int32_t id;
  double p;
};

bool Before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

Candidate* Candidates(const float* logits, int64_t vocab, void* scratch) {
  Candidate* c = static_cast<Candidate*>(scratch);
  for (int64_t i = 0; i < vocab; ++i) c[i] = {std::isnan(logits[i]) ? -INFINITY : logits[i], int32_t(i), 0.0};
  return c;
}

int32_t SampleRow(Candidate* c, int64_t n, float temperature, int32_t top_k, double top_p, double min_p, float u) {
  const Candidate best = *std::min_element(c, c + n, Before);
  if (!(temperature > 0) || best.logit == -INFINITY) return best.id;
  std::sort(c, c + n, Before);
  if (top_k > 0) n = std::min<int64_t>(n, top_k);
  double total = 0;
  for (int64_t i = 0; i < n; ++i) {
    c[i].p = c[i].logit == best.logit ? 1.0 : std::exp((double(c[i].logit) - best.logit) / temperature);
    total += c[i].p;
  }
  if (top_p < 1) {
    double sum = c[0].p;
    int64_t kept = 1;
    while (kept < n && sum < top_p * total) sum += c[kept++].p;
    n = kept;
  }
  while (min_p > 0 && n > 1 && c[n - 1].p < min_p) --n;  // c[0].p is 1
  total = 0;
  for (int64_t i = 0; i < n; ++i) total += c[i].p;
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    if ((sum += c[i].p) > u * total) return c[i].id;
  }
  return c[n - 1].id;
}

void Sample(const assay_args* args, void* scratch) {
  const assay_tensor* const* in = args->in;
  for (int64_t s = 0; s < in[0]->shape[0]; ++s) {
    const float u = assay_uniform(uint64_t(Data<int64_t>(in[5])[s]), uint32_t(Data<int32_t>(in[6])[s]));
    Data<int32_t>(args->out[0])[s] =
        SampleRow(Candidates(Row(in[0], s), in[0]->shape[1], scratch), in[0]->shape[1], Data<float>(in[1])[s],
                  Data<int32_t>(in[2])[s], Data<float>(in[3])[s], Data<float>(in[4])[s], u);
  }
}

void Logprobs(const assay_args* args, void* scratch) {
  const assay_tensor *logits = args->in[0], *top_ids = args->out[1], *top_logprobs = args->out[2];
  const int64_t vocab = logits->shape[1];
  for (int64_t m = 0; m < logits->shape[0]; ++m) {
    const float* x = Row(logits, m);
    Candidate* c = Candidates(x, vocab, scratch);
    const double largest = std::min_element(c, c + vocab, Before)->logit;
    double sum = 0;
    for (int64_t i = 0; i < vocab; ++i) sum += std::exp(x[i] - largest);
    const double normalizer = largest + std::log(sum);
    const int32_t target = Data<int32_t>(args->in[1])[m];
    Data<float>(args->out[0])[m] = target >= 0 && target < vocab ? float(x[target] - normalizer) : NAN;
    if (!top_ids) continue;
    const int64_t k = top_ids->shape[1];
    std::partial_sort(c, c + k, c + vocab, Before);
    for (int64_t i = 0; i < k; ++i) {
      Data<int32_t>(top_ids)[m * top_ids->stride[0] + i] = c[i].id;
      Row(top_logprobs, m)[i] = float(c[i].logit - normalizer);
    }
  }
}

void ProbeRead(const assay_tensor* x, const assay_tensor* sink) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < x->shape[0]; ++i) sum += Data<uint8_t>(x)[i];
  *Data<float>(sink) = float(sum);
}

template <class Desc>
const Desc& As(const assay_op_desc* desc) {
  return *reinterpret_cast<const Desc*>(desc);
}

}  // namespace

uint64_t WeightBytes(assay_dtype dtype, int64_t n) {
  switch (dtype) {
    case ASSAY_F32:
      return uint64_t(n) * 4;
    case ASSAY_F16:
    case ASSAY_BF16:
      return uint64_t(n) * 2;
    case ASSAY_Q8_0:
      return uint64_t(n) / 32 * 34;
    case ASSAY_Q4_0:
      return uint64_t(n) / 32 * 18;
    case ASSAY_Q4_1:
      return uint64_t(n) / 32 * 20;
    default:
      return 0;
  }
}

void ToF32(assay_dtype dtype, const void* src, float* dst, int64_t n) {
  const uint8_t* p = static_cast<const uint8_t*>(src);
  const bool blocks = dtype == ASSAY_Q8_0 || dtype == ASSAY_Q4_0 || dtype == ASSAY_Q4_1;
  for (int64_t i = 0; !blocks && i < n; ++i) {
    uint16_t h = 0;
    if (dtype == ASSAY_F32) {
      std::memcpy(&dst[i], p + 4 * i, 4);
    } else {
      std::memcpy(&h, p + 2 * i, 2);
      dst[i] = dtype == ASSAY_BF16 ? FromBF16(h) : FromF16(h);
    }
  }
  for (int64_t i = 0; blocks && i < n; i += 32, dst += 32, p += WeightBytes(dtype, 32)) {
    const float d = LoadF16(p), m = dtype == ASSAY_Q4_1 ? LoadF16(p + 2) : 0.0f;
    const uint8_t* q = p + (dtype == ASSAY_Q4_1 ? 4 : 2);
    for (int j = 0; j < 32; ++j) {
      const int nibble = j < 16 ? q[j] & 15 : q[j - 16] >> 4;
      dst[j] = dtype == ASSAY_Q8_0   ? d * int8_t(q[j])
               : dtype == ASSAY_Q4_0 ? d * float(nibble - 8)
                                     : d * float(nibble) + m;
    }
  }
}

uint64_t ScratchBytes(const assay_op_desc* desc, const assay_args* args) {
  if (desc->op == ASSAY_OP_SAMPLE || desc->op == ASSAY_OP_LOGPROBS) {
    return uint64_t(args->in[0]->shape[1]) * sizeof(Candidate);
  }
  if (desc->op == ASSAY_OP_ATTN_PAGED) {
    const int64_t positions = args->in[3]->shape[1] * As<assay_attn_desc>(desc).block_size;
    return uint64_t(positions + args->in[0]->shape[2]) * sizeof(float);
  }
  return 0;
}

void Run(const assay_op_desc* desc, const assay_args* args, void* scratch) {
  const assay_tensor* const* in = args->in;
  const assay_tensor* const* out = args->out;
  switch (desc->op) {
    case ASSAY_OP_EMBED:
      return TakeRows(in[0], in[1], out[0]);
    case ASSAY_OP_GATHER_ROWS:
      return TakeRows(in[1], in[0], out[0]);
    case ASSAY_OP_CAST:
      return Cast(in[0], out[0]);
    case ASSAY_OP_KV_BLOCK_COPY:
      KvBlockCopy(in[0], out[0]);
      return KvBlockCopy(in[0], out[1]);
    case ASSAY_OP_RMS_NORM:
      return RmsNorm(in[0], in[1], out[0], As<assay_norm_desc>(desc).eps);
    case ASSAY_OP_ADD_RMS_NORM:
      return AddRmsNorm(in[0], in[1], out[0], out[1], As<assay_norm_desc>(desc).eps);
    case ASSAY_OP_ROPE:
      return Rope(in[0], in[1], out[0], out[1], As<assay_rope_desc>(desc));
    case ASSAY_OP_GLU:
      return Glu(in[0], out[0], As<assay_glu_desc>(desc).act);
    case ASSAY_OP_ADD_SCALE:
      return AddScale(in[0], in[1], out[0], As<assay_add_scale_desc>(desc).alpha, As<assay_add_scale_desc>(desc).beta);
    case ASSAY_OP_LINEAR:
      return Linear(in[0], in[1], in[2], out[0]);
    case ASSAY_OP_KV_WRITE_PAGED:
      KvWrite(in[0], in[2], out[0], As<assay_kv_desc>(desc));
      return KvWrite(in[1], in[2], out[1], As<assay_kv_desc>(desc));
    case ASSAY_OP_ATTN_PAGED:
      return Attention(args, As<assay_attn_desc>(desc), static_cast<float*>(scratch));
    case ASSAY_OP_SAMPLE:
      return Sample(args, scratch);
    case ASSAY_OP_LOGPROBS:
      return Logprobs(args, scratch);
    case ASSAY_OP_PROBE_READ:
      return ProbeRead(in[0], out[0]);
    default:
      return;
  }
}

}  // namespace example
