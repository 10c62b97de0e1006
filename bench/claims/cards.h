// SPDX-License-Identifier: Apache-2.0
// The card database: what is claimed of each accelerator, by whom and when (bench/data/cards/*.toml, part of the
// program). Plain values; any thread.
//
// A figure in a file: { value = 989, source = "key of [sources]", confidence = "secondary", note = "...", sparse = true
// }. value = "none": not supported; value = "unknown", or no such line: nobody trustworthy says. The units are in the
// keys of the file: memory_gib (what vendors sell as GB is 2^30 bytes), bandwidth_gb_s, *_tflops and int8_tops (dense),
// tdp_w, link_gb_s (all links of a card, both directions).
//
// Confidence, best first: vendor, vendor-tool and vendor-text (the vendor's own page, source code or words),
// vendor-transcribed and vendor-reproduced (copied by others), captured (a driver's output), derived (computed),
// secondary, press, estimate, low.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "backends/api/assay_backend.h"

namespace assay::bench {

// One claimed figure. FLOP/s are dense unless `sparse`.
struct Figure {
  std::optional<double> value;  // SI units: FLOP/s, bytes/s, bytes, W; absent: unknown, or not supported
  bool unsupported = false;     // the card has no such precision
  bool sparse = false;          // the source counts 2:4 sparsity: halve before comparing (DenseValue does)
  std::string source, date, confidence, note;  // date: when it was published or read, "" where nobody knows
};
double DenseValue(const Figure& figure);  // figure.value must be there

struct Card {
  std::string id, name, vendor;
  // Keys: memory_bytes, bytes_per_s, fp32, tf32, bf16, fp16, fp8, fp4, int8 (FLOP/s or OP/s), tdp_w, link_bytes_per_s.
  std::map<std::string, Figure> figures;
  int devices = 1;                     // that one card shows up as, each a die; the figures are those of the whole card
  std::string process;                 // "TSMC 4N", "" unknown
  Figure process_origin;               // who says so; no value
  std::vector<std::string> match;      // regular expressions for device names as drivers report them
  std::vector<std::string> claims;     // marketing claims with their source, as text
  std::vector<std::string> conflicts;  // where sources disagree
  std::vector<std::string> measured;   // others' measurements, as text

  // nullptr where the database says nothing of it.
  const Figure* Find(const std::string& key) const;
};

const std::vector<Card>& Cards();  // sorted by vendor, then name
// By id, or by words of a name that only one card has (case and punctuation do not matter): "h100", "A100 SXM". Throws
// Error that lists near matches.
const Card& FindCard(const std::string& id_or_name);

// Which card a device is.
struct CardMatch {
  const Card* card = nullptr;                // nullptr: none fits, or several do and nothing tells them apart
  bool sure = false;                         // exactly one card fits name and memory
  std::string why;                           // one clause for people
  std::vector<const Card*> candidates = {};  // all that fit the name, and the memory if that is known
};
CardMatch DetectCard(const std::string& device_name, uint64_t memory_bytes);  // 0: memory not known

// The figure's key for weights and activations of a dtype: BF16 -> "bf16", Q4_1 on a GPU computes in "fp16" or "bf16"
// (the first that the card claims), on a CPU in "int8". A dtype that the card lacks is computed in a wider one.
std::string PeakKey(const Card& card, assay_dtype weight_dtype);

// The cards of one file. Throws Error that names file, card and field.
std::vector<Card> ParseCards(const std::string& file, const std::string& text);

inline constexpr char kHostCardId[] = "host";  // of the card that bench/claims/host_peaks.h derives

}  // namespace assay::bench
