// SPDX-License-Identifier: Apache-2.0
// Builders of sample and logprobs, and their judges: exact, except where rounding in f32 decides.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "bench/conform/problem.h"

namespace assay::bench {
namespace {

constexpr double kU = 0x1p-24;  // unit roundoff of f32

// key "logits": normal, flat (all nearly equal), ties (few distinct values), nan (some), allnan, steep.
std::vector<float> Logits(BuildContext& b, int64_t rows, int64_t vocab) {
  const std::string kind = b.c.Has("logits") ? b.c.Text("logits") : "normal";
  std::vector<float> logits(static_cast<size_t>(rows * vocab));
  for (float& x : logits) {
    x = b.random.Normal();
    if (kind == "normal") {
      x *= 3;
    } else if (kind == "flat") {
      x *= 1e-3f;
    } else if (kind == "ties") {
      x = std::floor(x);
    } else if (kind == "steep") {
      x *= 40;
    } else if (kind == "nan" || kind == "allnan") {
      if (kind == "allnan" || b.random.Below(4) == 0) x = NAN;
    } else if (kind == "inf") {
      if (b.random.Below(4) == 0) x = -std::numeric_limits<float>::infinity();
    } else {
      b.c.Fail("logits=" + kind + " is unknown");
    }
  }
  return logits;
}

template <class T>
T At(const Outcome& outcome, int tensor, int64_t i) {
  T value;
  std::memcpy(&value, outcome[static_cast<size_t>(tensor)].data() + static_cast<size_t>(i) * sizeof(T), sizeof(T));
  return value;
}

// ---------------------------------------------------------------------------------------------- sample

struct RowParams {
  float temperature, top_p, min_p, u;
  int32_t top_k;
};

// The candidates of a row in the operation's order, with p relative to the largest, in double.
struct Candidates {
  std::vector<int32_t> order;
  std::vector<double> p, logit;

  Candidates(const float* logits, int64_t vocab, float temperature) {
    const auto value = [&](int32_t i) {
      return std::isnan(logits[i]) ? -std::numeric_limits<double>::infinity() : static_cast<double>(logits[i]);
    };
    order.resize(static_cast<size_t>(vocab));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t x, int32_t y) { return value(x) > value(y); });
    for (const int32_t i : order) {
      logit.push_back(value(i));
      p.push_back(logit.back() == logit[0] ? 1.0 : std::exp((logit.back() - logit[0]) / temperature));
    }
  }
};

// How many candidates are kept when the thresholds are moved by a factor of 1 + shift.
size_t Kept(const Candidates& c, const RowParams& r, double shift) {
  size_t n = c.p.size();
  if (r.top_k > 0) n = std::min(n, static_cast<size_t>(r.top_k));
  if (r.top_p < 1) {
    const double reach =
        r.top_p * (1 + shift) * std::accumulate(c.p.begin(), c.p.begin() + static_cast<int64_t>(n), 0.0);
    size_t kept = 1;
    for (double sum = c.p[0]; sum < reach && kept < n; ++kept) sum += c.p[kept];
    n = kept;
  }
  while (r.min_p > 0 && n > 1 && c.p[n - 1] < r.min_p * (1 - shift)) --n;
  return n;
}

// May a device that computes in f32 draw candidate `rank`, when n are kept?
bool Reachable(const Candidates& c, size_t n, size_t rank, double u, double slack, double tie) {
  double before = 0, total = 0, beside_before = 0, beside_after = 0;
  for (size_t i = 0; i < n; ++i) {
    total += c.p[i];
    if (i < rank) before += c.p[i];
    // Logits that f32 cannot tell apart after scaling may change places.
    const bool beside = i != rank && c.logit[i] != c.logit[rank] && std::abs(c.logit[i] - c.logit[rank]) <= tie;
    if (beside) (i < rank ? beside_before : beside_after) += c.p[i];
  }
  const double target = u * total;
  return target >= before - beside_before - slack * total && target < before + c.p[rank] + beside_after + slack * total;
}

std::string JudgeRow(const float* logits, int64_t vocab, const RowParams& r, int32_t id) {
  if (id < 0 || id >= vocab) return "id " + std::to_string(id) + " is outside the vocabulary";
  const Candidates c(logits, vocab, r.temperature);
  if (!(r.temperature > 0) || std::isinf(c.logit[0])) {
    return id == c.order[0] ? "" : "greedy: got " + std::to_string(id) + ", expected " + std::to_string(c.order[0]);
  }
  const auto rank = static_cast<size_t>(std::find(c.order.begin(), c.order.end(), id) - c.order.begin());
  // p = exp(z) in f32 is off by |z| u and some units, z counting down to where p no longer matters; a sum of n such by
  // about sqrt(n) u more.
  const double range = std::min(20.0, (c.logit[0] - c.logit[rank]) / r.temperature);
  const double slack = (16 + 2 * range + 4 * std::sqrt(static_cast<double>(vocab))) * kU;
  const double tie = 4 * kU * std::max(std::abs(c.logit[0]), std::abs(c.logit[rank]));
  for (size_t n = Kept(c, r, -slack); n <= Kept(c, r, slack); ++n) {
    if (rank < n && Reachable(c, n, rank, r.u, slack, tie)) return "";
  }
  return "got " + std::to_string(id) + " (rank " + std::to_string(rank) + "), which u = " + std::to_string(r.u) +
         " does not select";
}

template <class T>
std::vector<T> Cycle(const std::vector<T>& values, int64_t n, T otherwise) {
  std::vector<T> cycled;
  for (int64_t i = 0; i < n; ++i) {
    cycled.push_back(values.empty() ? otherwise : values[static_cast<size_t>(i) % values.size()]);
  }
  return cycled;
}

}  // namespace

void BuildSample(BuildContext& b) {
  const int64_t rows = b.c.Int("rows"), vocab = b.c.Int("vocab");
  const std::vector<float> logits = Logits(b, rows, vocab);
  const std::vector<float> temperature = Cycle(b.c.Reals("temperature"), rows, 1.0f);
  const std::vector<float> top_p = Cycle(b.c.Reals("top_p"), rows, 1.0f);
  const std::vector<float> min_p = Cycle(b.c.Reals("min_p"), rows, 0.0f);
  const std::vector<int32_t> top_k = Cycle(b.c.Ints("top_k"), rows, 0);
  std::vector<int64_t> seed;
  std::vector<int32_t> step;
  std::vector<RowParams> params;
  for (int64_t r = 0; r < rows; ++r) {
    const size_t i = static_cast<size_t>(r);
    seed.push_back(static_cast<int64_t>(b.random.Next()));
    step.push_back(static_cast<int32_t>(r * 7));
    const float u = assay_uniform(static_cast<uint64_t>(seed[i]), static_cast<uint32_t>(step[i]));
    params.push_back({temperature[i], top_p[i], min_p[i], u, top_k[i]});
  }
  const std::vector<int64_t> column = {rows};
  b.problem.call.SetDesc(NewDesc<assay_op_desc>(ASSAY_OP_SAMPLE));
  b.problem.call.in = {b.Floats("logits", {rows, vocab}, logits),
                       b.Floats("temperature", column, temperature),
                       b.Ints("top_k", column, top_k),
                       b.Floats("top_p", column, top_p),
                       b.Floats("min_p", column, min_p),
                       b.Longs("seed", column, seed),
                       b.Ints("step", column, step)};
  const int ids = b.Output("ids", ASSAY_I32, column);
  b.Tensor(ids).judged = true;
  b.Gap({b.problem.call.in[0]});
  b.problem.call.out = {ids};
  b.problem.bytes = static_cast<double>(logits.size()) * 4;
  b.problem.judge = [=](const Outcome& subject, const Outcome& reference) {
    for (int64_t r = 0; r < rows; ++r) {
      for (const Outcome* outcome : {&reference, &subject}) {
        const std::string why = JudgeRow(&logits[static_cast<size_t>(r * vocab)], vocab, params[static_cast<size_t>(r)],
                                         At<int32_t>(*outcome, ids, r));
        if (!why.empty())
          return (outcome == &reference ? "the reference, row " : "row ") + std::to_string(r) + ": " + why;
      }
    }
    return std::string();
  };
}

// ---------------------------------------------------------------------------------------------- logprobs

void BuildLogprobs(BuildContext& b) {
  const int64_t rows = b.c.Int("rows"), vocab = b.c.Int("vocab"), top = b.c.Int("top", 0);
  const std::vector<float> logits = Logits(b, rows, vocab);
  std::vector<int32_t> wanted;
  for (int64_t r = 0; r < rows; ++r) {
    wanted.push_back(static_cast<int32_t>(r % 4 == 3 ? (r % 8 == 3 ? -1 : vocab) : b.random.Below(vocab)));
  }
  const int x = b.Floats("logits", {rows, vocab}, logits), targets = b.Ints("targets", {rows}, wanted);
  const int target_logprob = b.Output("target_logprob", ASSAY_F32, {rows});
  const int top_ids = top ? b.Output("top_ids", ASSAY_I32, {rows, top}) : -1;
  const int top_logprobs = top ? b.Output("top_logprobs", ASSAY_F32, {rows, top}) : -1;
  b.Gap({x});

  // logprob = x - (largest + log(sum of vocab exponentials)): the sizes of its parts times u, the sum's own error.
  float largest = 0;
  for (const float value : logits) {
    if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
  }
  const double tolerance =
      (8 * (largest + std::log(static_cast<double>(vocab))) + 4 * std::sqrt(static_cast<double>(vocab)) + 16) * kU;
  for (const int i : {target_logprob, top_logprobs}) {
    if (i < 0) continue;
    b.Tensor(i).rounded = true;
    b.Tensor(i).tolerance.assign(static_cast<size_t>(b.Tensor(i).count()), tolerance);
  }
  b.problem.call.SetDesc(NewDesc<assay_op_desc>(ASSAY_OP_LOGPROBS));
  b.problem.call.in = {x, targets};
  b.problem.call.out = {target_logprob, top_ids, top_logprobs};
  b.problem.bytes = static_cast<double>(logits.size()) * 4;
  if (top == 0) return;
  b.Tensor(top_ids).judged = true;
  // The ids may differ from the reference's only where their logits lie within rounding of each other.
  b.problem.judge = [=](const Outcome& subject, const Outcome& reference) {
    for (int64_t r = 0; r < rows; ++r) {
      std::set<int32_t> seen;
      for (int64_t i = 0; i < top; ++i) {
        const int32_t id = At<int32_t>(subject, top_ids, r * top + i);
        const int32_t expected = At<int32_t>(reference, top_ids, r * top + i);
        const std::string place =
            "top_ids[" + std::to_string(r) + "," + std::to_string(i) + "] = " + std::to_string(id);
        if (id < 0 || id >= vocab || !seen.insert(id).second)
          return place + " is outside the vocabulary or twice there";
        const float got = logits[static_cast<size_t>(r * vocab + id)];
        const float want = logits[static_cast<size_t>(r * vocab + expected)];
        const bool near = got != want && std::abs(got - want) <= tolerance;
        if (id != expected && !near) return place + ", expected " + std::to_string(expected);
      }
    }
    return std::string();
  };
}

}  // namespace assay::bench
