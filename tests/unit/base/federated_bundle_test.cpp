#include "base/federated_bundle.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace postern {
namespace {

using config_value::FederatedBundleList;
using config_value::FederatedFileList;
using testing::HasSubstr;

Node node_of(const std::string& yaml) { return parse_yaml(yaml, "test.yaml").value().at(0).root; }

std::string error_of(const std::string& yaml) {
  const auto read = FederatedBundleList::read(node_of(yaml));
  return read ? "accepted" : read.error().message;
}

constexpr const char* every_kind =
    "[{trustDomain: a.example, bundle: /a.pem},"
    " {trustDomain: b.example, endpoint: 'https://b.example:8443/bundle', profile: https_web},"
    " {trustDomain: c.example, endpoint: 'https://c.example', profile: https_web, endpointRoots: /roots.pem},"
    " {trustDomain: d.example, endpoint: 'https://d.example', profile: https_spiffe, endpointSpiffeId: 'spiffe://d.example/server',"
    "  endpointBundle: /d.json}]";

TEST(FederatedBundleList, IsReadAndPrintedAsItself) {
  const auto read = FederatedBundleList::read(node_of(every_kind));
  ASSERT_TRUE(read) << read.error().text();
  ASSERT_EQ(read->size(), 4U);
  EXPECT_EQ(read->at(0).file, "/a.pem");
  EXPECT_EQ(read->at(1).url, (HttpsUrl{"b.example", 8443, "/bundle"}));
  EXPECT_EQ(read->at(2).endpoint_roots, "/roots.pem");
  EXPECT_EQ(read->at(3).profile, FederatedBundle::Profile::https_spiffe);
  EXPECT_EQ(read->at(3).endpoint_id.text(), "spiffe://d.example/server");
  EXPECT_EQ(FederatedBundleList::read(node_of(FederatedBundleList::print(*read))).value(), *read);
  EXPECT_EQ(FederatedBundleList::print({}), "[]");
}

TEST(FederatedBundleList, IsRefusedWithItemFieldAndRemedy) {
  const std::string web = "[{trustDomain: a.example, endpoint: 'https://a.example', profile: https_web";
  const std::string spiffe = "[{trustDomain: a.example, endpoint: 'https://a.example', profile: https_spiffe";
  const std::vector<std::pair<std::string, std::string>> cases{
      {"{}", "expected a list such as"},
      {"[x]", "item 1: expected a list such as"},
      {"[{bundle: /a}]", "item 1: trustDomain: "},
      {"[{trustDomain: A, bundle: /a}]", "item 1: trustDomain: "},
      {"[{trustDomain: 'spiffe://a', bundle: /a}]", "item 1: trustDomain: "},
      {"[{trustDomain: a}]", "item 1: bundle: expected either bundle, a file, or endpoint, an https URL"},
      {"[{trustDomain: a, bundle: /a, endpoint: 'https://a'}]", "item 1: bundle: expected either"},
      {"[{trustDomain: a, bundle: ''}]", "item 1: bundle: expected a text that is not empty"},
      {"[{trustDomain: a, bundle: [x]}]", "item 1: bundle: expected a text that is not empty; found a "},
      {"[{trustDomain: a, bundel: /a}]", "item 1: \"bundel\": unknown field; did you mean bundle?"},
      {"[{trustDomain: a, bundle: /a, profile: https_web}]", "item 1: profile: only with an endpoint"},
      {"[{trustDomain: a, bundle: /a}, {trustDomain: a, bundle: /b}]", "item 2: trustDomain: a is in the list already"},
      {"[{trustDomain: a, endpoint: 'http://a', profile: https_web}]",
       "item 1: endpoint: a bundle is fetched over TLS only; write https://"},
      {"[{trustDomain: a, endpoint: 'https://u@a', profile: https_web}]", "item 1: endpoint: expected https://HOST"},
      {"[{trustDomain: a, endpoint: 'https://a'}]", "item 1: profile: expected https_web or https_spiffe"},
      {"[{trustDomain: a, endpoint: 'https://a', profile: web}]", "item 1: profile: expected https_web or https_spiffe"},
      {web + ", endpointSpiffeId: 'spiffe://a.example/x'}]", "item 1: endpointSpiffeId: only with profile: https_spiffe"},
      {web + ", endpointBundle: /a}]", "item 1: endpointBundle: only with profile: https_spiffe"},
      {spiffe + "}]", "item 1: endpointSpiffeId: expected the SPIFFE ID of the endpoint"},
      {spiffe + ", endpointSpiffeId: 'spiffe://a.example/*', endpointBundle: /a}]", "item 1: endpointSpiffeId: expected the SPIFFE ID"},
      {spiffe + ", endpointSpiffeId: 'spiffe://a.example/x'}]", "item 1: endpointBundle: missing"},
      {spiffe + ", endpointSpiffeId: 'spiffe://a.example/x', endpointBundle: /a, endpointRoots: /r}]", "item 1: endpointRoots: only with"},
  };
  for (const auto& [yaml, expected] : cases) EXPECT_THAT(error_of(yaml), HasSubstr(expected)) << yaml;
  std::string many = "[";
  for (int i = 0; i < 65; ++i) many += (i == 0 ? "" : ", ") + std::string("{trustDomain: d") + std::to_string(i) + ", bundle: /a}";
  EXPECT_THAT(error_of(many + "]"), HasSubstr("at most 64 trust domains; found 65"));
}

TEST(FederatedFileList, HasFilesOnly) {
  EXPECT_TRUE(FederatedFileList::read(node_of("[{trustDomain: a, bundle: /a}]")));
  const auto fetched = FederatedFileList::read(node_of("[{trustDomain: a, endpoint: 'https://a', profile: https_web}]"));
  ASSERT_FALSE(fetched);
  EXPECT_THAT(fetched.error().message, HasSubstr("a sidecar fetches nothing; let postern-control fetch it"));
}

TEST(FederatedBundles, AreNotOfTheOwnTrustDomain) {
  const auto read = FederatedFileList::read(node_of("[{trustDomain: a.example, bundle: /a}]"));
  EXPECT_TRUE(check_federated_bundles(*read, TrustDomain::parse("b.example").value(), "federatedBundles"));
  const auto own = check_federated_bundles(*read, TrustDomain::parse("a.example").value(), "federatedBundles");
  ASSERT_FALSE(own);
  EXPECT_EQ(own.error().where, "federatedBundles");
  EXPECT_THAT(own.error().message, HasSubstr("own trust domain"));
}

}  // namespace
}  // namespace postern
