// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/vendor_tools.h"

#include <fmt/format.h>

#include <algorithm>

namespace assay::bench {
namespace {

const std::vector<VendorTool>& Tools() {
  static const std::vector<VendorTool> tools = {
      // power.draw.instant came with driver 525. From Ampere on (but for GA100), power.draw is the mean over a second.
      {"nvidia-smi",
       {{{"--query-gpu=index,uuid,name,power.draw.instant,power.draw,power.limit,clocks.sm,temperature.gpu",
          "--format=csv"}},
        {{"--query-gpu=index,uuid,name,power.draw,power.limit,clocks.sm,temperature.gpu", "--format=csv"}, 1.0}}},
      {"npu-smi", {{{"info"}}}},
      {"mx-smi", {{}}},
      {"ht-smi", {{}}},                                  // mx-smi under another brand
      {"mthreads-gmi", {{{"-q", "--json"}}, {{"-q"}}}},  // without -q it shows no power
      {"hy-smi",
       {{{"--showpower", "--showmaxpower", "--showtemp", "--json"}}, {{"--showpower", "--showtemp", "--json"}}, {}}},
      {"cnmon", {{}}},
      // CoreX 4 renamed the field; version 3 calls it as nvidia-smi does.
      {"ixsmi",
       {{{"--query-gpu=index,name,gpu.power.draw,gpu.power.limit,clocks.sm,temperature.gpu", "--format=csv"}},
        {{"--query-gpu=index,name,power.draw,power.limit,clocks.sm,temperature.gpu", "--format=csv"}},
        {}}},
      {"xpu-smi", {{}, {{"-q"}}}},  // -q does not number the cards
      {"xpu_smi", {{}, {{"-q"}}}},  // its name up to the second generation
      {"efsmi", {{{"-q"}}, {}}},
      {"brsmi",
       {{{"gpu", "--query-gpu=index,name,power.draw,temperature.gpu", "--format=csv"}},
        {{"gpu", "query", "-d", "power"}},
        {}}},
      {"rocm-smi",
       {{{"--showpower", "--showmaxpower", "--showtemp", "--showgpuclocks", "--json"}}, {{"--showpower", "--json"}}}},
      {"amd-smi", {{{"metric", "--power", "--temperature", "--json"}}, {{"metric", "--power", "--json"}}}},
  };
  return tools;
}

}  // namespace

const VendorTool* FindVendorTool(std::string_view name) {
  const auto found =
      std::find_if(Tools().begin(), Tools().end(), [&](const VendorTool& tool) { return tool.name == name; });
  return found == Tools().end() ? nullptr : &*found;
}

std::string VendorToolNames() {
  std::string names;
  for (const VendorTool& tool : Tools()) names += (names.empty() ? "" : ", ") + tool.name;
  return names;
}

bool SharesPowerWithNeighbour(const CardPower& card) {
  return card.name.find("MLU370-X8") != std::string::npos;
}

}  // namespace assay::bench
