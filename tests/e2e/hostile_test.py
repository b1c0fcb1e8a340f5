"""Whoever is hostile to a sidecar's inbound side is refused, by a reason that the access log names; nothing of theirs reaches the application."""

import json
import os
import select
import ssl
import unittest

from kit.cluster import Cluster, allow, gone, knock, policy
from kit.peer import (ACCEPTED, DATA, DENIED, END, END_TYPE, IDENTITY_UNKNOWN, NO_RULE, OPEN, OPEN_TYPE, RESET, STATUS, UID_MISMATCH, Ended, Peer,
                      Reset, client_hello, connect_as, frame)
from kit.pki import Authority
from kit.sidecar import spiffe_id
from kit.waiting import patience, wait_until

TRUST_DOMAIN = "example.org"
GHOST = "10.77.0.99"  # of a meshed record, but taken by the intruder


class HostileCase(unittest.TestCase):
    """api serves port 7000 behind its sidecar to app=web. intruder is a pod of the mesh that has rid itself of its sidecar."""

    CONFIG = {"limits": {"handshakeTimeout": f"{patience(600):g}ms", "connectTimeout": f"{patience(2):g}s", "peekTimeout": "400ms"},
              "mesh": {"clusterCidrs": ["10.77.0.0/24", "fd77::/64"]}}
    API_CONFIG = {}

    @classmethod
    def setUpClass(cls):
        cls.cluster = cluster = Cluster(TRUST_DOMAIN, cls.CONFIG)
        cls.addClassCleanup(cluster.close)
        cls.web = cluster.pod("web", sidecar=True, app="web")
        cls.api = cluster.pod("api", sidecar=True, config=cls.API_CONFIG, app="api")
        cls.intruder = cluster.pod("intruder", addresses=[GHOST], app="intruder")
        cls.plain = cluster.pod("plain", meshed=False, app="web")
        cls.stranger = cluster.pod("stranger", record=False)
        cluster.records["ghost"] = {**cluster.records["web"], "metadata": {**cluster.records["web"]["metadata"], "name": "ghost", "uid": "u-ghost"},
                                 "status": {"phase": "Running", "podIPs": [{"ip": GHOST}]}}
        cls.app = cluster.app(cls.api, 7000)
        cls.sidecar = cluster.sidecars["api"]
        cls.allowed = cls.policies()
        cluster.publish(*cls.allowed)
        cluster.start()
        cls.web_svid, cls.intruder_svid = cluster.svid(cls.web), cluster.svid(cls.intruder)

    @classmethod
    def policies(cls):
        return [policy("api-allow", app="api", ingress=[allow(7000, app="web")])]

    def setUp(self):
        self.accepted, self.ended = self.app.accepted, len(self.app.ends)

    def record(self, sock, reason, *, sidecar=None, direction="inbound", count=1, **fields):
        """The record of the connection that `sock` (socket or Peer) is the source of."""
        if isinstance(sock, Peer):
            sock = sock.sock
        port = sock if isinstance(sock, int) else sock.getsockname()[1]
        found = (sidecar or self.sidecar).wait_record(direction=direction, count=count, **{"source.port": port})
        self.assertEqual({"close.reason": reason, **fields}, {k: found.get(k) for k in ("close.reason", *fields)}, json.dumps(found))
        return found

    def untouched(self):
        """The application has not been connected to since the test began."""
        self.assertEqual(self.app.accepted, self.accepted)


class CertificateTest(HostileCase):
    """Certificates that are none, wrong, or somebody else's."""

    def refused(self, svid, reason, detail=None, *, alert, source=None, address=None):
        peer = Peer.connect(self.intruder, address or self.api.v4, 7000, svid, handshake=False, source=source, verify=False)
        port = peer.sock.getsockname()[1]
        with peer:
            try:
                peer.handshake()
                peer.send(OPEN, frame(DATA, b"evil"))
                end = peer.end()
            except ssl.SSLError as error:  # TLS 1.3: the alert usually comes with the first read, after the client's handshake is done
                end = error
            self.assertIsInstance(end, ssl.SSLError)
            self.assertIn(alert, str(end).lower().replace("_", " "))
        found = self.record(port, reason, verdict="DROPPED", **{"close.detail": detail, "tls.established": False, "source.spiffe_id": None})
        self.untouched()
        return found

    def issue(self, **options):
        return self.cluster.ca.issue(self.cluster.id_of(self.web), **options)

    def extensions(self, san, ca="FALSE"):
        return (f"subjectAltName={san}\nbasicConstraints=critical,CA:{ca}\nkeyUsage=critical,digitalSignature\n"
                "extendedKeyUsage=serverAuth,clientAuth\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")

    def test_no_certificate_is_refused(self):
        self.refused(None, "certificate_required", alert="certificate required")

    def test_no_certificate_is_refused_over_ipv6(self):
        self.refused(None, "certificate_required", alert="certificate required", address=self.api.v6)

    def test_a_certificate_of_another_authority_is_refused(self):
        other = Authority(f"{self.cluster.net.folder}/other-ca", TRUST_DOMAIN)
        self.refused(other.issue(self.cluster.id_of(self.web)), "identity_rejected", "untrusted", alert="unknown ca")

    def test_another_trust_domain_is_refused(self):
        other = Authority(f"{self.cluster.net.folder}/other-domain", "evil.example")
        self.refused(other.issue("spiffe://evil.example/ns/default/sa/default/pod/web/u-web"), "identity_rejected", "unknown_trust_domain",
                     alert="unknown ca")

    def test_our_own_authority_cannot_vouch_for_another_trust_domain(self):
        self.refused(self.cluster.ca.issue("spiffe://evil.example/ns/default/sa/default/pod/web/u-web"), "identity_rejected",
                     "unknown_trust_domain", alert="unknown ca")

    def test_an_expired_certificate_is_refused(self):
        self.refused(self.issue(not_before=-7200, not_after=-3600), "identity_rejected", "expired", alert="expired")

    def test_a_certificate_not_yet_valid_is_refused(self):
        self.refused(self.issue(not_before=3600, not_after=7200), "identity_rejected", "not_yet_valid", alert="certificate")

    def test_two_uri_sans_are_refused(self):
        web = self.cluster.id_of(self.web)
        self.refused(self.issue(extensions=self.extensions(f"URI:{web},URI:{web}x")), "identity_rejected", "several_uri_sans", alert="certificate")

    def test_a_certificate_without_a_spiffe_id_is_refused(self):
        self.refused(self.issue(extensions=self.extensions("DNS:web.default.svc")), "identity_rejected", "no_uri_san", alert="certificate")

    def test_a_ca_certificate_as_leaf_is_refused(self):
        self.refused(self.issue(extensions=self.extensions(f"URI:{self.cluster.id_of(self.web)}", "TRUE")), "identity_rejected", "leaf_is_ca",
                     alert="certificate")

    def test_a_spiffe_id_that_would_forge_a_log_line_is_refused(self):
        forged = 'spiffe://example.org/ns/x\\"}\\n{\\"verdict\\":\\"FORWARDED\\"'
        found = self.refused(self.issue(extensions=self.extensions("URI:" + forged)), "identity_rejected", "not_a_spiffe_id", alert="certificate")
        self.assertNotIn("forged", json.dumps(found))
        with open(self.sidecar.log_path, encoding="utf-8") as file:
            lines = file.read().splitlines()
        self.assertEqual([line for line in lines if not line.startswith('{"@timestamp":')], [])

    def denied(self, spiffe, detail, reason="identity_unknown", close_detail=None, source=None):
        with Peer.connect(self.intruder, self.api.v4, 7000, self.cluster.ca.issue(spiffe), source=source) as peer:
            self.assertEqual(peer.open(b"evil"), (DENIED, detail))
            self.assertIsInstance(peer.end(), Ended)
            found = self.record(peer, reason, verdict="DROPPED", **{"close.detail": close_detail, "tls.established": True, "source.spiffe_id": spiffe,
                                                                    "identity": "tls", "bytes_sent": 0, "bytes_recv": 0, "connection.stream": 1})
        self.untouched()
        return found

    def test_the_svid_of_a_deleted_pod_of_the_same_name_is_refused(self):
        self.denied(self.cluster.id_of(self.web, "u-yesterday"), UID_MISMATCH, close_detail="uid_mismatch")

    def test_the_svid_of_a_pod_that_nobody_knows_is_refused(self):
        self.denied(spiffe_id(TRUST_DOMAIN, "default", "default", "nobody", "u-nobody"), IDENTITY_UNKNOWN, close_detail="unknown_workload")

    def test_the_svid_of_a_pod_under_another_account_is_refused(self):
        self.denied(spiffe_id(TRUST_DOMAIN, "default", "admin", "web", "u-web"), IDENTITY_UNKNOWN, close_detail="account_mismatch")

    def test_the_id_of_the_control_plane_is_no_workload(self):
        self.denied(f"spiffe://{TRUST_DOMAIN}/postern/control", IDENTITY_UNKNOWN, close_detail="not_a_workload")

    def test_the_svid_of_another_workload_is_denied(self):
        found = self.denied(self.cluster.id_of(self.intruder), NO_RULE, "denied")
        self.assertEqual(found["policy.isolating"], [{"kind": "NetworkPolicy", "namespace": "default", "name": "api-allow"}])
        self.assertEqual(found["source.k8s.pod"], "intruder")

    def test_an_id_without_pod_counts_at_the_address_of_such_a_pod(self):
        svid = self.cluster.ca.issue(spiffe_id(TRUST_DOMAIN, "default", "default"))
        with Peer.connect(self.web, self.api.v4, 7000, svid) as peer:
            self.assertEqual(peer.open(b"ping"), (ACCEPTED, 0))
            self.assertEqual(peer.data(4), b"ping")
            peer.send(END)
            self.assertEqual(peer.frame(), (END_TYPE, b""))
            self.record(peer, "finished", verdict="FORWARDED", **{"source.k8s.pod": "web", "source.spiffe_id": svid.spiffe_id})

    def test_an_id_without_pod_is_not_widened_to_its_account(self):
        found = self.denied(spiffe_id(TRUST_DOMAIN, "default", "default"), NO_RULE, "denied")
        self.assertEqual(found["source.k8s.pod"], "intruder")

    def test_an_id_without_pod_at_an_address_of_another_account_is_refused(self):
        self.denied(spiffe_id(TRUST_DOMAIN, "default", "other"), IDENTITY_UNKNOWN, close_detail="address_mismatch")

    def test_an_id_without_pod_from_an_unknown_address_is_refused(self):
        svid = self.cluster.ca.issue(spiffe_id(TRUST_DOMAIN, "default", "default"))
        with Peer.connect(self.stranger, self.api.v4, 7000, svid) as peer:
            self.assertEqual(peer.open(b"evil"), (DENIED, IDENTITY_UNKNOWN))
            self.record(peer, "identity_unknown", **{"close.detail": "address_mismatch"})
        self.untouched()


class HandshakeTest(HostileCase):
    """Those who do not speak TLS, not our TLS, or not to the end."""

    def test_plaintext_from_a_meshed_address_is_refused(self):
        for source in (None, GHOST):
            with connect_as(self.intruder, self.api.v4, 7000, source=source) as s:
                s.sendall(b"GET / HTTP/1.1\r\nHost: api\r\n\r\n")
                self.assertNotIn(b"200", b"" if isinstance(answer := gone(s), str) else answer)
                self.record(s, "handshake_failed", verdict="DROPPED", **{"tls.established": False, "source.spiffe_id": None, "identity": None})
        self.untouched()

    def test_plaintext_from_an_unknown_address_of_the_cluster_is_denied(self):
        source, how = knock(self.stranger, self.api.v4, 7000, b"GET / HTTP/1.1\r\nHost: api\r\n\r\n")
        self.assertEqual(how, "reset")
        self.record(source, "denied", verdict="DROPPED", plaintext=True, identity=None, **{"source.k8s.pod": None})
        self.untouched()

    def test_silence_from_an_unknown_address_of_the_cluster_is_plaintext_after_the_peek_deadline(self):
        source, how = knock(self.stranger, self.api.v4, 7000)
        self.assertEqual(how, "reset")
        found = self.record(source, "denied", plaintext=True)
        self.assertGreaterEqual(found["duration_ms"], 390)
        self.untouched()

    def test_tls_from_an_unknown_address_is_recognised_and_its_identity_counts(self):
        with Peer.connect(self.stranger, self.api.v4, 7000, self.intruder_svid) as peer:
            self.assertEqual(peer.open(b"evil"), (DENIED, NO_RULE))
            self.record(peer, "denied", **{"tls.established": True, "source.k8s.pod": "intruder"})
        self.untouched()

    def test_tls_1_2_only_is_refused(self):
        with Peer.connect(self.intruder, self.api.v4, 7000, self.web_svid, handshake=False,
                          versions=(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)) as peer:
            with self.assertRaisesRegex(ssl.SSLError, "(?i)alert protocol version"):
                peer.handshake()
            self.record(peer, "handshake_failed", **{"close.detail": "tls_protocol"})
        self.untouched()

    def alpn_refused(self, alpn):
        with Peer.connect(self.intruder, self.api.v4, 7000, self.web_svid, alpn=alpn, handshake=False) as peer:
            with self.assertRaisesRegex(ssl.SSLError, "(?i)no.application.protocol"):
                peer.handshake()
            self.record(peer, "alpn_mismatch", **{"tls.established": False})
        self.untouched()

    def test_no_alpn_is_refused(self):
        self.alpn_refused(())

    def test_other_alpn_is_refused(self):
        self.alpn_refused(("h2", "http/1.1"))

    def test_another_version_of_our_protocol_is_refused(self):
        self.alpn_refused(("postern/2",))

    def test_half_a_client_hello_ends_at_the_deadline(self):
        hello = client_hello()
        with connect_as(self.intruder, self.api.v4, 7000) as s:
            s.sendall(hello[:len(hello) // 2])
            self.assertIn(gone(s), ("fin", "reset"))
            found = self.record(s, "handshake_timeout", **{"tls.established": False})
        self.assertLess(found["duration_ms"], patience(2000))
        self.untouched()

    def test_silence_of_a_meshed_address_ends_at_the_deadline(self):
        with connect_as(self.intruder, self.api.v6, 7000) as s:
            self.assertIn(gone(s), ("fin", "reset"))
            self.record(s, "handshake_timeout")
        self.untouched()

    def test_a_client_hello_byte_by_byte_does_not_move_the_deadline(self):
        hello = client_hello()
        with connect_as(self.intruder, self.api.v4, 7000, timeout=0.1) as s:
            def next_byte(sent=iter(hello)):
                try:
                    s.sendall(bytes([next(sent)]))
                    return not s.recv(1)
                except TimeoutError:
                    return False
                except (ConnectionResetError, BrokenPipeError):
                    return True
            wait_until(next_byte, 5, "the sidecar to hang up")
            found = self.record(s, "handshake_timeout")
        self.assertLess(found["duration_ms"], patience(2000))
        self.untouched()

    def test_half_a_client_hello_of_an_unknown_address_ends_too(self):
        hello = client_hello()
        with connect_as(self.stranger, self.api.v4, 7000) as s:
            s.sendall(hello[:100])
            self.assertEqual(gone(s), "reset")
            self.record(s, "denied", plaintext=True)
        self.untouched()

    def test_a_handshake_that_is_not_followed_by_a_stream_ends_at_the_deadline(self):
        with Peer.connect(self.intruder, self.api.v4, 7000, self.intruder_svid) as peer:
            self.assertIsInstance(peer.end(), Ended)
            self.record(peer, "handshake_timeout", **{"close.detail": "no stream opened", "source.k8s.pod": None})
        self.untouched()

    def test_garbage_instead_of_tls_is_refused(self):
        for garbage in (os.urandom(2000), b"\x16\x03\x01\xff\xff" + b"\0" * 5000, b"\0" * 100):
            with connect_as(self.intruder, self.api.v4, 7000) as s:
                s.sendall(garbage)
                self.assertIsNotNone(gone(s))
                self.record(s, "handshake_failed", **{"close.detail": "tls_protocol"})
        self.untouched()

    def test_garbage_between_tls_records_ends_the_connection(self):
        with Peer.connect(self.web, self.api.v4, 7000, self.web_svid) as peer:
            self.assertEqual(peer.open(b"ping"), (ACCEPTED, 0))
            self.assertEqual(peer.data(4), b"ping")
            peer.send_outside(os.urandom(4000))
            self.assertIsInstance(peer.end(), (Reset, ssl.SSLError))
            self.record(peer, "reset", **{"close.by": "source"})
        self.assertEqual(self.app.wait_end(self.ended + 1), "reset")

    def test_a_peer_that_goes_before_its_stream_is_truncated(self):
        with Peer.connect(self.web, self.api.v4, 7000, self.web_svid) as peer:
            peer.fin()
            self.record(peer, "truncated", **{"close.by": "source"})
        self.untouched()

    def test_truncated_tls_is_a_reset_at_the_application(self):
        with Peer.connect(self.web, self.api.v4, 7000, self.web_svid) as peer:
            self.assertEqual(peer.open(b"ping"), (ACCEPTED, 0))
            self.assertEqual(peer.data(4), b"ping")
            peer.fin()
            self.record(peer, "truncated", **{"close.by": "source", "bytes_sent": 4, "bytes_recv": 4})
        self.assertEqual(self.app.wait_end(self.ended + 1), "reset")

    def test_close_notify_in_place_of_end_is_a_truncation(self):
        with Peer.connect(self.web, self.api.v4, 7000, self.web_svid) as peer:
            self.assertEqual(peer.open(b"ping"), (ACCEPTED, 0))
            self.assertEqual(peer.data(4), b"ping")
            peer.close_notify()
            peer.fin()
            self.record(peer, "truncated", **{"close.by": "source"})
        self.assertEqual(self.app.wait_end(self.ended + 1), "reset")


class FrameTest(HostileCase):
    """Peers with every right to connect that do not keep to the protocol inside TLS."""

    def setUp(self):
        super().setUp()
        self.peer = Peer.connect(self.web, self.api.v4, 7000, self.web_svid)
        self.addCleanup(self.peer.close)

    def begin(self):
        self.assertEqual(self.peer.open(b"ping"), (ACCEPTED, 0))
        self.assertEqual(self.peer.data(4), b"ping")

    def broken(self, *pieces, detail, before=False):
        """What is sent in a stream ends it: RESET to the peer, RST to the application. Before a stream, the application hears nothing."""
        if not before:
            self.begin()
        self.peer.send(*pieces)
        if not before:
            frame_type, _ = self.peer.frame()
            self.assertEqual(frame_type, RESET)
        self.assertIsInstance(self.peer.end(), Ended)
        self.record(self.peer, "protocol_error", **{"close.detail": detail, "tls.established": True})
        if before:
            self.untouched()
        else:
            self.assertEqual(self.app.wait_end(self.ended + 1), "reset")

    def test_data_before_open_is_an_error(self):
        self.broken(frame(DATA, b"evil"), detail="expected open", before=True)

    def test_end_before_open_is_an_error(self):
        self.broken(END, detail="expected open", before=True)

    def test_status_from_the_outbound_side_before_open_is_an_error(self):
        self.broken(frame(STATUS, b"\0\0"), detail="expected open", before=True)

    def test_bytes_that_are_no_frame_before_open_are_an_error(self):
        self.broken(b"GET / HTTP/1.1\r\n\r\n", detail="expected open", before=True)

    def test_status_from_the_outbound_side_in_a_stream_is_an_error(self):
        self.broken(frame(STATUS, b"\0\0"), detail="frame out of order")

    def test_open_while_a_stream_is_open_is_an_error(self):
        self.broken(OPEN, detail="frame out of order")

    def test_unknown_frame_type_is_an_error(self):
        for number in (0, 6, 255):
            with self.subTest(type=number):
                self.setUp()
                self.broken(frame(number), detail="unknown frame type")

    def test_a_reserved_byte_that_is_not_zero_is_an_error(self):
        self.broken(frame(DATA, b"x", reserved=1), detail="reserved byte is not zero")

    def test_a_frame_too_long_is_an_error(self):
        self.broken(frame(DATA, length=0xffff), detail="frame too long")

    def test_an_empty_data_frame_is_an_error(self):
        self.broken(frame(DATA), detail="empty data frame")

    def test_control_frames_of_a_wrong_length_are_errors(self):
        for wrong in (frame(OPEN_TYPE, b"x"), frame(END_TYPE, b"x"), frame(RESET), frame(RESET, b"\0\0")):
            with self.subTest(frame=wrong):
                self.setUp()
                self.broken(wrong, detail="control frame of a wrong length")

    def test_data_after_end_is_an_error(self):
        # The application must not end first, or the data would belong to the next stream.
        def answer_and_wait(connection):
            connection.recv(100)
            connection.sendall(b"pong")
            ended = select.poll()
            ended.register(connection, 0)  # errors and hang-ups only: not at the FIN
            ended.poll(10000)
        app = self.cluster.app(self.api, 7001, answer_and_wait)
        self.cluster.publish(policy("api-allow", app="api", ingress=[allow(app="web")]))
        self.addCleanup(self.cluster.publish, *self.allowed)
        with Peer.connect(self.web, self.api.v4, 7001, self.web_svid) as peer:
            self.assertEqual(peer.open(b"ping"), (ACCEPTED, 0))
            self.assertEqual(peer.data(4), b"pong")
            peer.send(END, frame(DATA, b"evil"))
            self.assertEqual(peer.frame()[0], RESET)
            self.record(peer, "protocol_error", **{"close.detail": "data after end", "bytes_sent": 4})
        self.assertEqual(app.accepted, 1)

    def test_end_twice_is_an_error(self):
        self.begin()
        self.peer.send(END, END)
        self.assertIsInstance(self.peer.end(), Ended)
        self.record(self.peer, "protocol_error")

    def test_a_second_stream_that_does_not_begin_with_open_is_an_error(self):
        self.begin()
        self.peer.send(END)
        self.assertEqual(self.peer.frame(), (END_TYPE, b""))
        self.peer.send(frame(DATA, b"evil"))
        self.assertIsInstance(self.peer.end(), Ended)
        found = self.record(self.peer, "protocol_error", count=2, **{"close.detail": "expected open"})
        self.assertEqual(self.app.accepted, self.accepted + 1)
        self.assertEqual(found["bytes_sent"], 0)

    def test_reset_is_a_reset_at_the_application(self):
        self.begin()
        self.peer.send(frame(RESET, b"\0"))
        self.record(self.peer, "reset", **{"close.by": "source", "close.detail": "application"})
        self.assertEqual(self.app.wait_end(self.ended + 1), "reset")

    def test_frames_cut_anywhere_are_read(self):
        for byte in OPEN + frame(DATA, b"ping") + END:
            self.peer.send(bytes([byte]))
        self.assertEqual(self.peer.frame(), (STATUS, b"\0\0"))
        self.assertEqual(self.peer.data(4), b"ping")
        self.assertEqual(self.peer.frame(), (END_TYPE, b""))
        self.record(self.peer, "finished", verdict="FORWARDED", bytes_sent=4, bytes_recv=4)

    def test_every_stream_has_its_own_record_and_decision(self):
        for number in (1, 2, 3):
            self.begin()
            self.peer.send(END)
            self.assertEqual(self.peer.frame(), (END_TYPE, b""))
            found = self.record(self.peer, "finished", count=number, **{"connection.stream": number, "verdict": "FORWARDED"})
        self.assertEqual({r["connection.id"] for r in self.sidecar.records(**{"source.port": found["source.port"]})}, {found["connection.id"]})


if __name__ == "__main__":
    unittest.main()
