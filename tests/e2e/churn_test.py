"""A busy mesh for a while: connections of every kind at once, with checksums, while policies and SVIDs change under them. Nothing stalls,
nothing is cut, nothing is left over, and the counters say what the records say."""

import contextlib
import os
import random
import socket
import struct
import threading
import time
import unittest

from kit.apps import Server, Thread, descriptors, ending, receive_data, receive_exactly, reset, resident_kb, send_data
from kit.mesh import Mesh, allow
from kit.waiting import patience, wait_until

SECONDS = 15


def serve(s):
    """The first byte says what the client wants of us."""
    kind = s.recv(1)
    if kind == b"e":  # echo up to the FIN
        while data := s.recv(65536):
            s.sendall(data)
    elif kind == b"g":  # get: that many bytes, then their SHA-256
        digest = send_data(s, struct.unpack("!I", receive_exactly(s, 4))[0])
        s.sendall(digest.encode())
    elif kind == b"p":  # put: up to the FIN, answered with the SHA-256
        s.sendall(receive_data(s)[1].encode())
    elif kind == b"r":
        reset(s)


def banner(s):
    """The server speaks first."""
    s.sendall(b"220 ready\r\n")
    s.recv(1)


# ctest: tsan
class ChurnTest(unittest.TestCase):
    """Eight clients at a time through web and api, over mTLS (IPv4, IPv6) and in plaintext."""

    @classmethod
    def setUpClass(cls):
        cls.mesh = Mesh("web", "api", without=("plain",))
        cls.addClassCleanup(cls.mesh.close)
        cls.stop = threading.Event()
        cls.ports, cls.count, cls.lock = {}, {}, threading.Lock()

    def listen_everywhere(self):
        for pod in ("api", "plain"):
            for v6 in (False, True):
                for handler in (serve, banner):
                    port, listener = self.mesh.listen(pod, v6, backlog=512)
                    self.ports[pod, v6, handler] = port
                    server = Server(listener, handler)
                    self.addCleanup(server.close)

    def dial(self, rng, handler):
        client, server = rng.choice((("web", "api"), ("web", "api"), ("web", "api"), ("web", "plain"), ("plain", "api")))
        v6 = rng.random() < 0.5
        pod = self.mesh.pods[server]
        s = self.mesh.pods[client].connect(pod.v6 if v6 else pod.v4, self.ports[server, v6, handler], timeout=15)  # the watchdog
        with self.lock:
            for name, direction in ((client, "outbound"), (server, "inbound")):
                if name in self.mesh.sidecars:
                    self.count[name, direction] = self.count.get((name, direction), 0) + 1
        return s

    @contextlib.contextmanager
    def explained(self, kind, s):
        """A failure says which connection it was, and what the sidecars recorded of it."""
        where = s.getsockname()[:2] + s.getpeername()[:2]
        try:
            yield
        except Exception as error:
            time.sleep(1)  # the records come behind the connection's end
            records = [r for sidecar in self.mesh.sidecars.values() for r in sidecar.records()
                       if r["source.port"] == where[1] or r["close.reason"] not in ("finished", "reset")]
            raise AssertionError(f"kind {kind}, {where}: {error!r}; records: {records}") from error

    def one(self, rng):
        kind = rng.choice("eeeeegpbbcr")
        with self.dial(rng, banner if kind == "b" else serve) as s, self.explained(kind, s):
            if kind == "e":
                s.sendall(b"e")
                for _ in range(rng.randrange(1, 5)):
                    text = os.urandom(rng.choice((1, 100, 20_000, 70_000)))
                    s.sendall(text)
                    self.assertEqual(receive_exactly(s, len(text)), text)
                s.shutdown(socket.SHUT_WR)
                self.assertEqual(ending(s), "end")
            elif kind == "g":
                size = rng.randrange(1, 1 << 21)
                s.sendall(b"g" + struct.pack("!I", size))
                got = receive_data(s, size)
                self.assertEqual((got[0], receive_exactly(s, 64).decode()), (size, got[1]))
            elif kind == "p":
                s.sendall(b"p")
                digest = send_data(s, rng.randrange(1, 1 << 21))
                s.shutdown(socket.SHUT_WR)
                self.assertEqual(receive_exactly(s, 64).decode(), digest)
            elif kind == "b":
                self.assertEqual(receive_exactly(s, 11), b"220 ready\r\n")
            elif kind == "r":  # the server does
                s.sendall(b"r")
                self.assertEqual(ending(s), "reset")
            else:  # the client gives up
                s.sendall(b"e" + b"x" * 50_000)
                reset(s)

    def client(self, seed):
        rng, done = random.Random(seed), 0
        while not self.stop.is_set():
            self.one(rng)
            done += 1
        return done

    def warm_up(self):
        """What is allocated once, is."""
        rng = random.Random(0)
        for _ in range(60):
            self.one(rng)

    def quiet(self):
        """Waits until no connection is open."""
        for name in self.mesh.sidecars:
            wait_until(lambda n=name: self.mesh.metric(n, "postern_connections_active") == 0, 10,
                       lambda n=name: f"no connection open at {n}: {self.mesh.sidecars[n].admin('GET', '/connections')}")

    def empty_pools(self):
        for name in self.mesh.sidecars:
            self.mesh.rotate(name)
        for name in self.mesh.sidecars:
            wait_until(lambda n=name: self.mesh.metric(n, "postern_pool_idle_connections") == 0, 5, "empty pools")

    def test_churn(self):
        self.listen_everywhere()
        self.warm_up()
        self.quiet()
        self.empty_pools()
        time.sleep(1.2)  # those that linger
        pids = {name: sidecar.process.pid for name, sidecar in self.mesh.sidecars.items()}
        baseline = {name: (descriptors(pid), resident_kb(pid)) for name, pid in pids.items()}

        clients = [Thread(self.client, seed) for seed in range(1, 9)]
        until, rounds = time.monotonic() + SECONDS, 0
        while time.monotonic() < until:
            rounds += 1
            time.sleep(0.3)
            self.mesh.apply(*([allow("api")] if rounds % 2 else []))  # by a rule, and by none: both allow everything
            if rounds % 3 == 0:
                self.mesh.rotate("web" if rounds % 2 else "api")
        self.stop.set()
        done = sum(client.result(60) for client in clients)
        self.assertGreater(done, 200)
        self.assertGreater(rounds, 5)

        self.quiet()
        self.empty_pools()
        for name, pid in pids.items():
            fds, kb = baseline[name]
            wait_until(lambda p=pid, n=fds: descriptors(p) <= n, 10, lambda p=pid, n=fds, s=name: f"{n} descriptors at {s}; there are {descriptors(p)}")
            self.assertLess(resident_kb(pid) - kb, 8192 if patience(1) == 1 else 1 << 20, f"memory of {name}")
        self.add_up()

    def add_up(self):
        """One record for each connection, and the counters agree with them."""
        for (name, direction), dialled in sorted(self.count.items()):
            sidecar = self.mesh.sidecars[name]
            wait_until(lambda: len(sidecar.records(direction=direction)) >= dialled, 10,
                       lambda: f"{dialled} {direction} records at {name}; there are {len(sidecar.records(direction=direction))}")
            records = sidecar.records(direction=direction)
            self.assertEqual(len(records), self.mesh.metric(name, "postern_connections_opened_total", direction=direction))
            self.assertEqual(len(records), self.mesh.metric(name, "postern_connections_closed_total", direction=direction))
            for reason in {r["close.reason"] for r in records}:
                self.assertEqual(sum(r["close.reason"] == reason for r in records),
                                 self.mesh.metric(name, "postern_connections_closed_total", direction=direction, reason=reason), reason)
            self.assertEqual([r for r in records if r["close.reason"] not in ("finished", "reset")], [])
        self.assertEqual(self.mesh.metric("web", "postern_access_records_dropped_total"), 0)
        self.assertGreater(self.mesh.metric("web", "postern_streams_recycled_total"), 0)
        ids = {(r["connection.id"], r["connection.stream"]) for r in self.mesh.sidecars["api"].records() if "connection.id" in r}
        self.assertEqual(ids, {(r["connection.id"], r["connection.stream"]) for r in self.mesh.sidecars["web"].records() if "connection.id" in r})


if __name__ == "__main__":
    unittest.main()
