// SPDX-License-Identifier: Apache-2.0
// Where a claim is lost, as a picture: from the claimed figure through each stage to the actual one, on a logarithmic
// scale, because the stages of a Gap are factors. Pure function, any thread.
#pragma once

#include <string>

#include "bench/report/language.h"
#include "bench/result/gap.h"

namespace assay::bench {

// A complete SVG, 900 pixels wide. A number that is missing, or that a logarithmic scale cannot show, has no bar, and
// its words say what it is.
std::string WaterfallSvg(const Gap& gap, const std::string& title, Language language);

}  // namespace assay::bench
