// SPDX-License-Identifier: Apache-2.0
// The gap between what was claimed and what was attained, and where it opens. Pure functions, any thread.
//
// ln(actual / claimed) is the sum of stages, each ln(what is left after it / what was left before it):
//   promise     a user's claim -> the roofline at the claimed peaks (only with such a claim)
//   silicon     claimed peaks -> what this device attains in a matrix product and a stream of reads, in this run
//   kernels     that -> the operations at the model's own shapes, timed one by one
//   throttling  the clock while the model ran / the clock while the operations were timed, where both are known
//   engine      that -> the engine's steps: scheduling, launches, barriers, sampling
//   serving     that -> what a client sees: waiting for a batch, and what passes between steps
// A stage may be a gain (above zero): operations of a recorded plan overlap, which one-by-one timing forbids.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace assay::bench {

// A number with its 95 % interval, where there is one.
struct Estimate {
  double value = 0;
  std::optional<double> low, high;
};

struct GapTerm {
  std::string stage;  // one of the names above
  Estimate log;       // natural logarithm of the share that the stage keeps; exp(log) = 0.8 loses 20 %
  std::string note;   // how it was measured; may be empty
};

// Who says so.
struct Provenance {
  std::string who, date, source, confidence, note;
};

struct Gap {
  std::string metric;     // "decode_tps", "prefill_tps", "flops", "bytes_per_s", "watts", ...
  std::string unit;       // "tok/s", "FLOP/s", "B/s", "W"
  double claimed = 0;     // dense
  std::string claim;      // what it is: "roofline at the claimed peaks (bf16 989 TFLOP/s, 3.35 TB/s)"
  Provenance provenance;  // of the claim
  Estimate actual;
  Estimate ratio;              // actual / claimed
  std::vector<GapTerm> terms;  // add up to ln(ratio) exactly; empty where only the ratio is known
};

// What a result says about gaps.
struct GapReport {
  std::optional<std::string> card_id, card_name;  // the card that the device is held against
  bool card_sure = false;
  std::string card_why;  // how the device was mapped to it, or why it was not
  std::vector<Gap> gaps{};
  std::vector<std::string> notes{};  // what was not compared, and why
};

}  // namespace assay::bench
