"""postern-control, for tests, the demo and the benchmarks.

    control = Control(folder, kube.kubeconfig, authority)                   # on this machine's loopback; any free ports
    control = Control(folder, kube.kubeconfig, authority, pod=net.pod("control-1"))   # in a kit pod: pod.v4:15010
    control.start(); control.wait_ready()
    control.address                    # "host:port" of the sidecars' stream
    control.admin("GET", "/policies")  # (status, decoded JSON or text)
    control.kill(); control.start()    # SIGKILL, and again
"""

import json
import os
import signal
import socket

from kit.processes import Process
from kit.sidecar import PROXY_UID, UnixConnection, Versions, exchange, merged, program, sum_of_samples
from kit.waiting import wait_until

STREAM, HEALTH, SIGNING = 15010, 15011, 15012


class Control:
    """One replica. `config` is put over the configuration that is written (see postern-control --print-config). Without an authority it has
    the built-in one: its own Secret in the cluster."""

    def __init__(self, folder, kubeconfig, authority=None, *, pod=None, config=None, replica=None, uid=PROXY_UID):
        self.folder, self.pod, self.uid, self.process = str(folder), pod, uid, None
        self.replica = replica or (pod.name if pod else "control")
        os.makedirs(self.folder, exist_ok=True)
        os.chown(self.folder, uid, uid)
        self.admin_path = f"{self.folder}/admin.sock"
        stream, health, signing = (STREAM, HEALTH, SIGNING) if pod else (free_port(), free_port(), free_port())
        self.address = f"{pod.v4 if pod else '127.0.0.1'}:{stream}"
        self.health_address = (pod.v4 if pod else "127.0.0.1", health)
        self.signing_address = f"{pod.v4 if pod else '127.0.0.1'}:{signing}"
        trust_domain = authority.trust_domain if authority else "cluster.local"
        self.spiffe_id = f"spiffe://{trust_domain}/postern/control"
        identity = {"authority": {"enabled": True}}
        if authority:
            self._identity = Versions(f"{self.folder}/identity")
            self.rotate(authority.issue(self.spiffe_id))
            identity = {"identity": {key: f"{self._identity.path}/{file}" for key, file in
                                     (("certificate", "svid.pem"), ("key", "svid.key"), ("bundle", "bundle.pem"))}}
        own_kubeconfig = f"{self.folder}/kubeconfig"
        with open(kubeconfig, encoding="utf-8") as file:
            text = file.read()
        # The program runs as a user of its own: what it is to read must be its own, too.
        settings = json.loads(text)
        cluster = settings["clusters"][0]["cluster"]
        authority_file = f"{self.folder}/kube-ca.crt"
        with open(cluster["certificate-authority"], encoding="ascii") as source, open(authority_file, "w", encoding="ascii") as out:
            out.write(source.read())
        cluster["certificate-authority"] = authority_file
        with open(own_kubeconfig, "w", encoding="utf-8") as file:
            json.dump(settings, file)
        os.chown(own_kubeconfig, uid, uid)
        self.config = merged({
            "listen": {"stream": stream, "health": health, "signing": signing, "adminSocket": self.admin_path},
            **identity,
            "mesh": {"trustDomain": trust_domain},
            "kubeconfig": own_kubeconfig,
            "replica": self.replica,
        }, config or {})

    def rotate(self, svid):
        """Replaces the identity files in one step."""
        self._identity.replace(lambda folder: svid.write(folder, self.uid))

    def start(self, *, wait=True, arguments=()):
        path = f"{self.folder}/control.yaml"
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.config, file, indent=2)
        start = self.pod.start if self.pod else Process
        self.process = start([program("postern-control"), "--config", path, *arguments], uid=self.uid, name=self.replica)
        if wait:
            self.wait_ready()
        return self.process

    def stop(self, deadline=10.0):
        """SIGTERM, and the exit status."""
        return self.process.stop(signal.SIGTERM, deadline)

    def kill(self):
        """As a crash would: SIGKILL."""
        self.process.kill()

    def output(self):
        return self.process.output() if self.process else ""

    def admin(self, method, route, body=None):
        """Asks the admin socket: (status, decoded JSON, or text where it is none)."""
        return exchange(UnixConnection(self.admin_path), method, route, body)

    def wait_ready(self, deadline=30.0):
        """Waits until it has seen every kind of object and serves sidecars."""
        def look():
            if not self.process.alive():
                return "ended"
            return self.admin("GET", "/readyz")[0] == 200
        if wait_until(look, deadline, lambda: f"{self.replica} ready:\n{self.output()[-3000:]}") == "ended":
            raise RuntimeError(f"{self.replica} has ended with {self.process.returncode}:\n{self.output()[-3000:]}")

    def metric(self, name, **labels):
        """The sum of the samples of that name whose labels have these values."""
        return sum_of_samples(self.admin("GET", "/metrics")[1], name, **labels)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
