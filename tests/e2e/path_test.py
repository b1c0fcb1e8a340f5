"""The data path with real sidecars and real iptables: what an application sees is what it would see without them.

Every behaviour is tried on four routes: mutual TLS between two sidecars over IPv4 and IPv6, and plaintext (splice) into a sidecar's pod and
out of one."""

import dataclasses
import socket
import time
import unittest

from kit.apps import (Server, Thread, descriptors, echo, ending, exchange, fill, hangs_up, receive_data, receive_exactly, reset, resident_kb,
                      send_data, sockets_of, unsent)
from kit.mesh import Mesh, deny
from kit.waiting import patience, sanitized, wait_until


@dataclasses.dataclass(frozen=True)
class Route:
    """From one pod to another; `sidecars` are those on the way, the client's first."""

    name: str
    client: str
    server: str
    v6: bool
    sidecars: tuple


TLS_V4 = Route("mTLS over IPv4", "web", "api", False, (("web", "outbound"), ("api", "inbound")))
TLS_V6 = Route("mTLS over IPv6", "web", "api", True, (("web", "outbound"), ("api", "inbound")))
PLAIN_OUT = Route("plaintext out of a sidecar", "web", "plain", False, (("web", "outbound"),))
PLAIN_IN = Route("plaintext into a sidecar", "plain", "api", True, (("api", "inbound"),))
ROUTES = (TLS_V4, TLS_V6, PLAIN_OUT, PLAIN_IN)


class PathCase(unittest.TestCase):
    """A mesh of web and api, with sidecars, and plain, without, for all the tests of a class."""

    CONFIG = {"limits": {"connectTimeout": "3s"}}

    @classmethod
    def setUpClass(cls):
        cls.mesh = Mesh("web", "api", without=("plain",), config=cls.CONFIG)
        cls.addClassCleanup(cls.mesh.close)

    def on_routes(self, routes, check):
        for route in routes:
            with self.subTest(route=route.name):
                check(route)

    def dial(self, route, port):
        server = self.mesh.pods[route.server]
        client = self.mesh.pods[route.client].connect(server.v6 if route.v6 else server.v4, port)
        self.addCleanup(client.close)
        return client

    def attempt(self, route, port):
        """How a connection to the port ends; a refusal may come before connect() has returned."""
        try:
            return ending(self.dial(route, port))
        except ConnectionResetError:
            return "reset"

    def pair(self, route):
        """Both ends of a new connection, and its port."""
        port, listener = self.mesh.listen(route.server, route.v6)
        with listener:
            client = self.dial(route, port)
            server, _ = listener.accept()
        self.addCleanup(server.close)
        server.settimeout(patience(10.0))
        return client, server, port

    def closes(self, route, port, reason, **fields):
        """Every sidecar of the route has written a record with this reason."""
        for name, direction in route.sidecars:
            self.mesh.sidecars[name].wait_record(direction=direction, **{"destination.port": port, "close.reason": reason, **fields})


class TalkTest(PathCase):
    """Who speaks when, in which pieces, and who stops first."""

    def test_the_server_speaks_first_without_delay(self):
        def check(route):
            port, listener = self.mesh.listen(route.server, route.v6)
            took = []
            with Server(listener, lambda s: s.sendall(b"220 ready\r\n")):
                for _ in range(5):
                    began = time.monotonic()
                    client = self.dial(route, port)
                    self.assertEqual(receive_exactly(client, 11), b"220 ready\r\n")
                    took.append(time.monotonic() - began)
                    client.close()
            self.assertLess(sorted(took)[len(took) // 2], patience(0.1), took)
        self.on_routes(ROUTES, check)

    def test_the_client_ends_and_the_server_answers(self):
        def check(route):
            client, server, port = self.pair(route)
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_data(server)[0], 8)
            time.sleep(0.05)
            answer = send_data(server, 300_000)
            server.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_data(client), (300_000, answer))
            self.closes(route, port, "finished", **{"close.by": "source", "bytes_sent": 8, "bytes_recv": 300_000})
        self.on_routes(ROUTES, check)

    def test_the_server_ends_and_the_client_goes_on(self):
        def check(route):
            client, server, port = self.pair(route)
            server.sendall(b"that is all")
            server.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_data(client)[0], 11)
            time.sleep(0.05)
            sent = send_data(client, 300_000)
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_data(server), (300_000, sent))
            self.closes(route, port, "finished", **{"close.by": "destination", "bytes_sent": 300_000, "bytes_recv": 11})
        self.on_routes(ROUTES, check)

    def test_a_connection_without_a_byte(self):
        def check(route):
            client, server, port = self.pair(route)
            client.close()
            self.assertEqual(ending(server), "end")
            server.close()
            self.closes(route, port, "finished", bytes_sent=0, bytes_recv=0)
        self.on_routes(ROUTES, check)

    def test_one_byte_at_a_time(self):
        def check(route):
            client, server, _ = self.pair(route)
            for s in (client, server):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            text = bytes(i % 251 for i in range(2000))
            def trickle(s):
                for i in range(len(text)):
                    s.sendall(text[i:i + 1])
            senders = Thread(trickle, client), Thread(trickle, server)
            self.assertEqual(receive_exactly(server, len(text)), text)
            self.assertEqual(receive_exactly(client, len(text)), text)
            for sender in senders:
                sender.result()
        self.on_routes(ROUTES, check)

    def test_ping_pong_is_not_held_up(self):
        # Nagle's algorithm with delayed acknowledgements would cost 40 ms for each of these.
        def check(route):
            client, server, _ = self.pair(route)
            def answer():
                for _ in range(50):
                    receive_exactly(server, 2)
                    server.sendall(b"!")
            answerer = Thread(answer)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            began = time.monotonic()
            for _ in range(50):
                client.sendall(b"a")
                client.sendall(b"b")
                receive_exactly(client, 1)
            self.assertLess(time.monotonic() - began, patience(1.0))
            answerer.result()
        self.on_routes(ROUTES, check)

    def test_urgent_data_does_not_stall_the_rest(self):
        def check(route):
            client, server, _ = self.pair(route)
            for round_ in range(3):
                client.sendall(b"before")
                client.send(b"!", socket.MSG_OOB)
                client.sendall(b"after")
                got = receive_exactly(server, 11)
                if b"!" in got:  # in band, or dropped: both are what a relay may do with it
                    got += receive_exactly(server, 1)
                self.assertEqual(got.replace(b"!", b""), b"beforeafter", round_)
            client.send(b"!", socket.MSG_OOB)
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(ending(server), "end")
        self.on_routes(ROUTES, check)

    def test_plaintext_that_begins_like_tls(self):
        # A record header that announces more than ever comes: held until the peek deadline, then every further byte at once.
        client, server, _ = self.pair(PLAIN_IN)
        client.sendall(b"\x16\x03\x01\x02\x00")
        self.assertEqual(receive_exactly(server, 5), b"\x16\x03\x01\x02\x00")
        for i in range(5):
            client.sendall(bytes([i]))
            self.assertEqual(receive_exactly(server, 1), bytes([i]))

    def test_options_of_the_sidecars_sockets(self):
        client, server, _ = self.pair(TLS_V4)
        client.sendall(b"x")
        receive_exactly(server, 1)
        for name, _ in TLS_V4.sidecars:
            with sockets_of(self.mesh.sidecars[name].process.pid) as sockets:
                self.assertGreaterEqual(len(sockets), 2)
                for s in sockets:
                    said = f"{name}: {s.getsockname()} {s.getpeername()}"
                    self.assertEqual(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), 1, said)
                    self.assertEqual(s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1, said)
                    self.assertEqual(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), 60, said)
                    self.assertEqual(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL), 10, said)
                    self.assertEqual(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT), 6, said)


# ctest: timeout 300
# ctest: serial
# ctest: release only
class BulkTest(PathCase):
    """A gigabyte each way at the same time, checked."""

    def test_a_gigabyte_each_way_over_mtls(self):
        client, server, port = self.pair(TLS_V4)
        exchange(client, server, 1 << 30)
        self.closes(TLS_V4, port, "finished", bytes_sent=1 << 30, bytes_recv=1 << 30)

    def test_a_gigabyte_each_way_in_plaintext(self):
        client, server, port = self.pair(PLAIN_IN)
        exchange(client, server, 1 << 30)
        self.closes(PLAIN_IN, port, "finished", bytes_sent=1 << 30, bytes_recv=1 << 30)


class TransferTest(PathCase):
    """Transfers that are checked, alone, side by side and many."""

    def test_both_ways_at_once(self):
        def check(route):
            client, server, port = self.pair(route)
            exchange(client, server, 48 << 20)
            self.closes(route, port, "finished", bytes_sent=48 << 20, bytes_recv=48 << 20)
        self.on_routes(ROUTES, check)

    def test_eight_side_by_side(self):
        def check(route):
            pairs = [self.pair(route)[:2] for _ in range(8)]
            for each in [Thread(exchange, *pair, 8 << 20) for pair in pairs]:
                each.result(120)
        self.on_routes((TLS_V4, PLAIN_OUT), check)

    def test_many_small_connections_at_once(self):
        def check(route):
            port, listener = self.mesh.listen(route.server, route.v6, backlog=1024)
            def client(number):
                for i in range(10):
                    text = f"connection {number} {i} ".encode() * (1 + 37 * i)
                    with self.dial(route, port) as s:
                        s.sendall(text)
                        s.shutdown(socket.SHUT_WR)
                        got = b"".join(iter(lambda s=s: s.recv(65536), b""))
                        self.assertEqual(got, text)
            with Server(listener, echo) as server:
                for each in [Thread(client, number) for number in range(40)]:
                    each.result()
                self.assertEqual(server.accepted, 400)
            for name, direction in route.sidecars:
                self.mesh.sidecars[name].wait_record(direction=direction, count=400, **{"destination.port": port, "close.reason": "finished"})
        self.on_routes((TLS_V4, TLS_V6, PLAIN_IN), check)

    def test_a_reader_that_stops_holds_up_the_sender_and_costs_no_memory(self):
        def check(route):
            client, server, _ = self.pair(route)
            pids = [self.mesh.sidecars[name].process.pid for name, _ in route.sidecars]
            exchange(*self.pair(route)[:2], 4 << 20)  # what is allocated once
            before = [resident_kb(pid) for pid in pids]
            sent = fill(client)
            self.assertLess(sent, 64 << 20)
            for pid, kb in zip(pids, before):
                if not sanitized():  # which keep freed memory back
                    self.assertLess(resident_kb(pid) - kb, 2048, f"after {sent} bytes")
            reader = Thread(receive_data, server)
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(reader.result()[0], sent)
        self.on_routes(ROUTES, check)


class ResetTest(PathCase):
    """A reset is a reset on the other side, in every state, and never a clean end."""

    def test_in_an_idle_connection(self):
        def check(route):
            for who in (0, 1):
                with self.subTest(reset_by=("client", "server")[who]):
                    *ends, port = self.pair(route)
                    ends[0].sendall(b"x")
                    receive_exactly(ends[1], 1)
                    reset(ends[who])
                    self.assertEqual(ending(ends[1 - who]), "reset")
                    self.closes(route, port, "reset", **{"close.by": ("source", "destination")[who]})
        self.on_routes(ROUTES, check)

    def test_in_the_middle_of_a_transfer(self):
        def check(route):
            for who in (0, 1):
                with self.subTest(reset_by=("client", "server")[who]):
                    *ends, port = self.pair(route)
                    sender = Thread(send_data, ends[1 - who], 1 << 30)
                    receive_data(ends[who], 1 << 20)
                    reset(ends[who])
                    with self.assertRaises((ConnectionResetError, BrokenPipeError)):
                        sender.result()
                    self.closes(route, port, "reset")
        self.on_routes(ROUTES, check)

    def test_by_the_sender_in_the_middle_of_a_transfer(self):
        def check(route):
            client, server, port = self.pair(route)
            fill(client, 0.1)
            reset(client)
            self.assertEqual(ending(server), "reset")
            self.closes(route, port, "reset")
        self.on_routes(ROUTES, check)

    def test_while_the_other_direction_waits_to_write(self):
        def check(route):
            for who in (0, 1):
                with self.subTest(reset_by=("client", "server")[who]):
                    *ends, port = self.pair(route)
                    fill(ends[1 - who])
                    reset(ends[who])
                    self.assertEqual(ending(ends[1 - who]), "reset")
                    self.closes(route, port, "reset")
        self.on_routes(ROUTES, check)

    def test_by_a_sender_whose_bytes_nobody_reads(self):
        def check(route):
            for who in (0, 1):
                with self.subTest(reset_by=("client", "server")[who]):
                    *ends, port = self.pair(route)
                    fill(ends[who])
                    reset(ends[who])
                    self.assertTrue(hangs_up(ends[1 - who], 5), "the reader has not heard of it")
                    self.assertEqual(ending(ends[1 - who]), "reset")
                    self.closes(route, port, "reset")
        self.on_routes(ROUTES, check)

    def test_by_a_sender_whose_bytes_are_under_way(self):
        """Its sidecar has sent them on, and could send more: they wait at the reader's."""
        def taken(s, steps):
            """How many of the steps the sidecar takes without the reader's doing anything."""
            for step in range(steps):
                s.sendall(bytes(1 << 18))
                try:
                    wait_until(lambda: unsent(s) == 0, 0.5, "taken")
                except TimeoutError:
                    return step
            return steps

        def check(route):
            for who in (0, 1):
                with self.subTest(reset_by=("client", "server")[who]):
                    *ends, _ = self.pair(route)
                    room = taken(ends[who], 1000)
                    for end in ends:
                        reset(end)
                    *ends, port = self.pair(route)
                    taken(ends[who], room // 3)
                    reset(ends[who])
                    self.assertTrue(hangs_up(ends[1 - who], 5), "the reader has not heard of it")
                    self.closes(route, port, "reset")
        self.on_routes(ROUTES, check)

    def test_after_a_half_close(self):
        def check(route):
            for who in (0, 1):
                with self.subTest(reset_by=("client", "server")[who]):
                    *ends, port = self.pair(route)
                    ends[who].shutdown(socket.SHUT_WR)
                    self.assertEqual(ending(ends[1 - who]), "end")
                    reset(ends[who])
                    self.assertTrue(hangs_up(ends[1 - who]))
                    with self.assertRaises((ConnectionResetError, BrokenPipeError)):
                        while True:
                            ends[1 - who].sendall(b"anyone?")
                            time.sleep(0.01)
                    self.closes(route, port, "reset")
        self.on_routes(ROUTES, check)

    def test_while_connecting_to_the_destination(self):
        api = self.mesh.pods["api"]
        port, listener = self.mesh.listen("api")
        api.drop_arriving(15006)
        client = self.dial(TLS_V4, port)
        client.sendall(b"early")
        reset(client)
        api.drop_arriving(15006, dropped=False)
        self.mesh.sidecars["web"].wait_record(direction="outbound", **{"destination.port": port, "close.reason": "reset", "close.by": "source"})
        with listener:
            listener.settimeout(0.3)
            try:
                server, _ = listener.accept()
            except TimeoutError:
                return
        with server:  # what came before the reset may have been on its way already
            self.assertEqual(ending(server), "reset")

    def test_before_the_status(self):
        api = self.mesh.pods["api"]
        port, listener = self.mesh.listen("api")
        api.drop_arriving(port)  # the application does not answer its sidecar
        client = self.dial(TLS_V4, port)
        client.sendall(b"early")
        time.sleep(0.3)
        reset(client)
        self.mesh.sidecars["web"].wait_record(direction="outbound", **{"destination.port": port, "close.reason": "reset", "close.by": "source"})
        api.drop_arriving(port, dropped=False)
        with listener:
            server, _ = listener.accept()
        with server:
            self.assertEqual(ending(server), "reset")
        self.closes(TLS_V4, port, "reset")


class UnreachableTest(PathCase):
    """What is not there: the application, the sidecar, the pod."""

    def test_the_application_does_not_listen(self):
        for route, reasons in ((TLS_V4, ("app_unreachable", "app_unreachable")), (TLS_V6, ("app_unreachable", "app_unreachable")),
                               (PLAIN_IN, ("app_unreachable",)), (PLAIN_OUT, ("connect_failed",))):
            with self.subTest(route=route.name):
                port = self.mesh.new_port()
                self.assertEqual(self.attempt(route, port), "reset")
                for (name, direction), reason in zip(route.sidecars, reasons):
                    self.mesh.sidecars[name].wait_record(direction=direction, **{"destination.port": port, "close.reason": reason})

    def test_the_application_does_not_accept_in_time(self):
        port, listener = self.mesh.listen("api")
        self.mesh.pods["api"].drop_arriving(port)
        with listener:
            self.assertEqual(self.attempt(TLS_V4, port), "reset")
        self.mesh.sidecars["api"].wait_record(direction="inbound", **{"destination.port": port, "close.reason": "app_timeout"})
        self.mesh.sidecars["web"].wait_record(direction="outbound", **{"destination.port": port, "close.reason": "app_unreachable",
                                                                       "close.detail": "timeout"})

    def test_the_destination_is_silent(self):
        api, port = self.mesh.pods["api"], self.mesh.new_port()
        api.drop_arriving(15006)
        self.assertEqual(self.attempt(TLS_V4, port), "reset")
        api.drop_arriving(15006, dropped=False)
        self.mesh.sidecars["web"].wait_record(direction="outbound", **{"destination.port": port, "close.reason": "connect_timeout"})

    def test_the_destination_is_gone(self):
        api, port = self.mesh.pods["api"], self.mesh.new_port()
        api.link(False)
        self.assertEqual(self.attempt(TLS_V4, port), "reset")
        self.mesh.sidecars["web"].wait_record(direction="outbound", **{"destination.port": port,
                                                                       "close.reason": lambda r: r in ("connect_failed", "connect_timeout")})
        api.link(True)
        wait_until(lambda: exchange(*self.pair(TLS_V4)[:2], 10) is None, 10, "the way back")


class PolicyChangeTest(PathCase):
    """A policy that no longer allows a connection ends it, in every state that it can be in."""

    def tearDown(self):
        self.mesh.apply()

    def cut(self, route, port, egress):
        """Denies the route and returns the record of the sidecar that denied."""
        name, direction = route.sidecars[0] if egress else route.sidecars[-1]
        self.mesh.apply(deny(name, "Egress" if egress else "Ingress"))
        return self.mesh.sidecars[name].wait_record(direction=direction, **{"destination.port": port, "close.reason": "policy_changed"})

    def both_sides(self, check):
        """check(route, egress) for every route and each of its sides that can deny."""
        for route in ROUTES:
            for egress in (True, False):
                if egress and route is PLAIN_IN or not egress and route is PLAIN_OUT:
                    continue
                with self.subTest(route=route.name, denied_by="egress" if egress else "ingress"):
                    check(route, egress)
                self.mesh.apply()

    def test_idle(self):
        def check(route, egress):
            client, server, port = self.pair(route)
            client.sendall(b"x")
            receive_exactly(server, 1)
            record = self.cut(route, port, egress)
            self.assertEqual(ending(client), "reset")
            self.assertEqual(ending(server), "reset")
            self.assertEqual(record["close.by"], "proxy")
            self.closes(route, port, "policy_changed")
        self.both_sides(check)

    def test_half_closed(self):
        def check(route, egress):
            client, server, port = self.pair(route)
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(ending(server), "end")
            self.cut(route, port, egress)
            self.assertEqual(ending(client), "reset")
            self.assertTrue(hangs_up(server))
            self.closes(route, port, "policy_changed")
        self.both_sides(check)

    def test_in_the_middle_of_a_transfer(self):
        def check(route, egress):
            client, server, port = self.pair(route)
            sender, reader = Thread(send_data, client, 1 << 40), Thread(receive_data, server)
            time.sleep(0.1)
            self.cut(route, port, egress)
            for thread in (sender, reader):
                with self.assertRaises((ConnectionResetError, BrokenPipeError)):
                    thread.result()
        self.both_sides(check)

    def test_blocked_on_a_write(self):
        def check(route, egress):
            for who in (0, 1):
                with self.subTest(sender=("client", "server")[who]):
                    *ends, port = self.pair(route)
                    fill(ends[who], 0.3)
                    self.cut(route, port, egress)
                    for end in ends:
                        self.assertTrue(hangs_up(end, 5), "an end has not heard of it")
                        self.assertEqual(ending(end), "reset")
                self.mesh.apply()
        self.both_sides(check)

    def test_while_connecting_to_the_destination(self):
        api, port = self.mesh.pods["api"], self.mesh.new_port()
        api.drop_arriving(15006)
        client = self.dial(TLS_V4, port)
        time.sleep(0.2)
        record = self.cut(TLS_V4, port, True)
        self.assertEqual(ending(client), "reset")
        api.drop_arriving(15006, dropped=False)
        self.assertLess(record["duration_ms"], 2000)

    def test_before_the_status(self):
        api = self.mesh.pods["api"]
        for egress in (True, False):
            with self.subTest(denied_by="egress" if egress else "ingress"):
                port, listener = self.mesh.listen("api")
                api.drop_arriving(port)
                client = self.dial(TLS_V4, port)
                client.sendall(b"early")
                time.sleep(0.3)
                self.cut(TLS_V4, port, egress)
                self.assertEqual(ending(client), "reset")
                api.drop_arriving(port, dropped=False)
                if not egress:
                    self.mesh.sidecars["web"].wait_record(direction="outbound", **{"destination.port": port, "close.reason": "peer_denied"})
                self.mesh.apply()
                listener.close()


class IdleTest(PathCase):
    """The idle limit, where it is set."""

    CONFIG = {"limits": {"idleTimeout": "1s"}}

    def test_a_connection_without_a_byte_is_closed(self):
        def check(route):
            client, server, port = self.pair(route)
            until = time.monotonic() + 2.5
            while time.monotonic() < until:  # a byte now and then keeps it
                client.sendall(b"x")
                receive_exactly(server, 1)
                time.sleep(0.4)
            self.assertEqual(ending(client, 5), "reset")
            self.assertEqual(ending(server, 5), "reset")
            self.one_is_idle(route, port)
        self.on_routes((TLS_V4, PLAIN_OUT), check)

    def one_is_idle(self, route, port):
        """Whichever comes first says so; the other hears of it, or has come to the same."""
        def look():
            return [r for name, direction in route.sidecars
                    for r in self.mesh.sidecars[name].records(direction=direction, **{"destination.port": port, "close.reason": "idle"})]
        wait_until(look, 5, "a record with close.reason idle")


# ctest: timeout 300
class KilledSidecarTest(PathCase):
    """kill -9 of a sidecar in the middle of a transfer: a reset, and all is well again once it is back."""

    # Its kernel ends the TLS connection with FIN, or with RST if anything was unread.
    GONE = staticmethod(lambda reason: reason in ("truncated", "reset"))

    def tearDown(self):
        for sidecar in self.mesh.sidecars.values():
            if not sidecar.process.alive():
                sidecar.start(redirect=False)

    def test_killed_and_restarted(self):
        for name in ("web", "api"):
            with self.subTest(killed=name):
                client, server, _ = self.pair(TLS_V4)
                sender, reader = Thread(send_data, client, 1 << 40), Thread(receive_data, server)
                time.sleep(0.1)
                sidecar = self.mesh.sidecars[name]
                sidecar.process.kill()
                for thread in (sender, reader):
                    with self.assertRaises((ConnectionResetError, BrokenPipeError)):
                        thread.result()
                sidecar.start(redirect=False)
                exchange(*self.pair(TLS_V4)[:2], 1 << 20)

    def test_killed_while_idle(self):
        client, server, port = self.pair(TLS_V4)
        server.sendall(b"x")
        receive_exactly(client, 1)  # from here on both sidecars relay
        self.mesh.sidecars["web"].process.kill()
        self.assertEqual(ending(server), "reset")
        self.mesh.sidecars["api"].wait_record(direction="inbound", **{"destination.port": port, "close.reason": self.GONE})
        self.assertEqual(ending(client), "reset")
        self.mesh.sidecars["web"].start(redirect=False)
        client, server, port = self.pair(TLS_V4)
        server.sendall(b"x")
        receive_exactly(client, 1)
        self.mesh.sidecars["api"].process.kill()
        self.assertEqual(ending(client), "reset")
        self.mesh.sidecars["web"].wait_record(direction="outbound", **{"destination.port": port, "close.reason": self.GONE})
        self.mesh.sidecars["api"].start(redirect=False)
        exchange(*self.pair(TLS_V4)[:2], 1 << 20)

    def test_no_descriptor_is_left(self):
        pids = [s.process.pid for s in self.mesh.sidecars.values()]
        exchange(*self.pair(TLS_V4)[:2], 1 << 10)
        before = [descriptors(pid) for pid in pids]
        for _ in range(30):
            client, server, _ = self.pair(TLS_V4)
            reset(client)
            self.assertEqual(ending(server), "reset")
        wait_until(lambda: all(descriptors(pid) <= n + 2 for pid, n in zip(pids, before)), 5,
                   lambda: f"{before} before, {[descriptors(pid) for pid in pids]} now")


if __name__ == "__main__":
    unittest.main()
