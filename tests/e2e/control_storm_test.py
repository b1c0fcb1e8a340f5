"""The control plane in rough weather: many at once, large objects, sidecars that refuse, a clock that jumps, a network plugin that cuts off. What is
asserted each time: nobody is let in whom the API does not let in."""

import contextlib
import os
import threading
import unittest

from control_faults_test import FaultCase
from kit.apps import Thread
from kit.cluster import allow, gone, policy
from kit.controlled import PORT
from kit.sidecar import PROXY_UID, program
from kit.waiting import wait_until

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


class StormCase(FaultCase):
    """As FaultCase, with somebody who tries to get in all the time."""

    @contextlib.contextmanager
    def never_let_in(self, source="other", target="api"):
        """While this lasts, connection after connection is tried, and none may be answered."""
        over, seen = threading.Event(), []

        def knock_on():
            while not over.is_set():
                seen.append(self.mesh.reach(source, target))
        thread = Thread(knock_on)
        try:
            yield seen
        finally:
            over.set()
            thread.result()
        self.assertGreater(len(seen), 0)
        self.assertNotIn(b"ping", seen, f"{source} was let in")

    def crowd(self, count, namespace="default", **labels):
        """That many pods that exist at the API server only, with a sidecar by their annotation."""
        names = [f"crowd-{number}" for number in range(count)]
        items = [{"kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": {"app": "crowd", **labels},
                                              "annotations": {"postern.dev/injected": "true"}},
                  "spec": {"serviceAccountName": "default", "nodeName": "node0", "containers": [{"name": "app", "image": "app"}]}} for name in names]
        self.addCleanup(lambda: [self.api.delete("Pod", name, namespace, missing_ok=True) for name in names])
        for number, item in enumerate(self.api.create_many(items)):
            self.mesh.objects[item["metadata"]["name"]] = item
            self.api.pod_status(item["metadata"]["name"], namespace, [f"10.79.{number // 250}.{number % 250 + 1}"])
        return names


# ctest: timeout 300
class MovingTest(StormCase):
    """Replicas share TLS ticket keys: a sidecar that moves resumes its session there."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for replica in cls.mesh.replicas:
            cls.wait_shared(replica)
        cls.written = sum(replica.output().count("ticket_keys_written") for replica in cls.mesh.replicas)

    @staticmethod
    def wait_shared(replica):
        wait_until(lambda: replica.metric("postern_control_ticket_keys_shared") == 1, what=replica.output)

    def test_the_replicas_make_one_secret(self):
        self.assertEqual(self.written, 1)
        self.assertEqual(self.api.get("Secret", "postern-control-ticket-keys", "postern-system")["type"], "postern.dev/ticket-keys")

    def test_a_sidecar_that_moves_to_another_replica_resumes(self):
        live = self.live()
        first = wait_until(lambda: self.mesh.serving("api"), what=self.mesh.said)
        second = next(replica for replica in self.mesh.replicas if replica is not first)
        with self.never_let_in():
            # Whatever tickets there were: from here on they are of the Secret's keys.
            steps = self.in_step_count()
            first.kill()
            wait_until(lambda: self.in_step_count() > steps, 30, self.mesh.said)
            first.start()
            self.wait_shared(first)
            self.assertEqual(first.metric("postern_control_tls_resumed_total"), 0)
            steps = self.in_step_count()
            second.kill()
            wait_until(lambda: self.in_step_count() > steps, 30, self.mesh.said)
            self.assertGreater(first.metric("postern_control_tls_resumed_total"), 0)
        self.alive(live)
        self.unchanged()

    def test_a_deleted_secret_is_made_again(self):
        self.api.delete("Secret", "postern-control-ticket-keys", "postern-system")
        # A replica that starts looks at once.
        for replica in self.mesh.replicas:
            replica.stop()
            replica.start()
            self.wait_shared(replica)
        self.api.get("Secret", "postern-control-ticket-keys", "postern-system")
        self.unchanged()

    def test_absent_waits_for_who_is_connected_nowhere(self):
        self.mesh.sidecars["other"].stop()
        gone_policy = policy("other-open", app="other", ingress=[allow(PORT, app="web")])
        self.api.policy(gone_policy)
        self.api.delete("NetworkPolicy", "other-open", "default")
        done = self.mesh.status("default/other-open", "--wait", "--absent", "--deadline", "2s")
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("default/other disconnected", done.stderr)
        self.mesh.sidecars["other"].start()
        done = self.mesh.status("default/other-open", "--wait", "--absent", "--deadline", "30s")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


# ctest: timeout 400
# ctest: release only
class CrowdTest(StormCase):
    """Much at once, and sidecars that do not play along."""

    REPLICAS = 1

    def test_half_of_the_sidecars_refuse(self):
        names = self.crowd(10, role="member")
        with contextlib.ExitStack() as stack:
            streams = []
            for name in names:
                streams.append(stack.enter_context(self.mesh.raw_stream("other", self.mesh.svid(name))))
                streams[-1].hello()
                streams[-1].ack(streams[-1].until("update"))
            self.mesh.sidecars["other"].wait_ready()
            with self.never_let_in():
                self.api.policy(policy("crowd-deny", app="crowd", ingress=[]))
                for number, stream in enumerate(streams):
                    update = stream.until("update")
                    if number % 2:
                        stream.nack(update, "half a megabyte too much")
                    else:
                        stream.ack(update)
                done = self.mesh.status("default/crowd-deny", "--wait", "--generation", "1", "--deadline", "2s")
                self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
                for number, name in enumerate(names):
                    line = f"default/{name} lagging (refused: half a megabyte too much)"
                    (self.assertIn if number % 2 else self.assertNotIn)(line, done.stderr)
                # Everybody else is served as ever.
                self.api.policy(policy("web-deny", app="web", ingress=[]))
                done = self.mesh.status("default/web-deny", "--wait", "--generation", "1", "--deadline", "20s")
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                # The next change brings those that refused what they lack.
                self.api.policy(policy("crowd-deny", app="crowd", ingress=[allow(PORT, app="web")]))
                for stream in streams:
                    stream.ack(stream.until("update"))
                done = self.mesh.status("default/crowd-deny", "--wait", "--generation", "2", "--deadline", "20s")
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.unchanged()

    def test_who_never_acknowledges_holds_nobody_back(self):
        self.crowd(1)
        with self.mesh.raw_stream("other", self.mesh.svid("crowd-0")) as silent:
            silent.hello()
            silent.until("update")  # and never an answer
            with self.never_let_in():
                for number in range(50):
                    self.api.policy(policy("crowd-more", app="crowd", ingress=[allow(PORT + number, app="web")]))
                self.api.policy(policy("web-deny", app="web", ingress=[]))
                done = self.mesh.status("default/web-deny", "--wait", "--generation", "1", "--deadline", "20s")
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            done = self.mesh.status("default/crowd-more")
            self.assertIn("default/crowd-0 lagging", done.stdout)
            # At last: then it gets the newest state at once, and nothing in between.
            silent.send({"type": "ack", "nonce": 1})
            update = silent.until("update")
            self.assertEqual(update["nonce"], 2)
            rules = next(item["body"] for item in update["resources"] if item["name"] == "allow-list")
            self.assertIn(str(PORT + 49), rules)
            silent.ack(update)
            done = self.mesh.status("default/crowd-more", "--wait", "--generation", "50", "--deadline", "20s")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_a_policy_of_a_megabyte(self):
        blocks = [{"ipBlock": {"cidr": f"198.{18 + number // 65536}.{number // 256 % 256}.{number % 256}/32"}} for number in range(25_000)]
        live = self.live()
        with self.never_let_in():
            item = policy("api-large", app="api", ingress=[{"peers": [*blocks, {"podSelector": {"matchLabels": {"app": "web"}}}]}])
            item = {"kind": "NetworkPolicy", **item}
            self.assertGreater(len(str(item)), 1_000_000)
            self.api.create(item)
            self.api.delete("NetworkPolicy", "api-allow", "default")
            done = self.mesh.status("default/api-large", "--wait", "--generation", "1", "--deadline", "60s")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.mesh.wait_allowed("web", "api")
            self.alive(live)
        item["spec"]["ingress"][0]["from"].pop()
        self.api.replace(item)
        self.assertEqual(gone(live), "reset")
        self.assertEqual(self.mesh.reach("web", "api"), "reset")

    def test_a_namespace_of_500_pods_is_relabelled(self):
        self.crowd(500)
        self.addCleanup(lambda: self.api.label("Namespace", "default", {"team": "shop"}))
        team = {"namespaceSelector": {"matchLabels": {"team": "shop"}},
                "podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["other"]}]}}
        self.api.policy(policy("api-allow", app="api", ingress=[{"peers": [team]}]))
        done = self.mesh.status("default/api-allow", "--wait", "--generation", "2", "--deadline", "60s")
        self.mesh.wait_allowed("web", "api")
        live = self.live()
        with self.never_let_in():
            self.api.label("Namespace", "default", {"team": "none"})
            self.assertEqual(gone(live), "reset")
            self.assertEqual(self.mesh.reach("web", "api"), "reset", "cut, and not let in again")
            self.api.label("Namespace", "default", {"team": "shop"})
            self.mesh.wait_allowed("web", "api", deadline=30)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_a_policy_deleted_and_made_again_within_a_millisecond(self):
        self.api.policy(policy("api-deny", app="api", ingress=[]))  # what isolates the pod all the time
        item = {"kind": "NetworkPolicy", **policy("api-allow", app="api", ingress=[allow(PORT, app="web")])}
        second = self.mesh.kube.api()
        with self.never_let_in():
            for _ in range(30):
                # Both requests are on their way together; whichever comes first, it exists in the end.
                deleting = Thread(self.api.delete, "NetworkPolicy", "api-allow", "default")
                with contextlib.suppress(Exception):
                    second.create(item)
                deleting.result()
                self.api.policy(policy("api-allow", app="api", ingress=[allow(PORT, app="web")]))
            self.mesh.wait_allowed("web", "api")
            done = self.mesh.status("default/api-allow", "--wait", "--deadline", "20s")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.unchanged()

    def test_killed_while_publishing(self):
        control = self.mesh.replicas[0]
        with self.never_let_in():
            for number in range(30):
                self.api.policy(policy("api-more", app="api", ingress=[allow(PORT + 1 + number, app="other")]))
                if number == 10:
                    control.kill()
                if number == 20:
                    control.start(wait=False)
            control.wait_ready()
            done = self.mesh.status("default/api-more", "--wait", "--generation", "30", "--deadline", "30s")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.unchanged()


# ctest: timeout 300
# ctest: release only
class CutOffTest(StormCase):
    """A network plugin that enforces the same policies knows nothing of the sidecar; dropped packets stand in for it."""

    REPLICAS = 1

    def check(self):
        return self.mesh.pods["api"].run([program("posternctl"), "check", "--control", self.mesh.replicas[0].address], uid=PROXY_UID)

    def test_check_names_the_cause_and_the_policy_to_add(self):
        done = self.check()
        self.assertEqual((done.returncode, done.stdout.strip()), (0, f"{self.mesh.replicas[0].address}: reachable"), done.stderr)
        self.mesh.replicas[0].pod.drop_arriving(15010)
        self.addCleanup(self.mesh.replicas[0].pod.drop_arriving, 15010, dropped=False)
        done = self.check()
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        for part in ("something drops the packets", "network plugin", "kind: NetworkPolicy", "policyTypes: [Egress]", "port: 15010"):
            self.assertIn(part, done.stdout)
        self.unchanged()

    def test_check_tells_a_replica_that_is_not_there_from_one_that_is_cut_off(self):
        self.mesh.replicas[0].kill()
        done = self.check()
        self.assertEqual(done.returncode, 1)
        self.assertIn("nobody listens there", done.stdout)
        self.assertNotIn("kind: NetworkPolicy", done.stdout)


# ctest: timeout 300
# ctest: release only
class RangesTest(StormCase):
    """Where nobody configured the cluster's ranges, Nodes and Services tell them."""

    REPLICAS = 1

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.api.node("node1", ["10.77.0.2"], ["10.77.0.0/25", "fd77::/64"])
        control = cls.mesh.replicas[0]
        control.config["mesh"]["clusterCidrs"] = []
        control.stop()
        control.start()

    def test_an_unknown_address_of_a_nodes_block_is_looked_up_and_refused(self):
        web = self.mesh.sidecars["web"]

        def nobody(address):
            with contextlib.suppress(OSError):  # outside the cluster nothing answers
                self.mesh.reach("web", address)
            return web.records(direction="outbound", **{"close.reason": "destination_unknown", "destination.address": address})
        wait_until(lambda: nobody("10.77.0.120"), what=self.mesh.said)
        # The next block is somebody else's, until a node of this cluster has it.
        self.assertFalse(nobody("10.77.0.250"))
        self.api.node("node2", ["10.77.0.3"], ["10.77.0.128/25"])
        wait_until(lambda: nobody("10.77.0.250"), 30, self.mesh.said)
        self.unchanged()


# ctest: timeout 300
# ctest: release only
class ClockTest(StormCase):
    """The clocks of postern-control and of a sidecar jump (libfaketime; monotonic clocks do not)."""

    REPLICAS = 1

    def setUp(self):
        super().setUp()
        self.offsets = {}

    def restart_with_clock(self, owner, name):
        """Its wall clock is what jump() says from now on."""
        path = self.offsets[name] = f"{self.mesh.net.folder}/clock-{name}"
        self.jump(name, 0)
        pod, start = owner.pod, owner.pod.start
        env = {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": path, "FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1"}
        def with_clock(argv, **options):
            return start(argv, **{**options, "env": {**os.environ, **(options.get("env") or {}), **env}})
        pod.start = with_clock
        self.addCleanup(lambda: (owner.stop(), setattr(pod, "start", start)))
        owner.stop()
        owner.start()
        owner.wait_ready()

    def jump(self, name, seconds):
        with open(f"{self.offsets[name]}.new", "w", encoding="ascii") as file:
            file.write(f"{seconds:+d}\n")
        os.chmod(f"{self.offsets[name]}.new", 0o644)
        os.rename(f"{self.offsets[name]}.new", self.offsets[name])

    def follows(self, number):
        """Changes go on to be enforced."""
        self.api.policy(policy("api-more", app="api", ingress=[allow(PORT + 1 + number, app="web")]))
        done = self.mesh.status("default/api-more", "--wait", "--generation", str(number), "--deadline", "30s")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_control_planes_clock_jumps(self):
        control = self.mesh.replicas[0]
        steps = self.in_step_count()
        self.restart_with_clock(control, "control")
        wait_until(lambda: self.in_step_count() > steps, 30, self.mesh.said)
        live = self.live()
        with self.never_let_in():
            for number, seconds in enumerate((1800, -7200, 10 * 365 * 86400, 0), start=1):
                self.jump("control", seconds)
                wait_until(lambda: self.mesh.status("default/api-allow").returncode == 0)
                # Streams that are open go on, even where the SVIDs are of the past by that clock.
                self.follows(number)
            self.alive(live)
            self.unchanged()

    def test_a_sidecars_clock_jumps(self):
        self.restart_with_clock(self.sidecar, "api")
        wait_until(lambda: self.mesh.serving("api"), 30, self.mesh.said)
        self.mesh.wait_allowed("web", "api")
        with self.never_let_in():
            for number, seconds in enumerate((600, -120, 0), start=1):
                self.jump("api", seconds)
                self.follows(number)
                self.mesh.wait_allowed("web", "api")
            # Beyond the end of its SVID it is not more open, but shut.
            self.jump("api", 10 * 365 * 86400)
            wait_until(lambda: self.mesh.reach("web", "api") == "reset", 30, self.mesh.said)
            self.jump("api", 0)
            self.mesh.wait_allowed("web", "api", deadline=60)
        self.unchanged()


if __name__ == "__main__":
    unittest.main()
