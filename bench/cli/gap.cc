// SPDX-License-Identifier: Apache-2.0
// assay gap: what was claimed, what was attained, and where the rest went.
#include <algorithm>
#include <filesystem>
#include <iostream>

#include "bench/claims/build_gap.h"
#include "bench/claims/claim.h"
#include "bench/claims/published_gap.h"
#include "bench/cli/commands.h"
#include "bench/report/pictures.h"
#include "bench/report/print_gap.h"
#include "bench/report/print_published.h"
#include "bench/result/write.h"

namespace assay::cli {
namespace {

using bench::Json;
using bench::Published;
using bench::RunResult;

constexpr char kPublished[] = "published:";

struct GapCommandOptions {
  std::vector<std::string> results, claims;
  std::string svg, lang = "en";
  bool json = false;
};

// Those whose id is `text` or begins with it up to a slash; a card may also be named as `assay cards` allows.
std::vector<const Published*> FindPublished(std::string text) {
  if (text.find('/') == text.npos) {
    const auto& all = bench::PublishedResults();
    const bool known = std::any_of(all.begin(), all.end(), [&](const Published& p) { return p.card == text; });
    if (!known) text = bench::FindCard(text).id;
  }
  std::vector<const Published*> found;
  for (const Published& p : bench::PublishedResults()) {
    if (p.id == text || p.id.starts_with(text + "/")) found.push_back(&p);
  }
  if (found.empty()) {
    throw Error(kPublished + text +
                ": there is no such published result; write published:CARD or published:CARD/MODEL");
  }
  return found;
}

// The gaps that the run found, and those of the user's claims.
RunResult Load(const std::string& path, const std::vector<bench::UserClaim>& claims) {
  RunResult result = bench::LoadResult(path);
  if (!result.gap) result.gap.emplace();
  for (const bench::UserClaim& claim : claims) {
    result.gap->gaps.push_back(bench::GapOfClaim(result, claim));
  }
  return result;
}

void WritePictures(const RunResult& result, const GapCommandOptions& o) {
  std::filesystem::create_directories(o.svg);
  const auto language = o.lang == "zh" ? bench::Language::kChinese : bench::Language::kEnglish;
  for (const bench::Picture& picture : bench::PicturesOf(result, language)) {
    const std::string path = (std::filesystem::path(o.svg) / (result.id + "." + picture.name + ".svg")).string();
    bench::AtomicFile file(path);
    file.Write(picture.svg);
    file.Commit();
    if (!o.json) std::cout << "picture   " << path << "\n";
  }
}

Json PublishedJson(const std::vector<const Published*>& results) {
  Json list = Json::array();
  for (const Published* p : results) {
    const bench::PublishedGap answer = bench::GapOfPublished(*p);
    Json entry = {{"id", p->id},
                  {"card", p->card},
                  {"metric", p->metric},
                  {"source", p->source},
                  {"date", p->date},
                  {"confidence", p->confidence},
                  {"provenance", "published"}};
    entry["gap"] = answer.gap ? bench::ToJson(*answer.gap) : Json();
    entry["at_least"] = answer.at_least;
    entry["why_not"] = answer.gap ? Json() : Json(answer.why_not);
    list.push_back(std::move(entry));
  }
  return list;
}

int RunGap(const GapCommandOptions& o) {
  const bool only_published = std::all_of(o.results.begin(), o.results.end(),
                                          [](const std::string& name) { return name.starts_with(kPublished); });
  if (only_published && (!o.claims.empty() || !o.svg.empty())) {
    throw Error("--claim and --svg are for results of assay bench; none was named");
  }
  std::vector<bench::UserClaim> claims;
  for (const std::string& text : o.claims) claims.push_back(bench::ParseClaim(text));
  if (!o.svg.empty()) bench::CheckWritable(o.svg);
  Json json = {{"results", Json::array()}, {"published", Json::array()}};
  for (const std::string& name : o.results) {
    if (!o.json && &name != &o.results.front()) std::cout << "\n";
    if (name.starts_with(kPublished)) {
      const auto found = FindPublished(name.substr(sizeof kPublished - 1));
      if (o.json) {
        for (Json& entry : PublishedJson(found)) json["published"].push_back(std::move(entry));
      } else {
        bench::PrintPublished(found, std::cout);
      }
      continue;
    }
    const RunResult result = Load(name, claims);
    if (o.json) {
      json["results"].push_back({{"file", name}, {"id", result.id}, {"gap", bench::ToJson(*result.gap)}});
    } else {
      std::cout << "result    " << name << "\n";
      bench::PrintGaps(*result.gap, bench::GapDetail::kSources, std::cout);
    }
    if (!o.svg.empty()) WritePictures(result, o);
  }
  if (o.json) std::cout << bench::Dump(json) << std::endl;
  return 0;
}

}  // namespace

void AddGap(CLI::App& app, Run* run) {
  CLI::App* command = app.add_subcommand("gap", "What was claimed, what was attained, and where the rest went");
  auto o = std::make_shared<GapCommandOptions>();
  command
      ->add_option("results", o->results,
                   "Result files of assay bench, or published:CARD and published:CARD/MODEL for what others published")
      ->required()
      ->type_name("RESULT");
  command->add_option("--claim", o->claims, bench::kClaimHelp)->type_name("CLAIM")->allow_extra_args(false);
  command->add_option("--svg", o->svg, "Folder for pictures: the roofline and each gap")->type_name("DIR");
  command->add_option("--lang", o->lang, "Language of the pictures")
      ->check(CLI::IsMember({"en", "zh"}))
      ->capture_default_str()
      ->type_name("L");
  command->add_flag("--json", o->json, "One JSON document on standard output");
  command->footer(
      "\nln(actual / claimed) is split into stages that add up to it: silicon (what this device attains of the "
      "claimed\n"
      "peaks), kernels (the operations at the model's shapes), throttling, engine (its whole step). Each is shown as "
      "the\n"
      "share that it keeps.\n\n"
      "Examples:\n"
      "  assay gap assay-results/RUN.json --claim \"output_tps=12000 who=vendor date=2026-05 dtype=fp8\"\n"
      "  assay gap assay-results/RUN.json --claim \"percent=85 of=h100-sxm who=vendor\"\n"
      "  assay gap published:h100-sxm/qwen3-8b published:ascend-910b2");
  command->callback([=] { *run = [=] { return RunGap(*o); }; });
}

}  // namespace assay::cli
