// SPDX-License-Identifier: Apache-2.0
// Bad input ends with exit code 2, one line on stderr that names what is wrong, nothing on stdout and no file.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "tests/e2e/program.h"

namespace assay::e2e {
namespace {

namespace fs = std::filesystem;
using Args = std::vector<std::string>;

const fs::path kCheckpoints = fs::path(ASSAY_SOURCE_DIR) / "tests/data/checkpoints";
const std::string kGood = (kCheckpoints / "llama-mha").string();
const std::string kGguf = (kCheckpoints / "gguf-llama-q8_0.gguf").string();

class BadInput : public testing::Test {
 protected:
  // `names`: a word that the line must contain, so that the reader knows where to look.
  void ExpectRefused(const Args& args, const std::string& names) {
    const size_t before = folder_.Files();
    const Outcome run = RunAssay(args, /*limit_s=*/60);
    std::string command;
    for (const std::string& arg : args) command += arg + " ";
    SCOPED_TRACE(command);
    EXPECT_FALSE(run.timed_out) << "it went on instead of refusing";
    EXPECT_EQ(run.exit_code, 2);
    EXPECT_EQ(run.out, "");
    EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
    EXPECT_NE(run.err.find(names), std::string::npos) << run.err << "does not name " << names;
    EXPECT_EQ(folder_.Files(), before) << "it left a file";
  }

  Args Score(const std::string& model, const std::string& ids = "[5, 6, 7]") {
    return {"score", "--model", model, "--tokens", folder_.Write("ids.json", ids), "--json"};
  }

  // So many trials that a run which is not refused does not end before the limit.
  Args Bench(const Args& options) {
    Args args{"bench", "--isl", "16", "--osl", "8", "--trials", "1000000", "--json"};
    args.insert(args.end(), options.begin(), options.end());
    return args;
  }
  std::string Out() const { return (folder_.path() / "results").string(); }

  // A copy of the good checkpoint that a test then damages.
  fs::path Copy() {
    const fs::path copy = folder_.path() / "copy";
    fs::copy(kGood, copy, fs::copy_options::recursive);
    return copy;
  }
  void Edit(const fs::path& config, const std::string& key, const nlohmann::json& value) {
    nlohmann::json json = ParseOne(ReadFile(config));
    json[key] = value;
    std::ofstream(config) << json;
  }

  TemporaryFolder folder_;
};

TEST_F(BadInput, ModelThatIsNotThere) {
  ExpectRefused(Score("/nowhere/model"), "/nowhere/model");
  ExpectRefused(Score("/nowhere/model.gguf"), "/nowhere/model.gguf");
  ExpectRefused(Bench({"--model", "/nowhere/model.gguf", "--out", Out()}), "/nowhere/model.gguf");
}

TEST_F(BadInput, UnknownShape) {
  ExpectRefused(Bench({"--model", "shape:nope", "--out", Out()}), "nope");
}

TEST_F(BadInput, TruncatedFiles) {
  const fs::path copy = Copy();
  for (const uintmax_t size : {0, 5, 100, 20000}) {
    fs::resize_file(copy / "model.safetensors", size);
    ExpectRefused(Score(copy.string()), "model.safetensors");
  }
  fs::copy(kGguf, folder_.path() / "cut.gguf");
  for (const uintmax_t size : {20000, 500, 30, 3, 0}) {
    fs::resize_file(folder_.path() / "cut.gguf", size);
    ExpectRefused(Score((folder_.path() / "cut.gguf").string()), "cut.gguf");
  }
}

TEST_F(BadInput, FolderWithoutWeightsOrConfiguration) {
  const fs::path copy = Copy();
  fs::remove(copy / "model.safetensors");
  ExpectRefused(Score(copy.string()), "copy");
  fs::remove(copy / "config.json");
  ExpectRefused(Score(copy.string()), "config.json");
}

TEST_F(BadInput, Configuration) {
  const fs::path config = Copy() / "config.json";
  const std::string good = ReadFile(config), model = config.parent_path().string();
  Edit(config, "architectures", {"NoSuchForCausalLM"});
  Edit(config, "model_type", "nosuch");
  ExpectRefused(Score(model), "NoSuchForCausalLM");
  const std::vector<std::pair<std::string, nlohmann::json>> changes = {
      {"hidden_size", 0},
      {"hidden_size", -32},
      {"num_hidden_layers", 1e18},
      {"num_attention_heads", "four"},
      {"num_key_value_heads", 3},
      {"vocab_size", 4000000000000},
      {"intermediate_size", 47},
      {"rms_norm_eps", "small"},
      {"rope_scaling", {{"rope_type", "nosuch"}, {"factor", 2.0}}}};
  for (const auto& [key, value] : changes) {
    std::ofstream(config) << good;
    Edit(config, key, value);
    ExpectRefused(Score(model), "copy");
  }
  std::ofstream(config) << "{\"architectures\": [";
  ExpectRefused(Score(model), "config.json");
}

TEST_F(BadInput, TokenFiles) {
  for (const std::string text :
       {"", "[", "{}", "[1, 2.5]", "[1, \"2\"]", "[1, -1]", "[1, 171]", "[1, 99999999999999999999]", "[]"}) {
    ExpectRefused(Score(kGood, text), "ids.json");
  }
  ExpectRefused({"score", "--model", kGood, "--tokens", "/nowhere/ids.json", "--json"}, "/nowhere/ids.json");
  ExpectRefused({"generate", "--model", kGood, "--token-ids", folder_.Write("ids.json", "[171]"), "-n", "4", "--json"},
                "ids.json");
}

TEST_F(BadInput, PromptWithoutTokenizer) {
  ExpectRefused({"generate", "--model", kGood, "--prompt", "Hello", "-n", "4", "--json"}, "tokenizer");
}

TEST_F(BadInput, Devices) {
  ExpectRefused(Bench({"--model", kGood, "--out", Out(), "--device", "nosuch"}), "nosuch");
  ExpectRefused(Bench({"--model", kGood, "--out", Out(), "--device", "/nowhere/plugin.so"}), "/nowhere/plugin.so");
  ExpectRefused(Bench({"--model", kGood, "--out", Out(), "--device", folder_.Write("not_a_plugin.so", "text")}),
                "not_a_plugin.so");
}

TEST_F(BadInput, Options) {
  ExpectRefused(Bench({"--model", kGood, "--out", Out(), "--scenario", "nosuch"}), "nosuch");
  ExpectRefused(Bench({"--model", kGood, "--out", Out(), "--dtype", "nosuch"}), "nosuch");
  ExpectRefused(Bench({"--model", kGood, "--out", Out(), "--power", "nosuch"}), "nosuch");
  ExpectRefused(Bench({"--model", kGood, "--out", Out(), "--power", "const:minus"}), "minus");
  ExpectRefused(Bench({"--model", kGood, "--out", Out(), "--power", "rapl:/nowhere/powercap"}), "/nowhere/powercap");
  ExpectRefused(Bench({"--model", kGood, "--out", Out(), "--threads", "-1"}), "threads");
  ExpectRefused(Bench({"--model", kGood, "--out", Out(), "--concurrency", "0"}), "concurrency");
  ExpectRefused(Bench({"--model", kGood, "--out", Out(), "--nosuch"}), "--nosuch");
  ExpectRefused({"nosuch"}, "nosuch");
  ExpectRefused({"bench"}, "--model");
}

TEST_F(BadInput, OutputThatCannotBeWritten) {
  const std::string file = folder_.Write("a_file", "");
  ExpectRefused(Bench({"--model", kGood, "--out", file + "/results"}), "a_file");
  ExpectRefused(Bench({"--model", kGood, "--out", file}), "a_file");
}

TEST_F(BadInput, ModelThatDoesNotFit) {
  std::ifstream meminfo("/proc/meminfo");
  std::string word;
  double kib = 0;
  meminfo >> word >> kib;
  if (kib > 250e6) GTEST_SKIP() << "this machine's memory holds 70 billion float32 parameters";
  ExpectRefused(Bench({"--model", "shape:llama-3.1-70b", "--dtype", "f32", "--out", Out()}), "llama-3.1-70b");
}

}  // namespace
}  // namespace assay::e2e
