"""httpGet probes and lifecycle handlers through the sidecar: as posternctl inject writes them, as a kubelet asks them, with a real HTTP server."""

import http.client
import http.server
import json
import ssl
import threading
import unittest

from kit.cluster import Cluster, allow, knock, policy
from kit.peer import connect_as, context
from kit.pki import Authority
from kit.processes import run
from kit.sidecar import HEALTH, program
from kit.waiting import patience, wait_until

NODE = "10.77.0.200"
HTTP, HTTPS, SILENT, ABSENT, UNNAMED = 8080, 8443, 8081, 8082, 8083


class Application(http.server.BaseHTTPRequestHandler):
    """Says by its path what it answers, and keeps what it was asked."""

    protocol_version = "HTTP/1.1"
    seen = []

    def do_GET(self):  # pylint: disable=invalid-name
        self.seen.append((self.path, self.headers.items()))
        word = self.path.split("?")[0].strip("/").split("/")
        if word[0] == "redirect":
            to = {"here": "/status/200?redirected", "there": "http://shop.example/login", "tls": f"https://{word[-1]}:{HTTPS}/status/200"}[word[1]]
            return self.reply(302, b"moved", Location=to)
        if word[0] == "long":
            return self.reply(200, b"x" * 1_000_000)
        return self.reply(int(word[1]), b"as asked\n")

    def reply(self, status, body, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve(connection):
    Application(connection, ("", 0), None)


class ProbeCase(unittest.TestCase):
    """api has a sidecar and probes; web (with a sidecar) and plain (without one) are other pods; node is its node."""

    @classmethod
    def setUpClass(cls):
        cls.cluster = cluster = Cluster(config={"mesh": {"clusterCidrs": ["10.77.0.0/24", "fd77::/64"], "nodeAddresses": [NODE]}})
        cls.addClassCleanup(cluster.close)
        cls.web = cluster.pod("web", sidecar=True, app="web")
        cls.plain = cluster.pod("plain", meshed=False, app="plain")
        cls.node = cluster.pod("node", record=False, addresses=[NODE])
        cls.api = cluster.pod("api", sidecar=True, app="api")
        cls.sidecar = cluster.sidecars["api"]
        cls.paths = cls.inject()
        svid = Authority(f"{cluster.net.folder}/apps-ca", "apps.example").issue("spiffe://apps.example/api")
        def serve_tls(connection):
            with context(svid, server=True, alpn=(), versions=(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3), verify=False).wrap_socket(
                    connection, server_side=True) as secured:
                serve(secured)
        cls.app = cluster.app(cls.api, HTTP, serve)
        cluster.app(cls.api, HTTPS, serve_tls)
        cls.silent = cluster.app(cls.api, SILENT)  # an echo: it answers with what is no answer, or not at all
        cluster.app(cls.api, UNNAMED, serve)
        cluster.publish(policy("nobody", app="api", ingress=[]))
        cluster.start()

    @classmethod
    def inject(cls):
        """The probes of a pod's spec, rewritten, into api's record. Returns the paths, by what the spec named."""
        named = {"ok": (HTTP, "/status/200?full=1&q=a b"), "missing": (HTTP, "/status/404"), "broken": (HTTP, "/status/500"), "long": (HTTP, "/long"),
                 "redirect": (HTTP, "/redirect/here"), "elsewhere": (HTTP, "/redirect/there"), "to_tls": (HTTP, f"/redirect/tls/{cls.api.v4}"),
                 "tls": (HTTPS, "/status/200"), "silent": (SILENT, "/"), "absent": (ABSENT, "/")}
        def probe(port, path):
            return {"httpGet": {"path": path, "port": port, "scheme": "HTTPS" if port == HTTPS else "HTTP", "httpHeaders": [{"name": "X-Probe", "value": "1"}]}}
        containers = [{"name": name.replace("_", "-"), "image": "app", "readinessProbe": probe(*where)} for name, where in named.items()]
        containers[0]["lifecycle"] = {"postStart": probe(ABSENT, "/started"), "preStop": probe(HTTP, "/status/500")}
        path = f"{cls.cluster.net.folder}/api.yaml"
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "api"}, "spec": {"containers": containers}}, file)
        roots = f"{cls.cluster.net.folder}/roots.pem"
        with open(roots, "w", encoding="ascii") as file:
            file.write(cls.cluster.svid(cls.web).bundle)
        done = run([program("posternctl"), "inject", "--file", path, "--trust-roots", roots, "--trust-domain", "example.org", "--output", "json"])
        assert done.returncode == 0, done.stderr
        spec = json.loads(done.stdout)["spec"]
        cls.cluster.records["api"]["spec"] = {"containers": spec["containers"]}
        paths = {}
        for name, container in zip(named, spec["containers"]):
            paths[name] = cls.path_of(container["readinessProbe"])
        paths["post_start"], paths["pre_stop"] = (cls.path_of(spec["containers"][0]["lifecycle"][hook]) for hook in ("postStart", "preStop"))
        return paths

    @staticmethod
    def path_of(handler):
        get = handler["httpGet"]
        assert (get["port"], get["scheme"], get["httpHeaders"]) == (HEALTH, "HTTP", [{"name": "X-Probe", "value": "1"}]), get
        return get["path"]

    def ask(self, path, *, pod=None, address=None, **headers):
        """As a kubelet: (status, body)."""
        address = address or self.api.v4
        pod = pod or self.node
        connection = http.client.HTTPConnection(address, HEALTH)
        if pod is self.web:
            connection.sock = connect_as(pod, address, HEALTH)  # past its own sidecar
        else:
            connection.sock = pod.connect(address, HEALTH, source=NODE if pod is self.node else None, timeout=15)
        try:
            connection.request("GET", path, headers={"User-Agent": "kube-probe/1.34", "Accept": "*/*", "X-Probe": "1", "Connection": "close", **headers})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


class AppProbeTest(ProbeCase):
    """The kubelet's outcome, by way of the sidecar."""

    def test_the_status_is_the_applications(self):
        self.assertEqual(self.ask(self.paths["ok"]), (200, "as asked\n"))
        self.assertEqual(self.ask(self.paths["missing"])[0], 404)
        self.assertEqual(self.ask(self.paths["broken"])[0], 500)

    def test_the_request_is_the_kubelets(self):
        del Application.seen[:]
        self.ask(self.paths["ok"])
        self.ask(self.paths["ok"], Host="shop.example")
        (path, headers), (_, other) = Application.seen
        self.assertEqual(path, "/status/200?full=1&q=a%20b")
        headers = dict(headers)
        self.assertEqual((headers["Host"], headers["X-Probe"], headers["User-Agent"]), (f"{self.api.v4}:{HTTP}", "1", "kube-probe/1.34"))
        self.assertEqual(dict(other)["Host"], "shop.example")

    def test_https_is_not_verified(self):
        self.assertEqual(self.ask(self.paths["tls"])[0], 200)

    def test_redirects_as_the_kubelet_follows_them(self):
        del Application.seen[:]
        self.assertEqual(self.ask(self.paths["redirect"]), (200, "as asked\n"))
        self.assertEqual([path for path, _ in Application.seen], ["/redirect/here", "/status/200?redirected"])
        self.assertEqual(self.ask(self.paths["to_tls"])[0], 200)
        self.assertEqual(self.ask(self.paths["elsewhere"]), (302, "moved"))

    def test_a_long_body_is_cut(self):
        self.assertEqual(self.ask(self.paths["long"]), (200, "x" * 10240))

    def test_what_is_no_answer_is_said_with_its_reason(self):
        status, body = self.ask(self.paths["absent"])
        self.assertEqual(status, 503)
        self.assertIn(f"{ABSENT}: Connection refused", body)
        self.assertEqual(body.count("\n"), 1)
        self.assertEqual(self.ask(self.paths["silent"])[0], 502)  # an echo of the request is no answer
        wait_until(lambda: "app_probe_failed" in self.sidecar.output(), what="the reason in the sidecar's log")

    def test_a_kubelet_that_hangs_up_ends_the_request(self):
        before = len(self.silent.ends)
        hold, self.silent.serve = self.silent.serve, lambda connection: connection.recv(65536) and connection.settimeout(None) or connection.recv(1)
        self.addCleanup(setattr, self.silent, "serve", hold)
        accepted = self.silent.accepted
        with self.node.connect(self.api.v4, HEALTH, source=NODE) as s:
            s.sendall(f"GET {self.paths['silent']} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            wait_until(lambda: self.silent.accepted > accepted, what="the application to be asked")
        self.silent.wait_end(before + 1)

    def test_a_slow_answer_is_waited_for(self):
        """Longer than the health port's own limit for a request."""
        def slow(connection):
            connection.recv(65536)
            if not released.wait(patience(30)):
                raise OSError("nobody asked meanwhile")
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
        released = threading.Event()
        hold, self.silent.serve = self.silent.serve, slow
        self.addCleanup(setattr, self.silent, "serve", hold)
        timer = threading.Timer(6, released.set)
        timer.start()
        self.addCleanup(timer.join)
        self.assertEqual(self.ask(self.paths["silent"]), (200, "late"))

    def test_a_hook_is_an_error_only_where_nothing_answers(self):
        self.assertEqual(self.ask(self.paths["pre_stop"])[0], 500)
        with self.assertRaises((http.client.RemoteDisconnected, ConnectionResetError)):
            self.ask(self.paths["post_start"])

    def test_over_ipv6(self):
        self.assertEqual(self.ask(self.paths["ok"], address=self.api.v6, pod=self.api)[0], 403)  # its own address is no node's
        self.assertEqual(self.ask(self.paths["ok"], address="::1", pod=self.api)[0], 200)
        self.assertEqual(Application.seen[-1][1][0], ("Host", f"[::1]:{HTTP}"))


class ReachTest(ProbeCase):
    """Who may ask, and what for."""

    def test_only_what_the_spec_names_is_asked(self):
        accepted = self.app.accepted
        ok = self.paths["ok"]
        for path in (f"/app-probe/http/{HTTP}/", f"/app-probe/http/{HTTP}/status/200", ok + "&more", ok.replace("full=1", "full=2"), ok.replace("status", "./status"),
                     ok.replace("/status", "//status"), ok.replace("http/", "https/"), ok.replace("http/", "hook/http/"), f"/app-probe/http/{UNNAMED}/status/200",
                     f"/app-probe/http/{HEALTH}/healthz", f"/app-probe/{UNNAMED}"):
            self.assertEqual(self.ask(path)[0], 404, path)
        self.assertEqual(self.app.accepted, accepted)

    def test_another_pod_is_refused_by_name(self):
        accepted = self.app.accepted
        for pod in (self.plain, self.web):
            for path in (self.paths["ok"], self.paths["tls"], f"/app-probe/http/{HTTP}/nothing"):
                self.assertEqual(self.ask(path, pod=pod)[0], 403)
        self.assertEqual(self.app.accepted, accepted)
        # Whom policies let reach the port itself gains nothing by this.
        self.cluster.publish(policy("by-block", app="api", ingress=[allow(HTTP, block=f"{self.plain.v4}/32")]))
        self.addCleanup(self.cluster.publish, policy("nobody", app="api", ingress=[]))
        self.assertEqual(self.ask(self.paths["ok"], pod=self.plain)[0], 200)
        self.assertEqual(self.ask(self.paths["tls"], pod=self.plain)[0], 403)

    def test_the_nodes_address_no_longer_reaches_the_port_of_an_http_get_probe(self):
        """An intruder comes from there by a NodePort of its own node; the kubelet's probe passes all the same."""
        self.assertEqual(self.ask(self.paths["ok"])[0], 200)
        accepted = self.app.accepted
        for port in (HTTP, HTTPS, SILENT):
            self.assertEqual(knock(self.node, self.api.v4, port, source=NODE)[1], "reset")
            found = self.sidecar.wait_record(direction="inbound", **{"source.address": NODE, "destination.port": port})
            self.assertEqual((found["close.reason"], found["verdict"], found["policy.basis"]), ("denied", "DROPPED", "no_rule"), found)
        self.assertEqual(self.app.accepted, accepted)
        self.assertEqual(knock(self.plain, self.api.v4, HTTP, b"evil")[1], "reset")
        self.assertEqual(self.ask(self.paths["ok"])[0], 200)


if __name__ == "__main__":
    unittest.main()
