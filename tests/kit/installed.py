"""Postern installed in a cluster of kit.node by its chart, as users do it: helm install, no flags; and its pods, injected, as tests see them.

    postern = Installed(node)                      # images loaded, chart installed, postern-control available
    web = postern.pod("default", "app=web")        # a PodOnNode, once it is Ready
    web.run(["curl", ...]); web.connect(...)       # in its network namespace, as root: the connections are redirected
    web.exec("curl", ...)                          # in its container, by kubectl
    web.records(direction="inbound")               # the access records of its sidecar; web.admin("GET", "/allow-list")
    postern.status("default/allow", "--wait")      # posternctl status"""

import json
import os
import pathlib
import re
import subprocess

from kit.pods import Pod
from kit.processes import run
from kit.sidecar import UnixConnection, exchange, program
from kit.waiting import wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMESPACE = "postern-system"
VERSION = re.search(r"^appVersion: \"?([^\"\n]+)", (ROOT / "charts/postern/Chart.yaml").read_text(encoding="utf-8"), re.M).group(1)


def helm():
    """The built helm."""
    path = os.environ.get("POSTERN_HELM", str(ROOT / "build/helm/helm"))
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(f"{path} is missing: it installs the chart. Run: ./dev cluster")
    return path


class Installed:
    """The chart's release `postern` in its own namespace."""

    def __init__(self, node, values=None):
        self.node, self.api = node, node.api
        for image in _images(node.folder):
            node.load(image)
        values = values or {}
        (node.folder / "values.json").write_text(json.dumps(values), encoding="utf-8")
        self.helm("install", "postern", f"{ROOT}/charts/postern", "--create-namespace", *(["--values", f"{node.folder}/values.json"] if values else []),
                  "--wait", "--timeout", "120s")

    def helm(self, *arguments, check=True):
        """Runs helm for the chart's namespace; the CompletedProcess."""
        return self.node.pod.run([helm(), "--kubeconfig", self.node.kube.kubeconfig, "--namespace", NAMESPACE, *arguments], deadline=150, check=check)

    def check(self, *arguments):
        """posternctl check: its JSON."""
        done = self.node.pod.run([program("posternctl"), "check", "--output", "json", "--kubeconfig", self.node.kube.kubeconfig, *arguments], deadline=60)
        return json.loads(done.stdout)

    def control(self):
        """The pod of postern-control."""
        return self.pod(NAMESPACE, "app.kubernetes.io/component=control")

    def pods(self, namespace, selector):
        """Those that are Ready and not about to end, oldest first."""
        items = self.api.list("Pod", namespace, labelSelector=selector)
        ready = [i for i in items if "deletionTimestamp" not in i["metadata"] and _condition(i, "Ready")]
        return [PodOnNode(self.node, i) for i in sorted(ready, key=lambda i: i["metadata"]["creationTimestamp"])]

    def pod(self, namespace, selector, deadline=90.0):
        """The one pod, once it is Ready."""
        def look():
            found = self.pods(namespace, selector)
            return found[0] if len(found) == 1 else None
        return wait_until(look, deadline, lambda: f"a pod {selector} in {namespace} to be Ready:\n{self.explain(namespace, selector)}", interval=0.2)

    def explain(self, namespace, selector):
        """Why pods are not as one would wish: their states and Events."""
        lines = []
        for item in self.api.list("Pod", namespace, labelSelector=selector):
            status = item["status"]
            lines.append(f"{item['metadata']['name']}: {status.get('phase')} " + json.dumps(
                {c["name"]: c["state"] for c in status.get("initContainerStatuses", []) + status.get("containerStatuses", [])}))
        for event in self.api.list("Event", namespace)[-15:]:
            lines.append(f"{event.get('regarding', {}).get('name')}: {event.get('reason')}: {event.get('note')}")
        return "\n".join(lines)

    def status(self, *arguments):
        """Runs posternctl status with the admin socket of postern-control; the CompletedProcess."""
        command = [program("posternctl"), "status", "--control", self.control().root("run/postern/admin.sock"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


class PodOnNode(Pod):
    """A pod of the cluster that runs: its first container's network namespace, like a pod of kit.pods; and its sidecar."""

    def __init__(self, node, item):  # pylint: disable=super-init-not-called
        self.node, self.item = node, item
        self.name, self.k8s_namespace, self.uid = item["metadata"]["name"], item["metadata"]["namespace"], item["metadata"]["uid"]
        addresses = [entry["ip"] for entry in item["status"]["podIPs"]]
        self.v4 = next(a for a in addresses if ":" not in a)
        self.v6 = next((a for a in addresses if ":" in a), None)
        statuses = item["status"].get("initContainerStatuses", []) + item["status"]["containerStatuses"]
        self.containers = {s["name"]: s["containerID"].rsplit("/", 1)[1] for s in statuses if "running" in s["state"]}
        self.first = item["spec"]["containers"][0]["name"]
        self.path = f"{node.processes()}/{node.task(self.containers[self.first])}/ns/net"
        self.folder, self.processes = str(node.folder), []

    def root(self, path, container=None):
        """Where a file of the container is to be found from here."""
        return f"{self.node.processes()}/{self.node.task(self.containers[container or self.first])}/root/{path}"

    def exec(self, *argv, container=None, stdin=None, deadline=60.0):
        """kubectl exec: the CompletedProcess."""
        options = ["-i"] if stdin is not None else []
        return self.node.kubectl("exec", "-n", self.k8s_namespace, *options, "-c", container or self.first, self.name, "--", *argv,
                                 stdin=stdin, check=False, deadline=deadline)

    def output(self, container, stream=None):
        """What the container has written so far, of all its runs: the text of the log files that the kubelet keeps."""
        folder = self.node.folder / "var/log/pods" / f"{self.k8s_namespace}_{self.name}_{self.uid}" / container
        text = []
        for path in sorted(folder.glob("*.log"), key=lambda p: int(p.stem)):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
                fields = line.split(" ", 3)  # time, stream, P(art) or F(ull), text
                if len(fields) == 4 and stream in (None, fields[1]):
                    text.append(fields[3].rstrip("\n") if fields[2] == "P" else fields[3])
        return "".join(text)

    def records(self, **fields):
        """The access records so far whose fields have these values, as kit.sidecar.Sidecar has them."""
        lines = self.output("postern-proxy", "stdout").split("\n")[:-1]
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [r for r in found if "direction" in r and all(v(r.get(k)) if callable(v) else r.get(k) == v for k, v in fields.items())]

    def admin(self, method, route, body=None):
        """Asks the sidecar's admin socket."""
        return exchange(UnixConnection(self.root("run/postern/admin.sock", "postern-proxy")), method, route, body)


def _condition(item, name):
    return any(c["type"] == name and c["status"] == "True" for c in item["status"].get("conditions", []))


def _images(folder):
    """The archives of Postern's own images, made as ./dev images makes them, of the programs under test and of this machine's packages."""
    names = ["postern-proxy", "postern-control", "posternctl"]
    run(["/usr/bin/python3", f"{ROOT}/tools/images/assemble.py", "--tree", os.environ.get("POSTERN_BUILD", ROOT / "build/release"), "--out", f"{folder}/images",
         "--version", VERSION, *names], deadline=120, check=True)
    return [f"{folder}/images/{name}.tar" for name in names]
