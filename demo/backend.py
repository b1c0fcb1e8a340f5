"""The demo's backend: answers HTTP on every address, port 8080, with what it finds in the database. Arguments: the database's address.

It prints one line for each connection that it accepts, so that the demo can tell that nothing of a refused caller has reached it; but for those over
loopback, which are the sidecar's probes."""

import http.server
import socket
import sys

import redis

DATABASE = sys.argv[1]


class Catalogue(http.server.BaseHTTPRequestHandler):
    """One request. A connection to the database for each keeps one line of the access log per request."""

    def do_GET(self):  # the name is http.server's
        try:
            with redis.Redis(DATABASE, 6379, socket_timeout=5) as database:
                offer = database.get("offer").decode()
            status, text = 200, f"backend: {offer}\n"
        except (redis.RedisError, AttributeError) as error:
            status, text = 502, f"backend: no answer from the database: {error}\n"
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    """Dual stack."""

    address_family = socket.AF_INET6

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def get_request(self):
        accepted = super().get_request()
        if accepted[1][0] not in ("::1", "::ffff:127.0.0.1"):
            print("accepted", flush=True)
        return accepted


Server(("::", 8080), Catalogue).serve_forever()
