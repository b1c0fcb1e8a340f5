"""Plaintext, the node, applications' own TLS, and ports marked for peers that speak SPIFFE mTLS by themselves."""

import socket
import ssl
import unittest

from kit.cluster import Cluster, allow, gone, knock, policy
from kit.peer import Ended, Peer, PeerListener, Reset, Truncated, client_hello, connect_as, context
from kit.pki import Authority
from kit.sidecar import PROXY_UID
from kit.waiting import patience

NODE = "10.77.0.200"


def greet(connection):
    """A protocol in which the server speaks first."""
    connection.sendall(b"220 ready\r\n")
    while connection.recv(65536):
        pass


class PlaintextCase(unittest.TestCase):
    """web and api have sidecars; plain and node have none; api's record says what a test's class wants."""

    API = {}
    CONFIG = {"limits": {"peekTimeout": f"{patience(5):g}s", "handshakeTimeout": f"{patience(2):g}s", "connectTimeout": f"{patience(2):g}s"},
              "mesh": {"clusterCidrs": ["10.77.0.0/24", "fd77::/64"], "nodeAddresses": [NODE]}}

    @classmethod
    def setUpClass(cls):
        cls.cluster = cluster = Cluster(config=cls.CONFIG)
        cls.addClassCleanup(cluster.close)
        cls.web = cluster.pod("web", sidecar=True, app="web")
        cls.api = cluster.pod("api", sidecar=True, app="api", **cls.API)
        cls.plain = cluster.pod("plain", meshed=False, app="plain")
        cls.node = cluster.pod("node", record=False, addresses=[NODE])
        cls.app, cls.server_first = cluster.app(cls.api, 7000), cluster.app(cls.api, 7025, greet)
        cls.outer = cluster.app(cls.plain, 7000), cluster.app(cls.plain, 7025, greet)
        cls.web_sidecar, cls.sidecar = cluster.sidecars["web"], cluster.sidecars["api"]
        cls.publish()
        cls.connect_pods()
        cluster.start()

    @classmethod
    def connect_pods(cls):
        """For a class that wants another network, before the sidecars start."""

    @classmethod
    def publish(cls, *more):
        cls.cluster.publish(*more)

    def call(self, pod, target, port=7000, data=b"ping", *, inbound=None, outbound=None, **how):
        """One connection by the pod's application, ended by it, and its records at both ends (those that are asked for)."""
        with pod.connect(target, port, **how) as s:
            s.sendall(data)
            got = gone(s)
            if isinstance(got, bytes):
                s.shutdown(socket.SHUT_WR)
                while isinstance(more := gone(s), bytes):
                    got += more
                self.assertEqual(more, "fin")
            port = s.getsockname()[1]
        found = []
        if outbound is not None:
            found.append(outbound.wait_record(direction="outbound", **{"source.port": port}))
        if inbound is not None:
            # The source's sidecar connects from a port of its own.
            if outbound is None:
                found.append(inbound.wait_record(direction="inbound", **{"source.port": port}))
            else:
                found.append(inbound.wait_record(direction="inbound", **{"connection.id": found[0]["connection.id"],
                                                                         "connection.stream": found[0]["connection.stream"]}))
        return (got, *found)

    def refused(self, reason, pod, target, port=7000, *, sidecar, direction="inbound", data=b"evil", uid=0):
        """Reset, and the record says why; nothing was carried."""
        own, how = knock(pod, target, port, data, uid=uid)
        self.assertEqual(how, "reset")
        found = sidecar.wait_record(direction=direction, **{"source.port": own})
        self.assertEqual((found["close.reason"], found["verdict"], found["bytes_sent"]), (reason, "DROPPED", 0), found)
        return found


class StrictTest(PlaintextCase):
    """strict is the default: plaintext is nobody's identity."""

    def test_plaintext_counts_for_ipblock_rules_only(self):
        self.publish(policy("by-label", app="api", ingress=[allow(7000, app="plain")]))
        found = self.refused("denied", self.plain, self.api.v4, sidecar=self.sidecar)
        self.assertEqual(found["policy.basis"], "no_rule")
        self.assertNotIn("identity", found)
        self.publish(policy("by-block", app="api", ingress=[allow(7000, block=f"{self.plain.v4}/32")]))
        got, found = self.call(self.plain, self.api.v4, inbound=self.sidecar)
        self.assertEqual(got, b"ping")
        self.assertEqual((found["close.reason"], found["verdict"], found["plaintext"], found["tls.established"]),
                         ("finished", "FORWARDED", True, False))
        self.assertEqual(found["policy.enforced"][0]["name"], "by-block")
        self.assertEqual((found["bytes_sent"], found["bytes_recv"]), (4, 4))
        self.assertFalse({"identity", "source.spiffe_id", "connection.id"} & set(found))
        self.publish(policy("anybody", app="api", ingress=[allow(7000, everybody=True)]))
        self.assertEqual(self.call(self.plain, self.api.v6, inbound=self.sidecar)[0], b"ping")

    def test_plaintext_of_a_meshed_address_is_refused_whatever_the_policy(self):
        self.publish(policy("anybody", app="api", ingress=[allow(everybody=True)]))
        accepted = self.app.accepted
        with connect_as(self.web, self.api.v4, 7000) as s:
            s.sendall(b"ping ping ping")
            found = self.sidecar.wait_record(direction="inbound", **{"source.port": s.getsockname()[1]})
        self.assertEqual((found["close.reason"], found["verdict"]), ("handshake_failed", "DROPPED"))
        self.assertEqual(self.app.accepted, accepted)

    def test_where_a_meshed_pod_is_excluded_from_interception_plaintext_is_still_refused(self):
        record = self.cluster.records["web"]["metadata"]["annotations"]
        record["postern.dev/exclude-outbound-ports"] = "7000"
        self.addCleanup(record.pop, "postern.dev/exclude-outbound-ports")
        self.publish(policy("anybody", app="api", ingress=[allow(everybody=True)]))
        self.refused("plaintext_refused", self.web, self.api.v4, sidecar=self.sidecar, uid=PROXY_UID)

    def test_a_destination_without_a_sidecar_gets_plaintext_if_egress_permits(self):
        self.publish()
        got, found = self.call(self.web, self.plain.v4, outbound=self.web_sidecar)
        self.assertEqual(got, b"ping")
        self.assertEqual((found["plaintext"], found["verdict"], found["policy.basis"]), (True, "FORWARDED", "not_isolated"))
        self.publish(policy("by-label", app="web", egress=[allow(7000, app="plain")]))
        found = self.refused("denied", self.web, self.plain.v4, sidecar=self.web_sidecar, direction="outbound")
        self.assertEqual(found["policy.basis"], "no_rule")
        self.publish(policy("by-block", app="web", egress=[allow(7000, block="10.77.0.0/24"), allow(7000, block="fd77::/64")]))
        for address in self.plain.addresses():
            got, found = self.call(self.web, address, outbound=self.web_sidecar)
            self.assertEqual((got, found["policy.enforced"][0]["name"]), (b"ping", "by-block"))

    def test_server_first_in_plaintext_is_not_delayed(self):
        self.publish()
        for pod, target, log, direction in ((self.plain, self.api, self.sidecar, "inbound"), (self.web, self.plain, self.web_sidecar, "outbound"),
                                            (self.web, self.api, self.web_sidecar, "outbound")):
            for address in target.addresses():
                with pod.connect(address, 7025) as s:
                    self.assertEqual(s.recv(100), b"220 ready\r\n")
                    port = s.getsockname()[1]
                found = log.wait_record(direction=direction, **{"source.port": port})
                self.assertLess(found["duration_ms"], patience(2000))  # peekTimeout is much longer

    def test_a_destination_inside_the_cluster_that_nobody_knows_is_refused(self):
        self.publish()
        self.refused("destination_unknown", self.web, "10.77.0.222", sidecar=self.web_sidecar, direction="outbound")

    def test_an_applications_own_tls_passes_untouched_inside_ours(self):
        self.publish(policy("api-allow", app="api", ingress=[allow(7443, app="web")]))
        own = Authority(f"{self.cluster.net.folder}/apps-ca", "apps.example")
        svid = own.issue("spiffe://apps.example/api")
        done = []
        def serve(connection):
            peer = Peer(connection, context(svid, server=True, alpn=("h2",), verify=False), server=True)
            peer.handshake()
            done.append(peer.alpn)
            peer.send(peer.recv())
            peer.close_notify()
        self.cluster.app(self.api, 7443, serve)
        with Peer.connect(self.web, self.api.v4, 7443, svid, alpn=("h2",), uid=0) as peer:
            self.assertEqual(peer.tls.getpeercert(True), ssl.PEM_cert_to_DER_cert(svid.chain))
            peer.send(b"secret")
            self.assertEqual(peer.recv(), b"secret")
            port = peer.sock.getsockname()[1]
        self.assertEqual(done, ["h2"])
        out = self.web_sidecar.wait_record(direction="outbound", **{"source.port": port})
        into = self.sidecar.wait_record(direction="inbound", **{"connection.id": out["connection.id"]})
        self.assertTrue(out["tls.established"] and into["tls.established"])
        self.assertNotIn("plaintext", into)
        self.assertEqual((out["bytes_sent"], out["bytes_recv"]), (into["bytes_sent"], into["bytes_recv"]))


class PermissiveTest(PlaintextCase):
    """permissive: for migration, an address may stand for its pod."""

    API = {"annotations": {"postern.dev/mtls": "permissive,7025=strict"}}

    @classmethod
    def publish(cls, *more):
        cls.cluster.publish(policy("by-label", app="api", ingress=[allow(app="plain")]), *more)

    def test_an_address_counts_as_its_pod_and_the_record_says_so(self):
        got, found = self.call(self.plain, self.api.v4, inbound=self.sidecar)
        self.assertEqual(got, b"ping")
        self.assertEqual((found["identity"], found["verdict"], found["source.k8s.pod"], found["plaintext"]), ("address", "FORWARDED", "plain", True))
        self.assertNotIn("source.spiffe_id", found)

    def test_a_mode_can_be_of_a_port(self):
        self.refused("denied", self.plain, self.api.v4, 7025, sidecar=self.sidecar)

    def test_a_meshed_address_must_speak_tls_even_so(self):
        with connect_as(self.web, self.api.v4, 7000) as s:
            s.sendall(b"ping ping ping")
            found = self.sidecar.wait_record(direction="inbound", **{"source.port": s.getsockname()[1]})
        self.assertEqual((found["close.reason"], found["verdict"]), ("handshake_failed", "DROPPED"))


class NodeCase(PlaintextCase):
    """The pod's own node: it probes port 7000 itself, and 7001 through the sidecar, as the injector has it; nothing names 7002."""

    API = {"containers": [{"name": "app", "image": "app", "ports": [{"name": "http", "containerPort": 7000}],
                           "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
                           "readinessProbe": {"httpGet": {"path": "/app-probe/7001", "port": 15020}}}]}
    TRAFFIC = "probes"
    ADDRESSES = [NODE]

    @classmethod
    def setUpClass(cls):
        cls.CONFIG = {**PlaintextCase.CONFIG, "mesh": {**PlaintextCase.CONFIG["mesh"], "nodeTraffic": cls.TRAFFIC, "nodeAddresses": cls.ADDRESSES}}
        super().setUpClass()
        for port in (7001, 7002):
            cls.cluster.app(cls.api, port)

    @classmethod
    def publish(cls, *more):
        cls.cluster.publish(policy("nobody", app="api", ingress=[]), *more)

    def from_node(self, port, basis):
        """Whether the node reaches that port: by this basis, or (None) not."""
        if basis is None:
            self.assertEqual(knock(self.node, self.api.v4, port, source=NODE)[1], "reset")
            found = self.sidecar.wait_record(direction="inbound", **{"source.address": NODE, "destination.port": port})
            self.assertEqual((found["close.reason"], found["verdict"]), ("denied", "DROPPED"))
            return
        got, found = self.call(self.node, self.api.v4, port, inbound=self.sidecar, source=NODE)
        self.assertEqual(got, b"ping")
        self.assertEqual((found["verdict"], found["policy.basis"], found["plaintext"]), ("FORWARDED", basis, True))


class NodeProbesTest(NodeCase):
    """nodeTraffic: probes, the default."""

    def test_the_port_of_a_probe_is_reached(self):
        self.from_node(7000, "node_probe")

    def test_any_other_port_is_not(self):
        self.from_node(7001, None)  # whoever comes to it from the node's address is not the kubelet
        self.from_node(7002, None)

    def test_another_address_gets_nothing_by_that(self):
        self.refused("denied", self.plain, self.api.v4, sidecar=self.sidecar)

    def test_app_probe_answers_for_ports_of_probes_only(self):
        self.assertEqual(self.sidecar.health("/app-probe/7000", pod=self.node)[0], 200)
        self.assertEqual(self.sidecar.health("/app-probe/7001", pod=self.node)[0], 200)
        self.assertEqual(self.sidecar.health("/app-probe/7002", pod=self.node)[0], 404)
        self.assertEqual(self.sidecar.health("/app-probe/22", pod=self.node)[0], 404)


class NodeGatewayTest(NodeCase):
    """Behind a bridge, the node is to the pod its default gateway: nothing else says so."""

    ADDRESSES = []

    @classmethod
    def connect_pods(cls):
        cls.api.run(["ip", "route", "replace", "default", "via", NODE, "dev", "eth0"], check=True)

    def test_the_port_of_a_probe_is_reached(self):
        self.from_node(7000, "node_probe")

    def test_any_other_port_is_not(self):
        self.from_node(7001, None)


class NodeAllTest(NodeCase):
    """nodeTraffic: all."""

    TRAFFIC = "all"

    def test_every_port_is_reached(self):
        self.from_node(7000, "node")
        self.from_node(7001, "node")


class NodeNoneTest(NodeCase):
    """nodeTraffic: none."""

    TRAFFIC = "none"

    def test_no_port_is_reached(self):
        self.from_node(7000, None)
        self.from_node(7001, None)


class PlainSpiffeTest(PlaintextCase):
    """Peers that speak SPIFFE mTLS by themselves, with no sidecar of ours: a port marked for them, and a destination marked so."""

    API = {"annotations": {"postern.dev/mtls": "8443=spiffe,8444=spiffe"}}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.spiffe_app = cls.cluster.app(cls.api, 8443)
        cls.plain_svid = cls.cluster.svid(cls.plain)
        cls.cluster.records["plain"]["metadata"]["annotations"]["postern.dev/mtls"] = "8443=spiffe"
        cls.publish()

    @classmethod
    def publish(cls, *more):
        cls.cluster.publish(policy("by-label", app="api", ingress=[allow(app="plain")]), *more)

    def connect(self, svid, pod=None, port=8443, **options):
        return Peer.connect(pod or self.plain, self.api.v4, port, svid, alpn=(), **options)

    def test_an_allowed_identity_without_our_alpn_is_served(self):
        with self.connect(self.plain_svid) as peer:
            peer.send(b"ping")
            self.assertEqual(peer.exactly(4), b"ping")
            peer.close_notify()
            peer.fin()
            self.assertIsInstance(peer.end(), (Ended, Truncated, ssl.SSLError))
            found = self.sidecar.wait_record(direction="inbound", **{"source.port": peer.sock.getsockname()[1]})
        self.assertEqual((found["close.reason"], found["verdict"], found["identity"], found["source.spiffe_id"]),
                         ("finished", "FORWARDED", "tls", self.plain_svid.spiffe_id), found)
        self.assertIn("connection.id", found)
        self.assertNotIn("connection.stream", found)

    def test_an_identity_that_is_not_allowed_is_refused(self):
        accepted = self.spiffe_app.accepted
        with self.connect(self.cluster.svid(self.web)) as peer:
            # Never a close_notify, nor a FIN alone, which Go's TLS takes for one: either would say that all is well.
            self.assertIsInstance(peer.end(), Reset)
            found = self.sidecar.wait_record(direction="inbound", **{"source.port": peer.sock.getsockname()[1]})
        self.assertEqual((found["close.reason"], found["verdict"]), ("denied", "DROPPED"))
        self.assertEqual(self.spiffe_app.accepted, accepted)

    def test_an_application_that_is_not_there_is_a_reset(self):
        with self.connect(self.plain_svid, port=8444) as peer:
            self.assertIsInstance(peer.end(), Reset)
            found = self.sidecar.wait_record(direction="inbound", **{"source.port": peer.sock.getsockname()[1]})
        self.assertEqual((found["close.reason"], found["verdict"]), ("app_unreachable", "FORWARDED"), found)

    def test_without_a_certificate_it_is_refused(self):
        with self.connect(None) as peer:
            self.assertIsInstance(peer.end(), ssl.SSLError)
            found = self.sidecar.wait_record(direction="inbound", **{"source.port": peer.sock.getsockname()[1]})
        self.assertEqual(found["close.reason"], "certificate_required")

    def test_plaintext_at_that_port_counts_for_nothing(self):
        accepted = self.spiffe_app.accepted
        with self.plain.connect(self.api.v4, 8443) as s:
            s.sendall(b"GET / HTTP/1.1\r\n\r\n")
            self.assertEqual(gone(s), "reset")
            found = self.sidecar.wait_record(direction="inbound", **{"source.port": s.getsockname()[1]})
        self.assertEqual((found["close.reason"], found["verdict"]), ("denied", "DROPPED"))
        self.assertEqual(self.spiffe_app.accepted, accepted)

    def test_at_any_other_port_our_alpn_is_required(self):
        with connect_as(self.web, self.api.v4, 7000) as s:
            s.sendall(client_hello(alpn=("h2",)))
            found = self.sidecar.wait_record(direction="inbound", **{"source.port": s.getsockname()[1]})
        self.assertEqual(found["close.reason"], "alpn_mismatch")

    def test_a_truncation_is_a_reset_at_the_application(self):
        ended = len(self.spiffe_app.ends)
        with self.connect(self.plain_svid) as peer:
            peer.send(b"ping")
            self.assertEqual(peer.exactly(4), b"ping")
            peer.fin()
            found = self.sidecar.wait_record(direction="inbound", **{"source.port": peer.sock.getsockname()[1]})
        self.assertEqual(found["close.reason"], "truncated")
        self.assertEqual(self.spiffe_app.wait_end(ended + 1), "reset")

    def test_our_application_reaches_a_server_that_speaks_plain_spiffe_mtls(self):
        with PeerListener(self.plain, 8443, self.plain_svid, alpn=()) as listener, self.web.connect(self.plain.v4, 8443) as s:
            with listener.accept() as peer:
                s.sendall(b"ping")
                self.assertEqual(peer.exactly(4), b"ping")
                peer.send(b"pong")
                self.assertEqual(s.recv(4), b"pong")
                s.shutdown(socket.SHUT_WR)
                self.assertIsInstance(peer.end(), Ended)
                peer.close_notify()
                peer.fin()
                self.assertEqual(gone(s), "fin")
            found = self.web_sidecar.wait_record(direction="outbound", **{"source.port": s.getsockname()[1]})
        self.assertEqual((found["close.reason"], found["verdict"], found["destination.spiffe_id"], found["identity"]),
                         ("finished", "FORWARDED", self.plain_svid.spiffe_id, "tls"), found)

    def test_a_server_with_anothers_identity_gets_nothing_of_the_application(self):
        with PeerListener(self.plain, 8443, self.cluster.svid(self.api), alpn=()) as listener, self.web.connect(self.plain.v4, 8443) as s:
            s.sendall(b"secret")
            for _ in range(2):  # a mismatch resolves again once
                with listener.accept(handshake=False) as peer:
                    self.assertIsInstance(peer.end(), Reset)  # a close_notify would say that the caller had nothing to send
            self.assertEqual(gone(s), "reset")
            found = self.web_sidecar.wait_record(direction="outbound", **{"source.port": s.getsockname()[1]})
        self.assertEqual((found["close.reason"], found["bytes_sent"]), ("identity_mismatch", 0))


if __name__ == "__main__":
    unittest.main()
