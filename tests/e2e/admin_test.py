"""What operators see and do: health, metrics, posternctl, signals, configuration, and a sidecar that dies."""

import json
import os
import signal
import socket
import time
import unittest

from kit.cluster import Cluster, allow, gone, knock, metric, policy
from kit.peer import ACCEPTED, Peer
from kit.processes import run
from kit.sidecar import program
from kit.waiting import patience, wait_until


class AdminCase(unittest.TestCase):
    """web calls api; every test gets them running."""

    CONFIG = {"drainPeriod": "400ms"}

    @classmethod
    def setUpClass(cls):
        cls.cluster = cluster = Cluster(config=cls.CONFIG)
        cls.addClassCleanup(cluster.close)
        probe = {"tcpSocket": {"port": 7000}}
        cls.web = cluster.pod("web", sidecar=True, app="web")
        cls.api = cluster.pod("api", sidecar=True, app="api", containers=[
            {"name": "app", "image": "app", "readinessProbe": probe, "livenessProbe": {"tcpSocket": {"port": 7009}}}])
        cls.app = cluster.app(cls.api, 7000)
        cls.web_sidecar, cls.sidecar = cluster.sidecars["web"], cluster.sidecars["api"]
        cluster.publish(policy("api-allow", app="api", ingress=[allow(7000, app="web")]))

    def setUp(self):
        self.cluster.start()
        for sidecar in self.cluster.sidecars.values():
            sidecar.wait_ready()

    def held(self):
        s = self.web.connect(self.api.v4, 7000)
        self.addCleanup(s.close)
        self.alive(s)
        return s

    def alive(self, s):
        s.sendall(b"pong")
        self.assertEqual(s.recv(4, socket.MSG_WAITALL), b"pong")

    def both(self, s):
        out = self.web_sidecar.wait_record(direction="outbound", **{"source.port": s.getsockname()[1]})
        same = {name: out[name] for name in ("connection.id", "connection.stream")}
        return out, self.sidecar.wait_record(direction="inbound", **same)


class AskTest(AdminCase):
    """Health port, metrics and posternctl."""

    def ctl(self, *arguments, status=0, sidecar=None):
        done = run([program("posternctl"), "proxy", "--socket", (sidecar or self.sidecar).admin_path, *arguments])
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def test_health_port(self):
        self.assertEqual(self.sidecar.health("/healthz")[0], 200)
        self.assertEqual(self.sidecar.health("/readyz")[0], 200)
        self.assertEqual(self.sidecar.health("/healthz", pod=self.web, address="127.0.0.1")[0], 200)
        self.assertEqual(self.sidecar.health("/connections")[0], 404)
        self.assertEqual(self.sidecar.health("/")[0], 404)

    def test_app_probe_says_whether_the_application_listens(self):
        self.assertEqual(self.sidecar.health("/app-probe/7000")[0], 200)
        self.assertEqual(self.sidecar.health("/app-probe/7009")[0], 503)
        for path in ("/app-probe/22", "/app-probe/15020", "/app-probe/07000", "/app-probe/7000x", "/app-probe/", "/app-probe/99999"):
            self.assertEqual(self.sidecar.health(path)[0], 404, path)

    def test_metrics_count_what_happened(self):
        count = lambda: metric(self.sidecar, "postern_connections_closed_total", direction="inbound", verdict="FORWARDED", reason="finished")
        size = lambda: metric(self.sidecar, "postern_bytes_total", direction="inbound", way="sent")
        before, bytes_before = count(), size()
        s = self.held()
        self.assertEqual(metric(self.sidecar, "postern_connections_active", direction="inbound"), 1)
        s.shutdown(socket.SHUT_WR)
        self.assertEqual(gone(s), "fin")
        self.both(s)
        self.assertEqual((count(), size()), (before + 1, bytes_before + 4))
        self.assertGreater(metric(self.sidecar, "postern_svid_expiry_timestamp_seconds"), time.time())
        self.assertGreater(metric(self.sidecar, "postern_policy_generation"), 0)
        self.assertEqual(metric(self.sidecar, "postern_access_records_dropped_total"), 0)

    def test_posternctl_shows_configuration_connections_rules_and_identity(self):
        s = self.held()
        self.assertIn('trustDomain: "example.org"', self.ctl("config"))
        live = json.loads(self.ctl("connections", "--output", "json"))["connections"]
        self.assertEqual([(c["direction"], c["source.k8s.pod"], c["verdict"]) for c in live], [("inbound", "web", "FORWARDED")])
        self.assertIn("web", self.ctl("connections"))
        rules = json.loads(self.ctl("allow-list"))
        self.assertTrue(rules["ingress"]["isolated"])
        self.assertIn("api-allow", json.dumps(rules))
        self.assertIn("spiffe://example.org/ns/default/sa/default/pod/api/u-api", self.ctl("identities"))
        self.assertEqual(self.ctl("ready").strip(), "ready")
        self.assertIn("postern_connections_opened_total", self.ctl("metrics"))
        self.alive(s)

    def test_posternctl_changes_the_log_level(self):
        self.ctl("log-level", "error")
        self.ctl("log-level", "info")
        self.assertIn("log_level_changed", self.sidecar.output())
        self.assertIn("expected", self.ctl("log-level", "loud", status=1))

    def test_posternctl_says_what_to_do_when_nobody_answers(self):
        done = run([program("posternctl"), "proxy", "--socket", f"{self.sidecar.folder}/none.sock", "ready"])
        self.assertEqual(done.returncode, 1)
        self.assertIn("listen.adminSocket", done.stderr)

    def test_posternctl_drains(self):
        self.ctl("drain", sidecar=self.sidecar)
        self.assertEqual(self.sidecar.process.wait(), 0)


class SignalTest(AdminCase):
    """SIGTERM, SIGUSR1, and a sidecar that is killed."""

    CONFIG = {"drainPeriod": f"{patience(1500):g}ms"}

    def test_sigterm_drains(self):
        held = self.held()
        began = time.monotonic()
        self.sidecar.process.send(signal.SIGTERM)
        wait_until(lambda: self.sidecar.health("/readyz")[0] == 503, what="readiness to be false")
        self.assertIn("draining", self.sidecar.health("/readyz")[1])
        self.assertEqual(self.sidecar.health("/healthz")[0], 200)
        late = self.held()  # accepted until the period ends
        self.alive(held)
        self.assertEqual(self.sidecar.process.wait(), 0)
        self.assertGreater(time.monotonic() - began, patience(1.4))
        for s in (held, late):
            self.assertEqual(gone(s), "reset")
            out, into = self.both(s)
            self.assertEqual((into["close.reason"], into["close.by"]), ("drained", "proxy"), into)
            self.assertEqual((out["close.reason"], out["close.detail"]), ("reset", "drained"), out)
        self.assertFalse(os.path.exists(self.sidecar.admin_path))

    def test_the_application_can_still_call_while_its_sidecar_drains(self):
        self.web_sidecar.process.send(signal.SIGTERM)
        wait_until(lambda: self.web_sidecar.health("/readyz")[0] == 503, what="readiness to be false")
        s = self.held()
        self.assertEqual(self.web_sidecar.process.wait(), 0)
        out, into = self.both(s)
        self.assertEqual((out["close.reason"], into["close.reason"], into["close.detail"]), ("drained", "reset", "drained"), (out, into))

    def test_a_second_sigterm_exits_at_once(self):
        held = self.held()
        began = time.monotonic()
        self.sidecar.process.send(signal.SIGTERM)
        self.sidecar.process.wait_for_output('"draining"')
        self.sidecar.process.send(signal.SIGTERM)
        self.assertEqual(self.sidecar.process.wait(), 0)
        self.assertLess(time.monotonic() - began, patience(1.4))
        self.assertEqual(gone(held), "reset")
        self.assertEqual(self.both(held)[1]["close.reason"], "shutdown")

    def test_sigusr1_reopens_the_access_log(self):
        old = f"{self.sidecar.log_path}.1"
        s = self.held()
        os.rename(self.sidecar.log_path, old)
        self.addCleanup(os.unlink, old)
        self.sidecar.process.send(signal.SIGUSR1)
        self.sidecar.process.wait_for_output("access_log_reopened")
        wait_until(lambda: os.path.exists(self.sidecar.log_path), what="the new file")
        s.shutdown(socket.SHUT_WR)
        self.assertEqual(gone(s), "fin")
        _, into = self.both(s)
        with open(old, encoding="utf-8") as file:
            self.assertNotIn(into["connection.id"], file.read())

    def test_kill_9_of_the_inbound_side(self):
        """The application's peer gets a reset, not an end; nothing gets past the dead sidecar; restarted, it serves again."""
        held, accepted = self.held(), self.app.accepted
        self.sidecar.process.kill()
        self.assertEqual(gone(held), "reset")
        out = self.web_sidecar.wait_record(direction="outbound", **{"source.port": held.getsockname()[1]})
        self.assertIn(out["close.reason"], ("truncated", "reset"))
        own, how = knock(self.web, self.api.v4, 7000, b"ping")
        self.assertEqual(how, "reset")
        self.assertEqual(self.web_sidecar.wait_record(**{"source.port": own})["close.reason"], "connect_failed")
        self.assertEqual(self.app.accepted, accepted)
        self.cluster.start()
        self.sidecar.wait_ready()
        self.held()

    def test_kill_9_of_the_outbound_side(self):
        held = self.held()
        before = len(self.sidecar.records(direction="inbound"))
        self.web_sidecar.process.kill()
        self.assertEqual(gone(held), "reset")
        found = self.sidecar.wait_record(count=before + 1, direction="inbound")
        self.assertIn(found["close.reason"], ("truncated", "reset"))
        self.assertIn(knock(self.web, self.api.v4, 7000, b"ping")[1], ("refused", "reset"))  # past it there is no way
        self.cluster.start()
        self.web_sidecar.wait_ready()
        self.held()


class StartTest(AdminCase):
    """A sidecar that listens is ready to decide."""

    def test_the_first_connections_after_the_start_are_served(self):
        svid = self.cluster.svid(self.web)
        for _ in range(5):
            self.sidecar.process.kill()
            self.sidecar.start(redirect=False, wait=False)
            peers = wait_until(lambda: [Peer.connect(self.web, self.api.v4, 7000, svid, handshake=False) for _ in range(4)], interval=0)
            for peer in peers:
                with peer:
                    peer.handshake()
                    self.assertEqual(peer.open(b"ping"), (ACCEPTED, 0))


class ConfigurationTest(unittest.TestCase):
    """--check-config and --print-config, and what a mistake is told."""

    def setUp(self):
        self.cluster = Cluster()
        self.addCleanup(self.cluster.close)
        self.path = f"{self.cluster.net.folder}/postern.yaml"

    def check(self, text, *arguments):
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(text)
        return run([program("postern-proxy"), "--config", self.path, *arguments])

    def test_a_good_configuration_is_good(self):
        done = self.check("workload: {namespace: default, name: web}\nmesh: {trustDomain: example.org}\n", "--check-config")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_what_is_printed_is_a_configuration(self):
        printed = run([program("postern-proxy"), "--print-config"]).stdout
        for name in ("drainPeriod", "maxHandshakes", "trustDomain", "#"):
            self.assertIn(name, printed)
        self.assertEqual(self.check(printed, "--check-config").returncode, 0)
        self.assertEqual(self.check(printed, "--print-config").stdout, printed)

    def test_mistakes_are_told_with_file_line_field_and_the_nearest_name(self):
        for text, words in (("limits:\n  handshakeTimeuot: 3s\n", ("postern.yaml:2", "handshakeTimeuot", "handshakeTimeout")),
                            ("limits:\n  maxHandshakes: many\n", ("postern.yaml:2", "limits.maxHandshakes", "many")),
                            ("drainPeriod: 3 parsecs\n", ("postern.yaml:1", "drainPeriod")),
                            ("listen: {inbound: 70000}\n", ("postern.yaml:1", "listen.inbound")),
                            ("workload: [\n", ("postern.yaml",))):
            with self.subTest(text=text):
                done = self.check(text, "--check-config")
                self.assertEqual(done.returncode, 2)
                for word in words:
                    self.assertIn(word, done.stderr)

    def test_a_second_sidecar_in_a_pod_says_what_is_wrong(self):
        pod = self.cluster.pod("web", sidecar=True, app="web")
        self.cluster.publish()
        self.cluster.start()
        sidecar = self.cluster.sidecars["web"]
        done = pod.run([program("postern-proxy"), "--config", f"{sidecar.folder}/postern.yaml"], uid=1337)
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, "another (sidecar|process)|in use")
        sidecar.wait_ready()


if __name__ == "__main__":
    unittest.main()
