// SPDX-License-Identifier: Apache-2.0
#include "bench/sut/guard.h"

#include <cmath>

#include "runtime/core/dtype.h"

namespace assay::bench {
namespace {

// Unit roundoff of a product's operands.
double OperandEpsilon(assay_dtype dtype, assay_dtype compute) {
  if (compute == ASSAY_F32 || dtype == ASSAY_F32) return std::ldexp(1.0, -24);
  if (dtype == ASSAY_F16) return std::ldexp(1.0, -11);
  if (dtype == ASSAY_BF16) return std::ldexp(1.0, -8);
  // Values in e4m3 are off by 2^-5.3 in the root mean square. The bound, 2^-4, would let a deep model pass with
  // anything.
  if (dtype == ASSAY_F8_B128 || dtype == ASSAY_F8_E4M3) return std::ldexp(1.0, -5);
  // Activations in int8 with a scale a row, as the coarsest device has them: half a step of a largest that is twice
  // as far out as in a block of 32.
  if (dtype == ASSAY_I8) return 1.0 / 127;
  return 1.0 / 254;  // activations in blocks of int8: half a step of the largest
}

// Standard deviation of the logits, from the surprise of tokens drawn at random: for logits that are normal with
// deviation s, the mean of -log p is log(vocab) + s^2 / 2.
double LogitSpread(const std::vector<float>& logprobs_of_random_tokens, int64_t vocab) {
  double surprise = 0;
  for (const float v : logprobs_of_random_tokens) surprise -= v / static_cast<double>(logprobs_of_random_tokens.size());
  return std::sqrt(std::max(1.0, 2.0 * (surprise - std::log(static_cast<double>(vocab)))));
}

}  // namespace

GuardRun RunGuard(Engine& engine, std::vector<int32_t> prompt) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_new_tokens = kGuardTokens;
  request.top_logprobs = 0;
  const auto sequence = RunRequest(engine, std::move(request), "accuracy guard");
  GuardRun run;
  run.tokens = sequence->tokens;
  for (const TokenLogprob& t : sequence->logprobs) run.logprobs.push_back(t.logprob);
  return run;
}

double GuardTolerance(const ModelShape& shape, assay_dtype weight_dtype, assay_dtype compute, assay_dtype kv_dtype,
                      double spread) {
  const auto layers = static_cast<double>(shape.layers);
  const double weights = OperandEpsilon(weight_dtype, compute), cache = OperandEpsilon(kv_dtype, ASSAY_DTYPE_NONE);
  // qkv, o, gate and up, down; the head. Scores and sums.
  const double squares = weights * weights * (4 * layers + 1) + cache * cache * 2 * layers;
  return std::max(4.0 * std::sqrt(squares) * spread, 1e-3);
}

Accuracy CheckGuard(Session& session, const GuardRun& run) {
  Accuracy accuracy;
  const DeviceChoice reference = ChooseDevice("ref");
  accuracy.reference = reference.info.id;
  accuracy.tokens = static_cast<int64_t>(run.logprobs.size());
  ExecutorOptions options;
  options.max_tokens = static_cast<int64_t>(run.tokens.size());
  options.max_seqs = 1;
  options.max_context = options.max_tokens;
  options.prompt_logprobs = true;
  auto engine = session.LoadReference(reference, options);
  Request request;
  request.prompt = run.tokens;
  request.prompt_logprobs = true;
  const auto sequence = RunRequest(*engine, std::move(request), "accuracy guard");

  const size_t first = run.tokens.size() - run.logprobs.size();
  const std::vector<float> random(sequence->prompt_logprobs.begin(),
                                  sequence->prompt_logprobs.begin() + static_cast<ptrdiff_t>(first) - 1);
  accuracy.tolerance =
      GuardTolerance(engine->executor().model().shape(), session.weight_dtype(), session.dtypes().compute,
                     session.dtypes().kv, LogitSpread(random, session.config().vocab));
  double worst = 0;
  for (size_t i = 0; i < run.logprobs.size(); ++i) {
    const double error = std::abs(static_cast<double>(run.logprobs[i]) - sequence->prompt_logprobs[first - 1 + i]);
    if (!(error <= worst)) worst = error;  // NaN too
  }
  accuracy.max_logprob_error = worst;
  accuracy.verdict = worst <= *accuracy.tolerance ? "passed" : "failed";
  return accuracy;
}

}  // namespace assay::bench
