"""A mesh under a real API server: etcd, kube-apiserver and postern-control replicas in pods of their own, sidecars that take their policy from
the stream. Objects are made through the API (`mesh.api`, a kit.kube.KubeApi).

    mesh = ControlledMesh("web", "api", without=("plain",), replicas=2)
    mesh.api.policy({...}); mesh.wait_denied("web", "api")
    mesh.replicas[0].kill()

With `built_in` (fields of the control plane's `authority`) the SVIDs come from postern-control itself, for the pods' real tokens. `objects` are
created before the replicas start.
"""

import base64
import json
import os

from kit.cluster import App, knock
from kit.control import Control
from kit.kube import KubeServer
from kit.peer import context
from kit.pki import Authority
from kit.pods import Network
from kit.sidecar import PROXY_UID, Sidecar, program, spiffe_id
from kit.waiting import wait_until
from kit.websocket import WebSocket

PORT = 7000
RANGES = ["10.77.0.0/24", "fd77::/64", "10.96.0.0/16"]


class ControlledMesh:
    """Pods by name in `pods`, sidecars in `sidecars`, each pod with an echo server on PORT in `apps` and `app: <name>` as its label."""

    def __init__(self, *names, without=(), replicas=2, mesh=None, config=None, control=None, start=True,
                 built_in=None, objects=()):
        self.net = Network()
        self.kube_pod = self.net.pod("kube")
        self.kube = KubeServer(f"{self.net.folder}/kube-data", pod=self.kube_pod)
        self.api = self.kube.api()
        self.built_in = built_in is not None
        self.authority = None if self.built_in else Authority(f"{self.net.folder}/ca", "cluster.local")
        self.api.namespace("default", {"team": "shop"})
        self.api.namespace("postern-system")
        self.api.node("node0", ["10.77.0.1"])
        for made in objects:
            self.api.create(made)
        self.replicas = []
        for number in range(1, replicas + 1):
            pod = self.net.pod(f"control-{number}")
            replica = Control(f"{pod.folder}/control", self.kube.kubeconfig, self.authority, pod=pod,
                              config={"mesh": {"clusterCidrs": RANGES, **(mesh or {})}, **({"authority": built_in} if built_in else {}),
                                      **(control or {})})
            self.replicas.append(replica)
        self.pods, self.sidecars, self.apps, self.objects = {}, {}, {}, {}
        self.config = config or {}
        if self.built_in:
            self.api.create({"kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}})
            self._start_replicas()  # a pod's spec names the roots, which somebody must have made
        for name in (*names, *without):
            self.add(name, meshed=name in names)
        if start:
            if not self.built_in:
                self._start_replicas()
            for sidecar in self.sidecars.values():
                sidecar.start(wait=False)
            for sidecar in self.sidecars.values():
                sidecar.wait_ready()

    def _start_replicas(self):
        for replica in self.replicas:
            replica.start(wait=False)
        for replica in self.replicas:
            replica.wait_ready()

    def token(self, name, *, audience="postern-control", namespace="default", account="default", bound=True):
        """A ServiceAccount token as a kubelet would project it into that pod."""
        spec = {"audiences": [audience], "expirationSeconds": 3600}
        if bound:
            spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": self.uid(name)}
        path = self.api.path("ServiceAccount", account, namespace, "token")
        return self.api.request("POST", path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})["status"]["token"]

    def secret(self):
        """What the built-in authority's Secret holds: (state, trust bundle as PEM)."""
        data = self.api.get("Secret", "postern-authority", "postern-system")["data"]
        return json.loads(base64.b64decode(data["authority.json"])), base64.b64decode(data["ca.crt"]).decode()

    def _signed_identity(self, pod, name, namespace):
        """The configuration of a sidecar that has its SVID from the control plane, as the injector would write it."""
        path = f"{pod.folder}/token"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
            file.write(self.token(name, namespace=namespace))
        os.chown(path, PROXY_UID, PROXY_UID)
        return {"controlPlane": {"addresses": [replica.signing_address for replica in self.replicas], "tokenFile": path,
                                 "roots": self.secret()[1]}}

    def add(self, name, *, namespace="default", meshed=True, labels=None, config=None):
        """A pod, known to the API server; its sidecar is not started yet."""
        pod = self.pods[name] = self.net.pod(name)
        self.objects[name] = self.api.pod(name, namespace, pod.addresses(), {"app": name, **(labels or {})}, meshed=meshed)
        if meshed:
            self.sidecars[name] = Sidecar(pod, self.authority, namespace=namespace, pod_uid=self.uid(name),
                                          control=[replica.address for replica in self.replicas],
                                          trust_domain="cluster.local",
                                          config={"drainPeriod": "300ms", **({"identity": self._signed_identity(pod, name, namespace)}
                                                                             if self.built_in else {}), **self.config, **(config or {})})
        self.apps[name] = App(pod, PORT)
        return pod

    def uid(self, name):
        return self.objects[name]["metadata"]["uid"]

    def svid(self, name, **fields):
        """A valid SVID of that pod, or with other fields of its SPIFFE ID."""
        fields = {"namespace": "default", "service_account": "default", "pod": name, "pod_uid": self.uid(name) if name in self.objects else "?",
                  **fields}
        return self.authority.issue(spiffe_id("cluster.local", **fields))

    def reach(self, source, target, port=PORT):
        """What a connection comes to: the bytes echoed, "reset", "refused" or "fin"."""
        address = self.pods[target].v4 if target in self.pods else target
        _, how = knock(self.pods[source], address, port, b"ping")
        return how

    def wait_allowed(self, source, target, port=PORT, deadline=10.0):
        wait_until(lambda: self.reach(source, target, port) == b"ping", deadline, lambda: f"{source} -> {target} allowed\n{self.said()}")

    def wait_denied(self, source, target, port=PORT, deadline=10.0):
        wait_until(lambda: self.reach(source, target, port) == "reset", deadline, lambda: f"{source} -> {target} denied\n{self.said()}")

    def open(self, source, target, port=PORT):
        """An established connection that has echoed."""
        s = self.pods[source].connect(self.pods[target].v4 if target in self.pods else target, port)
        s.sendall(b"ping")
        if s.recv(4) != b"ping":
            raise AssertionError("no echo")
        return s

    def serving(self, name):
        """The replica that the sidecar's stream is connected to now, or None."""
        for replica in self.replicas:
            if replica.process is None or not replica.process.alive():
                continue
            if any(stream["pod"] == name for stream in replica.admin("GET", "/streams")[1]["streams"]):
                return replica
        return None

    def status(self, *arguments, deadline=60.0):
        """posternctl status with every replica: the CompletedProcess."""
        controls = [part for replica in self.replicas for part in ("--control", replica.admin_path)]
        return self.kube_pod.run([program("posternctl"), "status", *arguments, *controls], deadline=deadline)

    def raw_stream(self, name, svid=None, replica=None):
        """A hostile sidecar: a WebSocket to a replica from that pod, past its own redirection."""
        replica = replica or self.replicas[0]
        return WebSocket(self.pods[name], replica.pod.v4, 15010, context(svid or self.svid(name), alpn=("postern-control/1",)))

    def said(self):
        """The last words of every sidecar and replica."""
        texts = [f"== {name}\n{sidecar.output()[-1500:]}" for name, sidecar in self.sidecars.items()]
        texts += [f"== {replica.replica}\n{replica.output()[-1500:]}" for replica in self.replicas]
        return "\n".join(texts)

    def close(self):
        for app in self.apps.values():
            app.close()
        self.kube.stop()
        self.net.close()
