"""A raw peer of a sidecar, to be hostile with: mutual TLS with any SVID, any ALPN or none, and frames of postern/1 (docs/wire.md), right
or wrong ones. Everything happens when the test says so; nothing is sent behind its back.

    peer = Peer.connect(pod, other.v4, 7000, svid)     # as the sidecar's uid: past the pod's own redirection, straight at the other side
    peer.send(OPEN, frame(DATA, b"hello"))
    peer.frame()                                       # (STATUS, b"\\0\\0"); raises Ended, Reset or Truncated

    with PeerListener(pod, 7000, svid) as listener:    # in place of a sidecar's inbound side (a pod without redirection)
        peer = listener.accept()                       # after the handshake
"""

import contextlib
import ctypes
import socket
import ssl
import struct
import tempfile

from kit.processes import LIBC
from kit.sidecar import PROXY_UID
from kit.waiting import patience

OPEN_TYPE, STATUS, DATA, END_TYPE, RESET = 1, 2, 3, 4, 5
ACCEPTED, DENIED, NO_POLICY, APP_UNREACHABLE, OVERLOADED = 0, 1, 2, 3, 4                                    # STATUS, first byte
NO_RULE, IDENTITY_UNKNOWN, UID_MISMATCH, IDENTITY_REJECTED, TIMEOUT, DESCRIPTORS, IDENTITY_DENIED = 1, 2, 3, 4, 5, 6, 7  # STATUS, second byte
APPLICATION, POLICY_CHANGED, TRUNCATED, IDLE, DRAINED, INTERNAL = 0, 1, 2, 3, 4, 5                          # RESET
ALPN = "postern/1"


def frame(frame_type, payload=b"", *, reserved=0, length=None):
    """A frame, wrong if wanted."""
    return struct.pack(">BBH", frame_type, reserved, len(payload) if length is None else length) + payload


OPEN, END = frame(OPEN_TYPE), frame(END_TYPE)


class Ended(Exception):
    """The other side closed with close_notify."""


class Truncated(Exception):
    """A TCP FIN without close_notify."""


class Reset(Exception):
    """A TCP RST."""


def context(svid, *, server=False, alpn=(ALPN,), versions=(ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3), verify=True):
    """An SSLContext with that SVID (None: no certificate). `verify`: against the SVID's bundle; otherwise anybody is accepted."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # Python's default hides truncation
    made.minimum_version, made.maximum_version = versions
    if alpn:
        made.set_alpn_protocols(list(alpn))
    if svid is None or not verify:
        made.verify_mode = ssl.CERT_NONE
    else:
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(cadata=svid.bundle)
    if svid is not None:
        with tempfile.TemporaryDirectory() as folder:
            certificate, key, _ = svid.write(folder)
            made.load_cert_chain(certificate, key)
    return made


def client_hello(alpn=(ALPN,)):
    """The bytes of a ClientHello, for those who send only some of them."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context(None, alpn=alpn).wrap_bio(incoming, outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@contextlib.contextmanager
def as_uid(uid):
    """What this thread opens meanwhile belongs to that uid (setfsuid(2)), as far as iptables' owner match goes."""
    LIBC.setfsuid(ctypes.c_uint(uid))
    try:
        yield
    finally:
        LIBC.setfsuid(ctypes.c_uint(0))


def connect_as(pod, address, port, *, uid=PROXY_UID, timeout=10.0, source=None):
    """A plain TCP connection of the pod by that uid: 1337 is not redirected."""
    with pod.entered(), as_uid(uid):
        s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        s.settimeout(patience(timeout))
        if source:
            s.bind((source, 0))
        s.connect((address, port))
        return s
    except BaseException:
        s.close()
        raise


def abort(s):
    """Closes a socket with RST."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


class Peer:
    """One TLS connection over a socket. Use Peer.connect() or PeerListener."""

    def __init__(self, sock, tls_context, *, server=False, session=None):
        self.sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = tls_context.wrap_bio(self._incoming, self._outgoing, server_side=server, session=session)
        self._bytes = b""  # read, not yet taken as frames

    @classmethod
    def connect(cls, pod, address, port, svid, *, alpn=(ALPN,), uid=PROXY_UID, source=None, session=None, handshake=True, timeout=10.0,
                tls_context=None, **options):
        """A client straight at another pod's address. `session` (with the same tls_context) resumes; see Peer.session."""
        made = tls_context or context(svid, alpn=alpn, **options)
        peer = cls(connect_as(pod, address, port, uid=uid, timeout=timeout, source=source), made, session=session)
        try:
            if handshake:
                peer.handshake()
        except BaseException:
            peer.close()
            raise
        return peer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _pump(self, call):
        """Does what needs the other side: sends what TLS has to say, reads until TLS has enough."""
        while True:
            try:
                result = call()
                self._flush()
                return result
            except ssl.SSLWantReadError:
                self._flush()
                try:
                    got = self.sock.recv(65536)
                except ConnectionResetError:
                    raise Reset from None
                if got:
                    self._incoming.write(got)
                else:
                    self._incoming.write_eof()
            except ssl.SSLZeroReturnError:
                raise Ended from None
            except ssl.SSLError as error:
                if error.reason == "UNEXPECTED_EOF_WHILE_READING":
                    raise Truncated from None
                with contextlib.suppress(OSError):
                    self._flush()  # the alert
                raise

    def _flush(self):
        if self._outgoing.pending:
            try:
                self.sock.sendall(self._outgoing.read())
            except (ConnectionResetError, BrokenPipeError):
                raise Reset from None

    def handshake(self):
        self._pump(self.tls.do_handshake)

    @property
    def alpn(self):
        return self.tls.selected_alpn_protocol()

    @property
    def session(self):
        """To resume with; in TLS 1.3 it arrives after the handshake, with the first bytes read."""
        return self.tls.session

    @property
    def resumed(self):
        return self.tls.session_reused

    def send(self, *pieces):
        """Bytes inside TLS, in one TCP piece."""
        data = b"".join(pieces)
        while data:
            data = data[self._pump(lambda: self.tls.write(data)):]

    def send_outside(self, data):
        """Bytes on the TCP connection itself, outside TLS."""
        self.sock.sendall(data)

    def recv(self, most=65536):
        """Bytes inside TLS; raises Ended, Truncated or Reset."""
        if self._bytes:
            got, self._bytes = self._bytes[:most], self._bytes[most:]
            return got
        got = self._pump(lambda: self.tls.read(most))
        if not got:
            raise Ended
        return got

    def exactly(self, count):
        """That many bytes."""
        got = b""
        while len(got) < count:
            got += self.recv(count - len(got))
        return got

    def frame(self):
        """The next frame: (type, payload)."""
        frame_type, _reserved, length = struct.unpack(">BBH", self.exactly(4))
        return frame_type, self.exactly(length)

    def open(self, data=b""):
        """Opens a stream and returns its status: (code, detail)."""
        self.send(OPEN, frame(DATA, data) if data else b"")
        frame_type, payload = self.frame()
        if frame_type != STATUS:
            raise AssertionError(f"frame of type {frame_type}, {payload!r}, instead of STATUS")
        return tuple(payload)

    def data(self, count):
        """That many bytes of DATA frames."""
        got = b""
        while len(got) < count:
            frame_type, payload = self.frame()
            if frame_type != DATA:
                raise AssertionError(f"frame of type {frame_type}, {payload!r}, after {len(got)} of {count} bytes")
            got += payload
        return got

    def end(self):
        """How the other side ends the connection, whatever it sends before: Ended, Truncated, Reset or ssl.SSLError as an object."""
        try:
            while True:
                self.recv()
        except (Ended, Truncated, Reset, ssl.SSLError) as error:
            return error

    def close_notify(self):
        """Sends close_notify and does not wait for the other one."""
        try:
            self.tls.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLError):
            pass
        with contextlib.suppress(Reset):
            self._flush()

    def fin(self):
        """A TCP end; without close_notify() before, it is a truncation."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        abort(self.sock)

    def close(self):
        """Closes the socket, without close_notify."""
        self.sock.close()


class PeerListener:
    """Listens in a pod in place of an application and its sidecar's inbound side: the pod must have no redirection."""

    def __init__(self, pod, port, svid, *, address="", alpn=(ALPN,), **options):
        self.listener = pod.listen(port, address)
        self.context = context(svid, server=True, alpn=alpn, **options)

    def accept(self, *, handshake=True):
        sock, _ = self.listener.accept()
        sock.settimeout(self.listener.gettimeout())
        peer = Peer(sock, self.context, server=True)
        try:
            if handshake:
                peer.handshake()
        except BaseException:
            peer.close()
            raise
        return peer

    def close(self):
        self.listener.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
