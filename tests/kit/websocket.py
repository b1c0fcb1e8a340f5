"""A WebSocket client (RFC 6455) over TLS, just enough to speak the control plane's stream, rightly or wrongly.

    with WebSocket(pod, address, port, context) as ws:
        ws.send({"type": "hello", ...}); ws.send_text("{"); ws.receive()    # decoded JSON, or Closed with .code
"""

import base64
import contextlib
import json
import os
import struct

from kit.peer import as_uid
from kit.sidecar import PROXY_UID
from kit.waiting import patience

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Closed(Exception):
    """The other end closed the stream, or the connection (code None)."""

    def __init__(self, code, reason=""):
        super().__init__(f"closed: {code} {reason}")
        self.code, self.reason = code, reason


class WebSocket:
    """Connects and upgrades; a refusal raises."""

    def __init__(self, pod, address, port, context, path="/v1/stream", timeout=10.0):
        with as_uid(PROXY_UID):
            plain = pod.connect(address, port, timeout=timeout)
        self._buffer = b""
        try:
            self._socket = context.wrap_socket(plain)
            key = base64.b64encode(os.urandom(16)).decode()
            self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: postern-control\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                 f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
            while b"\r\n\r\n" not in self._buffer:
                self._more()
            head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
            if b" 101 " not in head.split(b"\r\n", 1)[0]:
                raise Closed(None, head.decode(errors="replace"))
        except BaseException:
            plain.close()
            raise

    def send(self, message):
        self.send_text(json.dumps(message))

    def send_text(self, text, opcode=TEXT):
        self.send_frame(opcode, text.encode() if isinstance(text, str) else text)

    def send_frame(self, opcode, payload, final=True):
        """One masked frame."""
        size = len(payload)
        head = bytes([(0x80 if final else 0) | opcode])
        head += bytes([0x80 | size]) if size < 126 else struct.pack(">BH", 0x80 | 126, size) if size < 65536 else struct.pack(">BQ", 0x80 | 127, size)
        self._socket.sendall(head + bytes(4) + payload)  # a mask of zeros

    def receive(self, timeout=10.0):
        """The next message, decoded; pings are answered."""
        self._socket.settimeout(patience(timeout))
        text = b""
        while True:
            head = self._take(2)
            size = head[1] & 0x7F
            if size == 126:
                size = struct.unpack(">H", self._take(2))[0]
            elif size == 127:
                size = struct.unpack(">Q", self._take(8))[0]
            payload, opcode = self._take(size), head[0] & 0x0F
            if opcode == PING:
                self.send_frame(PONG, payload)
            elif opcode == CLOSE:
                code = struct.unpack(">H", payload[:2])[0] if len(payload) >= 2 else None
                raise Closed(code, payload[2:].decode(errors="replace"))
            elif opcode in (0, TEXT):
                text += payload
                if head[0] & 0x80:
                    return json.loads(text)

    def until(self, message_type, timeout=10.0):
        """The next message of that type; others are passed over."""
        while True:
            message = self.receive(timeout)
            if message["type"] == message_type:
                return message

    def hello(self, mark=None, have=None):
        self.send({"type": "hello", "version": "test", "mark": mark or {"epoch": "", "versions": {}}, "have": have or {}})

    def ack(self, update):
        self.send({"type": "ack", "nonce": update["nonce"]})

    def nack(self, update, reason):
        self.send({"type": "nack", "nonce": update["nonce"], "reason": reason})

    def close(self):
        with contextlib.suppress(OSError):
            self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _more(self):
        try:
            piece = self._socket.recv(65536)
        except ConnectionError as error:
            raise Closed(None, str(error)) from None
        if not piece:
            raise Closed(None, "end")
        self._buffer += piece

    def _take(self, count):
        while len(self._buffer) < count:
            self._more()
        piece, self._buffer = self._buffer[:count], self._buffer[count:]
        return piece
