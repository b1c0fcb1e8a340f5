"""The chart, installed without a kubelet: its manifests (tests/chart/default.yaml) at a real API server, postern-control as its Deployment says, from the
image's files; pods that the real webhook has injected, whose sidecars run as their own specs say.

    mesh = InstalledMesh()                        # namespaces postern-system and shop (labelled)
    web = mesh.run("web", ports=[7000])           # made through the API, injected, redirected, its sidecar ready: a kit pod
    mesh.check()                                  # posternctl check: the CompletedProcess
"""

import base64
import copy
import json
import os
import pathlib

import yaml

from kit import container
from kit.kube import KubeServer
from kit.pods import Network
from kit.sidecar import program
from kit.waiting import wait_until

CHART = pathlib.Path(__file__).resolve().parents[1] / "chart"
SYSTEM = "postern-system"
WEBHOOKS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"


def chart_objects(rendered="default.yaml"):
    """What `helm install` makes; hooks aside."""
    items = [item for item in yaml.safe_load_all((CHART / rendered).read_text(encoding="utf-8")) if item]
    return [item for item in items if "helm.sh/hook" not in item["metadata"].get("annotations", {})]


class InstalledMesh:
    """`pods`: the kit pods by name; `sidecars`: their processes. With `certificate`, what the Secret of webhook.certificateSecret holds (tls.crt,
    tls.key, ca.crt) in a folder, and in the webhooks by cert-manager, which is not here. `secrets`: those that the values name."""

    def __init__(self, rendered="default.yaml", *, certificate=None, secrets=()):
        self.net = Network()
        self.home = self.net.pod("kube")  # the API server and postern-control: a webhook is registered by URL, as nothing routes a Service here
        self.kube = KubeServer(f"{self.net.folder}/kube-data", pod=self.home)
        self.api = self.kube.api()
        self.roots = container.root_filesystems(f"{self.net.folder}/images")
        self.objects, self.certificate = chart_objects(rendered), certificate
        self.pods, self.sidecars, self.made = {}, {}, {}
        self.api.namespace(SYSTEM)
        self.api.namespace("shop", {"postern.dev/inject": "enabled"})
        for namespace in ("default", "shop"):
            self.api.create({"kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}})
        for item in self.objects:
            if item["kind"] not in WEBHOOKS and item["kind"] in ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ConfigMap"):
                self.api.apply(item)
        for secret in secrets:
            self.api.create(secret)
        self.register()
        self.hosts = f"{self.net.folder}/hosts"
        pathlib.Path(self.hosts).write_text(f"127.0.0.1 localhost\n{self.home.v4} postern-control.{SYSTEM}.svc\n", encoding="ascii")
        self.start_control()

    def close(self):
        self.kube.stop()
        self.net.close()

    def object(self, kind, name):
        return next(item for item in self.objects if (item["kind"], item["metadata"]["name"]) == (kind, name))

    def register(self):
        """The chart's webhooks, called where postern-control runs."""
        for item in copy.deepcopy([item for item in self.objects if item["kind"] in WEBHOOKS]):
            for webhook in item["webhooks"]:
                webhook["clientConfig"] = {"url": f"https://localhost:15017{webhook['clientConfig']['service']['path']}"}
                if self.certificate:
                    authority = pathlib.Path(self.certificate, "ca.crt").read_bytes()
                    webhook["clientConfig"]["caBundle"] = base64.b64encode(authority).decode()
            self.api.apply(item)

    def start_control(self):
        """postern-control as the Deployment has it: its only container's command, user and files."""
        spec = self.object("Deployment", "postern-control")["spec"]["template"]["spec"]
        only = spec["containers"][0]
        folders = {"configuration": f"{self.net.folder}/configuration", "account": f"{self.net.folder}/account"}
        for folder in folders.values():
            os.makedirs(folder, exist_ok=True)
        if self.certificate:
            folders["webhook-certificate"] = self.certificate
        for name, text in self.object("ConfigMap", "postern-control")["data"].items():
            pathlib.Path(folders["configuration"], name).write_text(text, encoding="utf-8")
        pathlib.Path(folders["account"], "ca.crt").write_text(pathlib.Path(self.kube.authority).read_text(encoding="ascii"), encoding="ascii")
        pathlib.Path(folders["account"], "token").write_text(self.token(SYSTEM, spec["serviceAccountName"]), encoding="ascii")
        mounts = {mount["mountPath"]: folders.get(mount["name"]) for mount in only["volumeMounts"]}
        self.control = container.start(
            self.home, self.roots["postern-control"], command=only["command"], uid=spec["securityContext"]["runAsUser"],
            mounts={**mounts, ACCOUNT_FOLDER: folders["account"], "/etc/hosts": self.hosts},
            env={"KUBERNETES_SERVICE_HOST": self.home.v4, "KUBERNETES_SERVICE_PORT": str(self.kube.port)})
        self.wait_probe(self.home, only["readinessProbe"], self.control, {p["name"]: p["containerPort"] for p in only["ports"]})

    def add_replica(self):
        """The pod of postern-control, as the API would show it."""
        labels = self.object("Deployment", "postern-control")["spec"]["template"]["metadata"]["labels"]
        self.api.pod("postern-control-0", SYSTEM, self.home.addresses(), labels, meshed=False)

    def token(self, namespace, account, pod=None, audience=None):
        spec = {"audiences": [audience or "https://kubernetes.default.svc.cluster.local"], "expirationSeconds": 3600}
        if pod:
            spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        path = self.api.path("ServiceAccount", account, namespace, "token")
        return self.api.request("POST", path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})["status"]["token"]

    def create(self, name, namespace="shop", *, labels=None, annotations=None, ports=(), **spec):
        """A pod, as the API server answers after its webhooks."""
        item = {"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": namespace, "labels": {"app": name, **(labels or {})}, "annotations": annotations or {}},
                "spec": {"serviceAccountName": "default", "nodeName": "node0",
                         "containers": [{"name": "app", "image": "app", "ports": [{"containerPort": port} for port in ports]}], **spec}}
        return self.api.request("POST", self.api.path("Pod", None, namespace), item)

    def run(self, name, namespace="shop", **options):
        """create(), and its init containers in their order, the sidecar until its startup probe succeeds."""
        pod = self.pods[name] = self.net.pod(name)
        made = self.made[name] = self.create(name, namespace, **options)
        self.api.pod_status(name, namespace, pod.addresses())
        for one in made["spec"]["initContainers"]:
            process = self._start(pod, made, one)
            if one.get("restartPolicy") == "Always":
                self.sidecars[name] = process
                self.wait_probe(pod, one["startupProbe"], process)
            elif process.wait(30) != 0:
                raise RuntimeError(f"{one['name']} of {name} has failed:\n{process.output()}")
        return pod

    def _start(self, pod, made, one):
        context = one["securityContext"]
        if not context["readOnlyRootFilesystem"] or context["allowPrivilegeEscalation"] or context["capabilities"]["drop"] != ["ALL"]:
            raise AssertionError(f"container.start() gives less than this asks for: {context}")
        token = pathlib.Path(pod.folder, "token")
        token.mkdir(exist_ok=True)
        projected = next(v for v in made["spec"]["volumes"] if v["name"] == "postern-token")["projected"]["sources"][0]["serviceAccountToken"]
        (token / projected["path"]).write_text(self.token(made["metadata"]["namespace"], "default", made, projected["audience"]), encoding="ascii")
        volumes = {"postern-state": None, "postern-token": str(token)}
        return container.start(
            pod, self.roots["postern-proxy"], command=one["command"], env=container.expanded(one, made["metadata"]), name=one["name"],
            mounts={"/etc/hosts": self.hosts, **{m["mountPath"]: volumes[m["name"]] for m in one.get("volumeMounts", [])}},
            uid=context["runAsUser"], gid=context["runAsGroup"], capabilities=context["capabilities"].get("add", ()))

    def wait_probe(self, pod, probe, process, ports=None):
        """As a kubelet would ask: until the probe succeeds once."""
        get = probe["httpGet"]
        port = get["port"] if isinstance(get["port"], int) else (ports or {})[get["port"]]

        def look():
            if not process.alive():
                return "ended"
            try:
                with self.home.connect(pod.v4, port, timeout=2) as s:
                    s.sendall(f"GET {get['path']} HTTP/1.1\r\nHost: {pod.v4}\r\nConnection: close\r\n\r\n".encode())
                    return s.recv(64).split()[1:2] == [b"200"]
            except OSError:
                return False
        if wait_until(look, 60, lambda: f"{process.name} ready:\n{process.output()[-3000:]}") == "ended":
            raise RuntimeError(f"{process.name} has ended with {process.returncode}:\n{process.output()[-3000:]}")

    def check(self, *arguments, kubeconfig=None):
        """posternctl check from where the API server can be reached: (exit status, [(level, topic, text, remedy)], CompletedProcess)."""
        done = self.home.run([program("posternctl"), "check", "--output", "json", "--kubeconfig", kubeconfig or self.kube.kubeconfig, *arguments], deadline=60)
        if not done.stdout:
            return done.returncode, [], done
        found = [(f["level"], f["topic"], f["text"], f.get("remedy", "")) for f in json.loads(done.stdout)["findings"]]
        return done.returncode, found, done
