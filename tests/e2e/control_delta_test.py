"""Large peer sets: when one member changes, what is sent does not grow with the set."""

import unittest

from kit.cluster import allow, policy
from kit.controlled import PORT, ControlledMesh
from kit.waiting import wait_until

SET_HEADROOM = 2000  # bytes for one member more or less, to each sidecar that is told: names, hashes, the mark, and a pod's record


# ctest: timeout 300
class LargeSetTest(unittest.TestCase):
    """api admits everybody of the tier `crowd`: web at first, and a thousand pods that exist at the API server only."""

    @classmethod
    def setUpClass(cls):
        cls.mesh = ControlledMesh("web", "api", replicas=1)
        cls.addClassCleanup(cls.mesh.close)
        cls.api, cls.control, cls.size = cls.mesh.api, cls.mesh.replicas[0], 0
        cls.api.policy(policy("api-allow", app="api", ingress=[allow(PORT, tier="crowd")]))
        cls.grow(1000)

    @classmethod
    def grow(cls, size):
        items = [{"kind": "Pod", "metadata": {"name": f"crowd-{number}", "namespace": "default", "labels": {"tier": "crowd"}},
                  "spec": {"serviceAccountName": "default", "nodeName": "node0", "containers": [{"name": "app", "image": "app"}]}}
                 for number in range(cls.size, size)]
        for item in cls.api.create_many(items):
            cls.mesh.objects[item["metadata"]["name"]] = item
        cls.size = size
        # Everything that was to be sent is acknowledged once the newest pod has got there.
        wait_until(lambda: cls.control.metric("postern_control_pods") >= size + 2, 30, cls.mesh.said)
        cls.in_force()

    @classmethod
    def in_force(cls):
        done = cls.mesh.status("default/api-allow", "--wait", "--deadline", "30s")
        if done.returncode != 0:
            raise AssertionError(done.stdout + done.stderr)

    def counted(self):
        names = ("sent_bytes", "updates", "deltas", "nacks")
        return {name: self.control.metric(f"postern_control_{name}_total") for name in names}

    def test_one_member_of_a_thousand_is_a_small_update(self):
        self.mesh.wait_denied("web", "api")
        for tier, wait in (("crowd", self.mesh.wait_allowed), (None, self.mesh.wait_denied), ("crowd", self.mesh.wait_allowed)):
            before = self.counted()
            self.api.label("Pod", "web", {"tier": tier}, "default")
            wait("web", "api")
            self.in_force()
            after = self.counted()
            self.assertEqual(after["deltas"] - before["deltas"], 1, "the set went as an edit, to api's sidecar alone")
            self.assertLess(after["sent_bytes"] - before["sent_bytes"], SET_HEADROOM * max(1, after["updates"] - before["updates"]))
            self.assertLessEqual(after["updates"] - before["updates"], 2)
            self.assertEqual(after["nacks"], before["nacks"])
        self.api.label("Pod", "web", {"tier": None}, "default")
        self.mesh.wait_denied("web", "api")

    def test_a_sidecar_that_refuses_edits_gets_the_whole(self):
        self.mesh.sidecars["api"].stop()
        self.addCleanup(self.restart, "api")
        with self.mesh.raw_stream("api") as stream:
            stream.hello()
            first = stream.until("update")
            stream.ack(first)
            whole = next(resource for resource in first["resources"] if resource["name"].startswith("peer-set/"))
            self.assertGreater(len(whole["body"]), 15 * self.size)
            self.api.label("Pod", "crowd-7", {"tier": "gone"}, "default")
            edits = stream.until("update")
            self.assertEqual([delta["base"] for delta in edits["deltas"]], [whole["hash"]])
            self.assertEqual(edits["resources"], [])
            self.assertEqual(edits["removed"], ["pod/default/crowd-7"])
            stream.nack(edits, "not what is held here")
            again = stream.until("update")
            self.assertNotIn("deltas", again)
            self.assertEqual([resource["name"] for resource in again["resources"]], [whole["name"]])
            self.assertNotIn('"default/crowd-7"', again["resources"][0]["body"])
            stream.ack(again)
            self.api.label("Pod", "crowd-7", {"tier": "crowd"}, "default")
            self.assertNotIn("deltas", stream.until("update"), "nor is it tried again on this stream")

    def restart(self, name):
        self.mesh.sidecars[name].start()
        self.mesh.sidecars[name].wait_ready()
        wait_until(lambda: self.mesh.serving(name), 30, self.mesh.said)

    def test_the_bound_does_not_grow_with_the_set(self):
        sizes = []
        for size in (1000, 2000):
            if size > self.size:
                type(self).grow(size)
            before = self.counted()
            self.api.label("Pod", "crowd-500", {"tier": "gone"}, "default")
            wait_until(lambda b=before: self.counted()["deltas"] > b["deltas"], 30, self.mesh.said)
            self.in_force()
            after = self.counted()
            sizes.append((after["sent_bytes"] - before["sent_bytes"]) / (after["updates"] - before["updates"]))
            self.api.label("Pod", "crowd-500", {"tier": "crowd"}, "default")
            wait_until(lambda a=after: self.counted()["deltas"] > a["deltas"], 30, self.mesh.said)
            self.in_force()
        self.assertLess(max(sizes), SET_HEADROOM)
        self.assertLess(abs(sizes[0] - sizes[1]), 50, sizes)


if __name__ == "__main__":
    unittest.main()
