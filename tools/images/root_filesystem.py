"""The files of an image: the programs, what they need of Debian's packages to run, and nothing else (no shell, no package manager)."""

import os
import re
import subprocess

# Debian's merged /usr: what these once were are links.
LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "sbin": "usr/sbin"}

FILES = {
    "etc/passwd": "root:x:0:0:root:/:/usr/sbin/nologin\n{user}:x:{uid}:{uid}:{user}:/:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\n{user}:x:{uid}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


class RootFilesystem:
    """Paths without a leading slash -> ("dir",), ("link", target) or ("file", mode, path to read it from) or ("text", content)."""

    def __init__(self, user, uid):
        self.entries = {}
        self.packages = set()
        self._owners = owners()
        for path in ("dev", "etc", "proc", "run", "sys", "tmp", "usr/bin", "usr/lib", "usr/lib64", "usr/sbin"):
            self._make_folder(path)
        for path, target in LINKS.items():
            self.entries[path] = ("link", target)
        for path, text in FILES.items():
            self.entries[path] = ("text", text.format(user=user, uid=uid))
        self.entries["etc/os-release"] = ("text", open("/etc/os-release", encoding="utf-8").read())

    def add_program(self, source, path):
        """One of ours, compiled at `source`; with the libraries that it needs."""
        self._make_folder(os.path.dirname(path))
        self.entries[path] = ("file", 0o755, source)
        self._add_libraries(source)

    def add_debian(self, path):
        """A file, a link with what it points at, or a whole folder that a package brought."""
        if os.path.isdir(path):
            for name in sorted(os.listdir(path)):
                self.add_debian(os.path.join(path, name))
            return
        inside = merged(path)
        if inside in self.entries:
            return
        self._make_folder(os.path.dirname(inside))
        if os.path.islink(path):
            target = os.readlink(path)
            self.entries[inside] = ("link", target)
            self._own(inside, optional=True)
            self.add_debian(os.path.normpath(os.path.join(os.path.dirname(path), target)))
            return
        self.entries[inside] = ("file", 0o755 if os.access(path, os.X_OK) else 0o644, path)
        self._own(inside)
        if is_elf(path):
            self._add_libraries(path)

    def add_notices(self):
        """Each package's copyright notice, and its record in the form in which scanners look for packages of an image without dpkg."""
        for package in sorted(self.packages):
            notice = f"/usr/share/doc/{package}/copyright"
            folder = f"usr/share/doc/{package}"
            self._make_folder(folder)
            self.entries[f"{folder}/copyright"] = ("file", 0o644, os.path.realpath(notice))
            self._make_folder("var/lib/dpkg/status.d")
            record = subprocess.run(["dpkg-query", "--status", package], check=True, capture_output=True, text=True).stdout
            self.entries[f"var/lib/dpkg/status.d/{package}"] = ("text", record)

    def _add_libraries(self, path):
        listed = subprocess.run(["ldd", path], capture_output=True, text=True)
        if "not a dynamic executable" in listed.stderr or "statically linked" in listed.stdout:
            return
        missing = re.findall(r"(\S+) => not found", listed.stdout)
        if listed.returncode != 0 or missing:
            raise SystemExit(f"{path}: its libraries cannot be told: {' '.join(missing) or listed.stderr.strip()}")
        for library in re.findall(r"(?:=> )?(/\S+) \(0x", listed.stdout):
            self.add_debian(library)

    def _own(self, inside, optional=False):
        package = self._owners.get(inside)
        if package:
            self.packages.add(package)
        elif not optional:
            raise SystemExit(f"/{inside} is of no Debian package: what is in an image has to be named in its SBOM")

    def _make_folder(self, path):
        while path:
            self.entries.setdefault(path, ("dir",))
            path = os.path.dirname(path)


def merged(path):
    """The path without its leading slash, in the merged /usr."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)).lstrip("/")


def is_elf(path):
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def owners():
    """Path in the merged /usr -> the package that brought it."""
    found = {}
    folder = "/var/lib/dpkg/info"
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".list"):
            continue
        package = name[: -len(".list")].split(":")[0]
        with open(os.path.join(folder, name), encoding="utf-8") as listing:
            for line in listing:
                path = line.strip().lstrip("/")
                first = path.split("/", 1)[0]
                if first in LINKS:
                    path = LINKS[first] + path[len(first):]
                found[path] = package
    return found
