"""A Kubernetes node on this machine: kubelet, containerd with runc, kube-proxy and Debian's CNI plugins, beside the API server of kit.kube, which
gets its controllers and scheduler here. With tests/node (`./dev cluster` builds it) and Debian's packages; no registry, no daemon of the machine's.

    missing = lacks()                    # what keeps this machine from running one, or ""
    node = Node(net.pod("node"))         # a cluster of one node, Ready; node.api, node.kubectl("get", "pods")
    node.load("image.tar")               # an OCI archive, for every pod
    node.kubectl("exec", "POD", "--", "true")
    node.close()                         # or at exit

All of it is in a network namespace (a pod of kit.pods) and in mount and pid namespaces of its own, where /run, /var and the settings of the kernel
that a kubelet wants are its own too; the machine's stay as they are. Only its cgroups are the machine's: they are under /postern-<prefix>."""

import json
import os
import pathlib
import shutil
import subprocess

from kit import cgroups
from kit.cluster_names import ClusterNames
from kit.image import Image
from kit.kube import KubeServer
from kit.processes import at_end, not_at_end, run
from kit.waiting import wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = "node0"
PODS = "10.244.0.0/24"      # addresses of pods; the bridge, which is their way out, has the first
PODS_V6 = "fd44::/64"
GATEWAY = "10.244.0.1"
PLUGINS = "/usr/lib/cni"
# What the kubelet would set for the whole machine (protectKernelDefaults): in its view of /proc they are so already.
KERNEL_SETTINGS = {"vm/overcommit_memory": 1, "vm/panic_on_oom": 0, "kernel/panic": 10, "kernel/panic_on_oops": 1,
                   "kernel/keys/root_maxkeys": 1000000, "kernel/keys/root_maxbytes": 25000000}


def program():
    """The built binary of tests/node."""
    return str(pathlib.Path(os.environ.get("POSTERN_NODE", ROOT / "build/node/node")))


def lacks():
    """What this machine lacks to run a node, in words; "" if nothing."""
    found = []
    if not os.access(program(), os.X_OK):
        found.append(f"{program()} (./dev cluster builds it)")
    found += [f"the program {name} (./dev setup cluster)" for name in ("containerd", "runc", "iptables", "nsenter", "unshare") if not shutil.which(name)]
    found += [f"{PLUGINS}/{name} (./dev setup cluster)" for name in ("bridge", "host-local", "loopback") if not os.path.exists(f"{PLUGINS}/{name}")]
    if os.geteuid() != 0:
        return ", ".join(found + ["root"])
    found += cgroups.lacks()
    done = subprocess.run(["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "sh", "-c", "mount -t tmpfs none /mnt && ip link add br0 type bridge"],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        found.append(f"mount, pid and network namespaces with a bridge in them ({done.stderr.strip()})")
    return ", ".join(found)


class Node:
    """A cluster of one node, in `pod` of kit.pods. The API server and etcd run there too: they reach ClusterIPs as kube-proxy makes them."""

    def __init__(self, pod):
        self.pod = pod
        self.folder = pathlib.Path(pod.folder)
        self.cgroup = f"/postern-{pod.network.prefix}"
        self._tasks = {}
        self.kube = KubeServer(self.folder / "kube", pod=pod, start=False, accounts=True, extra=self._kubelet_access())
        users = {"kubelet": (f"system:node:{NAME}", "system:nodes"), "kube-proxy": ("system:kube-proxy", ""),
                 "kube-scheduler": ("system:kube-scheduler", ""), "kube-controller-manager": ("system:kube-controller-manager", "")}
        self.kubeconfigs = {name: self.kube.write_kubeconfig(name, self.kube.add_user(*user)) for name, user in users.items()}
        self.kube.start()
        self.api = self.kube.api()
        at_end(self.close)
        self._start_controllers()
        self.names = ClusterNames(self.kube, pod)
        self._enter_namespaces()
        self._start_containerd()
        self._start_kubelet()
        self._start_kube_proxy()
        self.wait_ready()

    def close(self):
        """Ends everything and removes its cgroups. The folder is the pod's."""
        not_at_end(self.close)
        if getattr(self, "names", None):
            self.names.close()
        self.api.close()
        if getattr(self, "init", None):
            self.init.kill()  # the kernel kills everything in its pid namespace with it
        self.pod.kill_all()
        self.kube.stop()
        wait_until(lambda: cgroups.remove(self.cgroup), 20, f"the cgroups {self.cgroup} to be empty", interval=0.1)

    # What tests ask of it.

    def kubectl(self, *arguments, stdin=None, check=True, deadline=60.0):
        """Runs kubectl as the admin, where the API server is; returns its output, or with check=False the CompletedProcess."""
        done = self.pod.run([program(), "kubectl", "--kubeconfig", self.kube.kubeconfig, *arguments], stdin=stdin, deadline=deadline, check=check)
        return done.stdout if check else done

    def load(self, archive):
        """Puts the image of an OCI archive on the node."""
        self.inside("ctr", "--namespace", "k8s.io", "images", "import", "--snapshotter", self.snapshotter, archive, deadline=120)

    def inside(self, *argv, deadline=30.0):
        """Runs a program in the node's namespaces to its end; its output."""
        return run([*self._enter, *argv], deadline=deadline, check=True).stdout

    def processes(self):
        """The node's /proc, from here: its containers by their process ids there."""
        return f"/proc/{self._init}/root/proc"

    def task(self, container):
        """The process id, on the node, of a container's first process."""
        if container not in self._tasks:
            lines = self.inside("ctr", "--namespace", "k8s.io", "tasks", "list").splitlines()[1:]
            self._tasks.update((fields[0], int(fields[1])) for fields in map(str.split, lines))
        return self._tasks[container]

    def wait_ready(self):
        """Until the API server says that the node is Ready."""
        def look():
            if not self.kubelet.alive():
                raise SystemError("the kubelet has ended")
            return any(c["type"] == "Ready" and c["status"] == "True" for c in self.api.get("Node", NAME)["status"]["conditions"])
        wait_until(look, 90, lambda: f"the node to be Ready:\n{self.kubelet.output()[-3000:]}", interval=0.2)

    # How it is made.

    def _kubelet_access(self):
        """How the API server proves to the kubelet who it is (exec, logs)."""
        return ["--authorization-mode=Node", "--enable-admission-plugins=NodeRestriction", f"--kubelet-client-certificate={self.folder}/kube/kubelet-client.crt",
                f"--kubelet-client-key={self.folder}/kube/kubelet-client.key", "--kubelet-preferred-address-types=InternalIP"]

    def _start_controllers(self):
        kube = self.folder / "kube"
        self.controllers = self._start(self.pod.start, "kube-controller-manager", [
            "--leader-elect=false", "--secure-port=0", "--controllers=*", "--use-service-account-credentials=true", "--allocate-node-cidrs=true", f"--cluster-cidr={PODS}", "--node-cidr-mask-size=24",
            f"--service-account-private-key-file={kube}/account.key", f"--root-ca-file={self.kube.authority}", "--concurrent-gc-syncs=2"])
        self.scheduler = self._start(self.pod.start, "kube-scheduler", ["--leader-elect=false", "--secure-port=0"])

    def _start(self, start, name, flags):
        return start([program(), name, f"--kubeconfig={self.kubeconfigs[name]}", *flags], output=str(self.folder / f"{name}.log"), name=name)

    def _start_inside(self, argv, **options):
        return self.pod.start([*self._enter, *argv], **options)

    def _enter_namespaces(self):
        """A process that the others are under: it stays, and reaps whatever is left to it."""
        self.init = self.pod.start(["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
                                    "bash", "-c", "echo inside; while :; do sleep 1000 & wait; done"], name="init")
        self.init.wait_for_output("inside")
        children = pathlib.Path(f"/proc/{self.init.pid}/task/{self.init.pid}/children")
        self._init = wait_until(lambda: children.read_text(encoding="ascii").split(), 5, "the process in the new namespaces")[0]
        self._enter = ["nsenter", "--target", self._init, "--mount", "--pid", "--net"]
        var, settings = self.folder / "var", self.folder / "settings"
        for name in ("lib/kubelet", "lib/containerd", "lib/cni", "log/pods", "log/containers", "cache", "tmp"):
            (var / name).mkdir(parents=True)
        os.symlink("/run", var / "run")
        lines = [f"mount --bind {var} /var", "mount -t tmpfs -o mode=755 none /run"]
        for number, (name, value) in enumerate(KERNEL_SETTINGS.items()):
            settings.mkdir(exist_ok=True)
            (settings / str(number)).write_text(f"{value}\n", encoding="ascii")
            lines.append(f"mount --bind {settings}/{number} /proc/sys/{name}")
        # Packets between pods on the bridge pass iptables too, or the answers of Services would come from elsewhere.
        lines += ["echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables", "echo 1 >/proc/sys/net/ipv4/ip_forward"]
        self.inside("sh", "-ec", "\n".join(lines))
        cgroups.make(self.cgroup)

    def _start_containerd(self):
        self.snapshotter = self._snapshotter()
        networks = self.folder / "networks"
        networks.mkdir()
        bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": {
            "type": "host-local", "ranges": [[{"subnet": PODS, "gateway": GATEWAY}], [{"subnet": PODS_V6}]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}
        (networks / "bridge.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}), encoding="ascii")
        config = self.folder / "containerd.toml"
        config.write_text(f"""version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/postern-kit/pause:1"
  enable_unprivileged_ports = true
  # Lower values than one's own need CAP_SYS_RESOURCE, which root of a virtual machine or a container may not have.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{self.snapshotter}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{networks}"
""", encoding="ascii")
        self.containerd = self._start_inside(["containerd", "--config", str(config)], output=str(self.folder / "containerd.log"), name="containerd")
        wait_until(lambda: self.inside("ctr", "version"), 20, lambda: f"containerd:\n{self.containerd.output()[-3000:]}", interval=0.1)
        self.load(Image("docker.io/postern-kit/pause:1", ["/usr/bin/sleep", "infinity"]).add("/usr/bin/sleep").write(f"{self.folder}/pause.tar"))

    def _snapshotter(self):
        """overlayfs where it works on the folder's file system, else copies."""
        script = f"cd {self.folder} && mkdir -p probe/a probe/b probe/c probe/d && mount -t overlay none -o lowerdir=probe/a,upperdir=probe/b,workdir=probe/c probe/d"
        works = subprocess.run([*self._enter, "unshare", "--mount", "sh", "-ec", script], capture_output=True, check=False).returncode == 0
        return "overlayfs" if works else "native"

    def _start_kubelet(self):
        resolver = self.folder / "resolv.conf"
        resolver.write_text("", encoding="ascii")
        config = self.folder / "kubelet.json"
        config.write_text(json.dumps({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": False}, "x509": {"clientCAFile": self.kube.authority}},
            "authorization": {"mode": "AlwaysAllow"}, "cgroupDriver": "cgroupfs", "cgroupRoot": self.cgroup, "failCgroupV1": False, "failSwapOn": False,
            "clusterDNS": [self.pod.v4], "clusterDomain": "cluster.local", "resolvConf": str(resolver), "protectKernelDefaults": True,
            "readOnlyPort": 0, "healthzPort": 0, "syncFrequency": "10s", "nodeStatusUpdateFrequency": "2s", "localStorageCapacityIsolation": False,
            "imageGCHighThresholdPercent": 100, "evictionHard": {"memory.available": "100Mi"}, "maxPods": 60, "registerWithTaints": [],
            "serializeImagePulls": False, "podPidsLimit": -1, "kubeAPIQPS": 200, "kubeAPIBurst": 400}), encoding="ascii")
        self.kubelet = self._start(self._start_inside, "kubelet", [
            f"--config={config}", f"--hostname-override={NAME}", f"--node-ip={','.join(self.pod.addresses())}", "--root-dir=/var/lib/kubelet", "--cert-dir=/var/lib/kubelet/pki"])

    def _start_kube_proxy(self):
        config = self.folder / "kube-proxy.json"
        config.write_text(json.dumps({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "iptables", "hostnameOverride": NAME, "clusterCIDR": PODS,
            "clientConnection": {"kubeconfig": self.kubeconfigs["kube-proxy"]}, "healthzBindAddress": "", "metricsBindAddress": "",
            # Of the machine's connection tracking nothing is changed.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "iptables": {"localhostNodePorts": False, "minSyncPeriod": "0s"}}), encoding="ascii")
        self.kube_proxy = self._start_inside([program(), "kube-proxy", f"--config={config}"], output=str(self.folder / "kube-proxy.log"), name="kube-proxy")
