// SPDX-License-Identifier: Apache-2.0
// The languages that pictures and reports speak. Pure functions, any thread.
#pragma once

namespace assay::bench {

enum class Language { kEnglish, kChinese };

// What `english` is in that language; `english` itself where it is no phrase of ours, such as a name from a file. A
// phrase may hold "{}" for fmt::format. The pointer lives as long as the program or as `english`.
const char* Say(Language language, const char* english);

}  // namespace assay::bench
