"""The local ports of the sidecar's own connections keep apart from those of the application's: conntrack knows both by the same four numbers, and
for 10 s after a reset it goes on doing to a new connection what NAT did to the old one (docs/architecture.md, section 2)."""

import socket
import unittest

from kit.apps import Server, ending, receive_exactly, reset
from kit.mesh import Mesh

ATTEMPTS = 150
RANGE = (40000, 40999)  # small, so that a port chosen at random would soon be one that was used before


def answer_and_reset(s):
    s.sendall(receive_exactly(s, 4))
    s.recv(1)  # the client has the answer
    reset(s)


class SourcePortsTest(unittest.TestCase):
    """web with a sidecar and few local ports, api with a sidecar, plain without."""

    @classmethod
    def setUpClass(cls):
        cls.mesh = Mesh("web", "api", without=("plain",), start=False)
        cls.addClassCleanup(cls.mesh.close)
        cls.mesh.pods["web"].sysctl("net.ipv4.ip_local_port_range", "{} {}".format(*RANGE))
        for sidecar in cls.mesh.sidecars.values():
            sidecar.start()

    def resets(self, server, v6=False):
        """Connections that the server resets, one after another, to one port; each reaches the server and sees the reset."""
        port, listener = self.mesh.listen(server, v6)
        served = Server(listener, answer_and_reset)
        self.addCleanup(served.close)
        pod = self.mesh.pods[server]
        for attempt in range(ATTEMPTS):
            with self.mesh.pods["web"].connect(pod.v6 if v6 else pod.v4, port) as client:
                client.sendall(b"ping")
                try:
                    self.assertEqual(receive_exactly(client, 4), b"ping")
                    client.sendall(b"!")
                    self.assertEqual(ending(client), "reset")
                except Exception as error:
                    records = [r for r in self.mesh.sidecars["web"].records() if r["destination.port"] == port][-2:]
                    raise AssertionError(f"attempt {attempt} from {client.getsockname()[1]}: {error!r}; {records}") from error
        self.mesh.sidecars["web"].wait_record(direction="outbound", count=ATTEMPTS, **{"destination.port": port, "close.reason": "reset"})

    def test_a_reset_does_not_bring_the_next_connection_back_to_its_sidecar(self):
        self.resets("api")

    def test_over_ipv6(self):
        self.resets("api", v6=True)

    def test_in_plaintext(self):
        self.resets("plain")

    def test_the_sidecar_takes_ports_that_the_kernel_gives_to_nobody_else_first(self):
        """connect(2) prefers ports of the parity of the range's first (Linux, __inet_hash_connect): the sidecar takes the others."""
        port, listener = self.mesh.listen("plain")
        seen = []
        served = Server(listener, lambda s: seen.append(s.getpeername()[1]))
        self.addCleanup(served.close)
        for _ in range(20):
            with self.mesh.pods["web"].connect(self.mesh.pods["plain"].v4, port) as client:
                self.assertEqual(client.getsockname()[1] % 2, RANGE[0] % 2)
                client.shutdown(socket.SHUT_WR)
                self.assertEqual(ending(client), "end")
        self.assertEqual([p for p in seen if p % 2 == RANGE[0] % 2 or not RANGE[0] <= p <= RANGE[1]], [])
        self.assertEqual(len(seen), 20)
