// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/program.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace assay::e2e {

namespace fs = std::filesystem;

TemporaryFolder::TemporaryFolder() {
  std::string name = (fs::temp_directory_path() / "assay-e2e-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make a folder like " + name);
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string TemporaryFolder::Write(const std::string& name, const std::string& text) const {
  const fs::path file = path_ / name;
  std::ofstream(file, std::ios::binary) << text;
  return file.string();
}

size_t TemporaryFolder::Files() const {
  const fs::recursive_directory_iterator all(path_);
  return static_cast<size_t>(
      std::count_if(begin(all), end(all), [](const auto& entry) { return !entry.is_directory(); }));
}

Program::Program(const std::vector<std::string>& args, const Environment& environment)
    : Program(ASSAY_PROGRAM, args, environment) {}

// Not bound to cores and not spinning for them: the tests run beside others.
Program Program::OnRanks(int ranks, const std::vector<std::string>& args) {
  std::vector<std::string> all = {"-n",   std::to_string(ranks), "--allow-run-as-root", "--oversubscribe", "--bind-to",
                                  "none", ASSAY_PROGRAM};
  all.insert(all.end(), args.begin(), args.end());
  const char* own = std::getenv("ASAN_OPTIONS");  // an MPI library keeps what it allocated
  return Program("mpirun", all,
                 {{"OMPI_MCA_mpi_yield_when_idle", "1"},
                  {"ASAN_OPTIONS", (own ? std::string(own) + ":" : "") + "detect_leaks=0"}});
}

Program::Program(std::string program, const std::vector<std::string>& args, const Environment& environment) {
  std::vector<char*> argv{program.data()};
  std::vector<std::string> copies = args;
  for (std::string& arg : copies) argv.push_back(arg.data());
  argv.push_back(nullptr);

  std::vector<std::string> variables;
  for (char** own = environ; *own; ++own) {
    const std::string variable = *own;
    if (!environment.count(variable.substr(0, variable.find('=')))) variables.push_back(variable);
  }
  for (const auto& [name, value] : environment) variables.push_back(name + "=" + value);
  std::vector<char*> envp;
  for (std::string& variable : variables) envp.push_back(variable.data());
  envp.push_back(nullptr);

  const std::string out = (folder_.path() / "out").string(), err = (folder_.path() / "err").string();
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, out.c_str(), O_WRONLY | O_CREAT, 0600);
  posix_spawn_file_actions_addopen(&files, STDERR_FILENO, err.c_str(), O_WRONLY | O_CREAT, 0600);
  const int error = posix_spawnp(&pid_, program.c_str(), &files, nullptr, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) throw std::runtime_error("cannot start " + program);
}

Program::~Program() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void Program::Signal(int number) {
  kill(pid_, number);
}

bool Program::SignalRank(int rank, int number) const {
  const std::string variable = "OMPI_COMM_WORLD_RANK=" + std::to_string(rank);
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    // "PID (name) state PPID ...": the ranks are mpirun's children.
    const std::string stat = ReadFile(entry.path() / "stat"), environment = ReadFile(entry.path() / "environ");
    std::istringstream after_name(stat.substr(std::min(stat.size(), stat.rfind(')') + 1)));
    std::string state;
    pid_t parent = 0;
    if (!(after_name >> state >> parent) || parent != pid_) continue;
    if (('\0' + environment).find('\0' + variable + '\0') == std::string::npos) continue;
    return kill(static_cast<pid_t>(std::stol(name)), number) == 0;
  }
  return false;
}

Outcome Program::Wait(int limit_s) {
  Outcome outcome;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(limit_s);
  int status = 0;
  while (waitpid(pid_, &status, WNOHANG) == 0) {
    if (!outcome.timed_out && std::chrono::steady_clock::now() > end) {
      outcome.timed_out = true;
      kill(pid_, SIGKILL);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  pid_ = -1;
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  outcome.out = ReadFile(folder_.path() / "out");
  outcome.err = ReadFile(folder_.path() / "err");
  return outcome;
}

Outcome RunAssay(const std::vector<std::string>& args, int limit_s) {
  return Program(args).Wait(limit_s);
}

Outcome RunAssay(const std::vector<std::string>& args, const Environment& environment) {
  return Program(args, environment).Wait(/*limit_s=*/240);
}

std::string WhyNoRanks() {
#ifdef __SANITIZE_THREAD__
  return "the thread sanitizer does not see how an MPI library synchronises";
#endif
  if (!fs::exists(fs::path(ASSAY_PROGRAM).parent_path() / "assay-mpi.so"))
    return "assay-mpi.so was not built: no MPI library was found";
  if (std::system("mpirun --version > /dev/null 2>&1") != 0) return "there is no mpirun (Debian: openmpi-bin)";
  return "";
}

std::string ReadFile(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

nlohmann::json ParseOne(const std::string& text) {
  nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  EXPECT_FALSE(json.is_discarded()) << "not one JSON document: " << text.substr(0, 400);
  return json.is_discarded() ? nlohmann::json() : json;
}

}  // namespace assay::e2e
