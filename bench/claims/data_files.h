// SPDX-License-Identifier: Apache-2.0
// The data files of bench/data/cards and bench/data/published, carried inside the program (cmake/embed.cmake writes the
// functions). Any thread.
#pragma once

#include <string>
#include <vector>

namespace assay::bench {

struct DataFile {
  std::string name;  // file name without its ending
  std::string text;
};
const std::vector<DataFile>& CardFiles();       // TOML, one per vendor
const std::vector<DataFile>& PublishedFiles();  // JSON, one per vendor

}  // namespace assay::bench
