"""A real Kubernetes API: etcd and kube-apiserver (tests/k8s; `./dev kube` builds them), on loopback or inside a kit pod.

    from kit.kube import KubeServer

    server = KubeServer(folder)                    # up and ready; on 127.0.0.1, at a free port
    server = KubeServer(folder, pod=net.pod("api"))    # inside a pod of kit.pods: reachable from every other one at https://<pod.v4>:6443
    server.kubeconfig                              # path of an admin's kubeconfig, for --kubeconfig; server.url .token .authority beside it
    api = server.api()                             # a KubeApi: create, get, patch, delete, and helpers that make running pods
    server.kill_api_server(); server.start_api_server()
    server.stop()                                  # or at exit

There is no kubelet, scheduler or controller (kit.node has them): tests write status, EndpointSlices and the like themselves. The ServiceAccount admission is
off, so pods need no account; deletions are at once (grace period 0) unless asked otherwise."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import re
import secrets
import signal
import socket
import ssl
import subprocess
import threading
import urllib.parse

from kit.processes import Process, at_end, not_at_end
from kit.waiting import patience, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
ISSUER = "https://kubernetes.default.svc.cluster.local"
SERVICE_RANGE = "10.96.0.0/16"
KINDS = {  # kind -> (path, resource, namespaced)
    "Namespace": ("/api/v1", "namespaces", False),
    "Node": ("/api/v1", "nodes", False),
    "Pod": ("/api/v1", "pods", True),
    "Service": ("/api/v1", "services", True),
    "ServiceAccount": ("/api/v1", "serviceaccounts", True),
    "ConfigMap": ("/api/v1", "configmaps", True),
    "Secret": ("/api/v1", "secrets", True),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies", True),
    "EndpointSlice": ("/apis/discovery.k8s.io/v1", "endpointslices", True),
    "Event": ("/apis/events.k8s.io/v1", "events", True),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases", True),
    "ClusterRole": ("/apis/rbac.authorization.k8s.io/v1", "clusterroles", False),
    "ClusterRoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings", False),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles", True),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings", True),
    "Deployment": ("/apis/apps/v1", "deployments", True),
    "ReplicaSet": ("/apis/apps/v1", "replicasets", True),
    "Job": ("/apis/batch/v1", "jobs", True),
    "MutatingWebhookConfiguration": ("/apis/admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations", False),
    "ValidatingWebhookConfiguration": ("/apis/admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", False),
}


def program():
    """The built binary of tests/k8s."""
    path = pathlib.Path(os.environ.get("POSTERN_KUBE", ROOT / "build/kube/kube"))
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(f"{path} is missing: it holds etcd and kube-apiserver for the tests. Run: ./dev kube")
    return str(path)


class ApiError(Exception):
    """The API server refused. `.code` is the HTTP status, `.status` its Status object."""

    def __init__(self, method, path, code, status):
        self.code, self.status = code, status
        message = status.get("message", "") if isinstance(status, dict) else status
        super().__init__(f"{method} {path}: {code} {message}")


class KubeServer:
    """etcd and kube-apiserver. Everything lives in `folder`; their output in etcd.log and kube-apiserver.log there. accounts: with the admission of
    service accounts, which needs their controller."""

    def __init__(self, folder, *, pod=None, port=None, watch_cache=True, extra=(), start=True, accounts=False):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.pod = pod
        self.address = pod.v4 if pod else "127.0.0.1"
        # Inside a pod nobody else is there; on loopback any free port will do.
        self.port = port or (6443 if pod else _free_port())
        self._etcd_ports = (2379, 2380) if pod else (_free_port(), _free_port())
        self._watch_cache, self._extra = watch_cache, [*extra, *([] if accounts else ["--disable-admission-plugins=ServiceAccount"])]
        self.url = f"https://{self.address}:{self.port}"
        self.etcd = self.api_server = None
        self._make_credentials()
        self.kubeconfig = self.write_kubeconfig("admin", self.token)
        at_end(self.stop)
        if start:
            self.start()

    def start(self):
        self.start_etcd()
        self.start_api_server()

    def stop(self):
        """Ends both; the folder keeps data and logs."""
        not_at_end(self.stop)
        for process in (self.api_server, self.etcd):
            if process:
                process.kill()
        self.api_server = self.etcd = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def start_etcd(self):
        client, peer = (f"http://127.0.0.1:{port}" for port in self._etcd_ports)
        self.etcd = self._start("etcd", [
            f"--data-dir={self.folder}/etcd", f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync", "--log-level=warn"])
        self._wait("etcd", self.etcd, lambda: self._etcd_get("/health").get("health") == "true")

    def start_api_server(self, *, wait=True):
        folder = self.folder
        self.api_server = self._start("kube-apiserver", [
            f"--etcd-servers=http://127.0.0.1:{self._etcd_ports[0]}", "--bind-address=0.0.0.0" if self.pod else "--bind-address=127.0.0.1",
            f"--advertise-address={self.address}", f"--secure-port={self.port}", f"--service-cluster-ip-range={SERVICE_RANGE}",
            f"--tls-cert-file={folder}/server.crt", f"--tls-private-key-file={folder}/server.key", f"--client-ca-file={folder}/ca.crt",
            f"--token-auth-file={folder}/tokens.csv", "--authorization-mode=RBAC",
            f"--service-account-issuer={ISSUER}", f"--service-account-key-file={folder}/account.key",
            f"--service-account-signing-key-file={folder}/account.key",
            # A Service's endpoints may not be loopback addresses, so there the Service "kubernetes" has none.
            f"--endpoint-reconciler-type={'lease' if self.pod else 'none'}", f"--watch-cache={str(self._watch_cache).lower()}",
            "--allow-privileged=true", "--enable-priority-and-fairness=false", "--profiling=false", *self._extra])
        if wait:
            self.wait_ready()

    def wait_ready(self, deadline=60.0):
        api = self.api()
        self._wait("kube-apiserver", self.api_server, lambda: api.raw("GET", "/readyz")[0] == 200, deadline)

    def kill_api_server(self):
        """As a crash would: SIGKILL."""
        self.api_server.kill()

    def kill_etcd(self):
        self.etcd.kill()

    @contextlib.contextmanager
    def frozen_api_server(self):
        """It answers nothing while this lasts, and its connections stay."""
        self.api_server.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.api_server.send(signal.SIGCONT)

    def revision(self):
        """etcd's current revision: the largest resourceVersion there is."""
        return int(self._etcd("/v3/kv/range", {"key": "AA=="})["header"]["revision"])

    def compact(self, revision=None):
        """Forgets the history before `revision` (default: all of it). The API server's watch cache may go on serving it until it restarts."""
        revision = revision or self.revision()
        self._etcd("/v3/kv/compaction", {"revision": str(revision), "physical": True})
        return revision

    def api(self, token=None):
        """A client; one for each thread."""
        return KubeApi(self, token or self.token)

    def write_kubeconfig(self, name, token):
        """A kubeconfig for that token; returns its path."""
        path = self.folder / f"{name}.kubeconfig"
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "kit",
            "clusters": [{"name": "kit", "cluster": {"server": self.url, "certificate-authority": str(self.folder / "ca.crt")}}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "kit", "context": {"cluster": "kit", "user": name}}]}, indent=1))
        return str(path)

    def _start(self, name, flags):
        start = self.pod.start if self.pod else Process
        return start([program(), name, *flags], output=str(self.folder / f"{name}.log"), cwd=str(self.folder), name=name)

    def _wait(self, name, process, ready, deadline=60.0):
        def look():
            return "ended" if not process.alive() else ready()
        if wait_until(look, deadline, lambda: f"{name} ready:\n{process.output()[-3000:]}", interval=0.05) == "ended":
            raise RuntimeError(f"{name} has ended with {process.returncode}:\n{process.output()[-3000:]}")

    def _make_credentials(self):
        folder = self.folder
        self.authority = str(folder / "ca.crt")
        if (folder / "tokens.csv").exists():
            self.token = (folder / "tokens.csv").read_text().split(",")[0]
            return
        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        _openssl("req", "-x509", *new_key, "-days", 30, "-subj", "/CN=kit-kube-ca", "-keyout", folder / "ca.key", "-out", folder / "ca.crt")
        names = ["DNS:localhost", "DNS:kubernetes", "DNS:kubernetes.default.svc", "IP:127.0.0.1", "IP:10.96.0.1"]
        if self.pod:
            names += [f"IP:{address}" for address in self.pod.addresses()]
        self._certify("server", "/CN=kube-apiserver", f"subjectAltName={','.join(names)}\nextendedKeyUsage=serverAuth\n")
        self._certify("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client", "extendedKeyUsage=clientAuth\n")
        _openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", folder / "account.key")
        self.token = secrets.token_hex(16)
        (folder / "tokens.csv").write_text(f'{self.token},admin,admin,"system:masters"\n')

    def _certify(self, name, subject, extensions):
        folder = self.folder
        (folder / f"{name}.ext").write_text(extensions)
        _openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject, "-keyout", folder / f"{name}.key",
                 "-out", folder / f"{name}.csr")
        _openssl("x509", "-req", "-in", folder / f"{name}.csr", "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-set_serial",
                 secrets.randbits(63), "-days", 30, "-extfile", folder / f"{name}.ext", "-out", folder / f"{name}.crt")

    def add_user(self, user, groups=""):
        """A token of another user; counts from the next start of the API server on."""
        token = secrets.token_hex(16)
        with open(self.folder / "tokens.csv", "a", encoding="ascii") as file:
            file.write(f'{token},{user},{user},"{groups}"\n')
        return token

    @contextlib.contextmanager
    def inside(self):
        """The calling thread's new sockets are where the servers are."""
        with self.pod.entered() if self.pod else contextlib.nullcontext():
            yield

    def _etcd(self, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", self._etcd_ports[0], timeout=patience(10))
        with contextlib.closing(connection):
            with self.inside():
                connection.connect()
            connection.request("POST" if body is not None else "GET", path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            text = answer.read().decode()
            if answer.status != 200:
                raise RuntimeError(f"etcd {path}: {answer.status} {text}")
            return json.loads(text)

    def _etcd_get(self, path):
        return self._etcd(path, None)


class KubeApi:
    """A client of one KubeServer: one connection, used again. Objects are dicts as in JSON. For one thread."""

    def __init__(self, server, token):
        self.server, self._token = server, token
        self._context = ssl.create_default_context(cafile=server.authority)
        self._connection = None

    def close(self):
        if self._connection:
            self._connection.close()
        self._connection = None

    def raw(self, method, path, body=None, *, content_type="application/json", deadline=15.0):
        """(status, bytes). A connection that turns out to be dead is replaced once."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": content_type}
        data = None if body is None else body if isinstance(body, (bytes, str)) else json.dumps(body)
        for attempt in (1, 2):
            fresh = self._connection is None
            if fresh:
                connection = http.client.HTTPSConnection(self.server.address, self.server.port, timeout=patience(deadline), context=self._context)
                with self.server.inside():
                    connection.connect()
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connection = connection
            self._connection.sock.settimeout(patience(deadline))
            try:
                self._connection.request(method, path, data, headers)
                answer = self._connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException):
                self.close()
                if fresh or attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def request(self, method, path, body=None, **options):
        """The answer's JSON; ApiError when it is a refusal."""
        code, text = self.raw(method, path, body, **options)
        try:
            answer = json.loads(text)
        except ValueError:
            answer = text.decode(errors="replace")
        if code >= 300:
            raise ApiError(method, path, code, answer)
        return answer

    # Objects by kind.

    def path(self, kind, name=None, namespace=None, subresource=None, **query):
        base, resource, namespaced = KINDS[kind]
        path = base + (f"/namespaces/{namespace or 'default'}" if namespaced and namespace != "*" else "") + f"/{resource}"
        path += (f"/{name}" if name else "") + (f"/{subresource}" if subresource else "")
        return path + ("?" + urllib.parse.urlencode(query) if query else "")

    def get(self, kind, name, namespace=None):
        return self.request("GET", self.path(kind, name, namespace))

    def list(self, kind, namespace="*", **query):
        return self.request("GET", self.path(kind, None, namespace, **query))["items"]

    def create(self, item):
        meta = item["metadata"]
        return self.request("POST", self.path(item["kind"], None, meta.get("namespace"), fieldValidation="Strict"), _with_version(item))

    def replace(self, item):
        meta = item["metadata"]
        return self.request("PUT", self.path(item["kind"], meta["name"], meta.get("namespace"), fieldValidation="Strict"), _with_version(item))

    def patch(self, kind, name, changes, namespace=None, subresource=None):
        """A merge patch: {"metadata": {"labels": {"app": "web", "old": None}}}."""
        return self.request("PATCH", self.path(kind, name, namespace, subresource), changes, content_type="application/merge-patch+json")

    def apply(self, item):
        """Makes it so, new or not (server-side apply). Takes a dict, or the YAML text of one or more objects; returns the (last) object."""
        if isinstance(item, str):
            import yaml  # pylint: disable=import-outside-toplevel
            last = None
            for document in filter(None, yaml.safe_load_all(item)):
                last = self.apply(document)
            return last
        meta = item["metadata"]
        path = self.path(item["kind"], meta["name"], meta.get("namespace"), fieldManager="kit", force="true", fieldValidation="Strict")
        return self.request("PATCH", path, _with_version(item), content_type="application/apply-patch+yaml")

    def delete(self, kind, name, namespace=None, *, grace=0, missing_ok=False):
        """grace=None: the object's own grace period (a pod on a node then stays, terminating)."""
        try:
            return self.request("DELETE", self.path(kind, name, namespace), {} if grace is None else {"gracePeriodSeconds": grace})
        except ApiError as error:
            if not (missing_ok and error.code == 404):
                raise
        return None

    def create_many(self, items, threads=4):
        """As create() for each, several at a time."""
        local = threading.local()

        def one(item):
            if not hasattr(local, "api"):
                local.api = KubeApi(self.server, self._token)
            return local.api.create(item)

        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            return list(pool.map(one, items))

    # What tests need: each makes the object and returns it as stored.

    def namespace(self, name, labels=None, annotations=None):
        return self.apply({"kind": "Namespace", "metadata": {"name": name, "labels": labels or {}, "annotations": annotations or {}}})

    def delete_namespace(self, name):
        """With what is in it, as the namespace controller would."""
        for kind, (_, _, namespaced) in KINDS.items():
            if namespaced and kind not in ("Event", "Lease"):
                for item in self.list(kind, name):
                    self.delete(kind, item["metadata"]["name"], name, missing_ok=True)
        self.delete("Namespace", name)
        item = self.get("Namespace", name)
        item["spec"]["finalizers"] = []
        with contextlib.suppress(ApiError):  # gone already
            self.request("PUT", self.path("Namespace", name, subresource="finalize"), item)

    def node(self, name, addresses=(), pod_cidrs=()):
        spec = {"podCIDR": pod_cidrs[0], "podCIDRs": list(pod_cidrs)} if pod_cidrs else {}
        node = self.apply({"kind": "Node", "metadata": {"name": name}, "spec": spec})
        if addresses:
            node = self.patch("Node", name, {"status": {"addresses": [{"type": "InternalIP", "address": a} for a in addresses]}},
                              subresource="status")
        return node

    def pod(self, name, namespace="default", addresses=(), labels=None, *, annotations=None, account="default", node="node0", host=None,
            ports=(), phase="Running", ready=True, meshed=True, spec=None):
        """A pod as a kubelet would report it: running at `addresses` on `node` (whose address is `host`). ports: (name, number) pairs."""
        container = {"name": "app", "image": "app", "ports": [{"name": n, "containerPort": p} for n, p in ports]}
        item = {"kind": "Pod",
                "metadata": {"name": name, "namespace": namespace, "labels": labels or {},
                             "annotations": {**({"postern.dev/injected": "true"} if meshed else {}), **(annotations or {})}},
                "spec": {"serviceAccountName": account, "nodeName": node, "containers": [container], **(spec or {})}}
        self.create(item)
        return self.pod_status(name, namespace, addresses, host=host, phase=phase, ready=ready)

    def pod_status(self, name, namespace="default", addresses=(), *, host=None, phase="Running", ready=True):
        """What the kubelet writes."""
        status = {"phase": phase, "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
        if addresses:
            status.update({"podIP": addresses[0], "podIPs": [{"ip": a} for a in addresses]})
        if host:
            status.update({"hostIP": host, "hostIPs": [{"ip": host}]})
        return self.patch("Pod", name, {"status": status}, namespace, "status")

    def label(self, kind, name, labels, namespace=None):
        """Sets labels; None removes one."""
        return self.patch(kind, name, {"metadata": {"labels": labels}}, namespace)

    def policy(self, policy, namespace=None):
        """A NetworkPolicy: its YAML text or a dict, in its own namespace or the one given."""
        if isinstance(policy, str):
            import yaml  # pylint: disable=import-outside-toplevel
            policy = yaml.safe_load(policy)
        policy = {"kind": "NetworkPolicy", **policy}
        policy["metadata"] = {**policy["metadata"], **({"namespace": namespace} if namespace else {})}
        return self.apply(policy)

    def service(self, name, namespace="default", *, selector=None, ports=(("http", 80, 80),), **spec):
        """ports: (name, port, targetPort). Further fields of the spec by their names (clusterIP="None", type="NodePort", ...)."""
        return self.apply({"kind": "Service", "metadata": {"name": name, "namespace": namespace},
                           "spec": {**({"selector": selector} if selector else {}), **spec,
                                    "ports": [{"name": n, "port": p, "targetPort": t, "protocol": "TCP"} for n, p, t in ports]}})

    def endpoint_slice(self, service, namespace="default", pods=(), *, ports=(("http", 80),), name=None, ready=True, serving=None,
                       terminating=False, addresses=()):
        """The slice of a Service: endpoints at the pods given (as stored, with status.podIP) and at further addresses."""
        conditions = {"ready": ready, "serving": ready if serving is None else serving, "terminating": terminating}
        endpoints = [{"addresses": [pod["status"]["podIP"]], "conditions": conditions, "nodeName": pod["spec"].get("nodeName"),
                      "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}}
                     for pod in pods]
        endpoints += [{"addresses": [address], "conditions": conditions} for address in addresses]
        text = endpoints[0]["addresses"][0] if endpoints else ""
        return self.apply({"kind": "EndpointSlice",
                           "metadata": {"name": name or f"{service}-1", "namespace": namespace, "labels": {"kubernetes.io/service-name": service}},
                           "addressType": "IPv6" if ":" in text else "IPv4", "endpoints": endpoints,
                           "ports": [{"name": n, "port": p, "protocol": "TCP"} for n, p in ports]})

    def config_map(self, name, namespace, data):
        return self.apply({"kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data})

    def wait_event(self, namespace, reason, deadline=10.0):
        """Waits for an Event with that reason (a regular expression) and returns it."""
        def look():
            return next((event for event in self.list("Event", namespace) if re.fullmatch(reason, event.get("reason", ""))), None)
        return wait_until(look, deadline, f"an Event {reason!r} in {namespace}", interval=0.1)


def _with_version(item):
    base = KINDS[item["kind"]][0]
    return {"apiVersion": base.removeprefix("/apis/") if base.startswith("/apis/") else "v1", **item}


def _openssl(*arguments):
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {' '.join(map(str, arguments))}: {done.stderr}")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
