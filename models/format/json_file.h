// SPDX-License-Identifier: Apache-2.0
// JSON from files that nobody vouches for. Pure functions, any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace assay {

// The object that `text` holds. Throws Error, beginning with `where`, if it is no object, repeats a key, or is of a
// build (depth, number of values, long strings) that would take far more memory than the text itself.
nlohmann::json ParseJsonObject(std::string_view text, const std::string& where);

// The same from a file.
nlohmann::json ReadJsonObject(const std::string& path);

}  // namespace assay
