// SPDX-License-Identifier: Apache-2.0
// A meter that runs a program for each reading: a vendor's command line tool, or a shell command that prints watts.
// Watts, MHz, degrees Celsius; a reading's time is the middle of the call. One thread at a time.
#pragma once

#include <memory>
#include <string>

#include "bench/power/meter.h"

namespace assay::bench {

// text: TOOL or TOOL:CARDS of vendor_tools.h (CARDS: the numbers that the tool prints, "0,2"), anything else is a shell
// command whose stdout must be one number, optionally followed by W, mW or kW. Without CARDS, all cards that show a
// power when it is opened. Calls it once; fails with one line on what went wrong and how to mend it. Read() fails where
// a card is missing or shows no power: never a partial sum.
Result<std::unique_ptr<Meter>> OpenCommandMeter(const std::string& text);

}  // namespace assay::bench
