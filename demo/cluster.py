"""The demo's application in a real cluster: a kubelet and containerd run it as Deployments, Postern is installed by its chart, and the webhook has
put the sidecars into the pods. It has what the steps use of application.Application."""

import base64
import functools
import json
import os
import pathlib
import string
import textwrap

from application import HERE, OFFER, PODS, POLICIES, PYTHON, TRUST_DOMAIN, in_audit
from kit.image import Image
from kit.installed import NAMESPACE, Installed
from kit.node import Node, program
from kit.pki import Authority, Svid
from kit.pods import Network
from kit.sidecar import PROXY_UID, spiffe_id

IMAGE = "docker.io/postern-demo/application:1"


def selector(pod):
    """The labels by which that Deployment's pods are found."""
    return f"app={pod}" if PODS[pod][0] == "default" else f"app.kubernetes.io/name={pod}"


def application_image():
    """nginx, Redis and Python as this machine has them, and what is needed to look around."""
    python = os.path.basename(os.path.realpath(PYTHON))
    image = Image(IMAGE).add("/usr/sbin/nginx", "/usr/bin/redis-server", "/usr/bin/redis-cli", PYTHON, "/usr/bin/curl", "/usr/bin/sh", "/usr/bin/sleep", "/usr/bin/cat")
    image.add(f"/usr/lib/{python}", *(f"/usr/lib/python3/dist-packages/{name}" for name in ("redis", "packaging", "async_timeout")),
              leave_out=("test", "__pycache__", "ensurepip", "idlelib", "tkinter", "lib2to3", "pydoc_data"))
    return image.add_text("/etc/passwd", "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")


class Cluster:
    """Everything that runs. close() removes it; so does the end of this process, whatever ends it."""

    change = "kubectl apply of the one, kubectl delete of the other."
    from_change = "From the change at the API server"

    def __init__(self, name, manifests):
        self.source = self
        self.manifests = manifests
        self.net = Network(name)
        self.node = Node(self.net.pod("node"))
        self.api = self.node.api
        self.node.load(application_image().write(f"{self.net.folder}/application.tar"))
        self.postern = Installed(self.node)
        self.publish(["frontend-allow"], {})
        self.deploy()
        self.look()
        self._wait_enforced()

    def close(self):
        self.node.close()
        self.net.close()

    def deploy(self):
        text = pathlib.Path(HERE, "cluster/application.yaml").read_text(encoding="utf-8")
        source = textwrap.indent(pathlib.Path(HERE, "backend.py").read_text(encoding="utf-8"), "    ").lstrip()
        values = {"image": IMAGE, "offer": OFFER, "backend_py": source}
        self.node.kubectl("apply", "--server-side", "-f", "-", stdin=string.Template(text).substitute(values))

    def look(self):
        """Who is there now: pods of the same Deployments that took the place of others get their names here."""
        self.pods = {pod: self.postern.pod(PODS[pod][0], selector(pod)) for pod in PODS}
        self.sidecars = self.pods  # both in one: kit.installed.PodOnNode
        self.names = {pod: at.name for pod, at in self.pods.items()}

    def manifest(self, name, audited):
        text = pathlib.Path(self.manifests, f"{name}.yaml").read_text(encoding="utf-8")
        return in_audit(text, audited[name]) if name in audited else text

    def publish(self, frontend_policies, audited):
        wanted = [*POLICIES, *frontend_policies]
        self.generations = {name: self.api.apply(self.manifest(name, audited))["metadata"]["generation"] for name in wanted}
        self.deleted = [item["metadata"]["name"] for item in self.api.list("NetworkPolicy", "default") if item["metadata"]["name"] not in wanted]
        for name in self.deleted:
            self.api.delete("NetworkPolicy", name, "default")

    def adopt(self, *frontend_policies, audited=None):
        """Replaces the policies: those that always hold, and these. Returns how to wait until every sidecar enforces them."""
        self.publish(frontend_policies, audited or {})
        return self._wait_enforced

    def _wait_enforced(self):
        wanted = [(f"default/{name}", "--generation", str(generation)) for name, generation in self.generations.items()]
        wanted += [(f"default/{name}", "--absent") for name in self.deleted]
        for arguments in wanted:
            done = self.postern.status("--wait", "--deadline", "15s", *arguments)
            if done.returncode != 0:
                raise TimeoutError(f"posternctl status --wait {' '.join(arguments)}: {done.stdout}{done.stderr}")

    @functools.cached_property
    def authority(self):
        """The cluster's own certificate authority, with its key: only an administrator of postern-system can read it."""
        secret = self.api.get("Secret", "postern-authority", NAMESPACE)["data"]
        files = json.loads(base64.b64decode(secret["authority.json"]))["active"]
        return Authority.below(Svid("", files["chain"], files["key"], files["roots"]), f"{self.net.folder}/authority", TRUST_DOMAIN)

    def bound_svid(self, pod, uid=None, authority=None, **how):
        """An SVID of that pod, or of one of the same name and another UID."""
        namespace, account = PODS[pod]
        return (authority or self.authority).issue(spiffe_id(TRUST_DOMAIN, namespace, account, self.names[pod], uid or self.pods[pod].uid), **how)

    def own_credentials(self, pod):
        """Certificate and key of that pod, for present()."""
        return self.bound_svid(pod).write(f"{self.net.folder}/presented/own", PROXY_UID)[:2]

    def present(self, address, port, *credentials):
        """Runs present.py in the intruder's network, as the user whose connections are not redirected."""
        copy = f"{self.net.folder}/present.py"
        if not os.path.exists(copy):
            pathlib.Path(copy).write_text(pathlib.Path(HERE, "present.py").read_text(encoding="utf-8"), encoding="utf-8")
        return self.pods["intruder"].run([PYTHON, copy, address, port, *credentials], uid=PROXY_UID, check=True).stdout

    def accepted_by_backend(self):
        """How many connections backend's server has accepted so far, but for probes."""
        return self.pods["backend"].output("catalogue").count("accepted\n")

    def by_hand(self):
        """How a person goes on: commands, for --hold."""
        kubectl = f"ip netns exec {self.net.pods['node'].namespace} {program()} kubectl --kubeconfig {self.node.kube.kubeconfig}"
        return f"""  # what each may reach
  {kubectl} exec deploy/intruder -c shell -- curl -sS http://frontend:8000/
  {kubectl} exec deploy/intruder -c shell -- curl -sS http://backend/catalogue
  {kubectl} exec -n ingress-nginx deploy/ingress-nginx -c controller -- curl -sS http://127.0.0.1/catalogue

  # who is there, and what the sidecars say
  {kubectl} get pods -A -o wide
  {kubectl} logs deploy/backend -c postern-proxy

  # another policy
  {kubectl} delete networkpolicy frontend-allow"""
