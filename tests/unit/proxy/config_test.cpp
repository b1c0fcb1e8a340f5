#include "proxy/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "proxy/config_fields.hpp"

namespace postern {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

std::string error_of(std::string_view yaml) {
  const auto config = parse_config(yaml, "postern.yaml");
  return config ? "accepted" : config.error().text();
}

TEST(ParseConfig, EmptyTextGivesTheDefaults) {
  const auto config = parse_config("", "postern.yaml");
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(print_config(*config), print_config(Config{}));
}

TEST(ParseConfig, ReadsEveryKindOfValue) {
  const auto config = parse_config(R"(
workload: {namespace: shop, name: web-0}
listen:
  inbound: 25006
  adminSocket: /run/postern/admin.sock
policyDir: /etc/postern/policies
mesh:
  trustDomain: cluster.local
  defaultPolicy: deny
  nodeTraffic: none
  mtls: permissive
  audit: true
  clusterCidrs: [10.0.0.0/8, "fd00::/8"]
  nodeAddresses:
    - 10.1.2.3
tls:
  groups: X25519
  sessionCacheEntries: 5
limits:
  handshakeTimeout: 500ms
  idleTimeout: 1h30m
  maxConnectionsPerSource: 7
tcp:
  keepaliveTime: 2m
accessLog:
  path: ""
  atOpen: true
drainPeriod: 0
logLevel: debug
)",
                                   "postern.yaml");
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(config->workload.ns, "shop");
  EXPECT_EQ(config->workload.name, "web-0");
  EXPECT_EQ(config->listen.inbound, Port{25006});
  EXPECT_EQ(config->listen.outbound, Config{}.listen.outbound);
  EXPECT_EQ(config->listen.admin_socket, "/run/postern/admin.sock");
  EXPECT_EQ(config->policy_dir, "/etc/postern/policies");
  EXPECT_EQ(config->mesh.trust_domain.text(), "cluster.local");
  EXPECT_EQ(config->mesh.default_policy, DefaultPolicy::deny);
  EXPECT_EQ(config->mesh.node_traffic, NodeTraffic::none);
  EXPECT_EQ(config->mesh.mtls, MtlsMode::permissive);
  EXPECT_TRUE(config->mesh.audit);
  ASSERT_EQ(config->mesh.cluster_cidrs.size(), 2U);
  EXPECT_EQ(config->mesh.cluster_cidrs[1].text(), "fd00::/8");
  ASSERT_EQ(config->mesh.node_addresses.size(), 1U);
  EXPECT_EQ(config->mesh.node_addresses[0].text(), "10.1.2.3");
  EXPECT_EQ(config->tls.groups, "X25519");
  EXPECT_EQ(config->tls.session_cache_entries, 5U);
  EXPECT_EQ(config->limits.handshake_timeout, 500ms);
  EXPECT_EQ(config->limits.idle_timeout, 90min);
  EXPECT_EQ(config->limits.max_connections_per_source, 7U);
  EXPECT_EQ(config->tcp.keepalive_time, 2min);
  EXPECT_EQ(config->access_log.path, "");
  EXPECT_TRUE(config->access_log.at_open);
  EXPECT_EQ(config->drain_period, 0ms);
  EXPECT_EQ(config->log_level, LogLevel::debug);
}

TEST(ParseConfig, SectionWithEverythingCommentedOutIsEmpty) {
  const auto config = parse_config("limits:\n  # idleTimeout: 1h\n", "postern.yaml");
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(config->limits.idle_timeout, 0ms);
}

TEST(ParseConfig, UnknownFieldNamesPlaceAndNearestName) {
  const std::string error = error_of("workers: 2\nlimits:\n  handshakeTimout: 5s\n");
  EXPECT_THAT(error,
              ::testing::MatchesRegex("postern.yaml:3:[0-9]+: limits.handshakeTimout: unknown field; did you mean handshakeTimeout\\?"));
  EXPECT_THAT(error_of("limts: {}\n"), HasSubstr("limts: unknown field; did you mean limits?"));
}

TEST(ParseConfig, FieldInTheWrongSectionIsSuggestedWithItsPath) {
  EXPECT_THAT(error_of("handshakeTimeout: 5s\n"), HasSubstr("did you mean limits.handshakeTimeout?"));
  EXPECT_THAT(error_of("listen:\n  policyDir: /x\n"), HasSubstr("did you mean policyDir?"));
}

TEST(ParseConfig, FarFetchedNameListsTheValidOnes) {
  EXPECT_THAT(error_of("tcp:\n  nagle: off\n"), HasSubstr("expected one of keepaliveTime, keepaliveInterval, keepaliveProbes"));
}

TEST(ParseConfig, DottedKeyIsNoField) { EXPECT_THAT(error_of("limits.idleTimeout: 5s\n"), HasSubstr("unknown field")); }

TEST(ParseConfig, StrangeKeyIsShownEscaped) { EXPECT_THAT(error_of("\"bad\\nkey\": 1\n"), HasSubstr("\"bad\\nkey\": unknown field")); }

struct IllTyped {
  std::string_view yaml;
  std::string_view expected;  // in the message
};
class ParseConfigIllTyped : public ::testing::TestWithParam<IllTyped> {};

TEST_P(ParseConfigIllTyped, IsRefusedWithWhatIsExpected) {
  EXPECT_THAT(error_of(GetParam().yaml), HasSubstr(std::string(GetParam().expected)));
}

INSTANTIATE_TEST_SUITE_P(
    Values, ParseConfigIllTyped,
    ::testing::Values(
        IllTyped{"limits: {handshakeTimeout: 10}",
                 "expected a duration such as 500ms, 10s, 5m or 1h; found an integer \"10\" without a unit"},
        IllTyped{"limits: {handshakeTimeout: 0s}", "more than 0"}, IllTyped{"limits: {handshakeTimeout: 0}", "expected a duration"},
        IllTyped{"limits: {idleTimeout: -5s}", "expected a duration"}, IllTyped{"limits: {idleTimeout: 5}", "or 0"},
        IllTyped{"limits: {idleTimeout: 5 s}", "expected a duration"}, IllTyped{"limits: {idleTimeout: 5s1h}", "expected a duration"},
        IllTyped{"limits: {idleTimeout: s}", "expected a duration"}, IllTyped{"limits: {idleTimeout: 1d}", "expected a duration"},
        IllTyped{"limits: {idleTimeout: 9999999h}", "expected a duration"},
        IllTyped{"limits: {idleTimeout: 99999999999999999999s}", "expected a duration"},
        IllTyped{"tcp: {keepaliveTime: 1500ms}", "whole seconds"}, IllTyped{"tcp: {keepaliveProbes: 128}", "an integer from 1 to 127"},
        IllTyped{"listen: {inbound: 65536}", "a port number from 0 to 65535"},
        IllTyped{"listen: {inbound: \"15006\"}", "a port number from 0 to 65535, such as 15006; found a string \"15006\""},
        IllTyped{"listen: []", "listen: expected fields with their values"}, IllTyped{"workers: -1", "an integer from 0 to 1024"},
        IllTyped{"workers: 1.5", "an integer from 0 to 1024"}, IllTyped{"tls: {resumption: \"yes\"}", "expected true or false"},
        IllTyped{"tls: {groups: \"X25519::P-256\"}", "joined by colons"}, IllTyped{"tls: {groups: \"\"}", "joined by colons"},
        IllTyped{"policyDir: 7", "in quotes"}, IllTyped{"policyDir: null", "expected a string"},
        IllTyped{"policyDir: \"a\\0b\"", "without a NUL"}, IllTyped{"workload: {name: Web_0}", "a Kubernetes name"},
        IllTyped{"workload: {name: -web}", "a Kubernetes name"}, IllTyped{"logLevel: warn", "did you mean warning?"},
        IllTyped{"logLevel: 3", "expected one of debug, info, warning, error"},
        IllTyped{"mesh: {defaultPolicy: allow}", "expected one of kubernetes, deny"},
        IllTyped{"mesh: {trustDomain: Cluster.Local}", "mesh.trustDomain"},
        IllTyped{"mesh: {clusterCidrs: 10.0.0.0/8}", "expected a list of CIDR blocks"},
        IllTyped{"mesh: {clusterCidrs: [10.0.0.0/8, 10.0.0.0/33]}", "mesh.clusterCidrs: item 2: "},
        IllTyped{"mesh: {nodeAddresses: [7]}", "item 1: expected a list of IP addresses"}, IllTyped{"- 1", "postern.yaml:1:"},
        IllTyped{"workers: 1\n---\nworkers: 2", "expected one document"}, IllTyped{"workers: 1\nworkers: 2", "postern.yaml:2:"}));

TEST(ParseConfig, LongSocketPathIsRefused) {
  EXPECT_THAT(error_of("listen: {adminSocket: /" + std::string(107, 'x') + "}"), HasSubstr("at most 107 bytes"));
}

TEST(ParseConfig, HugeTextIsRefused) { EXPECT_NE(error_of("# " + std::string(300'000, 'x') + "\n"), "accepted"); }

TEST(PrintConfig, IsAcceptedAndComesBackTheSame) {
  Config config;
  config.workload.name = "web-0";
  config.listen.admin_socket = "/run/a \"b\".sock";
  config.mesh.trust_domain = *TrustDomain::parse("cluster.local");
  config.mesh.cluster_cidrs = {*Cidr::parse("10.0.0.0/8"), *Cidr::parse("fd00::/8")};
  config.mesh.node_addresses = {*IpAddress::parse("fd00::1")};
  config.limits.idle_timeout = 90'500ms;
  config.log_level = LogLevel::error;
  for (const Config& each : {Config{}, config}) {
    const std::string text = print_config(each);
    const auto again = parse_config(text, "printed");
    ASSERT_TRUE(again) << again.error().text() << "\n" << text;
    EXPECT_EQ(print_config(*again), text);
  }
  const auto again = parse_config(print_config(config), "printed");
  ASSERT_TRUE(again);
  EXPECT_EQ(again->limits.idle_timeout, 90'500ms);
  EXPECT_EQ(again->listen.admin_socket, "/run/a \"b\".sock");
  EXPECT_EQ(again->mesh.cluster_cidrs, config.mesh.cluster_cidrs);
}

TEST(PrintConfig, SaysWhatEachFieldIs) {
  const std::string text = print_config(Config{});
  for (const auto& field : config_table().fields) EXPECT_THAT(text, HasSubstr("# " + std::string(field.doc))) << field.path;
  EXPECT_THAT(text, HasSubstr("  # For a TLS handshake. (duration; default 10s)\n  handshakeTimeout: 10s\n"));
}

// A field whose reader and printer went to different members would pass the round trip of defaults.
TEST(ConfigFields, EachReadsWhatItPrintsAndNothingElse) {
  const auto& fields = config_table().fields;
  for (const auto& field : fields) {
    Config config;
    Node node;
    const std::string before = field.print(config);
    for (const auto& [kind, scalar, integer] :
         {std::tuple{Node::Kind::string, "7s", 0}, std::tuple{Node::Kind::integer, "77", 77}, std::tuple{Node::Kind::string, "web-7", 0},
          std::tuple{Node::Kind::string, "deny", 0}, std::tuple{Node::Kind::string, "all", 0}, std::tuple{Node::Kind::string, "spiffe", 0},
          std::tuple{Node::Kind::string, "error", 0}}) {
      node.kind = kind;
      node.scalar = scalar;
      node.integer = integer;
      if (field.parse(node, config)) break;
    }
    if (field.print(config) == before) {  // booleans and lists
      node.kind = Node::Kind::boolean;
      node.boolean = before == "false";
      Node item;
      item.kind = Node::Kind::string;
      item.scalar = field.type == "list of IP addresses"     ? "10.0.0.1"
                    : field.type == "list of host:port"      ? "control:15010"
                    : field.type == "list of serial numbers" ? "4B2F"
                    : field.type == "list of SPIFFE IDs"     ? "spiffe://cluster.local/a"
                                                             : "10.0.0.0/8";
      if (field.path == "identity.federatedBundles") {
        Node text;
        text.kind = Node::Kind::string;
        item.kind = Node::Kind::mapping;
        text.scalar = "partner.example";
        item.fields.emplace_back("trustDomain", text);
        text.scalar = "/bundle.pem";
        item.fields.emplace_back("bundle", text);
      }
      if (!field.parse(node, config)) {
        node.kind = Node::Kind::sequence;
        node.items = {item};
        ASSERT_TRUE(field.parse(node, config)) << field.path;
      }
    }
    EXPECT_NE(field.print(config), before) << field.path;
    const Config defaults;
    for (const auto& other : fields) {
      if (other.path == field.path) continue;
      EXPECT_EQ(other.print(config), other.print(defaults)) << field.path << " changed " << other.path;
    }
  }
}

TEST(ConfigFields, AreAllInTheDocumentation) {
  std::ifstream file(std::string(POSTERN_SOURCE_DIR) + "/docs/configuration.md");
  std::stringstream text;
  text << file.rdbuf();
  const Config defaults;
  for (const auto& field : config_table().fields) {
    const std::string row =
        "| `" + std::string(field.path) + "` | " + field.type + " | `" + field.print(defaults) + "` | " + std::string(field.doc) + " |\n";
    EXPECT_NE(text.str().find(row), std::string::npos) << "missing row: " << row;
  }
}

std::string problem_of(const Config& config) {
  const auto valid = validate(config);
  return valid ? "valid" : valid.error().text();
}

TEST(ValidateConfig, AcceptsDefaultsAndACompleteConfig) {
  EXPECT_EQ(problem_of(Config{}), "valid");
  Config config;
  config.workload.name = "web-0";
  config.identity = {"svid.pem", "key.pem", "bundle.pem"};
  config.policy_dir = "policies";
  config.mesh.trust_domain = *TrustDomain::parse("cluster.local");
  EXPECT_EQ(problem_of(config), "valid");
}

TEST(ValidateConfig, FederatedBundlesAreOfOthersAndNeedAnIdentity) {
  auto config =
      parse_config("mesh: {trustDomain: cluster.local}\nidentity: {federatedBundles: [{trustDomain: partner.example, bundle: /p}]}", "a");
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_THAT(problem_of(*config), HasSubstr("identity.federatedBundles: without an SVID of its own"));
  config->identity.certificate = config->identity.key = config->identity.bundle = "x.pem";
  EXPECT_EQ(problem_of(*config), "valid");
  config->mesh.trust_domain = *TrustDomain::parse("partner.example");
  EXPECT_THAT(problem_of(*config), HasSubstr("identity.federatedBundles: partner.example is this mesh's own trust domain"));
  const auto fetched = parse_config("identity: {federatedBundles: [{trustDomain: a, endpoint: 'https://a'}]}", "a.yaml");
  ASSERT_FALSE(fetched);
  EXPECT_THAT(fetched.error().text(), HasSubstr("a.yaml:1:30: identity.federatedBundles: item 1: endpoint: a sidecar fetches nothing"));
}

TEST(ValidateConfig, WantsTheIdentityFilesTogetherAndATrustDomain) {
  Config config;
  config.identity.certificate = "svid.pem";
  EXPECT_THAT(problem_of(config), HasSubstr("identity.key: missing"));
  config.identity.key = "key.pem";
  EXPECT_THAT(problem_of(config), HasSubstr("identity.bundle: missing"));
  config.identity.bundle = "bundle.pem";
  EXPECT_THAT(problem_of(config), HasSubstr("mesh.trustDomain: missing"));
}

TEST(ValidateConfig, WantsThePodWhosePoliciesAreRead) {
  Config config;
  config.policy_dir = "policies";
  config.mesh.trust_domain = *TrustDomain::parse("cluster.local");
  EXPECT_THAT(problem_of(config), HasSubstr("workload.name: missing"));
  config.workload = {"", "web-0"};
  EXPECT_THAT(problem_of(config), HasSubstr("workload.namespace: missing"));
}

TEST(ParseConfig, WhereToConnectToIsAHostAndAPort) {
  for (const char* good : {"control:15010", "postern-control.postern-system.svc:1", "10.0.0.1:65535", "[fd00::1]:15010"}) {
    EXPECT_TRUE(parse_config("control: {addresses: ['" + std::string(good) + "']}", "x")) << good;
  }
  for (const char* bad : {"", "control", "control:", "control:0", "control:65536", ":15010", "fd00::1:15010", "[fd00::g]:1", "a b:1",
                          "http://control:1", "control:1x"}) {
    EXPECT_FALSE(parse_config("control: {addresses: ['" + std::string(bad) + "']}", "x")) << bad;
  }
}

TEST(ValidateConfig, TakesPolicyFromOnePlaceOnly) {
  Config config;
  config.control.state_dir = "/run/state";
  EXPECT_THAT(problem_of(config), HasSubstr("control.addresses: missing"));
  config.control.addresses = {"control:15010"};
  EXPECT_THAT(problem_of(config), HasSubstr("identity.certificate: missing"));
  config.identity = {"svid.pem", "key.pem", "bundle.pem"};
  EXPECT_THAT(problem_of(config), HasSubstr("mesh.trustDomain: missing"));
  config.mesh.trust_domain = *TrustDomain::parse("cluster.local");
  EXPECT_THAT(problem_of(config), HasSubstr("workload.name: missing"));
  config.workload.name = "web-0";
  EXPECT_EQ(problem_of(config), "valid");
  config.policy_dir = "policies";
  EXPECT_THAT(problem_of(config), HasSubstr("policyDir is given, too"));
}

TEST(ValidateConfig, WantsDistinctPorts) {
  Config config;
  config.listen.health = config.listen.inbound;
  EXPECT_THAT(problem_of(config), HasSubstr("listen.health: port 15006 is given twice"));
  config.listen.inbound = config.listen.outbound = config.listen.health = Port{0};
  EXPECT_EQ(problem_of(config), "valid");
}

TEST(ValidateConfig, WantsTheOutboundSideToCloseFirst) {
  Config config;
  config.recycling.inbound_idle = config.recycling.outbound_idle;
  EXPECT_THAT(problem_of(config), HasSubstr("recycling.inboundIdle: expected longer than"));
  config.recycling.enabled = false;
  EXPECT_EQ(problem_of(config), "valid");
}

TEST(ValidateConfig, TheWorkloadApiIsASourceOfItsOwn) {
  const auto error = [](std::string_view yaml) {
    auto config = parse_config(yaml, "postern.yaml");
    if (!config) return config.error().text();
    const auto valid = validate(*config);
    return valid ? std::string("valid") : valid.error().text();
  };
  EXPECT_EQ(error("{mesh: {trustDomain: a.b}, identity: {workloadApi: {enabled: true, socket: 'unix:///run/agent.sock', hint: web}}}"),
            "valid");
  EXPECT_EQ(error("{mesh: {trustDomain: a.b}, identity: {workloadApi: {enabled: true}}}"), "valid");
  EXPECT_THAT(error("identity: {workloadApi: {enabled: true}}"), HasSubstr("mesh.trustDomain"));
  EXPECT_THAT(error("identity: {workloadApi: {hint: web}}"), HasSubstr("identity.workloadApi.enabled"));
  EXPECT_THAT(error("identity: {certificate: c, key: k, bundle: b, workloadApi: {enabled: true}}"),
              HasSubstr("either from files or from the Workload API"));
  EXPECT_THAT(error("identity: {workloadApi: {enabled: true, socket: /run/agent.sock}}"), HasSubstr("identity.workloadApi.socket"));
  EXPECT_THAT(error("identity: {workloadApi: {enabled: true, spiffeId: web}}"), HasSubstr("identity.workloadApi.spiffeId"));
}

}  // namespace
}  // namespace postern
