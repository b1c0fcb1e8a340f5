#include "control/kube_config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/kit/test_authority.hpp"

namespace postern {
namespace {

using test::write_file;
using testing::HasSubstr;

class KubeConfigTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "kube_config_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  Result<KubeConfig> load(const std::string& text) {
    write_file(folder_ + "/config", text);
    return load_kubeconfig(folder_ + "/config");
  }
  // A kubeconfig with these fields of its cluster and user.
  Result<KubeConfig> load(const std::string& cluster, const std::string& user) {
    return load(
        "current-context: here\ncontexts:\n- name: other\n  context: {cluster: no, user: no}\n- name: here\n  context: {cluster: c, user: "
        "u}\n"
        "clusters:\n- name: c\n  cluster: {" +
        cluster + "}\nusers:\n- name: u\n  user: {" + user + "}\n");
  }
  std::string refusal(const std::string& cluster, const std::string& user = "token: t") {
    const auto config = load(cluster, user);
    return config ? "accepted" : config.error().text();
  }
  std::string folder_;
};

TEST_F(KubeConfigTest, ReadsWhatTheCurrentContextNames) {
  write_file(folder_ + "/ca.crt", "authority");
  const auto config =
      load("server: 'https://[fd00::1]:6443/k8s/', certificate-authority: ca.crt, tls-server-name: api", "token: ' secret '");
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(config->host, "fd00::1");
  EXPECT_EQ(config->port, 6443);
  EXPECT_EQ(config->base_path, "/k8s");
  EXPECT_EQ(config->server_name, "api");
  EXPECT_EQ(config->authority.file, folder_ + "/ca.crt") << "beside the kubeconfig";
  EXPECT_EQ(config->token.text, "secret");
}

TEST_F(KubeConfigTest, TakesDataBeforeFiles) {
  const auto config = load("server: 'https://api.example.org', certificate-authority-data: YXV0aG9yaXR5, certificate-authority: /nowhere",
                           "client-certificate-data: Y2VydA==, client-key-data: a2V5");
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(config->host, "api.example.org");
  EXPECT_EQ(config->port, 443);
  EXPECT_EQ(config->server_name, "api.example.org");
  EXPECT_EQ(config->authority.text, "authority");
  EXPECT_EQ(config->client_certificate.text, "cert");
  EXPECT_EQ(config->client_key.text, "key");
}

TEST_F(KubeConfigTest, ATokenFileIsReadWhenItIsNeeded) {
  write_file(folder_ + "/token", "one\n");
  const auto config = load("server: 'https://h'", "token: other, tokenFile: token");
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(*config->token.read(), "one\n");
  write_file(folder_ + "/token", "two");
  EXPECT_EQ(*config->token.read(), "two");
}

TEST_F(KubeConfigTest, RefusesWhatWouldWeakenTheCheckOfTheServer) {
  EXPECT_THAT(refusal("server: 'https://h', insecure-skip-tls-verify: true"),
              testing::AllOf(HasSubstr("insecure-skip-tls-verify"), HasSubstr("certificate-authority")));
  EXPECT_THAT(refusal("server: 'http://h'"), HasSubstr("https://"));
}

TEST_F(KubeConfigTest, NamesTheFieldAndTheRemedy) {
  EXPECT_THAT(refusal("server: h"),
              testing::AllOf(HasSubstr(folder_ + "/config:"), HasSubstr("cluster.server"), HasSubstr("https://HOST")));
  EXPECT_THAT(refusal("server: 'https://h:0'"), HasSubstr("port"));
  EXPECT_THAT(refusal("server: 'https://u@h'"), HasSubstr("without user"));
  EXPECT_THAT(refusal("server: 'https://h?x'"), HasSubstr("without user, query"));
  EXPECT_THAT(refusal("server: 'https://h', certificate-authority: missing.crt"), HasSubstr("missing.crt: cannot be opened"));
  EXPECT_THAT(refusal("server: 'https://h', certificate-authority-data: '%'"), HasSubstr("expected base64"));
  EXPECT_THAT(refusal("server: 'https://h', proxy-url: 'http://p'"), HasSubstr("proxy-url"));
  EXPECT_THAT(refusal("server: 'https://h'", "exec: {command: aws}"), testing::AllOf(HasSubstr("user.exec"), HasSubstr("token")));
  EXPECT_THAT(refusal("server: 'https://h'", "username: a"), HasSubstr("user.username"));
  EXPECT_THAT(refusal("server: 'https://h'", "client-certificate-data: Y2VydA=="), HasSubstr("client-key is missing"));
}

TEST_F(KubeConfigTest, NamesWhatIsMissing) {
  EXPECT_THAT(load("apiVersion: v1\n").error().text(), HasSubstr("current-context"));
  EXPECT_THAT(load("current-context: a\ncontexts: []\n").error().text(), HasSubstr("no entry named \"a\" in contexts"));
  EXPECT_THAT(load("current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n").error().text(),
              HasSubstr("no entry named \"c\" in clusters"));
  EXPECT_THAT(load("a: [").error().text(), HasSubstr(folder_ + "/config:1"));
  EXPECT_THAT(load_kubeconfig(folder_ + "/none").error().text(), HasSubstr("expected a kubeconfig file"));
}

TEST_F(KubeConfigTest, InAClusterItTakesWhatEveryPodHas) {
  write_file(folder_ + "/token", "t");
  write_file(folder_ + "/ca.crt", "c");
  const auto config = in_cluster_config({{"KUBERNETES_SERVICE_HOST", "10.96.0.1"}, {"KUBERNETES_SERVICE_PORT", "443"}}, folder_);
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(config->host, "10.96.0.1");
  EXPECT_EQ(config->server_name, "10.96.0.1");
  EXPECT_EQ(config->token.file, folder_ + "/token");
  EXPECT_EQ(config->authority.file, folder_ + "/ca.crt");
}

TEST_F(KubeConfigTest, OutsideAClusterItSaysSo) {
  EXPECT_THAT(in_cluster_config({}, folder_).error().text(), HasSubstr("--kubeconfig"));
  EXPECT_THAT(in_cluster_config({{"KUBERNETES_SERVICE_HOST", "h"}, {"KUBERNETES_SERVICE_PORT", "x"}}, folder_).error().text(),
              HasSubstr("between 1 and 65535"));
  EXPECT_THAT(in_cluster_config({{"KUBERNETES_SERVICE_HOST", "h"}, {"KUBERNETES_SERVICE_PORT", "1"}}, folder_).error().text(),
              HasSubstr("automountServiceAccountToken"));
}

}  // namespace
}  // namespace postern
