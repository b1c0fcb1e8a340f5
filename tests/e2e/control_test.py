"""The control plane, end to end: a real API server, postern-control replicas, sidecars that take their policy from the stream. What is in the API is
what connections meet."""

import datetime
import json
import tempfile
import time
import unittest

from kit.cluster import allow, gone, policy
from kit.controlled import PORT, ControlledMesh
from kit.processes import run
from kit.sidecar import program
from kit.waiting import wait_until


class ControlCase(unittest.TestCase):
    """web and other (sidecars) call api (sidecar) and plain (none)."""

    REPLICAS = 2
    MESH = {}

    @classmethod
    def setUpClass(cls):
        cls.mesh = ControlledMesh("web", "other", "api", without=("plain",), replicas=cls.REPLICAS, mesh=cls.MESH)
        cls.addClassCleanup(cls.mesh.close)
        cls.api = cls.mesh.api

    def setUp(self):
        self.addCleanup(self.back_to_nothing)

    def back_to_nothing(self):
        for item in self.api.list("NetworkPolicy"):
            self.api.delete("NetworkPolicy", item["metadata"]["name"], item["metadata"]["namespace"], missing_ok=True)
        for source in ("web", "other"):
            self.mesh.wait_allowed(source, "api")

    def open(self, source, target, port=PORT):
        s = self.mesh.open(source, target, port)
        self.addCleanup(s.close)
        return s

    def alive(self, s):
        s.sendall(b"pong")
        self.assertEqual(s.recv(4), b"pong")


# ctest: timeout 240
class PolicyTest(ControlCase):
    """Objects of the API decide, and their changes cut what they no longer allow."""

    def test_a_policy_made_through_the_api_is_enforced(self):
        self.mesh.wait_allowed("web", "api")
        self.api.policy(policy("api-allow", app="api", ingress=[allow(PORT, app="web")]))
        self.mesh.wait_denied("other", "api")
        self.mesh.wait_allowed("web", "api")
        denied = self.mesh.sidecars["api"].wait_record(direction="inbound", **{"close.reason": "denied"})
        self.assertEqual(denied["verdict"], "DROPPED")

    def test_a_changed_label_cuts_a_live_connection(self):
        self.api.policy(policy("api-allow", app="api", ingress=[allow(PORT, role="client")]))
        self.api.label("Pod", "web", {"role": "client"}, "default")
        self.addCleanup(lambda: self.api.label("Pod", "web", {"role": None}, "default"))
        self.mesh.wait_allowed("web", "api")
        self.mesh.wait_denied("other", "api")
        live = self.open("web", "api")
        self.api.label("Pod", "web", {"role": None}, "default")
        self.assertEqual(gone(live), "reset")
        self.mesh.sidecars["api"].wait_record(direction="inbound", **{"close.reason": "policy_changed"})
        self.assertEqual(self.mesh.reach("web", "api"), "reset")

    def test_an_edited_policy_cuts_exactly_what_it_no_longer_allows(self):
        self.api.policy(policy("api-allow", app="api", ingress=[allow(PORT, app="web"), allow(PORT, app="other")]))
        self.mesh.wait_denied("plain", "api")
        web, other = self.open("web", "api"), self.open("other", "api")
        self.api.policy(policy("api-allow", app="api", ingress=[allow(PORT, app="web")]))
        self.assertEqual(gone(other), "reset")
        self.alive(web)

    def test_egress_is_decided_on_the_streamed_identity(self):
        self.api.policy(policy("web-egress", app="web", egress=[allow(PORT, app="api")]))
        self.mesh.wait_denied("web", "other")  # maybe under way when the policy came: policy_changed
        self.mesh.wait_denied("web", "other")
        self.mesh.wait_allowed("web", "api")
        record = self.mesh.sidecars["web"].wait_record(direction="outbound", **{"close.reason": "denied"})
        self.assertEqual(record["verdict"], "DROPPED")

    def test_a_relabelled_namespace(self):
        rule = {"peers": [{"namespaceSelector": {"matchLabels": {"team": "shop"}}}]}
        self.api.policy(policy("api-allow", app="api", ingress=[rule]))
        self.addCleanup(lambda: self.api.label("Namespace", "default", {"team": "shop"}))
        self.mesh.wait_denied("plain", "api")
        self.mesh.wait_allowed("web", "api")
        live = self.open("web", "api")
        self.api.label("Namespace", "default", {"team": "none"})
        self.assertEqual(gone(live), "reset")
        self.assertEqual(self.mesh.reach("other", "api"), "reset")
        self.api.label("Namespace", "default", {"team": "shop"})
        self.mesh.wait_allowed("other", "api")

    def test_a_policy_deleted_and_made_again_at_once(self):
        strict = policy("api-allow", app="api", ingress=[])
        self.api.policy(strict)
        self.mesh.wait_denied("web", "api")
        for _ in range(20):
            self.api.delete("NetworkPolicy", "api-allow", "default")
            self.api.policy(strict)
        last = policy("api-allow", app="api", ingress=[allow(PORT, app="web")])
        self.api.delete("NetworkPolicy", "api-allow", "default")
        self.api.policy(last)
        # Between deleting and making it the API itself allows everything, and for a moment a sidecar may say so.
        self.mesh.wait_denied("other", "api")
        self.mesh.wait_allowed("web", "api")
        self.assertEqual(self.mesh.reach("other", "api"), "reset")


# ctest: timeout 240
class ScopeTest(ControlCase):
    """A sidecar holds what its own allow list names; the rest is looked up when it is met."""

    def test_an_unknown_peer_is_looked_up_once(self):
        # No policy names anybody: every peer comes by look-up.
        self.assertEqual(self.mesh.reach("web", "api"), b"ping")
        self.assertGreater(self.lookups("web") + self.lookups("api"), 0)
        asked = self.lookups("api")
        self.assertEqual(self.mesh.reach("web", "api"), b"ping")
        self.assertEqual(self.lookups("api"), asked, "known peers are never asked about again")

    def lookups(self, name):
        for line in self.mesh.sidecars[name].admin("GET", "/metrics")[1].splitlines():
            if line.startswith("postern_control_lookups_total "):
                return float(line.split()[1])
        raise AssertionError("no postern_control_lookups_total")

    def test_an_address_of_nobody_is_refused(self):
        self.assertEqual(self.mesh.reach("web", "10.77.0.250"), "reset")
        self.mesh.sidecars["web"].wait_record(direction="outbound", **{"close.reason": "destination_unknown"})

    def test_a_service_is_looked_up_and_leads_to_its_pods(self):
        service = self.api.service("front", selector={"app": "api"}, ports=[("http", 80, PORT)])
        self.addCleanup(lambda: self.api.delete("Service", "front", "default"))
        self.api.endpoint_slice("front", pods=[self.api.get("Pod", "api", "default")], ports=[("http", PORT)])
        self.addCleanup(lambda: self.api.delete("EndpointSlice", "front-1", "default", missing_ok=True))
        address = service["spec"]["clusterIP"]
        self.mesh.wait_allowed("web", address, 80)
        # The endpoint moves on: what was looked up is kept current.
        self.api.endpoint_slice("front", pods=[self.api.get("Pod", "other", "default")], ports=[("http", PORT)])
        before = self.mesh.apps["other"].accepted
        def moved():
            self.mesh.reach("web", address, 80)
            return self.mesh.apps["other"].accepted > before
        wait_until(moved, what=self.mesh.said)

    def test_a_new_pod_is_known_when_it_calls(self):
        self.api.policy(policy("api-allow", app="api", ingress=[allow(PORT, app="late"), allow(PORT, app="web")]))
        self.mesh.wait_denied("other", "api")
        self.mesh.add("late")
        sidecar = self.mesh.sidecars["late"]
        sidecar.start()
        sidecar.wait_ready()
        self.assertEqual(self.mesh.reach("late", "api"), b"ping", "its first connection, without a wait")

    def test_nobody_gets_anothers_allow_list(self):
        self.api.policy(policy("api-allow", app="api", ingress=[allow(PORT, app="web")]))
        self.mesh.wait_denied("other", "api")
        self.mesh.sidecars["other"].stop()
        self.addCleanup(self.restart, "other")
        with self.mesh.raw_stream("other") as stream:
            stream.hello()
            update = stream.until("update")
            names = {resource["name"]: resource["body"] for resource in update["resources"]}
        self.assertIn("pod/default/other", names)
        self.assertNotIn("api-allow", names["allow-list"])

    def restart(self, name):
        self.mesh.sidecars[name].start()
        self.mesh.sidecars[name].wait_ready()


# ctest: timeout 240
class StatusTest(ControlCase):
    """posternctl status: what is in force, and what is not, with the reason."""

    def test_wait_returns_when_every_pod_enforces(self):
        self.api.policy(policy("api-allow", app="api", ingress=[allow(PORT, app="web")]))
        done = self.mesh.status("default/api-allow", "--wait", "--generation", "1", "--deadline", "30s")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(self.mesh.reach("other", "api"), "reset", "in force when --wait says so")
        self.assertEqual(self.mesh.reach("web", "api"), b"ping")
        self.assertIn("1/1", done.stdout)

    def test_a_pod_without_a_sidecar_is_named(self):
        self.api.policy(policy("plain-deny", app="plain", ingress=[]))
        done = self.mesh.status("default/plain-deny", "--wait", "--generation", "1", "--deadline", "30s")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("unmeshed", done.stdout)

    def test_who_never_acknowledges_is_named_at_the_deadline(self):
        self.mesh.sidecars["other"].stop()
        self.addCleanup(self.restart, "other")
        with self.mesh.raw_stream("other") as stream:
            stream.hello()
            stream.until("update")
            self.api.policy(policy("other-deny", app="other", ingress=[]))
            done = self.mesh.status("default/other-deny", "--wait", "--generation", "1", "--deadline", "2s")
            self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
            self.assertIn("default/other", done.stdout + done.stderr)
            self.assertIn("lagging", done.stdout + done.stderr)

    def test_a_refusal_is_named_with_its_reason(self):
        self.mesh.sidecars["other"].stop()
        self.addCleanup(self.restart, "other")
        with self.mesh.raw_stream("other") as stream:
            stream.hello()
            stream.ack(stream.until("update"))
            self.api.policy(policy("other-deny", app="other", ingress=[]))
            stream.nack(stream.until("update"), "does not fit")
            def named():
                done = self.mesh.status("default/other-deny", "--output", "json")
                return "does not fit" in json.dumps(json.loads(done.stdout))
            wait_until(named, what=lambda: self.mesh.status("default/other-deny").stdout)

    def events(self, name, reason):
        return [item for item in self.api.list("Event", "default") if item["reason"] == reason and item["regarding"]["name"] == name]

    def enforced_at(self, name):
        """When the sidecar had its newest policy in force, by its own log."""
        line = [line for line in self.mesh.sidecars[name].output().splitlines() if '"policy_enforced"' in line][-1]
        return datetime.datetime.fromisoformat(json.loads(line)["@timestamp"].replace("Z", "+00:00")).timestamp()

    def metric(self, name):
        return sum(replica.metric(name) for replica in self.mesh.replicas)

    def test_an_edit_is_told_by_an_event_and_measured(self):
        self.api.policy(policy("api-allow", app="api", ingress=[allow(PORT, app="web")]))
        done = self.mesh.status("default/api-allow", "--wait", "--generation", "1", "--deadline", "30s")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        measured = self.metric("postern_control_edit_to_enforced_seconds_count")
        took = []
        for number in range(20):
            edited = time.time()
            self.api.policy(policy("api-allow", app="api", ingress=[allow(PORT + 1 + number, app="web")]))
            done = self.mesh.status("default/api-allow", "--wait", "--generation", str(number + 2), "--deadline", "30s")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            took.append(((self.enforced_at("api") - edited) * 1000, (time.time() - edited) * 1000))
            self.assertEqual(self.mesh.reach("web", "api"), "reset", "in force when --wait says so")
        for what, times in zip(("a real sidecar has it in force", "posternctl status --wait says so"), map(sorted, zip(*took))):
            print(f"edit at the API until {what}: median {times[10]:.0f} ms, most {times[-1]:.0f} ms of {len(times)}", flush=True)
            self.assertGreater(times[0], 0)
        wait_until(lambda: self.metric("postern_control_policies_lagging") == 0, what=self.mesh.said)
        told = wait_until(lambda: self.events("api-allow", "InForce"), what=self.mesh.said)
        self.assertEqual(told[0]["type"], "Normal")
        self.assertRegex(told[0]["note"], r"^generation \d+ is enforced by the sidecars of 1 pod, \d+\.\d{3} s after its change was seen$")
        self.assertEqual(told[0]["regarding"]["uid"], self.api.get("NetworkPolicy", "api-allow", "default")["metadata"]["uid"])
        self.assertGreaterEqual(self.metric("postern_control_edit_to_enforced_seconds_count"), measured + 20)

    def test_edits_that_follow_at_once_are_measured_each(self):
        self.mesh.sidecars["other"].stop()
        self.addCleanup(self.restart, "other")
        replica = self.mesh.replicas[0]

        def in_force(generation):
            return any(item["name"] == "other-deny" and item["generation"] == generation and item["pods"][0]["state"] == "enforced"
                       for item in replica.admin("GET", "/policies")[1]["policies"])

        with self.mesh.raw_stream("other") as stream:
            stream.hello()
            stream.ack(stream.until("update"))
            measured = None
            for number in range(21):
                self.api.policy(policy("other-deny", app="other", ingress=[allow(PORT + number, app="web")]))
                stream.ack(stream.until("update"))
                # The next edit comes as soon as this one is in force, and so before anybody has looked again.
                wait_until(lambda: in_force(number + 1), interval=0, what=self.mesh.said)
                if number == 0:
                    wait_until(lambda: self.metric("postern_control_policies_lagging") == 0, what=self.mesh.said)
                    measured = self.metric("postern_control_edit_to_enforced_seconds_count")
            wait_until(lambda: self.metric("postern_control_policies_lagging") == 0, what=self.mesh.said)
        self.assertEqual(self.metric("postern_control_edit_to_enforced_seconds_count"), measured + 20)

    def test_who_lags_is_told_by_a_gauge_and_an_event(self):
        self.mesh.sidecars["other"].stop()
        self.addCleanup(self.restart, "other")
        with self.mesh.raw_stream("other") as stream:
            stream.hello()
            stream.ack(stream.until("update"))
            self.api.policy(policy("other-slow", app="other", ingress=[]))
            update = stream.until("update")
            wait_until(lambda: self.metric("postern_control_policies_lagging") == 1, what=self.mesh.said)
            told = wait_until(lambda: self.events("other-slow", "NotInForce"), 30, self.mesh.said)
            self.assertEqual(told[0]["type"], "Warning")
            self.assertIn("generation 1 is not enforced by 1 sidecar", told[0]["note"])
            self.assertIn("default/other (its sidecar has not acknowledged", told[0]["note"])
            stream.ack(update)
            wait_until(lambda: self.events("other-slow", "InForce"), what=self.mesh.said)
            wait_until(lambda: self.metric("postern_control_policies_lagging") == 0, what=self.mesh.said)

    def test_nothing_needs_a_leader(self):
        holders = [item["spec"].get("holderIdentity", "") for item in self.api.list("Lease")]
        self.assertEqual([holder for holder in holders if not holder.startswith("apiserver-")], [])

    def restart(self, name):
        self.mesh.sidecars[name].start()
        self.mesh.sidecars[name].wait_ready()


class ProgramTest(unittest.TestCase):
    """What postern-control says of itself and of its configuration, without a cluster."""

    GOOD = "mesh: {trustDomain: example.org}\nauthority: {enabled: true}\n"

    def check(self, text, *arguments):
        with tempfile.NamedTemporaryFile("w", suffix="-control.yaml", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            return run([program("postern-control"), "--config", file.name, *arguments])

    def test_help_names_every_argument(self):
        done = run([program("postern-control"), "--help"])
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for name in ("--config", "--kubeconfig", "--log-level", "--check-config", "--print-config", "--version", "SIGTERM"):
            self.assertIn(name, done.stdout)
        self.assertRegex(run([program("postern-control"), "--version"]).stdout, r"^postern-control \d")

    def test_a_good_configuration_is_good(self):
        done = self.check(self.GOOD, "--check-config")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_what_is_printed_is_a_configuration(self):
        printed = self.check(self.GOOD, "--print-config").stdout
        for name in ("drainPeriod", "ticketKeys", "example.org", "#"):
            self.assertIn(name, printed)
        self.assertEqual(self.check(printed, "--check-config").returncode, 0)
        self.assertEqual(self.check(printed, "--print-config").stdout, printed)
        self.assertIn("trustDomain", run([program("postern-control"), "--print-config"]).stdout, "every default, to start from")

    def test_mistakes_are_told_with_file_line_field_and_the_nearest_name(self):
        for text, words in (("limits:\n  handshakeTimeuot: 3s\n", ("control.yaml:2", "handshakeTimeuot", "handshakeTimeout")),
                            ("limits:\n  streams: many\n", ("control.yaml:2", "limits.streams", "many")),
                            ("drainPeriod: 3 parsecs\n", ("control.yaml:1", "drainPeriod")),
                            ("listen: {stream: 70000}\n", ("control.yaml:1", "listen.stream")),
                            ("authority: {enabled: true}\n", ("mesh.trustDomain",)),
                            ("mesh: {trustDomain: example.org}\n", ("identity",)),
                            ("mesh: [\n", ("control.yaml",))):
            with self.subTest(text=text):
                done = self.check(text, "--check-config")
                self.assertEqual(done.returncode, 2)
                for word in words:
                    self.assertIn(word, done.stderr)
        done = run([program("postern-control"), "--cofnig"])
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("--help", done.stderr)

    def test_without_an_api_server_it_says_what_is_missing(self):
        done = self.check(self.GOOD + "kubeconfig: /nonexistent/kubeconfig\n")
        self.assertEqual(done.returncode, 2)
        self.assertIn("/nonexistent/kubeconfig", done.stderr)


if __name__ == "__main__":
    unittest.main()
