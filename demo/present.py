"""Goes straight to another pod's sidecar and presents what it is given: run as the sidecar's uid, which redirection leaves alone.

    present.py ADDRESS PORT plaintext | none | CERTIFICATE KEY

Prints one JSON object: the local port, and how it was answered. Inside TLS it speaks docs/wire.md: OPEN and DATA at once, then it waits
for STATUS."""

import json
import socket
import ssl
import struct
import sys

OPEN, STATUS, DATA = 1, 2, 3
STATUSES = ("accepted", "denied", "no_policy", "app_unreachable", "overloaded")
REQUEST = b"GET /catalogue HTTP/1.0\r\n\r\n"


def frame(kind, payload=b""):
    return struct.pack("!BBH", kind, 0, len(payload)) + payload


def exactly(s, count):
    """That many bytes, or fewer if the other side has ended."""
    data = b""
    while len(data) < count and (more := s.recv(count - len(data))):
        data += more
    return data


def over_tls(s, credentials):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # an intruder does not care who answers
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["postern/1"])
    if credentials:
        context.load_cert_chain(*credentials)
    with context.wrap_socket(s) as tls:
        tls.sendall(frame(OPEN) + frame(DATA, REQUEST))
        header = exactly(tls, 4)
        if len(header) < 4:
            return "closed"
        kind, _, length = struct.unpack("!BBH", header)
        payload = exactly(tls, length)
        if kind != STATUS:
            return f"frame {kind}"
        return f"status {STATUSES[payload[0]] if payload[0] < len(STATUSES) else payload[0]}"


def main():
    address, port, *credentials = sys.argv[1:]
    s = socket.create_connection((address, int(port)), timeout=10)
    said = {"port": s.getsockname()[1]}
    try:
        if credentials == ["plaintext"]:
            s.sendall(REQUEST)
            answer = s.recv(4096)
            # A TLS alert (RFC 8446 section 6) is no answer of an application.
            said["answer"] = "closed" if not answer else "tls alert" if answer[0] == 21 else "an answer"
        else:
            said["answer"] = over_tls(s, [] if credentials == ["none"] else credentials)
    except ssl.SSLError as error:
        said["answer"] = f"tls: {error.reason}"
    except ConnectionResetError:
        said["answer"] = "reset"
    print(json.dumps(said))


main()
