#include "authz/kubernetes_names.hpp"

#include <gtest/gtest.h>

namespace postern {
namespace {

const std::string k63(63, 'a');

TEST(KubernetesNames, LabelKeys) {
  for (const std::string& good : {std::string("a"), std::string("A.b_c-9"), std::string("example.com/name"), k63, "a/" + k63}) {
    EXPECT_TRUE(label_key_faults(good).empty()) << good;
  }
  for (const std::string& bad :
       {std::string(), std::string("-a"), std::string("a-"), std::string("a b"), std::string("/a"), std::string("a/"), std::string("a/b/c"),
        std::string("Ex.com/a"), std::string("a..b/c"), std::string("\xC3\xA9"), k63 + "a", std::string(254, 'a') + "/b"}) {
    EXPECT_FALSE(label_key_faults(bad).empty()) << bad;
  }
}

TEST(KubernetesNames, LabelValues) {
  for (const std::string& good : {std::string(), std::string("a"), std::string("A.b_c-9"), k63})
    EXPECT_TRUE(label_value_faults(good).empty()) << good;
  for (const std::string& bad :
       {std::string("-"), std::string(".a"), std::string("a_"), std::string("a/b"), std::string("a\n"), k63 + "a"}) {
    EXPECT_FALSE(label_value_faults(bad).empty()) << bad;
  }
}

TEST(KubernetesNames, DnsNames) {
  EXPECT_TRUE(dns_label_faults("a-1").empty());
  EXPECT_TRUE(dns_label_faults(k63).empty());
  for (const std::string& bad :
       {std::string(), std::string("A"), std::string("a.b"), std::string("-a"), std::string("a-"), std::string("a_b"), k63 + "a"}) {
    EXPECT_FALSE(dns_label_faults(bad).empty()) << bad;
  }
  EXPECT_TRUE(dns_subdomain_faults("a.b-c.9").empty());
  EXPECT_TRUE(dns_subdomain_faults(std::string(253, 'a')).empty());
  for (const std::string& bad : {std::string(), std::string("."), std::string("a."), std::string(".a"), std::string("a..b"),
                                 std::string("a.-b"), std::string(254, 'a')}) {
    EXPECT_FALSE(dns_subdomain_faults(bad).empty()) << bad;
  }
}

TEST(KubernetesNames, PortNames) {
  for (const char* good : {"a", "http", "1a", "a-b-c", "aaaaaaaaaaaaaaa"}) EXPECT_TRUE(port_name_faults(good).empty()) << good;
  for (const char* bad : {"", "80", "A", "a--b", "-a", "a-", "a_b", "a.b", "aaaaaaaaaaaaaaaa"})
    EXPECT_FALSE(port_name_faults(bad).empty()) << bad;
}

}  // namespace
}  // namespace postern
