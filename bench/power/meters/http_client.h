// SPDX-License-Identifier: Apache-2.0
// GET requests to one HTTP or HTTPS server that may be slow, broken or hostile. One thread at a time.
//
// The connection is kept between requests and made anew where the server has closed it. Every request ends by its
// deadline; a body over 1 MiB is an error; redirects are followed on the same server only. No message ever holds the
// authorization or anything that the server sent in a header.
#pragma once

#include <memory>
#include <string>

#include "bench/power/meters/net_address.h"
#include "runtime/core/error.h"

namespace assay::bench {

struct HttpUrl {
  bool tls = true;
  NetAddress server;
  std::string target;          // "/redfish/v1/", with query and fragment; "/" if the URL has none
  std::string Origin() const;  // "https://bmc:443"
};

// Without a scheme https is meant. Fails where the URL holds a user or a password, and does not repeat it then.
Result<HttpUrl> ParseHttpUrl(const std::string& url);

struct HttpOptions {
  std::string authorization;  // the value of the header; empty: none. Refused over http, but for this machine itself
  std::string ca_file;        // PEM; empty: those of the system
  bool verify = true;         // the server's certificate
};

struct HttpResponse {
  int status = 0;
  std::string body;
};

class HttpClient {
 public:
  // Looks the server's name up, once (this may take as long as the system's resolver takes); connects to nothing yet.
  static Result<std::unique_ptr<HttpClient>> Open(const HttpUrl& url, const HttpOptions& options);
  ~HttpClient();

  // target: begins with '/'; a fragment is left out. Any status is an answer, but for redirects to elsewhere.
  Result<HttpResponse> Get(const std::string& target, double limit_s);

 private:
  struct Impl;
  explicit HttpClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace assay::bench
