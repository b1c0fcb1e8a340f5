"""Policy on real connections: a change cuts exactly what is no longer allowed, in every state a connection can be in; a bad one changes nothing."""

import contextlib
import os
import socket
import threading
import unittest

from kit.cluster import Cluster, allow, generation, gone, knock, metric, namespace, policy
from kit.peer import ACCEPTED, DATA, DENIED, NO_RULE, OPEN, POLICY_CHANGED, RESET, Ended, Peer, PeerListener, Reset, Truncated, frame
from kit.sidecar import PROXY_UID
from kit.waiting import patience, wait_until


def service(name, ip, selector, port, target, **more):
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"clusterIP": ip, "clusterIPs": [ip], "selector": selector, "ports": [{"port": port, "targetPort": target}], **more}}


class PolicyCase(unittest.TestCase):
    """web and other (sidecars) call api (sidecar)."""

    CONFIG = {"limits": {"connectTimeout": f"{patience(2):g}s", "handshakeTimeout": f"{patience(2):g}s"},
              "mesh": {"clusterCidrs": ["10.77.0.0/24", "fd77::/64", "10.96.0.0/16"]}}
    MESH = {}

    @classmethod
    def setUpClass(cls):
        cls.cluster = cluster = Cluster(config={**cls.CONFIG, "mesh": {**cls.CONFIG["mesh"], **cls.MESH}})
        cls.addClassCleanup(cluster.close)
        cls.web = cluster.pod("web", sidecar=True, app="web")
        cls.other = cluster.pod("other", sidecar=True, app="other")
        cls.api = cluster.pod("api", sidecar=True, app="api", containers=[
            {"name": "app", "image": "app", "ports": [{"name": "http", "containerPort": 7000}, {"name": "more", "containerPort": 7001}]}])
        cls.app, cls.app2 = cluster.app(cls.api, 7000), cluster.app(cls.api, 7001)
        cls.more_pods()
        cls.publish()
        cluster.start()
        cls.sidecar = cluster.sidecars["api"]

    @classmethod
    def more_pods(cls):
        pass

    @classmethod
    def publish(cls, *manifests):
        cls.cluster.publish(*manifests)

    def open(self, pod, port=7000, address=None):
        """An established connection of the pod's application."""
        s = pod.connect(address or self.api.v4, port)
        self.addCleanup(s.close)
        s.sendall(b"ping")
        self.assertEqual(s.recv(4), b"ping")
        return s

    def alive(self, *sockets):
        for s in sockets:
            s.sendall(b"pong")
            self.assertEqual(s.recv(4, socket.MSG_WAITALL), b"pong")

    def both(self, sock, pod):
        """The records of both sides of the connection whose source is that socket (or port) of the pod."""
        port = sock if isinstance(sock, int) else sock.getsockname()[1]
        out = self.cluster.sidecars[pod.name].wait_record(direction="outbound", **{"source.port": port})
        if "connection.id" not in out:
            return out, None
        same = {name: out[name] for name in ("connection.id", "connection.stream")}
        return out, self.sidecar.wait_record(direction="inbound", **same)

    def cut(self, *pairs, by="api"):
        """Each (socket, pod) has been reset by a change of policy, which both records say."""
        for s, pod in pairs:
            self.assertEqual(self.drained(s), "reset")
            out, into = self.both(s, pod)
            self.assertEqual((out["close.reason"], into["close.reason"]), ("policy_changed", "policy_changed"), (out, into))
            decider, hearer = (into, out) if by == "api" else (out, into)
            self.assertEqual((decider["close.by"], hearer.get("close.detail")), ("proxy", "peer"), (out, into))

    @staticmethod
    def drained(s):
        while isinstance(how := gone(s), bytes):
            pass
        return how

    def denied(self, pod, port=7000, address=None, by="api"):
        """A new connection is refused; by the destination's policy (or by="itself", the pod's own)."""
        own, how = knock(pod, address or self.api.v4, port, b"evil")
        self.assertEqual(how, "reset")
        out, into = self.both(own, pod)
        if by == "itself":
            self.assertEqual((out["close.reason"], out["verdict"]), ("denied", "DROPPED"), out)
        else:
            self.assertEqual((out["close.reason"], out["close.detail"], out["verdict"]), ("peer_denied", "no_rule", "FORWARDED"), out)
            self.assertEqual((into["close.reason"], into["verdict"]), ("denied", "DROPPED"), into)
        return out, into

    def allowed(self, pod, port=7000, address=None):
        """A new connection is served; the records of both sides."""
        with pod.connect(address or self.api.v4, port) as s:
            s.sendall(b"ping")
            self.assertEqual(s.recv(4), b"ping")
            s.shutdown(socket.SHUT_WR)
            self.assertEqual(gone(s), "fin")
            out, into = self.both(s, pod)
        for record in (out, into):
            self.assertEqual((record["close.reason"], record["verdict"]), ("finished", "FORWARDED"), record)
        return out, into


class ChangeTest(PolicyCase):
    """What is no longer allowed is cut, what still is goes on."""

    def test_a_stricter_policy_cuts_exactly_the_connections_it_refuses(self):
        self.publish(policy("api-allow", app="api", ingress=[allow(app="web"), allow(app="other")]))
        web, other, web2 = self.open(self.web), self.open(self.other), self.open(self.web, 7001)
        self.publish(policy("api-allow", app="api", ingress=[allow(7000, app="web")]))
        self.cut((other, self.other), (web2, self.web))
        self.alive(web)
        self.denied(self.other)
        web.shutdown(socket.SHUT_WR)
        out, into = self.both(web, self.web)
        self.assertEqual((out["close.reason"], into["close.reason"]), ("finished", "finished"))

    def test_a_busy_connection_is_cut(self):
        self.publish()
        s = self.open(self.web)
        drunk = []
        def pour():
            with contextlib.suppress(OSError):
                while True:
                    s.sendall(b"x" * 65536)
        def drink():
            with contextlib.suppress(OSError):
                while data := s.recv(65536):
                    drunk.append(len(data))
        threads = [threading.Thread(target=work, daemon=True) for work in (pour, drink)]
        for thread in threads:
            thread.start()
        wait_until(lambda: sum(drunk) > 1 << 20, what="bytes to flow")
        self.publish(policy("nobody", app="api", ingress=[]))
        for thread in threads:
            thread.join(10)
            self.assertFalse(thread.is_alive())
        out, into = self.both(s, self.web)
        self.assertEqual((out["close.reason"], into["close.reason"], into["close.by"]), ("policy_changed", "policy_changed", "proxy"))
        self.assertGreater(into["bytes_sent"], 1 << 20)

    def test_a_relabelled_peer_is_cut(self):
        allowed = policy("api-allow", app="api", ingress=[allow(app="web"), allow(app="other")])
        self.publish(allowed)
        web, other = self.open(self.web), self.open(self.other)
        self.cluster.relabel(self.other, app="renamed")
        self.addCleanup(self.cluster.relabel, self.other, app="other")
        self.publish(allowed)
        self.cut((other, self.other))
        self.alive(web)
        self.denied(self.other)

    def test_a_peer_that_becomes_a_member_is_let_in(self):
        allowed = policy("api-allow", app="api", ingress=[allow(tier="front")])
        self.publish(allowed)
        self.denied(self.web)
        self.cluster.relabel(self.web, app="web", tier="front")
        self.addCleanup(self.cluster.relabel, self.web, app="web")
        self.publish(allowed)
        _, into = self.allowed(self.web)
        self.assertEqual(into["policy.enforced"][0]["name"], "api-allow")

    def test_a_change_of_namespace_labels_cuts(self):
        rule = policy("api-allow", app="api", ingress=[allow(ns={"team": "blue"})])
        self.cluster.namespace = namespace(team="blue")
        self.addCleanup(setattr, self.cluster, "namespace", namespace())
        self.publish(rule)
        web = self.open(self.web)
        self.cluster.namespace = namespace(team="red")
        self.publish(rule)
        self.cut((web, self.web))

    def test_a_peers_record_replaced_by_another_pod_of_its_name_cuts(self):
        self.publish(policy("api-allow", app="api", ingress=[allow(app="web")]))
        web = self.open(self.web)
        metadata = self.cluster.records["web"]["metadata"]
        self.addCleanup(metadata.update, uid=metadata["uid"])
        metadata["uid"] = "u-web-reborn"
        self.publish(policy("api-allow", app="api", ingress=[allow(app="web")]))
        self.assertEqual(self.drained(web), "reset")
        _, into = self.both(web, self.web)
        self.assertEqual(into["close.reason"], "policy_changed")

    def test_the_sources_own_egress_cuts(self):
        self.publish()
        web, other = self.open(self.web), self.open(self.other)
        self.publish(policy("web-nowhere", app="web", egress=[]))
        self.cut((web, self.web), by="web")
        self.alive(other)
        self.denied(self.web, by="itself")

    def test_a_pooled_connection_is_not_used_after_the_change(self):
        self.publish(policy("api-allow", app="api", ingress=[allow(app="web")]))
        # Two workers, a pool each: of three connections one at least is recycled.
        before = [self.allowed(self.web)[0]["connection.id"] for _ in range(3)]
        self.assertLess(len(set(before)), 3)
        self.publish(policy("api-allow", app="api", ingress=[allow(app="other")]))
        out, _ = self.denied(self.web)
        self.assertNotIn(out["connection.id"], before)

    def test_a_deleted_policy_no_longer_isolates(self):
        self.publish(policy("api-allow", app="api", ingress=[allow(app="web")]))
        self.denied(self.other)
        self.publish()
        _, into = self.allowed(self.other)
        self.assertEqual(into["policy.basis"], "not_isolated")

    def test_two_policies_add_up(self):
        web, other = (policy(f"api-{name}", app="api", ingress=[allow(app=name)]) for name in ("web", "other"))
        self.publish(web, other)
        self.assertEqual([self.allowed(pod)[1]["policy.enforced"][0]["name"] for pod in (self.web, self.other)], ["api-web", "api-other"])
        s = self.open(self.other)
        self.publish(other)
        self.alive(s)
        self.denied(self.web)

    def test_a_bad_policy_keeps_the_last_good_one_and_says_where(self):
        good = policy("api-allow", app="api", ingress=[allow(app="web")])
        self.publish(good)
        s = self.open(self.web)
        before = {name: generation(sidecar) for name, sidecar in self.cluster.sidecars.items()}
        rejected = metric(self.sidecar, "postern_policy_rejected_total")
        bad = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: bad, namespace: default}\nspec:\n  podSelektor: {}\n"
        self.cluster.publish(bad, wait=False)
        wait_until(lambda: metric(self.sidecar, "postern_policy_rejected_total") > rejected, what="the policy to be rejected")
        said = self.sidecar.admin("GET", "/allow-list")[1]["error"]
        self.assertRegex(said, r"\d+\.yaml:5\b.*podSelektor")
        self.assertIn("the last good policy", self.sidecar.output())
        self.assertEqual(generation(self.sidecar), before["api"])
        self.alive(s)
        self.denied(self.other)
        self.assertEqual(self.sidecar.health("/readyz")[0], 200)
        self.publish(good)
        self.assertEqual(self.sidecar.admin("GET", "/allow-list")[1]["error"], "")

    def test_audit_lets_through_and_shows_the_pending_denial(self):
        self.publish(policy("pending", app="api", ingress=[allow(app="web")], annotations={"postern.dev/enforcement": "audit"}))
        with self.other.connect(self.api.v4, 7000) as s:
            s.sendall(b"ping")
            self.assertEqual(s.recv(4), b"ping")
            s.shutdown(socket.SHUT_WR)
            self.assertEqual(gone(s), "fin")
            _, into = self.both(s, self.other)
        self.assertEqual((into["verdict"], into["policy.enforced_verdict"], into["policy.pending_verdict"], into["policy.pending_basis"]),
                         ("AUDIT", "FORWARDED", "DROPPED", "no_rule"), into)
        self.assertEqual(into["policy.pending_isolating"][0]["name"], "pending")
        _, into = self.allowed(self.web)
        self.assertNotIn("policy.pending_verdict", into)

    def test_named_ports(self):
        self.publish(policy("by-name", app="api", ingress=[allow("http", app="web")]))
        self.allowed(self.web, 7000)
        self.denied(self.web, 7001)

    def test_ipblock_holds_for_pods_and_its_exceptions_too(self):
        rule = {"peers": [{"ipBlock": {"cidr": "10.77.0.0/24", "except": [f"{self.other.v4}/32"]}}]}
        self.publish(policy("by-block", app="api", ingress=[rule]))
        self.allowed(self.web)
        self.denied(self.other)
        self.denied(self.web, address=self.api.v6)


class StateTest(PolicyCase):
    """A change reaches connections that are not established yet. The other side is a raw peer, so that it can take its time."""

    @classmethod
    def more_pods(cls):
        cls.far = cls.cluster.pod("far", app="far")  # a record and no sidecar: the test answers
        cls.far_svid = cls.cluster.svid(cls.far)

    def revoked(self, s):
        """web's egress is revoked; its application's connection `s` is reset for it."""
        self.publish(policy("web-nowhere", app="web", egress=[]))
        self.assertEqual(self.drained(s), "reset")
        found = self.cluster.sidecars["web"].wait_record(direction="outbound", **{"source.port": s.getsockname()[1]})
        self.assertEqual((found["close.reason"], found["bytes_recv"]), ("policy_changed", 0), found)
        return found

    def setUp(self):
        self.publish()

    def test_during_the_connect(self):
        self.far.drop_arriving(7000)
        self.addCleanup(self.far.drop_arriving, 7000, dropped=False)
        with self.web.connect(self.far.v4, 7000) as s:
            s.sendall(b"secret")
            wait_until(lambda: self.cluster.sidecars["web"].admin("GET", "/connections")[1]["connections"], what="the connection to be live")
            self.revoked(s)

    def test_during_the_handshake(self):
        with PeerListener(self.far, 7000, self.far_svid) as listener, self.web.connect(self.far.v4, 7000) as s:
            s.sendall(b"secret")
            with listener.accept(handshake=False):
                self.revoked(s)

    def test_while_waiting_for_the_status(self):
        with PeerListener(self.far, 7000, self.far_svid) as listener, self.web.connect(self.far.v4, 7000) as s:
            s.sendall(b"hello")
            with listener.accept() as peer:
                self.assertEqual(peer.exactly(4), OPEN)
                self.revoked(s)
                while (got := peer.frame())[0] == DATA:
                    pass
                self.assertEqual(got, (RESET, bytes([POLICY_CHANGED])))
                self.assertIsInstance(peer.end(), (Ended, Truncated, Reset))

    def test_idle_after_the_status(self):
        with PeerListener(self.far, 7000, self.far_svid) as listener, self.web.connect(self.far.v4, 7000) as s:
            with listener.accept() as peer:
                self.assertEqual(peer.exactly(4), OPEN)
                peer.send(frame(2, b"\0\0"))
                wait_until(lambda: self.cluster.sidecars["web"].admin("GET", "/connections")[1]["connections"], what="the connection to be live")
                self.revoked(s)
                self.assertEqual(peer.frame(), (RESET, bytes([POLICY_CHANGED])))

    def test_while_the_application_is_being_connected_to(self):
        """Inbound: nothing answers at the application, and then it is too late."""
        svid = self.cluster.svid(self.web)
        self.api.run(["iptables", "-w", "-A", "INPUT", "-i", "lo", "-p", "tcp", "--dport", "7009", "-j", "DROP"], check=True)
        self.addCleanup(self.api.run, ["iptables", "-w", "-D", "INPUT", "-i", "lo", "-p", "tcp", "--dport", "7009", "-j", "DROP"], check=True)
        with Peer.connect(self.web, self.api.v4, 7009, svid) as peer:
            peer.send(OPEN)
            wait_until(lambda: any(c["destination.port"] == 7009 for c in self.sidecar.admin("GET", "/connections")[1]["connections"]),
                       what="the stream to be live")
            self.publish(policy("nobody", app="api", ingress=[]))
            self.assertEqual(peer.frame(), (2, bytes([DENIED, 0])))
            found = self.sidecar.wait_record(direction="inbound", **{"source.port": peer.sock.getsockname()[1]})
        self.assertEqual(found["close.reason"], "policy_changed")

    def test_during_the_handshake_of_a_peer_that_will_no_longer_be_allowed(self):
        svid = self.cluster.svid(self.web)
        accepted = self.app.accepted
        with Peer.connect(self.web, self.api.v4, 7000, svid, handshake=False) as peer:
            wait_until(lambda: metric(self.sidecar, "postern_handshakes_active", direction="inbound") > 0, what="the handshake to be under way")
            self.publish(policy("nobody", app="api", ingress=[]))
            peer.handshake()
            self.assertEqual(peer.open(b"evil"), (DENIED, NO_RULE))
        self.assertEqual(self.app.accepted, accepted)

    def test_an_inbound_connection_waiting_for_its_next_stream_is_closed(self):
        svid = self.cluster.svid(self.web)
        with Peer.connect(self.web, self.api.v4, 7000, svid) as peer:
            self.assertEqual(peer.open(b"ping"), (ACCEPTED, 0))
            self.assertEqual(peer.data(4), b"ping")
            peer.send(frame(4))
            self.assertEqual(peer.frame(), (4, b""))
            self.publish(policy("nobody", app="api", ingress=[]))
            self.assertIsInstance(peer.end(), Ended)


class DefaultDenyTest(PolicyCase):
    """mesh.defaultPolicy: deny."""

    MESH = {"defaultPolicy": "deny"}

    def test_nothing_is_allowed_that_no_policy_allows(self):
        self.publish()
        out, _ = self.denied(self.web, by="itself")
        self.assertTrue(out["policy.default_deny"])
        self.publish(policy("web-out", app="web", egress=[allow(everybody=True)]))
        _, into = self.denied(self.web)
        self.assertTrue(into["policy.default_deny"])
        self.publish(policy("web-out", app="web", egress=[allow(everybody=True)]), policy("api-in", app="api", ingress=[allow(app="web")]))
        self.allowed(self.web)


class NoPolicyTest(unittest.TestCase):
    """Before the first policy, and with a first policy that is bad."""

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster()
        cls.addClassCleanup(cls.cluster.close)
        cls.web, cls.api = (cls.cluster.pod(name, sidecar=True, app=name) for name in ("web", "api"))
        cls.stranger = cls.cluster.pod("stranger", record=False)
        os.mkdir(f"{cls.cluster.policies.path}.0")
        os.symlink("policies.0", cls.cluster.policies.path)  # empty: no record of ourselves
        cls.app = cls.cluster.app(cls.api, 7000)
        cls.cluster.start()
        cls.sidecar = cls.cluster.sidecars["api"]

    def test_everything_is_refused_until_there_is_one(self):
        svid = self.cluster.svid(self.web)
        status, text = self.sidecar.health("/readyz")
        self.assertEqual(status, 503)
        self.assertIn("no policy yet", text)
        self.assertEqual(self.sidecar.health("/healthz")[0], 200)
        own, how = knock(self.web, self.api.v4, 7000, uid=PROXY_UID)
        self.assertEqual(how, "reset")
        self.assertEqual(self.sidecar.wait_record(direction="inbound", **{"source.port": own})["close.reason"], "no_policy")
        own, how = knock(self.web, self.api.v4, 7000)
        self.assertEqual(how, "reset")
        found = self.cluster.sidecars["web"].wait_record(direction="outbound", **{"source.port": own})
        self.assertEqual((found["close.reason"], found["verdict"]), ("no_policy", "DROPPED"))
        self.assertNotIn("policy.generation", found)
        self.assertEqual(self.app.accepted, 0)
        self.assertEqual(self.sidecar.health("/metrics", pod=self.stranger)[0], 403)
        self.cluster.publish()
        self.sidecar.wait_ready()
        with Peer.connect(self.web, self.api.v4, 7000, svid) as peer:
            self.assertEqual(peer.open(b"ping"), (ACCEPTED, 0))


class ServiceTest(PolicyCase):
    """Services: to the pod and its target port; to itself; to the next endpoint."""

    IP, ITSELF, DEAD, NONE = "10.96.0.10", "10.96.0.11", "10.96.0.12", "10.96.0.13"

    @classmethod
    def more_pods(cls):
        cls.api2 = cls.cluster.pod("api2", sidecar=True, app="api", side="b")
        cls.cluster.records["api"]["metadata"]["labels"]["side"] = "a"
        cls.own_app = cls.cluster.app(cls.web, 7000)

    @classmethod
    def publish(cls, *manifests):
        cls.cluster.publish(service("api-a", cls.IP, {"side": "a"}, 80, 7000), service("web", cls.ITSELF, {"app": "web"}, 80, 7000),
                            service("api", cls.DEAD, {"app": "api"}, 80, 7000), service("none", cls.NONE, {"app": "none"}, 80, 7000), *manifests)

    def test_policy_is_asked_for_the_pod_and_its_target_port(self):
        self.publish(policy("api-in", app="api", ingress=[allow(7000, app="web")]), policy("web-out", app="web", egress=[allow(7000, app="api")]))
        out, into = self.allowed(self.web, 80, self.IP)
        self.assertEqual((out["destination.address"], out["destination.port"], out["original_destination.address"], out["original_destination.port"],
                          out["destination.service"], out["destination.k8s.pod"]), (self.api.v4, 7000, self.IP, 80, "default/api-a", "api"), out)
        self.assertEqual((into["destination.port"], into["source.k8s.pod"]), (7000, "web"))
        self.publish(policy("web-out", app="web", egress=[allow(80, app="api")]))
        self.denied(self.web, 80, self.IP, by="itself")

    def test_a_service_that_leads_back_is_plaintext_to_itself(self):
        self.publish(policy("web-nobody", app="web", ingress=[], egress=[]))
        with self.web.connect(self.ITSELF, 80) as s:
            s.sendall(b"ping")
            self.assertEqual(s.recv(4), b"ping")
            s.shutdown(socket.SHUT_WR)
            self.assertEqual(gone(s), "fin")
            found = self.cluster.sidecars["web"].wait_record(direction="outbound", **{"source.port": s.getsockname()[1]})
        self.assertEqual((found["verdict"], found["policy.basis"], found["plaintext"], found["close.reason"]),
                         ("FORWARDED", "self", True, "finished"))

    def test_the_next_endpoint_is_tried_when_the_first_applications_is_gone(self):
        self.publish()
        for _ in range(4):  # api2 has no application: whoever is picked first, api answers
            out, _ = self.allowed(self.web, 80, self.DEAD)
            self.assertEqual((out["destination.k8s.pod"], out["destination.service"]), ("api", "default/api"))
        found = self.cluster.sidecars["api2"].wait_record(direction="inbound", **{"close.reason": "app_unreachable"})
        self.assertEqual((found["verdict"], found["source.k8s.pod"]), ("FORWARDED", "web"))

    def test_a_denial_is_not_retried_elsewhere(self):
        self.publish(policy("api-in", app="api", ingress=[]))
        before = len(self.cluster.sidecars["api2"].records()) + len(self.sidecar.records())
        own, how = knock(self.web, self.DEAD, 80, b"evil")
        self.assertEqual(how, "reset")
        out = self.cluster.sidecars["web"].wait_record(direction="outbound", **{"source.port": own})
        self.assertEqual(out["close.reason"], "peer_denied")
        wait_until(lambda: len(self.cluster.sidecars["api2"].records()) + len(self.sidecar.records()) == before + 1, what="one denial")

    def test_a_service_without_endpoints_is_refused(self):
        self.publish()
        own, how = knock(self.web, self.NONE, 80)
        self.assertEqual(how, "reset")
        out = self.cluster.sidecars["web"].wait_record(direction="outbound", **{"source.port": own})
        self.assertEqual((out["close.reason"], out["destination.service"]), ("no_endpoint", "default/none"))

    def test_an_application_that_does_not_listen_is_a_reset_with_its_reason(self):
        self.publish()
        own, how = knock(self.web, self.api.v4, 7999, b"ping")
        self.assertEqual(how, "reset")
        out, into = self.both(own, self.web)
        self.assertEqual((out["close.reason"], into["close.reason"]), ("app_unreachable", "app_unreachable"))


if __name__ == "__main__":
    unittest.main()
