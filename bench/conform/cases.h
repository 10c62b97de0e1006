// SPDX-License-Identifier: Apache-2.0
// The conformance case files (tests/conformance/cases/*.txt), carried inside the program.
#pragma once

#include <string>
#include <vector>

namespace assay {

struct CaseFile {
  std::string name;  // file name without its ending
  std::string text;
};
const std::vector<CaseFile>& ConformanceCases();

}  // namespace assay
