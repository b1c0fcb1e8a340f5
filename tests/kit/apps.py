"""The applications behind the sidecars: bulk transfers with checksums, echo and server-first servers, and how a socket ended.

Everything runs in threads of the test itself, on sockets that kit.pods made inside the pods: a test holds both ends of a connection and
says what happens at each of them.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import os
import select
import socket
import struct
import termios
import threading
import time

from kit.processes import LIBC
from kit.waiting import patience

_BLOCK = 1 << 20
_SYS_PIDFD_GETFD = 438  # asm-generic/unistd.h; no wrapper in this C library


class Thread(threading.Thread):
    """A thread whose result, or exception, comes out of result()."""

    def __init__(self, function, *arguments):
        super().__init__(daemon=True)
        self._call, self._value, self._error = (function, arguments), None, None
        self.start()

    def run(self):
        function, arguments = self._call
        try:
            self._value = function(*arguments)
        except BaseException as error:  # pylint: disable=broad-except
            self._error = error

    def result(self, deadline=60.0):
        """Waits for its end."""
        self.join(patience(deadline))
        if self.is_alive():
            raise TimeoutError(f"still running after {patience(deadline):g} s: {self._call}")
        if self._error is not None:
            raise self._error
        return self._value


def send_data(s, count):
    """Sends that many bytes, no two megabytes alike, and returns their SHA-256."""
    block, digest, number = bytearray(os.urandom(_BLOCK)), hashlib.sha256(), 0
    while count > 0:
        block[:8] = struct.pack("!Q", number)
        piece = memoryview(block)[:min(count, _BLOCK)]
        digest.update(piece)
        s.sendall(piece)
        count -= len(piece)
        number += 1
    return digest.hexdigest()


def receive_data(s, count=None):
    """Receives that many bytes (without `count`: up to the FIN), and returns how many there were and their SHA-256."""
    buffer, digest, got = bytearray(_BLOCK), hashlib.sha256(), 0
    while count is None or got < count:
        n = s.recv_into(buffer, _BLOCK if count is None else min(_BLOCK, count - got))
        if n == 0:
            break
        digest.update(memoryview(buffer)[:n])
        got += n
    return got, digest.hexdigest()


def receive_exactly(s, count):
    """Exactly that many bytes; an earlier end raises."""
    parts = bytearray()
    while len(parts) < count:
        piece = s.recv(count - len(parts))
        if not piece:
            raise EOFError(f"end after {len(parts)} of {count} bytes: {bytes(parts[:60])!r}")
        parts += piece
    return bytes(parts)


def exchange(a, b, count, deadline=120.0):
    """Both ends send `count` bytes at the same time, with half-close; raises unless each got exactly what the other sent."""
    def send(s):
        digest = send_data(s, count)
        s.shutdown(socket.SHUT_WR)
        return digest

    receivers = Thread(receive_data, a), Thread(receive_data, b)
    senders = Thread(send, b), Thread(send, a)
    for sender, receiver in zip(senders, receivers):
        sent, got = sender.result(deadline), receiver.result(deadline)
        if got != (count, sent):
            raise AssertionError(f"sent {count} bytes {sent}, received {got}")


def fill(s, quiet=0.5):
    """Sends until nothing more has been taken for `quiet` seconds; returns how many bytes were taken."""
    block, sent = b"\xa5" * 65536, 0
    s.setblocking(False)
    until = time.monotonic() + quiet
    while time.monotonic() < until:
        try:
            sent += s.send(block)
            until = time.monotonic() + quiet
        except BlockingIOError:
            time.sleep(0.01)
    s.settimeout(patience(10.0))
    return sent


def unsent(s):
    """How many bytes the other end's kernel has not acknowledged yet (tcp(7), SIOCOUTQ)."""
    return struct.unpack("i", fcntl.ioctl(s, termios.TIOCOUTQ, bytes(4)))[0]


def reset(s):
    """Closes with RST."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def ending(s, deadline=10.0):
    """How the peer ended its direction: "end" (FIN), "reset", or "open" at the deadline. What still arrives before it is discarded."""
    until = time.monotonic() + patience(deadline)
    while True:
        left = until - time.monotonic()
        if left <= 0:
            return "open"
        s.settimeout(left)
        try:
            if not s.recv(65536):
                return "end"
        except (ConnectionResetError, BrokenPipeError):
            return "reset"
        except TimeoutError:
            return "open"


def hangs_up(s, deadline=10.0):
    """Whether an end, error or reset shows within the deadline without a byte being read."""
    poll = select.poll()
    poll.register(s, select.POLLERR | select.POLLHUP | select.POLLRDHUP)
    return bool(poll.poll(patience(deadline) * 1000))


class Server:
    """Accepts on a listening socket and runs handler(socket) for each connection in a thread of its own, until close()."""

    def __init__(self, listener, handler):
        self.listener, self.handler, self.accepted = listener, handler, 0
        self._thread = Thread(self._accept)

    def _accept(self):
        self.listener.settimeout(0.2)
        while True:
            try:
                s, _ = self.listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self.accepted += 1
            s.settimeout(patience(30.0))
            Thread(self._serve, s)

    def _serve(self, s):
        with s, contextlib.suppress(OSError):
            self.handler(s)

    def close(self):
        self.listener.close()
        self._thread.result(5)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Relay(Server):
    """Passes each connection on to what connect() opens, byte for byte, and can cut those that are there in the middle of what they are told."""

    def __init__(self, listener, connect):
        self._connect, self._left, self.cut = connect, None, 0
        super().__init__(listener, self._pass_on)

    def cut_within(self, count):
        """The next connection that has brought `count` bytes more from the far end is cut there; the bytes up to it arrive."""
        self._left = {"of": count}

    def _pass_on(self, near):
        with self._connect() as far:
            Thread(self._copy, near, far, None)
            self._copy(far, near, {})

    def _copy(self, source, target, seen):
        with contextlib.suppress(OSError):
            while True:
                source.settimeout(None)
                data, left = source.recv(4096), self._left
                if seen is not None and left is not None:
                    if seen.get("for") is not left:
                        seen.update({"for": left, "bytes": 0})
                    seen["bytes"] += len(data)
                    if seen["bytes"] >= left["of"]:
                        target.sendall(data)
                        self._left, self.cut = None, self.cut + 1
                        break
                if not data:
                    break
                target.sendall(data)
        for s in (source, target):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)


def echo(s):
    """Sends back what arrives, then the FIN."""
    while data := s.recv(65536):
        s.sendall(data)


def descriptors(pid):
    """How many descriptors the process holds, without its pipes: those of splice(2) are kept for the next connection."""
    count = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            count += not os.readlink(f"/proc/{pid}/fd/{name}").startswith("pipe:")
    return count


def resident_kb(pid):
    """Its resident memory."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


@contextlib.contextmanager
def sockets_of(pid):
    """Duplicates of the connected TCP sockets of another process, to ask for their options."""
    pidfd, found = os.pidfd_open(pid), []
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                    continue
                fd = LIBC.syscall(_SYS_PIDFD_GETFD, pidfd, ctypes.c_int(int(name)), 0)
                if fd < 0:
                    continue
                s = socket.socket(fileno=fd)
                try:
                    if s.family in (socket.AF_INET, socket.AF_INET6) and s.type == socket.SOCK_STREAM:
                        s.getpeername()
                        found.append(s)
                        continue
                except OSError:
                    pass
                s.close()
        yield found
    finally:
        for s in found:
            s.close()
        os.close(pidfd)
