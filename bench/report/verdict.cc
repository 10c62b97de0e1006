// SPDX-License-Identifier: Apache-2.0
#include "bench/report/verdict.h"

#include <cmath>

#include "bench/stats/format.h"

namespace assay::bench {
namespace {

constexpr double kAtTheLimit = 0.85;  // what the best published CPU and GPU decoders reach of a measured bandwidth
constexpr double kGood = 0.60;
constexpr double kAboveTheLimit = 1.05;
constexpr double kNoisy = 0.10;  // half-width of the interval over the value

bool Known(const std::optional<double>& x) {
  return x && std::isfinite(*x) && *x > 0;
}

// "about 1.4x": what is left up to the limit.
std::string Headroom(double share) {
  return FormatNumber(1 / share, 2) + "x";
}

std::string DecodeClause(const Limits& limits) {
  const std::string what = "decode reads weights and KV cache at " + FormatScaled(*limits.decode_bytes_per_s, "B/s") +
                           ", " + FormatPercent(*limits.mbu) + " of the " + FormatScaled(*limits.bytes_per_s, "B/s") +
                           " that this device's memory delivers";
  if (*limits.mbu > kAboveTheLimit) {
    return what +
           ", which is more than the memory can give: part of the model stays in the caches, so memory is not "
           "this model's limit";
  }
  if (*limits.mbu >= kAtTheLimit) return what + ", so decode is at the limit of this device";
  if (*limits.mbu >= kGood) return what + ", so at most " + Headroom(*limits.mbu) + " is left to gain";
  return what + ", so memory is not what holds it back: a better use of the device could be up to " +
         Headroom(*limits.mbu) + " as fast";
}

std::string PrefillClause(const Limits& limits) {
  const std::string dtype = limits.flops_dtype ? " (" + *limits.flops_dtype + ")" : "";
  return "prefill computes at " + FormatScaled(*limits.prefill_flops_per_s, "FLOP/s") + ", " +
         FormatPercent(*limits.mfu) + " of the " + FormatScaled(*limits.flops, "FLOP/s") + dtype +
         " that a matrix product alone reaches";
}

std::string SpeedClause(const Metrics& metrics) {
  if (metrics.decode_tps) return "decode makes " + FormatRate(metrics.decode_tps) + " tokens/s";
  if (metrics.output_tps) return "the device makes " + FormatRate(metrics.output_tps) + " tokens/s";
  return "";
}

bool IsNoisy(const std::optional<Rate>& rate) {
  return rate && rate->value > 0 && rate->HalfWidth().value_or(0) > kNoisy * rate->value;
}

std::string Core(const RunResult& result) {
  const Limits& limits = result.limits;
  const bool decode = Known(limits.mbu) && Known(limits.decode_bytes_per_s) && Known(limits.bytes_per_s);
  const bool prefill = Known(limits.mfu) && Known(limits.prefill_flops_per_s) && Known(limits.flops);
  if (decode && prefill) return DecodeClause(limits) + "; " + PrefillClause(limits);
  if (decode) return DecodeClause(limits);
  if (prefill) return PrefillClause(limits);
  const std::string speed = SpeedClause(result.metrics);
  if (speed.empty()) return "nothing was measured, so nothing can be said";
  return speed + ", but the device's own limits were not measured, so how good that is stays unknown";
}

// What must be known before the numbers are read.
std::string Caveat(const RunResult& result) {
  if (result.accuracy.verdict == "failed") {
    return "do not use these numbers, because the output differs from the reference by more than rounding explains: ";
  }
  if (result.status == "interrupted") {
    return "interrupted after " + std::to_string(result.trials.size()) + " of " +
           std::to_string(result.workload.trials) + " trials, so provisional: ";
  }
  return "";
}

std::string Postscript(const RunResult& result) {
  std::string text;
  const Metrics& metrics = result.metrics;
  const std::optional<Rate>& rate = metrics.decode_tps ? metrics.decode_tps : metrics.output_tps;
  if (IsNoisy(rate)) {
    text += "; the trials differ so much (± " + FormatPercent(*rate->HalfWidth() / rate->value) +
            ") that only large differences mean anything";
  }
  if (result.model.weights == "synthetic") text += "; the weights are synthetic: the speed is real, the text is not";
  return text;
}

}  // namespace

std::string Verdict(const RunResult& result) {
  std::string sentence = Caveat(result) + Core(result) + Postscript(result) + ".";
  sentence[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(sentence[0])));
  return sentence;
}

}  // namespace assay::bench
