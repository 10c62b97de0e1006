// SPDX-License-Identifier: Apache-2.0
#include <fstream>
#include <nlohmann/json.hpp>

#include "bench/cli/commands.h"

namespace assay::cli {
namespace {

// A file of ids is a few bytes per token; the longest context is far below this.
constexpr size_t kMaxTokenFile = 64u << 20;

}  // namespace

void AddDeviceOptions(CLI::App& command, bench::ModelSpec* spec) {
  command
      .add_option("--device", spec->device,
                  "cpu, cuda:0, ref (the slow reference) or /path/plugin.so; default: the best present")
      ->type_name("D");
  command
      .add_option("--threads", spec->threads, "Threads of a CPU device (of each rank); default: one per usable core")
      ->check(CLI::Range(1, 4096))
      ->type_name("N");
  command
      .add_option_function<std::string>(
          "--isa",
          [spec](const std::string& isa) {
            if (spec->device.empty()) spec->device = "cpu";
            if (spec->device != "cpu") throw CLI::ValidationError("--isa", "only --device cpu has that choice");
            setenv("ASSAY_ISA", isa.c_str(), 1);
          },
          "The most that --device cpu, which it implies, may use: generic, avx2, avx512, avx512_vnni, avx512_bf16, "
          "amx; "
          "default: all that the machine has")
      ->check(CLI::IsMember({"generic", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx"}))
      ->type_name("I");
}

void AddModelOptions(CLI::App& command, bench::ModelSpec* spec) {
  command
      .add_option("--model", spec->model,
                  "A folder with config.json and *.safetensors (or hf:DIR), a .gguf file, or shape:NAME for synthetic "
                  "weights")
      ->required()
      ->type_name("M");
  command
      .add_option(
          "--dtype", spec->dtype,
          "Weights on the device: auto (as in the file), bf16, f16, f32 (everything in f32), int8, int4, fp8 (in "
          "blocks), i8, f8_e4m3 (a scale per row)")
      ->check(CLI::IsMember({"auto", "bf16", "f16", "f32", "int8", "int4", "fp8", "i8", "f8_e4m3"}))
      ->type_name("T")
      ->capture_default_str();
  command
      .add_option("--kv-dtype", spec->kv_dtype,
                  "KV cache: auto (what the device prefers; f32 with --dtype f32), bf16, f16, f32, fp8 (e4m3)")
      ->check(CLI::IsMember({"auto", "bf16", "f16", "f32", "fp8"}))
      ->type_name("T")
      ->capture_default_str();
  command
      .add_option("--tp", spec->tp,
                  "Ranks that the model is split over (tensor parallelism): as many accelerators from --device on, or "
                  "processes: mpirun -n N assay ... --tp N")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str()
      ->type_name("N");
  AddDeviceOptions(command, spec);
}

std::vector<int32_t> ReadTokenIds(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text;
  char chunk[1 << 16];
  while (in && text.size() <= kMaxTokenFile) {
    in.read(chunk, sizeof(chunk));
    text.append(chunk, static_cast<size_t>(in.gcount()));
  }
  if (!in.eof() && text.size() <= kMaxTokenFile) {
    throw Error(path + ": cannot be read; give a file that holds a JSON array of token ids, such as [1, 2, 3]");
  }
  if (text.size() > kMaxTokenFile) throw Error(path + ": is larger than 64 MiB; give a JSON array of token ids");
  // Only the first element decides how deep to look: an array of numbers never nests.
  const auto json = nlohmann::json::parse(
      text, [](int depth, nlohmann::json::parse_event_t, nlohmann::json&) { return depth <= 1; }, false);
  if (!json.is_array()) throw Error(path + ": is not a JSON array of token ids, such as [1, 2, 3]");
  std::vector<int32_t> ids;
  for (size_t i = 0; i < json.size(); ++i) {
    if (!json[i].is_number_integer() || json[i] < 0 || json[i] > INT32_MAX) {
      throw Error(path + ": element " + std::to_string(i) + " is not a token id");
    }
    ids.push_back(json[i].get<int32_t>());
  }
  if (ids.empty()) throw Error(path + ": holds no token ids; give at least one");
  return ids;
}

}  // namespace assay::cli
