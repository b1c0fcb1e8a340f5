"""Short forms of the Kubernetes objects that tests publish, and applications to put behind sidecars.

    policies.publish(namespace(), pod_object(web, app="web"), pod_object(api, app="api"),
                     policy("api-allow", app="api", ingress=[allow(app="web", port=7000)]))
    api_app = App(api, 7000)      # echoes; .accepted counts, .ends says how each connection ended: "fin" or "reset"
"""

import contextlib
import socket
import threading

from kit.peer import as_uid
from kit.pki import Authority
from kit.pods import Network
from kit.sidecar import PolicyDirectory, Sidecar, merged, spiffe_id, sum_of_samples
from kit.waiting import patience, wait_until


def namespace(name="default", annotations=None, **labels):
    return {"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, **labels}, "annotations": annotations or {}}}


def pod_object(pod, *, name=None, ns="default", uid=None, account=None, meshed=True, annotations=None, containers=None, addresses=None, **labels):
    """The record of a kit pod (or of any name and addresses). Its UID is "u-<name>" unless said otherwise."""
    name = name or pod.name
    addresses = pod.addresses() if addresses is None else addresses
    spec = {"containers": containers or [{"name": "app", "image": "app"}]}
    if account:
        spec["serviceAccountName"] = account
    return {"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": ns, "uid": uid or f"u-{name}", "labels": labels,
                         "annotations": {**({"postern.dev/injected": "true"} if meshed else {}), **(annotations or {})}},
            "spec": spec, "status": {"phase": "Running", "podIPs": [{"ip": a} for a in addresses]}}


def allow(port=None, *, block=None, everybody=False, ns=None, **labels):
    """A rule: peers with these labels (or a CIDR, or everybody) and a port (number or name)."""
    rule = {}
    if block:
        rule["peers"] = [{"ipBlock": {"cidr": block}}]
    elif not everybody:
        peer = {"podSelector": {"matchLabels": labels}}
        if ns is not None:
            peer["namespaceSelector"] = {"matchLabels": ns}
        rule["peers"] = [peer]
    if port is not None:
        rule["ports"] = [{"port": port}]
    return rule


def policy(name, *, ns="default", ingress=None, egress=None, annotations=None, **labels):
    """A NetworkPolicy on the pods with these labels. A direction given, even as [], isolates."""
    spec = {"podSelector": {"matchLabels": labels}, "policyTypes": []}
    for direction, word, rules in (("ingress", "from", ingress), ("egress", "to", egress)):
        if rules is None:
            continue
        spec["policyTypes"].append(direction.capitalize())
        spec[direction] = [{(word if k == "peers" else k): v for k, v in rule.items()} for rule in rules]
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": ns, "annotations": annotations or {}}, "spec": spec}


def echo(connection):
    """Sends back what arrives, and its end."""
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


class App:
    """A server in a pod, both families; every connection is served by `serve` in a thread, then closed."""

    def __init__(self, pod, port, serve=echo):
        self.serve, self.accepted, self.ends = serve, 0, []
        self._listeners = [pod.listen(port)] + ([pod.listen(port, "::")] if pod.v6 else [])
        for listener in self._listeners:
            listener.settimeout(None)
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self.accepted += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            self.serve(connection)
            self.ends.append("fin")
        except OSError:
            self.ends.append("reset")
        finally:
            connection.close()

    def wait_end(self, count):
        """How the count-th connection to end did: "fin" or "reset"."""
        wait_until(lambda: len(self.ends) >= count, what=lambda: f"{count} connections to end at the application; it was {self.ends}")
        return self.ends[count - 1]

    def close(self):
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept()
            listener.close()


def knock(pod, address, port, data=b"", *, uid=0, source=None):
    """One connection by that uid, from that address of the pod, that sends `data`: (its own port, how it went). A refusal may come before connect() has
    returned."""
    with pod.entered(), as_uid(uid):
        s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    with s:
        s.settimeout(patience(10.0))
        s.bind((source or ("::" if ":" in address else "0.0.0.0"), 0))
        own = s.getsockname()[1]
        try:
            s.connect((address, port))
            s.sendall(data)
            return own, gone(s)
        except ConnectionRefusedError:
            return own, "refused"
        except (ConnectionResetError, BrokenPipeError):
            return own, "reset"


def gone(sock):
    """How a socket's other end went: "fin", "reset", or bytes that came first."""
    try:
        return sock.recv(65536) or "fin"
    except ConnectionResetError:
        return "reset"


class Cluster:
    """Pods with and without sidecars under one authority and one policy directory, for a class of tests.

        cluster = Cluster()
        api = cluster.pod("api", sidecar=True, app="api")    # with a record; the sidecar starts with start()
        cluster.publish(policy(...), ...)                    # with the namespace and every pod's record; returns when it is enforced
        cluster.start()
    """

    def __init__(self, trust_domain="example.org", config=None):
        self.net = Network()
        self.ca = Authority(f"{self.net.folder}/ca", trust_domain)
        self.policies = PolicyDirectory(f"{self.net.folder}/policies")
        self.config = config or {}
        self.sidecars, self.records, self.apps = {}, {}, []
        self.namespace = namespace()

    def pod(self, name, *, sidecar=False, config=None, record=True, addresses=(), account="default", redirect=(), policies=True, **fields):
        """A pod. `fields` are those of pod_object(): its labels, above all."""
        pod = self.net.pod(name, addresses=addresses)
        if record:
            self.records[name] = pod_object(pod, account=account, **fields)
        if sidecar:
            self.sidecars[name] = Sidecar(pod, self.ca, self.policies if policies else None, pod_uid=f"u-{name}", service_account=account,
                                          config=merged(merged({"drainPeriod": "300ms"}, self.config), config or {}), redirect=redirect)
        return pod

    def relabel(self, pod, **labels):
        """For the next publish()."""
        self.records[pod.name]["metadata"]["labels"] = labels

    def id_of(self, pod, uid=None):
        name = pod if isinstance(pod, str) else pod.name
        return spiffe_id(self.ca.trust_domain, "default", "default", name, uid or f"u-{name}")

    def svid(self, pod, **options):
        """A valid SVID of that pod."""
        return self.ca.issue(self.id_of(pod), **options)

    def app(self, pod, port, serve=echo):
        self.apps.append(App(pod, port, serve))
        return self.apps[-1]

    def publish(self, *manifests, wait=True):
        """Replaces all manifests by these, the namespace and the pods' records; waits until every running sidecar enforces them."""
        running = [s for s in self.sidecars.values() if s.process is not None and s.process.alive() and "policyDir" in s.config]
        before = {s: generation(s) for s in running}
        self.policies.publish(self.namespace, *self.records.values(), *manifests)
        if wait:
            for s in running:
                wait_until(lambda s=s: generation(s) > before[s],
                           what=lambda s=s: f"{s.pod.name} enforcing what was published:\n{s.output()[-3000:]}")

    def start(self):
        """Starts every sidecar that does not run."""
        started = [s for s in self.sidecars.values() if s.process is None or not s.process.alive()]
        for s in started:
            s.start(wait=False)
        for s in started:
            s.pod.wait_listening(*(s.config["listen"][k] for k in ("inbound", "outbound", "health")), process=s.process, deadline=20)

    def close(self):
        for app in self.apps:
            app.close()
        self.net.close()


def generation(sidecar):
    """Of the policy that every worker of the sidecar enforces; 0: none."""
    return sidecar.admin("GET", "/allow-list")[1].get("enforced_generation", 0)


def metric(sidecar, name, **labels):
    """The sum of the samples of that name whose labels have these values."""
    return sum_of_samples(sidecar.admin("GET", "/metrics")[1], name, **labels)
