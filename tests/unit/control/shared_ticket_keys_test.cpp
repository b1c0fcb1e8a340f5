#include "control/shared_ticket_keys.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/base64.hpp"
#include "tests/unit/control/fake_api.hpp"

namespace postern {
namespace {

using test::Answer;
using test::FakeApi;
using test::json;
using testing::HasSubstr;

const std::string not_found = R"({"kind":"Status","code":404,"message":"secrets not found"})";

std::string secret_of(const std::string& keys) {
  return R"({"kind":"Secret","metadata":{"name":"keys","resourceVersion":"7"},"data":{"keys":")" + to_base64(keys) + "\"}}";
}

struct SharedTicketKeysTest : testing::Test {
  // Runs against these answers until keys are in use or `requests` have been made.
  void run(std::vector<Answer> answers, std::size_t requests) {
    api.emplace(std::move(answers));
    client.emplace(io, api->config());
    shared.emplace(io, *client, SharedTicketKeysSettings{"postern-system", "keys", std::chrono::hours(12)}, log,
                   [this](TicketKeys keys) { used.push_back(std::move(keys)); });
    shared->start();
    EXPECT_TRUE(test::run_until(io, [&] { return api->requests().size() >= requests && (!used.empty() || requests == 1); }));
    io.restart();
    io.run_for(std::chrono::milliseconds(50));
  }
  ~SharedTicketKeysTest() override {
    if (client) client->close();
  }

  boost::asio::io_context io{1};
  Log log{LogLevel::error};
  std::optional<FakeApi> api;
  std::optional<KubeClient> client;
  std::optional<SharedTicketKeys> shared;
  std::vector<TicketKeys> used;
  TicketKeyRing theirs{{std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now()), TicketKey::make().value()}};
};

TEST_F(SharedTicketKeysTest, TheFirstReplicaMakesThem) {
  run({json(not_found, 404), json("{}", 201)}, 2);
  ASSERT_EQ(used.size(), 1U);
  EXPECT_EQ(used[0].keys.size(), 1U);
  EXPECT_TRUE(shared->shared());
  EXPECT_THAT(api->requests()[1], HasSubstr("POST /api/v1/namespaces/postern-system/secrets "));
}

TEST_F(SharedTicketKeysTest, WhoComesSecondTakesThoseOfTheFirst) {
  run({json(not_found, 404), json("{}", 409), json(secret_of(encode_ticket_keys(theirs)))}, 3);
  ASSERT_EQ(used.size(), 1U);
  EXPECT_EQ(used[0].keys.at(0), theirs[0].key);
}

TEST_F(SharedTicketKeysTest, AnOldKeyGetsASuccessorAtTheVersionThatWasRead) {
  theirs[0].made -= std::chrono::hours(13);
  run({json(secret_of(encode_ticket_keys(theirs))), json("{}")}, 2);
  ASSERT_EQ(used.size(), 1U);
  ASSERT_EQ(used[0].keys.size(), 2U);
  EXPECT_EQ(used[0].keys[1], theirs[0].key);
  EXPECT_EQ(used[0].seals, 1U) << "others do not know the new one yet";
  EXPECT_THAT(api->requests()[1], HasSubstr("PUT /api/v1/namespaces/postern-system/secrets/keys "));
}

TEST_F(SharedTicketKeysTest, WhatCannotBeReadIsLeftAsItIs) {
  run({json(secret_of("what is this"))}, 1);
  EXPECT_TRUE(used.empty());
  EXPECT_FALSE(shared->shared());
  EXPECT_EQ(api->requests().size(), 1U);
}

TEST_F(SharedTicketKeysTest, WithoutThePermissionNothingIsShared) {
  run({json(R"({"kind":"Status","code":403,"message":"forbidden"})", 403)}, 1);
  EXPECT_TRUE(used.empty());
  EXPECT_FALSE(shared->shared());
}

}  // namespace
}  // namespace postern
