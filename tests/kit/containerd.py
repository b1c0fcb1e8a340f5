"""A containerd of a test's own, with runc and without Kubernetes: images are imported, and run as they say.

    missing = lacks()                         # what keeps this machine from running one, or ""
    containerd = Containerd("/tmp/x")         # its files are there; ends with close(), or at exit
    containerd.load("image.tar")
    done = containerd.run("docker.io/postern/posternctl:1", "posternctl", "--help")     # CompletedProcess

It is in mount and pid namespaces of its own, and so are its containers; the machine's is not asked. Only cgroups are the machine's, and removed."""

import json
import os
import pathlib
import shutil
import subprocess

from kit import cgroups
from kit.processes import Process, at_end, not_at_end
from kit.waiting import patience, wait_until

# What would ask for file systems, networks or devices that this has no use for.
DISABLED = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
            "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]


def lacks():
    """What this machine lacks to run one, in words; "" if nothing."""
    found = [f"the program {name} (./dev setup cluster)" for name in ("containerd", "ctr", "runc", "unshare") if not shutil.which(name)]
    return ", ".join(found + (cgroups.lacks() if os.geteuid() == 0 else ["root"]))


class Containerd:
    """containerd, started; `folder` keeps its state and must be on a file system that keeps owners and modes."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.group = f"/postern-containerd-{os.getpid()}"
        self._containers = 0
        at_end(self.close)
        config = self.folder / "containerd.toml"
        config.write_text(f'version = 2\nroot = "{self.folder}/root"\nstate = "{self.folder}/state"\ndisabled_plugins = {DISABLED}\n'
                          f'[grpc]\naddress = "{self.folder}/socket"\n', encoding="ascii")
        # The shims have their sockets and runc its state under /run.
        self.process = Process(["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
                                "sh", "-ec", 'mount -t tmpfs -o mode=755 none /run && exec containerd --config "$0"', config],
                               output=self.folder / "containerd.log", name="containerd")
        wait_until(lambda: self._ctr("version").returncode == 0, 20, lambda: f"containerd:\n{self.process.output()[-3000:]}", interval=0.1)

    def close(self):
        """Ends it with its containers, and removes their cgroups. The folder stays."""
        not_at_end(self.close)
        self.process.kill()
        wait_until(lambda: cgroups.remove(self.group), 20, f"the cgroups {self.group} to be empty", interval=0.1)

    def load(self, archive):
        """Imports the images of an archive."""
        done = self._ctr("images", "import", "--snapshotter", "native", archive)
        if done.returncode != 0:
            raise RuntimeError(f"ctr images import {archive}: {done.stderr}")

    def run(self, image, *command, deadline=60.0):
        """Runs a command, or without one the image's entrypoint, in a new container to its end: read-only root, and no network but a loopback. Its
        CompletedProcess; in `spec`, how it was run (OCI runtime-spec)."""
        self._containers += 1
        name = f"c{self._containers}"
        done = self._ctr("run", "--snapshotter", "native", "--fifo-dir", self.folder / "fifos", "--cgroup", f"{self.group}/{name}", "--read-only",
                         image, name, *command, deadline=deadline)
        done.spec = json.loads(self._ctr("containers", "info", "--spec", name).stdout or "null")
        self._ctr("containers", "delete", name)
        return done

    def _ctr(self, *arguments, deadline=60.0):
        return subprocess.run(["ctr", "--address", f"{self.folder}/socket", *map(str, arguments)], capture_output=True, text=True, check=False,
                              timeout=patience(deadline))
