// SPDX-License-Identifier: Apache-2.0
// The vendors' command line tools that assay knows, and how each is called to tell power. Constants, any thread.
// Sources: captured output and the vendors' manuals; brsmi's is not confirmed by any capture.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "bench/power/meters/vendor_fields.h"

namespace assay::bench {

// One way to call a tool.
struct ToolCall {
  std::vector<std::string> args;
  double averaging_s = 0;  // as MeterInfo: 0 where nobody documents it
};

struct VendorTool {
  std::string name;
  std::vector<ToolCall> calls;  // the best first; versions of the tool differ in which they know
};

const VendorTool* FindVendorTool(std::string_view name);  // nullptr: not in the table
std::string VendorToolNames();                            // "nvidia-smi, npu-smi, ..."

// Two devices of an MLU370-X8 card, 2k and 2k + 1, show one figure, and nobody documents whether it is the card's or
// each device's.
bool SharesPowerWithNeighbour(const CardPower& card);

}  // namespace assay::bench
