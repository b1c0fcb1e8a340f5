"""A small mesh for end-to-end tests: pods with sidecars and pods without, their manifests, and policies that are in force when asked for.

    mesh = Mesh("web", "api", without=("plain",), config={...})   # every sidecar runs
    mesh.apply(deny("api", "Ingress"))                            # waits until every sidecar enforces it; apply() allows everything
    port, listener = mesh.listen("api")                           # a port that no test used before
    mesh.sidecars["api"].wait_record(...)
"""

from kit.pki import Authority
from kit.pods import Network
from kit.sidecar import PolicyDirectory, Sidecar
from kit.waiting import wait_until

INJECTED = "postern.dev/injected"


def allow(name, ports=None, sources=None):
    """Ingress to the pods of that name: on these ports, from pods of these names; None is every one."""
    rule = {}
    if ports is not None:
        rule["ports"] = [{"port": port} for port in ports]
    if sources is not None:
        rule["from"] = [{"podSelector": {"matchLabels": {"app": source}}} for source in sources]
    return _policy(f"{name}-allow", name, "Ingress", [rule])


def deny(name, policy_type):
    """Isolates the pods of that name in that direction, "Ingress" or "Egress", and allows nothing."""
    return _policy(f"{name}-deny-{policy_type.lower()}", name, policy_type, [])


def _policy(policy, name, policy_type, rules):
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": policy, "namespace": "default"},
            "spec": {"podSelector": {"matchLabels": {"app": name}}, "policyTypes": [policy_type], policy_type.lower(): rules}}


def service(name, address, selector, port):
    """A Service of that ClusterIP for the pods labelled `service: selector`."""
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"clusterIP": address, "clusterIPs": [address], "selector": {"service": selector}, "ports": [{"port": port, "protocol": "TCP"}]}}


class Mesh:
    """Pods by name in `pods`, sidecars in `sidecars`. `more` are manifests that every apply() publishes too."""

    def __init__(self, *names, without=(), config=None, configs=None, labels=None, more=(), start=True):
        self.net = Network()
        self.authority = Authority(f"{self.net.folder}/ca", "cluster.local")
        self.pods = {name: self.net.pod(name) for name in (*names, *without)}
        self.policies = PolicyDirectory(f"{self.net.folder}/policies")
        self.sidecars, self._port = {}, 7000
        self.manifests = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}]
        self.manifests += [self.pod_manifest(name, name in names, (labels or {}).get(name, {})) for name in self.pods]
        self.manifests += more
        self.policies.publish(*self.manifests)
        for name in names:
            self.sidecars[name] = Sidecar(self.pods[name], self.authority, self.policies, pod_uid=f"uid-{name}",
                                          config={"drainPeriod": "1s", **(config or {}), **(configs or {}).get(name, {})})
        if start:
            for sidecar in self.sidecars.values():
                sidecar.start()

    def pod_manifest(self, name, meshed, labels):
        pod = self.pods[name]
        return {"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "labels": {"app": name, **labels},
                             "annotations": {INJECTED: "true"} if meshed else {}},
                "spec": {"containers": [{"name": "app", "image": "app"}]},
                "status": {"phase": "Running", "podIPs": [{"ip": address} for address in pod.addresses()]}}

    def apply(self, *policies):
        """Replaces the policies; every sidecar that runs enforces them on return."""
        running = [s for s in self.sidecars.values() if s.process and s.process.alive()]
        before = [s.output().count("policy_enforced") for s in running]
        self.policies.publish(*self.manifests, *policies)
        for sidecar, count in zip(running, before):
            wait_until(lambda s=sidecar, n=count: s.output().count("policy_enforced") > n, 10,
                       lambda s=sidecar: f"policy in force at {s.pod.name}:\n{s.output()[-2000:]}")

    def rotate(self, name):
        """Gives the sidecar a new SVID; it is in use on return."""
        sidecar = self.sidecars[name]
        before = sidecar.output().count("identity_adopted")
        sidecar.rotate(self.authority.issue(sidecar.spiffe_id))
        wait_until(lambda: sidecar.output().count("identity_adopted") > before, 10, lambda: f"SVID adopted:\n{sidecar.output()[-2000:]}")

    def new_port(self):
        self._port += 1
        return self._port

    def listen(self, name, v6=False, **options):
        """A port and the listening socket of an application in that pod."""
        port = self.new_port()
        return port, self.pods[name].listen(port, "::" if v6 else "", **options)

    def metric(self, name, metric, **labels):
        """The sum of the samples of one metric that have these labels."""
        status, text = self.sidecars[name].health("/metrics")
        if status != 200:
            raise RuntimeError(f"/metrics: {status} {text}")
        total = 0.0
        for line in text.splitlines():
            if line.startswith(metric) and line[len(metric)] in " {" and all(f'{k}="{v}"' in line for k, v in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def close(self):
        self.net.close()
