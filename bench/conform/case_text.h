// SPDX-License-Identifier: Apache-2.0
// The text of conformance cases: one case per line, "op key=value key=value ...", '#' begins a comment.
// A value with '|' stands for one case per alternative (of several such values, all combinations). "block=device"
// stands for every block size that the device declares. A number may be written in blocks: "b", "2b-1", "b+1".
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "backends/api/assay_backend.h"
#include "bench/conform/cases.h"

namespace assay::bench {

// One case, its alternatives chosen. Readers throw Error naming the file and line where a value is missing or wrong.
class ConformCase {
 public:
  ConformCase(std::string op, std::string where, std::map<std::string, std::string> values);

  const std::string& op() const { return op_; }
  const std::string& where() const { return where_; }
  std::string text() const;
  bool Has(const std::string& key) const { return values_.contains(key); }

  std::string Text(const std::string& key) const;
  int64_t Int(const std::string& key) const;
  int64_t Int(const std::string& key, int64_t otherwise) const;
  double Real(const std::string& key, double otherwise) const;
  assay_dtype DType(const std::string& key) const;
  assay_dtype DType(const std::string& key, assay_dtype otherwise) const;
  // "1,5,b+1"; empty list if the key is absent.
  std::vector<int32_t> Ints(const std::string& key) const;
  std::vector<float> Reals(const std::string& key) const;
  assay_kv_layout Layout() const;  // key "layout": hnd or nhd

  // Throws if the case has a key that was never read: a misspelt key must not silently test something else.
  void CheckAllRead() const;
  [[noreturn]] void Fail(const std::string& what) const;

 private:
  const std::string& Value(const std::string& key) const;
  int64_t ParseInt(const std::string& key, const std::string& text) const;

  std::string op_, where_;
  std::map<std::string, std::string> values_;
  mutable std::set<std::string> read_;
};

// All cases of the files for a device, in order.
std::vector<ConformCase> ParseCases(const std::vector<CaseFile>& files, const assay_device_info& info);

}  // namespace assay::bench
