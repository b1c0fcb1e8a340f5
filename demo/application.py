"""The application of the demo: five pods with real servers, each with its sidecar, and where the sidecars have their policies from."""

import os
import shutil
import string
import uuid

from kit.pki import Authority
from kit.pods import Network
from kit.sidecar import PROXY_UID, Sidecar, Versions, program, spiffe_id
from kit.waiting import wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"  # Debian's, which has the Redis client
APPLICATION_UID = 65534      # "nobody": the servers run as an ordinary user
TRUST_DOMAIN = "cluster.local"
OFFER = "a postern is the small door in the wall"

# Pod: its namespace and service account.
PODS = {
    "frontend": ("default", "default"),
    "backend": ("default", "default"),
    "database": ("default", "default"),
    "intruder": ("default", "default"),
    "ingress-nginx": ("ingress-nginx", "ingress-nginx"),
}
POLICIES = ("default-deny", "backend-allow", "database-allow", "intruder-egress")  # those that always hold


def in_audit(manifest, replaced):
    """What `kubectl annotate networkpolicy NAME postern.dev/enforcement=audit postern.dev/replaces=REPLACED` makes of a policy."""
    annotations = f"{{postern.dev/enforcement: audit, postern.dev/replaces: {replaced}}}"
    return manifest.replace("metadata:\n", f"metadata:\n  annotations: {annotations}\n", 1)


class ManifestFolder:
    """Stand-alone: every sidecar reads one folder of manifests, which is replaced in one step."""

    programs = ("postern-proxy", "posternctl")
    change = "One atomic change of the policy directory."
    from_change = "From the change of the directory"

    def __init__(self, application):
        self.application = application
        self.uids = {pod: str(uuid.uuid4()) for pod in PODS}
        self.versions = Versions(f"{application.net.folder}/policies")

    def sidecar_options(self):
        return {"policies": self.versions}

    def publish(self, frontend_policies, audited):
        def write(folder):
            for name in ("topology", *POLICIES, *frontend_policies):
                with open(f"{folder}/{name}.yaml", "w", encoding="utf-8") as file:
                    file.write(self.application.manifest(name, audited))
        self.versions.replace(write)

    def adopt(self, publish):
        """Calls `publish`, and returns how to wait until every sidecar enforces what it published."""
        before = self._generations()
        publish()
        return lambda: wait_until(lambda: all(now > before[pod] for pod, now in self._generations().items()), 10,
                                  "every sidecar to enforce the policies")

    def _generations(self):
        """Of the policy that every worker of each sidecar has in force."""
        return {pod: sidecar.admin("GET", "/allow-list")[1].get("enforced_generation", 0) for pod, sidecar in self.application.sidecars.items()}

    def by_hand(self):
        """How a person changes the policies: for --hold."""
        path, folder = self.versions.path, self.application.net.folder
        return f"""  # another policy: a copy of the folder, an edit, and the link swapped in one step
  cp -r {path}/ {folder}/mine && rm {folder}/mine/frontend-allow.yaml
  ln -s mine {path}.new && mv -T {path}.new {path}"""


class Application:
    """Everything that runs. close() removes it; so does the end of this process, whatever ends it."""

    def __init__(self, name, manifests, source=ManifestFolder):
        self.manifests = manifests
        self.net = Network(name)
        self._readable_programs(source.programs)
        self.pods = {pod: self.net.pod(pod) for pod in PODS}
        self.names = {pod: pod for pod in PODS}  # as the records have them
        self.authority = Authority(f"{self.net.folder}/ca", TRUST_DOMAIN, name="demo CA")
        self.source = source(self)
        self.uids = self.source.uids
        self.values = {}
        for pod, at in self.pods.items():
            key = pod.replace("-", "_")
            self.values |= {f"{key}_v4": at.v4, f"{key}_v6": at.v6, f"{key}_uid": self.uids[pod]}
        self.source.publish(["frontend-allow"], {})
        self.sidecars = {}
        for pod, (namespace, account) in PODS.items():
            self.sidecars[pod] = Sidecar(self.pods[pod], self.authority, namespace=namespace, service_account=account, pod_uid=self.uids[pod],
                                         config={"workers": 1, "drainPeriod": "1s"}, **self.source.sidecar_options())
        self._start_servers()
        for sidecar in self.sidecars.values():
            sidecar.start(wait=False)
        for sidecar in self.sidecars.values():
            sidecar.wait_ready()

    def close(self):
        self.net.close()

    def _readable_programs(self, names):
        """The pods' programs run as users of their own, who may not be let into the folder of this checkout (/root is one)."""
        programs = {name: program(name) for name in names}
        tree = os.path.dirname(os.path.dirname(programs["postern-proxy"]))
        self.programs = f"{self.net.folder}/programs/{os.path.basename(tree)}"  # its name tells the kit how slow they are
        for source in programs.values():
            folder = f"{self.programs}/{os.path.basename(os.path.dirname(source))}"
            os.makedirs(folder)
            shutil.copy(source, folder)
        for name in ("backend.py", "present.py"):
            shutil.copy(f"{HERE}/{name}", self.programs)
        os.environ["POSTERN_BUILD"] = self.programs

    def _start_servers(self):
        for pod in self.pods.values():
            pod.sysctl("net.ipv4.ip_unprivileged_port_start", 0)  # as container runtimes do
        self._start_nginx("frontend", "frontend.conf")
        self._start_nginx("ingress-nginx", "ingress.conf")
        database = self.pods["database"]
        # The sidecar connects from the pod's own address: to Redis everybody is remote.
        database.start(["redis-server", "--port", 6379, "--bind", "0.0.0.0", "::", "--protected-mode", "no", "--save", "", "--dir", "/"],
                       uid=APPLICATION_UID)
        self.backend = self.pods["backend"].start([PYTHON, f"{self.programs}/backend.py", database.v4], uid=APPLICATION_UID)
        for pod, port in (("frontend", 80), ("ingress-nginx", 80), ("backend", 8080), ("database", 6379)):
            self.pods[pod].wait_listening(port, process=self.pods[pod].processes[0])
        database.run(["redis-cli", "-h", "127.0.0.1", "set", "offer", OFFER], check=True)

    def _start_nginx(self, pod, configuration):
        folder = f"{self.pods[pod].folder}/nginx"
        os.mkdir(folder)
        os.chown(folder, APPLICATION_UID, APPLICATION_UID)
        with open(f"{HERE}/nginx/{configuration}", encoding="utf-8") as template, open(f"{folder}/nginx.conf", "w", encoding="utf-8") as out:
            out.write(string.Template(template.read()).substitute(self.values))
        self.pods[pod].start(["nginx", "-e", "stderr", "-p", folder, "-c", f"{folder}/nginx.conf"], uid=APPLICATION_UID)

    def manifest(self, name, audited):
        """The text of a manifest; `audited`: the policies in audit, with what each is to replace."""
        with open(f"{self.manifests}/{name}.yaml", encoding="utf-8") as file:
            text = string.Template(file.read()).substitute(self.values)
        return in_audit(text, audited[name]) if name in audited else text

    def by_hand(self):
        """How a person goes on: commands, for --hold."""
        pods = self.pods
        enter = lambda pod: f"ip netns exec {pods[pod].namespace}"
        sidecar = self.sidecars["frontend"]
        return f"""  # what each may reach (the connections of root are redirected; curl -6 and the IPv6 address work as well)
  {enter('intruder')} curl -sS http://{pods['frontend'].v4}/
  {enter('intruder')} curl -sS http://{pods['backend'].v4}:8080/catalogue
  {enter('intruder')} redis-cli -h {pods['database'].v4} ping
  {enter('ingress-nginx')} curl -sS http://127.0.0.1/catalogue
  {enter('frontend')} curl -sSg 'http://[{pods['backend'].v6}]:8080/catalogue'

  # what the sidecars say
  tail -f {self.sidecars['backend'].log_path}
  {self.programs}/cli/posternctl proxy allow-list --socket {sidecar.admin_path}
  {self.programs}/cli/posternctl proxy connections --socket {sidecar.admin_path}
  {enter('frontend')} curl -sS http://127.0.0.1:15020/metrics
  {enter('frontend')} iptables -t nat -S

{self.source.by_hand()}"""

    def adopt(self, *frontend_policies, audited=None):
        """Replaces the policies: those that always hold, and these. Returns how to wait until every sidecar enforces them."""
        return self.source.adopt(lambda: self.source.publish(frontend_policies, audited or {}))

    def bound_svid(self, pod, uid=None, authority=None, **how):
        """An SVID of that pod, or of one of the same name and another UID."""
        namespace, account = PODS[pod]
        return (authority or self.authority).issue(spiffe_id(TRUST_DOMAIN, namespace, account, pod, uid or self.uids[pod]), **how)

    def own_credentials(self, pod):
        """Certificate and key of that pod, for present()."""
        identity = self.sidecars[pod].config["identity"]
        return identity["certificate"], identity["key"]

    def present(self, address, port, *credentials):
        """Runs present.py in the intruder, as the user whose connections are not redirected."""
        return self.pods["intruder"].run([PYTHON, f"{self.programs}/present.py", address, port, *credentials], uid=PROXY_UID, check=True).stdout

    def accepted_by_backend(self):
        """How many connections backend's server has accepted so far."""
        return self.backend.output().count("accepted\n")
