// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/redfish.h"

#include <openssl/evp.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "bench/power/meters/http_client.h"
#include "bench/report/table.h"
#include "bench/stats/format.h"
#include "models/format/json_file.h"

namespace assay::bench {
namespace {

using nlohmann::json;
using Opened = Result<std::unique_ptr<Meter>>;

constexpr double kPeriodS = 1;       // a BMC has nothing new to say more often
constexpr double kReadLimitS = 1.8;  // a meter answers within two periods
constexpr double kOpenLimitS = 30, kOpenStepS = 10;
constexpr char kRoot[] = "/redfish/v1/";
constexpr char kHowToLogIn[] =
    "name a file with user:password in ASSAY_REDFISH_CREDENTIALS, or set ASSAY_REDFISH_USER and "
    "ASSAY_REDFISH_PASSWORD";

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// "user:password", empty if there is none.
Result<std::string> Credentials() {
  using Failure = Result<std::string>;
  const std::string path = Environment("ASSAY_REDFISH_CREDENTIALS");
  const std::string user = Environment("ASSAY_REDFISH_USER"), password = Environment("ASSAY_REDFISH_PASSWORD");
  if (path.empty()) {
    if (user.empty() != password.empty()) {
      return Failure::Fail("set both ASSAY_REDFISH_USER and ASSAY_REDFISH_PASSWORD, or neither");
    }
    if (user.find(':') != user.npos) return Failure::Fail("ASSAY_REDFISH_USER: a user's name cannot hold a colon");
    return user.empty() ? std::string() : user + ":" + password;
  }
  struct stat status {};
  const bool is_file = stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
  if (is_file && (status.st_mode & 077) != 0) {
    return Failure::Fail(path + ": others can read this password: chmod 600 " + path);
  }
  std::ifstream file(is_file ? path : "");
  std::string line;
  if (!std::getline(file, line)) {
    return Failure::Fail(path +
                         " (ASSAY_REDFISH_CREDENTIALS): cannot be read, or is empty: it should hold user:password");
  }
  if (line.ends_with('\r')) line.pop_back();
  const size_t colon = line.find(':');
  if (colon == line.npos || colon == 0) {
    return Failure::Fail(path + " (ASSAY_REDFISH_CREDENTIALS): its first line should be user:password");
  }
  return line;
}

std::string Basic(const std::string& credentials) {
  std::string code(4 * (credentials.size() / 3 + 1) + 1, '\0');
  const int size =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(code.data()),
                      reinterpret_cast<const unsigned char*>(credentials.data()), static_cast<int>(credentials.size()));
  return "Basic " + code.substr(0, static_cast<size_t>(size));
}

// One BMC, and the words for what it answers.
struct Bmc {
  std::string origin;  // "https://bmc:443"
  bool logged_in = false;
  std::unique_ptr<HttpClient> client;

  struct Problem {
    std::string text;
    int status = 0;  // 0: there was no answer
  };

  // The JSON object at a target, or the problem.
  Result<json> Get(const std::string& target, double limit_s, Problem* problem) {
    const auto fail = [&](const std::string& why, int status) {
      *problem = {why, status};
      return Result<json>::Fail(why);
    };
    const auto response = client->Get(target, limit_s);
    if (!response.ok()) return fail(response.error(), 0);
    const int status = response.value().status;
    if (status != 200) return fail(Where(target) + ": " + Meaning(status), status);
    try {
      return ParseJsonObject(response.value().body, Where(target));
    } catch (const Error&) {
      // What exactly is wrong is not told: it would repeat parts of the answer, and an answer may repeat the request.
      return fail(Where(target) + ": answered with something that is not a JSON object: is a Redfish service there?",
                  status);
    }
  }

  std::string Where(const std::string& target) const { return origin + Printable(target); }

  std::string Meaning(int status) const {
    const std::string code = "HTTP " + std::to_string(status) + ": ";
    if (status == 401 && logged_in) return code + "the BMC does not accept this user or password";
    if (status == 401) return code + "the BMC asks for a user: " + kHowToLogIn;
    if (status == 403) return code + "the user may not read this: give it the BMC's role ReadOnly";
    if (status == 404) return code + "there is no such resource: give " + origin + " without a path to look for it";
    if (status >= 500) return code + "the BMC has a fault or is busy: try again, or restart its management controller";
    return code + "not the answer of a Redfish service to GET";
  }
};

struct NodePower {
  double watts = 0;
  std::optional<double> limit_w;
};

// A member of an object, or null where there is no such thing.
const json& At(const json& object, const char* key) {
  static const json kNull;
  if (!object.is_object()) return kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

Result<double> Watts(const json& value, const std::string& what) {
  using Failure = Result<double>;
  if (value.is_null()) return Failure::Fail(what + " is null or absent: the BMC does not know the power now");
  if (!value.is_number()) return Failure::Fail(what + " is not a number");
  if (value.get<double>() < 0) return Failure::Fail(what + " is negative, which no power is");
  return value.get<double>();
}

std::optional<double> Positive(const json& value) {
  return value.is_number() && value.get<double>() > 0 ? std::optional(value.get<double>()) : std::nullopt;
}

// Which entry of PowerControl is meant. The entries are parts and wholes of one another, and are never summed.
Result<size_t> ChooseControl(const json& controls, const std::string& where, const std::string& fragment) {
  using Failure = Result<size_t>;
  std::vector<size_t> reporting;
  std::string list;
  for (size_t i = 0; i < controls.size(); ++i) {
    const std::string name = "#/PowerControl/" + std::to_string(i);
    if (fragment == name) return i;
    if (At(controls[i], "PowerConsumedWatts").is_null()) continue;
    reporting.push_back(i);
    const json& title = At(controls[i], "Name");
    list += (list.empty() ? "" : ", ") + name;
    if (title.is_string()) list += " (" + Printable(title.get<std::string>().substr(0, 40)) + ")";
  }
  if (!fragment.empty()) return Failure::Fail(where + ": has no entry " + Printable(fragment));
  if (reporting.size() > 1) return Failure::Fail(where + ": has several powers, " + list + ": add one to the URL");
  return reporting.empty() ? 0 : reporting[0];
}

Result<NodePower> PowerOf(const json& resource, const std::string& where, const std::string& fragment) {
  using Failure = Result<NodePower>;
  const json& controls = At(resource, "PowerControl");
  if (controls.is_array() && !controls.empty()) {
    const auto chosen = ChooseControl(controls, where, fragment);
    if (!chosen.ok()) return Failure::Fail(chosen.error());
    const json& control = controls[chosen.value()];
    const auto watts = Watts(At(control, "PowerConsumedWatts"), where + ": PowerConsumedWatts");
    if (!watts.ok()) return Failure::Fail(watts.error());
    return NodePower{watts.value(), Positive(At(At(control, "PowerLimit"), "LimitInWatts"))};
  }
  const json& power = At(resource, "PowerWatts");
  if (!power.is_object()) {
    return Failure::Fail(where + ": holds neither PowerControl nor PowerWatts: name a resource Power or " +
                         "EnvironmentMetrics");
  }
  const auto watts = Watts(At(power, "Reading"), where + ": PowerWatts.Reading");
  if (!watts.ok()) return Failure::Fail(watts.error());
  return NodePower{watts.value(), std::nullopt};
}

std::string FragmentOf(const std::string& target) {
  const size_t hash = target.find('#');
  return hash == target.npos ? "" : target.substr(hash);
}

// Looks for the one chassis that reports a power.
class Search {
 public:
  explicit Search(Bmc& bmc) : bmc_(bmc), until_s_(NowSeconds() + kOpenLimitS) {}

  Result<std::string> Target() {
    using Failure = Result<std::string>;
    const auto root = Get(kRoot);
    if (!root.ok()) return Failure::Fail(root.error());
    const auto chassis = Get(Link(At(root.value(), "Chassis")));
    if (!chassis.ok()) return Failure::Fail(chassis.error());
    const json& members = At(chassis.value(), "Members");
    for (const json& member : members.is_array() ? members : json::array()) {
      Look(Link(member));
      if (ended_) return Failure::Fail(problem_);
    }
    if (found_.size() == 1) return found_[0];
    if (found_.empty()) {
      return Failure::Fail(bmc_.origin + ": no chassis of it reports a power" +
                           (problem_.empty() ? ": its firmware may be too old" : "; " + problem_));
    }
    std::string list;
    for (const std::string& target : found_) list += (list.empty() ? "" : ", ") + Printable(target);
    return Failure::Fail(bmc_.origin + ": several chassis report a power, " + list +
                         ": give the whole URL of the one that holds the device");
  }

 private:
  static std::string Link(const json& reference) {
    const json& id = At(reference, "@odata.id");
    return id.is_string() ? id.get<std::string>() : "";
  }

  Result<json> Get(const std::string& target) {
    if (target.empty()) return Result<json>::Fail(bmc_.origin + ": its service root leads to no chassis");
    const double limit_s = std::min(kOpenStepS, until_s_ - NowSeconds());
    Bmc::Problem problem;
    auto answer = limit_s > 0 ? bmc_.Get(target, limit_s, &problem)
                              : Result<json>::Fail(bmc_.origin + ": the search for a power took longer than " +
                                                   FormatNumber(kOpenLimitS) + " s: give the whole URL");
    if (answer.ok()) return answer;
    if (problem_.empty()) problem_ = answer.error();
    // Where there is no connection or no permission, more requests end the same way, or lock the user out.
    if (problem.status == 0 || problem.status == 401) {
      problem_ = answer.error();
      ended_ = true;
    }
    return answer;
  }

  // At a chassis: its Power, or else its EnvironmentMetrics.
  void Look(const std::string& member) {
    if (member.empty()) return;
    const auto chassis = Get(member);
    if (!chassis.ok()) return;
    for (const char* kind : {"Power", "EnvironmentMetrics"}) {
      const std::string target = Link(At(chassis.value(), kind));
      if (target.empty()) continue;
      const auto resource = Get(target);
      if (ended_) return;
      if (!resource.ok()) continue;
      const auto power = PowerOf(resource.value(), bmc_.Where(target), FragmentOf(target));
      if (power.ok()) {
        found_.push_back(target);
        return;
      }
      if (problem_.empty()) problem_ = power.error();
    }
  }

  Bmc& bmc_;
  double until_s_;
  std::vector<std::string> found_;
  std::string problem_;  // the first, or the one that ended the search
  bool ended_ = false;
};

class RedfishMeter : public Meter {
 public:
  RedfishMeter(Bmc bmc, std::string target, bool verified)
      : bmc_(std::move(bmc)), target_(std::move(target)), where_(bmc_.Where(target_)) {
    info_.source = "redfish: " + where_;
    info_.scope = "node";
    info_.period_s = kPeriodS;
    info_.notes = {"the BMC's own figure: it lags behind the power, and may be a mean over some time",
                   "includes the node's power supplies and fans"};
    if (!verified) info_.notes.push_back("the BMC's certificate was not verified (ASSAY_REDFISH_INSECURE=1)");
  }

  const MeterInfo& info() const override { return info_; }

  Result<std::vector<Reading>> Read() override {
    const double begin_s = NowSeconds();
    const auto power = Power(kReadLimitS);
    if (!power.ok()) return Result<std::vector<Reading>>::Fail(power.error());
    Reading reading;
    reading.t_s = (begin_s + NowSeconds()) / 2;
    reading.watts = power.value().watts;
    return std::vector<Reading>{reading};
  }

  // A first look, for what does not change. What is wrong, if anything.
  std::optional<std::string> Try() {
    const auto power = Power(kOpenStepS);
    if (!power.ok()) return power.error();
    info_.limit_w = power.value().limit_w;
    return std::nullopt;
  }

 private:
  Result<NodePower> Power(double limit_s) {
    if (!refused_.empty()) return Result<NodePower>::Fail(refused_);
    Bmc::Problem problem;
    const auto resource = bmc_.Get(target_, limit_s, &problem);
    if (problem.status == 401) refused_ = resource.error();
    if (!resource.ok()) return Result<NodePower>::Fail(resource.error());
    return PowerOf(resource.value(), where_, FragmentOf(target_));
  }

  Bmc bmc_;
  std::string target_, where_;
  std::string refused_;  // asked again and again, a BMC locks the user out
  MeterInfo info_;
};

}  // namespace

Result<std::unique_ptr<Meter>> OpenRedfish(const std::string& text) {
  const auto url = ParseHttpUrl(text);
  if (!url.ok()) return Opened::Fail("redfish: " + url.error());
  const auto credentials = Credentials();
  if (!credentials.ok()) return Opened::Fail(credentials.error());
  HttpOptions options;
  options.ca_file = Environment("ASSAY_REDFISH_CA");
  options.verify = Environment("ASSAY_REDFISH_INSECURE") != "1";
  if (!credentials.value().empty()) options.authorization = Basic(credentials.value());
  auto client = HttpClient::Open(url.value(), options);
  if (!client.ok()) return Opened::Fail(client.error());
  Bmc bmc{url.value().Origin(), !credentials.value().empty(), std::move(client.value())};

  std::string target = url.value().target;
  if (target == "/" || target == "/redfish" || target == "/redfish/" || target == "/redfish/v1" || target == kRoot) {
    auto found = Search(bmc).Target();
    if (!found.ok()) return Opened::Fail(found.error());
    target = found.value();
  }
  auto meter = std::make_unique<RedfishMeter>(std::move(bmc), target, options.verify || !url.value().tls);
  if (const auto problem = meter->Try()) return Opened::Fail(*problem);
  return Opened(std::move(meter));
}

}  // namespace assay::bench
