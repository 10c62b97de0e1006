// SPDX-License-Identifier: Apache-2.0
#include "bench/power/meters/wall.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "bench/power/meters/net_address.h"

namespace assay::bench {
namespace {

namespace fs = std::filesystem;
using ::testing::internal::CaptureStderr;
using ::testing::internal::GetCapturedStderr;

constexpr double kNoon = 1767268800;

void Pause(double s) {
  std::this_thread::sleep_for(std::chrono::duration<double>(s));
}

std::string Row(double stamp_s, double watts) {
  return std::to_string(stamp_s) + "," + std::to_string(watts) + "\n";
}

// As the logger's clock stamps it now.
std::string RowNow(double watts) {
  Pause(0.001);
  return Row(kNoon + NowSeconds(), watts);
}

class WallFile : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "assay-wall-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    path_ = folder_ / "log.csv";
  }
  void TearDown() override { fs::remove_all(folder_); }

  void Append(const std::string& text) { std::ofstream(path_, std::ios::app) << text; }
  // Keeps the marker line, without its end.
  std::unique_ptr<Meter> Open() {
    CaptureStderr();
    auto opened = OpenWall(path_);
    marker_ = GetCapturedStderr();
    EXPECT_TRUE(opened.ok()) << opened.error();
    EXPECT_TRUE(marker_.ends_with('\n'));
    marker_ = marker_.substr(0, marker_.find('\n'));
    return opened.ok() ? std::move(opened.value()) : nullptr;
  }
  // The watts that came since the last call, or the problem.
  static std::string Watts(Meter& meter) {
    const auto read = meter.Read();
    if (!read.ok()) return read.error();
    std::string text;
    for (const Reading& reading : read.value()) {
      text += (text.empty() ? "" : " ") + std::to_string(std::lround(reading.watts.value()));
    }
    return text;
  }

  fs::path folder_, path_;
  std::string marker_;
};

TEST_F(WallFile, ReadsWhatIsNew) {
  Append("time,W\n" + RowNow(100));
  const auto meter = Open();
  EXPECT_EQ(meter->info().scope, "wall");
  EXPECT_EQ(meter->info().source, "wall: " + path_.string());
  EXPECT_EQ(meter->info().period_s, 0.1);
  EXPECT_FALSE(meter->info().constant);
  EXPECT_EQ(Watts(*meter), "");  // what was there before is not part of the run
  Append(RowNow(102));
  const double before_s = NowSeconds();
  const auto read = meter->Read();
  ASSERT_TRUE(read.ok());
  ASSERT_EQ(read.value().size(), 1u);
  EXPECT_EQ(read.value()[0].watts, 102);
  EXPECT_NEAR(read.value()[0].t_s, before_s, 0.1);
  EXPECT_FALSE(read.value()[0].energy_j);
  Append(RowNow(103));
  Append(RowNow(104));
  EXPECT_EQ(Watts(*meter), "103 104");
  EXPECT_EQ(Watts(*meter), "");
  EXPECT_NE(meter->info().notes.at(0).find("by their arrival"), std::string::npos);
}

TEST_F(WallFile, GrowsInPieces) {
  Append("ti");
  const auto meter = Open();
  Append("me;W\n17");
  EXPECT_EQ(Watts(*meter), "");
  Append("67268800,5;3");
  EXPECT_EQ(Watts(*meter), "");
  Append("01,5\r\n1767268801;4");
  EXPECT_EQ(Watts(*meter), "302");
  Append("00\n");
  EXPECT_EQ(Watts(*meter), "400");
}

TEST_F(WallFile, IsCreatedLater) {
  const auto meter = Open();
  EXPECT_NE(Watts(*meter).find("log.csv: there is no such file yet: start the logger"), std::string::npos);
  Append("time,W\n" + Row(1, 300));
  EXPECT_EQ(Watts(*meter), "300");
}

TEST_F(WallFile, IsRotatedAndTruncated) {
  Append("time,W\n" + RowNow(100));
  const auto meter = Open();
  Append(RowNow(101));
  fs::rename(path_, folder_ / "log.csv.1");
  EXPECT_EQ(Watts(*meter), "101");  // the rest of the old file
  EXPECT_EQ(Watts(*meter), "");     // no new one yet: that is no fault
  Append("#" + std::string(200, '-') + "\nW,time\n102," + std::to_string(kNoon + NowSeconds()) + "\n");
  EXPECT_EQ(Watts(*meter), "");
  EXPECT_EQ(Watts(*meter), "102");  // by its own header
  std::ofstream(path_, std::ios::trunc) << "3,103\n";
  EXPECT_EQ(Watts(*meter), "");
  EXPECT_EQ(Watts(*meter), "103");
}

TEST_F(WallFile, TheClockIsSetByAnHour) {
  for (const double hour : {3600.0, -3600.0}) {
    fs::remove(path_);
    Append("time,W\n" + Row(kNoon, 100));
    const auto meter = Open();
    double energy_j = 0, begin_s = 0;
    Reading last;
    for (int i = 1; i <= 20; ++i) {
      Append(Row(kNoon + NowSeconds() + (i > 10 ? hour : 0), 300));
      const auto read = meter->Read();
      ASSERT_TRUE(read.ok()) << read.error();
      for (const Reading& r : read.value()) {
        if (last.watts) energy_j += (*last.watts + *r.watts) / 2 * (r.t_s - last.t_s);
        if (!last.watts) begin_s = r.t_s;
        EXPECT_GT(r.t_s, last.t_s);
        last = r;
      }
      Pause(0.01);
    }
    EXPECT_NEAR(last.t_s, NowSeconds(), 0.15);
    EXPECT_GT(last.t_s - begin_s, 0.15);
    EXPECT_NEAR(energy_j, 300 * (last.t_s - begin_s), 1e-3);
  }
}

TEST_F(WallFile, TheMarkerPlacesALogThatComesAtTheEnd) {
  const auto meter = Open();
  const double opened_s = NowSeconds();
  EXPECT_EQ(marker_.substr(0, 27), "assay: wall meter marker: 1") << marker_;
  Pause(0.05);
  // Buffered by the logger, and stamped by a clock that is an hour off.
  Append("time,W\n" + Row(kNoon - 1, 99) + "assay: wall meter marker: 1.000\n" + marker_ + "\n" + Row(kNoon, 100) +
         Row(kNoon + 0.02, 101));
  auto read = meter->Read();
  ASSERT_TRUE(read.ok()) << read.error();
  ASSERT_EQ(read.value().size(), 3u);
  EXPECT_NEAR(read.value()[1].t_s, opened_s, 0.02);
  EXPECT_NEAR(read.value()[2].t_s - read.value()[1].t_s, 0.02, 1e-5);
  EXPECT_NE(meter->info().notes.at(0).find("by the marker line"), std::string::npos);
}

TEST_F(WallFile, AnotherMeterMarkerIsNone) {
  const auto meter = Open();
  Append("assay: wall meter marker: 1.000\n" + Row(kNoon, 100));
  EXPECT_EQ(Watts(*meter), "100");
  EXPECT_NE(meter->info().notes.at(0).find("by their arrival"), std::string::npos);
}

TEST_F(WallFile, NamesTheMalformedLineAndGoesOn) {
  Append("time,W\n");
  const auto meter = Open();
  Append(Row(1, 100) + "# fine\n2,overload\n" + Row(3, 101));
  EXPECT_EQ(Watts(*meter), path_.string() + ":4: \"overload\" is no number of watts");
  EXPECT_EQ(Watts(*meter), "100 101");
  Append(std::string(500000, 'x'));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Watts(*meter), "");  // it has not ended
  Append("\n" + Row(4, 102));
  EXPECT_EQ(Watts(*meter), path_.string() + ":6: the line is longer than 4096 bytes");
  EXPECT_EQ(Watts(*meter), "102");
}

TEST_F(WallFile, LearnsWhatToSayOfItself) {
  const auto meter = Open();
  Append("2026-01-01T12:00:00,1\n2026-01-01T12:00:01,1\n2026-01-01T12:00:02,1\n2026-01-01T12:00:03,1\n");
  Append("2026-01-01T12:00:04,1\n2026-01-01T12:00:05,1\n");
  ASSERT_TRUE(meter->Read().ok());
  EXPECT_EQ(meter->info().period_s, 1);  // a silence of a second is none in this log
  EXPECT_NE(meter->info().notes.at(1).find("UTC"), std::string::npos);
}

TEST_F(WallFile, RefusesWhatIsNoLog) {
  const auto why = [](const std::string& place) {
    CaptureStderr();
    const auto opened = OpenWall(place);
    EXPECT_EQ(GetCapturedStderr(), "") << place;
    return opened.ok() ? "opened" : opened.error();
  };
  EXPECT_NE(why("").find("name the analyser's CSV file"), std::string::npos);
  EXPECT_NE(why(folder_).find("is not a file"), std::string::npos);
  EXPECT_NE(why("/dev/null").find("is not a file"), std::string::npos);
  EXPECT_NE(why(folder_ / "none" / "log.csv").find("cannot be reached"), std::string::npos);
  Append("time,P1(W),P2(W)\n1,2,3\n");
  EXPECT_NE(why(path_).find("log.csv:1: the header names 2 columns of power"), std::string::npos);
  std::ofstream(path_) << "{\"json\": 1}\n";
  EXPECT_NE(why(path_).find("log.csv:1:"), std::string::npos);
}

TEST_F(WallFile, RandomBytesNeverCrash) {
  Append("time,W\n");
  const auto meter = Open();
  std::minstd_rand random(3);
  for (int i = 0; i < 300; ++i) {
    std::string bytes(random() % 3000, '\0');
    for (char& c : bytes) c = random() % 3 == 0 ? "\n0123456789.,;-"[random() % 15] : static_cast<char>(random());
    Append(bytes);
    const auto read = meter->Read();
    if (!read.ok()) {
      EXPECT_EQ(read.error().find('\n'), std::string::npos);
    }
  }
}

// A logger that listens on a port of this machine.
class Logger {
 public:
  explicit Logger(uint16_t port = 0) : listener_(socket(AF_INET, SOCK_STREAM, 0)) {
    const int on = 1;
    setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(listener_, 4), 0);
    socklen_t size = sizeof address;
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
  }
  ~Logger() {
    Hang();
    close(listener_);
  }
  void Accept() { peer_ = accept(listener_, nullptr, nullptr); }
  void Send(const std::string& text) {
    EXPECT_EQ(send(peer_, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  void Hang() {
    if (peer_ >= 0) close(peer_);
    peer_ = -1;
  }
  uint16_t port() const { return port_; }

 private:
  int listener_, peer_ = -1;
  uint16_t port_ = 0;
};

Result<std::unique_ptr<Meter>> OpenPort(const std::string& host, uint16_t port) {
  CaptureStderr();
  auto opened = OpenWall("tcp:" + host + ":" + std::to_string(port));
  GetCapturedStderr();
  return opened;
}

// What a meter says until it says something, at most a while.
Result<std::vector<Reading>> Next(Meter& meter, double limit_s = 1) {
  const double until_s = NowSeconds() + limit_s;
  auto read = meter.Read();
  while (read.ok() && read.value().empty() && NowSeconds() < until_s) {
    Pause(0.005);
    read = meter.Read();
  }
  return read;
}

TEST(WallTcp, ReadsReconnectsAndSaysWhenItIsLost) {
  Logger logger;
  auto opened = OpenPort("127.0.0.1", logger.port());
  ASSERT_TRUE(opened.ok()) << opened.error();
  Meter& meter = *opened.value();
  logger.Accept();
  EXPECT_TRUE(meter.Read().value().empty());
  logger.Send("time,W\n1,30");
  logger.Send("0\n");
  auto read = Next(meter);
  ASSERT_TRUE(read.ok()) << read.error();
  ASSERT_EQ(read.value().size(), 1u);
  EXPECT_EQ(read.value()[0].watts, 300);

  logger.Send("garbage\n");
  read = Next(meter);
  ASSERT_FALSE(read.ok());
  EXPECT_NE(read.error().find(":3: \"garbage\""), std::string::npos) << read.error();

  logger.Hang();
  read = Next(meter);
  ASSERT_FALSE(read.ok());
  EXPECT_NE(read.error().find("the connection is lost"), std::string::npos) << read.error();
  EXPECT_TRUE(Next(meter, 0.02).ok());  // connected anew
  logger.Accept();
  logger.Send("W,time\n301,2\n");
  read = Next(meter);
  ASSERT_TRUE(read.ok() && read.value().size() == 1) << read.error();
  EXPECT_EQ(read.value()[0].watts, 301);
}

TEST(WallTcp, TriesAgainOncePerSecond) {
  auto logger = std::make_unique<Logger>();
  const uint16_t port = logger->port();
  auto opened = OpenPort("localhost", port);
  ASSERT_TRUE(opened.ok()) << opened.error();
  logger->Accept();
  logger.reset();
  EXPECT_FALSE(Next(*opened.value()).ok());
  int failures = 0;
  const double begin_s = NowSeconds();
  while (NowSeconds() < begin_s + 0.9) {
    failures += opened.value()->Read().ok() ? 0 : 1;
    Pause(0.01);
  }
  EXPECT_EQ(failures, 1);
}

TEST(WallTcp, RefusesWhatCannotBeReached) {
  uint16_t port = 0;
  { port = Logger().port(); }
  EXPECT_NE(OpenPort("127.0.0.1", port).error().find("no connection: Connection refused"), std::string::npos);
  for (const char* place :
       {"tcp:", "tcp:host", "tcp:host:", "tcp:host:0", "tcp:host:99999", "tcp::1", "tcp:[::1]x:5"}) {
    EXPECT_FALSE(OpenWall(place).ok()) << place;
  }
}

TEST(NetAddress, ReadsNamesAndAddresses) {
  const auto text = [](const std::string& address, const std::string& port) {
    const auto parsed = ParseNetAddress(address, port);
    return parsed.ok() ? parsed.value().host + " " + parsed.value().port + " " + parsed.value().Text() : "none";
  };
  EXPECT_EQ(text("bmc", "443"), "bmc 443 bmc:443");
  EXPECT_EQ(text("10.0.0.2:8443", "443"), "10.0.0.2 8443 10.0.0.2:8443");
  EXPECT_EQ(text("[fe80::1]", "443"), "fe80::1 443 [fe80::1]:443");
  EXPECT_EQ(text("[fe80::1]:80", ""), "fe80::1 80 [fe80::1]:80");
  for (const char* wrong :
       {"", ":80", "bmc:", "bmc:x", "bmc:0", "bmc:65536", "::1", "[::1", "[]:80", "a b:80", "a/b:80"}) {
    EXPECT_EQ(text(wrong, "443"), "none") << wrong;
  }
}

}  // namespace
}  // namespace assay::bench
