"""The demo's application under the control plane: a real Kubernetes API server holds the objects, and postern-control keeps the sidecars' allow
lists in step with them."""

import subprocess

from application import PODS, POLICIES
from kit.control import Control
from kit.kube import KubeServer
from kit.sidecar import program

CLUSTER = ["10.77.0.0/16", "fd77::/64"]  # where the pods' addresses are: kit.pods.Network


class ControlPlane:
    """A source of policies, as application.ManifestFolder is one. The API server and postern-control have pods of their own."""

    programs = ("postern-proxy", "posternctl", "postern-control")
    change = "kubectl apply of the one, kubectl delete of the other."
    from_change = "From the change at the API server"

    def __init__(self, application):
        self.application = application
        folder = application.net.folder
        self.server = KubeServer(f"{folder}/kubernetes", pod=application.net.pod("kubernetes"))
        self.api = self.server.api()
        self.control = Control(f"{folder}/control", self.server.kubeconfig, application.authority, pod=application.net.pod("control"),
                               config={"mesh": {"clusterCidrs": CLUSTER}})
        self.control.start()
        self.uids = {pod: self._create(pod) for pod in PODS}

    def _create(self, name):
        """The record of a pod, as the API server and a kubelet would make it; its UID."""
        namespace, account = PODS[name]
        labels = {"app": name} if namespace == "default" else {"app.kubernetes.io/name": name}
        if namespace != "default":
            self.api.namespace(namespace, labels={"name": namespace})
        return self.api.pod(name, namespace, self.application.pods[name].addresses(), labels, account=account)["metadata"]["uid"]

    def sidecar_options(self):
        return {"control": [self.control.address]}

    def publish(self, frontend_policies, audited):
        wanted = [*POLICIES, *frontend_policies]
        self.generations = {name: self.api.apply(self.application.manifest(name, audited))["metadata"]["generation"] for name in wanted}
        self.deleted = [item["metadata"]["name"] for item in self.api.list("NetworkPolicy") if item["metadata"]["name"] not in wanted]
        for name in self.deleted:
            self.api.delete("NetworkPolicy", name, "default")

    def adopt(self, publish):
        """Calls `publish`, and returns how to wait until every sidecar enforces what it published: as a deployment pipeline would."""
        publish()
        return self._wait_enforced

    def _wait_enforced(self):
        wait = [program("posternctl"), "status", "--control", self.control.admin_path, "--wait", "--deadline", "10s"]
        commands = [[*wait, f"default/{name}", "--generation", str(generation)] for name, generation in self.generations.items()]
        commands += [[*wait, f"default/{name}", "--absent"] for name in self.deleted]
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise TimeoutError(f"{' '.join(command)}: {done.stdout}{done.stderr}")

    def by_hand(self):
        """How a person changes the policies: for --hold."""
        kubectl = f"ip netns exec {self.server.pod.namespace} kubectl --kubeconfig {self.server.kubeconfig}"
        return f"""  # another policy (any kubectl will do), and whether it is in force
  {kubectl} delete networkpolicy frontend-allow
  {program('posternctl')} status --control {self.control.admin_path} --wait"""
