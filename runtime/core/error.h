// SPDX-License-Identifier: Apache-2.0
// How things fail: exceptions at load and configuration (caught in main), Result<T> in the step loop,
// CHECK for bugs of our own. User input never aborts the process.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>

namespace assay {

// Bad input or environment: one line that names what is wrong, where, and how to mend it. Exit code 2.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The run was interrupted by a signal. Exit code 130.
class Interrupted : public std::runtime_error {
 public:
  Interrupted() : std::runtime_error("interrupted") {}
};

// A value, or one line on why there is none.
template <class T>
class Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  static Result Fail(std::string why) { return Result(std::in_place_index<1>, std::move(why)); }

  bool ok() const { return state_.index() == 0; }
  T& value() { return std::get<0>(state_); }
  const T& value() const { return std::get<0>(state_); }
  const std::string& error() const { return std::get<1>(state_); }

 private:
  template <size_t I, class U>
  Result(std::in_place_index_t<I> i, U&& u) : state_(i, std::forward<U>(u)) {}
  std::variant<T, std::string> state_;
};

}  // namespace assay

// A condition that only a bug in this program can break.
#define ASSAY_CHECK(cond)                                                           \
  do {                                                                              \
    if (!(cond)) {                                                                  \
      std::fprintf(stderr, "assay: bug: %s at %s:%d\n", #cond, __FILE__, __LINE__); \
      std::abort();                                                                 \
    }                                                                               \
  } while (0)
