#include "control/admin.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "cli/admin_client.hpp"

namespace postern {
namespace {

using testing::HasSubstr;

// Answers what a test says, and keeps what it was asked.
struct Backend final : ControlAdminBackend {
  std::string not_ready() override { return missing; }
  std::optional<std::string> metrics() override { return said("postern_control_ready 1\n"); }
  std::optional<std::string> policies_json(std::string_view ns, std::string_view name) override {
    asked = std::string(ns) + "|" + std::string(name);
    return said("{\"policies\":[]}");
  }
  std::optional<std::string> streams_json() override { return said("{\"streams\":[]}"); }
  std::optional<std::string> unconnected_json() override { return said("{\"pods\":[]}"); }
  std::optional<std::string> authority_json() override { return said("{\"authority\":\"\"}"); }
  std::optional<std::string> rotate_authority() override { return refusal; }
  std::string config_yaml() override { return "logLevel: info\n"; }

  std::optional<std::string> said(std::string text) const { return silent ? std::nullopt : std::optional(std::move(text)); }
  std::string missing;
  std::string refusal;
  std::string asked;
  bool silent = false;
};

struct ControlAdminTest : testing::Test {
  ControlAdminTest() {
    config.listen.health = Port{0};
    config.listen.admin_socket = testing::TempDir() + "control_admin_" + std::to_string(::getpid());
    auto started = ControlAdmin::start(config, backend, log);
    EXPECT_TRUE(started);
    admin = *std::move(started);
  }
  cli::AdminReply ask(std::string_view method, std::string_view path, std::string_view body = {}) {
    return cli::ask_sidecar(config.listen.admin_socket, method, path, body).value();
  }
  cli::AdminReply ask_health(std::string_view method, std::string_view path) {
    return cli::ask_control("127.0.0.1:" + std::to_string(admin->health_port().number), method, path).value();
  }

  ControlConfig config;
  Backend backend;
  Log log{LogLevel::error};
  std::unique_ptr<ControlAdmin> admin;
};

TEST_F(ControlAdminTest, EveryRouteAnswers) {
  for (const auto& [path, body] : {std::pair{"/healthz", "ok"}, std::pair{"/readyz", "ready"},
                                   std::pair{"/metrics", "postern_control_ready"}, std::pair{"/policies", "policies"},
                                   std::pair{"/streams", "streams"}, std::pair{"/unconnected", "pods"}, std::pair{"/ca", "authority"}}) {
    for (const cli::AdminReply& reply : {ask("GET", path), ask_health("GET", path)}) {
      EXPECT_EQ(reply.status, 200) << path;
      EXPECT_THAT(reply.body, HasSubstr(body)) << path;
    }
  }
  EXPECT_EQ(ask("GET", "/config").body, "logLevel: info\n");
}

TEST_F(ControlAdminTest, TheHealthPortOnlyReadsAndShowsNoConfiguration) {
  EXPECT_EQ(ask_health("GET", "/config").status, 404);
  EXPECT_EQ(ask_health("PUT", "/log-level").status, 404);
}

TEST_F(ControlAdminTest, NotReadySaysWhatIsMissing) {
  backend.missing = "the cluster has not been read yet";
  EXPECT_EQ(ask_health("GET", "/readyz").status, 503);
  EXPECT_THAT(ask_health("GET", "/readyz").body, HasSubstr("the cluster has not been read yet"));
  EXPECT_EQ(ask_health("GET", "/healthz").status, 200) << "it runs";
}

TEST_F(ControlAdminTest, AQueryNarrowsPolicies) {
  ask("GET", "/policies?namespace=shop&name=web");
  EXPECT_EQ(backend.asked, "shop|web");
  ask("GET", "/policies?name=web&other=x&namespace=");
  EXPECT_EQ(backend.asked, "|web");
}

TEST_F(ControlAdminTest, ABusyControlThreadIsAnErrorOfItsOwn) {
  backend.silent = true;
  for (const char* path : {"/metrics", "/policies", "/streams", "/unconnected"}) {
    EXPECT_EQ(ask("GET", path).status, 503) << path;
    EXPECT_THAT(ask("GET", path).body, HasSubstr("within a second")) << path;
  }
}

TEST_F(ControlAdminTest, ARotationIsBegunOrRefusedOnTheSocketOnly) {
  EXPECT_EQ(ask("POST", "/ca/rotate").status, 202);
  backend.refusal = "one is under way";
  EXPECT_EQ(ask("POST", "/ca/rotate").status, 409);
  EXPECT_THAT(ask("POST", "/ca/rotate").body, HasSubstr("one is under way"));
  EXPECT_EQ(ask_health("POST", "/ca/rotate").status, 404);
}

TEST_F(ControlAdminTest, UnknownPathsAndMethodsAreToldWhatThereIs) {
  EXPECT_EQ(ask("GET", "/nonsense").status, 404);
  EXPECT_THAT(ask("GET", "/nonsense").body, HasSubstr("GET /policies"));
  EXPECT_EQ(ask("PUT", "/policies").status, 405);
  EXPECT_THAT(ask("PUT", "/policies").body, HasSubstr("expected GET"));
}

TEST_F(ControlAdminTest, TheLogLevelIsOneOfFour) {
  EXPECT_EQ(ask("PUT", "/log-level", R"({"level":"warning"})").status, 200);
  for (const char* bad : {"", "{}", R"({"level":"loud"})", R"({"level":"info","more":1})", "[1]"}) {
    EXPECT_EQ(ask("PUT", "/log-level", bad).status, 400) << bad;
  }
}

}  // namespace
}  // namespace postern
