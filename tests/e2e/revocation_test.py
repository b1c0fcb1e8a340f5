"""Revocation at the speed of the topology: a pod that is gone, relabelled or another one now, and identities on the mesh's deny-list, end on live
connections, on resumed sessions and on recycled connections; a real API server says so."""

import json
import unittest

from kit.cluster import Cluster, allow, gone, policy
from kit.controlled import PORT, ControlledMesh
from kit.peer import ACCEPTED, DENIED, END, END_TYPE, IDENTITY_DENIED, UID_MISMATCH, Ended, Peer, context
from kit.pki import openssl
from kit.waiting import wait_until


def serial_of(svid):
    """As the access log's tools print it."""
    return openssl("x509", "-noout", "-serial", stdin=svid.chain).strip().split("=")[1]


class RevocationCase(unittest.TestCase):
    """web and other (sidecars) call api (sidecar); the objects of a real API server decide."""

    @classmethod
    def setUpClass(cls):
        cls.mesh = ControlledMesh("web", "other", "api", replicas=1)
        cls.addClassCleanup(cls.mesh.close)
        cls.api = cls.mesh.api
        cls.sidecar = cls.mesh.sidecars["api"]

    def open(self, source, target="api"):
        s = self.mesh.open(source, target)
        self.addCleanup(s.close)
        return s

    def alive(self, s):
        s.sendall(b"pong")
        self.assertEqual(s.recv(4), b"pong")

    def both(self, s, source, target="api"):
        """The records of both sides."""
        out = self.mesh.sidecars[source].wait_record(direction="outbound", **{"source.port": s.getsockname()[1]})
        same = {name: out[name] for name in ("connection.id", "connection.stream")}
        return out, self.mesh.sidecars[target].wait_record(direction="inbound", **same)

    def cut(self, s, source, target="api", reason="policy_changed"):
        """Both records say why."""
        self.assertEqual(gone(s), "reset")
        out, into = self.both(s, source, target)
        self.assertEqual((out["close.reason"], into["close.reason"]), (reason, reason), (out, into))
        return out, into

    def stream(self, peer):
        """One whole stream on a raw connection."""
        self.assertEqual(peer.open(b"ping"), (ACCEPTED, 0))
        self.assertEqual(peer.data(4), b"ping")
        peer.send(END)
        self.assertEqual(peer.frame(), (END_TYPE, b""))


# ctest: timeout 240
class DenyListTest(RevocationCase):
    """denied in the mesh's ConfigMap."""

    def setUp(self):
        self.addCleanup(self.allow_all)

    def deny(self, **denied):
        self.api.config_map("postern", "postern-system", {"mesh.yaml": json.dumps({"denied": denied})})

    def allow_all(self):
        self.deny()
        for source in ("web", "other"):
            self.mesh.wait_allowed(source, "api")

    def web_id(self):
        return self.mesh.sidecars["web"].spiffe_id

    def test_a_denied_spiffe_id_is_cut_and_refused_and_nobody_else_is(self):
        web, other = self.open("web"), self.open("other")
        outwards = self.open("api", "web")
        self.deny(spiffeIds=[self.web_id()])
        self.cut(web, "web", reason="identity_denied")
        self.cut(outwards, "api", "web", reason="identity_denied")
        self.alive(other)
        self.assertEqual(self.mesh.reach("web", "api"), "reset")
        refused = self.sidecar.wait_record(direction="inbound", verdict="DROPPED", **{"close.reason": "identity_denied"})
        self.assertEqual((refused["close.detail"], refused["source.spiffe_id"]), ("spiffe_id", self.web_id()), refused)
        told = self.mesh.sidecars["web"].wait_record(direction="outbound", **{"close.reason": "peer_denied"})
        self.assertEqual(told["close.detail"], "identity_denied")
        self.assertEqual(self.mesh.reach("api", "web"), "reset", "nor is it called any more")
        mine = self.sidecar.wait_record(direction="outbound", verdict="DROPPED", **{"close.reason": "identity_denied"})
        self.assertEqual(mine["close.detail"], "spiffe_id")

    def test_a_denied_serial_is_one_certificate(self):
        web = self.open("web")
        svid = self.mesh.authority.issue(self.web_id())
        sidecar = self.mesh.sidecars["web"]
        serial = sidecar.admin("GET", "/identities")[1]["serial"]
        self.deny(serials=[":".join(serial[i:i + 2].lower() for i in range(0, len(serial), 2))])
        out, into = self.cut(web, "web", reason="identity_denied")
        self.assertIn("proxy", (out["close.by"], into["close.by"]))
        self.assertEqual(self.mesh.reach("web", "api"), "reset")
        self.assertEqual(self.sidecar.wait_record(verdict="DROPPED", **{"close.detail": "serial"})["close.reason"], "identity_denied")
        sidecar.rotate(svid)
        self.mesh.wait_allowed("web", "api")
        # Nor is the stream shut to it, although it has a ticket of the denied certificate.
        wait_until(lambda: self.mesh.serving("web") is not None, 30, self.mesh.said)

    def test_a_resumed_session_and_a_recycled_connection_are_no_way_around(self):
        tls = context(self.mesh.svid("web"))
        pod, address = self.mesh.pods["web"], self.mesh.pods["api"].v4
        with Peer.connect(pod, address, PORT, None, tls_context=tls) as recycled:
            self.stream(recycled)
            session = recycled.session
            self.deny(spiffeIds=[self.web_id()])
            self.assertIsInstance(recycled.end(), Ended, "the idle connection is closed")
        with Peer.connect(pod, address, PORT, None, tls_context=tls, session=session) as resumed:
            self.assertEqual(resumed.open(b"evil"), (DENIED, IDENTITY_DENIED))
            self.assertTrue(resumed.resumed)
            found = self.sidecar.wait_record(**{"source.port": resumed.sock.getsockname()[1]})
        self.assertEqual((found["close.reason"], found["tls.resumed"]), ("identity_denied", True), found)

    def test_a_denied_sidecar_gets_no_stream(self):
        self.deny(spiffeIds=[self.web_id()])
        wait_until(lambda: self.mesh.serving("web") is None, what=self.mesh.said)
        wait_until(lambda: "deny-list" in self.mesh.replicas[0].output(), what=self.mesh.said)
        self.assertIsNotNone(self.mesh.serving("other"))

    def test_a_list_that_cannot_be_read_changes_nothing_and_is_said(self):
        self.deny(spiffeIds=[self.web_id()])
        self.mesh.wait_denied("web", "api")
        self.deny(spiffeIds=["web"])
        wait_until(lambda: "denied.spiffeIds" in self.mesh.replicas[0].output(), what=self.mesh.said)
        self.assertEqual(self.mesh.reach("web", "api"), "reset")


# ctest: timeout 240
class TopologyTest(RevocationCase):
    """Pods that are deleted, relabelled, or others of the same name."""

    def test_a_deleted_pod_is_cut_on_the_side_that_it_called(self):
        self.mesh.add("short")
        self.mesh.sidecars["short"].start()
        self.mesh.sidecars["short"].wait_ready()
        self.mesh.wait_allowed("short", "api")
        live, bystander = self.open("short"), self.open("web")
        self.api.delete("Pod", "short", "default")
        self.assertEqual(gone(live), "reset")
        _, into = self.both(live, "short")
        self.assertEqual((into["close.reason"], into["source.k8s.pod"]), ("policy_changed", "short"), into)
        self.alive(bystander)
        with Peer.connect(self.mesh.pods["short"], self.mesh.pods["api"].v4, PORT, self.mesh.svid("short")) as peer:
            self.assertEqual(peer.open(b"evil")[0], DENIED)

    def test_a_deleted_pod_is_cut_on_the_side_that_called_it(self):
        self.mesh.add("server")
        self.mesh.sidecars["server"].start()
        self.mesh.sidecars["server"].wait_ready()
        self.mesh.wait_allowed("web", "server")
        live = self.open("web", "server")
        self.api.delete("Pod", "server", "default")
        self.assertEqual(gone(live), "reset")
        out = self.mesh.sidecars["web"].wait_record(direction="outbound", **{"source.port": live.getsockname()[1]})
        self.assertEqual(out["close.reason"], "policy_changed", out)

    def test_changed_labels_are_decided_again_on_both_sides(self):
        self.addCleanup(self.api.delete, "NetworkPolicy", "rule", "default", missing_ok=True)
        self.addCleanup(self.api.label, "Pod", "web", {"role": None}, "default")
        self.addCleanup(self.api.label, "Pod", "api", {"role": None}, "default")
        for name, rule in (("web", policy("rule", app="api", ingress=[allow(PORT, role="peer")])),
                           ("api", policy("rule", app="web", egress=[allow(PORT, role="peer")]))):
            with self.subTest(relabelled=name):
                self.api.label("Pod", name, {"role": "peer"}, "default")
                self.api.policy(rule)
                self.mesh.wait_allowed("web", "api")
                live = self.open("web")
                self.api.label("Pod", name, {"role": None}, "default")
                self.cut(live, "web")
                self.mesh.wait_denied("web", "api")
                self.api.delete("NetworkPolicy", "rule", "default")

    def test_another_pod_of_the_same_name_is_another_pod(self):
        """Not on a resumed session, nor on a recycled connection, can yesterday's pod go on."""
        self.mesh.add("reborn")  # its sidecar is not started, nor is anything redirected
        pod, address = self.mesh.pods["reborn"], self.mesh.pods["api"].v4
        yesterday = self.mesh.svid("reborn")
        tls = context(yesterday)
        def accepted():
            with Peer.connect(pod, address, PORT, None, tls_context=tls) as peer:
                return peer.open(b"ping") == (ACCEPTED, 0)
        wait_until(accepted, what=self.mesh.said)
        recycled = Peer.connect(pod, address, PORT, None, tls_context=tls)
        self.addCleanup(recycled.close)
        self.stream(recycled)
        session = recycled.session
        self.api.delete("Pod", "reborn", "default")
        self.mesh.objects["reborn"] = self.api.pod("reborn", "default", pod.addresses(), {"app": "reborn"}, meshed=True)
        self.assertIsInstance(recycled.end(), Ended)
        def refused():
            with Peer.connect(pod, address, PORT, None, tls_context=tls, session=session) as peer:
                answer = peer.open(b"evil")
                self.assertEqual(answer[0], DENIED)
                return answer == (DENIED, UID_MISMATCH) and peer.resumed  # until the new record is there: identity_unknown
        wait_until(refused, what=self.mesh.said)
        with Peer.connect(pod, address, PORT, self.mesh.svid("reborn")) as today:
            self.assertEqual(today.open(b"ping"), (ACCEPTED, 0))


class StandAloneTest(unittest.TestCase):
    """mesh.denied of a sidecar's own configuration."""

    def test_by_spiffe_id_and_by_serial(self):
        cluster = Cluster()
        self.addCleanup(cluster.close)
        web, other, api = (cluster.pod(name, sidecar=name == "api", app=name) for name in ("web", "other", "api"))
        bad, good = cluster.svid(other), cluster.svid(other)
        cluster.sidecars["api"].configure(mesh={"denied": {"spiffeIds": [cluster.id_of(web)], "serials": [serial_of(bad)]}})
        cluster.app(api, 7000)
        cluster.publish()
        cluster.start()
        for pod, svid, answer, detail in ((web, cluster.svid(web), (DENIED, IDENTITY_DENIED), "spiffe_id"),
                                          (other, bad, (DENIED, IDENTITY_DENIED), "serial"), (other, good, (ACCEPTED, 0), None)):
            with self.subTest(detail=detail), Peer.connect(pod, api.v4, 7000, svid) as peer:
                self.assertEqual(peer.open(b"ping"), answer)
                if detail:
                    found = cluster.sidecars["api"].wait_record(**{"source.port": peer.sock.getsockname()[1]})
                    self.assertEqual((found["close.reason"], found["close.detail"], found["verdict"]), ("identity_denied", detail, "DROPPED"), found)


if __name__ == "__main__":
    unittest.main()
