// SPDX-License-Identifier: Apache-2.0
// assay bench: how fast a device runs a model, how far that is from what the device can do, and at what power.
#include <unistd.h>

#include <condition_variable>
#include <iostream>
#include <thread>

#include "bench/cli/commands.h"
#include "bench/cli/progress.h"
#include "bench/report/pictures.h"
#include "bench/report/print_result.h"
#include "bench/sut/bench_run.h"
#include "bench/sut/ranks.h"
#include "runtime/core/interrupt.h"

namespace assay::cli {
namespace {

using bench::BenchOptions;
using bench::BenchRun;
using bench::BenchSnapshot;
using bench::Scenario;

struct BenchCommandOptions {
  BenchOptions bench;
  std::string scenario = "single-stream";
  std::string out = "assay-results", lang = "en";
  bool json = false;
  bool paced = false;
  bool concurrency_given = false, requests_given = false;
};

// Lets a script alternate between trials of this and runs of another program, both warm.
void AwaitTurn(int64_t trial) {
  std::fprintf(stderr, "ready for trial %lld\n", static_cast<long long>(trial));
  std::string line;
  if (!std::getline(std::cin, line)) throw Interrupted();
}

// How a run ended.
struct Outcome {
  bool done = false;
  bool interrupted = false;
  std::string error;  // empty: none
};

// Runs in a thread of its own, so that Ctrl-C can keep what is finished even while a step of seconds is under way.
class Worker {
 public:
  explicit Worker(BenchRun& run) : thread_([this, &run] { Main(run); }) {}
  ~Worker() {
    if (thread_.joinable()) thread_.join();
  }

  // Returns when the run ended, or shortly after an interrupt, whichever comes first.
  Outcome Wait() {
    std::unique_lock lock(mutex_);
    while (!outcome_.done && !WasInterrupted()) ended_.wait_for(lock, std::chrono::milliseconds(50));
    ended_.wait_for(lock, std::chrono::milliseconds(400), [&] { return outcome_.done; });
    Outcome outcome = outcome_;
    outcome.interrupted = outcome.interrupted || !outcome.done;
    return outcome;
  }

 private:
  void Main(BenchRun& run) {
    Outcome outcome;
    try {
      run.Execute();
    } catch (const Interrupted&) {
      outcome.interrupted = true;
    } catch (const std::bad_alloc&) {
      outcome.error = "out of memory; use a smaller model, or lower --concurrency, --isl or --osl";
    } catch (const std::exception& e) {
      outcome.error = e.what();
    }
    const std::lock_guard lock(mutex_);
    outcome_ = outcome;
    outcome_.done = true;
    ended_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable ended_;
  Outcome outcome_;
  std::thread thread_;  // last: it uses what stands above
};

void Resolve(BenchCommandOptions* o) {
  BenchOptions& b = o->bench;
  if (o->scenario == "single-stream") {
    b.scenario = Scenario::kSingleStream;
    if (o->concurrency_given && b.concurrency != 1) {
      throw Error("--concurrency: single-stream runs one request at a time; use --scenario offline for batches");
    }
    b.concurrency = 1;
    if (!o->requests_given) b.requests = 4;
  } else if (o->scenario == "offline") {
    b.scenario = Scenario::kOffline;
    if (!o->concurrency_given) b.concurrency = 8;
    if (!o->requests_given) b.requests = b.concurrency;
  } else {
    throw Error("--scenario " + o->scenario + ": not available in this version; use single-stream or offline");
  }
}

// Keeps what is finished: trials that are complete stay a result, marked as interrupted.
void Save(BenchSnapshot* snapshot, const Outcome& outcome, const bench::ResultPaths& paths, const std::string& lang) {
  if (outcome.interrupted || !outcome.error.empty()) snapshot->result.status = "interrupted";
  if (!outcome.error.empty()) snapshot->result.warnings.push_back("the run ended early: " + outcome.error);
  bench::WriteRun(paths, snapshot->result, snapshot->samples);
  const auto language = lang == "zh" ? bench::Language::kChinese : bench::Language::kEnglish;
  for (const bench::Picture& picture : bench::PicturesOf(snapshot->result, language)) {
    if (picture.name != "roofline" && picture.name != "gap-output") continue;  // the others: assay gap --svg
    bench::AtomicFile file(paths.result.substr(0, paths.result.rfind(".json")) + "." + picture.name + ".svg");
    file.Write(picture.svg);
    file.Commit();
  }
}

int RunBench(BenchCommandOptions o) {
  Resolve(&o);
  bench::CheckWritable(o.out);
  if (o.paced) o.bench.before_trial = AwaitTurn;
  Progress progress;
  BenchRun run(o.bench, [&](const std::string& text) { progress.Show(text); });
  Worker worker(run);
  const Outcome outcome = worker.Wait();
  progress.Clear();

  BenchSnapshot snapshot = run.Snapshot();
  if (!outcome.error.empty() && snapshot.result.trials.empty()) throw Error(outcome.error);
  const bench::ResultPaths paths = bench::PathsFor(o.out, snapshot.result.id);
  const bool worth_keeping = !snapshot.result.trials.empty() || outcome.interrupted;
  if (worth_keeping) Save(&snapshot, outcome, paths, o.lang);
  if (o.json) {
    std::cout << bench::Dump(bench::ToJson(snapshot.result)) << std::endl;
  } else if (!snapshot.result.trials.empty()) {
    bench::PrintResult(snapshot.result, paths.result, std::cout);
  }
  std::cout.flush();
  if (outcome.interrupted) {
    std::fprintf(stderr, "assay: interrupted after %zu finished trials; kept in %s\n", snapshot.result.trials.size(),
                 paths.result.c_str());
    _exit(130);  // the worker may be deep inside a step; what it holds is of no more use
  }
  if (!outcome.error.empty()) throw Error(outcome.error + "; finished trials are kept in " + paths.result);
  return snapshot.result.accuracy.verdict == "failed" ? 1 : 0;
}

}  // namespace

void AddBench(CLI::App& app, Run* run) {
  CLI::App* command = app.add_subcommand(
      "bench",
      "Measure a model on a device: speed and power with confidence intervals, and the gap to what is claimed");
  auto o = std::make_shared<BenchCommandOptions>();
  BenchOptions& b = o->bench;
  AddModelOptions(*command, &b.model);
  command
      ->add_option("--scenario", o->scenario,
                   "single-stream: one request at a time (latency); offline: all requests at once (throughput)")
      ->capture_default_str()
      ->type_name("S");
  const auto count = [&](const std::string& name, int64_t* value, const std::string& help) {
    return command->add_option(name, *value, help)
        ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
        ->capture_default_str()
        ->type_name("N");
  };
  count("--isl", &b.isl, "Input tokens per request");
  count("--osl", &b.osl, "Output tokens per request (end-of-text tokens do not stop it)");
  CLI::Option* concurrency = count("--concurrency", &b.concurrency, "Sequences per batch (offline; default 8)");
  CLI::Option* requests = count("--requests", &b.requests, "Requests per trial (default: 4, offline: --concurrency)");
  count("--trials", &b.trials, "Trials; the interval comes from the spread between them");
  command->add_flag("--paced", o->paced,
                    "Say on standard error that a trial is ready and begin it when a line comes on standard input; its "
                    "end ends the run like Ctrl-C");
  command->add_option("--seed", b.seed, "Seed of the prompts")->capture_default_str()->type_name("N");
  command->add_flag("--no-guard", b.no_guard,
                    "Do not check the output against the reference, which takes minutes for billions of weights");
  command->add_option("--power", b.power, "Meter: " + std::string(bench::kMeterHelp))
      ->capture_default_str()
      ->type_name("METER");
  command
      ->add_option(
          "--power-seconds", b.power_seconds,
          "With a meter: seconds of metered load over all trials; prefill and decode alone take half of it each")
      ->check(CLI::Range(1.0, 7200.0))
      ->capture_default_str()
      ->type_name("N");
  command->add_option("--out", o->out, "Folder for the result and its samples")
      ->capture_default_str()
      ->type_name("DIR");
  command->add_option("--lang", o->lang, "Language of the pictures beside the result")
      ->check(CLI::IsMember({"en", "zh"}))
      ->capture_default_str()
      ->type_name("L");
  command->add_flag("--json", o->json, "The result as one JSON document on standard output");
  command->footer(
      "\nThe model is warmed up until its step time is steady, then measured in trials. In the same run the device's\n"
      "read bandwidth and matrix throughput are measured; every speed is shown as a share of them (MBU, MFU), and of\n"
      "what is claimed of the device, stage by stage. The output is checked against the reference device. Exit code "
      "1:\n"
      "that check failed.");
  command->callback([=] {
    o->concurrency_given = concurrency->count() > 0;
    o->requests_given = requests->count() > 0;
    *run = [=] { return bench::RunOnRanks(&o->bench.model, [=] { return RunBench(*o); }); };
  });
}

}  // namespace assay::cli
