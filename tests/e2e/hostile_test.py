"""Whoever is hostile to a sidecar's inbound side is refused, by a reason that the access log names; nothing of theirs reaches the application."""

import json
import os
import socket
import ssl
import unittest

from kit.cluster import Cluster, allow, gone, knock, metric, namespace, policy
from kit.peer import (ACCEPTED, DATA, DENIED, DESCRIPTORS, END, END_TYPE, IDENTITY_UNKNOWN, NO_RULE, OPEN, OPEN_TYPE, OVERLOADED, RESET, STATUS,
                      UID_MISMATCH, Ended, Peer, Reset, Truncated, client_hello, connect_as, context, frame)
from kit.pki import Authority
from kit.sidecar import PROXY_UID, spiffe_id
from kit.waiting import wait_until

TRUST_DOMAIN = "example.org"
GHOST = "10.77.0.99"  # of a meshed record, but taken by the intruder


class HostileCase(unittest.TestCase):
    """api serves port 7000 behind its sidecar to app=web. intruder is a pod of the mesh that has rid itself of its sidecar."""

    CONFIG = {"limits": {"handshakeTimeout": "600ms", "connectTimeout": "2s", "peekTimeout": "400ms"},
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
        self.assertLess(found["duration_ms"], 2000)
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
        self.assertLess(found["duration_ms"], 2000)
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
        app = self.cluster.app(self.api, 7001, lambda connection: (connection.recv(100), connection.sendall(b"pong"), connection.recv(100), connection.recv(1, socket.MSG_WAITALL)))
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

    API_CONFIG = {"workers": 1, "limits": {"maxConnections": 12, "maxHandshakes": 3, "maxConnectionsPerSource": 6, "handshakeTimeout": "1500ms"}}

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
        self.assertLess(self.cpu_ticks() - ticks, 50, "it spins")

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
