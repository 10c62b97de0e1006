// SPDX-License-Identifier: Apache-2.0
// Reads what vendors' tools print about power. The layout is recognised from the text, not from the tool or its
// version: JSON, tables (ruled, plain or comma-separated; columns are found by their headers), lists of "key : value",
// and rows of bare quantities ("31C 57W 15MiB"). Pure function, any thread.
#pragma once

#include <string>
#include <vector>

#include "bench/power/meters/vendor_fields.h"
#include "runtime/core/error.h"

namespace assay::bench {

// In the order of the text. Fails, with one clause on what was there instead, where no card shows a power.
Result<std::vector<CardPower>> ParseCardPowers(const std::string& text);

}  // namespace assay::bench
