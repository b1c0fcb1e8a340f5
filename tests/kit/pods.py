"""Pods as network namespaces on one bridge, dual stack, for end-to-end tests and the demo. Standard library only; root is needed.

    from kit.pods import Network

    net = Network()                                  # a bridge in a namespace of its own
    web, client = net.pod("web"), net.pod("client")  # 10.77.0.x and fd77::x; names like pt4711-web for `ip netns exec`
    server = web.start([...], uid=1000)              # a kit.processes.Process inside the pod
    web.wait_listening(80)
    with client.connect(web.v4, 80) as s: ...        # a socket of the pod, made in this very process
    done = client.run(["curl", "-s", f"http://{web.v4}/"])   # to its end: .returncode .stdout .stderr
    net.close()                                      # or at exit, also after a failure, Ctrl-C or SIGTERM

kit.pki makes certificates, kit.sidecar starts postern-proxy in a pod, kit.waiting waits.

Everything that a Network made (namespaces, processes, its temporary folder) is gone after close(). What a killed (-9) run left behind is
removed by the next one. Every pod has its default route on the bridge itself: any address given to any pod can be reached by all.
"""

import contextlib
import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

from kit.processes import CLONE_NEWNET, LIBC, Process, at_end, not_at_end, run, setns
from kit.waiting import patience, wait_until

NETNS = "/run/netns"
OWNERS = "/run/postern-kit"  # <prefix>: "<pid> <start time>" of the process that owns the namespaces <prefix>-*


def _ip(*arguments, batch=None):
    done = subprocess.run(["ip", *arguments], input=batch, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}" + (f"\n{batch}" if batch else ""))
    return done.stdout


def _start_time(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rsplit(")", 1)[1].split()[19]


def _remove_namespaces(prefix):
    if not os.path.isdir(NETNS):
        return
    for name in sorted(os.listdir(NETNS)):
        if not name.startswith(prefix + "-"):
            continue
        pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout.split()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def sweep():
    """Removes the namespaces of owners that are no more."""
    if not os.path.isdir(OWNERS):
        return
    for prefix in os.listdir(OWNERS):
        path = f"{OWNERS}/{prefix}"
        try:
            with open(path, encoding="ascii") as file:
                pid, started = file.read().split()
            if _start_time(pid) == started:
                continue
        except (OSError, ValueError):
            pass
        _remove_namespaces(prefix)
        for folder in glob.glob(f"{tempfile.gettempdir()}/postern-{prefix}-*"):
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


class Network:
    """The bridge and its pods. `prefix` begins the names of its namespaces; the default is unique to this Network."""

    _count = 0

    def __init__(self, prefix=None):
        if os.geteuid() != 0:
            raise PermissionError("network namespaces need root")
        sweep()
        if prefix is None:
            Network._count += 1
            prefix = f"pt{os.getpid()}" + (f"x{Network._count}" if Network._count > 1 else "")
        self.prefix = prefix
        self.pods = {}
        self._owner = f"{OWNERS}/{prefix}"
        os.makedirs(OWNERS, exist_ok=True)
        try:
            with open(self._owner, "x", encoding="ascii") as file:
                file.write(f"{os.getpid()} {_start_time(os.getpid())}")
        except FileExistsError:
            raise RuntimeError(f"another process has a network called '{prefix}' ({self._owner}): end it first") from None
        at_end(self.close)
        self.folder = tempfile.mkdtemp(prefix=f"postern-{prefix}-")  # for configurations, output, sockets; removed at the end
        os.chmod(self.folder, 0o755)
        self.namespace = f"{prefix}-net"
        _ip("netns", "add", self.namespace)
        _ip("-n", self.namespace, "-batch", "-", batch="""
            link set lo up
            link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
            link set br0 up""")

    def pod(self, name, v4=None, v6=None, *, ipv6=True, addresses=()):
        """A new pod. Addresses are given in order of creation unless named; `addresses` are further ones."""
        number = 10 + len(self.pods)
        pod = Pod(self, name, v4 or f"10.77.0.{number}", (v6 or f"fd77::{number}") if ipv6 else None, addresses)
        self.pods[name] = pod
        return pod

    def close(self):
        """Ends every process in the pods and removes them."""
        not_at_end(self.close)
        for pod in self.pods.values():
            pod.kill_all()
        _remove_namespaces(self.prefix)
        shutil.rmtree(getattr(self, "folder", ""), ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._owner)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Pod:
    """A network namespace with lo and eth0. Made by Network.pod()."""

    def __init__(self, network, name, v4, v6, addresses):
        self.network, self.name, self.v4, self.v6 = network, name, v4, v6
        self.namespace = f"{network.prefix}-{name}"  # for `ip netns exec`
        self.path = f"{NETNS}/{self.namespace}"
        self.folder = f"{network.folder}/{name}"
        self.processes = []
        os.mkdir(self.folder)
        os.chmod(self.folder, 0o755)
        _ip("netns", "add", self.namespace)
        port = f"veth{len(network.pods)}"
        _ip("-n", network.namespace, "-batch", "-", batch=f"""
            link add {port} type veth peer name eth0 netns {self.namespace}
            link set {port} master br0 up""")
        if v6 is None:
            self.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
        else:
            for scope in ("all", "default"):
                self.sysctl(f"net.ipv6.conf.{scope}.accept_dad", 0)
            self.sysctl("net.ipv6.conf.eth0.accept_dad", 0)
        lines = ["link set lo up", "link set eth0 up"]
        for address in filter(None, (v4, v6, *addresses)):
            lines.append(f"addr add {address}/{'64' if ':' in address else '24'} dev eth0" + (" nodad" if ":" in address else ""))
        lines.append("route add 0.0.0.0/0 dev eth0")
        if v6:
            lines.append("route add ::/0 dev eth0")
        _ip("-n", self.namespace, "-batch", "-", batch="\n".join(lines))

    def addresses(self):
        """Its first IPv4 and IPv6 address, those that it has."""
        return [a for a in (self.v4, self.v6) if a]

    def start(self, argv, *, uid=0, gid=None, env=None, cwd=None, output=None, stdin=subprocess.DEVNULL, name=None):
        """Starts a program inside; its output goes to a file in the pod's folder unless `output` names another."""
        name = name or os.path.basename(str(argv[0]))
        output = output or f"{self.folder}/{name}-{len(self.processes)}.out"
        process = Process(argv, namespace=self.path, uid=uid, gid=gid, env=env, cwd=cwd, output=output, stdin=stdin,
                          name=f"{self.name}/{name}")
        self.processes.append(process)
        return process

    def run(self, argv, *, uid=0, deadline=30.0, stdin=None, check=False):
        """Runs a program inside to its end: a CompletedProcess. With check, a failure raises with all its output."""
        return run(argv, namespace=self.path, uid=uid, deadline=deadline, stdin=stdin, check=check)

    def kill_all(self):
        """Kills what start() started here."""
        for process in self.processes:
            process.kill()
        self.processes.clear()

    @contextlib.contextmanager
    def entered(self):
        """The calling thread is inside while this lasts; sockets made meanwhile stay the pod's."""
        home = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        fd = os.open(home, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(self.path)
            try:
                yield self
            finally:
                if LIBC.setns(fd, CLONE_NEWNET) != 0:
                    os._exit(70)  # a thread that cannot come home would test the wrong namespace from now on
        finally:
            os.close(fd)

    def socket(self, family=socket.AF_INET):
        """A TCP socket of this pod. It belongs to root, not to the sidecar's uid: its connections are redirected."""
        with self.entered():
            return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)

    def connect(self, address, port, *, timeout=10.0, source=None):
        """A connected TCP socket of this pod, with that timeout on every operation (see patience)."""
        s = self.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        try:
            s.settimeout(patience(timeout))
            if source:
                s.bind((source, 0))
            s.connect((address, port))
            return s
        except BaseException:
            s.close()
            raise

    def listen(self, port, address="", *, backlog=128):
        """A listening TCP socket of this pod; address "" is every IPv4 address, "::" every IPv6 one."""
        s = self.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in address:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind((address, port))
        s.listen(backlog)
        s.settimeout(patience(10.0))
        return s

    def listening_ports(self):
        """The TCP ports that something listens on here, without connecting to any."""
        ports = set()
        with self.entered():
            for table in ("tcp", "tcp6"):
                with contextlib.suppress(FileNotFoundError), open(f"/proc/thread-self/net/{table}", encoding="ascii") as file:
                    for line in file.readlines()[1:]:
                        fields = line.split()
                        if fields[3] == "0A":
                            ports.add(int(fields[1].rsplit(":", 1)[1], 16))
        return ports

    def wait_listening(self, *ports, deadline=10.0, process=None):
        """Waits until every one of the ports is listened on; gives up at once when `process` has ended."""
        def look():
            if process is not None and not process.alive():
                return "ended"
            return set(ports) <= self.listening_ports()
        output = lambda: f"\n{process.output()[-4000:]}" if process else ""
        if wait_until(look, deadline, lambda: f"{self.name} listening on {ports}{output()}") == "ended":
            raise RuntimeError(f"{process.name} has ended with {process.returncode} before it listened on {ports}:{output()}")

    def sysctl(self, name, value=None):
        """Reads or sets a sysctl of this namespace ("net.ipv6.conf.all.disable_ipv6")."""
        with self.entered():
            path = "/proc/sys/" + name.replace(".", "/")
            if value is None:
                with open(path, encoding="ascii") as file:
                    return file.read().strip()
            with open(path, "w", encoding="ascii") as file:
                file.write(str(value))
            return str(value)

    def link(self, up):
        """Takes eth0 down or up again: the pod off the network."""
        _ip("-n", self.namespace, "link", "set", "eth0", "up" if up else "down")

    def drop_arriving(self, port=None, *, dropped=True):
        """Drops (or no longer) arriving TCP packets, all or to one port, with no answer: a peer that has gone silent."""
        match = ["-p", "tcp"] + (["--dport", str(port)] if port else [])
        for tool in ("iptables", "ip6tables") if self.v6 else ("iptables",):
            self.run([tool, "-w", "-A" if dropped else "-D", "INPUT", *match, "-j", "DROP"], check=True)
