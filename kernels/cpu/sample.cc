// SPDX-License-Identifier: Apache-2.0
// From logits to tokens and to log-probabilities. The passes over the vocabulary are shared by the team, row by row;
// what remains (a few candidates, a heap) is one member's per row.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/ops.h"
#include "kernels/cpu/ops_kernels.h"

namespace assay::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kVocabGrain = 1024;

// One member's part of one row; a cache line, so that members do not disturb each other.
struct alignas(64) Partial {
  MaxAt most;
  double sum;  // of exp relative to a maximum
};

size_t PartialBytes(int64_t rows, int threads) {
  return static_cast<size_t>(rows) * threads * sizeof(Partial);
}

const float* LogitsRow(const View& logits, int64_t row) {
  return logits.as<const float>() + row * logits.stride[0];
}

MaxAt RowMax(const Partial* parts, int members) {
  MaxAt best = parts[0].most;
  for (int m = 1; m < members; ++m) {
    if (parts[m].most.value > best.value) best = parts[m].most;
  }
  return best;
}

struct Candidate {
  double p;  // relative to the most probable token
  float logit;
  int32_t id;
};
bool Before(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}
double MassOf(const Candidate* begin, const Candidate* end) {
  double mass = 0;
  for (; begin < end; ++begin) mass += begin->p;
  return mass;
}

// The shortest prefix, in the order of Before, whose mass reaches (or, if `exceed`, exceeds) target; all if none does.
// On return c[0..result) are those candidates and c[result-1] is the last of them. A quickselect by mass: O(n).
int64_t PrefixByMass(Candidate* c, int64_t n, double target, bool exceed) {
  const auto reached = [&](double mass) { return exceed ? mass > target : mass >= target; };
  constexpr int64_t kSortable = 24;
  int64_t low = 0;
  int64_t high = n;
  double before = 0;
  while (high - low > kSortable) {
    Candidate three[3] = {c[low], c[low + (high - low) / 2], c[high - 1]};
    std::sort(three, three + 3, Before);
    const Candidate pivot = three[1];
    Candidate* middle = std::partition(c + low, c + high, [&](const Candidate& x) { return !Before(pivot, x); });
    const double mass = MassOf(c + low, middle);
    if (reached(before + mass)) {
      high = middle - c;
    } else {
      before += mass;
      low = middle - c;
    }
  }
  std::sort(c + low, c + high, Before);
  for (int64_t i = low; i < high; ++i) {
    before += c[i].p;
    if (reached(before)) return i + 1;
  }
  return high;
}

struct SampleParams {
  float temperature;
  int32_t top_k;
  float top_p, min_p, uniform;
};

// Candidates whose logit is at least `limit`, in the order of their ids.
int64_t Gather(const float* x, int64_t vocab, float limit, const MaxAt& most, float temperature, Candidate* out) {
  const OpsKernels& kernels = CurrentOpsKernels();
  int64_t n = 0;
  int32_t found[kVocabGrain];
  for (int64_t begin = 0; begin < vocab; begin += kVocabGrain) {
    const float* block = x + begin;
    const int64_t count = kernels.find_at_least(block, std::min(vocab - begin, kVocabGrain), limit, found);
    for (int64_t i = 0; i < count; ++i) {
      const float logit = block[found[i]];
      const double distance = (static_cast<double>(logit) - most.value) / temperature;
      out[n++] = {logit == most.value ? 1.0 : std::exp(distance), logit, static_cast<int32_t>(begin) + found[i]};
    }
  }
  return n;
}

// total: of exp((x - max) / temperature) over the vocabulary; NaN if there are NaN or infinities.
int32_t Draw(const float* x, int64_t vocab, const MaxAt& most, const SampleParams& params, double total, Candidate* c) {
  const bool limited = params.top_k > 0 && params.top_k < vocab;
  // Few tokens hold nearly all the mass, so look near the maximum first, and further only if that is not enough.
  // A total of exp(d) needs tokens at distances d from the maximum at least, or exp(d) of them.
  constexpr double kFar = 40;  // what lies beyond has no mass
  double reach = total < std::exp(kFar) ? 1 + std::log(std::max(total, 1.0)) : kFar;
  constexpr double kMargin = 1 + 1e-6;  // `total` is a sum of f32 exponentials
  int64_t n = 0;
  while (true) {
    const bool all = !(reach < kFar);
    const float limit = all ? -kInfinity : static_cast<float>(most.value - reach * params.temperature);
    n = Gather(x, vocab, limit, most, params.temperature, c);
    const double mass = MassOf(c, c + n);
    if (all) {
      total = mass;
      break;
    }
    if (limited) {
      if (n >= params.top_k) break;
    } else if (params.top_p < 1) {
      if (mass >= params.top_p * total * kMargin) break;
    } else if (params.min_p > 0) {
      if (std::exp(-reach) < params.min_p) break;
    } else if (mass > params.uniform * total * kMargin) {
      break;
    }
    reach = 1.25 * reach + 0.5;
  }
  if (limited && n > params.top_k) {
    std::nth_element(c, c + params.top_k, c + n, Before);
    n = params.top_k;
  }
  if (limited) total = MassOf(c, c + n);
  if (params.top_p < 1) {
    n = PrefixByMass(c, n, params.top_p * total, false);
    total = MassOf(c, c + n);
  }
  if (params.min_p > 0) {
    n = std::partition(c, c + n, [&](const Candidate& x) { return x.p >= params.min_p; }) - c;
    if (n == 0) return static_cast<int32_t>(most.index);
    total = MassOf(c, c + n);
  }
  return c[PrefixByMass(c, n, params.uniform * total, true) - 1].id;
}

}  // namespace

size_t SampleWorkspace(int64_t sequences, int64_t vocab, int threads) {
  return PartialBytes(sequences, threads) +
         static_cast<size_t>(std::min<int64_t>(sequences, threads)) * vocab * sizeof(Candidate);
}

void Sample(const View& logits, const View& temperature, const View& top_k, const View& top_p, const View& min_p,
            const View& seed, const View& step, const View& ids, void* workspace, const Team& team) {
  const OpsKernels& kernels = CurrentOpsKernels();
  const int64_t rows = logits.shape[0];
  const int64_t vocab = logits.shape[1];
  Partial* partials = static_cast<Partial*>(workspace);
  Candidate* candidates =
      reinterpret_cast<Candidate*>(partials + rows * team.size) + static_cast<int64_t>(team.rank) * vocab;
  const Share share = Split(vocab, kVocabGrain, team);
  bool all_greedy = true;
  for (int64_t r = 0; r < rows; ++r) {
    MaxAt most = kernels.max_at(LogitsRow(logits, r) + share.begin, share.end - share.begin);
    if (most.value > -kInfinity) most.index += share.begin;
    partials[r * team.size + team.rank].most = most;
    all_greedy &= !(temperature.as<float>()[r] > 0);
  }
  team.Barrier();
  if (!all_greedy) {
    for (int64_t r = 0; r < rows; ++r) {
      if (!(temperature.as<float>()[r] > 0)) continue;
      const float max = RowMax(partials + r * team.size, team.size).value;
      const float inverse = std::min(1.0f / temperature.as<float>()[r], std::numeric_limits<float>::max());
      partials[r * team.size + team.rank].sum =
          kernels.sum_exp(LogitsRow(logits, r) + share.begin, share.end - share.begin, max, inverse);
    }
    team.Barrier();
  }
  for (int64_t r = team.rank; r < rows; r += team.size) {
    const Partial* parts = partials + r * team.size;
    const MaxAt most = RowMax(parts, team.size);
    int32_t id = static_cast<int32_t>(most.index);
    if (temperature.as<float>()[r] > 0 && most.value > -kInfinity) {
      double total = 0;
      for (int m = 0; m < team.size; ++m) total += parts[m].sum;
      const SampleParams params = {
          temperature.as<float>()[r], top_k.as<int32_t>()[r], top_p.as<float>()[r], min_p.as<float>()[r],
          Uniform(static_cast<uint64_t>(seed.as<int64_t>()[r]), static_cast<uint32_t>(step.as<int32_t>()[r]))};
      id = Draw(LogitsRow(logits, r), vocab, most, params, total, candidates);
    }
    ids.as<int32_t>()[r] = id;
  }
}

namespace {

// The largest logits of a row, in place in ids: a heap with the worst of them on top.
void TopIds(const float* x, int64_t vocab, int32_t* ids, int64_t k) {
  const auto key = [&](int32_t id) { return std::isnan(x[id]) ? -kInfinity : x[id]; };
  const auto better = [&](int32_t a, int32_t b) { return key(a) > key(b) || (key(a) == key(b) && a < b); };
  for (int64_t i = 0; i < k; ++i) ids[i] = static_cast<int32_t>(i);
  std::make_heap(ids, ids + k, better);
  const OpsKernels& kernels = CurrentOpsKernels();
  for (int64_t begin = k; begin < vocab; begin += kVocabGrain) {
    const int64_t end = std::min(vocab, begin + kVocabGrain);
    if (!(kernels.max_at(x + begin, end - begin).value > key(ids[0]))) continue;
    for (int64_t i = begin; i < end; ++i) {
      if (!(x[i] > key(ids[0]))) continue;
      std::pop_heap(ids, ids + k, better);
      ids[k - 1] = static_cast<int32_t>(i);
      std::push_heap(ids, ids + k, better);
    }
  }
  std::sort_heap(ids, ids + k, better);
}

}  // namespace

size_t LogprobsWorkspace(int64_t rows, int64_t /*vocab*/, int threads) {
  return PartialBytes(rows, threads);
}

void Logprobs(const View& logits, const View& targets, const View& target_logprob, const View& top_ids,
              const View& top_logprobs, void* workspace, const Team& team) {
  const OpsKernels& kernels = CurrentOpsKernels();
  const int64_t rows = logits.shape[0];
  const int64_t vocab = logits.shape[1];
  Partial* partials = static_cast<Partial*>(workspace);
  const Share share = Split(vocab, kVocabGrain, team);
  for (int64_t r = 0; r < rows; ++r) {
    const float* x = LogitsRow(logits, r) + share.begin;
    Partial& part = partials[r * team.size + team.rank];
    part.most = kernels.max_at(x, share.end - share.begin);
    if (part.most.value == -kInfinity) part.most.value = -std::numeric_limits<float>::max();
    part.sum = kernels.sum_exp(x, share.end - share.begin, part.most.value, 1.0f);
  }
  team.Barrier();
  for (int64_t r = team.rank; r < rows; r += team.size) {
    const float* x = LogitsRow(logits, r);
    const Partial* parts = partials + r * team.size;
    const double most = RowMax(parts, team.size).value;
    double sum = 0;
    for (int m = 0; m < team.size; ++m) sum += parts[m].sum * std::exp(parts[m].most.value - most);
    const double normalizer = most + std::log(sum);
    const int32_t target = targets.as<int32_t>()[r];
    target_logprob.as<float>()[r] = target >= 0 && target < vocab ? static_cast<float>(x[target] - normalizer)
                                                                  : std::numeric_limits<float>::quiet_NaN();
    if (!top_ids || top_ids.shape[1] == 0) continue;
    int32_t* ids = top_ids.as<int32_t>() + r * top_ids.stride[0];
    float* values = top_logprobs.as<float>() + r * top_logprobs.stride[0];
    TopIds(x, vocab, ids, top_ids.shape[1]);
    for (int64_t k = 0; k < top_ids.shape[1]; ++k) values[k] = static_cast<float>(x[ids[k]] - normalizer);
  }
}

}  // namespace assay::cpu
