"""Short forms of the Kubernetes objects that tests publish, and applications to put behind sidecars.

    policies.publish(namespace(), pod_object(web, app="web"), pod_object(api, app="api"),
                     policy("api-allow", app="api", ingress=[allow(app="web", port=7000)]))
    api_app = App(api, 7000)      # echoes; .accepted counts; .last is the socket accepted last
"""

import contextlib
import socket
import threading

from kit.waiting import wait_until


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
    with contextlib.suppress(OSError):
        while data := connection.recv(65536):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)


class App:
    """A server in a pod, both families; every connection is served by `serve` in a thread, then closed."""

    def __init__(self, pod, port, serve=echo):
        self.serve, self.accepted, self.last = serve, 0, None
        self._listeners = [pod.listen(port)] + ([pod.listen(port, "::")] if pod.v6 else [])
        for listener in self._listeners:
            listener.settimeout(None)
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self.last = connection
                self.accepted += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError):
            self.serve(connection)
        connection.close()

    def wait_accepted(self, count):
        wait_until(lambda: self.accepted >= count, what=lambda: f"{count} connections at the application; there were {self.accepted}")

    def close(self):
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept()
            listener.close()


def gone(sock):
    """How a socket's other end went: "fin", "reset", or bytes that came first."""
    try:
        return sock.recv(65536) or "fin"
    except ConnectionResetError:
        return "reset"


def attempt(pod, address, port, data=b"ping", **options):
    """One connection of the pod's application: what came back, "fin", "reset" or "refused"."""
    try:
        with pod.connect(address, port, **options) as s:
            s.sendall(data)
            return gone(s)
    except ConnectionRefusedError:
        return "refused"
    except (ConnectionResetError, BrokenPipeError):
        return "reset"
