#include "control/kube_client.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <optional>

#include "tests/unit/control/fake_api.hpp"

namespace postern {
namespace {

using test::Answer;
using test::FakeApi;
using test::json;
using testing::HasSubstr;

class KubeClientTest : public testing::Test {
 protected:
  Result<KubeResponse> ask(KubeClient& client, KubeRequest request) {
    std::optional<Result<KubeResponse>> out;
    auto asking = ask_into(client, std::move(request), out);
    boost::asio::co_spawn(io_, std::move(asking), boost::asio::detached);
    EXPECT_TRUE(test::run_until(io_, [&] { return out.has_value(); }));
    return out.value_or(Error{"it did not end", {}});
  }
  static boost::asio::awaitable<void> ask_into(KubeClient& client, KubeRequest request, std::optional<Result<KubeResponse>>& out) {
    out = co_await client.request(std::move(request));
  }
  static KubeRequest get(std::string path = "/api/v1/nodes") {
    KubeRequest request;
    request.path = std::move(path);
    return request;
  }
  static KubeRequest post() {
    KubeRequest request;
    request.method = KubeMethod::post;
    request.path = "/api/v1/nodes";
    request.body = "{}";
    return request;
  }
  boost::asio::io_context io_{1};
};

TEST_F(KubeClientTest, AsksOnOneConnectionWithTheToken) {
  FakeApi api({json("{}"), json("{\"a\":1}", 201)});
  KubeClient client(io_, api.config());
  EXPECT_EQ(ask(client, get())->status, 200U);
  const auto response = ask(client, post());
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 201U);
  EXPECT_EQ(response->body, "{\"a\":1}");
  EXPECT_EQ(api.connections(), 1U);
  ASSERT_EQ(api.requests().size(), 2U);
  EXPECT_THAT(api.requests()[0], testing::AllOf(HasSubstr("GET /api/v1/nodes HTTP/1.1"), HasSubstr("Authorization: Bearer secret"),
                                                HasSubstr("Host: 127.0.0.1")));
  EXPECT_THAT(api.requests()[1], HasSubstr("Content-Type: application/json"));
}

TEST_F(KubeClientTest, RefusesACertificateOfAnotherNameOrAuthority) {
  FakeApi api({json("{}"), json("{}")});
  FakeApi other({});
  KubeConfig wrong_name = api.config();
  wrong_name.server_name = "127.0.0.1";
  KubeClient first(io_, wrong_name);
  EXPECT_THAT(ask(first, get()).error().text(),
              testing::AllOf(HasSubstr("certificate is refused: IP address mismatch"), HasSubstr("127.0.0.1")));
  KubeConfig wrong_authority = api.config();
  wrong_authority.authority = other.config().authority;
  KubeClient second(io_, wrong_authority);
  EXPECT_THAT(ask(second, get()).error().text(), HasSubstr("certificate is refused"));
  EXPECT_TRUE(api.requests().empty());
}

TEST_F(KubeClientTest, ReadsATokenThatWasReplaced) {
  const std::string path = testing::TempDir() + "kube_client_token_" + std::to_string(getpid());
  test::write_file(path, "one\n");
  FakeApi api({json("{}"), json("{}", 401), json("{}")});
  KubeConfig config = api.config();
  config.token.text.clear();
  config.token.file = path;
  KubeClient client(io_, config);
  ASSERT_TRUE(ask(client, get()));
  test::write_file(path, "two\n");
  // Looked at once a second; a refusal says that now is the time.
  ASSERT_TRUE(ask(client, get()));
  ASSERT_TRUE(ask(client, get()));
  EXPECT_THAT(api.requests()[0], HasSubstr("Bearer one\r\n"));
  EXPECT_THAT(api.requests()[2], HasSubstr("Bearer two\r\n"));
  EXPECT_EQ(client.stats().reloads, 1U);
  std::remove(path.c_str());
}

TEST_F(KubeClientTest, AsksAgainWhereAnIdleConnectionHadDied) {
  Answer then_cut = json("{}");
  then_cut.then = Answer::Then::cut;
  FakeApi api({then_cut, json("{\"a\":1}")});
  KubeClient client(io_, api.config());
  ASSERT_TRUE(ask(client, get()));
  const auto response = ask(client, get());
  ASSERT_TRUE(response) << response.error().text();
  EXPECT_EQ(response->body, "{\"a\":1}");
  EXPECT_EQ(api.connections(), 2U);
}

TEST_F(KubeClientTest, NeverSendsAPostTwice) {
  Answer then_cut = json("{}");
  then_cut.then = Answer::Then::cut;
  FakeApi api({then_cut, json("{}")});
  KubeClient client(io_, api.config());
  ASSERT_TRUE(ask(client, get()));
  EXPECT_FALSE(ask(client, post()));
  EXPECT_EQ(api.requests().size(), 1U);
}

TEST_F(KubeClientTest, BoundsTheAnswerAndTheTime) {
  FakeApi api({json(std::string(5000, 'x')), Answer{.bytes = {}, .then = Answer::Then::silence}});
  KubeClient client(io_, api.config());
  KubeRequest small = get();
  small.body_bytes = 4999;
  EXPECT_THAT(ask(client, small).error().text(), HasSubstr("longer than 4999 bytes"));
  KubeRequest quick = get();
  quick.deadline = std::chrono::milliseconds(50);
  EXPECT_THAT(ask(client, quick).error().text(), HasSubstr("no answer in time"));
  EXPECT_EQ(client.stats().failures, 2U);
}

TEST_F(KubeClientTest, SaysWhatCouldNotBeReached) {
  KubeConfig config;
  {
    FakeApi gone({});
    config = gone.config();
  }
  KubeClient client(io_, config);
  EXPECT_THAT(ask(client, get("/api/v1/pods?limit=1")).error().text(),
              HasSubstr("GET /api/v1/pods: https://127.0.0.1:" + std::to_string(config.port) + ": cannot connect"));
}

TEST_F(KubeClientTest, AfterCloseThereIsNoAnswer) {
  FakeApi api({Answer{.bytes = {}, .then = Answer::Then::silence}});
  KubeClient client(io_, api.config());
  std::optional<Result<KubeResponse>> out;
  auto asking = ask_into(client, get(), out);
  boost::asio::co_spawn(io_, std::move(asking), boost::asio::detached);
  ASSERT_TRUE(test::run_until(io_, [&] { return api.requests().size() == 1; }));
  client.close();
  ASSERT_TRUE(test::run_until(
      io_, [&] { return out.has_value(); }, std::chrono::seconds(5)));
  EXPECT_FALSE(*out);
  EXPECT_FALSE(ask(client, get()));
}

TEST(RefusalOf, QuotesTheServer) {
  KubeRequest request;
  request.path = "/api/v1/pods?limit=5";
  KubeResponse response;
  response.status = 403;
  response.body = R"({"kind":"Status","reason":"Forbidden","message":"pods is forbidden"})";
  EXPECT_EQ(refusal_of(request, response).text(), "GET /api/v1/pods: 403 Forbidden: pods is forbidden");
  response.body = "<html>";
  EXPECT_EQ(refusal_of(request, response).text(), "GET /api/v1/pods: 403");
}

}  // namespace
}  // namespace postern
