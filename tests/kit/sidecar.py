"""postern-proxy in a pod: configuration, identity files, policy directory, redirection, access log and admin socket.

    ca = Authority(f"{net.folder}/ca")
    policies = PolicyDirectory(f"{net.folder}/policies")
    policies.publish(*manifests)                       # dicts (Kubernetes objects) or YAML text; replaced in one step
    sidecar = Sidecar(web, ca, policies, pod_uid="u1") # writes everything; nothing runs yet
    sidecar.start()                                    # redirect install, then the proxy as uid 1337, waits for its ports
    sidecar.wait_record(direction="inbound", **{"close.reason": "denied"})
    sidecar.admin("GET", "/connections")               # (status, decoded JSON or text)
    sidecar.rotate(ca.issue(...)); policies.publish(...); sidecar.process.kill(); sidecar.start()

The programs are those of the environment's POSTERN_BUILD (a build tree; default: build/release of this checkout).
"""

import http.client
import json
import os
import re
import shutil
import signal
import socket

from kit.waiting import patience, wait_until

PROXY_UID = 1337
INBOUND, OUTBOUND, HEALTH = 15006, 15001, 15020


def program(name):
    """The path of postern-proxy, posternctl or postern-control in the tree under test."""
    tree = os.environ.get("POSTERN_BUILD") or os.path.abspath(f"{os.path.dirname(__file__)}/../../build/release")
    path = f"{tree}/{ {'postern-proxy': 'proxy', 'posternctl': 'cli', 'postern-control': 'control'}[name] }/{name}"
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: build it first (./dev build), or say where with POSTERN_BUILD")
    return path


def spiffe_id(trust_domain, namespace, service_account, pod=None, pod_uid=None):
    """The SPIFFE ID of a pod in the form of the built-in CA, or of a service account."""
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}" + (f"/pod/{pod}" if pod else "") + (f"/{pod_uid}" if pod_uid else "")


def replace_link(link, target):
    """Makes `link` point to `target` in one step, as Kubernetes does it for its volumes."""
    os.symlink(target, f"{link}.new")
    os.rename(f"{link}.new", link)


class Versions:
    """A folder whose content is replaced in one step: `path` is a symbolic link to the newest of path.1, path.2, ..."""

    def __init__(self, path):
        self.path, self._number = str(path), 0

    def replace(self, write):
        """write(folder) fills the next version."""
        self._number += 1
        folder = f"{self.path}.{self._number}"
        os.mkdir(folder)
        os.chmod(folder, 0o755)
        write(folder)
        replace_link(self.path, os.path.basename(folder))
        shutil.rmtree(f"{self.path}.{self._number - 2}", ignore_errors=True)  # the one before may still be being read


class PolicyDirectory(Versions):
    """Policies and topology as manifests. JSON is YAML: objects are written as JSON, texts as they are."""

    def publish(self, *manifests):
        """Replaces all of them: each a Kubernetes object (dict) or the text of a YAML file."""
        def write(folder):
            for index, manifest in enumerate(manifests):
                with open(f"{folder}/{index:03}.yaml", "w", encoding="utf-8") as file:
                    file.write(manifest if isinstance(manifest, str) else json.dumps(manifest, indent=1) + "\n")
        self.replace(write)


def merged(base, more):
    """`base` with the fields of `more` put over it, mapping by mapping."""
    out = dict(base)
    for key, value in more.items():
        out[key] = merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path, timeout=10.0):
        super().__init__("localhost", timeout=patience(timeout))
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def exchange(connection, method, route, body):
    try:
        connection.request(method, route, body=None if body is None else json.dumps(body))
        response = connection.getresponse()
        text = response.read().decode()
        is_json = response.headers.get("Content-Type", "").startswith("application/json")
        return response.status, json.loads(text) if is_json else text
    finally:
        connection.close()


def sum_of_samples(text, name, **labels):
    """Of Prometheus' text: the sum of the samples of that name whose labels have these values."""
    total = 0.0
    for line in text.splitlines():
        found = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? (\S+)", line)
        if found and found[1] == name:
            seen = dict(re.findall(r'([a-z_]+)="([^"]*)"', found[2] or ""))
            if all(seen.get(k) == v for k, v in labels.items()):
                total += float(found[3])
    return total


class Sidecar:
    """The sidecar of one pod. `config` is put over the configuration that is written (see ./postern-proxy --print-config); without an
    authority it has no identity, without policies or `control` (addresses of kit.control replicas) no policy."""

    def __init__(self, pod, authority=None, policies=None, *, namespace="default", service_account="default", pod_uid=None, name=None,
                 trust_domain=None, config=None, redirect=(), uid=PROXY_UID, control=()):
        self.pod, self.uid, self.redirect = pod, uid, list(redirect)
        self.folder = f"{pod.folder}/sidecar"
        os.mkdir(self.folder)
        os.chown(self.folder, uid, uid)
        self.log_path = f"{self.folder}/access.log"
        self.admin_path = f"{self.folder}/admin.sock"
        self.process = None
        trust_domain = trust_domain or (authority.trust_domain if authority else "example.org")
        self.spiffe_id = spiffe_id(trust_domain, namespace, service_account, name or pod.name, pod_uid)
        self.config = {
            "workload": {"namespace": namespace, "name": name or pod.name},
            "listen": {"inbound": INBOUND, "outbound": OUTBOUND, "health": HEALTH, "adminSocket": self.admin_path},
            "mesh": {"trustDomain": trust_domain},
            "accessLog": {"path": self.log_path},
            "workers": 2,
        }
        if policies:
            self.config["policyDir"] = policies.path
        if control:
            self.state_folder = f"{self.folder}/state"
            os.mkdir(self.state_folder, 0o700)
            os.chown(self.state_folder, uid, uid)
            self.config["control"] = {"addresses": list(control), "stateDir": self.state_folder}
        self._identity = Versions(f"{self.folder}/identity")
        if authority:
            self.rotate(authority.issue(self.spiffe_id))
            self.config["identity"] = {key: f"{self._identity.path}/{file}" for key, file in
                                       (("certificate", "svid.pem"), ("key", "svid.key"), ("bundle", "bundle.pem"))}
        self.config = merged(self.config, config or {})

    def rotate(self, svid):
        """Replaces the identity files in one step; a running proxy takes them up by itself."""
        self._identity.replace(lambda folder: svid.write(folder, self.uid))

    def configure(self, **changes):
        """Puts `changes` over the configuration; they count from the next start()."""
        self.config = merged(self.config, changes)

    def install_redirect(self, *more):
        """postern-proxy redirect install, in the pod."""
        self.pod.run([program("postern-proxy"), "redirect", "install", "--uid", self.uid, *self.redirect, *more], check=True)

    def remove_redirect(self):
        self.pod.run([program("postern-proxy"), "redirect", "remove"], check=True)

    def start(self, *, redirect=True, wait=True, arguments=(), env=None):
        """Starts the proxy as its uid and (with wait) waits until it listens. Returns the process."""
        path = f"{self.folder}/postern.yaml"
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.config, file, indent=2)
        if redirect:
            self.install_redirect()
        self.process = self.pod.start([program("postern-proxy"), "--config", path, *arguments], uid=self.uid, env=env)
        if wait:
            listen = self.config["listen"]
            self.pod.wait_listening(listen["inbound"], listen["outbound"], process=self.process, deadline=20)
        return self.process

    def stop(self, deadline=40.0):
        """SIGTERM, and the exit status."""
        return self.process.stop(signal.SIGTERM, deadline)

    def output(self):
        """What the proxy said on standard error."""
        return self.process.output() if self.process else ""

    def records(self, **fields):
        """The access records so far whose fields have these values (a function: for which it is true), in order."""
        if not os.path.exists(self.log_path):
            return []
        with open(self.log_path, encoding="utf-8") as file:
            lines = file.read().split("\n")[:-1]  # what follows the last newline is not written out yet
        return [r for r in map(json.loads, lines) if all(v(r.get(k)) if callable(v) else r.get(k) == v for k, v in fields.items())]

    def wait_record(self, deadline=10.0, count=1, **fields):
        """Waits for that many such records and returns the last. Field names have dots: wait_record(**{"close.reason": "denied"})."""
        def look():
            found = self.records(**fields)
            return found[-1] if len(found) >= count else None
        def all_records():
            return (f"{count} access record(s) of {self.pod.name} with {fields}; there are:\n" +
                    "\n".join(json.dumps(r) for r in self.records()[-20:]) + f"\n{self.output()[-2000:]}")
        return wait_until(look, deadline, all_records)

    def admin(self, method, route, body=None):
        """Asks the admin socket: (status, decoded JSON, or text where it is none)."""
        return exchange(UnixConnection(self.admin_path), method, route, body)

    def health(self, route, *, pod=None, address=None):
        """Asks the health port, from this pod (over loopback) or from another: (status, decoded JSON or text)."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = (pod or self.pod).connect(address or (self.pod.v4 if pod else "127.0.0.1"), self.config["listen"]["health"])
        return exchange(connection, "GET", route, None)

    def wait_ready(self, deadline=20.0):
        """Waits until /readyz says so."""
        last = {}
        def look():
            last["seen"] = self.health("/readyz")
            return last["seen"][0] == 200
        wait_until(look, deadline, lambda: f"{self.pod.name} ready; last: {last}\n{self.output()[-4000:]}")
