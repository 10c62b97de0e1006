// SPDX-License-Identifier: Apache-2.0
// assay: how fast a device really runs a transformer, and how far that is from what it could.
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <new>

#include "bench/cli/commands.h"
#include "runtime/core/interrupt.h"

namespace {

constexpr char kFooter[] = R"(
Examples:
  assay devices                                        what can be measured on this machine
  assay bench --model SmolLM2-135M.gguf                tokens per second, and how good that is
  assay bench --model shape:qwen2.5-0.5b --scenario offline --concurrency 16
  assay generate --model DIR --prompt "Once upon a time" -n 32
  assay conform --device ./libmybackend.so             check a backend against the reference
  assay gap assay-results/RUN.json                     what was claimed, what was attained, where the rest went
  assay power --meter cmd:nvidia-smi                   what a power meter reads, and how far to trust it

'assay COMMAND --help' explains a command.
Exit codes: 0 done, 1 a check said no, 2 bad input or environment, 3 no verdict, 130 interrupted.)";

// One line, whatever the message held.
int Fail(std::string text, int code) {
  for (char& c : text) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  std::fprintf(stderr, "assay: %s\n", text.c_str());
  return code;
}

int Main(int argc, char** argv) {
  spdlog::set_default_logger(spdlog::stderr_logger_mt("assay"));
  spdlog::set_pattern("assay: %l: %v");
  assay::InstallInterruptHandler();

  CLI::App app{
      "assay runs real transformer inference on a device, measures tokens per second and watts, and says how far the\n"
      "actual is from the claimed, with an error bar, and where the rest went.",
      "assay"};
  app.set_version_flag("--version", ASSAY_VERSION);
  app.require_subcommand(1);
  app.footer(kFooter);
  app.set_help_all_flag("--help-all", "Help of every command");
  assay::cli::Run run;
  assay::cli::AddBench(app, &run);
  assay::cli::AddGenerate(app, &run);
  assay::cli::AddScore(app, &run);
  assay::cli::AddDevices(app, &run);
  assay::cli::AddKernels(app, &run);
  assay::cli::AddConform(app, &run);
  assay::cli::AddGap(app, &run);
  assay::cli::AddCards(app, &run);
  assay::cli::AddPower(app, &run);
  if (argc == 1) {
    std::fputs(app.help().c_str(), stderr);
    return 2;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {  // --help, --version
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    if (app.get_subcommands().empty() && argv[1][0] != '-') {
      return Fail("there is no command '" + std::string(argv[1]) + "'; see assay --help", 2);
    }
    return Fail(std::string(e.what()) + "; see assay --help", 2);
  }
  const int code = run();
  // The result is only out when it is really written: a full disk behind stdout must not look like success.
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) throw assay::Error("standard output: cannot be written");
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Main(argc, argv);
  } catch (const assay::Interrupted&) {
    return Fail("interrupted", 130);
  } catch (const std::bad_alloc&) {
    return Fail("out of memory; use a smaller model, or lower --concurrency, --isl or --osl", 2);
  } catch (const std::exception& e) {
    return Fail(e.what(), 2);
  }
}
