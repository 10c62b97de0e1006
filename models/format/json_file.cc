// SPDX-License-Identifier: Apache-2.0
#include "models/format/json_file.h"

#include <functional>
#include <unordered_set>
#include <vector>

#include "models/format/mapped_file.h"
#include "models/format/printable.h"
#include "runtime/core/error.h"

namespace assay {
namespace {

// A parsed value takes up to about 100 bytes beside its text, and the parser keeps a token and the white space
// before it a few times over. With these bounds that stays below 64 MB.
constexpr size_t kMaxMarks = 400'000;   // commas, colons and brackets
constexpr size_t kMaxToken = 2u << 20;  // bytes of one string or number
constexpr size_t kMaxSpace = 4u << 20;  // bytes of white space
constexpr int kMaxDepth = 32;

void CheckBuild(std::string_view text, const std::string& where) {
  const auto fail = [&](size_t at, const std::string& what) {
    throw Error(where + ": byte " + std::to_string(at) + ": " + what);
  };
  size_t marks = 0;
  size_t token = 0;
  size_t space = 0;
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (++token > kMaxToken) fail(i, "a string or number of more than 2 MB");
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
      continue;
    }
    switch (c) {
      case '"':
        in_string = true;
        break;
      case '{':
      case '[':
        ++depth;
        [[fallthrough]];
      case ',':
      case ':':
        ++marks;
        token = 0;
        break;
      case '}':
      case ']':
        --depth;
        token = 0;
        break;
      case ' ':
      case '\t':
      case '\r':
      case '\n':
        ++space;
        break;
      default:
        break;
    }
    if (depth > kMaxDepth) fail(i, "values are nested more than " + std::to_string(kMaxDepth) + " deep");
    if (marks > kMaxMarks) fail(i, "more than " + std::to_string(kMaxMarks) + " values");
    if (space > kMaxSpace) fail(i, "more than 4 MB of white space");
  }
}

// A first pass over the text: is it JSON, and does no object repeat a key? (Of a repeated key the parser would keep the
// last value, and other programs the first.) The parser's own callbacks would do, but take time that grows with the
// square of the number of objects.
class Checker : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Checker(const std::string& where) : where_(where) {}

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_array(size_t) override { return true; }
  bool end_array() override { return true; }
  bool start_object(size_t) override {
    keys_.emplace_back();
    return true;
  }
  bool end_object() override {
    keys_.pop_back();
    return true;
  }
  bool key(string_t& key) override {
    if (!keys_.back().insert(std::hash<std::string>{}(key)).second) {
      throw Error(where_ + ": key \"" + Printable(key) + "\" appears twice in one object");
    }
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& e) override {
    const std::string why = e.what();  // "[json.exception.parse_error.101] parse error at line 1, ..."
    const size_t end_of_id = why.find("] ");
    throw Error(where_ +
                ": not valid JSON: " + Printable(why.substr(end_of_id == std::string::npos ? 0 : end_of_id + 2)));
  }

 private:
  const std::string& where_;
  std::vector<std::unordered_set<size_t>> keys_;  // hashes, of the objects that are open
};

}  // namespace

nlohmann::json ParseJsonObject(std::string_view text, const std::string& where) {
  CheckBuild(text, where);
  Checker checker(where);
  nlohmann::json::sax_parse(text.begin(), text.end(), &checker);
  nlohmann::json value = nlohmann::json::parse(text.begin(), text.end());
  if (!value.is_object()) throw Error(where + ": a JSON object was expected");
  return value;
}

nlohmann::json ReadJsonObject(const std::string& path) {
  const MappedFile file(path);
  return ParseJsonObject({reinterpret_cast<const char*>(file.data()), file.size()}, path);
}

}  // namespace assay
