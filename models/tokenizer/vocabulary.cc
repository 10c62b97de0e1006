// SPDX-License-Identifier: Apache-2.0
#include "models/tokenizer/vocabulary.h"

#include "models/format/printable.h"
#include "runtime/core/error.h"

namespace assay {

void Vocabulary::Add(std::string_view text, int64_t id) {
  if (id < 0 || id >= kMaxTokens) {
    throw Error("token '" + Printable(text) + "' has id " + std::to_string(id) + ", not one of 0.." +
                std::to_string(kMaxTokens - 1));
  }
  const auto index = static_cast<size_t>(id);
  if (index >= texts_.size()) {
    texts_.resize(index + 1);
    used_.resize(index + 1);
  }
  if (used_[index]) {
    throw Error("id " + std::to_string(id) + " is given to both '" + Printable(texts_[index]) + "' and '" +
                Printable(text) + "'");
  }
  if (!ids_.emplace(text, static_cast<int32_t>(id)).second) {
    throw Error("token '" + Printable(text) + "' is there twice: ids " + std::to_string(*Find(text)) + " and " +
                std::to_string(id));
  }
  texts_[index] = text;
  used_[index] = true;
}

std::string_view Vocabulary::Text(int32_t id) const {
  return id >= 0 && id < size() ? std::string_view(texts_[static_cast<size_t>(id)]) : std::string_view();
}

std::optional<int32_t> Vocabulary::Find(std::string_view text) const {
  const auto found = ids_.find(text);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace assay
