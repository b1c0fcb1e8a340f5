"""The injector, end to end: a real API server, the chart's own manifests (tests/chart/default.yaml), postern-control with the rights that they give it."""

import copy
import http.client
import json
import pathlib
import socket
import ssl
import tempfile
import unittest
import uuid

import yaml

from kit.control import Control
from kit.kube import ApiError, KubeServer
from kit.pki import Authority
from kit.waiting import patience, wait_until

MANIFESTS = pathlib.Path(__file__).resolve().parents[1] / "chart/default.yaml"
ACCOUNT = "system:serviceaccount:postern-system:postern-control"
WEBHOOKS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pod(namespace, *, labels=None, annotations=None, container=None, **spec):
    """A pod that is not there yet, by a name of its own. It names its account: the admission plugin that would is off."""
    return {"kind": "Pod", "metadata": {"name": f"pod-{uuid.uuid4().hex[:8]}", "namespace": namespace, "labels": labels or {},
                                        "annotations": annotations or {}},
            "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "image": "app", **(container or {})}], **spec}}


class InjectCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="postern-inject-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        cls.kube = KubeServer(f"{cls.folder}/kube", start=False)
        token = cls.kube.add_user(ACCOUNT)
        cls.kube.start()
        cls.addClassCleanup(cls.kube.stop)
        cls.api = cls.kube.api()
        for name, labels in (("postern-system", {}), ("shop", {"postern.dev/inject": "enabled"}), ("plain", {}), ("late", {})):
            cls.api.namespace(name, labels)
        cls.authority = Authority(f"{cls.folder}/ca", "cluster.local")
        cls.manifests = [item for item in yaml.safe_load_all(MANIFESTS.read_text(encoding="utf-8")) if item]
        cls.kubeconfig = cls.kube.write_kubeconfig("control", token)
        cls.port = free_port()
        for item in cls.manifests:
            if item["kind"] in ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding") or item["metadata"]["name"] == "postern" and item["kind"] == "ConfigMap":
                cls.api.apply(item)
        cls.register(cls.port)
        cls.control = cls.replica("control", cls.port)
        cls.control.start()
        cls.addClassCleanup(cls.control.kill)

    @classmethod
    def register(cls, port):
        """The chart's webhooks; only where they are called is the test's: nothing routes a Service here."""
        for item in copy.deepcopy(cls.manifests):
            if item["kind"] in WEBHOOKS:
                for webhook in item["webhooks"]:
                    path = webhook["clientConfig"].pop("service")["path"]
                    webhook["clientConfig"]["url"] = f"https://localhost:{port}{path}"
                cls.api.apply(item)

    @classmethod
    def replica(cls, name, port):
        """A replica with the chart's own injection settings."""
        settings = next(item for item in cls.manifests if item["kind"] == "ConfigMap" and item["metadata"]["name"] == "postern-control")
        path = pathlib.Path(cls.folder) / f"{name}-injection.yaml"
        path.write_text(settings["data"]["injection.yaml"], encoding="utf-8")
        return Control(f"{cls.folder}/{name}", cls.kubeconfig, cls.authority, uid=0, replica=name,
                       config={"listen": {"webhook": port}, "webhook": {"settings": str(path)}})

    def create(self, item, **query):
        path = self.api.path("Pod", None, item["metadata"]["namespace"], fieldValidation="Strict", **query)
        return self.api.request("POST", path, {"apiVersion": "v1", **item})

    def refused(self, item, *words):
        with self.assertRaises(ApiError) as caught:
            self.create(item)
        for word in words:
            self.assertIn(word, str(caught.exception))
        return caught.exception

    def assert_injected(self, made):
        spec = made["spec"]
        self.assertEqual([c["name"] for c in spec["initContainers"]][:2], ["postern-redirect", "postern-proxy"])
        self.assertEqual(spec["initContainers"][1]["restartPolicy"], "Always")
        self.assertEqual(made["metadata"]["annotations"]["postern.dev/injected"], "true")
        self.assertLessEqual({"postern-state", "postern-token"}, {v["name"] for v in spec["volumes"]})

    def assert_untouched(self, made):
        self.assertNotIn("initContainers", made["spec"])
        self.assertNotIn("postern.dev/injected", made["metadata"].get("annotations", {}))

    def metric(self, name, **labels):
        return self.control.metric(name, **labels)


class InjectionTest(InjectCase):
    """What becomes of pods that are made through the API."""

    def test_a_pod_comes_back_injected(self):
        made = self.create(pod("shop", container={
            "ports": [{"name": "web", "containerPort": 8080}], "readinessProbe": {"tcpSocket": {"port": "web"}},
            "livenessProbe": {"httpGet": {"path": "/live", "port": "web"}}}))
        self.assert_injected(made)
        app = made["spec"]["containers"][0]
        self.assertEqual(app["securityContext"]["capabilities"]["drop"], ["NET_RAW"])
        self.assertEqual(app["readinessProbe"]["httpGet"], {"path": "/app-probe/8080", "port": 15020, "scheme": "HTTP"})
        self.assertEqual(app["livenessProbe"]["httpGet"], {"path": "/app-probe/http/8080/live", "port": 15020, "scheme": "HTTP"})
        redirect, sidecar = made["spec"]["initContainers"]
        self.assertEqual(redirect["securityContext"]["capabilities"]["add"], ["NET_ADMIN", "NET_RAW"])
        self.assertEqual(sidecar["securityContext"]["runAsUser"], 1337)
        self.assertEqual(sidecar["securityContext"]["capabilities"], {"drop": ["ALL"]})
        config = json.loads(next(e["value"] for e in sidecar["env"] if e["name"] == "POSTERN_CONFIG"))
        self.assertIn("BEGIN CERTIFICATE", config["identity"]["controlPlane"]["roots"])
        self.assertEqual(config["control"]["addresses"], ["postern-control.postern-system.svc:15010"])

    def test_a_pod_whose_name_the_server_makes_up(self):
        item = pod("shop")
        item["metadata"]["generateName"] = item["metadata"].pop("name") + "-"
        self.assert_injected(self.create(item))

    def test_a_dry_run_says_the_same_and_keeps_nothing(self):
        item = pod("shop")
        self.assert_injected(self.create(item, dryRun="All"))
        with self.assertRaises(ApiError):
            self.api.get("Pod", item["metadata"]["name"], "shop")

    def test_elsewhere_nothing_is_touched(self):
        self.assert_untouched(self.create(pod("plain")))
        self.assert_injected(self.create(pod("plain", labels={"postern.dev/inject": "enabled"})))

    def test_who_is_left_alone(self):
        self.assert_untouched(self.create(pod("shop", labels={"postern.dev/inject": "disabled"})))
        self.assert_untouched(self.create(pod("shop", hostNetwork=True)))

    def test_a_bad_value_denies_the_pod_and_names_itself(self):
        for name, value, remedy in (("mtls", "lax", "strict, permissive or spiffe"), ("exclude-inbound-ports", "http", "port numbers"),
                                    ("log-level", "all", "debug, info"), ("memory-limit", "much", "quantity"), ("drain-period", "20", "duration"),
                                    ("exclude-cidrs", "10.0.0.1", "CIDR"), ("proxy-image", "evil:1", "permits no other")):
            error = self.refused(pod("shop", annotations={f"postern.dev/{name}": value}), f"postern.dev/{name}", remedy)
            self.assertEqual(error.code, 403)
        self.refused(pod("shop", labels={"postern.dev/inject": "yes"}), "postern.dev/inject", "enabled")

    def test_what_could_get_around_the_sidecar_is_denied(self):
        for context in ({"privileged": True}, {"capabilities": {"add": ["NET_ADMIN"]}}, {"runAsUser": 1337}):
            self.refused(pod("shop", container={"securityContext": context}), "could get around its sidecar")
        self.refused(pod("shop", shareProcessNamespace=True), "shareProcessNamespace")

    def test_a_forged_sidecar_is_replaced(self):
        made = self.create(pod("shop", annotations={"postern.dev/injected": "true"},
                               initContainers=[{"name": "postern-proxy", "image": "evil", "restartPolicy": "Always"}]))
        self.assert_injected(made)
        self.assertTrue(made["spec"]["initContainers"][1]["image"].startswith("postern/postern-proxy:"))
        self.assertEqual(len(made["spec"]["initContainers"]), 2)

    def test_reviews_are_counted(self):
        before = self.metric("postern_control_admission_reviews_total", outcome="injected")
        self.create(pod("shop"))
        self.assertEqual(self.metric("postern_control_admission_reviews_total", outcome="injected"), before + 1)


class ValidationTest(InjectCase):
    """What other webhooks and later changes do to a pod."""

    def test_a_pod_that_the_injector_was_not_asked_about(self):
        self.api.delete("MutatingWebhookConfiguration", "postern")
        self.addCleanup(self.again)
        # The API server learns of it in its own time; until then the pod comes back injected.
        def look():
            try:
                self.create(pod("shop"))
            except ApiError as error:
                return str(error)
            return None
        self.assertIn("not as the injector made it", wait_until(look, 30, "a pod refused by validation"))
        self.assert_untouched(self.create(pod("plain")))

    def again(self):
        self.register(self.port)
        def look():
            try:
                self.create(pod("shop"))
            except ApiError:
                return False
            return True
        wait_until(look, 60, "pods injected again")

    def test_ephemeral_containers(self):
        name = self.create(pod("shop"))["metadata"]["name"]
        def debug(**more):
            made = self.api.get("Pod", name, "shop")
            container = {"name": f"debug-{uuid.uuid4().hex[:6]}", "image": "busybox", **more}
            changes = {"spec": {"ephemeralContainers": [*made["spec"].get("ephemeralContainers", []), container]}}
            return self.api.patch("Pod", name, changes, "shop", "ephemeralcontainers")
        with self.assertRaises(ApiError) as caught:
            debug(securityContext={"capabilities": {"add": ["SYS_PTRACE"]}})
        self.assertIn("SYS_PTRACE", str(caught.exception))
        with self.assertRaises(ApiError):
            debug(targetContainerName="postern-proxy")
        self.assertEqual(len(debug(targetContainerName="app")["spec"]["ephemeralContainers"]), 1)


# ctest: timeout 300
class WebhookTest(InjectCase):
    """The webhook itself: away, attacked, its certificate renewed; and pods that it missed."""

    def bundle(self, kind="MutatingWebhookConfiguration"):
        return {webhook["clientConfig"].get("caBundle") for webhook in self.api.get(kind, "postern")["webhooks"]}

    def test_without_the_webhook_labelled_pods_are_refused_and_others_are_not(self):
        self.control.kill()
        try:
            self.refused(pod("shop"), "failed calling webhook")
            self.refused(pod("plain", labels={"postern.dev/inject": "enabled"}), "failed calling webhook")
            self.assert_untouched(self.create(pod("plain")))
            self.assert_untouched(self.create(pod("kube-system", labels={"postern.dev/inject": "enabled"})))
            self.assert_untouched(self.create(pod("postern-system", labels={"postern.dev/inject": "enabled"})))
        finally:
            self.control.start()
        self.assert_injected(self.create(pod("shop")))

    def test_every_entry_trusts_one_authority(self):
        for kind in WEBHOOKS:
            self.assertEqual(len(self.bundle(kind)), 1)
            self.assertNotIn(None, self.bundle(kind))

    def test_replicas_share_the_authority_and_renewal_refuses_nobody(self):
        import base64  # pylint: disable=import-outside-toplevel
        port = free_port()
        second = self.replica("second", port)
        second.start()
        self.addCleanup(second.kill)
        before = next(iter(self.bundle()))
        self.api.delete("Secret", "postern-webhook", "postern-system")
        def look():
            self.assert_injected(self.create(pod("shop")))
            return all(before not in self.bundle(kind) and None not in self.bundle(kind) for kind in WEBHOOKS)
        wait_until(look, 60, "another authority announced", interval=0.2)
        pem = base64.b64decode(next(iter(self.bundle()))).decode()
        self.assertEqual(pem.count("BEGIN CERTIFICATE"), 2, "the one before is trusted, too")
        secret = base64.b64decode(self.api.get("Secret", "postern-webhook", "postern-system")["data"]["ca.crt"]).decode()
        for one in (self.port, port):
            context = ssl.create_default_context(cadata=secret)
            def handshake(one=one, context=context):
                try:
                    with socket.create_connection(("localhost", one), patience(5)) as raw, context.wrap_socket(raw, server_hostname="localhost"):
                        return True
                except ssl.SSLError:
                    return False
            wait_until(handshake, 60, f"the replica at {one} serving under the new authority")
        self.assert_injected(self.create(pod("shop")))

    def test_what_is_forged_or_too_long_changes_nothing(self):
        def post(body, path="/inject", method="POST"):
            connection = http.client.HTTPSConnection("localhost", self.port, timeout=patience(10), context=ssl._create_unverified_context())
            try:
                connection.request(method, path, body, {"Content-Type": "application/json"})
                return connection.getresponse().status
            finally:
                connection.close()
        self.assertEqual(post(b"{}"), 400)
        self.assertEqual(post(b"[" * 100_000), 400)
        self.assertEqual(post(json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "x"}})), 400)
        self.assertEqual(post(b"{}", path="/metrics"), 404)
        self.assertEqual(post(None, method="GET"), 405)
        try:
            self.assertEqual(post(b" " * (9 << 20)), 413)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            pass  # it was answered before all of it was sent
        self.assertGreaterEqual(self.metric("postern_control_admission_reviews_total", outcome="malformed"), 3)
        self.assert_injected(self.create(pod("shop")))

    def test_a_pod_that_should_have_a_sidecar_and_has_none_is_reported(self):
        made = self.create(pod("late"))
        self.api.label("Namespace", "late", {"postern.dev/inject": "enabled"})
        self.addCleanup(lambda: self.api.label("Namespace", "late", {"postern.dev/inject": None}))
        event = self.api.wait_event("late", "NoSidecar", 30)
        self.assertEqual(event["regarding"]["name"], made["metadata"]["name"])
        wait_until(lambda: self.metric("postern_control_pods_without_sidecar") == 1, 30, "one pod without its sidecar")
        self.api.delete("Pod", made["metadata"]["name"], "late")
        wait_until(lambda: self.metric("postern_control_pods_without_sidecar") == 0, 30, "no pod without its sidecar")


if __name__ == "__main__":
    unittest.main()
