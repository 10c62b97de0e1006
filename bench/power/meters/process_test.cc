// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <thread>

#include "bench/power/meter.h"

namespace assay::bench {
namespace {

size_t OpenDescriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

// Neither zombies nor open descriptors may be left by any of the tests.
class Process : public testing::Test {
 protected:
  void SetUp() override { descriptors_ = OpenDescriptors(); }
  void TearDown() override {
    EXPECT_EQ(OpenDescriptors(), descriptors_);
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child was not reaped";
    EXPECT_EQ(errno, ECHILD);
  }
  size_t descriptors_ = 0;
};

// Whether the process with the number that a command printed is gone, or will be in a moment.
bool Gone(const std::string& printed_pid) {
  const pid_t pid = std::stoi(printed_pid);
  for (int i = 0; i < 100; ++i) {
    // A killed orphan is a zombie until whoever adopted it reaps it, which is none of our business.
    const Result<Output> state = RunShell("ps -o stat= -p " + std::to_string(pid) + " || echo Z", 5);
    if (kill(pid, 0) != 0 || state.value().out.starts_with("Z")) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

TEST_F(Process, KeepsTheStreamsApart) {
  const auto output = RunShell("echo one; echo two >&2", 5);
  ASSERT_TRUE(output.ok()) << output.error();
  EXPECT_EQ(output.value().out, "one\n");
  EXPECT_EQ(output.value().err, "two\n");
}

TEST_F(Process, PassesArgumentsWithoutAShell) {
  EXPECT_EQ(RunProcess({"printf", "%s|", "a b", "$HOME", "*"}, 5).value().out, "a b|$HOME|*|");
}

TEST_F(Process, RunsInTheCLocaleWithoutInput) {
  setenv("LC_ALL", "de_DE.UTF-8", 1);
  EXPECT_EQ(RunShell("env | grep LC_ALL; cat", 5).value().out, "LC_ALL=C\n");
  unsetenv("LC_ALL");
  EXPECT_EQ(RunShell("env | grep LC_ALL", 5).value().out, "LC_ALL=C\n");
}

TEST_F(Process, HandsNoDescriptorsOfItsOwnToTheChild) {
  size_t inherited = 3;  // what the test itself was started with is not ours to close
  for (int fd = 3; fd < 1024; ++fd) {
    const int flags = fcntl(fd, F_GETFD);
    inherited += flags >= 0 && (flags & FD_CLOEXEC) == 0;
  }
  const std::string listed = RunProcess({"ls", "/proc/self/fd"}, 5).value().out;
  EXPECT_EQ(static_cast<size_t>(std::count(listed.begin(), listed.end(), '\n')), inherited + 1)
      << "and the folder itself";
}

TEST_F(Process, SaysHowItFailed) {
  EXPECT_EQ(RunProcess({"no-such-tool-smi", "-q"}, 5).error(),
            "no-such-tool-smi is not on PATH: install it or add its folder to PATH");
  EXPECT_EQ(RunProcess({"/"}, 5).error(), "/ cannot be started: Permission denied");
  EXPECT_EQ(RunShell("echo; echo bad news >&2; echo more >&2; exit 3", 5).error(),
            "`echo; echo bad news >&2; echo more >&2; exit 3` ended with exit code 3: bad news");
  EXPECT_EQ(RunProcess({"sh", "-c", "echo told on stdout; exit 9"}, 5).error(),
            "sh ended with exit code 9: told on stdout");
  EXPECT_EQ(RunProcess({"sh", "-c", "exit 1"}, 5).error(), "sh ended with exit code 1");
  EXPECT_EQ(RunProcess({"sh", "-c", "kill -TERM $$"}, 5).error(), "sh was ended by signal 15 (Terminated)");
}

TEST_F(Process, KillsAtTheDeadlineWithAllDescendants) {
  const std::string file = testing::TempDir() + "assay_process_test_pid";
  const double begin_s = NowSeconds();
  const auto output = RunProcess({"sh", "-c", "trap '' TERM INT; sleep 100 & echo $! > " + file + "; wait"}, 0.1);
  const double took_s = NowSeconds() - begin_s;
  ASSERT_FALSE(output.ok());
  EXPECT_EQ(output.error(), "sh did not end within 0.1 s and was killed");
  EXPECT_GE(took_s, 0.1);
  EXPECT_LT(took_s, 1.0);
  EXPECT_TRUE(Gone(RunProcess({"cat", file}, 5).value().out));
  std::filesystem::remove(file);
}

TEST_F(Process, DoesNotWaitForABackgroundChildThatHoldsItsStreams) {
  const double begin_s = NowSeconds();
  const auto output = RunShell("sleep 100 & echo $!", 5);
  EXPECT_LT(NowSeconds() - begin_s, 2.0);
  ASSERT_TRUE(output.ok()) << output.error();
  EXPECT_TRUE(Gone(output.value().out));
}

TEST_F(Process, WaitsForAChildThatClosedItsStreams) {
  const auto output = RunShell("echo early; exec >&- 2>&-; sleep 0.05; exit 4", 5);
  EXPECT_NE(output.error().find("exit code 4: early"), std::string::npos);
}

TEST_F(Process, BoundsWhatIsPrinted) {
  EXPECT_EQ(RunShell("head -c 1048576 /dev/zero", 5).value().out.size(), 1u << 20);
  EXPECT_EQ(RunProcess({"yes"}, 5).error(), "yes printed more than 1 MiB and was stopped");
  const auto chatty = RunShell("head -c 3000000 /dev/zero >&2; echo done", 5);
  ASSERT_TRUE(chatty.ok()) << chatty.error();
  EXPECT_EQ(chatty.value().out, "done\n");
  EXPECT_EQ(chatty.value().err.size(), 4096u);
  EXPECT_NE(RunShell("yes >&2", 0.1).error().find("did not end"), std::string::npos);
}

TEST_F(Process, WorksFromAThreadThatBlocksAndIgnoresSignals) {
  std::thread([] {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    const auto before = signal(SIGPIPE, SIG_IGN);
    EXPECT_EQ(RunProcess({"sh", "-c", "kill -TERM $$; echo alive"}, 5).error(),
              "sh was ended by signal 15 (Terminated)");
    EXPECT_EQ(RunProcess({"sh", "-c", "kill -PIPE $$; echo alive"}, 5).error(),
              "sh was ended by signal 13 (Broken pipe)");
    signal(SIGPIPE, before);
  }).join();
}

TEST_F(Process, ServesSeveralThreadsAtOnce) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 5; ++i) {
        const std::string word = std::to_string(10 * t + i);
        const auto output = RunProcess({"echo", word}, 5);
        ASSERT_TRUE(output.ok()) << output.error();
        EXPECT_EQ(output.value().out, word + "\n");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(FirstLine, IsFitForAMessage) {
  EXPECT_EQ(FirstLine("\n \r\n  one \t\r\ntwo"), "one");
  EXPECT_EQ(FirstLine(" \n"), "");
  EXPECT_EQ(FirstLine("a\x1b[31mb"), "a?[31mb");
  EXPECT_EQ(FirstLine(std::string(1000, 'x')).size(), 160u);
}

}  // namespace
}  // namespace assay::bench
