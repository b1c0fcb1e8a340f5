"""Cgroups that containers of a test are in: version 2, or every hierarchy of version 1.

    missing = lacks()                # what keeps this machine from having them, or ""
    remove("/postern-x")             # the group and all under it; False while processes are left in it
"""

import contextlib
import glob
import os
import pathlib

CGROUPS = "/sys/fs/cgroup"
CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory")  # of version 1, those that a kubelet asks for; runc uses whatever is mounted


def hierarchies():
    """The folders under which cgroups are: one, or with version 1 one for each controller; none: something is missing."""
    if os.path.exists(f"{CGROUPS}/cgroup.controllers"):
        with open(f"{CGROUPS}/cgroup.controllers", encoding="ascii") as file:
            return [CGROUPS] if {"cpu", "cpuset", "memory", "pids"} <= set(file.read().split()) else []
    if not all(os.path.isdir(f"{CGROUPS}/{name}") for name in CONTROLLERS):
        return []
    return [folder for folder in sorted(glob.glob(f"{CGROUPS}/*")) if os.path.exists(f"{folder}/cgroup.procs") and not os.path.islink(folder)]


def lacks():
    """What this machine lacks, as a list of words."""
    mounted = hierarchies()
    found = [] if mounted else [f"cgroups with {', '.join(CONTROLLERS)} under {CGROUPS}"]
    for folder in mounted:
        try:
            os.mkdir(f"{folder}/postern-probe-{os.getpid()}")
            os.rmdir(f"{folder}/postern-probe-{os.getpid()}")
        except OSError as error:
            found.append(f"the right to make cgroups in {folder} ({error.strerror})")
    return found


def make(group):
    """The group `group` ("/postern-x") in every hierarchy."""
    for folder in hierarchies():
        os.makedirs(f"{folder}{group}", exist_ok=True)
        _inherit_cpuset(f"{folder}{group}")


def remove(group):
    """The group and all under it; False while processes are left in it."""
    left = False
    for folder in hierarchies():
        for path, _, _ in os.walk(f"{folder}{group}", topdown=False):
            with contextlib.suppress(FileNotFoundError):
                try:
                    os.rmdir(path)
                except OSError:
                    left = True
    return not left


def _inherit_cpuset(path):
    """A cpuset of version 1 starts out empty, and then takes no process."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = pathlib.Path(path, name)
        if file.exists() and not file.read_text(encoding="ascii").strip():
            file.write_text(pathlib.Path(path).parent.joinpath(name).read_text(encoding="ascii"), encoding="ascii")
