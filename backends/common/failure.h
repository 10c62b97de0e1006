// SPDX-License-Identifier: Apache-2.0
// How a call of the backend fails: a Failure is thrown inside and becomes status and message at the border (Guard).
#pragma once

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>

#include "backends/api/assay_backend.h"

namespace assay::backend {

struct Failure {
  assay_status status;
  char text[512];
};

[[noreturn]] __attribute__((format(printf, 2, 3))) inline void Fail(assay_status status, const char* format, ...) {
  Failure failure;
  failure.status = status;
  va_list args;
  va_start(args, format);
  std::vsnprintf(failure.text, sizeof failure.text, format, args);
  va_end(args);
  throw failure;
}

template <class T>
T* NotNull(T* pointer, const char* what) {
  if (pointer == nullptr) Fail(ASSAY_ERR_INVALID, "%s is NULL", what);
  return pointer;
}

// Copies what the caller's message has room for.
inline assay_status Report(assay_message* msg, assay_status status, const char* text) {
  if (msg != nullptr && msg->struct_size > offsetof(assay_message, text)) {
    const size_t room = std::min<size_t>(msg->struct_size - offsetof(assay_message, text), sizeof msg->text);
    std::snprintf(msg->text, room, "%s", text);
  }
  return status;
}

// Runs the body of an ABI call; no exception leaves it.
template <class Body>
assay_status Guard(assay_message* msg, Body body) {
  try {
    body();
    return ASSAY_OK;
  } catch (const Failure& failure) {
    return Report(msg, failure.status, failure.text);
  } catch (const std::bad_alloc&) {
    return Report(msg, ASSAY_ERR_NO_MEMORY, "out of host memory");
  } catch (const std::exception& error) {
    return Report(msg, ASSAY_ERR_INTERNAL, error.what());
  } catch (...) {
    return Report(msg, ASSAY_ERR_INTERNAL, "unknown exception");
  }
}

// A struct of the caller as this side knows it: what the caller's version lacks reads as zero.
template <class T>
T ReadStruct(const void* from, const char* what) {
  if (from == nullptr) Fail(ASSAY_ERR_INVALID, "%s is NULL", what);
  uint32_t size = 0;
  std::memcpy(&size, from, sizeof size);
  if (size < sizeof size) Fail(ASSAY_ERR_INVALID, "%s has no struct_size", what);
  T value{};
  std::memcpy(&value, from, std::min<size_t>(size, sizeof value));
  return value;
}

// Fills a struct of the caller as far as the caller knows it.
template <class T>
void WriteStruct(T value, T* to, const char* what) {
  if (to == nullptr) Fail(ASSAY_ERR_INVALID, "%s is NULL", what);
  value.struct_size = std::min<uint32_t>(to->struct_size, sizeof value);
  if (value.struct_size < sizeof value.struct_size) Fail(ASSAY_ERR_INVALID, "%s has no struct_size", what);
  std::memcpy(to, &value, value.struct_size);
}

}  // namespace assay::backend
