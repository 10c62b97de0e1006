// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "runtime/device/device.h"

namespace assay {
namespace {

std::string MessageOf(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Loader, FindsTheBuiltInBackendByItsEntrySymbol) {
  const auto found = FindBackends();
  ASSERT_FALSE(found.empty());
  EXPECT_EQ(found[0].where, "built in");
  ASSERT_NE(found[0].backend, nullptr) << found[0].note;
  EXPECT_EQ(found[0].backend->name(), "cpu");
}

TEST(Loader, PrefersARealDeviceToTheReference) {
  const DeviceChoice choice = ChooseDevice("");
  EXPECT_FALSE(choice.info.is_reference);
  EXPECT_FALSE(choice.reason.empty());
}

TEST(Loader, NamesWhatExistsWhenADeviceDoesNot) {
  const std::string message = MessageOf([] { ChooseDevice("npu:7"); });
  EXPECT_NE(message.find("npu:7"), std::string::npos);
  EXPECT_NE(message.find("cpu"), std::string::npos);
}

TEST(Loader, SaysThatAFileIsMissing) {
  const std::string message = MessageOf([] { ChooseDevice("/nonexistent/libx.so"); });
  EXPECT_NE(message.find("/nonexistent/libx.so"), std::string::npos);
}

TEST(Loader, RefusesALibraryThatIsNoBackend) {
  // The C library is a shared object without the entry symbol.
  const std::string message = MessageOf([] { Backend::Load("libm.so.6"); });
  EXPECT_NE(message.find(ASSAY_BACKEND_ENTRY_SYMBOL), std::string::npos) << message;
}

TEST(Loader, RefusesAFileThatIsNoLibrary) {
  const auto path = std::filesystem::temp_directory_path() / ("assay_loader_test_" + std::to_string(getpid()) + ".so");
  std::ofstream(path) << "not an ELF file";
  const std::string message = MessageOf([&] { ChooseDevice(path.string()); });
  std::filesystem::remove(path);
  EXPECT_NE(message.find(path.string()), std::string::npos);
}

TEST(Tensors, ViewsKeepTheirParentsRowStride) {
  const Tensor x = MakeTensor(nullptr, 64, ASSAY_F32, {4, 12});
  const Tensor columns = x.Columns(4, 6);
  EXPECT_EQ(columns.offset, 64u + 16u);
  EXPECT_EQ(columns.shape[1], 6);
  EXPECT_EQ(columns.stride[0], 12);
  const Tensor heads = columns.Heads(3, 2);
  EXPECT_EQ(heads.ndim, 3);
  EXPECT_EQ(heads.stride[0], 12);
  EXPECT_EQ(heads.stride[1], 2);
  const Tensor rows = x.Rows(2, 2);
  EXPECT_EQ(rows.offset, 64u + 2 * 12 * 4);
  EXPECT_EQ(rows.shape[0], 2);
}

}  // namespace
}  // namespace assay
