"""What breaks around the control plane: replicas, the API server, etcd, sidecars and their peers. Policy never becomes more open for it."""

import contextlib
import json
import os
import signal
import ssl
import time
import unittest

from kit.apps import Relay, Thread
from kit.cluster import allow, gone, policy
from kit.controlled import PORT, ControlledMesh
from kit.peer import context
from kit.waiting import patience, wait_until
from kit.websocket import Closed, WebSocket


class FaultCase(unittest.TestCase):
    """web and other call api; only web may."""

    REPLICAS = 2
    CONFIG = {}

    @classmethod
    def setUpClass(cls):
        cls.mesh = ControlledMesh("web", "other", "api", replicas=cls.REPLICAS, config=cls.CONFIG)
        cls.addClassCleanup(cls.mesh.close)
        cls.api, cls.sidecar = cls.mesh.api, cls.mesh.sidecars["api"]

    def setUp(self):
        mesh = self.mesh
        for replica in mesh.replicas:
            if not replica.process.alive():
                replica.start()
        for item in self.api.list("NetworkPolicy"):
            self.api.delete("NetworkPolicy", item["metadata"]["name"], item["metadata"]["namespace"])
        self.api.policy(policy("api-allow", app="api", ingress=[allow(PORT, app="web")]))
        for sidecar in mesh.sidecars.values():
            if not sidecar.process.alive():
                sidecar.start()
            sidecar.wait_ready()
            wait_until(lambda s=sidecar: "postern_control_connected 1" in s.admin("GET", "/metrics")[1], 30, mesh.said)
        mesh.wait_denied("other", "api")
        mesh.wait_allowed("web", "api")

    def live(self):
        s = self.mesh.open("web", "api")
        self.addCleanup(s.close)
        return s

    def alive(self, s):
        s.sendall(b"pong")
        self.assertEqual(s.recv(4), b"pong")

    def enforced_count(self):
        return self.sidecar.output().count("policy_enforced")

    def in_step_count(self):
        return self.sidecar.output().count("control_in_step")

    def unchanged(self):
        """What is allowed, and what is not, right now."""
        self.assertEqual(self.mesh.reach("other", "api"), "reset")
        self.assertEqual(self.mesh.reach("web", "api"), b"ping")


# ctest: timeout 300
class ReplicaTest(FaultCase):
    """Any replica serves any sidecar; none of them can take a policy back."""

    def test_another_replica_takes_over_without_a_change(self):
        live, before, steps = self.live(), self.enforced_count(), self.in_step_count()
        first = wait_until(lambda: self.mesh.serving("api"), what=self.mesh.said)
        first.kill()
        wait_until(lambda: self.in_step_count() > steps, 30, self.mesh.said)
        self.assertIsNot(self.mesh.serving("api"), first)
        self.alive(live)
        self.unchanged()
        self.assertEqual(self.enforced_count(), before, "nothing was enforced anew")
        # And it is followed: a change reaches the sidecar through the other one.
        self.api.policy(policy("api-allow", app="api", ingress=[allow(PORT, app="other")]))
        self.assertEqual(gone(live), "reset")
        self.mesh.wait_allowed("other", "api")

    def test_a_lagging_replica_never_reopens_access(self):
        first = wait_until(lambda: self.mesh.serving("api"), what=self.mesh.said)
        second = next(replica for replica in self.mesh.replicas if replica is not first)
        # `other` is allowed for a while, which is what the second replica sees last: from now on the API server's words do not reach it.
        self.api.policy(policy("api-more", app="api", ingress=[allow(PORT, app="other")]))
        self.mesh.wait_allowed("other", "api")
        wait_until(lambda: "api-more" in json.dumps(second.admin("GET", "/policies")[1]), what=second.output)
        self.cut_off(second, True)
        undo = contextlib.ExitStack()
        undo.callback(self.cut_off, second, False)
        self.addCleanup(undo.close)
        self.api.delete("NetworkPolicy", "api-more", "default")
        self.mesh.wait_denied("other", "api")
        steps, not_ready = self.in_step_count(), self.sidecar.output().count("control_not_ready")
        first.kill()
        # It is connected to the second one, which must say that it is not ready, and stays with what is enforced.
        wait_until(lambda: self.sidecar.output().count("control_not_ready") > not_ready, 30, self.mesh.said)
        self.unchanged()
        self.assertEqual(self.in_step_count(), steps)
        undo.close()
        wait_until(lambda: self.in_step_count() > steps, 60, self.mesh.said)
        self.unchanged()

    def test_what_was_deleted_before_a_replica_started_does_not_come_back_from_a_lagging_one(self):
        """A replica's mark covers also what its first list no longer held."""
        fresh, lagging = self.mesh.replicas
        if "spare" not in self.mesh.pods:
            self.mesh.add("spare", meshed=False)
        # With a ConfigMap there is no kind whose mark is that of a list for want of an object.
        self.api.config_map("postern", "postern-system", {})
        self.addCleanup(self.api.delete, "ConfigMap", "postern", "postern-system")
        self.api.policy(policy("spare-closed", app="spare", ingress=[]))
        self.api.policy(policy("spare-open", app="spare", ingress=[allow(everybody=True)]))
        wait_until(lambda: "spare-open" in json.dumps(lagging.admin("GET", "/policies")[1]), what=lagging.output)
        wait_until(lambda: lagging.metric("postern_control_watch_events_total", kind="configmaps") > 0, what=lagging.output)
        self.cut_off(lagging, True)
        undo = contextlib.ExitStack()
        undo.callback(self.cut_off, lagging, False)
        self.addCleanup(undo.close)
        self.api.delete("NetworkPolicy", "spare-open", "default")
        fresh.kill()
        fresh.start()
        with self.mesh.raw_stream("spare", replica=fresh) as stream:
            stream.hello()
            first = stream.until("update")
            stream.ack(first)
        held = {resource["name"]: resource for resource in first["resources"]}
        self.assertNotIn("spare-open", held["allow-list"]["body"])
        with self.mesh.raw_stream("spare", replica=lagging) as stream:
            stream.hello(first["mark"], {name: resource["hash"] for name, resource in held.items()})
            message = stream.receive()
            self.assertEqual(message["type"], "not-ready", message)
            undo.close()
            update = stream.until("update", 30)
        self.assertNotIn("spare-open", json.dumps(update))
        self.assertEqual(update["resources"], [], "nothing is sent again")

    def test_a_sidecar_that_moves_to_an_older_replica_is_in_step_within_seconds(self):
        """Where nothing happens, the API server is asked how far it is: the bookmark of each minute is not waited for."""
        newer = wait_until(lambda: self.mesh.serving("api"), what=self.mesh.said)
        older = next(replica for replica in self.mesh.replicas if replica is not newer)
        newer.kill()
        # Something of every kind that is watched comes, and some of it goes.
        self.api.label("Pod", "web", {"changed": "yes"}, "default")
        self.api.label("Namespace", "default", {"changed": "yes"})
        self.api.label("Node", "node0", {"changed": "yes"})
        gone_again = [self.api.policy(policy("passing", app="nobody", ingress=[])), self.api.service("passing", selector={"app": "nobody"}),
                      self.api.endpoint_slice("passing", addresses=["10.77.0.250"]), self.api.config_map("postern", "postern-system", {})]
        for item in gone_again:
            self.api.delete(item["kind"], item["metadata"]["name"], item["metadata"]["namespace"])
        # And then something else, so that the newer one's lists are further than all that the older one has heard.
        self.api.create({"kind": "ServiceAccount", "metadata": {"name": f"passing-{time.monotonic_ns()}", "namespace": "default"}})
        newer.start()
        # A second stream of the pod takes the place of the sidecar's at the older one: it goes to the newer one.
        wait_until(lambda: self.mesh.serving("api") is older, 30, self.mesh.said)
        steps = self.in_step_count()
        with self.mesh.raw_stream("api", replica=older) as stream:
            stream.hello()
            stream.until("update")
            wait_until(lambda: self.mesh.sidecars["api"].output().count("control_disconnected") and self.in_step_count() > steps, 30, self.mesh.said)
        wait_until(lambda: self.mesh.serving("api") is newer, 30, self.mesh.said)
        steps, asked = self.in_step_count(), older.metric("postern_control_watch_asked_total")
        relists = older.metric("postern_control_watch_relists_total")
        began = time.monotonic()
        newer.kill()
        wait_until(lambda: self.in_step_count() > steps, 30, self.mesh.said)
        took = time.monotonic() - began
        self.assertLess(took, patience(6), f"in step with the older replica after {took:.1f} s")
        self.assertGreater(older.metric("postern_control_watch_asked_total"), asked)
        self.assertEqual(older.metric("postern_control_watch_relists_total"), relists, "nothing was listed anew for it")
        self.unchanged()

    def cut_off(self, replica, cut):
        """The API server's packets no longer arrive at the replica; its streams go on."""
        replica.pod.run(["iptables", "-w", "-A" if cut else "-D", "INPUT", "-s", self.mesh.kube_pod.v4, "-j", "DROP"], check=True)

    def test_a_frozen_replica_is_left(self):
        steps = self.in_step_count()
        first = wait_until(lambda: self.mesh.serving("api"), what=self.mesh.said)
        first.process.send(signal.SIGSTOP)  # its connections stay, nothing answers
        self.addCleanup(first.kill)
        wait_until(lambda: self.in_step_count() > steps, 40, self.mesh.said)
        self.unchanged()


# ctest: timeout 300
class RestartTest(FaultCase):
    """A sidecar that starts while the control plane is away."""

    REPLICAS = 1
    CONFIG = {"control": {"maxPolicyAge": "20s"}}

    def away(self):
        """The state is on file, and the control plane is gone."""
        def kept():
            return os.path.exists(f"{self.sidecar.state_folder}/policy-state")
        wait_until(kept, what=self.sidecar.output)
        for replica in self.mesh.replicas:
            replica.kill()

    def path(self):
        return f"{self.sidecar.state_folder}/policy-state"

    def test_it_goes_on_from_its_state_file(self):
        self.away()
        self.sidecar.stop()
        self.assertEqual(os.stat(self.path()).st_mode & 0o777, 0o600)
        self.sidecar.start()
        self.sidecar.wait_ready()
        self.assertIn("policy_state_loaded", self.sidecar.output())
        self.unchanged()
        steps = self.in_step_count()
        self.mesh.replicas[0].start()
        wait_until(lambda: self.in_step_count() > steps, 30, self.mesh.said)
        self.unchanged()

    def test_a_state_that_is_too_old_is_refused_at_start(self):
        self.away()
        self.sidecar.stop()
        written = os.stat(self.path()).st_mtime
        wait_until(lambda: time.time() > written + 21, 40)
        self.sidecar.start()
        self.sidecar.process.wait_for_output("policy_state_refused.*maxPolicyAge allows 20 s")
        status, why = self.sidecar.health("/readyz")
        self.assertEqual(status, 503, why)
        self.assertEqual(self.mesh.reach("web", "api"), "reset")
        self.mesh.replicas[0].start()
        self.sidecar.wait_ready()
        self.unchanged()

    def test_a_running_sidecar_keeps_its_policy_however_old(self):
        self.away()
        killed = time.monotonic()
        wait_until(lambda: time.monotonic() > killed + 22, 60)
        self.unchanged()
        age = next(float(line.split()[1]) for line in self.sidecar.admin("GET", "/metrics")[1].splitlines()
                   if line.startswith("postern_policy_age_seconds "))
        self.assertGreater(age, 20)
        self.assertIn("postern_control_connected 0", self.sidecar.admin("GET", "/metrics")[1])

    def test_a_damaged_state_is_refused(self):
        self.away()
        self.sidecar.stop()
        with open(self.path(), "r+b") as file:
            file.seek(200)
            file.write(b"\0")
        self.sidecar.start()
        self.sidecar.process.wait_for_output("policy_state_refused.*checksum")
        self.assertEqual(self.mesh.reach("web", "api"), "reset")

    def test_a_sidecar_cut_off_by_a_network_plugin_is_told_so(self):
        self.sidecar.stop()
        self.mesh.replicas[0].pod.drop_arriving(15010)
        self.addCleanup(self.mesh.replicas[0].pod.drop_arriving, 15010, dropped=False)
        os.unlink(self.path())
        self.sidecar.start()
        self.sidecar.process.wait_for_output("control_unreachable.*NetworkPolicy.*postern-control.*15010", 20)
        self.assertIn("control plane has not been reached", str(self.sidecar.health("/readyz")[1]))


# ctest: timeout 400
class ApiServerTest(FaultCase):
    """What happens to the API server and etcd."""

    REPLICAS = 1

    def change(self):
        """A change of policy reaches the sidecars."""
        self.api.policy(policy("api-allow", app="api", ingress=[allow(PORT, app="other")]))
        self.mesh.wait_allowed("other", "api", deadline=60)
        self.assertEqual(self.mesh.reach("web", "api"), "reset")

    def test_killed_and_restarted(self):
        live = self.live()
        self.mesh.kube.kill_api_server()
        self.unchanged()
        self.alive(live)
        self.mesh.kube.start_api_server()
        self.alive(live)
        self.change()
        self.assertEqual(gone(live), "reset")

    def test_a_compacted_history_is_listed_anew(self):
        control = self.mesh.replicas[0]
        # While the replica hears nothing, the policy changes and the history in between is forgotten.
        self.mesh.kube.kill_api_server()
        self.mesh.kube.start_api_server()
        with contextlib.ExitStack() as undo:
            drop = ["iptables", "-w", "-A", "INPUT", "-s", self.mesh.kube_pod.v4, "-j", "DROP"]
            control.pod.run(drop, check=True)
            undo.callback(lambda: control.pod.run(["iptables", "-w", "-D", *drop[3:]], check=True))
            self.api.policy(policy("api-allow", app="api", ingress=[allow(PORT, app="other")]))
            self.api.policy(policy("another", app="nobody", ingress=[]))
            self.mesh.kube.compact()
            self.mesh.kube.kill_api_server()  # and with it the watch cache, which would still know
            self.mesh.kube.start_api_server()
        self.mesh.wait_allowed("other", "api", deadline=90)
        self.assertEqual(self.mesh.reach("web", "api"), "reset")

    def test_a_watch_cut_within_an_object(self):
        control = self.mesh.replicas[0]
        relay = Relay(control.pod.listen(6443, "127.0.0.1"), lambda: control.pod.connect(self.mesh.kube_pod.v4, 6443))
        self.addCleanup(relay.close)
        self.through(control, "127.0.0.1")
        self.addCleanup(self.through, control, self.mesh.kube_pod.v4)
        self.unchanged()
        live, lists = self.live(), self.lists(control)
        # The whole object would close the door to `web` and open it to `other`; of its first third nothing may be seen.
        blocks = [{"ipBlock": {"cidr": f"198.18.{number // 256}.{number % 256}/32"}} for number in range(8_000)]
        relay.cut_within(100_000)
        item = self.api.replace({"kind": "NetworkPolicy", **policy("api-allow", app="api", ingress=[
            {"peers": [*blocks, {"podSelector": {"matchLabels": {"app": "other"}}}]}])})
        self.assertGreater(len(json.dumps(item)), 300_000)
        wait_until(lambda: relay.cut == 1, what=control.output)
        done = self.mesh.status("default/api-allow", "--wait", "--generation", str(item["metadata"]["generation"]), "--deadline", "60s")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(gone(live), "reset")
        self.assertEqual(self.mesh.reach("web", "api"), "reset")
        self.mesh.wait_allowed("other", "api")
        self.assertEqual(self.lists(control), lists, "resumed, not listed anew")

    def through(self, control, address):
        """The replica starts anew, and reaches the API server there."""
        with open(control.config["kubeconfig"], encoding="utf-8") as file:
            settings = json.load(file)
        settings["clusters"][0]["cluster"]["server"] = f"https://{address}:6443"
        with open(control.config["kubeconfig"], "w", encoding="utf-8") as file:
            json.dump(settings, file)
        if control.process.alive():
            control.stop()
        steps = self.in_step_count()
        control.start()
        wait_until(lambda: self.in_step_count() > steps, 30, self.mesh.said)

    @staticmethod
    def lists(control):
        return control.metric("postern_control_watch_relists_total")

    def test_a_frozen_api_server_changes_nothing(self):
        live = self.live()
        with self.mesh.kube.frozen_api_server():
            self.unchanged()
            self.alive(live)
        self.change()


# ctest: timeout 300
class HostileTest(FaultCase):
    """Sidecars that misbehave, and somebody who poses as the control plane."""

    REPLICAS = 1

    def harmless(self, steps):
        """Everybody else's stream is what it was."""
        self.assertEqual(self.in_step_count(), steps)
        self.unchanged()

    def closed(self, stream):
        with self.assertRaises(Closed) as caught:
            while True:
                stream.receive()
        return caught.exception.code

    def test_malformed_messages_end_their_own_stream_only(self):
        self.mesh.sidecars["other"].stop()
        steps = self.in_step_count()
        for text in ("{", "[]", '{"type":"hello"}', '{"type":"surprise"}', "\0" * 100, '{"type":"ack","nonce":1}', "[" * 100_000):
            with self.mesh.raw_stream("other") as stream:
                stream.send_text(text)
                self.assertIn(self.closed(stream), (1002, 1003, 1007, 1008, 1009, None), text[:40])
        with self.mesh.raw_stream("other") as stream:
            stream.hello()
            stream.until("update")
            stream.send({"type": "ack", "nonce": 4711})
            self.assertEqual(self.closed(stream), 1002)
        self.mesh.sidecars["other"].start()
        self.mesh.sidecars["other"].wait_ready()
        self.harmless(steps)

    def test_an_oversized_message_ends_its_own_stream_only(self):
        self.mesh.sidecars["other"].stop()
        steps = self.in_step_count()
        with self.mesh.raw_stream("other") as stream:
            with contextlib.suppress(OSError):
                stream.send_text(json.dumps({"type": "forget", "names": ["x" * 100] * 100_000}))
            self.assertIn(self.closed(stream), (1009, None))
        self.mesh.sidecars["other"].start()
        self.mesh.sidecars["other"].wait_ready()
        self.harmless(steps)

    def test_svids_that_are_nobodys_get_nothing(self):
        steps = self.in_step_count()
        for wrong in ({"pod_uid": "00000000-0000-0000-0000-000000000000"}, {"pod": "nobody"}, {"service_account": "root"}, {"namespace": "kube-system"}):
            with self.subTest(wrong), self.mesh.raw_stream("other", self.mesh.svid("other", **wrong)) as stream:
                stream.hello()
                with self.assertRaises((Closed, TimeoutError)):
                    message = stream.until("update", timeout=2)
                    self.fail(f"got {message}")
        self.harmless(steps)

    def test_without_an_svid_there_is_no_stream(self):
        with self.assertRaises((Closed, OSError)):
            control = self.mesh.replicas[0]
            with WebSocket(self.mesh.pods["other"], control.pod.v4, 15010, context(None, alpn=("postern-control/1",))) as stream:
                stream.hello()
                stream.receive()

    def test_nobody_poses_as_the_control_plane_with_a_pods_svid(self):
        pod = self.mesh.net.pod("impostor")
        listener = pod.listen(15010)
        said = []

        def serve():
            s, _ = listener.accept()
            with s:
                tls = context(self.mesh.svid("other"), server=True, alpn=("postern-control/1",)).wrap_socket(s, server_side=True)
                tls.settimeout(patience(10))
                with contextlib.suppress(OSError, ssl.SSLError):
                    said.append(tls.recv(4096))

        thread = Thread(serve)
        web = self.mesh.sidecars["web"]
        web.stop()
        before = web.config
        self.addCleanup(web.stop)
        self.addCleanup(lambda: setattr(web, "config", before))
        web.configure(control={"addresses": [f"{pod.v4}:15010"], "stateDir": ""})
        web.start()
        web.process.wait_for_output("control_unreachable.*it proved to be .*/pod/other/", 20)
        thread.result()
        self.assertIn(said, ([], [b""]), "not one byte was sent to it")

    def test_marks_from_nowhere_make_no_storm(self):
        """Whatever a sidecar says that it has seen: the API server is asked at a bounded rate, and nothing is listed anew."""
        self.mesh.sidecars["other"].stop()  # setUp() of the next test starts it again
        control = self.mesh.replicas[0]
        with self.mesh.raw_stream("other") as stream:
            stream.hello()
            mark = stream.until("update")["mark"]
        relists = control.metric("postern_control_watch_relists_total")
        asked = control.metric("postern_control_watch_asked_total")
        began, rounds = time.monotonic(), 0
        # Stream after stream, each with other marks; more than one question a kind has come when this ends.
        while control.metric("postern_control_watch_asked_total") < asked + 3 * len(mark["versions"]):
            self.assertLess(time.monotonic() - began, patience(60), control.output())
            rounds += 1
            future = {kind: 2**63 - rounds if rounds % 2 else version + 10**6 - rounds for kind, version in mark["versions"].items()}
            with self.mesh.raw_stream("other") as stream:
                stream.hello({"epoch": mark["epoch"], "versions": future})
                self.assertEqual(stream.receive()["type"], "not-ready")
                with self.assertRaises((Closed, TimeoutError)):
                    self.fail(f"got {stream.receive(timeout=1)}")
        took = time.monotonic() - began
        self.assertLessEqual(control.metric("postern_control_watch_asked_total") - asked, len(mark["versions"]) * (1 + took / 2))
        self.assertEqual(control.metric("postern_control_watch_relists_total"), relists)
        self.assertEqual(self.mesh.reach("web", "api"), b"ping")

    def test_look_ups_are_limited(self):
        self.mesh.sidecars["other"].stop()  # setUp() of the next test starts it again
        with self.mesh.raw_stream("other") as stream:
            stream.hello()
            stream.ack(stream.until("update"))
            for number in range(400):
                stream.send({"type": "lookup", "id": number, "address": f"10.77.{number // 250}.{number % 250}"})
            refused = 0
            for _ in range(400):
                message = stream.receive()
                if message["type"] == "update":
                    stream.ack(message)
                elif message.get("error"):
                    refused += 1
                    break
            self.assertGreater(refused, 0)


if __name__ == "__main__":
    unittest.main()
