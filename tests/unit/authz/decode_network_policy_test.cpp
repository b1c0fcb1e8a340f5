#include "authz/decode_network_policy.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <sstream>

namespace postern {
namespace {

Document document(std::string_view yaml) {
  auto documents = parse_yaml(yaml, "p.yaml");
  if (!documents || documents->size() != 1) {
    ADD_FAILURE() << (documents ? "no single document" : documents.error().text());
    return {};
  }
  return std::move((*documents)[0]);
}

// One policy p in namespace default with the given spec, on one line from line 4 on.
std::string with_spec(const std::string& spec) {
  return "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: " + spec + "\n";
}

NetworkPolicy decoded(const std::string& yaml) {
  const auto policy = decode_network_policy(document(yaml));
  if (!policy) {
    ADD_FAILURE() << policy.error().text();
    return {};
  }
  return *policy;
}

std::string failure(const std::string& yaml) {
  const auto policy = decode_network_policy(document(yaml));
  return policy ? "accepted" : policy.error().text();
}

Port port(std::uint16_t number) { return Port{number}; }

TEST(DecodeNetworkPolicy, ReadsEveryField) {
  const NetworkPolicy policy = decoded(R"(
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: allow
  namespace: shop
  generation: 7
  annotations: {postern.dev/enforcement: audit, other.example/x: z}
spec:
  podSelector: {matchLabels: {app: web}, matchExpressions: [{key: tier, operator: NotIn, values: [a, b]}]}
  policyTypes: [Egress, Ingress]
  ingress:
  - from:
    - podSelector: {matchLabels: {app: front}}
      namespaceSelector: {}
    - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.0/16]}
    ports:
    - {port: 80, endPort: 90}
    - {protocol: UDP, port: dns}
  - {}
  egress:
  - to: [{namespaceSelector: {matchExpressions: [{key: x, operator: Exists}]}}]
status: {}
)");
  EXPECT_EQ(policy.ns, "shop");
  EXPECT_EQ(policy.name, "allow");
  EXPECT_EQ(policy.generation, 7);
  EXPECT_EQ(policy.mode, EnforcementMode::audit);
  EXPECT_EQ(text_of(policy.pod_selector), "app=web,tier notin (a,b)");
  EXPECT_TRUE(policy.isolates_ingress);
  EXPECT_TRUE(policy.isolates_egress);
  ASSERT_EQ(policy.ingress.size(), 2U);
  const PolicyRule& rule = policy.ingress[0];
  ASSERT_EQ(rule.peers.size(), 2U);
  EXPECT_EQ(text_of(*rule.peers[0].pod_selector), "app=front");
  EXPECT_TRUE(rule.peers[0].namespace_selector->empty());
  EXPECT_FALSE(rule.peers[0].ip_block);
  EXPECT_FALSE(rule.peers[1].pod_selector || rule.peers[1].namespace_selector);
  EXPECT_EQ(rule.peers[1].ip_block->cidr.text(), "10.0.0.0/8");
  ASSERT_EQ(rule.peers[1].ip_block->except.size(), 2U);
  EXPECT_EQ(rule.peers[1].ip_block->except[1].text(), "10.2.0.0/16");
  ASSERT_EQ(rule.ports.size(), 2U);
  EXPECT_EQ(rule.ports[0], (PolicyPort{Protocol::tcp, port(80), "", port(90)}));
  EXPECT_EQ(rule.ports[1], (PolicyPort{Protocol::udp, std::nullopt, "dns", std::nullopt}));
  EXPECT_EQ(policy.ingress[1], PolicyRule{});
  ASSERT_EQ(policy.egress.size(), 1U);
  EXPECT_EQ(text_of(*policy.egress[0].peers[0].namespace_selector), "x");
}

TEST(DecodeNetworkPolicy, DefaultsAsTheApiServerDoes) {
  const NetworkPolicy policy = decoded("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n");
  EXPECT_EQ(policy.ns, "default");
  EXPECT_FALSE(policy.mode);
  EXPECT_TRUE(policy.pod_selector.empty());
  EXPECT_TRUE(policy.isolates_ingress);
  EXPECT_FALSE(policy.isolates_egress);
  EXPECT_TRUE(decoded(with_spec("{egress: [{}]}")).isolates_egress);
  EXPECT_FALSE(decoded(with_spec("{egress: []}")).isolates_egress);
  EXPECT_FALSE(decoded(with_spec("{policyTypes: [Egress]}")).isolates_ingress);
  EXPECT_FALSE(decoded(with_spec("{policyTypes: [Ingress], egress: [{}]}")).isolates_egress);
}

TEST(DecodeNetworkPolicy, TakesNullForAbsent) {
  EXPECT_EQ(decoded(with_spec("{podSelector: ~, ingress: ~, egress: ~, policyTypes: ~}")), decoded(with_spec("{}")));
  EXPECT_EQ(decoded(with_spec("{ingress: [{from: ~, ports: [{port: ~, protocol: ~, endPort: ~}]}]}")),
            decoded(with_spec("{ingress: [{ports: [{}]}]}")));
  EXPECT_NE(failure(with_spec("{ingress: [{from: [{podSelector: ~}]}]}")).find("must specify a peer"), std::string::npos);
}

// An API server that drops a mistyped field leaves a policy that allows more than was written.
TEST(DecodeNetworkPolicy, RefusesUnknownFieldsAtEveryLevel) {
  const std::pair<const char*, const char*> slips[] = {
      {"{ingres: []}", "spec.ingres"},
      {"{podselector: {}}", "spec.podselector"},
      {"{ingress: [{form: []}]}", "spec.ingress[0].form"},
      {"{ingress: [{to: []}]}", "spec.ingress[0].to"},
      {"{egress: [{from: []}]}", "spec.egress[0].from"},
      {"{egress: [{}, {port: 80}]}", "spec.egress[1].port"},
      {"{ingress: [{ports: [{Port: 80}]}]}", "spec.ingress[0].ports[0].Port"},
      {"{ingress: [{from: [{podSelector: {}, namespaceselector: {}}]}]}", "spec.ingress[0].from[0].namespaceselector"},
      {"{ingress: [{from: [{podSelector: {matchlabels: {a: b}}}]}]}", "spec.ingress[0].from[0].podSelector.matchlabels"},
      {"{ingress: [{from: [{podSelector: {app: web}}]}]}", "spec.ingress[0].from[0].podSelector.app"},
      {"{ingress: [{from: [{podSelector: {matchExpressions: [{key: a, operator: Exists, value: b}]}}]}]}",
       "spec.ingress[0].from[0].podSelector.matchExpressions[0].value"},
      {"{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, excepts: [10.1.0.0/16]}}]}]}", "spec.ingress[0].from[0].ipBlock.excepts"},
  };
  for (const auto& [spec, path] : slips) {
    EXPECT_NE(failure(with_spec(spec)).find("p.yaml:4: " + std::string(path) + ": unknown field"), std::string::npos)
        << spec << "\n"
        << failure(with_spec(spec));
  }
  const std::string head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n";
  EXPECT_NE(failure(head + "metadata: {name: p}\nspecs: {}\n").find("p.yaml:4: specs: unknown field"), std::string::npos);
  EXPECT_NE(failure(head + "metadata: {name: p, namepsace: x}\n").find("p.yaml:3: metadata.namepsace: unknown field"), std::string::npos);
}

TEST(DecodeNetworkPolicy, RefusesFieldsOfAnotherType) {
  const std::pair<const char*, const char*> slips[] = {
      {"[]", "spec: expected a mapping, found a list"},
      {"{ingress: {}}", "spec.ingress: expected a list, found a mapping"},
      {"{ingress: [x]}", "spec.ingress[0]: expected a mapping, found a string"},
      {"{ingress: [{from: {podSelector: {}}}]}", "spec.ingress[0].from: expected a list, found a mapping"},
      {"{ingress: [{from: [{podSelector: x}]}]}", "spec.ingress[0].from[0].podSelector: expected a mapping, found a string"},
      {"{ingress: [{ports: [80]}]}", "spec.ingress[0].ports[0]: expected a mapping, found an integer"},
      {"{ingress: [{ports: [{port: true}]}]}", "spec.ingress[0].ports[0].port: expected an integer or a string, found a boolean"},
      {"{ingress: [{ports: [{port: 80.5}]}]}", "spec.ingress[0].ports[0].port: expected an integer or a string, found a number"},
      {"{ingress: [{ports: [{port: 80, endPort: \"90\"}]}]}", "spec.ingress[0].ports[0].endPort: expected an integer, found a string"},
      {"{podSelector: {matchLabels: {a: 1}}}",
       "spec.podSelector.matchLabels.a: expected a string, found an integer; put it in quotes: \"1\""},
      {"{podSelector: {matchLabels: {a: yes}}}",
       "spec.podSelector.matchLabels.a: expected a string, found a boolean; put it in quotes: \"yes\""},
      {"{policyTypes: Ingress}", "spec.policyTypes: expected a list, found a string"},
      {"{ingress: [{from: [{ipBlock: 10.0.0.0/8}]}]}", "spec.ingress[0].from[0].ipBlock: expected a mapping, found a string"},
  };
  for (const auto& [spec, message] : slips) {
    EXPECT_NE(failure(with_spec(spec)).find(message), std::string::npos) << spec << "\n" << failure(with_spec(spec));
  }
}

TEST(DecodeNetworkPolicy, ChecksMetadata) {
  const std::string head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: ";
  EXPECT_NE(failure(head + "{}\n").find("metadata.name: Required value"), std::string::npos);
  EXPECT_NE(failure(head + "{name: Upper}\n").find("metadata.name: Invalid value: \"Upper\""), std::string::npos);
  EXPECT_NE(failure(head + "{name: a, namespace: a.b}\n").find("metadata.namespace: Invalid value: \"a.b\""), std::string::npos);
  EXPECT_NE(failure(head + "{name: a, labels: {x: b c}}\n").find("metadata.labels: Invalid value: \"b c\""), std::string::npos);
  EXPECT_NE(
      failure(head + "{name: a, annotations: {postern.dev/enforcement: Audit}}\n")
          .find("p.yaml:3: metadata.annotations[postern.dev/enforcement]: Invalid value: \"Audit\": expected \"audit\" or \"enforce\""),
      std::string::npos);
}

TEST(DecodeNetworkPolicy, ReadsAndChecksReplaces) {
  const auto with = [](const std::string& value) {
    return "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, annotations: {postern.dev/replaces: " + value +
           "}}\n";
  };
  EXPECT_EQ(decoded(with("'b, a.b ,b'")).replaces, (std::vector<std::string>{"a.b", "b"}));
  for (const char* bad : {"''", "'a,'", "Upper", "shop/a", "'a b'"}) {
    EXPECT_NE(failure(with(bad)).find("p.yaml:3: metadata.annotations[postern.dev/replaces]: Invalid value: "), std::string::npos) << bad;
  }
  EXPECT_NE(failure(with("'a,p'"))
                .find("metadata.annotations[postern.dev/replaces]: Invalid value: \"a,p\": expected other policies: "
                      "this one cannot replace itself"),
            std::string::npos);
}

TEST(DecodeNetworkPolicy, NamesSeveralProblemsAtOnce) {
  const std::string text = failure(with_spec("{ingress: [{ports: [{port: 0}, {port: 70000}]}], policyTypes: [x]}"));
  EXPECT_NE(text.find("ports[0].port"), std::string::npos);
  EXPECT_NE(text.find("; also p.yaml:4: spec.ingress[0].ports[1].port"), std::string::npos);
  EXPECT_NE(text.find("policyTypes[0]"), std::string::npos);
}

TEST(DecodeNetworkPolicy, CountsAMappedBlockAsTheApiDoes) {
  EXPECT_NE(failure(with_spec("{ingress: [{from: [{ipBlock: {cidr: \"::ffff:10.0.0.0/104\", except: [10.1.0.0/16]}}]}]}"))
                .find("must be a strict subset"),
            std::string::npos)
      << "16 bits are fewer than 104, whatever the block is called";
  EXPECT_EQ(failure(with_spec("{ingress: [{from: [{ipBlock: {cidr: \"::ffff:10.0.0.0/104\", except: [\"::ffff:10.1.0.0/112\"]}}]}]}")),
            "accepted");
}

// Rows of tests/cases/networkpolicy-validation.yaml.
class ValidationCase : public ::testing::TestWithParam<Node> {};

std::vector<Node> validation_cases() {
  std::ifstream file(POSTERN_SOURCE_DIR "/tests/cases/networkpolicy-validation.yaml");
  std::stringstream text;
  text << file.rdbuf();
  std::vector<Node> out;
  if (auto documents = parse_yaml(text.str(), "networkpolicy-validation.yaml")) {
    for (Document& row : *documents) out.push_back(std::move(row.root));
  }
  return out;
}

Document policy_with(const Node& spec) {
  Document out = document("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}}");
  out.root.fields.emplace_back("spec", spec);
  return out;
}

TEST(NetworkPolicyValidation, HasEveryRow) { EXPECT_EQ(validation_cases().size(), 73U); }

TEST_P(ValidationCase, AgreesWithTheApiServer) {
  const Node& row = GetParam();
  Decoding decoding("p.yaml");
  const Document input = policy_with(*row.find("spec"));
  const NetworkPolicy policy = decode_network_policy(Field(decoding, input.root));

  std::vector<std::string> complaints;
  for (const Error& error : decoding.errors()) complaints.push_back(error.where.substr(error.where.find(": ") + 2) + ": " + error.message);
  const Node* refused = row.find("refused");
  const std::size_t expected = refused == nullptr ? 0 : refused->items.size();
  EXPECT_EQ(complaints.size(), expected) << ::testing::PrintToString(complaints);
  for (std::size_t i = 0; i < expected; ++i) {
    const std::string& start = refused->items[i].scalar;
    EXPECT_TRUE(std::any_of(complaints.begin(), complaints.end(), [&](const std::string& one) { return one.starts_with(start); }))
        << start << "\nnot in " << ::testing::PrintToString(complaints);
  }

  std::vector<std::string> warned;
  for (const Warning& warning : decoding.warnings())
    warned.push_back(warning.where.substr(warning.where.find(": ") + 2) + ": " + warning.message);
  const Node* warnings = row.find("warnings");
  const std::size_t expected_warnings = warnings == nullptr ? 0 : warnings->items.size();
  EXPECT_EQ(warned.size(), expected_warnings) << ::testing::PrintToString(warned);
  for (std::size_t i = 0; i < std::min(expected_warnings, warned.size()); ++i)
    EXPECT_TRUE(warned[i].starts_with(warnings->items[i].scalar)) << warned[i];

  if (const Node* stored = row.find("stored")) {
    const auto kept = decode_network_policy(policy_with(*stored));
    ASSERT_TRUE(kept) << kept.error().text();
    EXPECT_EQ(policy, *kept);
  }
}

INSTANTIATE_TEST_SUITE_P(NetworkPolicy, ValidationCase, ::testing::ValuesIn(validation_cases()), [](const auto& info) {
  std::string name = std::to_string(info.index) + "_";
  for (const char c : info.param.find("name")->scalar) name += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name;
});

TEST(DecodeNetworkPolicy, ReadsAllowedSpiffeIds) {
  const auto with = [](const std::string& value, const std::string& spec = "{podSelector: {}, ingress: [{}]}") {
    return "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, annotations: {postern.dev/allow-spiffe-ids: '" +
           value + "'}}\nspec: " + spec + "\n";
  };
  std::vector<Warning> warnings;
  const auto policy = decode_network_policy(document(with("spiffe://b.example/y, spiffe://a.example/x,spiffe://b.example/y")), &warnings);
  ASSERT_TRUE(policy) << policy.error().text();
  EXPECT_EQ(policy->allow_spiffe_ids, (std::vector<std::string>{"spiffe://a.example/x", "spiffe://b.example/y"}));
  EXPECT_TRUE(warnings.empty());
  EXPECT_NE(failure(with("spiffe://a.example/*")).find("there are no wildcards; list each SPIFFE ID"), std::string::npos);
  EXPECT_NE(failure(with("spiffe://a.example")).find("it names a trust domain; put postern.dev/allow-trust-domain on the namespace"),
            std::string::npos);
  for (const char* bad :
       {"", "a.example/x", "spiffe://A.example/x", "spiffe://a.example/x,", "https://a.example/x", "spiffe://a.example/x/"}) {
    EXPECT_NE(failure(with(bad)).find("p.yaml:3: metadata.annotations[postern.dev/allow-spiffe-ids]: Invalid value: "), std::string::npos)
        << bad;
  }
  for (const char* spec : {"{podSelector: {}}", "{podSelector: {}, policyTypes: [Egress], ingress: [{}]}"}) {
    warnings.clear();
    ASSERT_TRUE(decode_network_policy(document(with("spiffe://a.example/x", spec)), &warnings));
    ASSERT_EQ(warnings.size(), 1U) << spec;
    EXPECT_NE(warnings[0].text().find("allows nobody"), std::string::npos);
  }
}

}  // namespace
}  // namespace postern
