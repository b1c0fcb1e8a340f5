#include "authz/decode_namespace.hpp"

#include <gtest/gtest.h>

namespace postern {
namespace {

Document document(const std::string& yaml) {
  auto documents = parse_yaml(yaml, "ns.yaml");
  if (!documents || documents->size() != 1) {
    ADD_FAILURE() << (documents ? "no single document" : documents.error().text());
    return {};
  }
  return std::move((*documents)[0]);
}

std::string failure(const std::string& yaml) {
  const auto ns = decode_namespace(document(yaml));
  return ns ? "accepted" : ns.error().text();
}

TEST(DecodeNamespace, ReadsLabelsAndModes) {
  const auto ns = decode_namespace(
      document("metadata: {name: shop, labels: {team: a}, annotations: {postern.dev/enforcement: enforce, postern.dev/mtls: permissive}}"));
  ASSERT_TRUE(ns) << ns.error().text();
  EXPECT_EQ(ns->name, "shop");
  EXPECT_EQ(ns->labels, (Labels{{"kubernetes.io/metadata.name", "shop"}, {"team", "a"}}));
  EXPECT_EQ(ns->mode, EnforcementMode::enforce);
  EXPECT_EQ(ns->mtls, MtlsMode::permissive);
}

TEST(DecodeNamespace, RefusesBadOnes) {
  EXPECT_NE(failure("metadata: {name: a.b}").find("metadata.name: Invalid value: \"a.b\""), std::string::npos);
  EXPECT_NE(failure("metadata: {name: a, labels: {'/x': z}}").find("prefix part must be non-empty"), std::string::npos);
  EXPECT_NE(failure("metadata: {name: a, annotations: {postern.dev/enforcement: 'on'}}").find("expected \"audit\" or \"enforce\""),
            std::string::npos);
  EXPECT_NE(failure("metadata: {name: a, annotations: {postern.dev/mtls: '80=strict'}}").find("names no ports"), std::string::npos);
}

TEST(DecodeNamespace, ReadsAllowedTrustDomains) {
  const auto with = [](const std::string& value) {
    return "metadata: {name: shop, annotations: {postern.dev/allow-trust-domain: '" + value + "'}}";
  };
  const auto ns = decode_namespace(document(with("partner.example, a.example,partner.example")));
  ASSERT_TRUE(ns) << ns.error().text();
  EXPECT_EQ(ns->allow_trust_domains, (std::vector<std::string>{"a.example", "partner.example"}));
  for (const char* bad : {"", "Partner.example", "spiffe://partner.example", "*", "*.example", "a b", "a.example,", "a.example/x"}) {
    EXPECT_NE(failure(with(bad)).find("metadata.annotations[postern.dev/allow-trust-domain]: Invalid value: "), std::string::npos) << bad;
  }
  std::string many;
  for (int i = 0; i < 65; ++i) many += (i == 0 ? "d" : ",d") + std::to_string(i);
  EXPECT_NE(failure(with(many)).find("at most 64 of them; found 65"), std::string::npos);
}

TEST(DecodeNode, ReadsAddressesAndBlocks) {
  const auto node =
      decode_node(document("metadata: {name: node-1}\nspec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24, 'fd00:1::/64']}\n"
                           "status: {addresses: [{type: InternalIP, address: 192.168.0.1}, {type: Hostname, address: node-1}, {type: "
                           "ExternalIP, address: 203.0.113.1}]}\n"));
  ASSERT_TRUE(node) << node.error().text();
  EXPECT_EQ(node->name, "node-1");
  ASSERT_EQ(node->addresses.size(), 2U);
  EXPECT_EQ(node->addresses[1].text(), "203.0.113.1");
  ASSERT_EQ(node->pod_cidrs.size(), 2U);
  EXPECT_EQ(node->pod_cidrs[1].text(), "fd00:1::/64");
  EXPECT_EQ(decode_node(document("metadata: {name: node}\nspec: {podCIDR: 10.244.1.0/24}")).value().pod_cidrs.size(), 1U);
  EXPECT_FALSE(decode_node(document("metadata: {name: node}\nspec: {podCIDR: x}")));
  EXPECT_FALSE(decode_node(document("metadata: {name: node}\nstatus: {addresses: [{type: InternalIP, address: x}]}")));
}

}  // namespace
}  // namespace postern
