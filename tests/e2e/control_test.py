"""The control plane, end to end: a real API server, postern-control replicas, sidecars that take their policy from the stream. What is in the API is
what connections meet."""

import json
import unittest

from kit.cluster import allow, gone, policy
from kit.controlled import PORT, ControlledMesh
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

    def restart(self, name):
        self.mesh.sidecars[name].start()
        self.mesh.sidecars[name].wait_ready()


if __name__ == "__main__":
    unittest.main()
