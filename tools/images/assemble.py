#!/usr/bin/env python3
"""Assembles the images from compiled programs and from the Debian packages installed where it runs: in the root file system that ./dev images
makes, in the Dockerfile, or on this machine."""

import argparse
import io
import json
import os
import subprocess
import tarfile
import tempfile

from oci import layer_tar, sha256, write_image
from root_filesystem import RootFilesystem
from sbom import spdx

LIMIT = 60_000_000

IPTABLES = [f"/usr/sbin/{family}-{kind}{action}" for family in ("iptables", "ip6tables") for kind in ("nft", "legacy") for action in ("-save", "-restore")]


class Image:
    def __init__(self, uid, programs, summary, debian=()):
        self.uid = uid
        self.programs = programs  # compiled file -> path in the image; the first is what the image runs
        self.summary = summary
        self.debian = debian

    def entrypoint(self):
        return os.path.basename(next(iter(self.programs.values())))


PROXY = {"proxy/postern-proxy": "usr/bin/postern-proxy"}
# `redirect install` runs iptables; its extensions are loaded by name.
IPTABLES_FILES = [*IPTABLES, "{libraries}/xtables"]
IMAGES = {
    "postern-proxy": Image(1337, PROXY, "the sidecar", IPTABLES_FILES),
    # With the module for SVIDs from a SPIFFE Workload API, which brings gRPC.
    "postern-proxy-spire": Image(
        1337, {**PROXY, "proxy/postern-workload-api.so": "usr/bin/postern-workload-api.so"}, "the sidecar, for SVIDs from a SPIFFE Workload API", IPTABLES_FILES
    ),
    "postern-control": Image(65532, {"control/postern-control": "usr/bin/postern-control"}, "the control plane"),
    "posternctl": Image(65532, {"cli/posternctl": "usr/bin/posternctl"}, "the command line tool"),
}


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def stripped(programs, tree, folder):
    """The programs without their debug information; their build IDs say which it was."""
    found = {}
    for source, path in programs.items():
        if not os.path.exists(os.path.join(tree, source)):
            raise SystemExit(f"{tree}/{source}: there is no such program; compile it first")
        target = os.path.join(folder, os.path.basename(source))
        output("strip", "--strip-unneeded", "-o", target, os.path.join(tree, source))
        found[target] = path
    return found


def root_filesystem(image, tree, folder):
    """What is in the image; `folder` keeps the programs as they go into it."""
    libraries = f"/usr/lib/{output('gcc', '-print-multiarch')}"
    files = RootFilesystem("postern", image.uid)
    for source, path in stripped(image.programs, tree, folder).items():
        files.add_program(source, path)
    for path in image.debian:
        files.add_debian(path.format(libraries=libraries))
    files.add_notices()
    return files


def unpack(name, arguments):
    """For the Dockerfile: the files alone."""
    with tempfile.TemporaryDirectory() as folder:
        tar = layer_tar(root_filesystem(IMAGES[name], arguments.tree, folder).entries, arguments.epoch)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        archive.extractall(os.path.join(arguments.root_filesystem, name))


def assemble(name, arguments):
    image = IMAGES[name]
    release = output("sh", "-c", '. /etc/os-release && echo "$VERSION_ID"')
    architecture = output("dpkg", "--print-architecture")
    with tempfile.TemporaryDirectory() as folder:
        files = root_filesystem(image, arguments.tree, folder)
        tar = layer_tar(files.entries, arguments.epoch)
    boost = output("sh", "-c", "dpkg-query -W -f '${Package}\\n' 'libboost1.*-dev' | head -n 1")
    document = spdx(name, arguments.version, arguments.revision, arguments.epoch, files.packages, [boost], release, sha256(tar))
    labels = {
        "org.opencontainers.image.title": name,
        "org.opencontainers.image.description": f"Postern: {image.summary}",
        "org.opencontainers.image.version": arguments.version,
        "org.opencontainers.image.revision": arguments.revision,
        "org.opencontainers.image.url": "https://postern.dev",
        "org.opencontainers.image.vendor": "Postern",
        "org.opencontainers.image.licenses": "Apache-2.0",
    }
    config = {
        "User": f"{image.uid}:{image.uid}",
        "Env": ["PATH=/usr/sbin:/usr/bin"],
        "Entrypoint": [image.entrypoint()],
        "WorkingDir": "/",
        "Labels": labels,
    }
    out = os.path.join(arguments.out, name)
    digest = write_image(out, out + ".tar", f"{arguments.repository}/{name}:{arguments.version}", tar, config, architecture, arguments.epoch)
    with open(out + ".spdx.json", "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1, sort_keys=True)
        file.write("\n")
    size, packed = len(tar), os.path.getsize(out + ".tar")
    print(f"    {name:<20} {packed / 1e6:5.1f} MB packed, {size / 1e6:5.1f} MB; {len(files.packages)} packages; {digest}")
    if size > LIMIT:
        raise SystemExit(f"{name} has {size} bytes; at most {LIMIT} are meant")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", required=True, help="build tree with the compiled programs")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", help="folder for the images")
    where.add_argument("--root-filesystem", help="folder for the files alone, one for each image")
    parser.add_argument("--version", default="0")
    parser.add_argument("--revision", default="unknown", help="commit that was compiled")
    parser.add_argument("--epoch", default=0, type=int, help="time of all files, in seconds (SOURCE_DATE_EPOCH)")
    parser.add_argument("--repository", default="postern", help="first part of the images' names (default: postern)")
    parser.add_argument("images", nargs="*", default=[], help=f"those to make (default: all of {', '.join(IMAGES)})")
    arguments = parser.parse_args()
    for name in arguments.images:
        if name not in IMAGES:
            parser.error(f"there is no image '{name}' (there are: {', '.join(IMAGES)})")
    if arguments.out:
        os.makedirs(arguments.out, exist_ok=True)
    for name in arguments.images or IMAGES:
        if arguments.root_filesystem:
            unpack(name, arguments)
        else:
            assemble(name, arguments)


if __name__ == "__main__":
    main()
