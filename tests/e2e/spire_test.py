"""SVIDs from a real SPIRE agent over the SPIFFE Workload API, and peers that speak plain SPIFFE mTLS by go-spiffe's own TLS, both ways."""

import os
import re
import socket
import unittest

from kit.control import Control, free_port
from kit.kube import KubeServer
from kit.peer import Peer
from kit.pki import Authority
from kit.cluster import Cluster, allow, gone, knock, pod_object, policy
from kit.processes import run
from kit.sidecar import PROXY_UID, Sidecar, program
from kit.spire import Spire
from kit.waiting import wait_until

SLOW = 60.0  # a new entry reaches the agent within its five seconds' sync, a deleted one within ten


class SpireCase(unittest.TestCase):
    """A SPIRE of its own for each class; sidecars without identity files."""

    @classmethod
    def setUpClass(cls):
        cls.cluster = cluster = Cluster()
        cls.addClassCleanup(cluster.close)
        cls.spire = Spire(f"{cluster.net.folder}/spire", cluster.ca.trust_domain)
        cls.addClassCleanup(cls.spire.stop)

    @classmethod
    def sidecar(cls, name, *, account=None, api=None, annotations=None, env=False, **labels):
        """A pod whose sidecar takes its SVID from the agent."""
        account = account or name
        pod = cls.cluster.net.pod(name)
        cls.cluster.records[name] = pod_object(pod, account=account, annotations=annotations, **(labels or {"app": name}))
        socket_field = {} if env else {"socket": cls.spire.endpoint}
        config = {"drainPeriod": "300ms", "identity": {"workloadApi": {"enabled": True, **socket_field, **(api or {})}}}
        cls.cluster.sidecars[name] = Sidecar(pod, None, cls.cluster.policies, service_account=account, pod_uid=f"u-{name}",
                                             trust_domain=cls.cluster.ca.trust_domain, config=config)
        return pod

    @staticmethod
    def adopted(sidecar):
        """The (SPIFFE ID, serial number)s that the sidecar has taken up, in order."""
        return re.findall(r'"identity_adopted".*?"spiffe_id":"([^"]*)","serial":"([^"]*)"', sidecar.output())

    def wait_adopted(self, sidecar, count=1):
        return wait_until(lambda: len(self.adopted(sidecar)) >= count and self.adopted(sidecar), SLOW,
                          lambda: f"{count} SVIDs of {sidecar.pod.name}:\n{sidecar.output()[-3000:]}")

    def call(self, pod, address, port):
        with pod.connect(address, port) as s:
            s.sendall(b"ping\n")
            self.assertEqual(s.recv(64), b"ping\n")
            s.shutdown(socket.SHUT_WR)
            self.assertEqual(gone(s), "fin")


# ctest: timeout 300
# ctest: stage spire
# ctest: release only
class WorkloadApiTest(SpireCase):
    """Two sidecars with an SVID each from one agent: first identity, rotation, loss of the entry, loss of the agent."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # Both sidecars run as the same uid: SPIRE gives each both SVIDs, and the configuration says which is whose.
        cls.entries = [cls.spire.register("/ns/default/sa/web", uid=PROXY_UID, ttl=20, hint="web"),
                       cls.spire.register("/ns/default/sa/api", uid=PROXY_UID, ttl=20, hint="api")]
        cls.web = cls.sidecar("web", api={"hint": "web"})
        cls.api = cls.sidecar("api", api={"spiffeId": cls.spire.id_of("/ns/default/sa/api")}, env=True)
        cls.app = cls.cluster.app(cls.api, 7000)
        cls.cluster.publish(policy("api-allow", ingress=[allow(7000, app="web")], app="api"), wait=False)
        cls.web_sidecar, cls.api_sidecar = cls.cluster.sidecars["web"], cls.cluster.sidecars["api"]
        cls.web_sidecar.start()
        cls.api_sidecar.start(env={"SPIFFE_ENDPOINT_SOCKET": cls.spire.endpoint})

    def test_1_identity_and_rotation(self):
        self.wait_adopted(self.web_sidecar)
        self.wait_adopted(self.api_sidecar)
        for sidecar in (self.web_sidecar, self.api_sidecar):
            sidecar.wait_ready()
        self.call(self.web, self.api.v4, 7000)
        into = self.api_sidecar.wait_record(direction="inbound")
        self.assertEqual((into["source.spiffe_id"], into["destination.spiffe_id"], into["close.reason"]),
                         (self.spire.id_of("/ns/default/sa/web"), self.spire.id_of("/ns/default/sa/api"), "finished"), into)
        # Rotation over the stream, under connections without a pause: not one may fail.
        seen, calls = len(self.adopted(self.web_sidecar)), 0
        def rotated():
            nonlocal calls
            self.call(self.web, self.api.v4, 7000)
            calls += 1
            return len(self.adopted(self.web_sidecar)) >= seen + 2 and len(self.adopted(self.api_sidecar)) >= 3
        wait_until(rotated, SLOW, lambda: f"two rotations:\n{self.web_sidecar.output()[-3000:]}")
        serials = [serial for _, serial in self.adopted(self.web_sidecar)]
        self.assertEqual(len(set(serials)), len(serials), serials)
        self.assertEqual({name for name, _ in self.adopted(self.web_sidecar)}, {self.spire.id_of("/ns/default/sa/web")})
        self.assertGreater(calls, 10)

    def test_2_an_agent_that_starts_anew_is_found_again(self):
        self.wait_adopted(self.web_sidecar)
        self.spire.stop_agent()
        self.web_sidecar.process.wait_for_output(r'"identity_warning".*UNAVAILABLE', SLOW)
        self.call(self.web, self.api.v4, 7000)
        before = len(self.adopted(self.web_sidecar))
        self.spire.start_agent()
        self.wait_adopted(self.web_sidecar, before + 1)
        self.wait_adopted(self.api_sidecar)

    def test_3_without_an_entry_it_keeps_what_it_has(self):
        # An SVID that outlives the test: what is kept must be seen to work.
        for entry in self.entries:
            self.spire.delete(entry)
        long_lived = [self.spire.register("/ns/default/sa/web", uid=PROXY_UID, ttl=3600, hint="web2"),
                      self.spire.register("/ns/default/sa/api", uid=PROXY_UID, ttl=3600, hint="api2")]
        for sidecar, hint in ((self.web_sidecar, "web2"), (self.api_sidecar, "api2")):
            sidecar.stop()
            sidecar.configure(identity={"workloadApi": {"hint": hint}})
            sidecar.start(env={"SPIFFE_ENDPOINT_SOCKET": self.spire.endpoint})
            self.wait_adopted(sidecar)
        for entry in long_lived:
            self.spire.delete(entry)
        for sidecar in (self.web_sidecar, self.api_sidecar):
            sidecar.process.wait_for_output(r'"identity_warning".*PERMISSION_DENIED', SLOW)
        count = len(self.adopted(self.web_sidecar))
        self.call(self.web, self.api.v4, 7000)
        self.assertEqual(len(self.adopted(self.web_sidecar)), count)
        self.assertEqual(self.web_sidecar.health("/readyz")[0], 200)


# ctest: stage spire
# ctest: release only
class ModuleTest(unittest.TestCase):
    """gRPC is in the memory of those sidecars only that are told to use it."""

    def mapped(self, process):
        with open(f"/proc/{process.pid}/maps", encoding="ascii") as file:
            return {os.path.basename(line.split()[-1]) for line in file if ".so" in line}

    def test_only_when_configured(self):
        needed = run(["ldd", program("postern-proxy")], check=True).stdout
        self.assertIn("libssl", needed)
        self.assertNotRegex(needed, "grpc|protobuf|absl|cares")

        cluster = Cluster()
        self.addCleanup(cluster.close)
        files = cluster.pod("files", sidecar=True, app="files")
        other = cluster.net.pod("other")
        cluster.publish(wait=False)
        cluster.start()
        seen = self.mapped(cluster.sidecars["files"].process)
        self.assertFalse([name for name in seen if re.search("grpc|protobuf|absl|postern-workload", name)], seen)

        # Nobody listens there: the sidecar runs, says so and waits.
        endpoint = f"unix://{cluster.net.folder}/nobody.sock"
        config = {"identity": {"workloadApi": {"enabled": True, "socket": endpoint}}}
        asking = Sidecar(other, None, None, trust_domain="example.org", config=config)
        asking.start()
        asking.process.wait_for_output(r'"identity_rejected".*UNAVAILABLE', SLOW)
        seen = self.mapped(asking.process)
        self.assertIn("postern-workload-api.so", seen)
        self.assertTrue([name for name in seen if name.startswith("libgrpc")], seen)
        self.assertNotEqual(asking.health("/readyz")[0], 200)
        self.assertEqual(asking.stop(), 0)


# ctest: timeout 300
# ctest: stage spire
# ctest: release only
class GoSpiffeTest(SpireCase):
    """web has a sidecar; partner has none and uses go-spiffe. Each calls the other, and each is refused when it should be."""

    PARTNER_UID, STRANGER_UID = 2001, 2002

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.spire.register("/ns/default/sa/web", uid=PROXY_UID)
        cls.spire.register("/ns/default/sa/partner", uid=cls.PARTNER_UID)
        cls.spire.register("/ns/default/sa/stranger", uid=cls.STRANGER_UID)
        cls.web = cls.sidecar("web", annotations={"postern.dev/mtls": "7000=spiffe"})
        cls.partner = cls.cluster.net.pod("partner")
        cls.stranger = cls.cluster.net.pod("stranger")
        for name, pod in (("partner", cls.partner), ("stranger", cls.stranger)):
            cls.cluster.records[name] = pod_object(pod, account=name, meshed=False, app=name, annotations={"postern.dev/mtls": "8443=spiffe"})
        cls.app = cls.cluster.app(cls.web, 7000)
        cls.cluster.publish(wait=False)
        cls.cluster.start()
        cls.web_sidecar = cls.cluster.sidecars["web"]
        cls.web_sidecar.process.wait_for_output('"identity_adopted"', SLOW)
        cls.server = cls.spire.peer(cls.partner, "serve", address=f"{cls.partner.v4}:8443", authorize="/ns/default/sa/web", uid=cls.PARTNER_UID)
        cls.server.wait_for_output("listening", SLOW)

    def outbound(self):
        """One line from web's application to partner: what came back, and the record."""
        own, got = knock(self.web, self.partner.v4, 8443, b"hello\n")
        return got, self.web_sidecar.wait_record(direction="outbound", **{"source.port": own})

    def inbound(self, pod, uid):
        """go-spiffe's client in that pod calls web: its output, and the record."""
        before = len(self.web_sidecar.records(direction="inbound"))
        client = self.spire.peer(pod, "call", address=f"{self.web.v4}:7000", authorize="/ns/default/sa/web", uid=uid, send="good day")
        status = client.wait(SLOW)
        return status, client.output(), self.web_sidecar.wait_record(direction="inbound", count=before + 1)

    def test_our_sidecar_calls_a_go_spiffe_server(self):
        self.cluster.publish(policy("web-out", egress=[allow(8443, app="partner")], app="web"))
        got, record = self.outbound()
        self.assertEqual(got, b"echo: hello\n", record)
        self.assertEqual((record["destination.spiffe_id"], record["close.reason"]), (self.spire.id_of("/ns/default/sa/partner"), "finished"), record)
        self.server.wait_for_output(f"accepted: {self.spire.id_of('/ns/default/sa/web')} alpn: \"\"\n")

    def test_what_policy_does_not_allow_stays_here(self):
        self.cluster.publish(policy("web-out", egress=[allow(8443, app="nobody")], app="web"))
        served = self.server.output().count("accepted:")
        got, record = self.outbound()
        self.assertEqual((got, record["close.reason"]), ("reset", "denied"), record)
        self.assertEqual(self.server.output().count("accepted:"), served)

    def test_a_go_spiffe_server_that_wants_another_refuses_us(self):
        self.cluster.publish()
        picky = self.spire.peer(self.stranger, "serve", address=f"{self.stranger.v4}:8443", authorize="/ns/default/sa/nobody", uid=self.STRANGER_UID)
        picky.wait_for_output("listening", SLOW)
        self.assertIn(knock(self.web, self.stranger.v4, 8443)[1], ("reset", "fin"))
        picky.wait_for_output("refused: .*unexpected ID")

    def test_a_go_spiffe_server_with_another_identity_gets_nothing(self):
        """partner's address answers with stranger's SVID."""
        self.cluster.publish()
        impostor = self.spire.peer(self.partner, "serve", address=f"{self.partner.v4}:8444", authorize="/ns/default/sa/web", uid=self.STRANGER_UID)
        impostor.wait_for_output("listening", SLOW)
        self.cluster.records["partner"]["metadata"]["annotations"]["postern.dev/mtls"] = "8443=spiffe,8444=spiffe"
        self.cluster.publish()
        own, how = knock(self.web, self.partner.v4, 8444)
        self.assertEqual(how, "reset")
        record = self.web_sidecar.wait_record(direction="outbound", **{"source.port": own})
        self.assertEqual(record["close.reason"], "identity_mismatch", record)

    def test_a_go_spiffe_client_calls_our_sidecar(self):
        self.cluster.publish(policy("web-in", ingress=[allow(7000, app="partner")], app="web"))
        status, said, record = self.inbound(self.partner, self.PARTNER_UID)
        self.assertEqual((status, said), (0, f"connected: {self.spire.id_of('/ns/default/sa/web')}\nanswer: good day\n"), record)
        self.assertEqual((record["source.spiffe_id"], record["close.reason"]), (self.spire.id_of("/ns/default/sa/partner"), "finished"), record)

    def test_a_go_spiffe_client_that_policy_does_not_allow_is_refused(self):
        self.cluster.publish(policy("web-in", ingress=[allow(7000, app="partner")], app="web"))
        accepted = self.app.accepted
        status, said, record = self.inbound(self.stranger, self.STRANGER_UID)
        self.assertEqual(status, 1, said)
        self.assertRegex(said, "failed: .*(reset by peer|broken pipe)")  # Go takes a FIN without close_notify for a clean end
        self.assertEqual((record["source.spiffe_id"], record["close.reason"]), (self.spire.id_of("/ns/default/sa/stranger"), "denied"), record)
        self.assertEqual(self.app.accepted, accepted)

    def test_an_account_counts_only_from_an_address_of_its_pods(self):
        """partner's SVID, from stranger's address: architecture section 3."""
        self.cluster.publish(policy("web-in", ingress=[allow(7000, app="partner"), allow(7000, app="stranger")], app="web"))
        accepted = self.app.accepted
        status, said, record = self.inbound(self.stranger, self.PARTNER_UID)
        self.assertEqual(status, 1, said)
        self.assertRegex(said, "failed: .*(reset by peer|broken pipe)")
        self.assertEqual((record["close.reason"], record["close.detail"]), ("identity_unknown", "address_mismatch"), record)
        self.assertEqual(self.app.accepted, accepted)


if __name__ == "__main__":
    unittest.main()


# ctest: timeout 300
# ctest: stage spire
# ctest: release only
class FederationTest(SpireCase):
    """Bundles of other trust domains: SPIRE gives one to our sidecar by its Workload API; and our control plane asks SPIRE's bundle endpoint."""

    def test_a_federated_bundle_of_the_workload_api(self):
        partner = Authority(f"{self.cluster.net.folder}/partner", "partner.example")
        self.spire.set_bundle("partner.example", partner.certificate)
        self.spire.register("/ns/default/sa/api", uid=PROXY_UID, federates_with="partner.example")
        api = self.sidecar("api", annotations={"postern.dev/mtls": "7000=spiffe"})
        self.cluster.app(api, 7000)
        self.cluster.namespace["metadata"]["annotations"] = {"postern.dev/allow-trust-domain": "partner.example"}
        self.cluster.publish(wait=False)
        sidecar = self.cluster.sidecars["api"]
        sidecar.start()
        self.wait_adopted(sidecar)
        wait_until(lambda: "partner.example" in {b["trust_domain"] for b in sidecar.admin("GET", "/identities")[1]["bundles"]}, SLOW,
                   lambda: sidecar.output()[-3000:])
        caller = self.cluster.net.pod("caller")
        with Peer.connect(caller, api.v4, 7000, partner.issue("spiffe://partner.example/billing"), alpn=(), verify=False) as peer:
            peer.send(b"ping")
            self.assertEqual(peer.recv(4), b"ping")
        into = sidecar.wait_record(direction="inbound", **{"source.spiffe_id": "spiffe://partner.example/billing"})
        self.assertEqual(into["verdict"], "FORWARDED", into)

    def test_the_bundle_endpoint_of_a_spire_server(self):
        port = free_port()
        other = Spire(f"{self.cluster.net.folder}/other", "other.example", endpoint_port=port)
        self.addCleanup(other.stop)
        kube = KubeServer(f"{self.cluster.net.folder}/kube")
        self.addCleanup(kube.stop)
        kube.api().namespace("postern-system")
        control = Control(f"{self.cluster.net.folder}/control", kube.kubeconfig, Authority(f"{self.cluster.net.folder}/mesh", "cluster.local"))
        bundle = f"{control.folder}/other.pem"
        with open(other.folder / "bundle.pem", encoding="ascii") as source, open(bundle, "w", encoding="ascii") as file:
            file.write(source.read())
        control.config["federatedBundles"] = [{"trustDomain": "other.example", "endpoint": f"https://127.0.0.1:{port}", "profile": "https_spiffe",
                                               "endpointSpiffeId": other.id_of("/spire/server"), "endpointBundle": bundle}]
        control.start(wait=False)
        self.addCleanup(control.kill)
        control.process.wait_for_output('"federated_bundle_retrieved".*"trust_domain":"other.example","authorities":"1".*"next_in_s":"10"', SLOW)
