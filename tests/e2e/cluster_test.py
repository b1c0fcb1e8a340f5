"""Postern in a real cluster of one node: kubelet and containerd run plain Deployments, the chart has installed Postern, the webhook injects. What the
demo shows, and what only a kubelet can: the order of starting and ending, probes, Services, rolling updates."""

import contextlib
import io
import os
import sys
import threading
import unittest

ROOT = os.path.abspath(f"{os.path.dirname(__file__)}/../..")
sys.path.insert(0, f"{ROOT}/demo")

from cluster import IMAGE, Cluster  # noqa: E402
from demo import Walk  # noqa: E402
from kit.installed import VERSION  # noqa: E402
from kit.kube import ApiError  # noqa: E402
from kit.node import GATEWAY, lacks  # noqa: E402
from kit.waiting import wait_until  # noqa: E402
from report import Report  # noqa: E402

ORDINARY = 65534
REQUEST = b"GET / HTTP/1.0\r\n\r\n"
NODE_PORT = 30080  # of the Service backend


def pod(name, container=None, labels=None, **spec):
    return {"kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"app": name, **(labels or {})}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [
                {"name": "app", "image": IMAGE, "command": ["sleep", "infinity"], "securityContext": {"runAsUser": ORDINARY}, **(container or {})}], **spec}}


# ctest: stage cluster
# ctest: release only
# ctest: timeout 600
class ClusterTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if missing := lacks():
            raise unittest.SkipTest(f"no Kubernetes node can run here; what is missing: {missing}")
        cls.cluster = Cluster(f"ct{os.getpid()}", f"{ROOT}/demo/manifests")
        cls.addClassCleanup(cls.cluster.close)
        cls.node, cls.postern, cls.api = cls.cluster.node, cls.cluster.postern, cls.cluster.api

    def setUp(self):
        self.cluster.look()

    def made(self, item):
        """Creates a pod; it goes with the test."""
        self.addCleanup(self.api.delete, "Pod", item["metadata"]["name"], "default", missing_ok=True)
        return self.api.create(item)

    def policies(self, *frontend):
        self.cluster.adopt(*frontend)()

    def curl(self, source, url, *options):
        """What curl says in that pod's container; None if it got no answer."""
        done = self.cluster.pods[source].exec("curl", "-sS", "--max-time", "10", *options, url)
        return done.stdout if done.returncode == 0 else None

    def test_the_demos_table(self):
        out = io.StringIO()
        report = Report(out, full_records=False)
        Walk(self.cluster, report).all()
        self.assertGreater(report.rows, 20)
        self.assertEqual(report.different, 0, out.getvalue())

    def test_the_sidecar_is_there_before_and_after_the_application(self):
        for name, at in self.cluster.pods.items():
            with self.subTest(name):
                self.assertEqual([c["name"] for c in at.item["spec"]["initContainers"]][:2], ["postern-redirect", "postern-proxy"])
                statuses = {s["name"]: s for s in at.item["status"]["initContainerStatuses"]}
                redirect, sidecar = statuses["postern-redirect"]["state"]["terminated"], statuses["postern-proxy"]
                self.assertEqual(redirect["exitCode"], 0)
                self.assertTrue(sidecar["started"] and sidecar["ready"])
                self.assertLessEqual(redirect["finishedAt"], sidecar["state"]["running"]["startedAt"])
                for container in at.item["status"]["containerStatuses"]:
                    self.assertLessEqual(sidecar["state"]["running"]["startedAt"], container["state"]["running"]["startedAt"])

    def test_an_init_container_has_the_network_already(self):
        """The first thing that a pod does is let through as its policies say, and nothing else is."""
        self.policies("frontend-allow")
        self.api.policy({"metadata": {"name": "early-egress", "namespace": "default"}, "spec": {
            "podSelector": {"matchLabels": {"app": "early"}}, "policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": {}}]}]}})
        self.addCleanup(self.api.delete, "NetworkPolicy", "early-egress", "default")
        script = "curl -sS --max-time 10 http://frontend:8000/ && ! curl -sS --max-time 10 http://backend/catalogue"
        self.made(pod("early", initContainers=[{"name": "first", "image": IMAGE, "command": ["sh", "-c", script], "securityContext": {"runAsUser": ORDINARY}}]))
        early = self.postern.pod("default", "app=early")
        self.assertIn("frontend: welcome", early.output("first"))
        self.assertEqual([s["restartCount"] for s in early.item["status"]["initContainerStatuses"]], [0, 0, 0])

    def test_probes_pass_and_say_how_it_is(self):
        for name, at in self.cluster.pods.items():
            statuses = at.item["status"]["initContainerStatuses"] + at.item["status"]["containerStatuses"]
            self.assertEqual([s["restartCount"] for s in statuses], [0] * len(statuses), name)
        frontend = self.cluster.pods["frontend"]
        probe = frontend.item["spec"]["containers"][0]["readinessProbe"]["httpGet"]
        self.assertEqual((probe["path"], probe["port"]), ("/app-probe/http/80/", 15020))
        self.assertEqual(frontend.records(**{"policy.basis": "node_probe"}), [])
        # Asked through the sidecar, a tcpSocket probe says whether the application listens: every handshake with a redirect succeeds.
        for name, probe in (("deaf", {"tcpSocket": {"port": 8080}}), ("deaf-http", {"httpGet": {"path": "/?full=1", "port": 8080}})):
            with self.subTest(name):
                self.made(pod(name, {"readinessProbe": {**probe, "periodSeconds": 1}}))
                def probed(name=name):
                    events = [e for e in self.api.list("Event", "default") if e["regarding"].get("name") == name and e["reason"] == "Unhealthy"]
                    return any("app-probe" in e.get("note", "") or "503" in e.get("note", "") for e in events)
                wait_until(probed, 60, lambda name=name: f"its probe to fail:\n{self.postern.explain('default', f'app={name}')}", interval=0.3)
                self.assertEqual(self.postern.pods("default", f"app={name}"), [])
                self.node.kubectl("exec", name, "-c", "app", "--", "sh", "-c", "cd /tmp && python3 -m http.server 8080 >/dev/null 2>&1 &")
                self.postern.pod("default", f"app={name}", 30)

    def test_hooks_go_through_the_sidecar(self):
        """A postStart that nobody answers fails the container; one that is answered, whatever the status, lets it start."""
        serve = ["sh", "-c", "cd /tmp && exec python3 -m http.server 8080"]
        hook = {"httpGet": {"path": "/nothing-here", "port": 8080}}
        self.made(pod("hooked", {"command": ["sleep", "infinity"], "lifecycle": {"postStart": hook}}))
        def failed():
            return [e for e in self.api.list("Event", "default") if e["regarding"].get("name") == "hooked" and e["reason"] == "FailedPostStartHook"]
        wait_until(failed, 60, lambda: f"its hook to fail:\n{self.postern.explain('default', 'app=hooked')}", interval=0.3)
        # The kubelet runs the hook at the same time as the container's command: the init container's server is there before.
        first = {"name": "server", "image": IMAGE, "command": serve, "restartPolicy": "Always", "securityContext": {"runAsUser": ORDINARY},
                 "startupProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}}
        self.made(pod("answered", {"lifecycle": {"postStart": hook}}, initContainers=[first]))
        self.postern.pod("default", "app=answered", 60)

    def from_node(self, address, port):
        """What a request of the node itself is answered. A refusal may come sooner than connect() returns."""
        try:
            with contextlib.closing(self.cluster.net.pods["node"].connect(address, port)) as s:
                s.sendall(REQUEST)
                return s.recv(4096)
        except ConnectionResetError:
            return b""

    def isolated(self, name, container):
        """A pod that serves HTTP at 8080, and which no policy lets anybody reach."""
        self.api.policy({"metadata": {"name": f"{name}-isolated", "namespace": "default"},
                         "spec": {"podSelector": {"matchLabels": {"app": name}}, "policyTypes": ["Ingress"]}})
        self.addCleanup(self.api.delete, "NetworkPolicy", f"{name}-isolated", "default")
        return self.made(pod(name, {"command": ["sh", "-c", "cd /tmp && exec python3 -m http.server 8080"], **container}))

    def refused_to_node(self, at, port):
        """The node's connection is refused, and its record says so."""
        before = len(at.records(direction="inbound", verdict="DROPPED"))
        self.assertEqual(self.from_node(at.v4, port), b"")
        record = wait_until(lambda: at.records(direction="inbound", verdict="DROPPED")[before:], 10, f"the refusal at {at.v4}")[0]
        self.assertIn(record["source.address"], (GATEWAY, self.cluster.net.pods["node"].v4))

    def test_the_node_reaches_no_port_but_of_grpc_probes(self):
        for name, port in (("backend", 8080), ("database", 6379)):
            self.refused_to_node(self.cluster.pods[name], port)
        self.isolated("probed", {"readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}})
        self.refused_to_node(self.postern.pod("default", "app=probed", 60), 8080)
        # No server of gRPC is needed for this: its port is named.
        self.isolated("remote", {"livenessProbe": {"grpc": {"port": 8080}, "failureThreshold": 100}})
        remote = self.postern.pod("default", "app=remote", 60)
        wait_until(lambda: b"200" in self.from_node(remote.v4, 8080), 30, "the port of a grpc probe to be reached")

    def test_the_intruder_is_refused_at_the_port_of_an_http_get_probe_through_the_nodes_port(self):
        self.isolated("probed", {"readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}})
        probed, intruder, node = self.postern.pod("default", "app=probed", 60), self.cluster.pods["intruder"], self.cluster.net.pods["node"]
        self.api.create({"kind": "Service", "metadata": {"name": "probed", "namespace": "default"}, "spec": {
            "type": "NodePort", "selector": {"app": "probed"}, "ports": [{"port": 80, "targetPort": 8080, "nodePort": NODE_PORT + 1}]}})
        self.addCleanup(self.api.delete, "Service", "probed", "default")
        def refused():
            done = intruder.run(["curl", "-sS", "--max-time", "10", f"http://{node.v4}:{NODE_PORT + 1}/"], uid=1337)
            self.assertNotEqual(done.returncode, 0, done.stdout)
            return probed.records(direction="inbound", verdict="DROPPED")
        record = wait_until(refused, 30, "kube-proxy to lead to the pod, and the refusal there")[0]
        self.assertIn(record["source.address"], (GATEWAY, node.v4))
        self.assertEqual(record["destination.port"], 8080)
        self.assertEqual(self.postern.pod("default", "app=probed").item["status"]["phase"], "Running")

    def test_the_intruder_is_refused_through_the_nodes_port(self):
        intruder, backend, node = self.cluster.pods["intruder"], self.cluster.pods["backend"], self.cluster.net.pods["node"]
        accepted = self.cluster.accepted_by_backend()
        self.assertIsNone(self.curl("intruder", f"http://{node.v4}:{NODE_PORT}/catalogue"))
        # Past its own sidecar: kube-proxy masquerades it, and backend sees the node's address.
        before = len(backend.records(direction="inbound", verdict="DROPPED"))
        done = intruder.run(["curl", "-sS", "--max-time", "10", f"http://{node.v4}:{NODE_PORT}/catalogue"], uid=1337)
        self.assertNotEqual(done.returncode, 0, done.stdout)
        record = wait_until(lambda: backend.records(direction="inbound", verdict="DROPPED")[before:], 10, "the refusal at backend")[0]
        self.assertIn(record["source.address"], (GATEWAY, node.v4))
        self.assertEqual(self.cluster.accepted_by_backend(), accepted)

    def test_a_cluster_ip_counts_by_its_target_port(self):
        """The policies name the ports that pods listen on; the Services have others."""
        self.policies("frontend-allow")
        self.assertIn("small door", self.curl("frontend", "http://backend/catalogue"))
        to_backend = {"direction": "outbound", "destination.k8s.pod": self.cluster.names["backend"]}
        record = wait_until(lambda: self.cluster.pods["frontend"].records(**to_backend), 10, "frontend's record of it")[-1]
        self.assertEqual(record["verdict"], "FORWARDED")
        self.assertIn("frontend: welcome", self.curl("intruder", "http://frontend:8000/"))
        self.assertIsNone(self.curl("intruder", "http://backend/catalogue"))
        self.assertIsNone(self.curl("frontend", "http://database:6379/"))

    def test_a_job_completes(self):
        self.policies("frontend-allow")
        self.api.policy({"metadata": {"name": "job-egress", "namespace": "default"}, "spec": {
            "podSelector": {"matchLabels": {"app": "once"}}, "policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "frontend"}}}]}]}})
        self.addCleanup(self.api.delete, "NetworkPolicy", "job-egress", "default")
        container = {"name": "app", "image": IMAGE, "command": ["curl", "-sSf", "--max-time", "10", "http://frontend:8000/"], "securityContext": {"runAsUser": ORDINARY}}
        self.api.create({"kind": "Job", "metadata": {"name": "once", "namespace": "default"}, "spec": {"backoffLimit": 0, "template": {
            "metadata": {"labels": {"app": "once"}}, "spec": {"restartPolicy": "Never", "containers": [container]}}}})
        self.addCleanup(self.node.kubectl, "delete", "job", "once", "--wait=false")
        def look():
            conditions = {c["type"] for c in self.api.get("Job", "once", "default").get("status", {}).get("conditions", []) if c["status"] == "True"}
            return conditions & {"Complete", "Failed"}
        self.assertEqual(wait_until(look, 60, lambda: self.postern.explain("default", "app=once"), interval=0.2), {"Complete"}, self.postern.explain("default", "app=once"))
        status = self.api.list("Pod", "default", labelSelector="app=once")[0]["status"]
        self.assertEqual(status["phase"], "Succeeded")
        self.assertEqual(status["initContainerStatuses"][1]["state"]["terminated"]["exitCode"], 0)

    def test_a_rolling_update_fails_no_request(self):
        self.policies("frontend-allow-refined")
        self.node.kubectl("scale", "deployment/frontend", "--replicas=2")
        self.node.kubectl("rollout", "status", "deployment/frontend", "--timeout=90s", deadline=100)
        self.addCleanup(self.node.kubectl, "rollout", "status", "deployment/frontend", "--timeout=90s", deadline=100)
        self.addCleanup(self.node.kubectl, "scale", "deployment/frontend", "--replicas=1")
        service = self.api.get("Service", "frontend", "default")["spec"]["clusterIP"]
        ingress, done, failed, answered = self.cluster.pods["ingress-nginx"], threading.Event(), [], []

        def ask():
            while not done.is_set():
                try:
                    with ingress.connect(service, 8000) as s:
                        s.sendall(REQUEST)
                        answer = b""
                        while more := s.recv(4096):
                            answer += more
                    (answered if answer.endswith(b"frontend: welcome\n") else failed).append(answer)
                except OSError as error:
                    failed.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            wait_until(lambda: answered, 10, "the first answer")
            before = {i["metadata"]["uid"] for i in self.api.list("Pod", "default", labelSelector="app=frontend")}
            self.node.kubectl("rollout", "restart", "deployment/frontend")
            self.node.kubectl("rollout", "status", "deployment/frontend", "--timeout=120s", deadline=130)
            gone = lambda: not before & {i["metadata"]["uid"] for i in self.api.list("Pod", "default", labelSelector="app=frontend")}
            wait_until(gone, 90, "the old pods to be gone", interval=0.2)
        finally:
            done.set()
            thread.join()
        self.assertEqual(failed, [], f"{len(failed)} of {len(answered) + len(failed)} requests")
        self.assertGreater(len(answered), 50)

    def test_helm_test_says_that_all_is_well(self):
        self.addCleanup(self.api.delete, "Pod", "postern-check", "postern-system", missing_ok=True)
        done = self.postern.helm("test", "postern", "--logs", "--timeout", "120s", check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertRegex(done.stdout, r"(?m)^0 error\(s\)")
        left = [item["metadata"]["name"] for kind in ("ClusterRole", "ClusterRoleBinding") for item in self.api.list(kind)]
        self.assertNotIn("postern-check", left, "its rights go with it")

    def node_check_text(self):
        return "\n".join(finding["text"] for finding in self.postern.check()["findings"])

    def test_check_knows_every_sidecar_and_asks_those_that_are_cut_off(self):
        self.policies("frontend-allow")
        said = self.postern.check()
        self.assertEqual([f for f in said["findings"] if f["level"] == "error"], [])
        ours = {f"{at.k8s_namespace}/{at.name}" for at in self.cluster.pods.values()}
        rows = {row["pod"]: (row["version"], row["state"], row["policyAgeSeconds"]) for row in said["sidecars"]}
        self.assertEqual({pod: rows.get(pod) for pod in ours}, dict.fromkeys(ours, (VERSION, "enforced", 0)))
        intruder = self.cluster.pods["intruder"]
        cut = ["OUTPUT", "-p", "tcp", "--dport", "15010", "-j", "REJECT", "--reject-with", "tcp-reset"]
        intruder.run(["iptables", "-w", "-I", *cut], check=True)
        try:
            def look():
                row = next(row for row in self.postern.check()["sidecars"] if row["pod"] == f"default/{intruder.name}")
                return row["state"] == "disconnected" and (row.get("policyAgeSeconds") or 0) > 0
            wait_until(look, 90, lambda: f"the sidecar's own word of its policies' age:\n{self.postern.check()}", interval=0.5)
            self.assertRegex(self.node_check_text(), rf"no stream to the control plane.*default/{intruder.name} \(confirmed \d+ s ago\)")
        finally:
            intruder.run(["iptables", "-w", "-D", *cut], check=True)
        wait_until(lambda: not [f for f in self.postern.check()["findings"] if f["level"] == "error"], 90, lambda: f"{self.postern.check()}", interval=0.5)

    def test_without_the_control_plane_nothing_changes_but_no_pod_is_made(self):
        self.policies("frontend-allow")
        self.node.kubectl("scale", "-n", "postern-system", "deployment/postern-control", "--replicas=0")
        try:
            control = lambda: self.api.list("Pod", "postern-system", labelSelector="app.kubernetes.io/component=control")
            wait_until(lambda: not control(), 60, "postern-control to be gone", interval=0.2)
            with self.assertRaises(ApiError) as caught:
                self.made(pod("late"))
            self.assertIn("failed calling webhook", str(caught.exception))
            self.assertIn("frontend: welcome", self.curl("intruder", "http://frontend:8000/"))
            self.assertIsNone(self.curl("intruder", "http://backend/catalogue"))
            self.assertIn("small door", self.curl("frontend", "http://backend/catalogue"))
        finally:
            self.node.kubectl("scale", "-n", "postern-system", "deployment/postern-control", "--replicas=1")
            self.postern.control()
        # It compiles anew what the sidecars have; until they are told of a change they have been let down by nobody.
        self.assertIn("frontend: welcome", self.curl("intruder", "http://frontend:8000/"))
        self.policies("frontend-allow-refined")
        self.assertIsNone(self.curl("intruder", "http://frontend:8000/"))
        self.made(pod("late"))
        self.postern.pod("default", "app=late")


if __name__ == "__main__":
    unittest.main()
