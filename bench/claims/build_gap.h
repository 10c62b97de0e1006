// SPDX-License-Identifier: Apache-2.0
// The gaps of a result: what it attained against what is claimed of its card. Pure functions, any thread.
//
// The claim on tokens per second is a roofline: the work of a unit (bench/result/run_result.h, PhaseTimes) at the
// claimed peaks takes max(FLOP / claimed FLOP/s, bytes / claimed bytes/s), compute and memory traffic fully overlapped
// (Williams, Waterman, Patterson, CACM 2009). It is the most that the claimed figures allow, not what a vendor promises
// of a model. The stage "silicon" holds the same formula with the limits that were measured in the run.
#pragma once

#include "bench/claims/cards.h"
#include "bench/result/gap.h"
#include "bench/result/run_result.h"
#include "runtime/core/error.h"

namespace assay::bench {

Estimate Over(const Estimate& e, double denominator);

// Of a claimed figure of a card, and of a roofline, behind which two figures stand.
Provenance ProvenanceOf(const Card& card, const Figure& figure);
Provenance ProvenanceOf(const Card& card, const Figure& flops, const Figure& bytes);

// The figures that so many devices have together; a card may show up as several (two dies, two chips).
Card DevicesOf(const Card& card, int64_t devices);

// match.card may be null: the report then says why there is nothing to compare with.
GapReport BuildGapReport(const RunResult& result, const CardMatch& match);

// Tokens per second of this result's workload that the claimed peaks of `card` allow: of prefill, decode and both
// together as batches of requests of isl and osl tokens, prompts and decode steps one after the other. metric:
// "prefill_tps", "decode_tps", "output_tps". Fails with one line on what is not claimed or was not measured.
Result<double> ClaimedRoof(const RunResult& result, const Card& card, const std::string& metric);

// What the result itself has for a metric: its rates as `metrics` holds them, "flops", "bytes_per_s", and "watts" where
// a meter of the card alone measured them. Absent where it does not.
std::optional<Estimate> ActualOf(const RunResult& result, const std::string& metric);

}  // namespace assay::bench
