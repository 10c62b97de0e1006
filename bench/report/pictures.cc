// SPDX-License-Identifier: Apache-2.0
#include "bench/report/pictures.h"

#include <fmt/format.h>

#include <algorithm>

#include "bench/report/roofline_svg.h"
#include "bench/report/waterfall_svg.h"
#include "bench/stats/format.h"

namespace assay::bench {
namespace {

std::string Subject(const RunResult& r) {
  return r.model.name + " " + r.model.dtype + ", " + r.device.name;
}

std::string Workload(const RunResult& r) {
  return r.workload.scenario + ", " + std::to_string(r.workload.isl) + " + " + std::to_string(r.workload.osl) +
         " tokens, " + r.started_at.substr(0, 10);
}

const Gap* FindGap(const RunResult& r, const std::string& metric) {
  if (!r.gap) return nullptr;
  const auto gap =
      std::find_if(r.gap->gaps.begin(), r.gap->gaps.end(), [&](const Gap& g) { return g.metric == metric; });
  return gap == r.gap->gaps.end() ? nullptr : &*gap;
}

RooflinePicture::Point PointOf(const std::string& name, const PhaseTimes& unit) {
  RooflinePicture::Point point{.name = name, .flops_per_byte = unit.flops / unit.bytes};
  const Rate& s = *unit.steps_s;
  point.flops_per_s = unit.flops / s.value;
  if (s.ci_high) point.low = unit.flops / *s.ci_high;
  if (s.ci_low && *s.ci_low > 0) point.high = unit.flops / *s.ci_low;
  return point;
}

// What the claim is, up to the figures in it, in that language.
Gap Translated(Gap gap, Language language) {
  const size_t end = std::min(gap.claim.find(" ("), gap.claim.size());
  gap.claim = Say(language, gap.claim.substr(0, end).c_str()) + gap.claim.substr(end);
  return gap;
}

std::string Roofline(const RunResult& r, Language language) {
  const Limits& l = r.limits;
  RooflinePicture picture{.title = Subject(r), .subtitle = Workload(r)};
  picture.roofs.push_back({.name = Say(language, "measured in this run"),
                           .flops = *l.flops,
                           .bytes_per_s = *l.bytes_per_s,
                           .dtype = l.flops_dtype.value_or("")});
  const Gap *flops = FindGap(r, "flops"), *bytes = FindGap(r, "bytes_per_s");
  if (flops || bytes) {
    picture.roofs.push_back(
        {.name = fmt::format(fmt::runtime(Say(language, "claimed: {}")), r.gap->card_name.value_or("")),
         .flops = flops ? flops->claimed : 0,
         .bytes_per_s = bytes ? bytes->claimed : 0,
         .claimed = true,
         .dtype = l.flops_dtype.value_or("")});
  }
  const auto& [prefill, decode] = r.phases;
  if (decode && decode->steps_s && l.mbu) {
    picture.points.push_back(PointOf("decode, MBU " + FormatPercent(*l.mbu), *decode));
  }
  if (prefill && prefill->steps_s && l.mfu) {
    picture.points.push_back(PointOf("prefill, MFU " + FormatPercent(*l.mfu), *prefill));
  }
  return RooflineSvg(picture, language);
}

}  // namespace

std::vector<Picture> PicturesOf(const RunResult& r, Language language) {
  std::vector<Picture> pictures;
  if (r.limits.flops && r.limits.bytes_per_s) pictures.push_back({"roofline", Roofline(r, language)});
  if (!r.gap) return pictures;
  for (const Gap& gap : r.gap->gaps) {
    const std::string name = gap.metric.substr(0, gap.metric.find("_tps"));
    pictures.push_back({"gap-" + name, WaterfallSvg(Translated(gap, language), Subject(r), language)});
  }
  return pictures;
}

}  // namespace assay::bench
