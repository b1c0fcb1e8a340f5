"""Recycled mTLS connections (docs/wire.md): streams one after another on one TLS connection, each decided and logged afresh; when a
connection is not used again; and that no byte is ever delivered twice."""

import socket
import time
import unittest

from kit.apps import Server, Thread, echo, ending, receive_data, receive_exactly, reset, send_data
from kit.mesh import Mesh, allow, deny, service
from kit.peer import (ACCEPTED, APP_UNREACHABLE, DATA, END, END_TYPE, OPEN, OPEN_TYPE, OVERLOADED, RESET, STATUS, Ended, Peer, PeerListener,
                      frame)
from kit.waiting import patience, wait_until

ONE_WORKER = {"workers": 1}  # each worker has a pool of its own


def talk(client, text=b"ping"):
    """One exchange with an echo server, ended cleanly by both."""
    with client:
        client.sendall(text)
        client.shutdown(socket.SHUT_WR)
        return receive_data(client)[0] == len(text)


class RecyclingCase(unittest.TestCase):
    """web and api with sidecars of one worker."""

    CONFIG = ONE_WORKER
    CONFIGS = None
    OPTIONS = {}

    @classmethod
    def setUpClass(cls):
        cls.mesh = Mesh("web", "api", config=cls.CONFIG, configs=cls.CONFIGS, **cls.OPTIONS)
        cls.addClassCleanup(cls.mesh.close)
        cls.web, cls.api = cls.mesh.sidecars["web"], cls.mesh.sidecars["api"]

    def serve(self, handler=echo):
        port, listener = self.mesh.listen("api")
        server = Server(listener, handler)
        self.addCleanup(server.close)
        return port, server

    def dial(self, port, address=None):
        client = self.mesh.pods["web"].connect(address or self.mesh.pods["api"].v4, port)
        self.addCleanup(client.close)
        return client

    def attempt(self, port):
        """How a connection to the port ends; a refusal may come before connect() has returned."""
        try:
            return ending(self.dial(port))
        except ConnectionResetError:
            return "reset"

    def records(self, port, count):
        """(connection.id, stream) of that many records of each side: outbound, inbound."""
        sides = []
        for sidecar, direction in ((self.web, "outbound"), (self.api, "inbound")):
            sidecar.wait_record(direction=direction, count=count, **{"destination.port": port})
            records = sidecar.records(direction=direction, **{"destination.port": port})
            self.assertEqual(len(records), count)
            sides.append([(r.get("connection.id"), r.get("connection.stream")) for r in records])
        return sides

    def pooled(self, count):
        """Waits until the client's sidecar holds that many idle connections."""
        wait_until(lambda: self.mesh.metric("web", "postern_pool_idle_connections") == count, 5,
                   lambda: f"{count} idle; there are {self.mesh.metric('web', 'postern_pool_idle_connections')}")


class StreamsTest(RecyclingCase):
    """What is recycled, and what is not."""

    def setUp(self):
        self.empty_pool()

    def empty_pool(self):
        self.mesh.apply(deny("web", "Egress"))
        self.mesh.apply()

    def test_streams_are_numbered_and_logged_on_both_sides(self):
        port, server = self.serve()
        before = self.mesh.metric("web", "postern_streams_recycled_total")
        for number in range(1, 4):
            self.assertTrue(talk(self.dial(port)))
            self.pooled(1)
            outbound, inbound = self.records(port, number)
        self.assertEqual([stream for _, stream in outbound], [1, 2, 3])
        self.assertEqual(outbound, inbound)
        self.assertEqual(len({connection for connection, _ in outbound}), 1)
        self.assertEqual(server.accepted, 3)
        self.assertEqual(self.mesh.metric("web", "postern_streams_recycled_total") - before, 2)
        bytes_seen = [(r["bytes_sent"], r["bytes_recv"], r["close.reason"]) for r in self.api.records(**{"destination.port": port})]
        self.assertEqual(bytes_seen, [(4, 4, "finished")] * 3)

    def test_the_server_ends_first(self):
        port, _ = self.serve(lambda s: s.sendall(b"bye"))
        for _ in range(2):
            with self.dial(port) as client:
                self.assertEqual(receive_data(client)[0], 3)
            self.pooled(1)
        outbound, _ = self.records(port, 2)
        self.assertEqual([stream for _, stream in outbound], [1, 2])

    def test_streams_at_the_same_time_have_connections_of_their_own(self):
        port, _ = self.serve()
        clients = [self.dial(port) for _ in range(5)]
        for client in clients:
            client.sendall(b"x")
            receive_exactly(client, 1)
        for client in clients:
            client.close()
        self.pooled(5)
        outbound, _ = self.records(port, 5)
        self.assertEqual(len({connection for connection, _ in outbound}), 5)
        clients = [self.dial(port) for _ in range(5)]
        for client in clients:
            self.assertTrue(talk(client))
        again, _ = self.records(port, 10)
        self.assertEqual({connection for connection, _ in again}, {connection for connection, _ in outbound})

    def test_a_reset_stream_is_not_recycled(self):
        for who in ("client", "server"):
            with self.subTest(reset_by=who):
                port, _ = self.serve(lambda s, who=who: (receive_exactly(s, 1), who == "server" and reset(s), s.recv(1)))
                for _ in range(2):
                    client = self.dial(port)
                    client.sendall(b"x")
                    if who == "client":
                        time.sleep(0.05)
                        reset(client)
                    else:
                        self.assertEqual(ending(client), "reset")
                outbound, inbound = self.records(port, 2)
                self.assertEqual([stream for _, stream in outbound], [1, 1])
                self.assertEqual(outbound, inbound)

    def test_a_refused_stream_is_not_recycled(self):
        port = self.mesh.new_port()
        for _ in range(2):
            self.assertEqual(self.attempt(port), "reset")
        outbound, inbound = self.records(port, 2)
        self.assertEqual([stream for _, stream in outbound], [1, 1])
        self.assertEqual(outbound, inbound)

    def test_another_port_has_another_connection(self):
        ports = [self.serve()[0] for _ in range(2)]
        for port in ports:
            self.assertTrue(talk(self.dial(port)))
        first, second = (self.records(port, 1)[0][0] for port in ports)
        self.assertNotEqual(first[0], second[0])
        self.assertEqual((first[1], second[1]), (1, 1))

    def test_a_policy_change_between_two_streams(self):
        for name, policy_type, reason in (("web", "Egress", "denied"), ("api", "Ingress", "peer_denied")):
            with self.subTest(denied_by=name):
                self.empty_pool()
                port, server = self.serve()
                self.assertTrue(talk(self.dial(port)))
                self.pooled(1)
                self.mesh.apply(deny(name, policy_type))
                self.pooled(0)
                self.assertEqual(self.attempt(port), "reset")
                self.web.wait_record(direction="outbound", **{"destination.port": port, "close.reason": reason})
                self.assertEqual(server.accepted, 1)
                self.mesh.apply()
                self.assertTrue(talk(self.dial(port)))

    def test_a_policy_change_that_still_allows_it_keeps_the_connection(self):
        port, _ = self.serve()
        self.assertTrue(talk(self.dial(port)))
        self.pooled(1)
        self.mesh.apply(allow("api", sources=["web"]))
        self.assertTrue(talk(self.dial(port)))
        outbound, inbound = self.records(port, 2)
        self.assertEqual([stream for _, stream in outbound], [1, 2])
        self.assertEqual(outbound, inbound)
        second = self.api.records(direction="inbound", **{"destination.port": port})[1]
        self.assertEqual(second["policy.enforced"][0]["name"], "api-allow")  # decided afresh, by the new policy

    def test_a_new_svid_between_two_streams(self):
        for name in ("web", "api"):
            with self.subTest(rotated=name):
                self.empty_pool()
                port, _ = self.serve()
                self.assertTrue(talk(self.dial(port)))
                self.pooled(1)
                self.mesh.rotate(name)
                self.pooled(0)
                self.assertTrue(talk(self.dial(port)))
                outbound, inbound = self.records(port, 2)
                self.assertEqual([stream for _, stream in outbound], [1, 1])
                self.assertNotEqual(outbound[0][0], outbound[1][0])
                self.assertEqual(outbound, inbound)

    def test_a_new_svid_during_a_stream(self):
        for name in ("web", "api"):
            with self.subTest(rotated=name):
                port, _ = self.serve()
                client = self.dial(port)
                client.sendall(b"x")
                receive_exactly(client, 1)
                self.mesh.rotate(name)
                client.sendall(b"y")
                self.assertEqual(receive_exactly(client, 1), b"y")  # it goes on
                client.close()
                self.records(port, 1)
                self.assertTrue(talk(self.dial(port)))
                outbound, _ = self.records(port, 2)
                self.assertEqual([stream for _, stream in outbound], [1, 1])  # and is not used again

    def test_another_pod_in_the_place_of_the_other_one(self):
        port, _ = self.serve()
        self.assertTrue(talk(self.dial(port)))
        self.pooled(1)
        pod = next(m for m in self.mesh.manifests if m["kind"] == "Pod" and m["metadata"]["name"] == "api")
        pod["metadata"]["uid"] = "uid-of-the-next-one"
        self.mesh.apply()
        self.pooled(0)
        self.assertEqual(self.attempt(port), "reset")
        self.web.wait_record(direction="outbound", **{"destination.port": port, "close.reason": "identity_mismatch"})
        pod["metadata"]["uid"] = "uid-api"
        self.mesh.apply()
        self.assertTrue(talk(self.dial(port)))

    def test_the_other_sidecar_was_killed(self):
        port, server = self.serve()
        self.assertTrue(talk(self.dial(port)))
        self.pooled(1)
        self.api.process.kill()
        self.pooled(0)
        self.api.start(redirect=False)
        self.assertTrue(talk(self.dial(port)))
        self.assertEqual(server.accepted, 2)


class BoundsTest(RecyclingCase):
    """How many connections are kept, and how long."""

    CONFIG = {**ONE_WORKER, "recycling": {"perDestination": 2, "total": 3, "outboundIdle": "2s"}}

    def test_bounds(self):
        ports = [self.serve()[0] for _ in range(3)]
        for port, kept in zip(ports, (2, 3, 3)):  # two of the first, one more of the second, none of the third
            clients = [self.dial(port) for _ in range(4)]
            for client in clients:
                client.sendall(b"x")
                receive_exactly(client, 1)
            for client in clients:
                client.close()
            self.records(port, 4)
            self.pooled(kept)
        self.pooled(0)  # after outboundIdle


class InboundIdleTest(RecyclingCase):
    """The inbound side closes what nobody uses; whoever is about to use it is served on a new connection."""

    CONFIGS = {"api": {"recycling": {"inboundIdle": "1s", "outboundIdle": "500ms"}}}  # shorter than what web keeps them for

    def test_closed_by_the_inbound_side(self):
        port, server = self.serve()
        self.assertTrue(talk(self.dial(port)))
        self.pooled(1)
        self.pooled(0)
        self.assertTrue(talk(self.dial(port)))
        outbound, inbound = self.records(port, 2)  # and no record for the close
        self.assertEqual([stream for _, stream in outbound], [1, 1])
        self.assertEqual(outbound, inbound)

    def test_used_at_the_moment_it_is_closed(self):
        port, server = self.serve()
        for i in range(12):
            text = f"request {i}".encode()
            with self.dial(port) as client:
                client.sendall(text)
                client.shutdown(socket.SHUT_WR)
                self.assertEqual(b"".join(iter(lambda c=client: c.recv(1000), b"")), text)
            time.sleep(0.992 + i * 0.001)
        self.assertEqual(server.accepted, 12)


class OffTest(RecyclingCase):
    """recycling.enabled: false, on either side."""

    CONFIGS = {"api": {"recycling": {"enabled": False}}}

    def test_off_at_the_inbound_side(self):
        self.check()

    def test_off_at_both(self):
        self.web.configure(recycling={"enabled": False})
        self.web.process.kill()
        self.web.start(redirect=False)
        self.check()
        self.assertEqual(self.mesh.metric("web", "postern_streams_recycled_total"), 0)

    def check(self):
        port, server = self.serve()
        for _ in range(20):
            self.assertTrue(talk(self.dial(port)))
        outbound, inbound = self.records(port, 20)
        self.assertEqual(outbound, inbound)
        self.assertEqual({stream for _, stream in outbound}, {1})
        self.assertEqual(len({connection for connection, _ in outbound}), 20)
        self.assertEqual(server.accepted, 20)


class InboundPeerCase(RecyclingCase):
    """The inbound side is api's sidecar; the outbound side is the test, with web's identity and past web's sidecar."""

    def peer(self, port):
        peer = Peer.connect(self.mesh.pods["web"], self.mesh.pods["api"].v4, port, self.mesh.authority.issue(self.web.spiffe_id))
        self.addCleanup(peer.close)
        return peer

    def first_stream(self, peer):
        """One clean exchange, after which the connection waits for the next one."""
        self.assertEqual(peer.open(b"first"), (ACCEPTED, 0))
        self.assertEqual(peer.data(5), b"first")
        peer.send(END)
        self.assertEqual(peer.frame(), (END_TYPE, b""))


class WrongFramesTest(InboundPeerCase):
    """A peer that breaks the protocol on a recycled connection: its own reason, and nothing reaches the application."""

    def test_between_two_streams(self):
        wrong = {"DATA without OPEN": frame(DATA, b"x"), "STATUS": frame(STATUS, b"\0\0"), "END": END, "RESET": frame(RESET, b"\0"),
                 "unknown type": frame(9), "type 0": frame(0), "too long": frame(DATA, b"x", length=65533), "a payload in OPEN": frame(OPEN_TYPE, b"x"),
                 "a reserved byte": frame(OPEN_TYPE, reserved=1)}
        for name, sent in wrong.items():
            with self.subTest(name):
                port, server = self.serve()
                peer = self.peer(port)
                self.first_stream(peer)
                peer.send(sent)
                self.assertIsInstance(peer.end(), Ended)
                record = self.api.wait_record(direction="inbound", **{"destination.port": port, "close.reason": "protocol_error"})
                self.assertEqual(record["source.spiffe_id"], self.web.spiffe_id)
                self.assertEqual(server.accepted, 1)

    def test_within_the_second_stream(self):
        wrong = {"OPEN": OPEN, "STATUS": frame(STATUS, b"\0\0"), "END twice": END + END, "DATA after END": END + frame(DATA, b"x"),
                 "OPEN after END": END + OPEN, "empty DATA": frame(DATA), "unknown type": frame(200), "too long": frame(DATA, b"x" * 100, length=65535)}
        for name, sent in wrong.items():
            with self.subTest(name):
                ends = []
                port, server = self.serve(lambda s, ends=ends: ends.append(ending(s)) if server.accepted == 2 else echo(s))
                peer = self.peer(port)
                self.first_stream(peer)
                self.assertEqual(peer.open(b"second"), (ACCEPTED, 0))
                peer.send(sent)
                self.assertIsInstance(peer.end(), Ended)
                self.api.wait_record(direction="inbound", **{"destination.port": port, "close.reason": "protocol_error", "connection.stream": 2})
                wait_until(lambda ends=ends: ends, 5, "the application's end")
                self.assertIn(ends[0], ("reset", "end") if "END" in name and name != "OPEN" else ("reset",))

    def test_the_next_open_together_with_the_end(self):
        port, server = self.serve()
        peer = self.peer(port)
        self.assertEqual(peer.open(b"first"), (ACCEPTED, 0))
        self.assertEqual(peer.data(5), b"first")
        peer.send(END)
        self.assertEqual(peer.frame(), (END_TYPE, b""))
        for i in range(50):
            text = b"%d" % i
            peer.send(OPEN, frame(DATA, text), END)  # the whole stream in one piece
            self.assertEqual(peer.frame(), (STATUS, b"\0\0"))
            self.assertEqual(peer.data(len(text)), text)
            self.assertEqual(peer.frame(), (END_TYPE, b""))
        self.assertEqual(server.accepted, 51)

    def test_frames_cut_into_single_bytes(self):
        port, _ = self.serve()
        peer = self.peer(port)
        self.first_stream(peer)
        for byte in OPEN + frame(DATA, b"cut") + END:
            peer.send(bytes([byte]))
        self.assertEqual(peer.frame(), (STATUS, b"\0\0"))
        self.assertEqual(peer.data(3), b"cut")
        self.assertEqual(peer.frame(), (END_TYPE, b""))

    def test_a_stream_cut_off(self):
        port, _ = self.serve()
        for how in ("fin", "reset", "close_notify"):
            with self.subTest(how):
                peer = self.peer(port)
                self.first_stream(peer)
                self.assertEqual(peer.open(b"second"), (ACCEPTED, 0))
                self.assertEqual(peer.data(6), b"second")
                if how == "close_notify":
                    peer.close_notify()
                    peer.fin()
                else:
                    getattr(peer, how)()
                reason = "reset" if how == "reset" else "truncated"
                self.api.wait_record(direction="inbound", **{"destination.port": port, "close.reason": reason, "connection.stream": 2})

    def test_a_policy_change_while_it_waits(self):
        port, server = self.serve()
        peer = self.peer(port)
        self.first_stream(peer)
        self.mesh.apply(deny("api", "Ingress"))
        self.addCleanup(self.mesh.apply)
        self.assertIsInstance(peer.end(), Ended)
        self.assertEqual(server.accepted, 1)


class OutboundPeerCase(unittest.TestCase):
    """The outbound side is web's sidecar; the inbound side is the test, in the pods `api` and `api2`, which count as meshed."""

    VIP = "10.77.9.9"

    @classmethod
    def setUpClass(cls):
        cls.mesh = Mesh("web", "api", "api2", config={**ONE_WORKER, "limits": {"handshakeTimeout": "2s", "connectTimeout": "2s"}}, start=False,
                        labels={"api": {"service": "both"}, "api2": {"service": "both"}}, more=(service("both", cls.VIP, "both", 80),))
        cls.addClassCleanup(cls.mesh.close)
        cls.web = cls.mesh.sidecars["web"]
        cls.web.start()

    def listen(self, name="api", port=None):
        port = port or self.mesh.new_port()
        listener = PeerListener(self.mesh.pods[name], port, self.mesh.authority.issue(self.mesh.sidecars[name].spiffe_id))
        self.addCleanup(listener.close)
        return port, listener

    def dial(self, port, address=None):
        client = self.mesh.pods["web"].connect(address or self.mesh.pods["api"].v4, port)
        self.addCleanup(client.close)
        return client

    def accept(self, listener, early=b""):
        """The next connection with its OPEN and early data read."""
        peer = listener.accept()
        self.addCleanup(peer.close)
        self.assertEqual(peer.frame(), (OPEN_TYPE, b""))
        if early:
            self.assertEqual(peer.data(len(early)), early)
        return peer

    def no_more(self, listener):
        listener.listener.settimeout(0.3)
        self.assertRaises(TimeoutError, listener.accept)

    def closed(self, port, reason, **fields):
        return self.web.wait_record(direction="outbound", **{"destination.port": port, "close.reason": reason, **fields})

    def recycled(self, early=b"ping"):
        """A listener, and a connection whose first stream has ended cleanly: it is in the pool."""
        port, listener = self.listen()
        client = self.dial(port)
        client.sendall(early)
        peer = self.accept(listener, early)
        peer.send(frame(STATUS, b"\0\0"), frame(DATA, b"pong"), END)
        self.assertEqual(receive_data(client)[0], 4)
        client.close()
        self.assertEqual(peer.frame(), (END_TYPE, b""))
        wait_until(lambda: self.mesh.metric("web", "postern_pool_idle_connections") >= 1, 5, "in the pool")
        return port, listener, peer


class RetryTest(OutboundPeerCase):
    """When the inbound side goes away before its status: tried again only where it provably has not acted."""

    def test_close_notify_without_status_is_tried_again_once(self):
        port, listener, peer = self.recycled()
        client = self.dial(port)
        client.sendall(b"second")
        self.assertEqual(peer.frame(), (OPEN_TYPE, b""))
        self.assertEqual(peer.data(6), b"second")
        peer.close_notify()
        again = self.accept(listener, b"second")  # the same bytes, once, on a new connection
        again.send(frame(STATUS, b"\0\0"), frame(DATA, b"done"), END)
        self.assertEqual(receive_data(client)[0], 4)
        client.close()
        self.assertEqual(again.frame(), (END_TYPE, b""))
        self.closed(port, "finished", bytes_sent=6, bytes_recv=4)
        self.no_more(listener)

    def test_twice_is_enough(self):
        port, listener, peer = self.recycled()
        client = self.dial(port)
        self.assertEqual(peer.frame(), (OPEN_TYPE, b""))
        peer.close_notify()
        self.accept(listener).close_notify()
        self.assertEqual(ending(client), "reset")
        self.closed(port, "peer_failed")
        self.no_more(listener)

    def test_anything_else_is_a_reset_to_the_application(self):
        for how in ("fin", "reset", "close"):
            for fresh in (True, False):
                with self.subTest(how, fresh=fresh):
                    if fresh:
                        port, listener = self.listen()
                        client = self.dial(port)
                        client.sendall(b"once")
                        peer = self.accept(listener, b"once")
                    else:
                        port, listener, peer = self.recycled()
                        client = self.dial(port)
                        client.sendall(b"once")
                        self.assertEqual(peer.frame(), (OPEN_TYPE, b""))
                        self.assertEqual(peer.data(4), b"once")
                    getattr(peer, how)()
                    self.assertEqual(ending(client), "reset")
                    self.closed(port, "peer_failed", bytes_sent=0)
                    self.no_more(listener)

    def test_a_pooled_connection_that_was_closed_is_not_used(self):
        for how in ("close_notify", "fin", "reset"):
            with self.subTest(how):
                port, listener, peer = self.recycled()
                getattr(peer, how)()
                if how == "close_notify":
                    peer.fin()
                wait_until(lambda: self.mesh.metric("web", "postern_pool_idle_connections") == 0, 5, "dropped")
                client = self.dial(port)
                client.sendall(b"second")
                again = self.accept(listener, b"second")
                again.send(frame(STATUS, b"\0\0"), END)
                self.assertEqual(ending(client), "end")

    def test_a_peer_that_speaks_out_of_turn_while_pooled(self):
        for name, sent in {"STATUS": frame(STATUS, b"\0\0"), "DATA": frame(DATA, b"x"), "unknown": frame(77), "RESET": frame(RESET, b"\0")}.items():
            with self.subTest(name):
                _, _, peer = self.recycled()
                peer.send(sent)
                wait_until(lambda: self.mesh.metric("web", "postern_pool_idle_connections") == 0, 5, "dropped")

    def test_bytes_behind_the_end_of_a_stream(self):
        port, listener = self.listen()
        client = self.dial(port)
        peer = self.accept(listener)
        peer.send(frame(STATUS, b"\0\0"))
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(peer.frame(), (END_TYPE, b""))
        peer.send(END, frame(STATUS, b"\0\0"), frame(DATA, b"for the next one"))
        self.assertEqual(ending(client), "end")
        self.closed(port, "finished")
        client = self.dial(port)  # gets a connection of its own, not what was left over
        again = self.accept(listener)
        again.send(frame(STATUS, b"\0\0"), END)
        self.assertEqual(ending(client), "end")

    def test_wrong_frames_instead_of_the_status(self):
        for name, sent in {"DATA": frame(DATA, b"x"), "OPEN": OPEN, "END": END, "RESET": frame(RESET, b"\0"), "unknown": frame(9),
                           "unknown status": frame(STATUS, b"\x63\0"), "a long STATUS": frame(STATUS, b"\0\0\0")}.items():
            for fresh in (True, False):
                with self.subTest(name, fresh=fresh):
                    if fresh:
                        port, listener = self.listen()
                        client = self.dial(port)
                        peer = self.accept(listener)
                    else:
                        port, listener, peer = self.recycled()
                        client = self.dial(port)
                        self.assertEqual(peer.frame(), (OPEN_TYPE, b""))
                    peer.send(sent)
                    self.assertEqual(ending(client), "reset")
                    self.closed(port, "protocol_error")
                    self.no_more(listener)

    def test_no_status_at_all(self):
        port, listener = self.listen()
        client = self.dial(port)
        client.sendall(b"hello")
        self.accept(listener, b"hello")
        self.assertEqual(ending(client), "reset")
        self.closed(port, "peer_failed", **{"close.detail": "no status"})
        self.no_more(listener)


class EarlyDataTest(OutboundPeerCase):
    """The application's first bytes before the status: 16 KB at most, kept for the next endpoint, delivered once."""

    def test_no_more_than_16_kb_before_the_status(self):
        port, listener = self.listen()
        client = self.dial(port)
        sender = Thread(send_data, client, 300_000)
        peer = self.accept(listener)
        early = 0
        peer.sock.settimeout(patience(0.7))
        with self.assertRaises(TimeoutError):
            while True:
                early += len(peer.frame()[1])
        self.assertEqual(early, 16 << 10)
        peer.sock.settimeout(patience(10))
        peer.send(frame(STATUS, b"\0\0"))
        while early < 300_000:
            early += len(peer.frame()[1])
        sender.result()
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(peer.frame(), (END_TYPE, b""))
        peer.send(END)
        self.closed(port, "finished", bytes_sent=300_000)

    def test_the_next_endpoint_gets_them_once(self):
        for code in (APP_UNREACHABLE, OVERLOADED):
            with self.subTest(status=code):
                listeners = [self.listen(name, 80)[1] for name in ("api", "api2")]
                client = self.dial(80, self.VIP)
                text = bytes(i % 256 for i in range(9000))
                client.sendall(text)
                first, other = self.whoever_is_called(listeners)
                self.assertEqual(first.frame(), (OPEN_TYPE, b""))
                self.assertEqual(first.data(len(text)), text)
                first.send(frame(STATUS, bytes([code, 0])))
                second = self.accept(other, text)
                second.send(frame(STATUS, b"\0\0"), frame(DATA, b"ok"), END)
                self.assertEqual(receive_data(client)[0], 2)
                client.close()
                self.assertEqual(second.frame(), (END_TYPE, b""))
                self.web.wait_record(direction="outbound", **{"destination.service": "default/both", "close.reason": "finished", "bytes_sent": 9000})
                for listener in listeners:
                    self.no_more(listener)
                    listener.close()
                self.mesh.apply(allow("web"))  # forget the pooled connection
                self.mesh.rotate("web")

    def test_every_endpoint_says_no(self):
        listeners = [self.listen(name, 80)[1] for name in ("api", "api2")]
        client = self.dial(80, self.VIP)
        first, other = self.whoever_is_called(listeners)
        self.assertEqual(first.frame(), (OPEN_TYPE, b""))
        first.send(frame(STATUS, bytes([APP_UNREACHABLE, 0])))
        self.accept(other).send(frame(STATUS, bytes([APP_UNREACHABLE, 0])))
        self.assertEqual(ending(client), "reset")
        self.web.wait_record(direction="outbound", **{"destination.service": "default/both", "close.reason": "app_unreachable"})
        for listener in listeners:
            self.no_more(listener)
            listener.close()

    def test_an_endpoint_that_cannot_be_connected_to(self):
        for name in ("api", "api2"):
            with self.subTest(listens=name):
                _, listener = self.listen(name, 80)
                for _ in range(2):  # whichever is first
                    client = self.dial(80, self.VIP)
                    client.sendall(b"hello")
                    peer = self.accept(listener, b"hello")
                    peer.send(frame(STATUS, b"\0\0"), END)
                    self.assertEqual(ending(client), "end")
                    reset(client)
                listener.close()

    def whoever_is_called(self, listeners):
        """The connection that comes, and the listener that it did not come to."""
        for listener in listeners:
            listener.listener.settimeout(0.05)
        until = time.monotonic() + patience(5)
        while time.monotonic() < until:
            for listener, other in (listeners, listeners[::-1]):
                try:
                    peer = listener.accept()
                except TimeoutError:
                    continue
                peer.sock.settimeout(patience(10))
                other.listener.settimeout(patience(10))
                self.addCleanup(peer.close)
                return peer, other
        raise TimeoutError("no endpoint was called")


if __name__ == "__main__":
    unittest.main()
