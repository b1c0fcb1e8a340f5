#include "authz/decode_pod.hpp"

#include <gtest/gtest.h>

namespace postern {
namespace {

Document document(const std::string& yaml) {
  auto documents = parse_yaml(yaml, "pod.yaml");
  if (!documents || documents->size() != 1) {
    ADD_FAILURE() << (documents ? "no single document" : documents.error().text());
    return {};
  }
  return std::move((*documents)[0]);
}

Pod decoded(const std::string& yaml) {
  const auto pod = decode_pod(document(yaml));
  if (!pod) {
    ADD_FAILURE() << pod.error().text();
    return {};
  }
  return *pod;
}

std::string failure(const std::string& yaml) {
  const auto pod = decode_pod(document(yaml));
  return pod ? "accepted" : pod.error().text();
}

std::string annotated(const std::string& annotation) { return "metadata: {name: web, annotations: {" + annotation + "}}\n"; }
Port port(std::uint16_t number) { return Port{number}; }
IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }

TEST(DecodePod, ReadsWhatDecisionsUse) {
  const Pod pod = decoded(R"(
apiVersion: v1
kind: Pod
metadata:
  name: web-0
  namespace: shop
  uid: 5d1f2a3b-0000-4000-8000-000000000001
  labels: {app: web, tier: ""}
  annotations:
    postern.dev/injected: "true"
    postern.dev/mtls: "permissive, 8080=spiffe, 9090=strict"
    postern.dev/exclude-inbound-ports: "9101, 9100,9100"
    postern.dev/exclude-outbound-ports: "5432"
  deletionTimestamp: "2026-01-01T00:00:00Z"
spec:
  serviceAccountName: web
  nodeName: node-1
  unknown: {is: fine}
  containers:
  - name: app
    ports:
    - {name: http, containerPort: 8080}
    - {containerPort: 9999}
    - {name: dns, containerPort: 53, protocol: UDP}
  initContainers:
  - name: once
    ports: [{name: setup, containerPort: 1}]
  - name: proxy
    restartPolicy: Always
    ports: [{name: side, containerPort: 7000}]
status:
  phase: Running
  podIP: 10.0.0.1
  podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]
  hostIP: 192.168.0.1
  hostIPs: [{ip: 192.168.0.1}, {ip: "fd01::1"}]
  conditions: [{type: Initialized, status: "True"}, {type: Ready, status: "False"}]
)");
  const Workload& workload = pod.workload;
  EXPECT_EQ(workload.ns, "shop");
  EXPECT_EQ(workload.name, "web-0");
  EXPECT_EQ(workload.uid, "5d1f2a3b-0000-4000-8000-000000000001");
  EXPECT_EQ(workload.service_account, "web");
  EXPECT_EQ(workload.addresses, (std::vector{ip("10.0.0.1"), ip("fd00::1")}));
  EXPECT_TRUE(workload.meshed);
  EXPECT_FALSE(workload.host_network);
  EXPECT_EQ(pod.mtls, MtlsMode::permissive);
  EXPECT_EQ(workload.port_mtls, (std::vector<std::pair<Port, MtlsMode>>{{port(8080), MtlsMode::spiffe}, {port(9090), MtlsMode::strict}}));
  EXPECT_EQ(workload.excluded_inbound_ports, (std::vector{port(9100), port(9101)}));
  EXPECT_EQ(workload.excluded_outbound_ports, (std::vector{port(5432)}));
  EXPECT_EQ(
      workload.named_ports,
      (std::vector<NamedPort>{{"http", Protocol::tcp, port(8080)}, {"dns", Protocol::udp, port(53)}, {"side", Protocol::tcp, port(7000)}}))
      << "ports of an init container that ends are nobody's";
  EXPECT_EQ(pod.labels, (Labels{{"app", "web"}, {"tier", ""}}));
  EXPECT_EQ(pod.phase, PodPhase::running);
  EXPECT_TRUE(pod.terminating);
  EXPECT_FALSE(pod.ready);
  EXPECT_EQ(pod.node_name, "node-1");
  EXPECT_EQ(pod.host_addresses, (std::vector{ip("192.168.0.1"), ip("fd01::1")}));
}

TEST(DecodePod, DefaultsAsTheApiServerDoes) {
  const Pod pod = decoded("metadata: {name: web}\n");
  EXPECT_EQ(pod.workload.ns, "default");
  EXPECT_EQ(pod.workload.service_account, "default");
  EXPECT_FALSE(pod.workload.meshed);
  EXPECT_FALSE(pod.mtls);
  EXPECT_EQ(pod.phase, PodPhase::running);
  EXPECT_TRUE(pod.ready);
  EXPECT_FALSE(pod.terminating);
  EXPECT_EQ(decoded("metadata: {name: web}\nspec: {serviceAccount: old}\n").workload.service_account, "old");
  EXPECT_TRUE(decoded("metadata: {name: web}\nspec: {hostNetwork: true}\n").workload.host_network);
  EXPECT_TRUE(decoded("metadata: {name: web}\nstatus: {phase: Succeeded}\n").ended());
}

TEST(DecodePod, CollectsThePortsOfProbesAndHooks) {
  const Pod pod = decoded(R"(
metadata: {name: web}
spec:
  containers:
  - ports: [{name: http, containerPort: 8080}, {name: admin, containerPort: 9000}]
    livenessProbe: {httpGet: {path: /live, port: http}}
    readinessProbe: {tcpSocket: {port: 5432}}
    startupProbe: {grpc: {port: 50051}}
    lifecycle:
      postStart: {httpGet: {port: admin, path: started}}
      preStop: {exec: {command: [x]}}
  - ports: [{name: http, containerPort: 8081}]
    livenessProbe: {httpGet: {port: http}}
    readinessProbe: {httpGet: {port: "8082", path: /ready}}
    startupProbe: {httpGet: {port: http}}
  - livenessProbe: {httpGet: {host: 192.0.2.1, port: 7}}
    lifecycle: {preStop: {tcpSocket: {host: 192.0.2.1, port: 7}}}
  initContainers:
  - restartPolicy: Always
    livenessProbe: {tcpSocket: {port: 6000}}
  - livenessProbe: {tcpSocket: {port: 6001}}
)");
  const std::vector<ProbePort> expected = {{port(8080), "/live"}, {port(5432), ""},       {port(50051), ""}, {port(9000), "/started"},
                                           {port(8081), "/"},     {port(8082), "/ready"}, {port(6000), ""}};
  EXPECT_EQ(pod.workload.probe_ports, expected) << "a name is that of its own container; a probe of another host is none of this pod";
}

// What the injector made of probes counts for the port that the sidecar asks; only exactly that form does.
TEST(DecodePod, SeesThroughProbesOfTheSidecar) {
  const Pod pod = decoded(R"(
metadata: {name: web}
spec:
  containers:
  - readinessProbe: {httpGet: {path: /app-probe/5432, port: 15020, scheme: HTTP}}
    livenessProbe: {httpGet: {path: /app-probe/05432, port: 15020}}
    startupProbe: {httpGet: {path: /app-probe/70000, port: 15020}}
  - readinessProbe: {httpGet: {path: "/app-probe/http/8080/healthz?full=1", port: 15020, scheme: HTTP}}
    lifecycle: {preStop: {httpGet: {path: /app-probe/hook/https/8443/drain, port: 15020, scheme: HTTP}}}
)");
  const std::vector<ProbePort> expected = {{port(15020), "/app-probe/05432"},
                                           {port(5432), "/app-probe/5432"},
                                           {port(15020), "/app-probe/70000"},
                                           {port(8080), "/app-probe/http/8080/healthz?full=1"},
                                           {port(8443), "/app-probe/hook/https/8443/drain"}};
  EXPECT_EQ(pod.workload.probe_ports, expected);
  for (const Port asked : {port(5432), port(8080), port(8443)}) EXPECT_FALSE(pod.workload.is_probed_by_node(asked)) << asked.number;
}

TEST(DecodePod, WarnsOfWhatCannotWork) {
  std::vector<Warning> warnings;
  const auto pod = decode_pod(document("metadata: {name: web, annotations: {postern.dev/mlts: strict}}\n"
                                       "spec: {containers: [{livenessProbe: {httpGet: {port: nope}}}]}\n"),
                              &warnings);
  ASSERT_TRUE(pod);
  EXPECT_TRUE(pod->workload.probe_ports.empty());
  ASSERT_EQ(warnings.size(), 2U);
  EXPECT_NE(warnings[0].text().find("\"postern.dev/mlts\" means nothing here"), std::string::npos) << warnings[0].text();
  EXPECT_EQ(warnings[1].text(),
            "pod.yaml:2: spec.containers[0].livenessProbe.httpGet.port: this container has no port named \"nope\"; the probe cannot work");
}

TEST(DecodePod, RefusesBadAnnotations) {
  EXPECT_EQ(decoded(annotated("postern.dev/mtls: spiffe")).mtls, MtlsMode::spiffe);
  EXPECT_FALSE(decoded(annotated("postern.dev/mtls: 80=strict")).mtls);
  EXPECT_FALSE(decoded(annotated("postern.dev/injected: 'false'")).workload.meshed);
  EXPECT_TRUE(decoded(annotated("postern.dev/exclude-inbound-ports: ''")).workload.excluded_inbound_ports.empty());
  for (const char* bad :
       {"postern.dev/injected: 'yes'", "postern.dev/injected: ''", "postern.dev/injected: 'True'", "postern.dev/mtls: ''",
        "postern.dev/mtls: off_", "postern.dev/mtls: 'strict,strict'", "postern.dev/mtls: 'strict,'", "postern.dev/mtls: '80'",
        "postern.dev/mtls: '0=strict'", "postern.dev/mtls: '80=strict,80=spiffe'", "postern.dev/mtls: '80=none'",
        "postern.dev/mtls: '=strict'", "postern.dev/mtls: '65536=strict'", "postern.dev/mtls: '+80=strict'",
        "postern.dev/exclude-inbound-ports: '0'", "postern.dev/exclude-inbound-ports: '80,'", "postern.dev/exclude-outbound-ports: '80-90'",
        "postern.dev/exclude-outbound-ports: http", "postern.dev/exclude-outbound-ports: '70000'"}) {
    const std::string name = std::string(bad).substr(0, std::string(bad).find(':'));
    EXPECT_NE(failure(annotated(bad)).find("pod.yaml:1: metadata.annotations[" + name + "]: Invalid value: "), std::string::npos)
        << bad << "\n"
        << failure(annotated(bad));
  }
  EXPECT_NE(failure(annotated("postern.dev/injected: true")).find("expected a string, found a boolean; put it in quotes"),
            std::string::npos);
}

TEST(DecodePod, RefusesUnreadableFields) {
  const std::pair<const char*, const char*> slips[] = {
      {"metadata: {name: Web}", "metadata.name: Invalid value"},
      {"metadata: {generateName: web-}", "metadata.name: Required value"},
      {"metadata: {name: w, uid: a/b}", "metadata.uid: Invalid value"},
      {"metadata: {name: w, labels: {a: 1}}", "metadata.labels.a: expected a string"},
      {"metadata: {name: w}\nspec: []", "spec: expected a mapping, found a list"},
      {"metadata: {name: w}\nspec: {hostNetwork: 'true'}", "spec.hostNetwork: expected a boolean"},
      {"metadata: {name: w}\nspec: {serviceAccountName: a/b}", "spec.serviceAccountName: Invalid value"},
      {"metadata: {name: w}\nspec: {containers: {}}", "spec.containers: expected a list"},
      {"metadata: {name: w}\nspec: {containers: [x]}", "spec.containers[0]: expected a mapping"},
      {"metadata: {name: w}\nspec: {containers: [{ports: [{name: a}]}]}", "spec.containers[0].ports[0].containerPort: Required value"},
      {"metadata: {name: w}\nspec: {containers: [{ports: [{containerPort: 0}]}]}", "containerPort: Invalid value: 0"},
      {"metadata: {name: w}\nspec: {containers: [{ports: [{containerPort: 1, name: A}]}]}", "ports[0].name: Invalid value: \"A\""},
      {"metadata: {name: w}\nspec: {containers: [{ports: [{containerPort: 1, protocol: tcp}]}]}", "protocol: Unsupported value: \"tcp\""},
      {"metadata: {name: w}\nspec: {containers: [{livenessProbe: {tcpSocket: {port: 70000}}}]}",
       "livenessProbe.tcpSocket.port: Invalid value: 70000"},
      {"metadata: {name: w}\nstatus: {podIP: 10.0.0}", "status.podIP: Invalid value: \"10.0.0\""},
      {"metadata: {name: w}\nstatus: {podIPs: [10.0.0.1]}", "status.podIPs[0]: expected a mapping, found a string"},
      {"metadata: {name: w}\nstatus: {phase: Done}", "status.phase: Unsupported value: \"Done\""},
  };
  for (const auto& [yaml, message] : slips) EXPECT_NE(failure(yaml).find(message), std::string::npos) << yaml << "\n" << failure(yaml);
}

}  // namespace
}  // namespace postern
