// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/byte_source.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "bench/power/meter.h"
#include "bench/power/meters/net_address.h"

namespace assay::bench {
namespace {

using Opened = Result<std::unique_ptr<ByteSource>>;
using Answer = Result<ByteSource::Bytes>;

constexpr int kConnectMs = 500;
constexpr double kRetryS = 1;

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

enum class End { kFull, kNothingNow, kEnd, kError };

// Appends what can be read without waiting, up to kMostBytes. kError: see errno.
End Drain(int fd, std::string* data) {
  char buffer[65536];
  while (data->size() + sizeof buffer <= ByteSource::kMostBytes) {
    const ssize_t size = read(fd, buffer, sizeof buffer);
    if (size == 0) return End::kEnd;
    if (size > 0) {
      data->append(buffer, static_cast<size_t>(size));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return End::kNothingNow;
    } else if (errno != EINTR) {
      return End::kError;
    }
  }
  return End::kFull;
}

class FileTail : public ByteSource {
 public:
  explicit FileTail(std::string path) : path_(std::move(path)) {}

  Answer Read() override {
    Bytes bytes;
    if (!file_) {
      if (auto problem = Open()) return Answer::Fail(std::move(*problem));
      bytes.restarted = true;
    }
    const End end = Drain(file_.get(), &bytes.data);
    if (end == End::kError) return Answer::Fail(path_ + ": cannot be read: " + std::strerror(errno));
    // The old file is read to its end first, and followed on while there is no new one.
    if (bytes.data.empty() && Replaced()) file_ = Descriptor();
    return bytes;
  }

  // What is wrong, or nothing.
  std::optional<std::string> Open() {
    Descriptor file(open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!file && errno == ENOENT) return path_ + ": there is no such file yet: start the logger that writes it";
    if (!file) return path_ + ": cannot be opened: " + std::strerror(errno);
    struct stat status {};
    if (fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
      return path_ + ": is not a file: name the CSV file that the logger writes, or tcp:HOST:PORT";
    }
    file_ = std::move(file);
    return std::nullopt;
  }

 private:
  bool Replaced() const {
    struct stat mine {};
    struct stat named {};
    if (fstat(file_.get(), &mine) != 0 || stat(path_.c_str(), &named) != 0) return false;
    return mine.st_ino != named.st_ino || mine.st_dev != named.st_dev ||
           named.st_size < lseek(file_.get(), 0, SEEK_CUR);
  }

  std::string path_;
  Descriptor file_;
};

Result<Descriptor> Connect(const sockaddr_storage& address, socklen_t size, const std::string& name) {
  using Failure = Result<Descriptor>;
  const auto fail = [&](int error) {
    return Failure::Fail("tcp:" + name + ": no connection: " + std::strerror(error) +
                         ": does the logger listen there?");
  };
  Descriptor socket(::socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return fail(errno);
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0) return socket;
  if (errno != EINPROGRESS) return fail(errno);
  pollfd wait{socket.get(), POLLOUT, 0};
  if (poll(&wait, 1, kConnectMs) != 1) return fail(ETIMEDOUT);
  int error = 0;
  socklen_t error_size = sizeof error;
  getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &error_size);
  if (error != 0) return fail(error);
  return socket;
}

class TcpSource : public ByteSource {
 public:
  TcpSource(std::string name, const sockaddr_storage& address, socklen_t size, Descriptor socket)
      : name_(std::move(name)), address_(address), size_(size), socket_(std::move(socket)) {}

  Answer Read() override {
    Bytes bytes;
    if (!socket_) {
      if (NowSeconds() < next_try_s_) return bytes;
      next_try_s_ = NowSeconds() + kRetryS;
      auto socket = Connect(address_, size_, name_);
      if (!socket.ok()) return Answer::Fail(socket.error());
      socket_ = std::move(socket.value());
      bytes.restarted = true;
    }
    const End end = Drain(socket_.get(), &bytes.data);
    const std::string why = end == End::kError ? std::strerror(errno) : "the other side closed it";
    if (!bytes.data.empty() || (end != End::kEnd && end != End::kError)) return bytes;
    socket_ = Descriptor();
    return Answer::Fail("tcp:" + name_ + ": the connection is lost: " + why);
  }

 private:
  std::string name_;
  sockaddr_storage address_;  // the one that answered first: names are not looked up again, which could hang
  socklen_t size_;
  Descriptor socket_;
  double next_try_s_ = 0;
};

}  // namespace

Opened OpenFileTail(const std::string& path) {
  auto tail = std::make_unique<FileTail>(path);
  if (auto problem = tail->Open(); problem && access(path.c_str(), F_OK) == 0) {
    return Opened::Fail(std::move(*problem));
  }
  const size_t slash = path.rfind('/');
  const std::string folder = slash == path.npos ? "." : path.substr(0, slash + 1);
  if (access(folder.c_str(), X_OK) != 0) return Opened::Fail(path + ": cannot be reached: " + std::strerror(errno));
  return Opened(std::move(tail));
}

Opened OpenTcp(const std::string& place) {
  const auto parsed = ParseNetAddress(place, "");
  if (!parsed.ok()) return Opened::Fail("tcp:" + parsed.error());
  const NetAddress& target = parsed.value();
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (const int error = getaddrinfo(target.host.c_str(), target.port.c_str(), &hints, &list); error != 0) {
    return Opened::Fail("tcp:" + place + ": the host is not known: " + gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(list, freeaddrinfo);
  auto failure = Opened::Fail("tcp:" + place + ": the host has no address");
  for (const addrinfo* info = list; info != nullptr; info = info->ai_next) {
    sockaddr_storage address{};
    std::memcpy(&address, info->ai_addr, info->ai_addrlen);
    auto socket = Connect(address, info->ai_addrlen, place);
    if (socket.ok()) {
      return Opened(std::make_unique<TcpSource>(place, address, info->ai_addrlen, std::move(socket.value())));
    }
    failure = Opened::Fail(socket.error());
  }
  return failure;
}

}  // namespace assay::bench
