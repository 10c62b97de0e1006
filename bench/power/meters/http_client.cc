// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/http_client.h"

#include <openssl/x509v3.h>

#include <algorithm>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <chrono>
#include <optional>

#include "bench/stats/format.h"

namespace assay::bench {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;
using Answer = Result<HttpResponse>;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kMostBody = uint64_t{1} << 20;
constexpr uint32_t kMostHeader = 16384;
constexpr size_t kLongestTarget = 1024;  // it may come from the server, and goes into messages
constexpr int kMostRedirects = 3;

bool IsPlainTarget(std::string_view target) {
  return target.starts_with('/') && target.size() <= kLongestTarget &&
         std::all_of(target.begin(), target.end(), [](char c) { return c > ' ' && c < 127; });
}

bool IsAddress(const std::string& host) {
  error_code error;
  asio::ip::make_address(host, error);
  return !error;
}

}  // namespace

std::string HttpUrl::Origin() const {
  return (tls ? "https://" : "http://") + server.Text();
}

Result<HttpUrl> ParseHttpUrl(const std::string& url) {
  using Parsed = Result<HttpUrl>;
  // Nothing of such a URL is shown: with a '/' in the password it is not certain where the password ends.
  if (url.find('@') != url.npos) {
    return Parsed::Fail(
        "a user or password does not belong in a URL, where other programs can see it: use the environment variable "
        "ASSAY_REDFISH_CREDENTIALS (a file that holds user:password) or ASSAY_REDFISH_USER and ASSAY_REDFISH_PASSWORD");
  }
  const size_t colon = url.find("://");
  const std::string scheme = colon == url.npos ? "https" : url.substr(0, colon);
  const std::string rest = colon == url.npos ? url : url.substr(colon + 3);
  const size_t slash = std::min(rest.find_first_of("/?#"), rest.size());
  HttpUrl parsed{scheme == "https", {}, rest.substr(slash)};
  if (parsed.target.empty()) parsed.target = "/";
  const auto server = ParseNetAddress(rest.substr(0, slash), parsed.tls ? "443" : "80");
  if ((scheme != "https" && scheme != "http") || !server.ok() || !IsPlainTarget(parsed.target)) {
    return Parsed::Fail("\"" + url + "\" is not a URL such as https://bmc.example or https://10.0.0.2:8443/path");
  }
  parsed.server = server.value();
  return parsed;
}

struct HttpClient::Impl {
  HttpUrl url;
  HttpOptions options;
  asio::io_context io{1};
  asio::ssl::context tls{asio::ssl::context::tls_client};
  asio::ip::tcp::resolver::results_type addresses;
  // Over plain http only its lower layer is used.
  std::optional<beast::ssl_stream<beast::tcp_stream>> stream;
  beast::flat_buffer buffer;
  Clock::time_point deadline;

  // Runs one asynchronous operation to its end; its handler gets the error first. Asynchronous, because only then does
  // the stream keep deadlines.
  template <class Start>
  error_code Await(Start start) {
    error_code result;
    beast::get_lowest_layer(*stream).expires_at(deadline);
    start([&result](error_code error, auto&&...) { result = error; });
    io.restart();
    io.run();
    return result;
  }

  std::optional<std::string> Prepare();
  std::optional<std::string> Connect();
  std::optional<std::string> SetUpTls();
  Result<http::response<http::string_body>> Exchange(const std::string& target);
  Answer Follow(std::string target, double limit_s);
  // The target of a redirect that stays on this server.
  std::optional<std::string> SameServer(const std::string& location) const;
  std::string Explain(const error_code& error) const;
};

std::optional<std::string> HttpClient::Impl::Prepare() {
  error_code error;
  asio::ip::tcp::resolver resolver(io);
  addresses = resolver.resolve(url.server.host, url.server.port, asio::ip::tcp::resolver::numeric_service, error);
  if (error) return url.Origin() + ": the host is not known (" + error.message() + "): check its name";
  const bool here = std::all_of(addresses.begin(), addresses.end(),
                                [](const auto& entry) { return entry.endpoint().address().is_loopback(); });
  if (!url.tls && !here && !options.authorization.empty()) {
    return url.Origin() + ": the password would cross the network in the clear: use https://" + url.server.host;
  }
  if (!url.tls) return std::nullopt;
  SSL_CTX_set_min_proto_version(tls.native_handle(), TLS1_2_VERSION);
  tls.set_verify_mode(options.verify ? asio::ssl::verify_peer : asio::ssl::verify_none);
  if (options.ca_file.empty()) {
    tls.set_default_verify_paths(error);
  } else {
    tls.load_verify_file(options.ca_file, error);
    if (error) return options.ca_file + ": holds no CA certificate in PEM form that can be read: " + error.message();
  }
  return std::nullopt;
}

std::optional<std::string> HttpClient::Impl::SetUpTls() {
  SSL* ssl = stream->native_handle();
  const std::string& host = url.server.host;
  // A server name is for names only (RFC 6066); a certificate holds names and addresses apart.
  const bool set = IsAddress(host)
                       ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str()) == 1
                       : SSL_set_tlsext_host_name(ssl, host.c_str()) == 1 && SSL_set1_host(ssl, host.c_str()) == 1;
  if (!set) return url.Origin() + ": OpenSSL does not accept this host name";
  const error_code error =
      Await([&](auto handler) { stream->async_handshake(asio::ssl::stream_base::client, std::move(handler)); });
  if (!error) return std::nullopt;
  const long verified = SSL_get_verify_result(ssl);
  if (options.verify && verified != X509_V_OK) {
    return url.Origin() + ": its certificate cannot be verified (" + X509_verify_cert_error_string(verified) +
           "): name the file of its CA in ASSAY_REDFISH_CA, or go without with ASSAY_REDFISH_INSECURE=1";
  }
  return url.Origin() + ": no TLS connection (" + error.message() + "): does this port speak https?";
}

std::optional<std::string> HttpClient::Impl::Connect() {
  buffer.clear();
  stream.emplace(io, tls);
  const error_code error =
      Await([&](auto handler) { stream->next_layer().async_connect(addresses, std::move(handler)); });
  auto problem = error ? Explain(error) : url.tls ? SetUpTls() : std::nullopt;
  if (problem) stream.reset();
  return problem;
}

std::string HttpClient::Impl::Explain(const error_code& error) const {
  const std::string origin = url.Origin();
  if (error == asio::error::connection_refused) {
    return origin + ": refuses the connection: is its web service switched on, and this the right port?";
  }
  if (error == http::error::body_limit) return origin + ": sent more than 1 MiB, which no power resource takes";
  if (error.category() == make_error_code(http::error::end_of_stream).category()) {
    return origin + ": does not speak HTTP as it should (" + error.message() + ")";
  }
  return origin + ": " + error.message();
}

Result<http::response<http::string_body>> HttpClient::Impl::Exchange(const std::string& target) {
  using Failure = Result<http::response<http::string_body>>;
  http::request<http::empty_body> request(http::verb::get, target.substr(0, target.find('#')), 11);
  const std::string address = url.server.Text();  // without the port if it is the usual one (RFC 9110, 7.2)
  const bool usual = url.server.port == (url.tls ? "443" : "80");
  request.set(http::field::host, usual ? address.substr(0, address.rfind(':')) : address);
  request.set(http::field::user_agent, "assay");
  request.set(http::field::accept, "application/json");
  request.set("OData-Version", "4.0");
  if (!options.authorization.empty()) request.set(http::field::authorization, options.authorization);

  for (bool kept = stream.has_value();; kept = false) {
    if (!stream) {
      if (const auto problem = Connect()) return Failure::Fail(*problem);
    }
    http::response_parser<http::string_body> parser;
    parser.body_limit(kMostBody);
    parser.header_limit(kMostHeader);
    // The header by itself: Beast 1.74 forgets that a Content-Length is over the limit where the body is there already.
    const auto exchange = [&](auto& layer) {
      auto error = Await([&](auto handler) { http::async_write(layer, request, std::move(handler)); });
      if (!error) error = Await([&](auto done) { http::async_read_header(layer, buffer, parser, std::move(done)); });
      if (!error) error = Await([&](auto done) { http::async_read(layer, buffer, parser, std::move(done)); });
      return error;
    };
    const error_code error = url.tls ? exchange(*stream) : exchange(stream->next_layer());
    if (error || !parser.get().keep_alive()) stream.reset();
    if (!error) return parser.release();
    // A server may close a connection that was kept whenever it likes; that says nothing about this request.
    const bool stale = kept && !parser.got_some() && error != beast::error::timeout;
    if (!stale) return Failure::Fail(Explain(error));
  }
}

std::optional<std::string> HttpClient::Impl::SameServer(const std::string& location) const {
  if (location.starts_with("/")) return location.starts_with("//") ? std::nullopt : std::optional(location);
  const auto to = ParseHttpUrl(location);
  const bool same = location.find("://") != location.npos && to.ok() && to.value().Origin() == url.Origin();
  return same ? std::optional(to.value().target) : std::nullopt;
}

Answer HttpClient::Impl::Follow(std::string target, double limit_s) {
  deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(limit_s));
  for (int hop = 0; hop <= kMostRedirects; ++hop) {
    if (!IsPlainTarget(target)) return Answer::Fail(url.Origin() + ": names a resource in a way that is no path");
    auto response = Exchange(target);
    if (!response.ok() && Clock::now() >= deadline) {
      return Answer::Fail(url.Origin() + ": no answer within " + FormatNumber(limit_s, 2) + " s");
    }
    if (!response.ok()) return Answer::Fail(response.error());
    const int status = static_cast<int>(response.value().result_int());
    const auto location = response.value().find(http::field::location);
    if (status < 301 || status > 308 || status == 304 || location == response.value().end()) {
      return HttpResponse{status, std::move(response.value().body())};
    }
    const auto next = SameServer(std::string(location->value()));
    if (!next) {
      return Answer::Fail(url.Origin() + ": redirects to another server, which is not followed: give the URL of the " +
                          (url.tls ? "one that answers" : "one that answers, perhaps the same with https://"));
    }
    target = *next;
  }
  return Answer::Fail(url.Origin() + ": redirects in a circle");
}

HttpClient::HttpClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpClient::~HttpClient() = default;

Result<std::unique_ptr<HttpClient>> HttpClient::Open(const HttpUrl& url, const HttpOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->url = url;
  impl->options = options;
  if (const auto problem = impl->Prepare()) return Result<std::unique_ptr<HttpClient>>::Fail(*problem);
  return std::unique_ptr<HttpClient>(new HttpClient(std::move(impl)));
}

Result<HttpResponse> HttpClient::Get(const std::string& target, double limit_s) {
  return impl_->Follow(target, limit_s);
}

}  // namespace assay::bench
