// SPDX-License-Identifier: Apache-2.0
// The tokens of a model: id to text and back. Filled by a loader, then immutable: any thread.
// Errors: throws Error for ids and texts that cannot be; the loader puts the file's name in front.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace assay {

class Vocabulary {
 public:
  // No model has more than a few hundred thousand tokens; a damaged file must not make us reserve the address space.
  static constexpr int64_t kMaxTokens = 1 << 24;

  // The text as it stands in the file ("Ġthe", "▁the"). Ids may come in any order and leave holes.
  void Add(std::string_view text, int64_t id);

  int32_t size() const { return static_cast<int32_t>(texts_.size()); }
  // Empty for ids that do not exist.
  std::string_view Text(int32_t id) const;
  std::optional<int32_t> Find(std::string_view text) const;

 private:
  std::vector<std::string> texts_;
  std::vector<bool> used_;
  struct Hash {
    using is_transparent = void;  // look up without making a string
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
};

}  // namespace assay
