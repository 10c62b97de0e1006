// SPDX-License-Identifier: Apache-2.0
// Builds backends/example as a vendor would: install the header, configure and build out of tree, load by path.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "bench/conform/conform.h"

namespace assay::bench {
namespace {

namespace fs = std::filesystem;

// Runs a command; its output is shown when it fails.
void Command(const std::string& command, const fs::path& log) {
  const int status = std::system((command + " > '" + log.string() + "' 2>&1").c_str());
  std::ifstream in(log);
  std::stringstream text;
  text << in.rdbuf();
  ASSERT_EQ(status, 0) << command << "\n" << text.str();
}

class ExamplePlugin : public testing::Test {
 protected:
  // One folder per process (ctest runs tests side by side) and test (a library stays loaded under its path).
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("assay-example-" + std::to_string(getpid()) + "-" +
                                           testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string Build(const std::string& options) {
    const std::string prefix = (folder_ / "prefix").string(), build = (folder_ / "build").string();
    const std::string cmake = "'" ASSAY_CMAKE "' ";
    // The header's own rule: its folder's install script, which knows nothing of the other targets.
    Command(
        cmake + "-DCMAKE_INSTALL_PREFIX='" + prefix + "' -P '" ASSAY_BINARY_DIR "/backends/api/cmake_install.cmake'",
        folder_ / "install.log");
    Command(cmake + "-S '" ASSAY_SOURCE_DIR "/backends/example' -B '" + build +
                "' -DCMAKE_CXX_COMPILER='" ASSAY_CXX "' -DCMAKE_PREFIX_PATH='" + prefix + "' " + options,
            folder_ / "configure.log");
    Command(cmake + "--build '" + build + "'", folder_ / "build.log");
    return build + "/libassay-example.so";
  }
  static std::shared_ptr<Device> Open(const std::string& path) {
    const DeviceChoice choice = ChooseDevice(path);
    return Device::Open(choice.backend, choice.index, 0);
  }

  // Runs the program and gives its exit code; what it printed is in folder_ / "out" and "err".
  int RunAssay(const std::string& arguments) const {
    const int status = std::system(("'" ASSAY_PROGRAM "' " + arguments + " > '" + (folder_ / "out").string() +
                                    "' 2> '" + (folder_ / "err").string() + "'")
                                       .c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  std::string Text(const std::string& name) const {
    std::ifstream in(folder_ / name);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }

  fs::path folder_;
};

TEST_F(ExamplePlugin, BuiltOutOfTreeItConforms) {
  const std::string path = Build("");
  if (HasFatalFailure()) return;
  const ConformReport report = RunConformance(Open(path), {}, {});
  for (const CaseReport& c : report.cases) {
    EXPECT_NE(c.status, CaseStatus::kFailed) << c.where << " " << c.text << ": " << c.detail;
  }
  EXPECT_EQ(report.backend, "example");
  EXPECT_GT(report.Count(CaseStatus::kPassed), 500);
}

TEST_F(ExamplePlugin, GeneratesTheTokensOfTheCpuBackend) {
  const std::string path = Build("");
  if (HasFatalFailure()) return;
  const std::string ids = (folder_ / "ids.json").string();
  std::ofstream(ids) << "[1, 5, 9, 13, 2, 7, 40, 41, 3, 8]";
  // One of each: bias and tied head, QK norm, packed block weights with interleaved rope, rope scaling and its window.
  for (const std::string model : {"qwen2-tied", "qwen3", "gguf-llama-q4_1.gguf", "llama-yarn", "mistral-window"}) {
    SCOPED_TRACE(model);
    std::string text[2];
    for (const bool plugin : {false, true}) {
      ASSERT_EQ(RunAssay("generate --model '" ASSAY_SOURCE_DIR "/tests/data/checkpoints/" + model + "' --token-ids '" +
                         ids + "' -n 24 --ignore-eos --dtype f32 --json --device '" + (plugin ? path : "cpu") + "'"),
                0)
          << Text("err");
      text[plugin] = Text("out");
    }
    EXPECT_NE(text[0].find("token_ids"), std::string::npos);
    EXPECT_EQ(text[0], text[1]);
  }
}

TEST_F(ExamplePlugin, BenchRefusesAtLoadWhatItLacks) {
  const std::string path = Build("-DEXAMPLE_WITHOUT_OP=" + std::to_string(ASSAY_OP_GLU));
  if (HasFatalFailure()) return;
  const fs::path results = folder_ / "results";
  EXPECT_EQ(RunAssay("bench --model '" ASSAY_SOURCE_DIR "/tests/data/checkpoints/llama-mha' --device '" + path +
                     "' --isl 8 --osl 4 --out '" + results.string() + "'"),
            2);
  EXPECT_NE(Text("err").find("'glu'"), std::string::npos) << Text("err");
  EXPECT_EQ(Text("out"), "");
  EXPECT_FALSE(fs::exists(results));
}

TEST_F(ExamplePlugin, AnOperationLeftOutIsMissed) {
  const std::string path = Build("-DEXAMPLE_WITHOUT_OP=" + std::to_string(ASSAY_OP_ROPE));
  if (HasFatalFailure()) return;
  ConformOptions options;
  options.filter = "^(rope|glu) .*dtype=f32";
  const ConformReport report = RunConformance(Open(path), options, {});
  EXPECT_FALSE(report.passed());
  for (const CaseReport& c : report.cases) {
    EXPECT_EQ(c.status == CaseStatus::kPassed, c.op == "glu") << c.text << ": " << c.detail;
    if (c.status == CaseStatus::kFailed) {
      EXPECT_EQ(c.detail,
                "required, refused: operation " + std::to_string(ASSAY_OP_ROPE) + " was left out of this build");
    }
  }
}

}  // namespace
}  // namespace assay::bench
