// SPDX-License-Identifier: Apache-2.0
// assay generate: continue a text.
#include <fmt/format.h>

#include <iostream>

#include "bench/cli/commands.h"
#include "bench/result/write.h"
#include "bench/sut/ranks.h"
#include "models/tokenizer/stream_decoder.h"
#include "models/tokenizer/tokenizer.h"

namespace assay::cli {
namespace {

using bench::Json;

struct GenerateOptions {
  bench::ModelSpec model;
  std::string prompt, token_ids;
  bool has_prompt = false;
  int64_t new_tokens = 64;
  SamplingParams sampling;
  bool ignore_eos = false;
  int32_t logprobs = -1;
  bool json = false;
};

// Tokens per step while the prompt is run.
constexpr int64_t kStepTokens = 512;

// Text without a tokenizer is an error only where text was given; ids need none.
std::unique_ptr<Tokenizer> TokenizerFor(const GenerateOptions& o, Checkpoint& checkpoint) {
  std::string why;
  auto tokenizer = OpenTokenizer(checkpoint.tokenizer_source(), &why);
  if (!tokenizer && o.has_prompt) {
    throw Error(o.model.model + ": has no tokenizer for --prompt: " + why + "; give ids with --token-ids");
  }
  return tokenizer;
}

Json LogprobsJson(const Sequence& s) {
  Json list = Json::array();
  const size_t prompt = s.request.prompt.size();
  for (size_t i = 0; i < s.logprobs.size(); ++i) {
    Json top = Json::array();
    for (size_t j = 0; j < s.logprobs[i].top_ids.size(); ++j) {
      top.push_back({{"token_id", s.logprobs[i].top_ids[j]}, {"logprob", s.logprobs[i].top_logprobs[j]}});
    }
    list.push_back({{"token_id", s.tokens[prompt + i]}, {"logprob", s.logprobs[i].logprob}, {"top", top}});
  }
  return list;
}

// Prints tokens as they come, then the end of the line.
class Printer {
 public:
  Printer(const Tokenizer* tokenizer, bool enabled) : tokenizer_(tokenizer), enabled_(enabled) {
    if (tokenizer_) decoder_ = std::make_unique<StreamDecoder>(*tokenizer_, true);
  }
  void Token(int32_t id) {
    if (!enabled_) return;
    if (decoder_) {
      std::cout << decoder_->Push(id) << std::flush;
    } else {
      std::cout << id << ' ' << std::flush;
    }
  }
  void End() {
    if (!enabled_) return;
    if (decoder_) std::cout << decoder_->Finish();
    std::cout << std::endl;
  }

 private:
  const Tokenizer* tokenizer_;
  bool enabled_;
  std::unique_ptr<StreamDecoder> decoder_;
};

Json ResultJson(const Sequence& s, const Tokenizer* tokenizer) {
  const std::vector<int32_t> ids(s.tokens.begin() + static_cast<ptrdiff_t>(s.request.prompt.size()), s.tokens.end());
  return {{"token_ids", ids},
          {"text", tokenizer ? Json(tokenizer->Decode(ids, true)) : Json()},
          {"finish_reason", s.finish == FinishReason::kStop ? "stop" : "length"},
          {"logprobs", s.request.top_logprobs >= 0 ? LogprobsJson(s) : Json()}};
}

int RunGenerate(const GenerateOptions& o) {
  const std::vector<int32_t> given = o.token_ids.empty() ? std::vector<int32_t>() : ReadTokenIds(o.token_ids);
  bench::Session session(o.model);
  const auto tokenizer = TokenizerFor(o, session.checkpoint());
  Request request;
  request.prompt = o.has_prompt ? tokenizer->Encode(o.prompt, true, true) : given;
  if (request.prompt.empty()) throw Error("--prompt: the text has no tokens; give at least one character");
  request.max_new_tokens = o.new_tokens;
  request.sampling = o.sampling;
  if (!o.ignore_eos) request.stop_ids = session.config().eos_ids;
  request.top_logprobs = o.logprobs;

  ExecutorOptions options;
  options.max_seqs = 1;
  options.max_context = static_cast<int64_t>(request.prompt.size()) + o.new_tokens;
  options.max_tokens = std::min<int64_t>(kStepTokens, static_cast<int64_t>(request.prompt.size()));
  options.top_logprobs = std::max(o.logprobs, 0);
  if (o.logprobs > session.config().vocab) {
    throw Error(fmt::format("--logprobs {}: the vocabulary has {} tokens", o.logprobs, session.config().vocab));
  }
  auto engine = session.Load(options);
  Printer printer(tokenizer.get(), !o.json);
  const auto sequence = bench::RunRequest(*engine, std::move(request), o.has_prompt ? "--prompt" : o.token_ids,
                                          [&](int32_t token) { printer.Token(token); });
  printer.End();
  if (o.json) std::cout << bench::Dump(ResultJson(*sequence, tokenizer.get())) << std::endl;
  return 0;
}

}  // namespace

void AddGenerate(CLI::App& app, Run* run) {
  CLI::App* command = app.add_subcommand("generate", "Continue a text or a list of token ids");
  auto o = std::make_shared<GenerateOptions>();
  AddModelOptions(*command, &o->model);
  CLI::Option_group* input = command->add_option_group("Input", "one of");
  CLI::Option* prompt = input->add_option("--prompt", o->prompt, "The text to continue")->type_name("TEXT");
  input->add_option("--token-ids", o->token_ids, "A file that holds a JSON array of ids (no tokenizer is needed)")
      ->type_name("FILE");
  input->require_option(1);
  command->add_option("-n,--new-tokens", o->new_tokens, "Tokens to generate")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->capture_default_str()
      ->type_name("N");
  command->add_option("--temperature", o->sampling.temperature, "0 takes the most likely token")
      ->check(CLI::Range(0.0f, 100.0f))
      ->capture_default_str()
      ->type_name("T");
  command->add_option("--top-k", o->sampling.top_k, "Only the K most likely tokens; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->type_name("K");
  command->add_option("--top-p", o->sampling.top_p, "Only the most likely tokens that together reach P; 1: all")
      ->check(CLI::Range(0.0f, 1.0f))
      ->capture_default_str()
      ->type_name("P");
  command->add_option("--min-p", o->sampling.min_p, "Only tokens at least P times as likely as the first; 0: all")
      ->check(CLI::Range(0.0f, 1.0f))
      ->capture_default_str()
      ->type_name("P");
  command->add_option("--seed", o->sampling.seed, "Seed of the draws")->capture_default_str()->type_name("S");
  command->add_flag("--ignore-eos", o->ignore_eos, "Do not stop at an end-of-text token");
  command->add_option("--logprobs", o->logprobs, "Log-probabilities of each token and of the K most likely")
      ->check(CLI::Range(0, 1000))
      ->type_name("K");
  command->add_flag("--json", o->json, "One JSON document: token_ids (generated ones), text, finish_reason, logprobs");
  command->callback([=] {
    o->has_prompt = prompt->count() > 0;
    *run = [=] { return bench::RunOnRanks(&o->model, [=] { return RunGenerate(*o); }); };
  });
}

}  // namespace assay::cli
