#include "cli/admin_client.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

namespace postern::cli {
namespace {

using ::testing::HasSubstr;

TEST(ParseReply, TakesStatusAndBody) {
  const auto reply = parse_reply("HTTP/1.1 503 Service Unavailable\r\nContent-Type: x\r\nContent-Length: 2\r\n\r\n{}");
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->status, 503);
  EXPECT_EQ(reply->body, "{}");
}

TEST(ParseReply, RefusesWhatIsCutShortOrNoHttp) {
  for (const char* bytes : {"", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", "HTTP/1.1 200 OK\r\n\r\n{}",
                            "HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
                            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}", "SSH-2.0-x\r\n\r\n"}) {
    EXPECT_FALSE(parse_reply(bytes)) << bytes;
  }
}

class AskSidecar : public ::testing::Test {
 protected:
  AskSidecar() {
    std::string name = (std::filesystem::temp_directory_path() / "postern-cli-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    path_ = (folder_ / "admin.sock").string();
  }
  ~AskSidecar() override { std::filesystem::remove_all(folder_); }
  // A listening socket.
  int listening() const {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(::listen(fd, 1), 0);
    return fd;
  }
  std::filesystem::path folder_;
  std::string path_;
};

TEST_F(AskSidecar, SaysWhatToDoWithoutASocket) {
  const auto reply = ask_sidecar(path_, "GET", "/config", "");
  ASSERT_FALSE(reply);
  EXPECT_THAT(reply.error().text(), HasSubstr(path_));
  EXPECT_THAT(reply.error().text(), HasSubstr("listen.adminSocket"));
}

TEST_F(AskSidecar, SaysThatNobodyServesIt) {
  ::close(listening());
  const auto reply = ask_sidecar(path_, "GET", "/config", "");
  ASSERT_FALSE(reply);
  EXPECT_THAT(reply.error().text(), HasSubstr("nobody serves this socket"));
}

TEST_F(AskSidecar, SendsTheRequestAndReturnsTheAnswer) {
  const int listener = listening();
  std::string request;
  std::thread server([&] {
    const int fd = ::accept(listener, nullptr, nullptr);
    char chunk[1024];
    while (request.find("\r\n\r\nbody") == std::string::npos) {
      const ssize_t n = ::recv(fd, chunk, sizeof(chunk), 0);
      if (n <= 0) break;
      request.append(chunk, static_cast<std::size_t>(n));
    }
    const std::string_view answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
    EXPECT_EQ(::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL), static_cast<ssize_t>(answer.size()));
    ::close(fd);
  });
  const auto reply = ask_sidecar(path_, "PUT", "/log-level", "body");
  server.join();
  ::close(listener);
  ASSERT_TRUE(reply) << reply.error().text();
  EXPECT_EQ(reply->body, "hello");
  EXPECT_THAT(request, ::testing::StartsWith("PUT /log-level HTTP/1.1\r\n"));
  EXPECT_THAT(request, HasSubstr("Content-Length: 4\r\n"));
}

}  // namespace
}  // namespace postern::cli
