// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/redfish.h"

#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "bench/power/meters/http_client.h"

namespace assay::bench {
namespace {

namespace fs = std::filesystem;
namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr char kPath[] = "/redfish/v1/Chassis/1/Power";
constexpr char kSecret[] = "s3cr3t-p4ss";

// A certificate for 127.0.0.1, signed by itself, and its key, in PEM.
struct Certificate {
  std::string certificate, key;

  Certificate() {
    EVP_PKEY* pair = EVP_EC_gen("P-256");
    X509* x509 = X509_new();
    X509_set_version(x509, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x509), 1);
    X509_gmtime_adj(X509_getm_notBefore(x509), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x509), 3600);
    X509_set_pubkey(x509, pair);
    X509_NAME* name = X509_get_subject_name(x509);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("bmc"), -1, -1, 0);
    X509_set_issuer_name(x509, name);
    for (const auto& [kind, value] :
         {std::pair(NID_basic_constraints, "critical,CA:TRUE"), std::pair(NID_subject_alt_name, "IP:127.0.0.1")}) {
      X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, kind, value);
      X509_add_ext(x509, extension, -1);
      X509_EXTENSION_free(extension);
    }
    X509_sign(x509, pair, EVP_sha256());
    certificate = Pem([&](BIO* bio) { PEM_write_bio_X509(bio, x509); });
    key = Pem([&](BIO* bio) { PEM_write_bio_PrivateKey(bio, pair, nullptr, nullptr, 0, nullptr, nullptr); });
    X509_free(x509);
    EVP_PKEY_free(pair);
  }

 private:
  static std::string Pem(const std::function<void(BIO*)>& write) {
    BIO* bio = BIO_new(BIO_s_mem());
    write(bio);
    char* data = nullptr;
    const long size = BIO_get_mem_data(bio, &data);
    std::string text(data, static_cast<size_t>(size));
    BIO_free(bio);
    return text;
  }
};

struct Reply {
  int status = 200;
  std::string body = {}, location = {};
  bool chunked = false;
  bool close = false;    // and says so
  bool hang_up = false;  // and does not say so
  bool silent = false;   // never answers
  std::string raw = {};  // instead of HTTP
};

struct Request {
  std::string target, authorization, host;
};

// A BMC on this machine: answers as its resources say, each connection in a thread of its own.
class Server {
 public:
  explicit Server(const Certificate* certificate = nullptr, uint16_t port = 0) : acceptor_(io_) {
    if (certificate != nullptr) {
      tls_.emplace(asio::ssl::context::tls_server);
      tls_->use_certificate(asio::buffer(certificate->certificate), asio::ssl::context::pem);
      tls_->use_private_key(asio::buffer(certificate->key), asio::ssl::context::pem);
    }
    const tcp::endpoint endpoint(asio::ip::address_v4::loopback(), port);
    acceptor_.open(endpoint.protocol());
    acceptor_.set_option(tcp::acceptor::reuse_address(true));
    acceptor_.bind(endpoint);
    acceptor_.listen();
    port_ = acceptor_.local_endpoint().port();
    accepting_ = std::thread([this] { Accept(); });
  }
  ~Server() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
      for (const int peer : peers_) shutdown(peer, SHUT_RDWR);
    }
    shutdown(acceptor_.native_handle(), SHUT_RDWR);
    accepting_.join();
    for (std::thread& thread : serving_) thread.join();
  }

  void Set(const std::string& target, Reply reply) {
    const std::lock_guard lock(mutex_);
    replies_[target] = std::move(reply);
  }
  void Set(const std::string& target, const std::string& body) { Set(target, Reply{.body = body}); }
  std::vector<Request> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  int connections() const {
    const std::lock_guard lock(mutex_);
    return connections_;
  }
  std::string server_name() const {
    const std::lock_guard lock(mutex_);
    return server_name_;
  }
  uint16_t port() const { return port_; }
  std::string Url(const std::string& path = "", const std::string& host = "127.0.0.1") const {
    return (tls_ ? "https://" : "http://") + host + ":" + std::to_string(port_) + path;
  }

 private:
  void Accept() {
    while (true) {
      error_code error;
      auto socket = std::make_shared<tcp::socket>(io_);
      acceptor_.accept(*socket, error);
      const std::lock_guard lock(mutex_);
      if (stop_) return;
      if (error) continue;
      ++connections_;
      peers_.insert(socket->native_handle());
      serving_.emplace_back([this, socket] { Converse(std::move(*socket)); });
    }
  }

  void Converse(tcp::socket socket) {
    const int peer = socket.native_handle();
    if (tls_) {
      error_code error;
      beast::ssl_stream<tcp::socket&> stream(socket, *tls_);
      stream.handshake(asio::ssl::stream_base::server, error);
      if (const char* name = SSL_get_servername(stream.native_handle(), TLSEXT_NAMETYPE_host_name)) {
        const std::lock_guard lock(mutex_);
        server_name_ = name;
      }
      if (!error) Serve(stream);
    } else {
      Serve(socket);
    }
    const std::lock_guard lock(mutex_);
    peers_.erase(peer);  // before it is closed, and another may get its number
  }

  template <class Stream>
  void Serve(Stream& stream) {
    error_code error;
    beast::flat_buffer buffer;
    while (true) {
      http::request<http::string_body> request;
      http::read(stream, buffer, request, error);
      if (error) return;
      const Reply reply = Answer(request);
      if (reply.silent) {
        http::read(stream, buffer, request, error);  // until the client goes
        return;
      }
      if (!reply.raw.empty()) {
        asio::write(stream, asio::buffer(reply.raw), error);
        return;
      }
      http::response<http::string_body> response(static_cast<http::status>(reply.status), 11, reply.body);
      if (!reply.location.empty()) response.set(http::field::location, reply.location);
      response.keep_alive(!reply.close);
      if (reply.chunked) {
        response.chunked(true);
      } else {
        response.prepare_payload();
      }
      http::write(stream, response, error);
      if (error || reply.close || reply.hang_up) return;
    }
  }

  Reply Answer(const http::request<http::string_body>& request) {
    const std::lock_guard lock(mutex_);
    const std::string target(request.target());
    requests_.push_back(
        {target, std::string(request[http::field::authorization]), std::string(request[http::field::host])});
    const auto found = replies_.find(target);
    return found == replies_.end() ? Reply{.status = 404, .body = "{}"} : found->second;
  }

  asio::io_context io_;
  std::optional<asio::ssl::context> tls_;
  tcp::acceptor acceptor_;
  uint16_t port_ = 0;
  std::thread accepting_;
  std::vector<std::thread> serving_;
  mutable std::mutex mutex_;
  std::map<std::string, Reply> replies_;
  std::vector<Request> requests_;
  std::string server_name_;
  std::set<int> peers_;
  int connections_ = 0;
  bool stop_ = false;
};

std::string PowerJson(const std::string& watts) {
  return R"({"PowerControl": [{"PowerConsumedWatts": )" + watts + "}]}";
}

// A folder, and an environment without settings before and after.
class Redfish : public ::testing::Test {
 protected:
  void SetUp() override {
    ClearEnvironment();
    std::string name = ::testing::TempDir() + "assay-redfish-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override {
    ClearEnvironment();
    fs::remove_all(folder_);
  }
  static void ClearEnvironment() {
    for (const char* name : {"CREDENTIALS", "USER", "PASSWORD", "CA", "INSECURE"}) {
      unsetenv((std::string("ASSAY_REDFISH_") + name).c_str());
    }
  }
  std::string Write(const std::string& text, mode_t mode) {
    const fs::path path = folder_ / "file";
    std::ofstream(path) << text;
    chmod(path.c_str(), mode);
    return path;
  }

  // Why a URL cannot be opened, which is one line without the password.
  static std::string WhyNot(const std::string& url) {
    const auto opened = OpenRedfish(url);
    if (opened.ok()) return "opened";
    EXPECT_EQ(opened.error().find('\n'), std::string::npos) << opened.error();
    EXPECT_EQ(opened.error().find(kSecret), std::string::npos) << opened.error();
    return opened.error();
  }
  static std::unique_ptr<Meter> Open(const std::string& url) {
    auto opened = OpenRedfish(url);
    EXPECT_TRUE(opened.ok()) << opened.error();
    return opened.ok() ? std::move(opened.value()) : nullptr;
  }
  static double Watts(Meter& meter) {
    const auto read = meter.Read();
    EXPECT_TRUE(read.ok()) << read.error();
    return read.ok() ? read.value().at(0).watts.value() : -1;
  }

  fs::path folder_;
};

bool Holds(const std::string& text, const std::string& part) {
  return text.find(part) != text.npos;
}

#define EXPECT_HOLDS(text, part) EXPECT_PRED2(Holds, text, part)

TEST_F(Redfish, ReadsPowerControlOverOneConnection) {
  Server server;
  server.Set(kPath, R"({"PowerControl": [{"PowerConsumedWatts": 412.5, "PowerLimit": {"LimitInWatts": 900}}]})");
  const auto meter = Open(server.Url(kPath));
  ASSERT_TRUE(meter);
  EXPECT_EQ(meter->info().source, "redfish: " + server.Url(kPath));
  EXPECT_EQ(meter->info().scope, "node");
  EXPECT_EQ(meter->info().period_s, 1);
  EXPECT_EQ(meter->info().limit_w, 900);
  EXPECT_EQ(meter->info().notes.size(), 2u);
  const double before_s = NowSeconds();
  const auto read = meter->Read();
  ASSERT_TRUE(read.ok()) << read.error();
  ASSERT_EQ(read.value().size(), 1u);
  EXPECT_EQ(read.value()[0].watts, 412.5);
  EXPECT_GE(read.value()[0].t_s, before_s);
  EXPECT_LE(read.value()[0].t_s, NowSeconds());
  server.Set(kPath, PowerJson("500"));
  EXPECT_EQ(Watts(*meter), 500);
  EXPECT_EQ(server.connections(), 1);
  EXPECT_EQ(server.requests().at(0).host, "127.0.0.1:" + std::to_string(server.port()));
  EXPECT_EQ(server.requests().at(0).authorization, "");
}

TEST_F(Redfish, ReadsEnvironmentMetrics) {
  Server server;
  server.Set("/m", R"({"PowerWatts": {"Reading": 333}, "TemperatureCelsius": {"Reading": 40}})");
  const auto meter = Open(server.Url("/m"));
  ASSERT_TRUE(meter);
  EXPECT_EQ(meter->info().averaging_s, 0);
  EXPECT_FALSE(meter->info().limit_w);
  EXPECT_EQ(Watts(*meter), 333);
}

// Chassis c1, c2, ... with these links.
void SetChassis(Server& server, const std::vector<std::string>& links) {
  server.Set("/redfish/v1/", R"({"Chassis": {"@odata.id": "/chassis"}})");
  std::string members;
  for (size_t i = 1; i <= links.size(); ++i) {
    const std::string path = "/c" + std::to_string(i);
    members += (i > 1 ? ", " : "") + std::string(R"({"@odata.id": ")") + path + "\"}";
    server.Set(path, "{" + links[i - 1] + "}");
  }
  server.Set("/chassis", R"({"Members": [)" + members + "]}");
}

TEST_F(Redfish, FindsTheChassisThatReports) {
  Server server;
  SetChassis(server, {R"("Power": {"@odata.id": "/gone"})", R"("Id": "shelf")",
                      R"("Power": {"@odata.id": "/p3"}, "EnvironmentMetrics": {"@odata.id": "/m3"})"});
  server.Set("/p3", PowerJson("null"));
  server.Set("/m3", R"({"PowerWatts": {"Reading": 250}})");
  for (const char* path : {"", "/", "/redfish/v1", "/redfish/v1/"}) {
    const auto meter = Open(server.Url(path));
    ASSERT_TRUE(meter) << path;
    EXPECT_EQ(meter->info().source, "redfish: " + server.Url("/m3"));
    EXPECT_EQ(Watts(*meter), 250);
  }
  server.Set("/p3", PowerJson("251"));  // the first of the two that reports, and not both
  const auto meter = Open(server.Url());
  ASSERT_TRUE(meter);
  EXPECT_EQ(Watts(*meter), 251);
}

TEST_F(Redfish, RefusesToChooseBetweenChassis) {
  Server server;
  SetChassis(server, {R"("Power": {"@odata.id": "/p1"})", R"("Power": {"@odata.id": "/p2"})"});
  server.Set("/p1", PowerJson("100"));
  server.Set("/p2", PowerJson("200"));
  EXPECT_HOLDS(WhyNot(server.Url()), "several chassis report a power, /p1, /p2: give the whole URL");
}

TEST_F(Redfish, SaysWhyNoChassisReports) {
  Server server;
  EXPECT_HOLDS(WhyNot(server.Url()), "/redfish/v1/: HTTP 404");
  server.Set("/redfish/v1/", "{}");
  EXPECT_HOLDS(WhyNot(server.Url()), "leads to no chassis");
  SetChassis(server, {R"("Power": {"@odata.id": "/p1"})"});
  server.Set("/p1", PowerJson("null"));
  EXPECT_HOLDS(WhyNot(server.Url()), "no chassis of it reports a power; ");
  EXPECT_HOLDS(WhyNot(server.Url()), "is null or absent");
  for (const char* members : {"null", "3", "[]", "[null, 3, {}, {\"@odata.id\": 3}]"}) {
    server.Set("/chassis", std::string(R"({"Members": )") + members + "}");
    EXPECT_HOLDS(WhyNot(server.Url()), "no chassis of it reports a power");
  }
}

TEST_F(Redfish, FollowsNoLinkThatIsNoPath) {
  Server server;
  for (const std::string& link : {"/" + std::string(5000, 'x'), std::string("/a b"), std::string("http://bmc/")}) {
    SetChassis(server, {R"("Power": {"@odata.id": ")" + link + "\"}"});
    const std::string why = WhyNot(server.Url());
    EXPECT_HOLDS(why, "in a way that is no path");
    EXPECT_LT(why.size(), 200u);
  }
}

TEST_F(Redfish, StopsTheSearchWhereItIsNotLetIn) {
  Server server;
  SetChassis(server, {R"("Power": {"@odata.id": "/p"})", "", ""});
  server.Set("/p", Reply{.status = 401, .body = "{}"});
  EXPECT_HOLDS(WhyNot(server.Url()), "/p: HTTP 401");
  EXPECT_EQ(server.requests().size(), 4u);  // more would lock the user out
}

TEST_F(Redfish, OfSeveralPowersTheUrlNamesOne) {
  Server server;
  server.Set(kPath, R"({"PowerControl": [{"Name": "Server", "PowerConsumedWatts": 400}, {"PowerConsumedWatts": null},
                        {"Name": "Memory", "PowerConsumedWatts": 40}]})");
  EXPECT_HOLDS(WhyNot(server.Url(kPath)), "several powers, #/PowerControl/0 (Server), #/PowerControl/2 (Memory)");
  const auto meter = Open(server.Url(kPath) + "#/PowerControl/2");
  ASSERT_TRUE(meter);
  EXPECT_EQ(Watts(*meter), 40);
  EXPECT_HOLDS(WhyNot(server.Url(kPath) + "#/PowerControl/3"), "has no entry #/PowerControl/3");
  EXPECT_HOLDS(WhyNot(server.Url(kPath) + "#/PowerControl/1"), "is null or absent");
}

TEST_F(Redfish, EveryStatusHasItsRemedy) {
  Server server;
  for (const auto& [status, remedy] :
       std::map<int, std::string>{{401, "asks for a user: name a file with user:password"},
                                  {403, "role ReadOnly"},
                                  {404, "without a path to look for it"},
                                  {418, "not the answer of a Redfish service"},
                                  {500, "try again"},
                                  {503, "try again"},
                                  {204, "not the answer"}}) {
    server.Set(kPath, Reply{.status = status, .body = status == 204 ? "" : "{}"});
    EXPECT_HOLDS(WhyNot(server.Url(kPath)), "HTTP " + std::to_string(status) + ": ");
    EXPECT_HOLDS(WhyNot(server.Url(kPath)), remedy);
  }
}

TEST_F(Redfish, RefusesWhatIsNoPower) {
  Server server;
  for (const auto& [body, why] :
       std::vector<std::pair<std::string, std::string>>{{"", "not a JSON object"},
                                                        {"{\"PowerControl\": [", "not a JSON object"},
                                                        {"[1]", "not a JSON object"},
                                                        {std::string(100000, '['), "not a JSON object"},
                                                        {"{}", "holds neither PowerControl nor PowerWatts"},
                                                        {R"({"PowerControl": 3})", "holds neither"},
                                                        {R"({"PowerControl": []})", "holds neither"},
                                                        {R"({"PowerControl": [3]})", "is null or absent"},
                                                        {R"({"PowerControl": [{}]})", "is null or absent"},
                                                        {R"({"PowerWatts": 3})", "holds neither"},
                                                        {R"({"PowerWatts": {"Reading": "300"}})", "is not a number"},
                                                        {R"({"PowerWatts": {}})", "is null or absent"},
                                                        {PowerJson("null"), "is null or absent"},
                                                        {PowerJson("\"300\""), "is not a number"},
                                                        {PowerJson("true"), "is not a number"},
                                                        {PowerJson("-1"), "is negative"},
                                                        {PowerJson("1e999"), "not a JSON object"}}) {
    server.Set(kPath, body);
    EXPECT_HOLDS(WhyNot(server.Url(kPath)), why);
  }
  server.Set(kPath, R"({"PowerControl": [{"PowerConsumedWatts": 5, "PowerLimit": 3, "PowerMetrics": [1]}]})");
  const auto meter = Open(server.Url(kPath));
  ASSERT_TRUE(meter);
  server.Set(kPath, PowerJson("null"));
  EXPECT_FALSE(meter->Read().ok());
  server.Set(kPath, PowerJson("6"));
  EXPECT_EQ(Watts(*meter), 6);
}

TEST_F(Redfish, ReadsChunkedAnswersUpToOneMebibyte) {
  Server server;
  for (const bool chunked : {false, true}) {
    server.Set(kPath, Reply{.body = PowerJson("300"), .chunked = chunked});
    EXPECT_EQ(WhyNot(server.Url(kPath)), "opened");
    server.Set(kPath, Reply{.body = PowerJson("300") + std::string(1 << 20, ' '), .chunked = chunked});
    EXPECT_HOLDS(WhyNot(server.Url(kPath)), "more than 1 MiB");
  }
}

TEST_F(Redfish, FollowsRedirectsOnTheSameServerOnly) {
  setenv("ASSAY_REDFISH_USER", "root", 1);
  setenv("ASSAY_REDFISH_PASSWORD", kSecret, 1);
  Server server, other;
  server.Set(kPath, PowerJson("300"));
  other.Set(kPath, PowerJson("1"));
  for (const std::string& location : {std::string(kPath), server.Url(kPath)}) {
    server.Set("/old", Reply{.status = 308, .location = location});
    const auto meter = Open(server.Url("/old"));
    ASSERT_TRUE(meter);
    EXPECT_EQ(Watts(*meter), 300);
  }
  const std::string port = std::to_string(server.port());
  for (const std::string& location : {other.Url(kPath), "https://127.0.0.1:" + port + kPath, "//127.0.0.1:1" + port,
                                      "http://127.0.0.1:" + port + "@evil/", std::string("relative")}) {
    server.Set("/old", Reply{.status = 301, .location = location});
    EXPECT_HOLDS(WhyNot(server.Url("/old")), "redirects to another server");
  }
  EXPECT_EQ(other.connections(), 0);
  server.Set("/old", Reply{.status = 302, .location = "/old"});
  EXPECT_HOLDS(WhyNot(server.Url("/old")), "in a circle");
}

TEST_F(Redfish, ASlowServerDoesNotHoldUpARead) {
  Server server;
  server.Set(kPath, PowerJson("300"));
  server.Set("/slow", Reply{.silent = true});
  const auto client = HttpClient::Open(ParseHttpUrl(server.Url()).value(), {});
  const double begin_s = NowSeconds();
  const auto response = client.value()->Get("/slow", 0.1);
  ASSERT_FALSE(response.ok());
  EXPECT_HOLDS(response.error(), "no answer within 0.10 s");
  EXPECT_LT(NowSeconds() - begin_s, 0.6);
  EXPECT_EQ(client.value()->Get(kPath, 2).value().status, 200);

  const auto meter = Open(server.Url(kPath));
  server.Set(kPath, Reply{.silent = true});
  const double read_s = NowSeconds();
  EXPECT_FALSE(meter->Read().ok());
  EXPECT_LE(NowSeconds() - read_s, 2);
}

TEST_F(Redfish, AServerMayCloseConnectionsAsItLikes) {
  Server server;
  server.Set(kPath, Reply{.body = PowerJson("300"), .close = true});
  const auto meter = Open(server.Url(kPath));
  ASSERT_TRUE(meter);
  EXPECT_EQ(Watts(*meter), 300);
  server.Set(kPath, Reply{.body = PowerJson("301"), .hang_up = true});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Watts(*meter), 301);
  EXPECT_EQ(server.connections(), 5);
}

TEST_F(Redfish, AServerThatGoesAndComesBack) {
  auto server = std::make_unique<Server>();
  server->Set(kPath, PowerJson("300"));
  const std::string url = server->Url(kPath);
  const uint16_t port = server->port();
  const auto meter = Open(url);
  server.reset();
  const auto read = meter->Read();
  ASSERT_FALSE(read.ok());
  EXPECT_HOLDS(read.error(), "refuses the connection");
  EXPECT_HOLDS(WhyNot(url), "refuses the connection");
  server = std::make_unique<Server>(nullptr, port);
  server->Set(kPath, PowerJson("301"));
  EXPECT_EQ(Watts(*meter), 301);
}

TEST_F(Redfish, GarbageIsOneLine) {
  Server server;
  std::minstd_rand random(5);
  for (int i = 0; i < 60; ++i) {
    std::string raw(1 + random() % 400, '\0');
    for (char& c : raw) c = static_cast<char>(random());
    if (i % 3 == 1) raw = "HTTP/1.1 200 OK\r\n" + raw;
    if (i % 3 == 2) raw = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + raw;
    server.Set(kPath, Reply{.raw = raw});
    EXPECT_NE(WhyNot(server.Url(kPath)), "opened");
  }
  server.Set(kPath, Reply{.raw = "HTTP/1.1 200 OK\r\nX: " + std::string(100000, 'x')});
  EXPECT_HOLDS(WhyNot(server.Url(kPath)), "does not speak HTTP as it should");

  server.Set(kPath, PowerJson("300"));
  const auto meter = Open(server.Url(kPath));
  ASSERT_TRUE(meter);
  server.Set(kPath, Reply{.raw = "no HTTP, and more of it"});
  EXPECT_FALSE(meter->Read().ok());
  server.Set(kPath, PowerJson("301"));  // what is left of the garbage is not taken for a part of this
  EXPECT_EQ(Watts(*meter), 301);
}

TEST_F(Redfish, VerifiesTheCertificate) {
  const Certificate certificate;
  Server server(&certificate);
  server.Set(kPath, PowerJson("300"));
  EXPECT_HOLDS(WhyNot(server.Url(kPath)), "cannot be verified (self-signed certificate): name the file of its CA");
  EXPECT_TRUE(server.requests().empty());

  const std::string ca = Write(certificate.certificate, 0644);
  setenv("ASSAY_REDFISH_CA", ca.c_str(), 1);
  const auto meter = Open(server.Url(kPath));
  ASSERT_TRUE(meter);
  EXPECT_EQ(Watts(*meter), 300);
  EXPECT_EQ(meter->info().notes.size(), 2u);

  EXPECT_HOLDS(WhyNot(server.Url(kPath, "localhost")), "cannot be verified (hostname mismatch)");

  setenv("ASSAY_REDFISH_CA", Write(Certificate().certificate, 0644).c_str(), 1);
  EXPECT_HOLDS(WhyNot(server.Url(kPath)), "cannot be verified");
  setenv("ASSAY_REDFISH_CA", Write("no PEM", 0644).c_str(), 1);
  EXPECT_HOLDS(WhyNot(server.Url(kPath)), "holds no CA certificate in PEM form");
}

TEST_F(Redfish, GoesWithoutVerificationOnlyWhereAskedTo) {
  const Certificate certificate;
  Server server(&certificate);
  server.Set(kPath, PowerJson("300"));
  setenv("ASSAY_REDFISH_INSECURE", "0", 1);
  EXPECT_HOLDS(WhyNot(server.Url(kPath)), "cannot be verified");
  setenv("ASSAY_REDFISH_INSECURE", "1", 1);
  const auto meter = Open(server.Url(kPath, "localhost"));
  ASSERT_TRUE(meter);
  EXPECT_EQ(Watts(*meter), 300);
  EXPECT_EQ(server.server_name(), "localhost");
  EXPECT_HOLDS(meter->info().notes.back(), "was not verified");
}

TEST_F(Redfish, HttpAndHttpsAreToldApart) {
  const Certificate certificate;
  Server plain, tls(&certificate);
  EXPECT_HOLDS(WhyNot("https" + plain.Url(kPath).substr(4)), "does this port speak https?");
  EXPECT_HOLDS(WhyNot("http" + tls.Url(kPath).substr(5)), "http://127.0.0.1:");
}

TEST_F(Redfish, SendsTheCredentialsOfAFileThatIsPrivate) {
  Server server;
  server.Set(kPath, PowerJson("300"));
  const std::string text = std::string("root:") + kSecret + "\nmore\n";
  setenv("ASSAY_REDFISH_CREDENTIALS", Write(text, 0600).c_str(), 1);
  EXPECT_EQ(WhyNot(server.Url(kPath)), "opened");
  EXPECT_EQ(server.requests().at(0).authorization, "Basic cm9vdDpzM2NyM3QtcDRzcw==");
  server.Set(kPath, Reply{.status = 401, .body = "{}"});
  EXPECT_HOLDS(WhyNot(server.Url(kPath)), "does not accept this user or password");
  for (const mode_t mode : {0640, 0604}) {
    const std::string path = Write(text, mode);
    EXPECT_HOLDS(WhyNot(server.Url(kPath)), "others can read this password: chmod 600 " + path);
  }
  for (const char* wrong : {"", kSecret, ":s3cr3t-p4ss"}) {
    Write(wrong, 0600);
    EXPECT_HOLDS(WhyNot(server.Url(kPath)), "user:password");
  }
  setenv("ASSAY_REDFISH_CREDENTIALS", folder_.c_str(), 1);
  EXPECT_HOLDS(WhyNot(server.Url(kPath)), "cannot be read");
  EXPECT_EQ(server.requests().size(), 2u);
}

TEST_F(Redfish, SendsTheCredentialsOfTheEnvironment) {
  Server server;
  server.Set(kPath, PowerJson("300"));
  setenv("ASSAY_REDFISH_USER", "root", 1);
  EXPECT_HOLDS(WhyNot(server.Url(kPath)), "set both");
  setenv("ASSAY_REDFISH_PASSWORD", kSecret, 1);
  EXPECT_EQ(WhyNot(server.Url(kPath)), "opened");
  EXPECT_EQ(server.requests().at(0).authorization, "Basic cm9vdDpzM2NyM3QtcDRzcw==");
  setenv("ASSAY_REDFISH_USER", "a:b", 1);
  EXPECT_HOLDS(WhyNot(server.Url(kPath)), "cannot hold a colon");
}

TEST_F(Redfish, NeverSendsAPasswordInTheClear) {
  setenv("ASSAY_REDFISH_USER", "root", 1);
  setenv("ASSAY_REDFISH_PASSWORD", kSecret, 1);
  EXPECT_HOLDS(WhyNot("http://192.0.2.1/p"), "in the clear: use https://192.0.2.1");
  EXPECT_HOLDS(WhyNot("http://0.0.0.0/p"), "in the clear");
}

TEST_F(Redfish, RefusesUrlsWithoutRepeatingTheirPasswords) {
  for (const char* url : {"https://root:s3cr3t-p4ss@bmc/", "http://root:s3cr3t-p4ss/x@bmc", "root:s3cr3t-p4ss@bmc"}) {
    EXPECT_HOLDS(WhyNot(url), "ASSAY_REDFISH_CREDENTIALS");
  }
  for (const char* url : {"", "ftp://bmc", "https://", "https:///x", "https://bmc:x/", "https://b mc/",
                          "https://bmc/a b", "https://bmc/\r\nX: 1"}) {
    EXPECT_FALSE(OpenRedfish(url).ok()) << url;
  }
  const auto url = ParseHttpUrl("bmc");
  EXPECT_EQ(url.value().Origin() + url.value().target, "https://bmc:443/");
}

}  // namespace
}  // namespace assay::bench
