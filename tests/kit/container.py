"""One container of a pod as its spec says, without a kubelet: an image's root file system read-only, the command, environment, files, user and
capabilities of the spec, in the network namespace of a kit pod.

    root = root_filesystems(folder)["postern-proxy"]                   # made from the programs of this build, by tools/images
    process = start(pod, root, command=[...], env={...}, mounts={"/run/postern": None, "/etc/postern": Mount(path)}, uid=1337)
"""

import ctypes
import json
import os
import pathlib
import stat
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGES = ("postern-proxy", "postern-control", "posternctl")
PATH = "/usr/sbin:/usr/bin"  # of the images

CLONE_NEWNS = 0x20000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
CAPABILITIES = {"NET_ADMIN": 12, "NET_RAW": 13}  # those that a spec of ours adds
LAST_CAPABILITY = 40
DEVICES = {"null": (1, 3), "zero": (1, 5), "random": (1, 8), "urandom": (1, 9)}


def root_filesystems(folder):
    """Image -> the folder with its files."""
    from kit.sidecar import program  # pylint: disable=import-outside-toplevel
    tree = pathlib.Path(program("postern-proxy")).parents[1]
    done = subprocess.run([sys.executable, ROOT / "tools/images/assemble.py", "--tree", tree, "--root-filesystem", folder, *IMAGES],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the images could not be assembled:\n{done.stdout}{done.stderr}")
    return {image: f"{folder}/{image}" for image in IMAGES}


def start(pod, root, *, command, env=None, mounts=None, uid=0, gid=None, capabilities=(), name=None):
    """Starts it: a kit Process. `mounts`: where -> a folder or file of this machine (read-only), or None for a memory-backed volume."""
    settings = {"root": root, "command": [str(part) for part in command], "env": {"PATH": PATH, **(env or {})}, "mounts": mounts or {},
                "uid": uid, "gid": uid if gid is None else gid, "capabilities": list(capabilities)}
    path = f"{pod.folder}/{name or os.path.basename(command[0])}-{len(pod.processes)}.container.json"
    with open(path, "w", encoding="utf-8") as file:
        json.dump(settings, file)
    return pod.start([sys.executable, os.path.abspath(__file__), path], name=name or os.path.basename(command[0]))


def expanded(container, metadata):
    """The environment of a container's spec: fieldRefs, and $(NAME) of what stands before."""
    env = {}
    for entry in container.get("env", []):
        if "valueFrom" in entry:
            env[entry["name"]] = metadata[entry["valueFrom"]["fieldRef"]["fieldPath"].removeprefix("metadata.")]
            continue
        value = entry["value"]
        for name, known in env.items():
            value = value.replace(f"$({name})", known)
        env[entry["name"]] = value
    return env


# In the new process, before it becomes the container's.

def _mount(source, target, kind, flags, options=None):
    libc = ctypes.CDLL(None, use_errno=True)
    texts = [text.encode() if text is not None else None for text in (source, target, kind)]
    if libc.mount(*texts, ctypes.c_ulong(flags), options.encode() if options else None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {source} {target}: {os.strerror(number)}")


def _enter(settings):
    libc = ctypes.CDLL(None, use_errno=True)
    root = settings["root"]
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount(root, root, None, MS_BIND)
    _mount("proc", f"{root}/proc", "proc", 0)
    _mount("tmpfs", f"{root}/dev", "tmpfs", 0, "mode=755")
    for name, (major, minor) in DEVICES.items():
        os.mknod(f"{root}/dev/{name}", 0o666 | stat.S_IFCHR, os.makedev(major, minor))
        os.chmod(f"{root}/dev/{name}", 0o666)
    os.mkdir(f"{root}/dev/shm")
    os.chmod(f"{root}/dev/shm", 0o1777)
    for where, source in settings["mounts"].items():
        target = root + where
        if source is None or os.path.isdir(source):
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "a", encoding="ascii"):
                pass
        if source is None:
            _mount("tmpfs", target, "tmpfs", 0, "mode=777,size=64m")
        else:
            _mount(source, target, None, MS_BIND)
            _mount(None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY)
    _mount(None, root, None, MS_BIND | MS_REMOUNT | MS_RDONLY)
    os.chroot(root)
    os.chdir("/")
    kept = {CAPABILITIES[name] for name in settings["capabilities"]}
    for capability in range(LAST_CAPABILITY + 1):
        if capability not in kept:
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(*[settings["gid"]] * 3)
    os.setresuid(*[settings["uid"]] * 3)
    libc.prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0)
    os.execvpe(settings["command"][0], settings["command"], settings["env"])


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as given:
        _enter(json.load(given))
