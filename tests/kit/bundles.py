"""SPIFFE bundles and the endpoints that serve them (SPIFFE Federation section 5).

    text = spiffe_bundle(ca, sequence=2, hint=1)             # JSON, of one or several kit.pki authorities
    endpoint = BundleEndpoint(pod, 8443, svid, text)         # HTTPS with that certificate; .body, .svid, .status may be replaced
    endpoint.requests                                        # answered so far
    endpoint.close()
"""

import contextlib
import json
import re
import socket
import ssl
import threading

from kit.peer import context


def spiffe_bundle(*authorities, sequence=None, hint=None):
    """SPIFFE Trust Domain and Bundle section 4: a JWK Set with the authorities' certificates."""
    keys = [{"use": "x509-svid", "kty": "EC", "x5c": ["".join(re.search("-----BEGIN CERTIFICATE-----(.*?)-----END", ca.certificate, re.S)[1].split())]}
            for ca in authorities]
    more = {name: value for name, value in (("spiffe_sequence", sequence), ("spiffe_refresh_hint", hint)) if value is not None}
    return json.dumps({"keys": keys, **more})


class BundleEndpoint:
    """One answer a connection. Whoever asks need not prove anything, as the standard has it."""

    def __init__(self, pod, port, svid, body):
        self.svid, self.body, self.status, self.requests, self.address = svid, body, 200, 0, f"{pod.v4}:{port}"
        self._listener = pod.listen(port)
        self._listener.settimeout(None)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        tls = context(self.svid, server=True, alpn=(), versions=(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3), verify=False)
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            with tls.wrap_socket(connection, server_side=True) as client:
                request = b""
                while b"\r\n\r\n" not in request:
                    got = client.recv(4096)
                    if not got:
                        return
                    request += got
                body = self.body.encode()
                client.sendall(f"HTTP/1.1 {self.status} Said\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                               "Connection: close\r\n\r\n".encode() + body)
                self.requests += 1

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept()
        self._listener.close()
