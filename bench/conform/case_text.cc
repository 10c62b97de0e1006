// SPDX-License-Identifier: Apache-2.0
#include "bench/conform/case_text.h"

#include <charconv>
#include <sstream>

#include "runtime/core/dtype.h"
#include "runtime/core/error.h"

namespace assay::bench {
namespace {

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
  return parts;
}

std::string DeviceBlockSizes(const assay_device_info& info) {
  std::string text;
  for (const int32_t size : info.kv_block_sizes) {
    if (size == 0) break;
    text += (text.empty() ? "" : "|") + std::to_string(size);
  }
  return text.empty() ? "0" : text;
}

using Values = std::map<std::string, std::string>;

// One line's cases: every combination of its alternatives.
std::vector<Values> Expand(const std::vector<std::pair<std::string, std::string>>& pairs) {
  std::vector<Values> expanded(1);
  for (const auto& [key, alternatives] : pairs) {
    std::vector<Values> next;
    for (const Values& base : expanded) {
      for (const std::string& value : Split(alternatives, '|')) {
        next.push_back(base);
        next.back()[key] = value;
      }
    }
    expanded = std::move(next);
  }
  return expanded;
}

}  // namespace

ConformCase::ConformCase(std::string op, std::string where, std::map<std::string, std::string> values)
    : op_(std::move(op)), where_(std::move(where)), values_(std::move(values)) {}

std::string ConformCase::text() const {
  std::string text = op_;
  for (const auto& [key, value] : values_) text += " " + key + "=" + value;
  return text;
}

void ConformCase::Fail(const std::string& what) const {
  throw Error("conformance case " + where_ + ": " + what);
}

const std::string& ConformCase::Value(const std::string& key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) Fail(op_ + " needs " + key + "=");
  read_.insert(key);
  return found->second;
}

std::string ConformCase::Text(const std::string& key) const {
  return Value(key);
}

int64_t ConformCase::ParseInt(const std::string& key, const std::string& text) const {
  int64_t number = 0;
  const char *at = text.data(), *end = at + text.size();
  const auto parse = [&](int64_t* value) {
    const auto [next, error] = std::from_chars(at, end, *value);
    if (error != std::errc()) return false;
    at = next;
    return true;
  };
  const bool counted = parse(&number);
  if (at < end && *at == 'b') {
    ++at;
    number = (counted ? number : 1) * Int("block");
    if (at < end && *at == '+') ++at;
    int64_t more = 0;
    if (at < end && parse(&more)) number += more;
  } else if (!counted) {
    at = nullptr;
  }
  if (at != end) Fail(key + "=" + text + " is not a whole number");
  return number;
}

int64_t ConformCase::Int(const std::string& key) const {
  return ParseInt(key, Value(key));
}

int64_t ConformCase::Int(const std::string& key, int64_t otherwise) const {
  return Has(key) ? Int(key) : otherwise;
}

double ConformCase::Real(const std::string& key, double otherwise) const {
  if (!Has(key)) return otherwise;
  const std::vector<float> values = Reals(key);
  if (values.size() != 1) Fail(key + " takes one number");
  return values[0];
}

assay_dtype ConformCase::DType(const std::string& key) const {
  const std::string& name = Value(key);
  if (name == "none") return ASSAY_DTYPE_NONE;
  if (const assay_dtype d = DTypeOfName(name); d != ASSAY_DTYPE_NONE) return d;
  Fail(key + "=" + name + " is not a dtype of a case");
}

assay_dtype ConformCase::DType(const std::string& key, assay_dtype otherwise) const {
  return Has(key) ? DType(key) : otherwise;
}

std::vector<int32_t> ConformCase::Ints(const std::string& key) const {
  std::vector<int32_t> values;
  if (!Has(key)) return values;
  for (const std::string& part : Split(Value(key), ',')) values.push_back(static_cast<int32_t>(ParseInt(key, part)));
  return values;
}

std::vector<float> ConformCase::Reals(const std::string& key) const {
  std::vector<float> values;
  if (!Has(key)) return values;
  for (const std::string& part : Split(Value(key), ',')) {
    float value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc() || end != part.data() + part.size()) Fail(key + "=" + part + " is not a number");
    values.push_back(value);
  }
  return values;
}

assay_kv_layout ConformCase::Layout() const {
  const std::string& name = Value("layout");
  if (name == "hnd") return ASSAY_KV_HND;
  if (name == "nhd") return ASSAY_KV_NHD;
  Fail("layout=" + name + " is neither hnd nor nhd");
}

void ConformCase::CheckAllRead() const {
  for (const auto& [key, value] : values_) {
    if (!read_.contains(key)) Fail(op_ + " knows no key '" + key + "'");
  }
}

std::vector<ConformCase> ParseCases(const std::vector<CaseFile>& files, const assay_device_info& info) {
  std::vector<ConformCase> cases;
  for (const CaseFile& file : files) {
    int line_number = 0;
    for (std::string line : Split(file.text, '\n')) {
      const std::string where = file.name + ".txt:" + std::to_string(++line_number);
      std::istringstream words(line.substr(0, line.find('#')));
      std::string op;
      if (!(words >> op)) continue;
      std::vector<std::pair<std::string, std::string>> pairs;
      for (std::string word; words >> word;) {
        const size_t equals = word.find('=');
        if (equals == std::string::npos || equals == 0 || equals + 1 == word.size())
          throw Error("conformance case " + where + ": '" + word + "' is not key=value");
        pairs.emplace_back(word.substr(0, equals), word.substr(equals + 1));
        if (pairs.back() == std::pair<std::string, std::string>("block", "device")) {
          pairs.back().second = DeviceBlockSizes(info);
        }
      }
      for (Values& values : Expand(pairs)) cases.emplace_back(op, where, std::move(values));
    }
  }
  return cases;
}

}  // namespace assay::bench
