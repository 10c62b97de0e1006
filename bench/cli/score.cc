// SPDX-License-Identifier: Apache-2.0
// assay score: the log-probability of each token of a text.
#include <fmt/format.h>

#include <cmath>
#include <iostream>

#include "bench/cli/commands.h"
#include "bench/result/write.h"
#include "bench/sut/ranks.h"

namespace assay::cli {
namespace {

struct ScoreOptions {
  bench::ModelSpec model;
  std::string tokens;
  bool json = false;
};

// Tokens per step: logits are kept for each, and 64 rows of the largest vocabularies are some 40 MB.
constexpr int64_t kScoredPerStep = 64;

std::vector<float> Score(const ScoreOptions& o, const std::vector<int32_t>& ids) {
  bench::Session session(o.model);
  ExecutorOptions options;
  options.max_tokens = std::min<int64_t>(kScoredPerStep, static_cast<int64_t>(ids.size()));
  options.max_seqs = 1;
  options.max_context = static_cast<int64_t>(ids.size());
  options.prompt_logprobs = true;
  auto engine = session.Load(options);
  Request request;
  request.prompt = ids;
  request.prompt_logprobs = true;
  return bench::RunRequest(*engine, std::move(request), o.tokens)->prompt_logprobs;
}

int RunScore(const ScoreOptions& o) {
  const std::vector<int32_t> ids = ReadTokenIds(o.tokens);
  if (ids.size() < 2) throw Error(o.tokens + ": holds one token; the score of a token needs one before it");
  const std::vector<float> logprobs = Score(o, ids);
  double sum = 0;
  for (const float v : logprobs) sum += v;
  const double mean = sum / static_cast<double>(logprobs.size());
  if (o.json) {
    std::cout << bench::Dump({{"logprobs", logprobs}, {"mean_logprob", mean}, {"perplexity", std::exp(-mean)}})
              << std::endl;
  } else {
    std::cout << fmt::format("{} tokens scored\nmean log-probability  {:.4f}\nperplexity            {:.4f}\n",
                             logprobs.size(), mean, std::exp(-mean));
  }
  return 0;
}

}  // namespace

void AddScore(CLI::App& app, Run* run) {
  CLI::App* command = app.add_subcommand("score", "Log-probability of each token of a text, given those before it");
  auto o = std::make_shared<ScoreOptions>();
  AddModelOptions(*command, &o->model);
  command->add_option("--tokens", o->tokens, "A file that holds a JSON array of token ids")
      ->required()
      ->type_name("FILE");
  command->add_flag("--json", o->json, "One JSON document: logprobs of tokens 2, 3, ..., mean_logprob, perplexity");
  command->callback([=] { *run = [=] { return bench::RunOnRanks(&o->model, [=] { return RunScore(*o); }); }; });
}

}  // namespace assay::cli
