// SPDX-License-Identifier: Apache-2.0
// A result as `assay bench` shows it to a person. Pure function of the result, any thread.
#pragma once

#include <iosfwd>
#include <string>

#include "bench/result/run_result.h"

namespace assay::bench {

// At most 120 columns of UTF-8 without escape sequences; ends with the verdict's sentence. `result_path`: where the
// result file is; empty leaves the line out. A percentile is shown only where the sample is large enough to have one.
void PrintResult(const RunResult& result, const std::string& result_path, std::ostream& out);

}  // namespace assay::bench
