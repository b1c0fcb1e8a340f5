"""The chart's life at a real API server: helm install, upgrade and uninstall, beside a real postern-control."""

import os
import pathlib
import tempfile
import unittest
import uuid

from kit.control import Control
from kit.kube import ApiError, KubeServer
from kit.pods import Network
from kit.waiting import wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
HELM = os.environ.get("POSTERN_HELM", ROOT / "build/helm/helm")
SYSTEM = "postern-system"
WEBHOOKS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
DEPLOYMENT = f"/apis/apps/v1/namespaces/{SYSTEM}/deployments/postern-control"


# ctest: release only
# ctest: timeout 240
class HelmTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="postern-helm-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        net = Network()
        cls.addClassCleanup(net.close)
        cls.home = net.pod("kube")  # nothing answers here to the Service's name that the chart's webhooks have
        cls.kube = KubeServer(f"{cls.folder}/kube", pod=cls.home)
        cls.addClassCleanup(cls.kube.stop)
        cls.api = cls.kube.api()
        cls.api.namespace("shop", {"postern.dev/inject": "enabled"})
        cls.api.namespace("plain")

    def helm(self, *arguments):
        home = [f"{name}={self.folder}/helm" for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")]
        done = self.home.run(["env", *home, HELM, *arguments, "--namespace", SYSTEM, "--kubeconfig", self.kube.kubeconfig], deadline=60)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def create(self, namespace):
        return self.api.create({"kind": "Pod", "metadata": {"name": f"pod-{uuid.uuid4().hex[:8]}", "namespace": namespace},
                                "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "image": "app"}]}})

    def run_control(self):
        """A replica with the account and the settings that helm has installed; its webhook is announced at the chart's objects."""
        path = self.api.path("ServiceAccount", "postern-control", SYSTEM, "token")
        token = self.api.request("POST", path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}})["status"]["token"]
        settings = pathlib.Path(self.folder, "injection.yaml")
        settings.write_text(self.api.get("ConfigMap", "postern-control", SYSTEM)["data"]["injection.yaml"], encoding="utf-8")
        control = Control(f"{self.folder}/control", self.kube.write_kubeconfig("control", token), pod=self.home, uid=0, config={"webhook": {"settings": str(settings)}})
        control.start()
        self.addCleanup(control.kill)
        wait_until(lambda: all(self.bundles()), 30, "the webhooks' authority announced")
        return control

    def bundles(self):
        return [webhook["clientConfig"].get("caBundle") for kind in WEBHOOKS for webhook in self.api.get(kind, "postern")["webhooks"]]

    def state(self):
        """What an upgrade must not touch."""
        secrets = {item["metadata"]["name"]: item["data"] for item in self.api.list("Secret", SYSTEM) if not item["type"].startswith("helm.sh/")}
        return {"bundles": self.bundles(), "secrets": secrets, "pods": self.api.request("GET", DEPLOYMENT)["spec"]["template"],
                "mesh": self.api.get("ConfigMap", "postern", SYSTEM)["data"]}

    def test_install_upgrade_and_uninstall(self):
        said = self.helm("install", "postern", ROOT / "charts/postern", "--create-namespace")
        self.assertIn("posternctl check", said)
        # Nothing runs yet: a pod that should be injected is refused, others are not concerned.
        wait_until(lambda: "failed calling webhook" in self.refusal("shop"), 60, "a pod refused")
        self.create("plain")
        control = self.run_control()
        before = self.state()
        self.assertEqual(set(before["secrets"]), {"postern-webhook", "postern-authority", "postern-control-ticket-keys"})

        self.helm("upgrade", "postern", ROOT / "charts/postern")
        self.assertEqual(self.state(), before, "an upgrade that changes nothing")
        self.helm("upgrade", "postern", ROOT / "charts/postern", "--values", ROOT / "charts/postern/values-ha.yaml", "--set", "control.priorityClassName=")
        self.assertEqual(self.api.request("GET", DEPLOYMENT)["spec"]["replicas"], 3)
        after = self.state()
        self.assertEqual({**after, "pods": None}, {**before, "pods": None}, "neither a certificate nor an identity is made anew")

        control.kill()
        self.helm("uninstall", "postern")
        wait_until(lambda: self.refusal("shop") == "", 60, "pods of a labelled namespace accepted again")
        for kind in (*WEBHOOKS, "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ServiceAccount", "ConfigMap", "Service"):
            left = [item["metadata"]["name"] for item in self.api.list(kind) if item["metadata"]["name"].startswith("postern")]
            self.assertEqual(left, [], kind)

    def refusal(self, namespace):
        """Why a pod is refused; empty: it is not."""
        try:
            self.create(namespace)
        except ApiError as error:
            return str(error)
        return ""


if __name__ == "__main__":
    unittest.main()
