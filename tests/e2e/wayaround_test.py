"""Ways around a sidecar or into it, sessions that should count for less than before, and too many of something."""

import os
import socket
import ssl
import unittest

from hostile_test import TRUST_DOMAIN, HostileCase
from kit.cluster import allow, gone, knock, metric, namespace, policy
from kit.peer import (ACCEPTED, DATA, DENIED, DESCRIPTORS, END, END_TYPE, NO_RULE, OVERLOADED, UID_MISMATCH, Peer, client_hello, connect_as, context,
                      frame)
from kit.pki import Authority
from kit.sidecar import PROXY_UID
from kit.waiting import patience, wait_until


class WayAroundTest(HostileCase):
    """Ways around the sidecar, or into it."""

    @classmethod
    def policies(cls):
        return [policy("api-allow", app="api", ingress=[allow(7000, app="web"), allow(7000, block=f"{cls.plain.v4}/32"),
                                                        allow(15020, block=f"{cls.plain.v4}/32")])]

    def test_connections_straight_to_the_sidecars_ports_are_refused(self):
        for address in (self.api.v4, self.api.v6):
            for port in (15006, 15001):
                source, how = knock(self.intruder, address, port, uid=PROXY_UID)
                self.assertEqual(how, "reset")
                # A redirection to the very port that was asked for is none.
                reason = "no_original_destination" if port == 15006 else "reserved_port"
                self.record(source, reason, verdict="DROPPED", **{"destination.port": port})

    def test_a_connection_that_was_not_redirected_is_refused(self):
        for address in ("127.0.0.1", "::1"):
            for port, direction in ((15006, "inbound"), (15001, "outbound")):
                source, how = knock(self.api, address, port)
                self.assertEqual(how, "reset")
                self.record(source, "no_original_destination", direction=direction, verdict="DROPPED")

    def test_an_application_cannot_reach_the_ports_of_another_sidecar(self):
        web = self.cluster.sidecars["web"]
        for port in (15006, 15001):
            source, how = knock(self.web, self.api.v4, port, b"evil")
            self.assertEqual(how, "reset")
            found = web.wait_record(direction="outbound", **{"source.port": source, "destination.port": port})
            self.assertIn(found["close.reason"], ("connect_failed", "handshake_failed"))  # the reset may come before connect() has returned
            self.sidecar.wait_record(direction="inbound", **{"close.reason": lambda reason: reason in ("reserved_port", "no_original_destination"),
                                                             "source.address": self.web.v4, "destination.port": port})
            self.assertNotIn("source.spiffe_id", found)

    def test_a_pod_cannot_make_its_own_sidecar_call_itself(self):
        """Its own address, by loopback or by the interface: never a loop."""
        for port in (15006, 15001):
            for address in (self.web.v4, self.web.v6):
                self.assertIn(knock(self.web, address, port, b"evil")[1], ("reset", "refused"))
        self.cluster.sidecars["web"].wait_ready()

    def test_our_tls_from_an_address_that_is_known_not_to_speak_it_is_a_stale_record(self):
        with connect_as(self.plain, self.api.v4, 7000) as s:
            s.sendall(client_hello())
            self.assertEqual(gone(s), "reset")
            self.record(s, "stale_record", plaintext=True, **{"bytes_sent": 0})
        if self.app.accepted > self.accepted:
            self.assertEqual(self.app.wait_end(self.ended + 1), "reset")

    def test_an_applications_own_tls_is_no_stale_record(self):
        with connect_as(self.plain, self.api.v4, 7000) as s:
            hello = client_hello(alpn=("h2",))
            s.sendall(hello)
            self.assertEqual(s.recv(len(hello), socket.MSG_WAITALL), hello)
            s.shutdown(socket.SHUT_WR)
            self.assertEqual(gone(s), "fin")
            self.record(s, "finished", plaintext=True, verdict="FORWARDED")

    def test_metrics_are_not_for_everybody(self):
        for pod in (self.intruder, self.stranger):
            self.assertEqual(self.sidecar.health("/metrics", pod=pod)[0], 403, pod.name)
        status, text = self.sidecar.health("/metrics", pod=self.plain)
        self.assertEqual(status, 200)
        self.assertIn("postern_connections_opened_total", text)
        self.assertEqual(self.sidecar.health("/metrics")[0], 200)  # loopback

    def test_the_admin_socket_is_the_sidecars_own(self):
        self.assertEqual(os.stat(self.sidecar.admin_path).st_mode & 0o777, 0o600)
        self.assertEqual(os.stat(self.sidecar.admin_path).st_uid, PROXY_UID)
        ask = ["/usr/bin/python3", "-c", "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])", self.sidecar.admin_path]
        done = self.api.run(ask, uid=1000)
        self.assertIn("PermissionError", done.stderr)
        self.assertEqual(self.api.run(ask, uid=PROXY_UID).returncode, 0)

    def test_names_in_manifests_cannot_forge_log_lines(self):
        forged = 'x"}\n{"@timestamp":"now","verdict":"FORWARDED"'
        before = len(self.sidecar.output().splitlines())
        for evil in (policy(forged, app="api", ingress=[]), policy("p", app="api", ingress=[], annotations={"postern.dev/enforcement": forged}),
                     namespace(forged), {**self.cluster.records["web"], "metadata": {**self.cluster.records["web"]["metadata"], "name": forged}}):
            rejected = metric(self.sidecar, "postern_policy_rejected_total")
            self.cluster.publish(evil, *self.allowed, wait=False)
            wait_until(lambda r=rejected: metric(self.sidecar, "postern_policy_rejected_total") > r, what="the policy to be rejected")
        self.cluster.publish(policy("p", app="api", ingress=[allow(app="web")], annotations={"example.org/note": forged}), *self.allowed)
        self.cluster.publish(*self.allowed)
        shape = r'\{"|\d{4}-\d\d-\d\dT|time='
        for line in self.sidecar.output().splitlines()[before:]:
            self.assertRegex(line, shape)
            self.assertNotRegex(line, r'^\{"@timestamp":"now"')


class SessionTest(HostileCase):
    """TLS sessions resumed when they should count for less than before."""

    def setUp(self):
        super().setUp()
        self.context = context(self.web_svid)
        self.addCleanup(self.cluster.publish, *self.allowed)

    def connect(self, session=None, status=(ACCEPTED, 0)):
        with Peer.connect(self.web, self.api.v4, 7000, None, tls_context=self.context, session=session) as peer:
            self.assertEqual(peer.open(b"ping"), status)
            if status[0] == ACCEPTED:
                self.assertEqual(peer.data(4), b"ping")
                peer.send(END)
                self.assertEqual(peer.frame(), (END_TYPE, b""))
            peer.close_notify()  # OpenSSL forgets the session of a connection that broke
            found = self.sidecar.wait_record(direction="inbound", **{"source.port": peer.sock.getsockname()[1]})
            self.assertEqual(found["tls.resumed"], peer.resumed)
            return peer.session, found

    def test_a_resumed_session_keeps_the_identity_of_its_full_handshake(self):
        session, first = self.connect()
        _, second = self.connect(session)
        self.assertTrue(second["tls.resumed"])
        self.assertEqual(second["source.spiffe_id"], first["source.spiffe_id"])
        self.assertNotEqual(second["connection.id"], first["connection.id"])

    def test_a_session_is_decided_afresh_after_a_label_change(self):
        session, _ = self.connect()
        labels = self.cluster.records["web"]["metadata"]["labels"]
        self.addCleanup(self.cluster.relabel, self.web, **labels)
        self.cluster.relabel(self.web, app="other")
        self.cluster.publish(*self.allowed)
        accepted = self.app.accepted
        _, found = self.connect(session, (DENIED, NO_RULE))
        self.assertTrue(found["tls.resumed"])
        self.assertEqual((found["close.reason"], found["verdict"]), ("denied", "DROPPED"))
        self.assertEqual(self.app.accepted, accepted)

    def test_a_session_of_a_pod_deleted_meanwhile_is_refused(self):
        session, _ = self.connect()
        metadata = self.cluster.records["web"]["metadata"]
        self.addCleanup(metadata.update, uid=metadata["uid"])
        metadata["uid"] = "u-web-reborn"
        self.cluster.publish(*self.allowed)
        _, found = self.connect(session, (DENIED, UID_MISMATCH))
        self.assertTrue(found["tls.resumed"])
        self.assertEqual(found["close.reason"], "identity_unknown")

    def test_a_session_does_not_outlive_a_change_of_the_trust_bundle(self):
        session, _ = self.connect()
        adopted = lambda: self.sidecar.output().count("identity_adopted")
        def rotate(svid):
            before = adopted()
            self.sidecar.rotate(svid)
            wait_until(lambda: adopted() > before, what=lambda: f"the SVID to be adopted:\n{self.sidecar.output()[-2000:]}")
        self.addCleanup(rotate, self.cluster.svid(self.api))
        other = Authority(f"{self.cluster.net.folder}/next-ca", TRUST_DOMAIN)
        own = self.cluster.id_of(self.api)
        rotate(self.cluster.ca.issue(own, bundle=self.cluster.ca.certificate + other.certificate))
        session, found = self.connect(session)
        self.assertFalse(found["tls.resumed"])
        # Now without the authority that signed the client's certificate: the session is no way around that.
        rotate(other.issue(own))
        accepted = self.app.accepted
        loose = self.context
        loose.verify_mode = ssl.CERT_NONE
        with Peer.connect(self.web, self.api.v4, 7000, None, tls_context=loose, session=session) as peer:
            self.assertFalse(peer.resumed)
            self.assertIsInstance(peer.end(), ssl.SSLError)
            self.record(peer, "identity_rejected", **{"close.detail": "untrusted"})
        self.assertEqual(self.app.accepted, accepted)


class BoundsTest(HostileCase):
    """Too many of something: shed with a counter, and those who are in go on."""

    API_CONFIG = {"workers": 1, "limits": {"maxConnections": 12, "maxHandshakes": 3, "maxConnectionsPerSource": 6,
                                            "handshakeTimeout": f"{patience(1500):g}ms"}}

    def setUp(self):
        super().setUp()
        self.open = []
        self.addCleanup(lambda: [s.close() for s in self.open])
        wait_until(lambda: metric(self.sidecar, "postern_connections_active", direction="inbound") == 0 and
                   metric(self.sidecar, "postern_handshakes_active") == 0, what="the connections before to be gone")
        self.shed = {reason: metric(self.sidecar, "postern_connections_shed_total", reason=reason)
                     for reason in ("too_many_connections", "too_many_handshakes", "too_many_from_source")}

    def established(self, pod=None, address=None):
        pod = pod or self.web
        peer = Peer.connect(pod, address or self.api.v4, 7000, self.web_svid)
        self.open.append(peer)
        self.assertEqual(peer.open(b"ping"), (ACCEPTED, 0))
        self.assertEqual(peer.data(4), b"ping")
        return peer

    def still_good(self, peer):
        peer.send(frame(DATA, b"pong"))
        self.assertEqual(peer.data(4), b"pong")

    def was_shed(self, reason, count=1):
        wait_until(lambda: metric(self.sidecar, "postern_connections_shed_total", reason=reason) >= self.shed[reason] + count,
                   what=lambda: f"{count} shed with {reason}:\n{self.sidecar.admin('GET', '/metrics')[1]}")

    def test_slow_handshakes_beyond_the_bound_are_shed(self):
        good = self.established()
        for _ in range(3):
            self.open.append(s := connect_as(self.intruder, self.api.v4, 7000))
            s.sendall(client_hello()[:50])
        wait_until(lambda: metric(self.sidecar, "postern_handshakes_active", direction="inbound") == 3, what="three handshakes under way")
        self.assertEqual(knock(self.intruder, self.api.v4, 7000)[1], "reset")
        self.was_shed("too_many_handshakes")
        self.still_good(good)
        for s in self.open[1:]:  # their deadline makes room
            self.assertIn(gone(s), ("fin", "reset"))
        self.established()

    def test_too_many_connections_of_one_source_are_shed(self):
        held = [self.established() for _ in range(6)]
        self.assertEqual(knock(self.web, self.api.v4, 7000, uid=PROXY_UID)[1], "reset")
        self.was_shed("too_many_from_source")
        self.still_good(held[0])
        self.established(address=self.api.v6)  # another source address
        held[0].close()
        wait_until(self.established, what="room for one more")

    def test_too_many_connections_are_shed(self):
        held = [self.established() for _ in range(6)] + [self.established(address=self.api.v6) for _ in range(6)]
        self.assertEqual(knock(self.intruder, self.api.v4, 7000)[1], "reset")
        self.was_shed("too_many_connections")
        for peer in held:
            self.still_good(peer)
        self.assertIn("connections_shed", self.sidecar.output())

    def descriptors(self, more):
        """Leaves the sidecar with that many free descriptors, or (None) as many as before."""
        pid = self.sidecar.process.pid
        with open(f"/proc/{pid}/limits", encoding="ascii") as file:
            hard = next(line for line in file if line.startswith("Max open files")).split()[4]
        soft = hard
        if more is not None:
            # The lowest numbers are given out first: what is left are the gaps and what comes after the highest.
            used = {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")}
            soft = next(limit for limit in range(1, 10000) if limit - sum(fd < limit for fd in used) > more) - 1
        self.api.run(["prlimit", "--pid", pid, f"--nofile={soft}:{hard}"], uid=PROXY_UID, check=True)

    def cpu_ticks(self):
        with open(f"/proc/{self.sidecar.process.pid}/stat", encoding="ascii") as file:
            return sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13]))

    def test_without_descriptors_accepting_pauses_and_recovers(self):
        good = self.established()
        pauses = metric(self.sidecar, "postern_accept_pauses_total")
        self.addCleanup(self.descriptors, None)
        self.descriptors(0)
        ticks = self.cpu_ticks()
        waiting = [connect_as(self.web, self.api.v4, 7000) for _ in range(2)]  # in the kernel's backlog
        self.open += waiting
        for _ in range(20):  # by the same worker, which has seen by now that two are waiting
            self.still_good(good)
        self.descriptors(None)
        for s in waiting:
            late = Peer(s, context(self.web_svid))
            late.handshake()
            self.assertEqual(late.open(b"ping"), (ACCEPTED, 0))
        self.assertGreater(metric(self.sidecar, "postern_accept_pauses_total"), pauses)
        self.assertLess(self.cpu_ticks() - ticks, patience(50), "it spins")

    def test_without_descriptors_for_the_application_the_status_says_overloaded(self):
        good = self.established()
        self.addCleanup(self.descriptors, None)
        peer = Peer.connect(self.web, self.api.v4, 7000, self.web_svid)
        self.open.append(peer)
        self.descriptors(0)
        self.assertEqual(peer.open(b"ping"), (OVERLOADED, DESCRIPTORS))
        self.descriptors(None)
        self.record(peer, "descriptors_exhausted", verdict="FORWARDED", **{"bytes_sent": 0})
        self.still_good(good)


if __name__ == "__main__":
    unittest.main()
