"""What the chart and the injector make, started as it stands there: postern-control with the chart's ConfigMap, sidecars with the specs that the webhook
wrote, from the images' files. And what posternctl check says of it."""

import base64
import json
import os
import pathlib
import shutil
import ssl
import tempfile
import time
import unittest

from kit.cluster import App, knock, policy
from kit.installed import VERSION
from kit.pki import openssl
from kit.processes import run
from kit.rendered import SYSTEM, WEBHOOKS, InstalledMesh
from kit.sidecar import program
from kit.waiting import wait_until

PORT = 7000


class InstalledCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mesh = InstalledMesh()
        cls.addClassCleanup(cls.mesh.close)
        cls.api = cls.mesh.api


# ctest: release only
# ctest: timeout 240
class InjectedSidecarTest(InstalledCase):
    """Chart, injector and sidecar fit together."""

    def test_injected_pods_get_their_identity_and_policies(self):
        web, api = self.mesh.run("web"), self.mesh.run("api", ports=[PORT])
        app = App(api, PORT)
        self.addCleanup(app.close)
        self.assertEqual(knock(web, api.v4, PORT, b"ping")[1], b"ping")
        adopted = next(json.loads(line) for line in self.mesh.sidecars["api"].output().splitlines() if '"identity_adopted"' in line)
        self.assertEqual(adopted["spiffe_id"], f"spiffe://cluster.local/ns/shop/sa/default/pod/api/{self.mesh.made['api']['metadata']['uid']}")
        self.api.policy(policy("api-closed", ns="shop", app="api", ingress=[]))
        wait_until(lambda: knock(web, api.v4, PORT, b"ping")[1] == "reset", 20, "the policy in force")
        self.assertTrue(self.mesh.sidecars["api"].alive())


# ctest: release only
# ctest: timeout 240
class CertificateFilesTest(unittest.TestCase):
    """webhook.certificateSecret and webhook.caInjection: cert-manager's files, and nothing of the control plane's own."""

    def test_the_mounted_files_are_served_and_renewed(self):
        temporary = tempfile.TemporaryDirectory(prefix="postern-certificate-")
        self.addCleanup(temporary.cleanup)
        folder = temporary.name
        make_certificate(folder)
        authority = json.loads(run([program("posternctl"), "ca", "init", "--trust-domain", "cluster.local"], check=True).stdout)
        authority["metadata"]["name"] = "mesh-ca"  # authority.givenSecret
        mesh = InstalledMesh("everything.yaml", certificate=folder, secrets=[authority])
        self.addCleanup(mesh.close)
        self.assertEqual(mesh.create("web")["metadata"]["annotations"]["postern.dev/injected"], "true")
        given = base64.b64encode(pathlib.Path(folder, "ca.crt").read_bytes()).decode()
        for kind in WEBHOOKS:
            item = mesh.api.get(kind, "postern")
            self.assertEqual({webhook["clientConfig"]["caBundle"] for webhook in item["webhooks"]}, {given})
        self.assertNotIn("postern-webhook", [item["metadata"]["name"] for item in mesh.api.list("Secret", SYSTEM)])
        before = served(mesh)
        make_certificate(folder, renew=True)
        wait_until(lambda: served(mesh) != before, 30, "the renewed certificate served")
        self.assertEqual(served(mesh), ssl.PEM_cert_to_DER_cert(pathlib.Path(folder, "tls.crt").read_text(encoding="ascii")))
        mesh.create("again")


def make_certificate(folder, renew=False):
    """ca.crt, tls.crt and tls.key, as a Secret of cert-manager has them."""
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    with tempfile.TemporaryDirectory() as made:
        if not renew:
            openssl("req", "-x509", *new_key, "-days", "2", "-subj", "/CN=test", "-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.crt")
        openssl("req", "-new", *new_key, "-subj", "/CN=webhook", "-keyout", f"{made}/tls.key", "-out", f"{made}/csr")
        pathlib.Path(made, "ext").write_text("subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n", encoding="ascii")
        openssl("x509", "-req", "-in", f"{made}/csr", "-CA", f"{folder}/ca.crt", "-CAkey", f"{folder}/ca.key", "-set_serial", str(time.monotonic_ns()),
                "-days", "1", "-extfile", f"{made}/ext", "-out", f"{made}/tls.crt")
        for name in ("tls.key", "tls.crt"):
            os.chmod(f"{made}/{name}", 0o644)
            shutil.move(f"{made}/{name}", f"{folder}/{name}")
    os.chmod(folder, 0o755)


def served(mesh):
    """The certificate of the webhook's port, DER."""
    context = ssl._create_unverified_context()
    with mesh.home.connect(mesh.home.v4, 15017) as raw, context.wrap_socket(raw) as tls:
        return tls.getpeercert(binary_form=True)


# ctest: release only
# ctest: timeout 240
class CheckTest(InstalledCase):
    """posternctl check: all well, and a finding of each kind with its remedy."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        deployment = cls.mesh.object("Deployment", "postern-control")
        path = f"/apis/apps/v1/namespaces/{SYSTEM}/deployments"
        cls.api.request("POST", path, deployment)
        cls.ready(1)
        cls.mesh.add_replica()
        cls.mesh.run("web")

    @classmethod
    def ready(cls, replicas):
        status = {"status": {"replicas": 1, "readyReplicas": replicas}}
        cls.api.request("PATCH", f"/apis/apps/v1/namespaces/{SYSTEM}/deployments/postern-control/status", status,
                        content_type="application/merge-patch+json")

    def check(self, *arguments, **options):
        status, found, done = self.mesh.check(*arguments, **options)
        for level, _, text, remedy in found:
            self.assertEqual(level == "ok", remedy == "", text)
        self.assertEqual(status, 1 if any(level == "error" for level, *_ in found) else 0, done.stdout + done.stderr)
        return found

    def assert_found(self, found, level, *words):
        self.assertTrue(any(its == level and all(word in text for word in words) for its, _, text, _ in found),
                        f"no {level} with {words} in:\n" + "\n".join(map(str, found)))

    def test_all_is_well(self):
        found = self.check()
        self.assertEqual([f for f in found if f[0] != "ok"], [])
        for words in (("version v1.",), ("1 of 1 replicas",), ("came back with its sidecar",), ("signing certificate", "valid until"),
                      ("1 pod(s) have a sidecar, all of them postern/postern-proxy:",), ("0 policies are in force",), ("no policy keeps",),
                      ("postern-control and this posternctl are of version",), ("as postern-control, with the newest policies",)):
            self.assert_found(found, "ok", *words)

    def sidecars(self):
        return {row["pod"]: row for row in json.loads(self.mesh.check()[2].stdout)["sidecars"]}

    def test_every_sidecars_version_policy_age_and_state(self):
        row = self.sidecars()["shop/web"]
        self.assertRegex(row["image"], "^postern/postern-proxy:")
        self.assertEqual((row["version"], row["state"], row["policyAgeSeconds"]), (VERSION, "enforced", 0))
        table = self.mesh.home.run([program("posternctl"), "check", "--sidecars", "--kubeconfig", self.mesh.kube.kubeconfig], check=True).stdout
        self.assertRegex(table, r"(?m)^pod +image +version +state +policyAgeSeconds")
        self.assertRegex(table, rf"(?m)^shop/web +postern/postern-proxy:\S+ +{VERSION} +enforced +0")

    def test_before_the_installation(self):
        found = self.check("--pre")
        self.assertEqual([f for f in found if f[0] != "ok"], [])
        self.assert_found(found, "ok", "you may make everything")

    def test_a_namespace_whose_pod_security_refuses_the_redirection(self):
        self.api.namespace("strict", {"postern.dev/inject": "enabled", "pod-security.kubernetes.io/enforce": "baseline"})
        self.addCleanup(self.api.delete_namespace, "strict")
        self.assert_found(self.check(), "error", "Pod Security level of strict is baseline")

    def test_old_kubelets(self):
        self.api.node("old")
        self.addCleanup(self.api.delete, "Node", "old")
        self.api.patch("Node", "old", {"status": {"nodeInfo": {"kubeletVersion": "v1.28.9", **{name: "" for name in (
            "machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion", "kubeProxyVersion", "operatingSystem",
            "architecture")}}}}, subresource="status")
        self.assert_found(self.check(), "error", "node old", "v1.28.9")
        self.assert_found(self.check("--pre"), "error", "node old")

    def test_isolated_pods_and_the_policy_that_helps(self):
        self.api.policy(policy("closed", ns="shop", egress=[]))
        self.addCleanup(self.api.delete, "NetworkPolicy", "closed", "shop")
        found = self.check()
        self.assert_found(found, "warning", "sidecars of shop", "closed", "web")
        remedy = next(f[3] for f in found if f[1] == "egress")
        self.api.apply(remedy)
        self.addCleanup(self.api.delete, "NetworkPolicy", "postern-sidecar", "shop")
        self.assert_found(self.check(), "ok", "no policy keeps")

    def test_pods_without_and_with_another_sidecar(self):
        settings = self.mesh.object("ConfigMap", "postern-control")
        newer = {"data": {**settings["data"], "injection.yaml": settings["data"]["injection.yaml"].replace("postern-proxy:", "postern-proxy:9")}}
        self.api.patch("ConfigMap", "postern-control", newer, SYSTEM)
        self.addCleanup(self.api.patch, "ConfigMap", "postern-control", {"data": settings["data"]}, SYSTEM)
        self.api.namespace("late")
        self.api.pod("early", "late", ["10.77.0.200"], meshed=False)
        self.api.label("Namespace", "late", {"postern.dev/inject": "enabled"})
        self.addCleanup(self.api.delete_namespace, "late")
        found = self.check()
        self.assert_found(found, "error", "have none: late/early")
        self.assert_found(found, "warning", "postern-proxy:9", "shop/web")

    def test_a_sidecar_without_a_stream(self):
        self.api.pod("alone", "default", ["10.77.0.201"], meshed=True)
        self.addCleanup(self.api.delete, "Pod", "alone", "default")
        self.api.policy(policy("alone", app="nobody", ingress=[]))
        self.addCleanup(self.api.delete, "NetworkPolicy", "alone", "default")
        def look():
            return any("no stream" in text and "default/alone" in text for _, _, text, _ in self.mesh.check()[1])
        wait_until(look, 20, "the sidecar without a stream")
        self.check()
        self.assertEqual(self.sidecars()["default/alone"]["state"], "disconnected")

    def test_the_webhook_does_not_answer(self):
        item = self.api.get("MutatingWebhookConfiguration", "postern")
        for webhook in item["webhooks"]:
            webhook["clientConfig"]["url"] = "https://localhost:1/inject"
        self.api.request("PUT", self.api.path("MutatingWebhookConfiguration", "postern"), item)
        self.addCleanup(self.again)
        def look():
            return any("failed calling webhook" in text for _, _, text, _ in self.mesh.check()[1])
        wait_until(look, 30, "a webhook that cannot be called")
        self.check()

    def test_a_webhook_configuration_that_is_gone(self):
        self.api.delete("ValidatingWebhookConfiguration", "postern")
        self.addCleanup(self.again)
        self.assert_found(self.check(), "error", "ValidatingWebhookConfiguration postern is not there")

    def again(self):
        self.mesh.register()
        wait_until(lambda: all(level == "ok" for level, *_ in self.mesh.check()[1]), 60, "all well again")

    def test_replicas_that_are_not_ready(self):
        self.ready(0)
        self.addCleanup(self.ready, 1)
        self.assert_found(self.check(), "error", "0 of 1 replicas")

    def test_somebody_who_may_little(self):
        self.api.create({"kind": "ServiceAccount", "metadata": {"name": "nobody", "namespace": "default"}})
        self.addCleanup(self.api.delete, "ServiceAccount", "nobody", "default")
        kubeconfig = self.mesh.kube.write_kubeconfig("nobody", self.mesh.token("default", "nobody"))
        found = self.check(kubeconfig=kubeconfig)
        self.assert_found(found, "warning", "you may not list pods")
        self.assert_found(found, "warning", "you may not create pods")
        self.assert_found(self.check("--pre", kubeconfig=kubeconfig), "error", "you may not create deployments.apps")

    def test_what_cannot_be_asked(self):
        status, _, done = self.mesh.check(kubeconfig="/nowhere")
        self.assertEqual(status, 2)
        self.assertIn("/nowhere", done.stderr)


if __name__ == "__main__":
    unittest.main()
