#include <gmock/gmock.h>

#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>

#include "base/document.hpp"
#include "proxy/access_log.hpp"
#include "tests/unit/authz/cluster_builder.hpp"

namespace postern {
namespace {

using namespace std::chrono_literals;
using test::at;
using test::labelled;
using testing::HasSubstr;
using testing::Not;

// The pods of the documentation's examples, and what decides between them.
struct Scene {
  test::ClusterBuilder cluster;
  std::shared_ptr<const PolicySnapshot> snapshot;

  Scene() {
    cluster.ns("default");
    cluster.pod("default/frontend", "10.0.0.10", {{"app", "frontend"}});
    cluster.pod("default/backend", "10.0.0.20", {{"app", "backend"}});
    cluster.pod("default/intruder", "10.0.0.66", {{"app", "intruder"}});
    auto& backend = cluster.policy("default/backend-allow", labelled({{"app", "backend"}}));
    backend.ingress = {{.ports = {test::on(8080)}, .peers = {test::pods(labelled({{"app", "frontend"}}))}}};
    auto& frontend = cluster.egress_policy("default/frontend-allow", labelled({{"app", "frontend"}}));
    frontend.egress = {{.ports = {test::on(8080)}, .peers = {test::block("192.0.2.0/24"), test::pods(labelled({{"app", "backend"}}))}}};
  }

  void compile(std::string_view self) { snapshot = cluster.compile(self); }
  const Workload* pod(std::string_view address) const { return snapshot->workload_at(test::ip(address)); }

  static std::shared_ptr<const PeerIdentity> peer(std::string_view pod) {
    return std::make_shared<PeerIdentity>(PeerIdentity{id_of(pod), "01", {}});
  }
  static std::shared_ptr<const X509Context> own(std::string_view pod) {
    auto context = std::make_shared<X509Context>();
    context->svid.id = id_of(pod);
    return context;
  }
  static SpiffeId id_of(std::string_view pod) {
    return SpiffeId::parse("spiffe://example.org/ns/default/sa/default/pod/" + std::string(pod) + "/uid-" + std::string(pod)).value();
  }

  // What both directions share: a connection of one and a quarter seconds.
  AccessRecord record(Direction direction, std::string_view from, std::string_view to) const {
    AccessRecord record;
    record.direction = direction;
    record.started = std::chrono::sys_days{std::chrono::year{2026} / 11 / 22} + 17h + 20min + 2s + 45us;
    record.duration = 1250ms + 17us;
    record.snapshot = snapshot;
    record.source = at(from, 51234);
    record.destination = record.original_destination = at(to, 8080);
    record.source_workload = pod(from);
    record.destination_workload = pod(to);
    record.bytes_sent = 118;
    record.bytes_received = 5302;
    return record;
  }

  void decide(AccessRecord& record) const {
    const bool inbound = record.direction == Direction::inbound;
    const auto& other = inbound ? record.source : record.destination;
    const Peer peer{.workload = inbound ? record.source_workload : record.destination_workload, .address = other.address};
    const auto direction = inbound ? PolicyDirection::ingress : PolicyDirection::egress;
    record.verdict = postern::decide(record.snapshot.get(), direction, peer, record.destination.port);
    record.decided = true;
  }

  static void established(AccessRecord& record, std::string_view peer_pod, std::string_view own_pod) {
    record.peer_identity = peer(peer_pod);
    record.own_identity = own(own_pod);
    record.tls_established = true;
    record.tls_version = "TLSv1.3";
    record.tls_cipher = "TLS_AES_128_GCM_SHA256";
    record.tls_group = "X25519MLKEM768";
    record.connection_id = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
    record.stream = 3;
  }
};

AccessRecord finished(AccessRecord record) {
  record.reason = Reason::finished;
  record.closed_by = ClosedBy::source;
  return record;
}

// docs/access-log.md shows the lines of the next four tests.
std::string documentation() {
  std::ostringstream text;
  text << std::ifstream(POSTERN_SOURCE_DIR "/docs/access-log.md").rdbuf();
  return text.str();
}

TEST(AccessLogFormat, Inbound) {
  Scene scene;
  scene.compile("default/backend");
  AccessRecord record = finished(scene.record(Direction::inbound, "10.0.0.10", "10.0.0.20"));
  Scene::established(record, "frontend", "backend");
  record.tls_resumed = true;
  scene.decide(record);
  const std::string line = format_record(record);
  EXPECT_EQ(line, R"({"@timestamp":"2026-11-22T17:20:02.000045Z","event":"close","duration_ms":1250.017,"direction":"inbound",)"
                  R"("network.transport":"tcp","network.type":"ipv4","source.address":"10.0.0.10","source.port":51234,)"
                  R"("destination.address":"10.0.0.20","destination.port":8080,)"
                  R"("source.k8s.namespace":"default","source.k8s.pod":"frontend","source.k8s.uid":"uid-frontend",)"
                  R"("destination.k8s.namespace":"default","destination.k8s.pod":"backend","destination.k8s.uid":"uid-backend",)"
                  R"("source.spiffe_id":"spiffe://example.org/ns/default/sa/default/pod/frontend/uid-frontend",)"
                  R"("destination.spiffe_id":"spiffe://example.org/ns/default/sa/default/pod/backend/uid-backend","identity":"tls",)"
                  R"("tls.established":true,"tls.protocol.version":"TLSv1.3","tls.cipher":"TLS_AES_128_GCM_SHA256",)"
                  R"("tls.curve":"X25519MLKEM768","tls.resumed":true,"bytes_sent":118,"bytes_recv":5302,"verdict":"FORWARDED",)"
                  R"("policy.enforced":[{"kind":"NetworkPolicy","namespace":"default","name":"backend-allow","direction":"ingress",)"
                  R"("rule_index":0,"peer_index":0}],"policy.generation":1,"close.reason":"finished","close.by":"source",)"
                  R"("connection.id":"00112233445566778899aabbccddeeff","connection.stream":3})");
  EXPECT_THAT(documentation(), HasSubstr(line));
}

TEST(AccessLogFormat, OutboundThroughAService) {
  Scene scene;
  scene.compile("default/frontend");
  AccessRecord record = finished(scene.record(Direction::outbound, "10.0.0.10", "10.0.0.20"));
  record.original_destination = at("10.96.0.20", 80);
  record.service = "default/backend";
  Scene::established(record, "backend", "frontend");
  scene.decide(record);
  const std::string line = format_record(record);
  EXPECT_EQ(line, R"({"@timestamp":"2026-11-22T17:20:02.000045Z","event":"close","duration_ms":1250.017,"direction":"outbound",)"
                  R"("network.transport":"tcp","network.type":"ipv4","source.address":"10.0.0.10","source.port":51234,)"
                  R"("destination.address":"10.0.0.20","destination.port":8080,)"
                  R"("original_destination.address":"10.96.0.20","original_destination.port":80,)"
                  R"("source.k8s.namespace":"default","source.k8s.pod":"frontend","source.k8s.uid":"uid-frontend",)"
                  R"("destination.k8s.namespace":"default","destination.k8s.pod":"backend","destination.k8s.uid":"uid-backend",)"
                  R"("destination.service":"default/backend",)"
                  R"("source.spiffe_id":"spiffe://example.org/ns/default/sa/default/pod/frontend/uid-frontend",)"
                  R"("destination.spiffe_id":"spiffe://example.org/ns/default/sa/default/pod/backend/uid-backend","identity":"tls",)"
                  R"("tls.established":true,"tls.protocol.version":"TLSv1.3","tls.cipher":"TLS_AES_128_GCM_SHA256",)"
                  R"("tls.curve":"X25519MLKEM768","tls.resumed":false,"bytes_sent":118,"bytes_recv":5302,"verdict":"FORWARDED",)"
                  R"("policy.enforced":[{"kind":"NetworkPolicy","namespace":"default","name":"frontend-allow","direction":"egress",)"
                  R"("rule_index":0,"peer_index":1}],"policy.generation":1,"close.reason":"finished","close.by":"source",)"
                  R"("connection.id":"00112233445566778899aabbccddeeff","connection.stream":3})");
  EXPECT_THAT(documentation(), HasSubstr(line));
}

AccessRecord denied_record(Scene& scene) {
  scene.compile("default/backend");
  AccessRecord record = scene.record(Direction::inbound, "10.0.0.66", "10.0.0.20");
  record.duration = 2ms + 310us;
  Scene::established(record, "intruder", "backend");
  record.stream = 1;
  record.bytes_sent = record.bytes_received = 0;
  scene.decide(record);
  record.reason = Reason::denied;
  return record;
}

TEST(AccessLogFormat, Denied) {
  Scene scene;
  const std::string line = format_record(denied_record(scene));
  EXPECT_EQ(line, R"({"@timestamp":"2026-11-22T17:20:02.000045Z","event":"close","duration_ms":2.310,"direction":"inbound",)"
                  R"("network.transport":"tcp","network.type":"ipv4","source.address":"10.0.0.66","source.port":51234,)"
                  R"("destination.address":"10.0.0.20","destination.port":8080,)"
                  R"("source.k8s.namespace":"default","source.k8s.pod":"intruder","source.k8s.uid":"uid-intruder",)"
                  R"("destination.k8s.namespace":"default","destination.k8s.pod":"backend","destination.k8s.uid":"uid-backend",)"
                  R"("source.spiffe_id":"spiffe://example.org/ns/default/sa/default/pod/intruder/uid-intruder",)"
                  R"("destination.spiffe_id":"spiffe://example.org/ns/default/sa/default/pod/backend/uid-backend","identity":"tls",)"
                  R"("tls.established":true,"tls.protocol.version":"TLSv1.3","tls.cipher":"TLS_AES_128_GCM_SHA256",)"
                  R"("tls.curve":"X25519MLKEM768","tls.resumed":false,"bytes_sent":0,"bytes_recv":0,"verdict":"DROPPED",)"
                  R"("policy.basis":"no_rule","policy.isolating":[{"kind":"NetworkPolicy","namespace":"default","name":"backend-allow"}],)"
                  R"("policy.generation":1,"close.reason":"denied","close.by":"proxy",)"
                  R"("connection.id":"00112233445566778899aabbccddeeff","connection.stream":1})");
  EXPECT_THAT(documentation(), HasSubstr(line));
}

TEST(AccessLogFormat, Audit) {
  Scene scene;
  scene.cluster.view.policies.at(test::key("default/backend-allow")).mode = EnforcementMode::audit;
  AccessRecord record = finished(denied_record(scene));
  const std::string line = format_record(record);
  EXPECT_EQ(line, R"({"@timestamp":"2026-11-22T17:20:02.000045Z","event":"close","duration_ms":2.310,"direction":"inbound",)"
                  R"("network.transport":"tcp","network.type":"ipv4","source.address":"10.0.0.66","source.port":51234,)"
                  R"("destination.address":"10.0.0.20","destination.port":8080,)"
                  R"("source.k8s.namespace":"default","source.k8s.pod":"intruder","source.k8s.uid":"uid-intruder",)"
                  R"("destination.k8s.namespace":"default","destination.k8s.pod":"backend","destination.k8s.uid":"uid-backend",)"
                  R"("source.spiffe_id":"spiffe://example.org/ns/default/sa/default/pod/intruder/uid-intruder",)"
                  R"("destination.spiffe_id":"spiffe://example.org/ns/default/sa/default/pod/backend/uid-backend","identity":"tls",)"
                  R"("tls.established":true,"tls.protocol.version":"TLSv1.3","tls.cipher":"TLS_AES_128_GCM_SHA256",)"
                  R"("tls.curve":"X25519MLKEM768","tls.resumed":false,"bytes_sent":0,"bytes_recv":0,"verdict":"AUDIT",)"
                  R"("policy.enforced_verdict":"FORWARDED","policy.basis":"not_isolated",)"
                  R"("policy.pending_verdict":"DROPPED","policy.pending_basis":"no_rule",)"
                  R"("policy.pending_isolating":[{"kind":"NetworkPolicy","namespace":"default","name":"backend-allow"}],)"
                  R"("policy.generation":1,"close.reason":"finished","close.by":"source",)"
                  R"("connection.id":"00112233445566778899aabbccddeeff","connection.stream":1})");
  EXPECT_THAT(documentation(), HasSubstr(line));
}

TEST(AccessLogFormat, AuditPolicyThatWouldAllow) {
  Scene scene;
  auto& would_allow = scene.cluster.policy("default/intruder-too", labelled({{"app", "backend"}}));
  would_allow.mode = EnforcementMode::audit;
  would_allow.ingress = {{}};
  const std::string line = format_record(denied_record(scene));
  EXPECT_THAT(line, HasSubstr(R"("verdict":"AUDIT","policy.enforced_verdict":"DROPPED","policy.basis":"no_rule",)"
                              R"("policy.isolating":[{"kind":"NetworkPolicy","namespace":"default","name":"backend-allow"}],)"
                              R"("policy.pending_verdict":"FORWARDED","policy.pending":[{"kind":"NetworkPolicy","namespace":"default",)"
                              R"("name":"intruder-too","direction":"ingress","rule_index":0}],"policy.generation")"));
}

TEST(AccessLogFormat, AReplacedPolicyIsNotAmongThosePending) {
  Scene scene;
  auto& refined = scene.cluster.policy("default/refined", labelled({{"app", "backend"}}));
  refined.mode = EnforcementMode::audit;
  refined.replaces = {"wide"};
  scene.cluster.policy("default/wide", labelled({{"app", "backend"}})).ingress = {{}};
  const std::string line = format_record(denied_record(scene));
  EXPECT_THAT(line, HasSubstr(R"("verdict":"AUDIT","policy.enforced_verdict":"FORWARDED","policy.enforced":[{"kind":"NetworkPolicy",)"
                              R"("namespace":"default","name":"wide","direction":"ingress","rule_index":0}],)"
                              R"("policy.pending_verdict":"DROPPED","policy.pending_basis":"no_rule",)"
                              R"("policy.pending_isolating":[{"kind":"NetworkPolicy","namespace":"default","name":"backend-allow"},)"
                              R"({"kind":"NetworkPolicy","namespace":"default","name":"refined"}],"policy.generation")"));
}

TEST(AccessLogFormat, EveryIsolatingPolicyOfTheDirectionIsNamed) {
  Scene scene;
  scene.cluster.policy("default/default-deny");
  scene.cluster.policy("default/watched").mode = EnforcementMode::audit;
  const std::string line = format_record(denied_record(scene));
  EXPECT_THAT(line, HasSubstr(R"("policy.isolating":[{"kind":"NetworkPolicy","namespace":"default","name":"backend-allow"},)"
                              R"({"kind":"NetworkPolicy","namespace":"default","name":"default-deny"}],"policy.generation")"));
}

TEST(AccessLogFormat, MeshWideDefaultDeny) {
  Scene scene;
  scene.cluster.view.policies.clear();
  scene.cluster.settings.default_policy = DefaultPolicy::deny;
  EXPECT_THAT(format_record(denied_record(scene)),
              HasSubstr(R"("verdict":"DROPPED","policy.basis":"no_rule","policy.isolating":[],"policy.default_deny":true,)"));
}

TEST(AccessLogFormat, BeforeAnyPolicyOrAddressIsKnown) {
  AccessRecord record;
  record.source = at("2001:db8::7", 40000);
  record.reason = Reason::no_original_destination;
  EXPECT_EQ(format_record(record),
            R"({"@timestamp":"1970-01-01T00:00:00.000000Z","event":"close","duration_ms":0.000,"direction":"inbound",)"
            R"("network.transport":"tcp","network.type":"ipv6","source.address":"2001:db8::7","source.port":40000,)"
            R"("tls.established":false,"bytes_sent":0,"bytes_recv":0,"verdict":"DROPPED",)"
            R"("close.reason":"no_original_destination","close.by":"proxy"})");
}

TEST(AccessLogFormat, NoPolicyYet) {
  AccessRecord record;
  record.decided = true;
  record.verdict = decide(nullptr, PolicyDirection::ingress, {}, Port{80});
  record.reason = Reason::no_policy;
  EXPECT_THAT(format_record(record), HasSubstr(R"("verdict":"DROPPED","policy.basis":"no_policy","close.reason":"no_policy")"));
}

TEST(AccessLogFormat, OpeningRecordHasNoEnd) {
  Scene scene;
  scene.compile("default/backend");
  AccessRecord record = scene.record(Direction::inbound, "10.0.0.10", "10.0.0.20");
  record.at_open = true;
  std::string line = format_record(record);
  for (const char* absent : {"duration_ms", "bytes_sent", "bytes_recv", "close.", "verdict"}) EXPECT_THAT(line, Not(HasSubstr(absent)));
  EXPECT_THAT(line, HasSubstr(R"("event":"open")"));
  scene.decide(record);
  EXPECT_THAT(format_record(record), HasSubstr(R"("verdict":"FORWARDED")"));
}

TEST(AccessLogFormat, IdentityOnlyWhereProven) {
  Scene scene;
  scene.compile("default/backend");
  AccessRecord record = finished(scene.record(Direction::inbound, "10.0.0.10", "10.0.0.20"));
  record.plaintext = true;
  record.own_identity = Scene::own("backend");  // TLS was not established: it proved nothing to anybody
  EXPECT_THAT(format_record(record), Not(HasSubstr("spiffe_id")));
  EXPECT_THAT(format_record(record), Not(HasSubstr("\"identity\"")));
  EXPECT_THAT(format_record(record), HasSubstr(R"("plaintext":true,"tls.established":false,"bytes_sent")"));
  record.identity_by_address = true;
  EXPECT_THAT(format_record(record), HasSubstr(R"("identity":"address")"));
  EXPECT_THAT(format_record(record), Not(HasSubstr("spiffe_id")));
}

TEST(AccessLogFormat, TheReasonIsNarrowedByItsDetail) {
  AccessRecord record;
  record.reason = Reason::identity_rejected;
  {
    const std::string elsewhere = "several_uri_sans";
    record.detail = elsewhere;  // copied: the caller's text may go
  }
  EXPECT_THAT(format_record(record),
              HasSubstr(R"("close.reason":"identity_rejected","close.by":"proxy","close.detail":"several_uri_sans")"));
  record.detail = std::string(500, 'x');
  EXPECT_THAT(format_record(record), HasSubstr("\"close.detail\":\"" + std::string(95, 'x') + "\""));
}

TEST(AccessLogFormat, VerdictLabels) {
  AccessRecord record;
  EXPECT_EQ(verdict_label(record), VerdictLabel::dropped);  // refused before a decision
  record.self = true;
  EXPECT_EQ(verdict_label(record), VerdictLabel::forwarded);
  EXPECT_THAT(format_record(record), HasSubstr(R"("verdict":"FORWARDED","policy.basis":"self")"));
  record.self = false;
  record.decided = true;
  EXPECT_EQ(verdict_label(record), VerdictLabel::dropped);
  record.verdict.pending.allowed = true;
  EXPECT_EQ(verdict_label(record), VerdictLabel::audit);
  record.verdict.enforced.allowed = true;
  EXPECT_EQ(verdict_label(record), VerdictLabel::forwarded);
  record.verdict.pending.allowed = false;
  EXPECT_EQ(verdict_label(record), VerdictLabel::audit);
}

TEST(AccessLogFormat, ClosedByNames) {
  EXPECT_EQ(name_of(ClosedBy::source), "source");
  EXPECT_EQ(name_of(ClosedBy::destination), "destination");
  EXPECT_EQ(name_of(ClosedBy::proxy), "proxy");
}

// Architecture section 7: log injection through names.
TEST(AccessLogFormat, NoNameCanForgeALineOrAField) {
  const std::string nasty =
      std::string("x\",\"verdict\":\"FORWARDED\"}\n{\"a\":\"\\\r\t") + '\0' + "\x1b[2J\x7f\xff\xc0\xaf\xed\xa0\x80\xe2\x80\xa8";
  Workload workload;
  workload.ns = workload.name = workload.uid = nasty;
  const RuleOrigin origin{.ns = nasty, .policy = nasty, .rule = 0, .peer = -1};
  AccessRecord record;
  record.source_workload = record.destination_workload = &workload;
  record.service = nasty;
  record.detail = nasty;
  record.tls_established = true;
  record.tls_version = record.tls_cipher = record.tls_group = nasty.substr(0, 31);
  record.decided = true;
  record.verdict.enforced = {.allowed = false, .basis = Basis::rule, .origin = &origin};
  record.verdict.pending = {.allowed = true, .basis = Basis::rule, .origin = &origin};
  const std::string line = format_record(record);

  for (const char c : line) ASSERT_TRUE(static_cast<unsigned char>(c) >= 0x20 && c != 0x7F) << "a control byte got through";
  const auto parsed = parse_json(line, "line");  // refuses invalid UTF-8 and a name that occurs twice
  ASSERT_TRUE(parsed) << parsed.error().text();
  const auto verdict = line.find("\"verdict\":");
  EXPECT_EQ(verdict, line.rfind("\"verdict\":"));
  EXPECT_EQ(line.substr(verdict, 17), "\"verdict\":\"AUDIT\"");
}

}  // namespace
}  // namespace postern
