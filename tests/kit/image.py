"""Container images of what is installed on this machine, for the applications of tests in a cluster: no registry, no daemon. The archives are
written as tools/images writes those of Postern itself.

    image = Image("docker.io/app/tools:1")
    image.add("/usr/sbin/nginx", "/usr/bin/python3")    # programs with the shared libraries that they need; folders whole
    image.add_text("/etc/passwd", "nobody:x:65534:65534::/:/bin/false\\n")
    image.write("tools.tar")                            # for `ctr images import`
"""

import gzip
import os
import pathlib
import re
import subprocess
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "tools/images"))

import oci  # noqa: E402
from root_filesystem import LINKS, is_elf, merged  # noqa: E402

FOLDERS = ("dev", "etc", "proc", "run", "sys", "tmp")


class Image:
    """One layer. `name` is its full reference; `entrypoint` what runs when a pod names no command."""

    def __init__(self, name, entrypoint=()):
        self.name, self.entrypoint = name, list(entrypoint)
        self._entries = {**{path: ("link", target) for path, target in LINKS.items()}, **{path: ("dir",) for path in FOLDERS}}

    def add(self, *paths, leave_out=()):
        """Files and whole folders, by their paths here; of programs and libraries also the libraries that they load. leave_out: names."""
        found = []
        for path in paths:
            if not os.path.exists(path):
                raise FileNotFoundError(f"{path} is missing: it belongs into the image {self.name}. Run: ./dev setup cluster")
            if not os.path.isdir(path):
                found.append(path)
            for folder, folders, files in os.walk(path):
                folders[:] = [f for f in folders if f not in leave_out]
                found += [f"{folder}/{file}" for file in files if file not in leave_out]
        for path in found + _libraries([path for path in found if is_elf(path)]):
            self._put(merged(path), ("file", 0o755 if os.access(path, os.X_OK) else 0o644, path))
        return self

    def add_text(self, path, text):
        self._put(path.lstrip("/"), ("text", text))
        return self

    def write(self, path):
        """The archive; returns its path."""
        layer = oci.layer_tar(self._entries, 0)
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
        config = {"architecture": machine, "os": "linux", "config": {"Entrypoint": self.entrypoint, "Env": ["PATH=/usr/sbin:/usr/bin"]},
                  "rootfs": {"type": "layers", "diff_ids": [oci.sha256(layer)]}}
        oci.write_archive(path, self.name, oci.canonical(config), gzip.compress(layer, 1, mtime=0), 0)
        return path

    def _put(self, path, entry):
        self._entries[path] = entry
        while path := os.path.dirname(path):
            self._entries.setdefault(path, ("dir",))


def _libraries(paths):
    """What these are linked to, and the loader."""
    said = subprocess.run(["ldd", *paths], capture_output=True, text=True, check=False).stdout if paths else ""
    return sorted(set(re.findall(r"(?:^|\s)(/\S+) \(0x", said)))
