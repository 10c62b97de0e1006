// SPDX-License-Identifier: Apache-2.0
// Results that others published (bench/data/published/*.json, part of the program), and which of them may be set beside
// one another. None was reproduced here. Plain values; any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace assay::bench {

// An absent or empty field is one that the source does not give; nothing is filled in.
struct Published {
  std::string id;               // "h100-sxm/qwen3-8b/output_tps/1"; never changes once given
  std::string card;             // an id of bench/claims/cards.h, or one that says what is not known of the card
  std::optional<double> count;  // cards in the run; 0.5 is one chip of a card with two
  std::string metric;  // output_tps, total_tps (input counted too), prefill_tps, decode_tps, j_per_output_token,
                       // mean_w, idle_w, gemm_tflops, copy_gbps, read_gbps
  double value = 0;    // in `unit`
  std::string unit;    // tok/s and J/token: of all cards together; tok/s/card, W/card, TFLOPS, TOPS, GB/s: per
                       // card; W (wall): the whole machine
  std::string model, precision;  // "BF16/BF16": weights / activations
  std::string engine;
  std::string scenario;                         // server, offline, single-stream, microbenchmark
  std::optional<double> isl, osl, concurrency;  // tokens in, tokens out, requests at a time or batch
  std::string date, source, quote;              // quote: the figure as the source prints it
  std::string confidence;                       // high, medium, low
  std::string notes;
};

const std::vector<Published>& PublishedResults();  // by file, in the order of their sources
// Those of a card; of one metric if one is named.
std::vector<const Published*> PublishedOf(const std::string& card_id, const std::string& metric = "");

// The value of one card: a sum (tok/s) is divided by the number of cards, everything else is one card's or the run's
// already. Absent where the number of cards is not known.
std::optional<double> PerCard(const Published& result);

struct Comparable {
  bool ok = true;
  std::string why_not;  // one clause for people
};
// May PerCard(a) / PerCard(b) be printed? Only between results of like conditions on cards whose variant is known;
// cards and engines may differ, since they are what is compared.
Comparable CanCompare(const Published& a, const Published& b);
// Are the conditions given that a ratio against the card's claims needs: FLOP/s, bytes/s and watts, or for tokens/s the
// roofline of the model at those claims? A missing length of prompts, or the batch of an offline run, leaves a bound.
Comparable HasConditions(const Published& result);

// The results of one file. Throws Error that names file, entry and field.
std::vector<Published> ParsePublished(const std::string& file, const std::string& text);

}  // namespace assay::bench
