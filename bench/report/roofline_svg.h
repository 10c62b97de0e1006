// SPDX-License-Identifier: Apache-2.0
// The roofline: what memory and compute allow at each arithmetic intensity, and where the model's phases and operations
// lie below it (Williams, Waterman, Patterson: Roofline, CACM 52(4), 2009). Pure function, any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bench/report/language.h"

namespace assay::bench {

struct RooflinePicture {
  // A limit: min(flops, bytes_per_s * intensity). A figure that is not above zero is unknown: its part is not drawn.
  struct Roof {
    std::string name = {};   // "measured in this run"
    double flops = 0;        // FLOP/s, dense
    double bytes_per_s = 0;  // of device memory
    bool claimed = false;    // drawn dashed
    std::string dtype = {};  // of `flops`
  };
  struct Point {
    std::string name = {};  // with the share of its limit: "decode, MBU 48 %"
    double flops_per_byte = 0, flops_per_s = 0;
    std::optional<double> low = {}, high = {};  // 95 % interval of flops_per_s
  };
  std::string title = {}, subtitle = {};
  std::vector<Roof> roofs = {};
  std::vector<Point> points = {};
};

// A complete SVG, 900 pixels wide. What a logarithmic axis cannot show is left out. Names are best kept below 36
// characters and points below about 12, or labels are cut and may touch.
std::string RooflineSvg(const RooflinePicture& picture, Language language);

}  // namespace assay::bench
