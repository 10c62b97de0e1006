// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/gemm_cache.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace assay::gpu {
namespace {

std::string said;
void Keep(int, const char* text) {
  said += text;
}

class GemmCacheTest : public testing::Test {
 protected:
  void SetUp() override {
    said.clear();
    std::string name = (std::filesystem::temp_directory_path() / "gemm_cache_XXXXXX").string();
    folder_ = mkdtemp(name.data());
    file_ = folder_ + "/assay/gemm-card-driver.txt";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string folder_, file_;
};

const LtProduct kProduct{DType::kBF16, DType::kF32, 512, 4096, 14336, 14336, 14400, 4096};
const LtAlgorithm kAlgorithm{1, 2, 3, 0xfedcba9876543210u, 5, 6, 7, 8};

TEST_F(GemmCacheTest, AnotherRunFindsWhatWasStored) {
  LtProduct other = kProduct;
  other.m = 513;
  {
    GemmCache cache(file_, 130100, Keep);
    EXPECT_EQ(cache.Find(kProduct), nullptr);
    cache.Store(other, {});
    cache.Store(kProduct, kAlgorithm);
  }
  const GemmCache cache(file_, 130100, Keep);
  ASSERT_NE(cache.Find(kProduct), nullptr);
  EXPECT_EQ(*cache.Find(kProduct), kAlgorithm);
  ASSERT_NE(cache.Find(other), nullptr);
  EXPECT_EQ(*cache.Find(other), LtAlgorithm{});
  EXPECT_EQ(said, "");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_ + "/assay"), {}), 1) << "a draft was left";
}

TEST_F(GemmCacheTest, ADamagedFileIsIgnoredAndNamed) {
  GemmCache(file_, 130100, Keep).Store(kProduct, kAlgorithm);
  std::stringstream whole;
  whole << std::ifstream(file_).rdbuf();
  for (size_t length = whole.str().size() - 2; length > 0; length -= length > 7 ? 7 : length) {
    said.clear();
    std::ofstream(file_, std::ios::trunc) << whole.str().substr(0, length);
    GemmCache cache(file_, 130100, Keep);
    EXPECT_EQ(cache.Find(kProduct), nullptr) << length;
    EXPECT_NE(said.find("damaged"), std::string::npos) << length;
    EXPECT_NE(said.find(file_), std::string::npos);
  }
  GemmCache(file_, 130100, Keep).Store(kProduct, kAlgorithm);  // and is replaced
  EXPECT_NE(GemmCache(file_, 130100, Keep).Find(kProduct), nullptr);
}

TEST_F(GemmCacheTest, AnotherVersionOfTheLibraryIsMeasuredAgain) {
  GemmCache(file_, 120900, Keep).Store(kProduct, kAlgorithm);
  EXPECT_EQ(GemmCache(file_, 130100, Keep).Find(kProduct), nullptr);
  EXPECT_NE(said.find("another version"), std::string::npos);
}

TEST_F(GemmCacheTest, WhereNothingCanBeWrittenMemoryServes) {
  std::ofstream(folder_ + "/assay") << "a file where the folder should be";
  GemmCache cache(file_, 130100, Keep);
  cache.Store(kProduct, kAlgorithm);
  EXPECT_NE(cache.Find(kProduct), nullptr);
  EXPECT_NE(said.find("cannot be written"), std::string::npos);
}

TEST(GemmCacheFileName, FollowsXdg) {
  setenv("XDG_CACHE_HOME", "/var/cache/me", 1);
  EXPECT_EQ(GemmCacheFile("NVIDIA H100 80GB/x", "580.1"), "/var/cache/me/assay/gemm-NVIDIA_H100_80GB_x-580.1.txt");
  setenv("XDG_CACHE_HOME", "relative", 1);
  setenv("HOME", "/home/me", 1);
  EXPECT_EQ(GemmCacheFile("a", "b"), "/home/me/.cache/assay/gemm-a-b.txt");
  unsetenv("HOME");
  EXPECT_EQ(GemmCacheFile("a", "b"), "");
}

}  // namespace
}  // namespace assay::gpu
