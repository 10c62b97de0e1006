// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <string_view>
#include <thread>

#include "bench/power/meter.h"
#include "bench/report/table.h"

namespace assay::bench {
namespace {

constexpr size_t kMaxOut = 1 << 20;
constexpr size_t kMaxErr = 1 << 12;

// What the child writes to one of its descriptors.
class Stream {
 public:
  explicit Stream(size_t limit) : limit_(limit) {
    if (pipe2(ends_, O_CLOEXEC) != 0) ends_[0] = ends_[1] = -1;
    if (opened()) fcntl(ends_[0], F_SETFL, O_NONBLOCK);
  }
  ~Stream() {
    for (const int end : ends_) {
      if (end >= 0) close(end);
    }
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  bool opened() const { return ends_[0] >= 0; }
  int write_end() const { return ends_[1]; }
  int read_end() const { return ended_ ? -1 : ends_[0]; }  // -1: poll() passes over it
  bool ended() const { return ended_; }
  bool overflowed() const { return overflowed_; }
  std::string& text() { return text_; }

  void CloseWriteEnd() {
    close(ends_[1]);
    ends_[1] = -1;
  }
  // Takes what is there, but no more than a few pipes full: whoever writes without end must not hold up the caller.
  void Drain() {
    char buffer[1 << 16];
    for (int i = 0; i < 4 && !ended_; ++i) {
      const ssize_t size = read(ends_[0], buffer, sizeof buffer);
      if (size < 0) return;
      ended_ = size == 0;
      const size_t room = limit_ - text_.size();
      text_.append(buffer, std::min(static_cast<size_t>(size), room));
      overflowed_ |= static_cast<size_t>(size) > room;
    }
  }

 private:
  int ends_[2];
  size_t limit_;
  std::string text_;
  bool ended_ = false, overflowed_ = false;
};

// Tools print for the user's language elsewhere; the C locale is what their output was learned in.
std::vector<char*> Environment() {
  static char locale[] = "LC_ALL=C";
  std::vector<char*> variables;
  for (char** variable = environ; *variable; ++variable) {
    if (!std::string_view(*variable).starts_with("LC_ALL=")) variables.push_back(*variable);
  }
  variables.push_back(locale);
  variables.push_back(nullptr);
  return variables;
}

// 0, or the error of the spawn.
int Spawn(const std::vector<std::string>& argv, const Stream& out, const Stream& err, pid_t* pid) {
  std::vector<char*> words;
  for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  std::vector<char*> environment = Environment();

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, out.write_end(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err.write_end(), STDERR_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);

  // A thread of ours may block or ignore signals that the tool needs in order to die.
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);

  const int error = posix_spawnp(pid, words[0], &actions, &attributes, words.data(), environment.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

bool HasEnded(pid_t pid) {  // without reaping it: until then nobody else can get its number
  siginfo_t info;
  info.si_pid = 0;
  return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

// The exit status of a process that has ended or was killed. A process in a driver call that hangs cannot be killed; it
// is left to a thread of its own, which waits for as long as that takes, and the status is that of a kill.
int Reap(pid_t pid) {
  int status = 0;
  for (int i = 0; i < 100; ++i) {
    if (waitpid(pid, &status, WNOHANG) == pid) return status;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  std::thread([pid] { waitpid(pid, nullptr, 0); }).detach();
  return SIGKILL;
}

Result<Output> Run(const std::vector<std::string>& argv, const std::string& name, double limit_s) {
  using Answer = Result<Output>;
  Stream out(kMaxOut), err(kMaxErr);
  if (!out.opened() || !err.opened()) {
    return Answer::Fail(name + " cannot be started: no pipe (" + std::strerror(errno) + ")");
  }
  pid_t pid = 0;
  if (const int error = Spawn(argv, out, err, &pid); error != 0) {
    return Answer::Fail(error == ENOENT ? name + " is not on PATH: install it or add its folder to PATH"
                                        : name + " cannot be started: " + std::strerror(error));
  }
  out.CloseWriteEnd();
  err.CloseWriteEnd();

  const double deadline_s = NowSeconds() + limit_s;
  bool ended = false, late = false;
  while (!ended && !late && !out.overflowed()) {
    pollfd streams[] = {{out.read_end(), POLLIN, 0}, {err.read_end(), POLLIN, 0}};
    // Nothing wakes poll() when a process ends whose background child holds the streams open.
    poll(streams, 2, out.ended() && err.ended() ? 1 : 5);
    ended = HasEnded(pid);  // before draining: all that it wrote is then in the pipes
    late = NowSeconds() >= deadline_s;
    out.Drain();
    err.Drain();
  }
  kill(-pid, SIGKILL);
  const int status = Reap(pid);

  if (out.overflowed()) return Answer::Fail(name + " printed more than 1 MiB and was stopped");
  if (!ended) return Answer::Fail(fmt::format("{} did not end within {:.3g} s and was killed", name, limit_s));
  std::string reason = FirstLine(err.text());
  if (reason.empty()) reason = FirstLine(out.text());
  if (!reason.empty()) reason = ": " + reason;
  if (WIFSIGNALED(status)) {
    return Answer::Fail(
        fmt::format("{} was ended by signal {} ({})", name, WTERMSIG(status), strsignal(WTERMSIG(status))) + reason);
  }
  if (WEXITSTATUS(status) != 0) {
    return Answer::Fail(fmt::format("{} ended with exit code {}", name, WEXITSTATUS(status)) + reason);
  }
  return Output{std::move(out.text()), std::move(err.text())};
}

}  // namespace

Result<Output> RunProcess(const std::vector<std::string>& argv, double limit_s) {
  return Run(argv, argv[0], limit_s);
}

Result<Output> RunShell(const std::string& text, double limit_s) {
  return Run({"/bin/sh", "-c", text}, "`" + FirstLine(text) + "`", limit_s);
}

std::string FirstLine(const std::string& text) {
  constexpr size_t kMaxBytes = 160;
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) return "";
  std::string line = text.substr(begin, std::min(text.find_first_of("\r\n", begin) - begin, kMaxBytes));
  line.erase(line.find_last_not_of(" \t") + 1);
  return Printable(line);
}

}  // namespace assay::bench
